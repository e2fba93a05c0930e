#include "drivers/host/nic_state.h"

#include <linux/rtnetlink.h>

#include <algorithm>
#include <optional>

#include "drivers/record_codec.h"

namespace weft {

namespace {

constexpr uint64_t kFormat = 1;

}  // namespace

std::string NicState::encode() const {
    FieldWriter out;
    out.add(kFormat).add(name).add(alias).add(mac.str()).add(mtu).add(up ? 1 : 0);
    out.add(addresses.size());
    for (const IpPrefix& address : addresses) out.add(address.str());
    out.add(routes.size());
    for (const net::Route& route : routes) {
        out.add(route.destination.str()).add(route.gateway ? route.gateway->str() : "");
        out.add(route.source ? route.source->str() : "").add(route.metric).add(route.mtu).add(route.table);
        out.add(route.protocol).add(route.linkScope ? 1 : 0);
    }
    return out.take();
}

Result<NicState> NicState::decode(std::string_view text) {
    FieldReader in(text);
    const auto parsed = [&in](auto result) {
        if (!result) in.fail();
        return result.value_or(typename decltype(result)::value_type());
    };
    const auto optionalAddress = [&]() -> std::optional<IpAddress> {
        const std::string field = in.text();
        if (field.empty()) return std::nullopt;
        return parsed(IpAddress::parse(field));
    };
    NicState state;
    if (in.number() != kFormat) in.fail();
    state.name = in.text();
    state.alias = in.text();
    state.mac = parsed(MacAddress::parse(in.text()));
    state.mtu = static_cast<uint32_t>(in.number(UINT32_MAX));
    state.up = in.number(1) == 1;
    for (size_t left = in.count(); left > 0 && !in.failed(); --left) {
        state.addresses.push_back(parsed(IpPrefix::parse(in.text())));
    }
    for (size_t left = in.count(); left > 0 && !in.failed(); --left) {
        net::Route route;
        route.destination = parsed(IpPrefix::parse(in.text()));
        route.gateway = optionalAddress();
        route.source = optionalAddress();
        route.metric = static_cast<uint32_t>(in.number(UINT32_MAX));
        route.mtu = static_cast<uint32_t>(in.number(UINT32_MAX));
        route.table = static_cast<uint32_t>(in.number(UINT32_MAX));
        route.protocol = static_cast<uint8_t>(in.number(UINT8_MAX));
        route.linkScope = in.number(1) == 1;
        state.routes.push_back(route);
    }
    WEFT_TRY(in.finish());
    return state;
}

Result<NicState> readNic(net::Netlink& netlink, const net::Link& link) {
    NicState state;
    state.name = link.name;
    state.alias = link.alias;
    state.mac = link.mac;
    state.mtu = link.mtu;
    state.up = link.up;
    WEFT_ASSIGN(const auto addresses, netlink.listAddresses(link.index));
    for (const net::Address& address : addresses) {
        const IpAddress& ip = address.prefix.address();
        if (!(ip.isV6() && ip.isLinkLocal())) state.addresses.push_back(address.prefix);
    }
    WEFT_ASSIGN(auto routes, netlink.listRoutes(0));
    for (net::Route& route : routes) {
        if (route.link != link.index || route.protocol == RTPROT_KERNEL || route.protocol == RTPROT_RA) continue;
        route.link = 0;
        state.routes.push_back(route);
    }
    // A gateway must be reachable when its route is added: on-link routes first.
    std::stable_partition(state.routes.begin(), state.routes.end(),
                          [](const net::Route& route) { return !route.gateway; });
    return state;
}

Result<void> restoreNic(net::Netlink& netlink, const net::Link& link, const NicState& state) {
    Result<void> outcome;
    const auto attempt = [&](Result<void> done) {
        if (!done && outcome) outcome = std::move(done).error().within("restore NIC " + state.name);
    };
    const bool rename = link.name != state.name;
    const bool remac = link.mac != state.mac && !state.mac.isZero();
    if ((rename || remac) && link.up) attempt(netlink.setDown(link.index));
    if (rename) attempt(netlink.rename(link.index, state.name));
    if (remac) attempt(netlink.setMac(link.index, state.mac));
    if (link.mtu != state.mtu) attempt(netlink.setMtu(link.index, state.mtu));
    for (const IpPrefix& prefix : state.addresses) {
        net::Address address;
        address.link = link.index;
        address.prefix = prefix;
        address.noDad = true;  // it was the host's a moment ago
        attempt(netlink.setAddress(address));
    }
    if (state.up) {
        attempt(netlink.setUp(link.index));
        for (net::Route route : state.routes) {
            route.link = link.index;
            attempt(netlink.setRoute(route));
        }
    } else {
        attempt(netlink.setDown(link.index));
    }
    if (outcome) attempt(netlink.setAlias(link.index, state.alias));
    return outcome;
}

}  // namespace weft
