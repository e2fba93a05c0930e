#include "drivers/host_state.h"

#include <linux/rtnetlink.h>

#include <map>
#include <set>

#include "base/log.h"
#include "drivers/names.h"
#include "net/sysctl.h"

namespace weft {

namespace {

bool isDefault(const net::Route& route) {
    return route.destination.length() == 0;
}

}  // namespace

Result<net::Link> defaultRouteLink(net::Netlink& netlink) {
    WEFT_ASSIGN(const auto routes, netlink.listRoutes());
    const net::Route* best = nullptr;
    const auto before = [](const net::Route& a, const net::Route& b) {
        return std::pair(a.destination.family(), a.metric) < std::pair(b.destination.family(), b.metric);
    };
    for (const net::Route& route : routes) {
        if (isDefault(route) && route.link != 0 && (best == nullptr || before(route, *best))) best = &route;
    }
    if (best == nullptr) return makeError(ErrorCode::NotFound, "the host has no default route");
    return netlink.getLink(best->link);
}

Result<std::vector<ipam::Occupied>> occupiedByHost(net::Netlink& netlink) {
    WEFT_ASSIGN(const auto links, netlink.listLinks());
    std::map<net::LinkIndex, std::string> foreign;
    for (const net::Link& link : links) {
        if (!markedNetwork(link.alias) && !markedEndpoint(link.alias)) foreign[link.index] = link.name;
    }
    std::vector<ipam::Occupied> occupied;
    WEFT_ASSIGN(const auto routes, netlink.listRoutes());
    for (const net::Route& route : routes) {
        const auto link = foreign.find(route.link);
        const IpAddress address = route.destination.address();
        if (isDefault(route) || address.isLinkLocal() || address.isMulticast() || link == foreign.end()) continue;
        occupied.push_back({route.destination.network(), "route " + route.destination.str() + " on " + link->second});
    }
    WEFT_ASSIGN(const auto addresses, netlink.listAddresses());
    for (const net::Address& address : addresses) {
        const auto link = foreign.find(address.link);
        const IpAddress ip = address.prefix.address();
        if (ip.isLinkLocal() || ip.isLoopback() || link == foreign.end()) continue;
        const auto bits = static_cast<uint8_t>(addressBits(ip.family()));
        occupied.push_back({IpPrefix(ip, bits), "address " + address.prefix.str() + " on " + link->second});
    }
    return occupied;
}

Result<bool> enableForwarding(net::Netlink& netlink, RecordStore& records, IpFamily family, bool dryRun) {
    const std::string name = family == IpFamily::V4 ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding";
    const auto read = [&] { return net::readSysctl(name); };
    WEFT_ASSIGN(const std::string before, net::runIn(netlink.netns(), read));
    if (before != "0") return false;
    if (dryRun) return true;

    std::set<std::string> advertised;
    if (family == IpFamily::V6) {
        WEFT_ASSIGN(const auto routes, netlink.listRoutes());
        for (const net::Route& route : routes) {
            if (!isDefault(route) || route.protocol != RTPROT_RA || !route.destination.address().isV6()) continue;
            if (auto link = netlink.getLink(route.link)) advertised.insert(link->name);
        }
    }
    WEFT_TRY(records.noteHostChange(name, before));
    const auto write = [&]() -> Result<bool> {
        for (const std::string& link : advertised) {
            WEFT_TRY(net::setSysctl(net::linkSysctl(IpFamily::V6, link, "accept_ra"), "2"));
        }
        return net::setSysctl(name, "1");
    };
    WEFT_TRY(net::runIn(netlink.netns(), write));
    logInfo("msg=\"forwarding was off on this host; a network needs it: turned on\" setting={}", name);
    return true;
}

}  // namespace weft
