#include "firewall/nft_rules.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>
#include <string_view>

namespace weft::firewall::nft {

namespace {

// The rules below are spelt exactly as libnftables lists them with numeric output, because they are compared as text.
// In numbers: nfproto 2 and 10 are IPv4 and IPv6, l4proto 1 and 58 ICMP and ICMPv6, 6 and 17 TCP and UDP, fib type 2 is
// local, ct state 0x2,0x4 established and related, ct status 0x20 dnat, ICMPv6 types 135 and 136 neighbour discovery
// (RFC 4861).

struct FamilyWords {
    IpFamily family;
    const char* digit;    // suffix of set names
    const char* header;   // ip, ip6
    const char* nfproto;  // as a number
    const char* ethertype;
};
constexpr std::array<FamilyWords, 2> kFamilies = {
    {{IpFamily::V4, "4", "ip", "2", "0x0800"}, {IpFamily::V6, "6", "ip6", "10", "0x86dd"}}};

const FamilyWords& words(IpFamily family) {
    return kFamilies[family == IpFamily::V4 ? 0 : 1];
}

// A network as one family sees it.
struct View {
    const Network& network;
    IpFamily family;

    [[nodiscard]] GatewayMode mode() const { return family == IpFamily::V4 ? network.modeV4 : network.modeV6; }
    [[nodiscard]] bool nat() const { return mode() == GatewayMode::Nat && !network.internal; }
    [[nodiscard]] bool masquerades() const { return nat() && network.masquerade; }
    // Without masquerade replies from elsewhere come straight to the subnet: only `forward` can tell them apart.
    [[nodiscard]] bool guarded() const { return network.internal || masquerades(); }
    [[nodiscard]] const std::optional<IpAddress>& hostAddress() const {
        return family == IpFamily::V4 ? network.hostAddressV4 : network.hostAddressV6;
    }
};

std::string quoted(const std::string& link) {
    return '"' + link + '"';
}

// nft lists a prefix of full length as an address.
std::string spelt(const IpPrefix& prefix) {
    return prefix.length() == addressBits(prefix.family()) ? prefix.address().str() : prefix.network().str();
}

std::string hexadecimal(uint32_t number) {
    std::array<char, 11> text{};
    std::snprintf(text.data(), text.size(), "0x%08x", number);
    return text.data();
}

// Of the interval sets without a concatenation libnftables fetches all elements before each change, whatever it is
// about (1.0.6, NFT_CACHE_SETELEM_MAYBE). So sets of subnets have a first field that is the same for all packets of a
// family: the Ethernet type, for of a field of one byte (nf_proto) it makes a conversion in interval sets that kernels
// newer than 6.1 refuse.
std::map<std::string, std::string> declaredSets() {
    std::map<std::string, std::string> sets = {
        {"bridges", "type ifname"},
        {"entering", "type ifname : verdict"},
        {"leaving", "type ifname : verdict"},
        {"within", "type ifname . ifname : verdict"},
        {"tunnel", "type inet_service"},
        {"inside", "type ifname"},
        {"marked", "type ifname"},
        {"names", "type inet_service"},
        {"routed", "type nf_proto . ifname"},
        {"engines", "type ifname"},
        {"loopback4", "type ipv4_addr . inet_proto . inet_service"},
        {"resolver", "type nf_proto . ifname : inet_service"},
        {kAnswering, "type inet_service\nsize 16\nflags dynamic,timeout\ntimeout 1s"},
    };
    for (const auto& family : kFamilies) {
        const std::string digit = family.digit;
        const std::string address = std::string("ipv") + digit + "_addr";
        sets["members" + digit] = "type " + address;
        sets["peers" + digit] = "type " + address;
        sets["address" + digit] = "type " + address;
        sets["home" + digit] = "type ifname . " + address + "\nflags interval";
        sets["guarded" + digit] = "type ether_type . " + address + "\nflags interval";
        sets["masquerade" + digit] = "type ether_type . " + address + "\nflags interval";
        sets["snat" + digit] = "type ether_type . " + address + " : " + address + "\nflags interval";
        sets["published" + digit] = "type inet_proto . inet_service : " + address + " . inet_service";
        sets["published_at" + digit] =
            "type " + address + " . inet_proto . inet_service : " + address + " . inet_service";
        sets["open" + digit] = "type " + address + " . inet_proto . inet_service";
    }
    return sets;
}

// No chain and no rule is about one network: what differs between them is in the sets, so that a packet and a change
// cost the same with one network and with a thousand.
std::map<std::string, std::vector<std::string>> fixedChains() {
    std::vector<std::string> raw = {
        "type filter hook prerouting priority -300; policy accept;",
        // The driver sets route_localnet on bridges for 127.0.0.1:PORT from the host; containers must not use it.
        "ip saddr 127.0.0.0/8 iifname @bridges drop",
        "ip daddr 127.0.0.0/8 iifname @bridges drop",
        // The kernel itself drops what comes over a wire for ::1.
        "ip daddr 127.0.0.0/8 iifname != \"lo\" ip daddr . meta l4proto . th dport @loopback4 drop",
    };
    // Flows to the resolver have a zone of conntrack to themselves: when it no longer answers, the next packet is that
    // of a new flow, whatever source port it has, and so when it answers again.
    const std::string toResolver = "meta l4proto { 6, 17 } th dport @answering meta nfproto . iifname @resolver ";
    const std::string setZone = " ct original zone set " + std::to_string(kResolverZone);
    std::vector<std::string> zone = {"type filter hook prerouting priority -299; policy accept;",
                                     toResolver + "fib daddr type 2" + setZone};
    std::vector<std::string> publish;
    std::vector<std::string> egress;
    std::vector<std::string> open;
    // Of the tunnel port: what comes to this host, what goes through it, what its own sockets send.
    std::vector<std::string> tunnel = {"iifname @inside drop"};
    std::vector<std::string> transit;
    std::vector<std::string> toPeers;
    std::vector<std::string> postrouting = {"type nat hook postrouting priority 100; policy accept;"};
    for (const auto& family : kFamilies) {
        const std::string digit = family.digit;
        const std::string ip = family.header;
        const std::string toPeer = ip + " daddr @peers" + digit;
        tunnel.push_back(ip + " saddr @members" + digit + " " + ip + " daddr @address" + digit + " accept");
        transit.push_back(toPeer + " iifname @inside drop");
        transit.push_back(toPeer + " " + ip + " saddr != @members" + digit + " drop");
        toPeers.push_back(toPeer + " drop");
        raw.push_back("meta protocol . " + ip + " daddr @guarded" + digit + " iifname . " + ip + " daddr != @home" +
                      digit + " fib daddr type != 2 drop");
        zone.push_back(toResolver + "iifname . " + ip + " daddr != @home" + digit + setZone);
        publish.push_back("dnat " + ip + " to " + ip + " daddr . meta l4proto . th dport map @published_at" + digit);
        publish.push_back("dnat " + ip + " to meta l4proto . th dport map @published" + digit);
        egress.push_back("snat " + ip + " to meta protocol . " + ip + " saddr map @snat" + digit);
        open.push_back(ip + " daddr . meta l4proto . th dport @open" + digit + " accept");
        postrouting.push_back("meta protocol . " + ip + " saddr @masquerade" + digit + " oifname . " + ip +
                              " saddr != @home" + digit + " jump egress");
        // Hairpin: the reply of a container on the same bridge must come back through here to be un-DNATed.
        postrouting.push_back("oifname . " + ip + " saddr @home" + digit + " ct status 0x20 masquerade");
    }
    const std::string mark = hexadecimal(kTunnelMark);
    egress.emplace_back("masquerade");
    open.emplace_back("drop");
    tunnel.emplace_back("drop");
    postrouting.emplace_back("oifname @bridges ip saddr 127.0.0.0/8 masquerade");
    return {
        {"raw", raw},
        {"answering",
         {"type filter hook output priority -301; policy accept;",
          "oifname \"lo\" meta mark 0x77656674 udp dport 53 update @answering { udp dport timeout 1s } drop"}},
        {"zone", zone},
        // Ahead of every DNAT of published ports, others' included (-100).
        {"resolve",
         {"type nat hook prerouting priority -101; policy accept;",
          "meta l4proto { 6, 17 } th dport 53 ct original zone " + std::to_string(kResolverZone) +
              " redirect to :meta nfproto . iifname map @resolver"}},
        {"publish", publish},
        {"egress", egress},
        {"open", open},
        {"postrouting", postrouting},
        {"tunnel", tunnel},
        {"transit", transit},
        {"to-peers", toPeers},
        {"input",
         {"type filter hook input priority 0; policy accept;", "udp dport @tunnel goto tunnel",
          "meta l4proto { 6, 17 } th dport @names iifname != @bridges drop"}},
        // Without a socket of this namespace, a packet is a container's, which the tunnel wrapped: the rule ends there.
        {"send",
         {"type filter hook output priority 0; policy accept;",
          "udp dport @tunnel meta mark & " + mark + " == 0x00000000 meta skuid != 4294967295 jump to-peers",
          "oifname @marked meta mark set meta mark | " + mark}},
        {"prerouting", {"type nat hook prerouting priority -100; policy accept;", "fib daddr type 2 jump publish"}},
        // The kernel cannot route from ::1 to another link, so a DNAT there would only lose the packet.
        {"output",
         {"type nat hook output priority -100; policy accept;", "ip6 daddr ::1 return",
          "fib daddr type 2 jump publish"}},
        {"forward",
         {"type filter hook forward priority 0; policy accept;", "udp dport @tunnel jump transit",
          "iifname . oifname vmap @within", "iifname vmap @leaving", "oifname vmap @entering",
          "iifname @bridges oifname @engines goto to-engine"}},
        // Engines before 28 let everybody reach a published port at the container's own address. Of ours, only what
        // came by the host's address may; replies are to connections that our own rules let in.
        {"to-engine", {"ct state 0x2,0x4 accept", "ct status ! 0x20 drop"}},
        // What comes to a bridge from another link. In NAT mode ports are open at the host's addresses only, also where
        // the raw guard has to let replies pass.
        {"from-elsewhere",
         {"ct state 0x2,0x4 accept", "meta nfproto . oifname != @routed ct status ! 0x20 drop",
          "meta nfproto . oifname @routed meta l4proto { 1, 58 } accept", "goto open"}},
        // What passes between the ports of a bridge without icc. Neighbours still have to find each other's published
        // ports.
        {"between-ports", {"ct state 0x2,0x4 accept", "icmpv6 type { 135, 136 } accept", "goto open"}},
    };
}

std::string declaration(const std::string& name, std::string type) {
    const bool isMap = type.find(" : ") != std::string::npos;
    std::replace(type.begin(), type.end(), '\n', ';');
    return "add " + std::string(isMap ? "map " : "set ") + kTable + " " + name + " { " + type + "; }\n";
}

std::string elementList(const std::map<std::string, std::string>& elements, bool withValues) {
    std::string list;
    for (const auto& [key, value] : elements) {
        if (!list.empty()) list += ", ";
        list += key;
        if (withValues && !value.empty()) list += " : " + value;
    }
    return list;
}

bool isBase(const std::vector<std::string>& rules) {
    return !rules.empty() && rules.front().rfind("type ", 0) == 0;
}

std::string_view trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\n");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

// "... # handle 7": the listing's way to name rules and chains.
std::string_view withoutHandle(std::string_view line) {
    return trimmed(line.substr(0, line.rfind(" # handle ")));
}

}  // namespace

Elements networkElements(const Network& network) {
    Elements elements;
    const std::string bridge = quoted(network.bridge);
    elements["bridges"].emplace(bridge, "");
    elements["within"].emplace(bridge + " . " + bridge, network.icc ? "accept" : "goto between-ports");
    elements["entering"].emplace(bridge, network.internal ? "drop" : "goto from-elsewhere");
    if (network.internal) elements["leaving"].emplace(bridge, "drop");
    for (const auto& subnet : network.subnets) {
        const View view{network, subnet.family()};
        const auto& [family, digit, header, nfproto, ethertype] = words(subnet.family());
        const std::string key = std::string(ethertype) + " . " + spelt(subnet);
        elements[std::string("home") + digit].emplace(bridge + " . " + spelt(subnet), "");
        if (view.guarded()) elements[std::string("guarded") + digit].emplace(key, "");
        if (view.masquerades()) elements[std::string("masquerade") + digit].emplace(key, "");
        if (view.masquerades() && view.hostAddress()) {
            elements[std::string("snat") + digit].emplace(key, view.hostAddress()->str());
        }
        if (!view.nat() && !network.internal) {
            elements["routed"].emplace(std::string(nfproto) + " . " + bridge, "");
        }
    }
    return elements;
}

Elements endpointElements(const State& state, const Endpoint& endpoint) {
    Elements elements;
    const auto found = state.networks.find(endpoint.networkId);
    if (found == state.networks.end() || found->second.internal) return elements;
    for (const auto& port : endpoint.ports) {
        const IpFamily family = port.containerIp.family();
        const std::string digit = words(family).digit;
        const std::string protocol = std::to_string(port.protocol);
        const std::string container = port.containerIp.str();
        const std::string containerPort = std::to_string(port.containerPort);
        elements["open" + digit].emplace(container + " . " + protocol + " . " + containerPort, "");
        if (!View{found->second, family}.nat() || port.hostPort == 0) continue;
        const std::string hostSide = protocol + " . " + std::to_string(port.hostPort);
        const std::string target = container + " . " + containerPort;
        if (port.hostIp.isAny()) {
            elements["published" + digit].emplace(hostSide, target);
            continue;
        }
        const std::string key = port.hostIp.str() + " . " + hostSide;
        elements["published_at" + digit].emplace(key, target);
        if (port.hostIp.isLoopback() && port.hostIp.isV4()) elements["loopback4"].emplace(key, "");
    }
    return elements;
}

Elements tunnelElements(const State& state) {
    Elements elements;
    const Tunnel& tunnel = state.tunnel;
    if (tunnel.port == 0) return elements;
    elements["address" + std::string(words(tunnel.address.family()).digit)].emplace(tunnel.address.str(), "");
    for (const auto& link : state.inside()) elements["inside"].emplace(quoted(link), "");
    for (const auto& [id, network] : state.networks) elements["marked"].emplace(quoted(network.bridge), "");
    elements["tunnel"].emplace(std::to_string(tunnel.port), "");
    for (const auto& [set, addresses] : {std::pair("members", tunnel.members), std::pair("peers", tunnel.peers)}) {
        for (const IpAddress& one : addresses) {
            elements[std::string(set) + words(one.family()).digit].emplace(one.str(), "");
        }
    }
    return elements;
}

Elements resolverElements(const State& state) {
    Elements elements;
    if (state.resolver == 0) return elements;
    elements["names"].emplace(std::to_string(state.resolver), "");
    for (const auto& [id, network] : state.networks) {
        if (!network.resolve) continue;
        for (const auto& subnet : network.subnets) {
            elements["resolver"].emplace(words(subnet.family()).nfproto + (" . " + quoted(network.bridge)),
                                         std::to_string(state.resolver));
        }
    }
    return elements;
}

Elements sharedElements(const State& state) {
    Elements elements = tunnelElements(state);
    elements.merge(resolverElements(state));
    for (const auto& bridge : state.engines) elements["engines"].emplace(quoted(bridge), "");
    return elements;
}

Table tableOf(const State& state) {
    Table table{declaredSets(), fixedChains(), sharedElements(state)};
    for (const auto& [id, network] : state.networks) {
        for (auto& [set, elements] : networkElements(network)) table.elements[set].merge(elements);
    }
    for (const auto& [id, endpoint] : state.endpoints) {
        for (auto& [set, elements] : endpointElements(state, endpoint)) table.elements[set].merge(elements);
    }
    return table;
}

Table parseListing(const std::string& listing) {
    Table table;
    std::string* set = nullptr;
    std::vector<std::string>* chain = nullptr;
    std::istringstream lines(listing);
    for (std::string line; std::getline(lines, line);) {
        const std::string_view text = withoutHandle(line);
        const auto first = text.find(' ') + 1;
        const auto name = [&] { return std::string(trimmed(text.substr(first, text.find('{') - first))); };
        if (text.starts_with("set ") || text.starts_with("map ")) {
            set = &table.sets[name()];
            chain = nullptr;
        } else if (text.starts_with("chain ")) {
            chain = &table.chains[name()];
            set = nullptr;
        } else if (text.empty() || text == "}" || text.starts_with("table ")) {
            continue;
        } else if (set != nullptr) {
            if (!set->empty()) *set += '\n';
            *set += text;
        } else if (chain != nullptr) {
            chain->emplace_back(text);
        }
    }
    return table;
}

bool sameShape(const Table& one, const Table& other) {
    const auto sameName = [](const auto& a, const auto& b) { return a.first == b.first; };
    const auto sameSize = [](const auto& a, const auto& b) {
        return a.first == b.first && a.second.size() == b.second.size();
    };
    return std::equal(one.sets.begin(), one.sets.end(), other.sets.begin(), other.sets.end(), sameName) &&
           std::equal(one.chains.begin(), one.chains.end(), other.chains.begin(), other.chains.end(), sameSize);
}

Elements without(const Elements& all, const Elements& others) {
    Elements rest;
    for (const auto& [set, elements] : all) {
        const auto otherSet = others.find(set);
        for (const auto& [key, value] : elements) {
            if (otherSet != others.end()) {
                const auto other = otherSet->second.find(key);
                if (other != otherSet->second.end() && other->second == value) continue;
            }
            rest[set].emplace(key, value);
        }
    }
    return rest;
}

std::vector<std::string> differences(const Table& wanted, const Table& found) {
    std::vector<std::string> lines;
    for (const auto& [name, type] : wanted.sets) {
        const auto there = found.sets.find(name);
        if (there == found.sets.end()) {
            lines.push_back("set " + name + " missing");
        } else if (there->second != type) {
            lines.push_back("set " + name + " declared otherwise");
        }
    }
    for (const auto& [name, type] : found.sets) {
        if (!wanted.sets.contains(name)) lines.push_back("set " + name + " unexpected");
    }
    for (const auto& [name, rules] : wanted.chains) {
        const auto there = found.chains.find(name);
        if (there == found.chains.end()) {
            lines.push_back("chain " + name + " missing");
        } else if (there->second != rules) {
            lines.push_back("chain " + name + " has other rules");
        }
    }
    for (const auto& [name, rules] : found.chains) {
        if (!wanted.chains.contains(name)) lines.push_back("chain " + name + " unexpected");
    }
    for (const auto& [set, elements] : without(wanted.elements, found.elements)) {
        for (const auto& [key, value] : elements) lines.push_back("element " + key + " missing from " + set);
    }
    for (const auto& [set, elements] : without(found.elements, wanted.elements)) {
        for (const auto& [key, value] : elements) lines.push_back("element " + key + " unexpected in " + set);
    }
    return lines;
}

std::string replaceCommands(const Table& table) {
    const std::string name = kTable;
    // The first line makes the second succeed where no table is.
    std::string commands = "add table " + name + "\ndelete table " + name + "\nadd table " + name + "\n";
    for (const auto& [set, type] : table.sets) commands += declaration(set, type);
    // All chains first, for rules lead from one to another.
    for (const auto& [chain, rules] : table.chains) {
        commands += "add chain " + name + " " + chain + (isBase(rules) ? " { " + rules.front() + " }\n" : "\n");
    }
    for (const auto& [chain, rules] : table.chains) {
        for (size_t i = isBase(rules) ? 1 : 0; i < rules.size(); ++i) {
            commands += "add rule " + name + " " + chain + " " + rules[i] + "\n";
        }
    }
    return commands + changeCommands({}, table.elements);
}

std::string changeCommands(const Elements& gone, const Elements& come) {
    const std::string name = kTable;
    std::string commands;
    for (const auto& [set, elements] : gone) {
        commands += "delete element " + name + " " + set + " { " + elementList(elements, false) + " }\n";
    }
    for (const auto& [set, elements] : come) {
        commands += "add element " + name + " " + set + " { " + elementList(elements, true) + " }\n";
    }
    return commands;
}

}  // namespace weft::firewall::nft
