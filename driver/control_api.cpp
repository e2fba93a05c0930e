#include "driver/control_api.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "base/protocol.h"

namespace weft::driver {
namespace {

using Json = nlohmann::json;

// Containers of one network; who needs all asks weftctl graph.
constexpr size_t kMostOnPage = 200;

HttpResponse answer(const Json& json, int status = 200) {
    return {status, json.dump(-1, ' ', false, Json::error_handler_t::replace), "application/json"};
}

HttpResponse failure(int status, std::string_view text) {
    return {status, controlErrorBody(status, text), "application/json"};
}

// Counts that do not fit (an IPv6 /64 has 2^64 addresses) are shown as the largest that does.
uint64_t clamp(Uint128 count) {
    return count > UINT64_MAX ? UINT64_MAX : static_cast<uint64_t>(count);
}

Json optionalText(const auto& value) {
    return value ? Json(value->str()) : Json();
}

Json portJson(const firewall::PublishedPort& port) {
    return {{"protocol", protocolName(port.protocol)},
            {"hostIp", port.hostIp.str()},
            {"hostPort", port.hostPort},
            {"containerIp", port.containerIp.str()},
            {"containerPort", port.containerPort}};
}

int64_t milliseconds(Clock::Wall time) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

std::string_view kindName(ipam::LeaseKind kind) {
    switch (kind) {
        case ipam::LeaseKind::Gateway:
            return "gateway";
        case ipam::LeaseKind::Aux:
            return "aux";
        case ipam::LeaseKind::Endpoint:
            return "endpoint";
    }
    return "";
}

std::string_view healthName(Health health) {
    switch (health) {
        case Health::Good:
            return "good";
        case Health::Warning:
            return "warning";
        case Health::Bad:
            return "bad";
    }
    return "";
}

HttpResponse failure(const Error& error) {
    switch (error.code) {
        case ErrorCode::InvalidArgument:
        case ErrorCode::Unsupported:
            return failure(400, error.message);
        case ErrorCode::NotFound:
            return failure(404, error.message);
        case ErrorCode::AlreadyExists:
        case ErrorCode::Busy:
            return failure(409, error.message);
        default:
            return failure(500, error.message);
    }
}

Result<Json> bodyOf(const HttpRequest& request) {
    Json json = Json::parse(request.body, nullptr, false);
    if (json.is_object()) return json;
    return makeError(ErrorCode::InvalidArgument, "request body: expected a JSON object");
}

// The body's field, or null.
Result<Json> bodyField(const HttpRequest& request, const char* key) {
    WEFT_ASSIGN(const Json json, bodyOf(request));
    const auto found = json.find(key);
    return found == json.end() ? Json() : *found;
}

bool isTrue(const Json& field) {
    return field.is_boolean() && field.get<bool>();
}

// Text as it is, bytes in hex.
std::string shown(const std::string& value) {
    const bool isText = std::all_of(value.begin(), value.end(), [](unsigned char c) { return std::isprint(c) != 0; });
    if (isText) return value;
    std::string hex = "0x";
    for (const char byte : value) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    return hex;
}

}  // namespace

std::string controlErrorBody(int /*status*/, std::string_view text) {
    return answer(Json{{"error", text}}).body;
}

struct ControlApi::Routes {
    static Json warningsOf(const ControlSources& sources) {
        Json all = sources.gossip->warnings();
        for (const OverlayStatus& network : sources.overlay()) {
            if (!network.conflict.empty()) all.push_back("overlay network " + network.name + ": " + network.conflict);
        }
        if (sources.rowWarnings) {
            for (std::string& warning : sources.rowWarnings()) all.push_back(std::move(warning));
        }
        for (std::string& warning : tunnelWarnings(sources.tunnels())) all.push_back(std::move(warning));
        if (sources.ledgerWarnings) {
            for (std::string& warning : sources.ledgerWarnings()) all.push_back(std::move(warning));
        }
        if (sources.sharedNetworks == nullptr) return all;
        for (std::string& warning : sources.sharedNetworks->warnings()) all.push_back(std::move(warning));
        return all;
    }

    static HttpResponse version(ControlApi&, const HttpRequest&) { return answer({{"version", WEFT_VERSION}}); }

    static HttpResponse status(ControlApi& api, const HttpRequest&) {
        const ControlSources& sources = api.sources_;
        const auto members = std::make_shared<std::vector<kv::Member>>();
        const auto listed = sources.gossip->call([members](kv::Node& node) { *members = node.roster(); });
        if (!listed) return failure(500, listed.error().message);
        const auto alive = std::count_if(members->begin(), members->end(), [](const kv::Member& member) {
            return member.state == kv::MemberState::Alive;
        });
        Json modes = Json::array();
        for (const Mode& mode : sources.modes) {
            size_t networks = 0;
            size_t endpoints = 0;
            size_t ports = 0;
            if (mode.inspectable != nullptr) {
                networks = mode.inspectable->networks().size();
                for (const EndpointInfo& endpoint : mode.inspectable->endpoints()) {
                    ++endpoints;
                    ports += endpoint.ports.size();
                }
            }
            modes.push_back(
                {{"driver", mode.name}, {"networks", networks}, {"endpoints", endpoints}, {"ports", ports}});
        }
        const auto hosts = sources.hosts();
        const auto count = [&hosts](Presence presence) {
            return std::count_if(hosts.begin(), hosts.end(),
                                 [presence](const auto& host) { return host.second.presence == presence; });
        };
        return answer({{"version", WEFT_VERSION},
                       {"pid", ::getpid()},
                       {"uptimeSeconds", api.uptime().count()},
                       {"firewall", sources.firewall},
                       {"logLevel", toString(logLevel())},
                       {"pluginDir", sources.pluginDir},
                       {"stateDir", sources.stateDir},
                       {"node", sources.gossip->nodeName()},
                       {"cluster", sources.gossip->cluster()},
                       {"address", sources.gossip->alone() ? "" : sources.gossip->advertised().str()},
                       {"members", members->size()},
                       {"membersAlive", alive},
                       {"daemonsAway", count(Presence::DaemonAway)},
                       {"hostsAway", count(Presence::HostAway)},
                       {"warnings", warningsOf(sources)},
                       {"modes", std::move(modes)}});
    }

    static Json networkList(const ControlSources& sources) {
        Json list = Json::array();
        for (const Mode& mode : sources.modes) {
            if (mode.inspectable == nullptr) continue;
            std::map<NetworkId, size_t> endpoints;
            for (const EndpointInfo& endpoint : mode.inspectable->endpoints()) ++endpoints[endpoint.networkId];
            for (const NetworkInfo& network : mode.inspectable->networks()) {
                Json subnets = Json::array();
                for (const IpPrefix& subnet : network.subnets) subnets.push_back(subnet.str());
                list.push_back({{"id", network.id.str()},
                                {"driver", mode.name},
                                {"link", network.link},
                                {"subnets", std::move(subnets)},
                                {"mtu", network.mtu},
                                {"internal", network.internal},
                                {"spoof", network.spoof ? Json(*network.spoof ? "allow" : "deny") : Json()},
                                {"endpoints", endpoints[network.id]}});
            }
        }
        return list;
    }

    static HttpResponse networks(ControlApi& api, const HttpRequest&) {
        return answer({{"networks", networkList(api.sources_)}});
    }

    static Json endpointList(const ControlSources& sources) {
        Json list = Json::array();
        for (const Mode& mode : sources.modes) {
            if (mode.inspectable == nullptr) continue;
            for (const EndpointInfo& endpoint : mode.inspectable->endpoints()) {
                Json ports = Json::array();
                for (const auto& port : endpoint.ports) ports.push_back(portJson(port));
                const net::DropCounts drops = sources.drops(endpoint.link);
                list.push_back({{"id", endpoint.id.str()},
                                {"network", endpoint.networkId.str()},
                                {"driver", mode.name},
                                {"link", endpoint.link},
                                {"address", optionalText(endpoint.address)},
                                {"addressV6", optionalText(endpoint.addressV6)},
                                {"mac", optionalText(endpoint.mac)},
                                {"sandbox", endpoint.sandboxKey},
                                {"ports", std::move(ports)},
                                {"dropped", net::sum(drops)},
                                {"droppedAs", net::describe(drops)}});
            }
        }
        return list;
    }

    static HttpResponse endpoints(ControlApi& api, const HttpRequest&) {
        return answer({{"endpoints", endpointList(api.sources_)}});
    }

    static HttpResponse ports(ControlApi& api, const HttpRequest&) {
        Json list = Json::array();
        for (const Mode& mode : api.sources_.modes) {
            if (mode.inspectable == nullptr) continue;
            for (const EndpointInfo& endpoint : mode.inspectable->endpoints()) {
                for (const auto& port : endpoint.ports) {
                    Json json = portJson(port);
                    json["network"] = endpoint.networkId.str();
                    json["endpoint"] = endpoint.id.str();
                    json["sandbox"] = endpoint.sandboxKey;
                    list.push_back(std::move(json));
                }
            }
        }
        return answer({{"ports", std::move(list)}});
    }

    static HttpResponse pools(ControlApi& api, const HttpRequest&) {
        Json list = Json::array();
        for (const ipam::PoolInfo& pool : api.sources_.pools()) {
            list.push_back({{"id", pool.record.id.str()},
                            {"addressSpace", pool.record.addressSpace},
                            {"pool", pool.record.pool.str()},
                            {"subPool", optionalText(pool.record.subPool)},
                            {"network", pool.record.network.str()},
                            {"used", clamp(pool.used)},
                            {"free", clamp(pool.free)},
                            {"endpoints", clamp(pool.endpoints)}});
        }
        return answer({{"pools", std::move(list)}});
    }

    static HttpResponse leases(ControlApi& api, const HttpRequest&) {
        Json list = Json::array();
        for (const ipam::LeaseInfo& lease : api.sources_.leases()) {
            list.push_back({{"pool", lease.record.key.poolId.str()},
                            {"address", lease.record.key.address.str()},
                            {"kind", kindName(lease.record.kind)},
                            {"endpoint", lease.endpoint.str()},
                            {"ageSeconds", lease.age.count()}});
        }
        return answer({{"leases", std::move(list)}});
    }

    static HttpResponse members(ControlApi& api, const HttpRequest&) {
        kv::Service& gossip = *api.sources_.gossip;
        // What runs there owns what it touches: it may run after a timeout.
        const auto found = std::make_shared<std::pair<std::vector<kv::Member>, Clock::Monotonic>>();
        const auto done = gossip.call([found](kv::Node& node) {
            found->first = node.roster();
            found->second = node.now();
        });
        if (!done) return failure(500, done.error().message);
        Json list = Json::array();
        auto hosts = api.sources_.hosts();
        for (const kv::Member& member : found->first) {
            const auto since = std::chrono::duration_cast<std::chrono::seconds>(found->second - member.since);
            list.push_back({{"name", member.record.name},
                            {"id", member.id.str()},
                            {"address", member.record.address.str()},
                            {"state", kv::toString(member.state)},
                            {"presence", presenceOf(member, hosts)},
                            {"self", member.id == gossip.id()},
                            {"sinceSeconds", since.count()},
                            {"incarnation", member.record.incarnation}});
            hosts.erase(member.id);
        }
        // The store forgets hosts, and their containers are still there.
        for (const auto& [id, host] : hosts) {
            if (host.presence == Presence::Here) continue;
            list.push_back({{"name", host.name},
                            {"id", id.str()},
                            {"address", host.address.str()},
                            {"state", kv::toString(kv::MemberState::Dead)},
                            {"presence", toString(host.presence)},
                            {"self", false},
                            {"sinceSeconds", nullptr},
                            {"incarnation", 0}});
        }
        return answer({{"cluster", gossip.cluster()}, {"alone", gossip.alone()}, {"members", std::move(list)}});
    }

    static HttpResponse overlay(ControlApi& api, const HttpRequest&) {
        Json list = Json::array();
        std::map<NetworkId, size_t> localEndpoints;
        for (const Mode& mode : api.sources_.modes) {
            if (mode.inspectable == nullptr) continue;
            for (const NetworkInfo& network : mode.inspectable->networks()) {
                localEndpoints[network.id] = network.endpoints;
            }
        }
        for (const OverlayStatus& network : api.sources_.overlay()) {
            Json hosts = Json::array();
            for (const IpAddress& host : network.hosts) hosts.push_back(host.str());
            list.push_back({{"name", network.name},
                            {"id", network.id.str()},
                            {"vni", network.vni},
                            {"hosts", std::move(hosts)},
                            {"localEndpoints", localEndpoints[network.id]},
                            {"remoteEndpoints", network.remoteEndpoints},
                            {"fastPath", network.fastPath},
                            {"drift", network.drift},
                            {"conflict", network.conflict}});
        }
        const auto blocks = api.sources_.blocks();
        return answer({{"overlay", std::move(list)}, {"blocks", blocks ? *blocks : blocks.error().message}});
    }

    static HttpResponse tunnels(ControlApi& api, const HttpRequest&) {
        const TunnelReport report = api.sources_.tunnels();
        Json list = Json::array();
        for (const TunnelHealth& tunnel : report.tunnels) {
            Json& json = list.emplace_back(Json{{"host", tunnel.host},
                                                {"address", tunnel.vtep.str()},
                                                {"state", toString(tunnel.state)},
                                                {"found", tunnel.detail},
                                                {"examinedSecondsAgo", nullptr},
                                                {"checksumOffload", report.offload}});
            if (!tunnel.examined) continue;
            json["examinedSecondsAgo"] =
                std::chrono::duration_cast<std::chrono::seconds>(report.now - *tunnel.examined).count();
        }
        return answer({{"tunnels", std::move(list)}});
    }

    static HttpResponse graph(ControlApi& api, const HttpRequest&) {
        auto graph = api.graph_.text(api.sources_.overlay(), api.sources_.tunnels(), api.sources_.hosts());
        return graph ? HttpResponse{200, *std::move(graph)} : failure(graph.error());
    }

    static HttpResponse madeBySwarm() {
        return failure(409,
                       "the swarm makes the networks: docker network create --attachable -d weft:latest ... on a "
                       "manager");
    }

    static HttpResponse sharedNetworks(ControlApi& api, const HttpRequest&) {
        if (api.sources_.sharedNetworks == nullptr) return madeBySwarm();
        const auto networks = api.sources_.sharedNetworks->list();
        if (!networks) return failure(networks.error());
        Json list = Json::array();
        for (const SharedNetwork& network : *networks) {
            Json hosts = Json::array();
            for (const HostReport& host : network.hosts) {
                hosts.push_back({{"host", host.host},
                                 {"state", host.away ? "away" : toString(host.state)},
                                 {"detail", host.detail}});
            }
            list.push_back({{"name", network.name},
                            {"spec", network.spec ? toJson(*network.spec) : Json()},
                            {"hosts", std::move(hosts)}});
        }
        return answer({{"network", std::move(list)}});
    }

    static HttpResponse createNetwork(ControlApi& api, const HttpRequest& request) {
        if (api.sources_.sharedNetworks == nullptr) return madeBySwarm();
        const auto body = bodyOf(request);
        if (!body) return failure(body.error());
        const auto spec = parseNetworkSpec(*body);
        if (!spec) return failure(spec.error());
        const auto done = api.sources_.sharedNetworks->create(*spec);
        return done ? answer({{"name", spec->name}}) : failure(done.error());
    }

    static HttpResponse removeNetwork(ControlApi& api, const HttpRequest& request) {
        if (api.sources_.sharedNetworks == nullptr) return madeBySwarm();
        const auto name = bodyField(request, "name");
        const auto force = bodyField(request, "force");
        if (!name || !force) return failure((name ? force : name).error());
        if (!name->is_string()) return failure(400, "name: expected a string");
        const auto done = api.sources_.sharedNetworks->remove(name->get<std::string>(), isTrue(*force));
        return done ? answer({{"name", *name}}) : failure(done.error());
    }

    static HttpResponse rows(ControlApi& api, const HttpRequest& request) {
        const auto found = std::make_shared<std::vector<std::pair<std::string, kv::Row>>>();
        const auto done = api.sources_.gossip->call([found, prefix = request.query](kv::Node& node) {
            for (kv::Row& row : node.table().list(prefix)) {
                const auto owner = node.member(row.owner);
                found->emplace_back(owner ? owner->record.name : row.owner.brief(), std::move(row));
            }
        });
        if (!done) return failure(500, done.error().message);
        Json list = Json::array();
        for (const auto& [owner, row] : *found) {
            // Whoever may ask here may read the key file, but answers end up in tickets.
            const bool secret = row.key == kv::kKeyringRow;
            list.push_back({{"key", row.key},
                            {"owner", owner},
                            {"version", row.version},
                            {"value", secret ? "(cluster keys)" : shown(row.value)}});
        }
        return answer({{"kv", std::move(list)}});
    }

    static HttpResponse getKeys(ControlApi& api, const HttpRequest&) {
        const auto keys = api.sources_.gossip->keys();
        if (!keys) return failure(500, keys.error().message);
        Json list = Json::array();
        for (const kv::KeyInfo& key : *keys) {
            list.push_back({{"id", fmt::format("{:08x}", key.id)}, {"primary", key.primary}});
        }
        return answer({{"keys", std::move(list)}});
    }

    static HttpResponse changeKeys(ControlApi& api, const HttpRequest& request) {
        for (const char* verb : {"add", "use", "remove"}) {
            const auto field = bodyField(request, verb);
            if (!field) return failure(400, field.error().message);
            if (field->is_null()) continue;
            if (!field->is_string()) return failure(400, fmt::format("{}: expected a string", verb));
            const auto done = changeKey(*api.sources_.gossip, verb, field->get<std::string>());
            if (!done) {
                return failure(done.error().code == ErrorCode::InvalidArgument ? 400 : 500, done.error().message);
            }
            return getKeys(api, request);
        }
        return failure(400, "expected add, use or remove");
    }

    static Result<void> changeKey(kv::Service& gossip, std::string_view verb, const std::string& text) {
        if (verb == "add") {
            WEFT_ASSIGN(const kv::Key key, kv::Key::parse(text));
            return gossip.addKey(key);
        }
        kv::KeyId id = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id, 16);
        if (error != std::errc() || end != text.data() + text.size()) {
            return makeError(ErrorCode::InvalidArgument, "a key's id is 8 hex digits: see weftctl key list");
        }
        return verb == "use" ? gossip.useKey(id) : gossip.removeKey(id);
    }

    static HttpResponse forget(ControlApi& api, const HttpRequest& request) {
        const auto node = bodyField(request, "node");
        const auto force = bodyField(request, "force");
        if (!node || !force) return failure(400, (node ? force : node).error().message);
        if (!node->is_string()) return failure(400, "node: expected a string");
        const auto done = api.sources_.forget(node->get<std::string>(), isTrue(*force));
        if (!done) return failure(500, done.error().message);
        return answer({{"done", *done}});
    }

    static HttpResponse renew(ControlApi& api, const HttpRequest& request) {
        const auto first = request.body.empty() ? Result<Json>(Json()) : bodyField(request, "first");
        if (!first) return failure(400, first.error().message);
        const auto done = api.sources_.gossip->renewIdentity(isTrue(*first));
        if (!done) return failure(500, done.error().message);
        return answer(
            {{"done",
              "this host has a new identity once weftd starts again: systemctl restart weftd. Its containers "
              "keep their addresses. Then, when the other hosts see them: weftctl node forget, of the old one"}});
    }

    static Json repairJson(const Repair& repair) {
        return {{"kind", repair.kind},
                {"object", repair.object},
                {"action", repair.action},
                {"error", repair.error ? Json(repair.error->message) : Json()}};
    }

    static HttpResponse live(ControlApi& api, const HttpRequest&) {
        const ControlSources& sources = api.sources_;
        const auto graph = api.graph_.text(sources.overlay(), sources.tunnels(), sources.hosts(), kMostOnPage);
        const auto traffic = sources.traffic();
        if (!graph || !traffic) return failure(graph ? traffic.error() : graph.error());
        Json endpoints = endpointList(sources);
        Json networks = networkList(sources);
        Json counters = Json::object();
        for (const Json* list : {&networks, &endpoints}) {
            for (const Json& item : *list) {
                const auto found = traffic->find(item.at("link").get<std::string>());
                if (found == traffic->end()) continue;
                counters[found->first] = {{"receivedBytes", found->second.receivedBytes},
                                          {"sentBytes", found->second.sentBytes}};
            }
        }
        Json repairs = Json::array();
        for (const PastRepair& past : sources.lastRepairs()) {
            Json& json = repairs.emplace_back(repairJson(past.repair));
            json["timeMs"] = milliseconds(past.time);
        }
        const NamesById names = sources.names();
        HttpResponse rest = answer({{"timeMs", milliseconds(sources.clock->wall())},
                                    {"version", WEFT_VERSION},
                                    {"node", sources.gossip->nodeName()},
                                    {"uptimeSeconds", api.uptime().count()},
                                    {"firewall", sources.firewall},
                                    {"warnings", warningsOf(sources)},
                                    {"networks", std::move(networks)},
                                    {"endpoints", std::move(endpoints)},
                                    {"traffic", std::move(counters)},
                                    {"names", {{"networks", names.networks}, {"containers", names.containers}}},
                                    {"repairs", std::move(repairs)}});
        rest.body.replace(0, 1, R"({"graph":)" + *graph + ',');
        return rest;
    }

    static HttpResponse reconcile(ControlApi& api, const HttpRequest& request) {
        bool dryRun = false;
        if (!request.body.empty()) {
            const auto field = bodyField(request, "dryRun");
            if (!field) return failure(400, field.error().message);
            if (!field->is_null() && !field->is_boolean()) return failure(400, "dryRun: expected true or false");
            dryRun = isTrue(*field);
        }
        const auto repairs = api.sources_.reconcile(dryRun);
        if (!repairs) return failure(500, repairs.error().message);
        Json list = Json::array();
        for (const Repair& repair : *repairs) list.push_back(repairJson(repair));
        return answer({{"dryRun", dryRun}, {"repairs", std::move(list)}});
    }

    static Json checksJson(const std::vector<Check>& checks) {
        Json list = Json::array();
        for (const Check& check : checks) {
            list.push_back({{"name", check.name},
                            {"health", healthName(check.health)},
                            {"found", check.found},
                            {"fix", check.fix}});
        }
        return list;
    }

    static HttpResponse doctor(ControlApi& api, const HttpRequest&) {
        return answer({{"checks", checksJson(api.sources_.doctor())}});
    }

    static HttpResponse trace(ControlApi& api, const HttpRequest& request) {
        const Json json = Json::parse(request.body, nullptr, false);
        TraceQuestion question;
        try {
            question.container = json.at("container").get<std::string>();
            question.name = json.value("name", question.container);
            question.destination = json.at("destination").get<std::string>();
            if (json.contains("port")) {
                const auto protocol = protocolNumber(json.value("protocol", "tcp"));
                if (!protocol) return failure(400, "protocol: expected tcp, udp or sctp");
                question.protocol = *protocol;
                const auto port = json.at("port").get<int64_t>();
                if (port < 1 || port > UINT16_MAX) return failure(400, "port: expected 1 to 65535");
                question.port = static_cast<uint16_t>(port);
            }
        } catch (const Json::exception&) {
            return failure(400, "expected container, destination and perhaps port and protocol");
        }
        const auto steps = api.sources_.trace(std::move(question));
        if (!steps) return failure(steps.error().code == ErrorCode::InvalidArgument ? 400 : 500, steps.error().message);
        return answer({{"steps", checksJson(*steps)}});
    }

    static HttpResponse getLogLevel(ControlApi&, const HttpRequest&) {
        return answer({{"level", toString(logLevel())}});
    }

    static HttpResponse putLogLevel(ControlApi&, const HttpRequest& request) {
        const auto field = bodyField(request, "level");
        if (!field) return failure(400, field.error().message);
        if (!field->is_string()) return failure(400, "level: expected a string");
        const auto level = parseLogLevel(field->get<std::string>());
        if (!level) return failure(400, level.error().message);
        logLine(LogLevel::Info, fmt::format("log level={} was={}", toString(*level), toString(logLevel())));
        setLogLevel(*level);
        return answer({{"level", toString(*level)}});
    }

    static HttpResponse metrics(ControlApi& api, const HttpRequest&) {
        return {200, api.sources_.metrics->render(), "text/plain; version=0.0.4; charset=utf-8"};
    }

    struct Route {
        std::string_view method;
        std::string_view path;
        HttpResponse (*run)(ControlApi&, const HttpRequest&);
    };
    static constexpr std::array<Route, 26> kAll{{
        {"GET", "/v1/members", members},
        {"GET", "/v1/overlay", overlay},
        {"GET", "/v1/tunnels", tunnels},
        {"GET", "/v1/graph", graph},
        {"GET", "/v1/live", live},
        {"GET", "/v1/kv", rows},
        {"GET", "/v1/network", sharedNetworks},
        {"POST", "/v1/network", createNetwork},
        {"POST", "/v1/network/remove", removeNetwork},
        {"GET", "/v1/keys", getKeys},
        {"POST", "/v1/keys", changeKeys},
        {"POST", "/v1/forget", forget},
        {"POST", "/v1/renew", renew},
        {"GET", "/v1/version", version},
        {"GET", "/v1/status", status},
        {"GET", "/v1/networks", networks},
        {"GET", "/v1/endpoints", endpoints},
        {"GET", "/v1/ports", ports},
        {"GET", "/v1/pools", pools},
        {"GET", "/v1/leases", leases},
        {"POST", "/v1/reconcile", reconcile},
        {"GET", "/v1/doctor", doctor},
        {"POST", "/v1/trace", trace},
        {"GET", "/v1/log-level", getLogLevel},
        {"PUT", "/v1/log-level", putLogLevel},
        {"GET", "/metrics", metrics},
    }};
};

ControlApi::ControlApi(ControlSources sources)
    : sources_(std::move(sources)), started_(sources_.clock->now()), graph_(*sources_.gossip) {
    Metrics& metrics = *sources_.metrics;
    const auto perMode = [this](auto count) {
        return [this, count] {
            std::vector<Metrics::Sample> samples;
            for (const Mode& mode : sources_.modes) {
                if (mode.inspectable == nullptr) continue;
                samples.push_back({{{"driver", mode.name}}, static_cast<double>(count(*mode.inspectable))});
            }
            return samples;
        };
    };
    metrics.gaugesFrom("weft_networks", "Networks by driver.",
                       perMode([](const Inspectable& mode) { return mode.networks().size(); }));
    metrics.gaugesFrom("weft_endpoints", "Endpoints by driver.",
                       perMode([](const Inspectable& mode) { return mode.endpoints().size(); }));
    metrics.gaugesFrom("weft_published_ports", "Published ports by driver.", perMode([](const Inspectable& mode) {
                           size_t ports = 0;
                           for (const EndpointInfo& endpoint : mode.endpoints()) ports += endpoint.ports.size();
                           return ports;
                       }));
    const auto perPool = [this](Uint128 ipam::PoolInfo::*count) {
        return [this, count] {
            std::vector<Metrics::Sample> samples;
            for (const ipam::PoolInfo& pool : sources_.pools()) {
                samples.push_back({{{"pool", pool.record.pool.str()}, {"pool_id", pool.record.id.str()}},
                                   static_cast<double>(pool.*count)});
            }
            return samples;
        };
    };
    metrics.gaugesFrom("weft_port_drops",
                       "Frames that containers sent as somebody else, dropped since weftd's start, by what was forged.",
                       [this] {
                           std::vector<Metrics::Sample> samples;
                           const net::DropCounts drops = sources_.allDrops();
                           for (size_t i = 0; i < drops.size(); ++i) {
                               samples.push_back({{{"reason", std::string(net::dropName(static_cast<PortDrop>(i)))}},
                                                  static_cast<double>(drops[i])});
                           }
                           return samples;
                       });
    metrics.gaugesFrom("weft_tunnels", "Other hosts by what probes found of the way to them.", [this] {
        std::map<TunnelState, size_t> counts;
        for (const TunnelState state : kTunnelStates) counts[state] = 0;
        for (const TunnelHealth& tunnel : sources_.tunnels().tunnels) ++counts[tunnel.state];
        std::vector<Metrics::Sample> samples;
        for (const auto& [state, count] : counts) {
            samples.push_back({{{"state", std::string(toString(state))}}, static_cast<double>(count)});
        }
        return samples;
    });
    metrics.gaugesFrom("weft_hosts", "Other hosts: here, with their weftd away, or away themselves.", [this] {
        std::map<Presence, size_t> counts{{Presence::Here, 0}, {Presence::DaemonAway, 0}, {Presence::HostAway, 0}};
        for (const auto& [id, host] : sources_.hosts()) ++counts[host.presence];
        std::vector<Metrics::Sample> samples;
        for (const auto& [presence, hosts] : counts) {
            samples.push_back({{{"presence", std::string(toString(presence))}}, static_cast<double>(hosts)});
        }
        return samples;
    });
    metrics.gaugesFrom("weft_tunnel_checksum_offload", "0: turned off on the tunnels, for it damages packets.", [this] {
        return std::vector<Metrics::Sample>{{{}, sources_.tunnels().offload ? 1.0 : 0.0}};
    });
    metrics.gaugesFrom("weft_leases_used", "Addresses leased, by pool.", perPool(&ipam::PoolInfo::used));
    metrics.gaugesFrom("weft_leases_free", "Addresses still to be leased, by pool.", perPool(&ipam::PoolInfo::free));
}

std::chrono::seconds ControlApi::uptime() const {
    return std::chrono::duration_cast<std::chrono::seconds>(sources_.clock->now() - started_);
}

HttpResponse ControlApi::handle(const HttpRequest& request) {
    bool pathKnown = false;
    for (const Routes::Route& route : Routes::kAll) {
        if (route.path != request.path) continue;
        if (route.method == request.method) return route.run(*this, request);
        pathKnown = true;
    }
    if (pathKnown) return failure(405, fmt::format("{} does not take {}", request.path, request.method));
    return failure(404, fmt::format("no such path: {}", request.path));
}

HttpResponse ControlApi::handleMetrics(const HttpRequest& request) {
    if (request.path == "/metrics") return handle(request);
    return failure(404, "only GET /metrics here");
}

}  // namespace weft::driver
