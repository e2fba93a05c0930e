#include "driver/engine_names.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/protocol.h"

namespace weft::driver {

namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kRetry{500};
constexpr std::chrono::milliseconds kLongestRetry{2000};  // of an engine that stays away
// type=container&event=start|die|rename|destroy, type=network&event=connect|disconnect; as JSON, percent-encoded.
constexpr const char* kFilters =
    "filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%2C%22event%22%3A%5B%22start%22%2C%22die%22%2C%22"
    "rename%22%2C%22destroy%22%2C%22connect%22%2C%22disconnect%22%5D%7D";

// Of objects that may be null or of another type: an empty one.
const json& child(const json& object, const char* name) {
    static const json kNothing;
    const auto found = object.is_object() ? object.find(name) : object.end();
    return object.is_object() && found != object.end() ? *found : kNothing;
}

std::string text(const json& object, const char* name) {
    const json& value = child(object, name);
    return value.is_string() ? value.get<std::string>() : std::string();
}

void addAll(const json& list, std::vector<std::string>& names) {
    if (!list.is_array()) return;
    for (const json& name : list) {
        if (name.is_string()) names.push_back(name.get<std::string>());
    }
}

// "80/tcp"
std::optional<ServicePort> parsePort(std::string_view text) {
    const size_t slash = text.find('/');
    if (slash == std::string_view::npos) return std::nullopt;
    ServicePort port;
    const auto read = std::from_chars(text.data(), text.data() + slash, port.port);
    if (read.ec != std::errc() || read.ptr != text.data() + slash || port.port == 0) return std::nullopt;
    const auto protocol = protocolNumber(text.substr(slash + 1));
    if (!protocol) return std::nullopt;
    port.protocol = *protocol;
    return port;
}

}  // namespace

std::vector<NamedEndpoint> namedEndpoints(const json& container, const OverlayOf& overlayOf) {
    std::vector<NamedEndpoint> found;
    const json& networks = child(child(container, "NetworkSettings"), "Networks");
    if (!networks.is_object()) return found;
    const json& config = child(container, "Config");
    const std::string id = text(container, "Id");
    std::string own = text(container, "Name");
    if (own.starts_with('/')) own.erase(0, 1);

    std::vector<ServicePort> ports;
    const json& exposed = child(config, "ExposedPorts");
    if (exposed.is_object()) {
        for (const auto& [port, nothing] : exposed.items()) {
            if (const auto parsed = parsePort(port)) ports.push_back(*parsed);
        }
    }

    for (const auto& [name, settings] : networks.items()) {
        const std::string endpoint = text(settings, "EndpointID");
        const auto overlay = overlayOf(NetworkId(text(settings, "NetworkID")));
        if (endpoint.empty() || !overlay) continue;
        NamedEndpoint one{*overlay, EndpointId(endpoint), {}, {}};
        for (const char* field : {"IPAddress", "GlobalIPv6Address"}) {
            if (const auto address = IpAddress::parse(text(settings, field))) one.addresses.push_back(*address);
        }
        std::vector<std::string> names{own};
        addAll(child(settings, "Aliases"), names);
        addAll(child(settings, "DNSNames"), names);
        names.push_back(text(child(config, "Labels"), "com.docker.compose.service"));
        names.push_back(text(config, "Hostname"));
        names.push_back(id.substr(0, 12));
        one.row = fitting({std::move(names), ports});
        if (!one.row.names.empty()) found.push_back(std::move(one));
    }
    return found;
}

std::set<std::string> containersIn(std::string& text, const Matters& matters) {
    std::set<std::string> found;
    size_t begin = 0;
    for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
        const json event = json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                       text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
        begin = end + 1;
        const json& actor = child(event, "Actor");
        std::string id = weft::driver::text(actor, "ID");
        if (weft::driver::text(event, "Type") == "network") {
            const NetworkId network(std::move(id));
            id = weft::driver::text(child(actor, "Attributes"), "container");
            if (!matters(network, id)) continue;
        }
        if (!id.empty()) found.insert(std::move(id));
    }
    text.erase(0, begin);
    return found;
}

EngineNames::EngineNames(std::string socketPath, kv::Runner& runner, OverlayOf overlayOf)
    : engine_(std::move(socketPath)), rows_(runner), overlayOf_(std::move(overlayOf)), thread_([this] { work(); }) {}

EngineNames::~EngineNames() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    stopped_.notify_all();
    engine_.stop();
    thread_.join();
}

void EngineNames::work() {
    const auto stopping = [this] { return stopping_; };
    // Each look has the engine describe the container, with its lock held.
    const Matters matters = [this](const NetworkId& network, const std::string& container) {
        return overlayOf_(network).has_value() || said_.contains(container);
    };
    std::chrono::milliseconds retry = kRetry;
    for (;;) {
        std::string pending;
        const auto ended = engine_.events(
            kFilters,
            [this, &retry] {
                retry = kRetry;
                const auto looked = lookAtAll();
                setTrouble(looked ? std::string() : looked.error().message);
            },
            [&](std::string_view piece) {
                pending += piece;
                for (const std::string& container : containersIn(pending, matters)) {
                    if (const auto looked = look(container); !looked) {
                        logWarn("msg=\"names of a container not learnt\" container={} error={}",
                                container.substr(0, 12), logValue(looked.error().message));
                    }
                }
            });
        std::unique_lock lock(mutex_);
        if (stopped_.wait_for(lock, retry, stopping)) return;
        lock.unlock();
        retry = std::min(2 * retry, kLongestRetry);
        setTrouble(ended.error().message);
    }
}

void EngineNames::setTrouble(const std::string& trouble) {
    const std::lock_guard lock(mutex_);
    if (trouble == trouble_) return;
    trouble_ = trouble;
    if (trouble.empty()) {
        logInfo("the engine tells the names of its containers");
    } else {
        logInfo("no names from the engine: {}", trouble);
    }
}

std::string EngineNames::trouble() const {
    const std::lock_guard lock(mutex_);
    return trouble_;
}

std::vector<std::string> EngineNames::warnings() const {
    const auto written = rows_.trouble();
    return written ? std::vector<std::string>() : std::vector{"names: " + written.error().message};
}

Result<void> EngineNames::lookAtAll() {
    WEFT_ASSIGN(const json running, engine_.get("/containers/json"));
    std::set<std::string> there;
    for (const json& container : running) {
        const json& networks = child(child(container, "NetworkSettings"), "Networks");
        const bool ours =
            networks.is_object() && std::any_of(networks.begin(), networks.end(), [this](const json& settings) {
                return overlayOf_(NetworkId(text(settings, "NetworkID"))).has_value();
            });
        if (ours) there.insert(text(container, "Id"));
    }
    for (const std::string& container : there) WEFT_TRY(look(container));

    std::vector<std::string> gone;
    for (const auto& [container, rows] : said_) {
        if (!there.contains(container)) gone.push_back(container);
    }
    for (const std::string& container : gone) say(container, {});
    std::map<std::string, std::string> all;
    for (const auto& [container, rows] : said_) all.insert(rows.begin(), rows.end());
    rows_.replace(std::string(kNamesPrefix), all);
    return {};
}

Result<void> EngineNames::look(const std::string& container) {
    const auto told = engine_.get("/containers/" + container + "/json");
    if (!told && told.error().code != ErrorCode::NotFound) return told.error();
    say(container, told ? namedEndpoints(*told, overlayOf_) : std::vector<NamedEndpoint>());
    return {};
}

void EngineNames::say(const std::string& container, const std::vector<NamedEndpoint>& endpoints) {
    std::map<std::string, std::string> rows;
    for (const NamedEndpoint& endpoint : endpoints) {
        rows.emplace(nameKey(endpoint.network, endpoint.endpoint), encode(endpoint.row));
    }
    std::map<std::string, std::string>& said = said_[container];
    for (const auto& [key, value] : said) {
        if (!rows.contains(key)) rows_.erase(key);
    }
    for (const auto& [key, value] : rows) rows_.put(key, value);
    said = std::move(rows);
    if (said.empty()) said_.erase(container);

    const std::lock_guard lock(mutex_);
    std::erase_if(byAddress_, [&container](const auto& entry) { return entry.second == container; });
    containers_.erase(container);
    if (endpoints.empty()) return;
    for (const NamedEndpoint& endpoint : endpoints) {
        for (const IpAddress& address : endpoint.addresses) byAddress_[{endpoint.network, address}] = container;
    }
    containers_.emplace(container, endpoints);
}

std::vector<std::string> EngineNames::networksOf(const std::string& network, const IpAddress& address) const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> networks{network};
    const auto container = byAddress_.find({network, address});
    if (container == byAddress_.end()) return networks;
    for (const NamedEndpoint& endpoint : containers_.at(container->second)) {
        if (endpoint.network != network) networks.push_back(endpoint.network);
    }
    return networks;
}

}  // namespace weft::driver
