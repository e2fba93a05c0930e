#include "firewall/iptc_rules.h"

#include <netinet/in.h>

#include <utility>

namespace weft::firewall::iptc {

namespace {

constexpr const char* kRaw = "WEFT-RAW";
constexpr const char* kInput = "WEFT-INPUT";
constexpr const char* kTunnel = "WEFT-TUNNEL";
constexpr const char* kTransit = "WEFT-TRANSIT";
constexpr const char* kBorrowed = "WEFT-BORROWED";
constexpr const char* kSend = "WEFT-SEND";
constexpr const char* kMark = "WEFT-MARK";
constexpr const char* kNames = "WEFT-NAMES";
constexpr const char* kBridgePrefix = "weft-";  // of bridges without a name of the user's
constexpr const char* kDns = "WEFT-DNS";
constexpr uint16_t kDnsPort = 53;
constexpr const char* kDnat = "WEFT-DNAT";
constexpr const char* kPostrouting = "WEFT-POSTROUTING";
constexpr const char* kForward = "WEFT-FORWARD";
constexpr const char* kToEngine = "WEFT-TO-ENGINE";
constexpr const char* kHookComment = "weft";
constexpr uint8_t kNeighbourSolicitation = 135;  // RFC 4861
constexpr uint8_t kNeighbourAdvertisement = 136;

IpPrefix loopback() {
    return {IpAddress(IpFamily::V4, Uint128{127} << 24), 8};
}

constexpr uint8_t icmpProtocol(IpFamily family) {
    if (family == IpFamily::V4) return IPPROTO_ICMP;
    return IPPROTO_ICMPV6;
}

IpPrefix host(const IpAddress& address) {
    return {address, static_cast<uint8_t>(addressBits(address.family()))};
}

template <typename T>
OptionalMatch<T> is(T value) {
    return Match<T>{std::move(value), false};
}
template <typename T>
OptionalMatch<T> isNot(T value) {
    return Match<T>{std::move(value), true};
}

// A network as one family sees it.
struct View {
    const Network& network;
    std::vector<IpPrefix> subnets;
    GatewayMode mode;
    std::optional<IpAddress> hostAddress;
    std::vector<const Endpoint*> endpoints;

    [[nodiscard]] bool nat() const { return mode == GatewayMode::Nat && !network.internal; }
    [[nodiscard]] bool masquerades() const { return nat() && network.masquerade; }
    [[nodiscard]] std::string comment() const { return "weft " + network.id.brief(); }
    [[nodiscard]] std::string chain() const { return "WEFT-TO-" + network.bridge; }
};

std::vector<View> networksOf(const State& state, IpFamily family) {
    const bool v4 = family == IpFamily::V4;
    std::vector<View> views;
    std::map<NetworkId, size_t> index;
    for (const auto& [id, network] : state.networks) {
        View view{
            network, {}, v4 ? network.modeV4 : network.modeV6, v4 ? network.hostAddressV4 : network.hostAddressV6, {}};
        for (const auto& subnet : network.subnets) {
            if (subnet.family() == family) view.subnets.push_back(subnet);
        }
        if (view.subnets.empty()) continue;
        index.emplace(id, views.size());
        views.push_back(std::move(view));
    }
    for (const auto& [id, endpoint] : state.endpoints) {
        const auto at = index.find(endpoint.networkId);
        if (at != index.end()) views[at->second].endpoints.push_back(&endpoint);
    }
    return views;
}

// Calls `use(endpoint, port)` for each port a network publishes in a family.
template <typename Use>
void forEachPort(const View& view, IpFamily family, const Use& use) {
    if (view.network.internal) return;
    for (const auto* endpoint : view.endpoints) {
        for (const auto& port : endpoint->ports) {
            if (port.containerIp.family() == family) use(*endpoint, port);
        }
    }
}

std::string commentOf(const Endpoint& endpoint) {
    return "weft " + endpoint.id.brief();
}

Rule jump(const char* target) {
    Rule rule;
    rule.comment = kHookComment;
    rule.target = target;
    return rule;
}

Rule toPort(uint8_t protocol, uint16_t port, const char* target) {
    Rule rule = jump(target);
    rule.protocol = protocol;
    rule.destinationPort = port;
    return rule;
}

std::vector<IpAddress> ofFamily(const std::set<IpAddress>& addresses, IpFamily family) {
    std::vector<IpAddress> some;
    for (const IpAddress& address : addresses) {
        if (address.family() == family) some.push_back(address);
    }
    return some;
}

void dropFromInside(const State& state, Chain& chain) {
    for (const auto& link : state.inside()) {
        Rule rule = jump("DROP");
        rule.in = is(link);
        chain.rules.push_back(std::move(rule));
    }
}

// What comes to the tunnel.
Chain tunnel(const State& state, IpFamily family) {
    Chain chain{kTunnel, {}};
    dropFromInside(state, chain);
    for (const IpAddress& member : ofFamily(state.tunnel.members, family)) {
        if (state.tunnel.address.family() != family) continue;
        Rule rule = jump("RETURN");
        rule.source = is(host(member));
        rule.destination = is(host(state.tunnel.address));
        chain.rules.push_back(std::move(rule));
    }
    chain.rules.push_back(jump("DROP"));
    return chain;
}

// What passes this host, and what its own sockets send, to a peer's tunnel.
Chain toPeers(const State& state, IpFamily family, const char* name, const char* target) {
    Chain chain{name, {}};
    for (const IpAddress& peer : ofFamily(state.tunnel.peers, family)) {
        Rule rule = jump(target);
        rule.destination = is(host(peer));
        chain.rules.push_back(std::move(rule));
    }
    return chain;
}

Chain fromMembersOnly(const State& state, IpFamily family) {
    Chain chain{kBorrowed, {}};
    dropFromInside(state, chain);
    for (const IpAddress& member : ofFamily(state.tunnel.members, family)) {
        Rule rule = jump("RETURN");
        rule.source = is(host(member));
        chain.rules.push_back(std::move(rule));
    }
    chain.rules.push_back(jump("DROP"));
    return chain;
}

// What goes to the resolver while it answers, and what is done with it: in table nat it is redirected; in table raw its
// flow gets a zone of conntrack to itself, so that the next packet is that of a new flow when that changes, whatever
// source port it has.
Chain toResolver(const std::vector<View>& views, const Rule& action) {
    Chain chain{kDns, {}};
    for (const auto& view : views) {
        if (!view.network.resolve) continue;
        Rule rule = action;
        rule.comment = view.comment();
        rule.in = is(view.network.bridge);
        for (const auto& subnet : view.subnets) {
            Rule server;
            server.comment = rule.comment;
            server.in = rule.in;
            server.destination = is(subnet);
            server.toLocal = false;
            server.target = "RETURN";
            chain.rules.push_back(std::move(server));
        }
        for (const uint8_t protocol : {uint8_t{IPPROTO_UDP}, uint8_t{IPPROTO_TCP}}) {
            Rule query = rule;
            query.protocol = protocol;
            query.destinationPort = kDnsPort;
            query.recently = kAnswering;
            chain.rules.push_back(std::move(query));
        }
    }
    return chain;
}

// Bridges of weft's own names in one rule: every packet of the host's sockets walks these.
Chain marking(const State& state) {
    Chain chain{kMark, {}};
    const auto mark = [&](const std::string& link, bool isPrefix) {
        Rule rule = jump("MARK");
        rule.out = is(link);
        rule.outIsPrefix = isPrefix;
        rule.mark = kTunnelMark;
        chain.rules.push_back(std::move(rule));
    };
    mark(kBridgePrefix, true);
    for (const auto& [id, network] : state.networks) {
        if (!network.bridge.starts_with(kBridgePrefix)) mark(network.bridge, false);
    }
    return chain;
}

// What comes to the resolver's port.
Chain toNames(const State& state) {
    Chain chain{kNames, {}};
    for (const auto& [id, network] : state.networks) {
        Rule rule = jump("RETURN");
        rule.in = is(network.bridge);
        chain.rules.push_back(std::move(rule));
    }
    chain.rules.push_back(jump("DROP"));
    return chain;
}

}  // namespace

TableContent mangleTable(const State& state, IpFamily family) {
    TableContent table;
    Chain input{kInput, {}};
    const uint16_t port = state.tunnel.port;
    if (port != 0) {
        const auto hook = [&](const char* builtin, Rule rule) {
            table.hooks.push_back({builtin, true, std::move(rule)});
        };
        input.rules.push_back(toPort(IPPROTO_UDP, port, kTunnel));
        hook("FORWARD", toPort(IPPROTO_UDP, port, kTransit));
        // Without a socket of this namespace, a packet is a container's, which the tunnel wrapped.
        Rule send = toPort(IPPROTO_UDP, port, kSend);
        send.fromSocket = true;
        send.unmarked = kTunnelMark;
        hook("OUTPUT", std::move(send));
        Rule mark = jump(kMark);
        mark.fromSocket = true;
        hook("POSTROUTING", std::move(mark));
        table.chains.push_back(tunnel(state, family));
        table.chains.push_back(toPeers(state, family, kTransit, kBorrowed));
        table.chains.push_back(fromMembersOnly(state, family));
        table.chains.push_back(toPeers(state, family, kSend, "DROP"));
        table.chains.push_back(marking(state));
    }
    if (state.resolver != 0 && !state.networks.empty()) {
        input.rules.push_back(toPort(IPPROTO_UDP, state.resolver, kNames));
        input.rules.push_back(toPort(IPPROTO_TCP, state.resolver, kNames));
        table.chains.push_back(toNames(state));
    }
    if (input.rules.empty()) return {};
    table.chains.push_back(std::move(input));
    table.hooks.push_back({"INPUT", true, jump(kInput)});
    return table;
}

TableContent rawTable(const State& state, IpFamily family) {
    Chain chain{kRaw, {}};
    for (const auto& view : networksOf(state, family)) {
        const std::string& bridge = view.network.bridge;
        if (family == IpFamily::V4) {
            // The driver sets route_localnet on bridges for 127.0.0.1:PORT from the host; containers must not use it.
            for (const bool toHost : {true, false}) {
                Rule rule;
                rule.comment = view.comment();
                rule.in = is(bridge);
                (toHost ? rule.destination : rule.source) = is(loopback());
                rule.target = "DROP";
                chain.rules.push_back(std::move(rule));
            }
        }
        // Without masquerade replies from elsewhere come straight to the subnet, so FORWARD has to tell them apart.
        if (view.network.internal || view.masquerades()) {
            for (const auto& subnet : view.subnets) {
                Rule rule;
                rule.comment = view.comment();
                rule.in = isNot(bridge);
                rule.destination = is(subnet);
                rule.toLocal = false;  // the gateway's address is the host's: published ports answer there
                rule.target = "DROP";
                chain.rules.push_back(std::move(rule));
            }
        }
        if (!view.nat()) continue;
        forEachPort(view, family, [&](const Endpoint& endpoint, const PublishedPort& port) {
            if (!port.hostIp.isLoopback() || port.hostPort == 0) return;
            // DNAT comes before routing would find a loopback address on a wire odd.
            Rule rule;
            rule.comment = commentOf(endpoint);
            rule.in = isNot(std::string("lo"));
            rule.destination = is(host(port.hostIp));
            rule.protocol = port.protocol;
            rule.destinationPort = port.hostPort;
            rule.target = "DROP";
            chain.rules.push_back(std::move(rule));
        });
    }
    TableContent table;
    if (state.resolver != 0) {
        Rule zone;
        zone.target = "CT";
        zone.zone = kResolverZone;
        if (Chain dns = toResolver(networksOf(state, family), zone); !dns.rules.empty()) {
            chain.rules.push_back(jump(kDns));
            table.chains.push_back(std::move(dns));
        }
    }
    if (chain.rules.empty()) return {};
    table.chains.push_back(std::move(chain));
    table.hooks = {{"PREROUTING", true, jump(kRaw)}};
    return table;
}

TableContent natTable(const State& state, IpFamily family) {
    const auto views = networksOf(state, family);
    if (views.empty()) return {};
    Chain dnat{kDnat, {}};
    Chain postrouting{kPostrouting, {}};
    for (const auto& view : views) {
        if (!view.nat()) continue;
        const std::string& bridge = view.network.bridge;
        for (const auto& subnet : view.subnets) {
            if (view.masquerades()) {
                Rule egress;
                egress.comment = view.comment();
                egress.source = is(subnet);
                egress.out = isNot(bridge);
                egress.target = view.hostAddress ? "SNAT" : "MASQUERADE";
                if (view.hostAddress) egress.natAddress = *view.hostAddress;
                postrouting.rules.push_back(std::move(egress));
            }
            // Hairpin: the reply of a container on the same bridge must come back through here to be un-DNATed.
            Rule hairpin;
            hairpin.comment = view.comment();
            hairpin.source = is(subnet);
            hairpin.out = is(bridge);
            hairpin.ctState = is(CtState::Dnat);
            hairpin.target = "MASQUERADE";
            postrouting.rules.push_back(std::move(hairpin));
        }
        if (family == IpFamily::V4) {
            Rule fromLoopback;
            fromLoopback.comment = view.comment();
            fromLoopback.source = is(loopback());
            fromLoopback.out = is(bridge);
            fromLoopback.target = "MASQUERADE";
            postrouting.rules.push_back(std::move(fromLoopback));
        }
        forEachPort(view, family, [&](const Endpoint& endpoint, const PublishedPort& port) {
            if (port.hostPort == 0) return;  // opened in routed mode, but here there is no place to map it
            Rule rule;
            rule.comment = commentOf(endpoint);
            if (!port.hostIp.isAny()) rule.destination = is(host(port.hostIp));
            rule.protocol = port.protocol;
            rule.destinationPort = port.hostPort;
            rule.target = "DNAT";
            rule.natAddress = port.containerIp;
            rule.natPort = port.containerPort;
            dnat.rules.push_back(std::move(rule));
        });
    }
    Hook prerouting{"PREROUTING", false, jump(kDnat)};
    prerouting.rule.toLocal = true;
    Hook output{"OUTPUT", false, jump(kDnat)};
    output.rule.toLocal = true;
    // The kernel cannot route from ::1 to another link, so a DNAT there would only lose the packet.
    if (family == IpFamily::V6) output.rule.destination = isNot(host(IpAddress(IpFamily::V6, 1)));
    TableContent table;
    table.chains.push_back(std::move(dnat));
    table.chains.push_back(std::move(postrouting));
    table.hooks = {std::move(prerouting), std::move(output), {"POSTROUTING", false, jump(kPostrouting)}};
    if (state.resolver == 0) return table;
    Rule redirect;
    redirect.target = "REDIRECT";
    redirect.natPort = state.resolver;
    if (Chain dns = toResolver(views, redirect); !dns.rules.empty()) {
        table.chains.push_back(std::move(dns));
        table.hooks.push_back({"PREROUTING", true, jump(kDns)});
    }
    return table;
}

namespace {

// What may enter a network's bridge.
Chain toBridge(const View& view, IpFamily family) {
    const std::string& bridge = view.network.bridge;
    Chain chain{view.chain(), {}};
    const auto rule = [&](const char* target) -> Rule& {
        chain.rules.emplace_back();
        chain.rules.back().comment = view.comment();
        chain.rules.back().target = target;
        return chain.rules.back();
    };

    rule("ACCEPT").ctState = is(CtState::EstablishedOrRelated);
    if (view.network.icc) {
        rule("ACCEPT").in = is(bridge);
    } else if (family == IpFamily::V6) {
        // Neighbours still have to find each other's published ports. Conntrack does not track these.
        for (const uint8_t type : {kNeighbourSolicitation, kNeighbourAdvertisement}) {
            auto& neighbour = rule("ACCEPT");
            neighbour.in = is(bridge);
            neighbour.protocol = IPPROTO_ICMPV6;
            neighbour.icmpv6Type = type;
        }
    }
    if (view.nat()) {
        // Ports are open at the host's addresses only, also where the raw table's guard has to let replies pass.
        auto& direct = rule("DROP");
        direct.in = isNot(bridge);
        direct.ctState = isNot(CtState::Dnat);
    } else if (!view.network.internal) {
        auto& icmp = rule("ACCEPT");
        icmp.in = isNot(bridge);
        icmp.protocol = icmpProtocol(family);
    }
    forEachPort(view, family, [&](const Endpoint& endpoint, const PublishedPort& port) {
        auto& published = rule("ACCEPT");
        published.comment = commentOf(endpoint);
        published.destination = is(host(port.containerIp));
        published.protocol = port.protocol;
        published.destinationPort = port.containerPort;
    });
    rule("DROP");
    return chain;
}

Rule toEngine(const std::string& bridge) {
    Rule rule;
    rule.comment = kHookComment;
    rule.out = is(bridge);
    rule.target = "RETURN";
    return rule;
}

// Engines before 28 let everybody reach a published port at the container's own address. Of ours, only what came by the
// host's address may; replies are to connections that our own rules let in.
Chain betweenWorlds(const std::vector<View>& views) {
    Chain chain{kToEngine, {}};
    for (const CtState passes : {CtState::EstablishedOrRelated, CtState::Dnat}) {
        Rule rule;
        rule.comment = kHookComment;
        rule.ctState = is(passes);
        rule.target = "RETURN";
        chain.rules.push_back(std::move(rule));
    }
    for (const auto& view : views) {
        Rule rule;
        rule.comment = view.comment();
        rule.in = is(view.network.bridge);
        rule.target = "DROP";
        chain.rules.push_back(std::move(rule));
    }
    return chain;
}

}  // namespace

TableContent filterTable(const State& state, IpFamily family) {
    const auto views = networksOf(state, family);
    if (views.empty()) return {};
    TableContent table;
    Chain forward{kForward, {}};
    const auto rule = [&](const View& view, std::string target) -> Rule& {
        forward.rules.emplace_back();
        forward.rules.back().comment = view.comment();
        forward.rules.back().target = std::move(target);
        return forward.rules.back();
    };
    for (const auto& view : views) {
        if (!view.network.internal) continue;
        const std::string& bridge = view.network.bridge;
        auto& leaving = rule(view, "DROP");
        leaving.in = is(bridge);
        leaving.out = isNot(bridge);
        auto& entering = rule(view, "DROP");
        entering.in = isNot(bridge);
        entering.out = is(bridge);
    }
    // Each of these chains decides, so what gets past them all does not go to a bridge of ours.
    for (const auto& view : views) {
        rule(view, view.chain()).out = is(view.network.bridge);
        table.chains.push_back(toBridge(view, family));
    }
    if (!state.engines.empty()) table.chains.push_back(betweenWorlds(views));
    for (const auto& bridge : state.engines) {
        Rule guard = toEngine(bridge);
        guard.target = kToEngine;
        forward.rules.push_back(std::move(guard));
        forward.rules.push_back(toEngine(bridge));
    }
    for (const auto& view : views) {
        if (!view.network.internal) rule(view, "ACCEPT").in = is(view.network.bridge);
    }
    table.chains.push_back(std::move(forward));
    table.hooks.push_back({"FORWARD", true, jump(kForward)});
    return table;
}

TableContent passageTable(const std::set<std::string>& bridges, const std::set<std::string>& engineBridges) {
    if (bridges.empty()) return {};
    Chain forward{kForward, {}};
    for (const auto& bridge : engineBridges) forward.rules.push_back(toEngine(bridge));
    for (const bool entering : {true, false}) {
        for (const auto& bridge : bridges) {
            Rule rule;
            rule.comment = kHookComment;
            (entering ? rule.out : rule.in) = is(bridge);
            rule.target = "ACCEPT";
            forward.rules.push_back(std::move(rule));
        }
    }
    TableContent table;
    table.chains.push_back(std::move(forward));
    table.hooks.push_back({"FORWARD", true, jump(kForward)});
    return table;
}

}  // namespace weft::firewall::iptc
