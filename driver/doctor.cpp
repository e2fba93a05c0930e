#include "driver/doctor.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <functional>
#include <string_view>
#include <utility>

#include "net/netns.h"
#include "net/sysctl.h"

namespace weft::driver {
namespace {

// A kind of link, made and thrown away with its namespace.
Check checkKernelLinks() {
    Check check{"kernel links", Health::Good, "bridge, veth, macvlan and vxlan links can be made", ""};
    const auto ns = net::NetNs::create();
    if (!ns) return {"kernel links", Health::Bad, ns.error().message, "grant weftd CAP_SYS_ADMIN"};
    const auto netlink = net::Netlink::openIn(*ns);
    if (!netlink) return {"kernel links", Health::Bad, netlink.error().message, "grant weftd CAP_NET_ADMIN"};

    net::BridgeSpec bridge;
    bridge.name = "probe-bridge";
    bridge.alias = "weft probe";
    net::VethSpec veth;
    veth.name = "probe-veth";
    veth.peerName = "probe-peer";
    veth.alias = veth.peerAlias = bridge.alias;
    net::VxlanSpec vxlan;
    vxlan.name = "probe-vxlan";
    vxlan.alias = bridge.alias;
    vxlan.vxlan.vni = 1;
    net::LinkIndex parent = 0;
    const auto makeVeth = [&]() -> Result<net::Link> {
        WEFT_ASSIGN(parent, (*netlink)->createVeth(veth));
        return (*netlink)->getLink(parent);
    };
    const auto macvlan = [&]() -> Result<net::Link> {
        net::MacvlanSpec spec;
        spec.name = "probe-macvlan";
        spec.alias = bridge.alias;
        spec.parent = parent;
        return (*netlink)->createMacvlan(spec);
    };
    const std::vector<std::pair<const char*, std::function<Result<net::Link>()>>> kinds{
        {"bridge", [&] { return (*netlink)->createBridge(bridge); }},
        {"veth", makeVeth},
        {"macvlan", macvlan},
        {"vxlan", [&] { return (*netlink)->createVxlan(vxlan); }}};
    for (const auto& [kind, make] : kinds) {
        if (const auto made = make(); !made) {
            check.health = Health::Bad;
            check.found = fmt::format("no {} links: {}", kind, made.error().message);
            check.fix = fmt::format("modprobe {}", kind);
            break;
        }
    }
    return check;
}

Check checkForwarding(const char* name, const char* sysctl) {
    const auto value = net::readSysctl(sysctl);
    if (!value) return {name, Health::Warning, value.error().message, ""};
    if (*value != "0") return {name, Health::Good, "on", ""};
    std::string dotted = sysctl;
    std::replace(dotted.begin(), dotted.end(), '/', '.');
    return {name, Health::Warning, "off; weft turns it on with the first network that needs it",
            fmt::format("sysctl -w {}=1", dotted)};
}

Check checkBridgeNetfilter() {
    const bool on = net::bridgeCallsIptables(IpFamily::V4);
    return {"br_netfilter", Health::Good,
            on ? "on: frames within a bridge pass the host's rules too, those on the fast path do not"
               : "off: frames within a bridge pass no rules",
            ""};
}

Check checkLegacyTables() {
    std::ifstream file("/proc/net/ip_tables_names");
    std::string tables;
    for (std::string table; std::getline(file, table);) tables += (tables.empty() ? "" : ", ") + table;
    return {"legacy iptables", Health::Good, tables.empty() ? "no tables in use" : "tables in use: " + tables, ""};
}

Check checkConntrack() {
    const auto number = [](const char* name) -> uint64_t {
        const auto text = net::readSysctl(name);
        uint64_t value = 0;
        if (text) std::from_chars(text->data(), text->data() + text->size(), value);
        return value;
    };
    const uint64_t limit = number("net/netfilter/nf_conntrack_max");
    const uint64_t count = number("net/netfilter/nf_conntrack_count");
    if (limit == 0) return {"conntrack", Health::Warning, "not loaded yet; the first rule loads it", ""};
    const std::string found = fmt::format("{} of {} entries", count, limit);
    if (count < limit / 10 * 9) return {"conntrack", Health::Good, found, ""};
    return {"conntrack", Health::Bad, found + ": new connections are about to fail",
            fmt::format("sysctl -w net.netfilter.nf_conntrack_max={}", limit * 2)};
}

std::vector<Check> checkMtu(net::Netlink& netlink, const std::vector<NetworkInfo>& networks) {
    const auto routes = netlink.listRoutes();
    if (!routes) return {{"default route", Health::Warning, routes.error().message, ""}};
    const net::Route* best = nullptr;
    for (const net::Route& route : *routes) {
        if (route.destination.length() == 0 && (best == nullptr || route.metric < best->metric)) best = &route;
    }
    if (best == nullptr) {
        return {{"default route", Health::Warning, "none: containers cannot reach the internet",
                 "ip route add default via GATEWAY"}};
    }
    const auto link = netlink.getLink(best->link);
    if (!link) return {{"default route", Health::Warning, link.error().message, ""}};
    std::vector<Check> checks{{"default route", Health::Good, fmt::format("by {}, MTU {}", link->name, link->mtu), ""}};
    for (const NetworkInfo& network : networks) {
        if (network.mtu <= link->mtu || network.internal) continue;
        checks.push_back({"mtu", Health::Warning,
                          fmt::format("network {} has MTU {}, the way out {} has {}: large packets may get lost",
                                      network.id.brief(), network.mtu, link->name, link->mtu),
                          fmt::format("docker network create -o com.docker.network.driver.mtu={} ...", link->mtu)});
    }
    return checks;
}

std::string tunnelFix(const TunnelHealth& tunnel, const std::string& nic, uint16_t port) {
    switch (tunnel.state) {
        case TunnelState::Closed:
            return fmt::format("let UDP port {} pass to and from {}; weftctl ping {}", port, tunnel.vtep.str(),
                               tunnel.host);
        case TunnelState::Cut:
            return fmt::format(
                "weftctl ping {} says what passes; give networks less by -o com.docker.network.driver.mtu=",
                tunnel.host);
        case TunnelState::Damaged:
            return fmt::format("ethtool -K {} tx off here, ethtool -K NIC rx off gro off on {}", nic, tunnel.host);
        case TunnelState::Damages:
            return fmt::format("weftctl doctor on {}", tunnel.host);
        default:
            return "";
    }
}

bool inTrouble(const TunnelHealth& tunnel) {
    return tunnel.state != TunnelState::Good && tunnel.state != TunnelState::Healed &&
           tunnel.state != TunnelState::Unknown;
}

std::string offloadFound(const TunnelReport& report) {
    return "the NIC or what is below it damages TCP in tunnels (" + report.offloadWhy +
           "): checksum offload is off on weft's tunnels, at the price of CPU time";
}

}  // namespace

std::vector<Check> tunnelChecks(const TunnelReport& report, const std::string& nic, uint16_t port) {
    std::vector<Check> checks;
    if (!report.trouble.empty()) checks.push_back({"tunnels", Health::Warning, "not examined: " + report.trouble, ""});
    if (!report.offload) {
        checks.push_back(
            {"tunnel offload", Health::Warning, offloadFound(report),
             fmt::format("ethtool -K {} tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off (or tx "
                         "off) at every boot, and boot",
                         nic)});
    }
    size_t good = 0;
    size_t unknown = 0;
    for (const TunnelHealth& tunnel : report.tunnels) {
        if (tunnel.state == TunnelState::Unknown) {
            ++unknown;
        } else if (!inTrouble(tunnel)) {
            ++good;
        } else {
            checks.push_back({"tunnel to " + tunnel.host,
                              tunnel.state == TunnelState::Cut ? Health::Warning : Health::Bad, tunnel.detail,
                              tunnelFix(tunnel, nic, port)});
        }
    }
    if (!report.tunnels.empty() && report.trouble.empty()) {
        std::string found = fmt::format("{} of {} other hosts get what is sent", good, report.tunnels.size());
        if (unknown != 0) found += fmt::format(", {} not examined: just come, or with an older weftd", unknown);
        checks.push_back({"tunnels", Health::Good, found, ""});
    }
    return checks;
}

std::vector<std::string> tunnelWarnings(const TunnelReport& report) {
    std::vector<std::string> warnings;
    if (!report.trouble.empty()) warnings.push_back("tunnels are not examined: " + report.trouble);
    if (!report.offload) warnings.push_back(offloadFound(report));
    for (const TunnelHealth& tunnel : report.tunnels) {
        if (inTrouble(tunnel)) warnings.push_back("tunnel to " + tunnel.host + ": " + tunnel.detail);
    }
    return warnings;
}

std::vector<Check> senderChecks(std::vector<ForgingPort> ports, const std::string& trouble) {
    constexpr const char* kName = "senders";
    constexpr size_t kShown = 10;
    if (!trouble.empty()) {
        return {{kName, Health::Warning,
                 "not checked: a container with NET_RAW (Docker's default) can send as any other one: " + trouble,
                 "a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF, without lockdown=confidentiality; or docker "
                 "run --cap-drop NET_RAW"}};
    }
    std::erase_if(ports, [](const ForgingPort& port) { return net::sum(port.drops) == 0; });
    if (ports.empty()) return {{kName, Health::Good, "checked at every container's port, none sent as another", ""}};
    std::sort(ports.begin(), ports.end(),
              [](const ForgingPort& a, const ForgingPort& b) { return net::sum(a.drops) > net::sum(b.drops); });
    std::vector<Check> checks;
    for (const ForgingPort& port : ports) {
        if (checks.size() == kShown) {
            checks.push_back({kName, Health::Warning, fmt::format("and {} endpoints more", ports.size() - kShown),
                              "weftctl endpoints"});
            break;
        }
        checks.push_back(
            {kName, Health::Warning,
             fmt::format("endpoint {} of network {} sent {} frames as somebody else, which were dropped ({})",
                         port.endpoint.brief(), port.network.brief(), net::sum(port.drops), net::describe(port.drops)),
             fmt::format("if it is a router, or has addresses of its own (VRRP, VPN, kind, macvlan): docker network "
                         "connect --driver-opt {0}=allow NETWORK CONTAINER, or docker network create -o {0}=allow",
                         kSpoofOption)});
    }
    return checks;
}

Check silentHostsCheck(const std::string& trouble) {
    constexpr const char* kName = "silent hosts";
    if (trouble.empty()) return {kName, Health::Good, "their kernels are asked, and this host's answers", ""};
    return {kName, Health::Warning,
            "cannot be asked: containers of a host whose weftd is away count as gone, and those of this host for the "
            "others: " +
                trouble,
            "a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF, without lockdown=confidentiality"};
}

std::string linkWith(net::Netlink& netlink, const IpAddress& address) {
    if (const auto addresses = netlink.listAddresses()) {
        for (const net::Address& own : *addresses) {
            if (own.prefix.address() != address) continue;
            if (const auto link = netlink.getLink(own.link)) return link->name;
        }
    }
    return "eth0";
}

std::vector<Check> examineHost(net::Netlink& netlink, const std::vector<NetworkInfo>& networks) {
    std::vector<Check> checks{checkKernelLinks(),
                              checkForwarding("ip_forward", "net/ipv4/ip_forward"),
                              checkForwarding("ipv6 forwarding", "net/ipv6/conf/all/forwarding"),
                              checkBridgeNetfilter(),
                              checkLegacyTables(),
                              checkConntrack()};
    for (Check& check : checkMtu(netlink, networks)) checks.push_back(std::move(check));
    return checks;
}

}  // namespace weft::driver
