#include "driver/name_service.h"

#include <net/if.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/protocol.h"

namespace weft::driver {

namespace {

// A batch of queries is of one asker as a rule, and to find its network costs more than to answer.
constexpr std::chrono::milliseconds kPlaceHolds{10};

struct Found {
    std::string network;
    OverlayNames::Container container;

    [[nodiscard]] std::string fullName() const { return container.name + "." + network; }
};

// Cuts ".domain" off.
bool cutDomain(std::string& name, const std::string& domain) {
    if (name == domain) {
        name.clear();
        return true;
    }
    if (name.size() <= domain.size() || !name.ends_with(domain)) return false;
    if (name[name.size() - domain.size() - 1] != '.') return false;
    name.resize(name.size() - domain.size() - 1);
    return true;
}

// "_5432._tcp." in front of a name (RFC 2782), the port as a number.
std::optional<ServicePort> cutService(std::string& name) {
    const size_t first = name.find('.');
    const size_t second = first == std::string::npos ? first : name.find('.', first + 1);
    if (second == std::string::npos || name[0] != '_' || name[first + 1] != '_') return std::nullopt;
    ServicePort port;
    const auto read = std::from_chars(name.data() + 1, name.data() + first, port.port);
    const auto protocol = protocolNumber(std::string_view(name).substr(first + 2, second - first - 2));
    if (read.ec != std::errc() || read.ptr != name.data() + first || !protocol) return std::nullopt;
    port.protocol = *protocol;
    name.erase(0, second + 1);
    return port;
}

std::vector<Found> find(const OverlayNames& names, const std::vector<std::string>& networks, const std::string& name) {
    std::vector<Found> found;
    const auto add = [&](const std::string& network, std::string_view what) {
        for (auto& container : names.find(network, what)) found.push_back({network, std::move(container)});
    };
    for (const std::string& network : networks) {
        add(network, name);
        const size_t dot = name.size() - std::min(name.size(), network.size() + 1);
        if (dot > 0 && name[dot] == '.' && name.ends_with(network)) add(network, std::string_view(name).substr(0, dot));
    }
    return found;
}

std::vector<IpAddress> addressesOf(const OverlayNames::Container& container) {
    std::vector<IpAddress> addresses;
    if (container.v4) addresses.push_back(*container.v4);
    if (container.v6) addresses.push_back(*container.v6);
    return addresses;
}

std::optional<DnsAnswer> answerPointer(const OverlayNames& names, const std::vector<std::string>& networks,
                                       const std::string& name) {
    const auto address = addressOfReverseName(name);
    if (!address) return std::nullopt;
    DnsAnswer answer{.ttl = kNameTtl};
    for (const std::string& network : networks) {
        if (const auto container = names.at(network, *address)) {
            answer.answers.emplace_back(DnsPointer{Found{network, *container}.fullName()});
        }
    }
    if (answer.answers.empty()) return std::nullopt;
    return answer;
}

}  // namespace

std::optional<DnsAnswer> answerName(const OverlayNames& names, const std::vector<std::string>& networks,
                                    const std::string& domain, const DnsQuery& query, std::minstd_rand& random) {
    if (!query.name) return std::nullopt;
    if (query.type == DnsType::Ptr) return answerPointer(names, networks, *query.name);

    std::string name = *query.name;
    const bool inDomain = cutDomain(name, domain);
    const auto service = query.type == DnsType::Srv ? cutService(name) : std::nullopt;
    std::vector<Found> found = find(names, networks, name);
    if (found.empty()) {
        if (!inDomain) return std::nullopt;
        return DnsAnswer{.code = name.empty() ? DnsCode::NoError : DnsCode::NameError, .ttl = kNameTtl};
    }
    std::shuffle(found.begin(), found.end(), random);
    std::stable_partition(found.begin(), found.end(), [](const Found& one) { return !one.container.hostSuspected; });
    // Who is on a host that is away is the answer only where nobody else is.
    const auto away =
        std::stable_partition(found.begin(), found.end(), [](const Found& one) { return !one.container.hostAway; });
    if (away != found.begin()) found.erase(away, found.end());

    DnsAnswer answer{.ttl = kNameTtl};
    for (const Found& one : found) {
        const auto& ports = one.container.ports;
        if (service && std::find(ports.begin(), ports.end(), *service) != ports.end()) {
            answer.answers.emplace_back(DnsService{0, 0, service->port, one.fullName()});
            for (const IpAddress& address : addressesOf(one.container)) {
                answer.additional.push_back({one.fullName(), address});
            }
        }
        for (const IpAddress& address : addressesOf(one.container)) {
            const DnsType type = address.isV4() ? DnsType::A : DnsType::Aaaa;
            if (query.type == type || query.type == DnsType::Any) answer.answers.emplace_back(address);
        }
    }
    return answer;
}

NameService::NameService(NameConfig config, kv::Service& gossip, const OverlayDriver& overlay, net::FlowLookup flows)
    : config_(std::move(config)), gossip_(gossip), overlay_(overlay), flows_(std::move(flows)) {}

Result<std::unique_ptr<NameService>> NameService::start(NameConfig config, kv::Service& gossip,
                                                        const OverlayDriver& overlay, const net::NetNs& netns,
                                                        Metrics& metrics) {
    WEFT_ASSIGN(net::FlowLookup flows, net::FlowLookup::open(netns));
    std::unique_ptr<NameService> service(new NameService(std::move(config), gossip, overlay, std::move(flows)));
    const auto names = service->names_;
    names->setIsAway([&overlay](const kv::NodeId& host) { return overlay.isAway(host); });
    if (const auto memory = overlay.memory()) {
        HostMemory::Listener listener;
        listener.host = [](const kv::NodeId&, const RememberedHost&) {};
        listener.row = [names](kv::RowEvent event, const kv::Row& row) { names->apply(event, row); };
        listener.forget = [names](const kv::NodeId& host) { names->forget(host); };
        memory->attach(std::move(listener));
    }
    // What the store's thread runs owns what it touches: it may run after a timeout.
    const auto watches = std::make_shared<std::vector<kv::WatchId>>();
    WEFT_TRY(gossip.call([watches, names](kv::Node& node) {
        for (const std::string_view prefix : {kOverlayPrefix, kNamesPrefix}) {
            watches->push_back(node.watch(
                std::string(prefix), [names](kv::RowEvent event, const kv::Row& row) { names->apply(event, row); }));
        }
        node.onMember([names](const kv::Member& member) { names->onMember(member); });
    }));
    service->watches_ = *watches;
    service->engine_ = std::make_unique<EngineNames>(
        service->config_.dockerSocket, gossip, [&overlay](const NetworkId& id) { return overlay.overlayName(id); });
    DnsHooks hooks;
    hooks.decide = [made = service.get()](const DnsAsker& asker, std::span<const uint8_t> query) {
        return made->decide(asker, query);
    };
    hooks.admits = [made = service.get()](const DnsAsker& asker) { return made->around(asker).has_value(); };
    hooks.destinationOf = [made = service.get()](const DnsAsker& asker, uint16_t port) {
        return made->destinationOf(asker, port);
    };
    hooks.vouch = service->config_.vouch;
    WEFT_ASSIGN(service->server_, DnsServer::start(service->config_.port, std::move(hooks), metrics));
    return service;
}

NameService::~NameService() {
    server_.reset();
    engine_.reset();
    static_cast<void>(gossip_.call([watches = watches_](kv::Node& node) {
        for (const kv::WatchId watch : watches) node.unwatch(watch);
    }));
}

std::optional<OverlayDriver::Surroundings> NameService::around(const DnsAsker& asker) {
    const auto now = std::chrono::steady_clock::now();
    const Place place{asker.link, asker.local, asker.address.ip};
    if (place != lastPlace_ || now >= lastUntil_) {
        lastAround_ = findAround(asker);
        lastPlace_ = place;
        lastUntil_ = now + kPlaceHolds;
    }
    return lastAround_;
}

std::optional<OverlayDriver::Surroundings> NameService::findAround(const DnsAsker& asker) const {
    std::string link;
    if (!asker.tcp) {
        std::array<char, IF_NAMESIZE> name{};
        if (::if_indextoname(asker.link, name.data()) == nullptr) return std::nullopt;
        link = name.data();
    }
    return overlay_.networkAround(asker.address.ip, asker.local, link);
}

DnsVerdict NameService::decide(const DnsAsker& asker, std::span<const uint8_t> bytes) {
    const auto place = around(asker);
    if (!place) return {DnsVerdict::Kind::Drop, {}};
    const auto query = parseDnsQuery(bytes);
    if (!query) {
        const bool known = query.error().code != ErrorCode::Unsupported;
        auto error = composeDnsError(bytes, known ? DnsCode::FormatError : DnsCode::NotImplemented);
        if (error.empty()) return {DnsVerdict::Kind::Drop, {}};
        return {DnsVerdict::Kind::Answer, std::move(error)};
    }
    auto answer =
        answerName(*names_, engine_->networksOf(place->network, asker.address.ip), config_.domain, *query, random_);
    // The host's way out must not become the network's, not even for names.
    if (!answer && place->internal) answer = DnsAnswer{.code = DnsCode::Refused, .authoritative = false};
    if (!answer) return {DnsVerdict::Kind::PassOn, {}};
    return {DnsVerdict::Kind::Answer,
            composeDnsAnswer(*query, *answer, asker.tcp ? kDnsTcpMaximum : dnsUdpLimit(*query))};
}

Result<kv::Address> NameService::destinationOf(const DnsAsker& asker, uint16_t port) {
    net::ReceivedFlow flow;
    flow.peer = asker.address.ip;
    flow.peerPort = asker.address.port;
    flow.local = asker.local;
    flow.localPort = port;
    WEFT_ASSIGN(const auto destination, flows_.originalDestination(flow));
    if (destination.first == asker.local) return makeError(ErrorCode::Unavailable, "the query was for this host");
    return kv::Address{destination.first, destination.second};
}

}  // namespace weft::driver
