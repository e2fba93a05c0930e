#include <arpa/inet.h>

#include <cerrno>
#include <cstring>

#include "net/netlink_impl.h"

namespace weft::net {

namespace {

uint8_t familyNumber(IpFamily family) {
    return family == IpFamily::V4 ? AF_INET : AF_INET6;
}

std::optional<IpFamily> familyOf(uint8_t number) {
    if (number == AF_INET) return IpFamily::V4;
    if (number == AF_INET6) return IpFamily::V6;
    return std::nullopt;
}

Message addressMessage(int type, int flags, const Address& address) {
    const bool v4 = address.prefix.family() == IpFamily::V4;
    uint32_t addressFlags = 0;
    if (address.noPrefixRoute) addressFlags |= IFA_F_NOPREFIXROUTE;
    if (address.noDad && !v4) addressFlags |= IFA_F_NODAD;

    ifaddrmsg header{};
    header.ifa_family = familyNumber(address.prefix.family());
    header.ifa_prefixlen = address.prefix.length();
    header.ifa_index = static_cast<uint32_t>(address.link);
    if (address.prefix.address().isLoopback()) header.ifa_scope = RT_SCOPE_HOST;
    Message message(type, flags);
    message.header(header).put(IFA_ADDRESS, address.prefix.address());
    if (v4) message.put(IFA_LOCAL, address.prefix.address());
    if (addressFlags != 0) message.put(IFA_FLAGS, addressFlags);
    return message;
}

Message routeMessage(int type, int flags, const Route& route) {
    rtmsg header{};
    header.rtm_family = familyNumber(route.destination.family());
    header.rtm_dst_len = route.destination.length();
    header.rtm_table = static_cast<uint8_t>(route.table < 256 ? route.table : uint32_t{RT_TABLE_COMPAT});
    header.rtm_protocol = route.protocol;
    const bool onLink = route.linkScope || (!route.gateway && route.destination.family() == IpFamily::V4);
    header.rtm_scope = onLink ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
    if (type == RTM_DELROUTE) header.rtm_scope = RT_SCOPE_NOWHERE;  // any
    header.rtm_type = RTN_UNICAST;
    Message message(type, flags);
    message.header(header).put(RTA_TABLE, route.table);
    if (route.destination.length() != 0) message.put(RTA_DST, route.destination.network().address());
    if (route.gateway) message.put(RTA_GATEWAY, *route.gateway);
    if (route.link != 0) message.put(RTA_OIF, static_cast<uint32_t>(route.link));
    if (route.source && type == RTM_NEWROUTE) message.put(RTA_PREFSRC, *route.source);
    if (route.metric != 0) message.put(RTA_PRIORITY, route.metric);
    if (route.mtu != 0 && type == RTM_NEWROUTE) {
        message.nest(RTA_METRICS, [&] { message.put(RTAX_MTU, route.mtu); });
    }
    return message;
}

std::optional<Route> decodeRoute(const nlmsghdr& message) {
    const auto* header = static_cast<const rtmsg*>(NLMSG_DATA(&message));
    const std::optional<IpFamily> family = familyOf(header->rtm_family);
    if (!family || header->rtm_type != RTN_UNICAST || (header->rtm_flags & RTM_F_CLONED) != 0) return std::nullopt;
    Attributes attributes = Attributes::of(message, sizeof(rtmsg));
    Route route;
    route.destination = {attributes.ip(RTA_DST).value_or(IpAddress::any(*family)), header->rtm_dst_len};
    route.source = attributes.ip(RTA_PREFSRC);
    route.metric = attributes.get<uint32_t>(RTA_PRIORITY);
    route.mtu = attributes.nested(RTA_METRICS).get<uint32_t>(RTAX_MTU);
    route.table = attributes.get<uint32_t>(RTA_TABLE, header->rtm_table);
    route.protocol = header->rtm_protocol;
    route.linkScope = header->rtm_scope == RT_SCOPE_LINK;
    route.link = attributes.get<LinkIndex>(RTA_OIF);
    route.gateway = attributes.ip(RTA_GATEWAY);
    if (const nlattr* hops = attributes.find(RTA_MULTIPATH); hops != nullptr) {
        rtnexthop hop{};
        if (nla_len(hops) >= static_cast<int>(sizeof hop)) {
            std::memcpy(&hop, nla_data(hops), sizeof hop);
            route.link = hop.rtnh_ifindex;
            auto* first = static_cast<char*>(nla_data(hops)) + RTNH_LENGTH(0);
            const int length = std::min<int>(hop.rtnh_len, nla_len(hops)) - static_cast<int>(RTNH_LENGTH(0));
            route.gateway = Attributes(reinterpret_cast<nlattr*>(first), length).ip(RTA_GATEWAY);
        }
    }
    return route;
}

}  // namespace

std::optional<Address> decodeAddress(const nlmsghdr& message) {
    const auto* header = static_cast<const ifaddrmsg*>(NLMSG_DATA(&message));
    const Attributes attributes = Attributes::of(message, sizeof(ifaddrmsg));
    // On a point-to-point link IFA_ADDRESS is the peer's.
    std::optional<IpAddress> own = attributes.ip(IFA_LOCAL);
    if (!own) own = attributes.ip(IFA_ADDRESS);
    if (!own) return std::nullopt;
    const auto flags = attributes.get<uint32_t>(IFA_FLAGS, header->ifa_flags);
    return Address{.link = static_cast<LinkIndex>(header->ifa_index),
                   .prefix = {*own, header->ifa_prefixlen},
                   .noPrefixRoute = (flags & IFA_F_NOPREFIXROUTE) != 0,
                   .noDad = (flags & IFA_F_NODAD) != 0,
                   .tentative = (flags & IFA_F_TENTATIVE) != 0,
                   .dadFailed = (flags & IFA_F_DADFAILED) != 0};
}

Result<void> Netlink::setAddress(const Address& address) {
    return impl_->request(addressMessage(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, address),
                          "set address " + address.prefix.str());
}

Result<void> Netlink::deleteAddress(LinkIndex link, const IpPrefix& prefix) {
    auto result = impl_->request(addressMessage(RTM_DELADDR, 0, {.link = link, .prefix = prefix}),
                                 "delete address " + prefix.str());
    if (!result && (result.error().sysErrno == EADDRNOTAVAIL || result.error().code == ErrorCode::NotFound)) return {};
    return result;
}

Result<std::vector<Address>> Netlink::listAddresses(LinkIndex link) {
    ifaddrmsg header{};
    header.ifa_index = static_cast<uint32_t>(link);
    Message message(RTM_GETADDR, 0);
    message.header(header);
    return impl_->list<Address>(std::move(message), "list addresses", [&](const nlmsghdr& reply) {
        std::optional<Address> address = decodeAddress(reply);
        if (address && link != 0 && address->link != link) address.reset();
        return address;
    });
}

Result<void> Netlink::setRoute(const Route& route) {
    return impl_->request(routeMessage(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route),
                          "set route " + route.destination.str());
}

Result<void> Netlink::deleteRoute(const Route& route) {
    auto result = impl_->request(routeMessage(RTM_DELROUTE, 0, route), "delete route " + route.destination.str());
    if (!result && result.error().code == ErrorCode::NotFound) return {};
    return result;
}

Result<std::vector<Route>> Netlink::listRoutes(uint32_t table) {
    std::vector<Route> all;
    for (const uint8_t family : {uint8_t{AF_INET}, uint8_t{AF_INET6}}) {
        if (family == AF_INET6 && !impl_->ipv6) continue;
        rtmsg header{};
        header.rtm_family = family;
        Message message(RTM_GETROUTE, 0);
        message.header(header);
        // Filtered here: asked to filter, a kernel answers ENOENT for a table that has not been made yet.
        WEFT_ASSIGN(const std::vector<Route> routes,
                    impl_->list<Route>(std::move(message), "list routes", [&](const nlmsghdr& reply) {
                        std::optional<Route> route = decodeRoute(reply);
                        if (route && table != 0 && route->table != table) route.reset();
                        return route;
                    }));
        all.insert(all.end(), routes.begin(), routes.end());
    }
    return all;
}

Result<RouteLookup> Netlink::lookupRoute(const IpAddress& destination) {
    rtmsg header{};
    header.rtm_family = familyNumber(destination.family());
    header.rtm_dst_len = static_cast<uint8_t>(addressBits(destination.family()));
    Message message(RTM_GETROUTE, 0);
    message.header(header).put(RTA_DST, destination);

    const std::string context = "route to " + destination.str();
    RouteLookup lookup;
    uint8_t type = RTN_UNSPEC;
    const auto decode = [&](const nlmsghdr& reply) {
        const Attributes attributes = Attributes::of(reply, sizeof(rtmsg));
        type = static_cast<const rtmsg*>(NLMSG_DATA(&reply))->rtm_type;
        lookup.link = attributes.get<LinkIndex>(RTA_OIF);
        lookup.source = attributes.ip(RTA_PREFSRC).value_or(IpAddress::any(destination.family()));
        lookup.gateway = attributes.ip(RTA_GATEWAY);
        lookup.mtu = attributes.nested(RTA_METRICS).get<uint32_t>(RTAX_MTU);
        lookup.local = type == RTN_LOCAL;
    };
    auto result = impl_->pool.with([&](NlSocket& socket) { return socket.request(message, context, decode); });
    if (!result) {
        const int code = result.error().sysErrno;
        const bool noRoute = code == ENETUNREACH || code == EHOSTUNREACH || code == EACCES || code == EINVAL;
        if (noRoute) return Error{ErrorCode::Unavailable, result.error().message, code};
        return std::move(result).error();
    }
    if (type != RTN_UNICAST && type != RTN_LOCAL && type != RTN_MULTICAST && type != RTN_BROADCAST) {
        return makeError(ErrorCode::Unavailable, context + ": unreachable");
    }
    if (lookup.mtu == 0) {
        WEFT_ASSIGN(const Link link, getLink(lookup.link));
        lookup.mtu = link.mtu;
    }
    return lookup;
}

}  // namespace weft::net
