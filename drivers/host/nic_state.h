// NicState: all that a NIC loses when it goes into another namespace, to be given back to it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "net/netlink.h"

namespace weft {

struct NicState {
    std::string name;
    std::string alias;
    MacAddress mac;
    uint32_t mtu = 0;
    bool up = false;
    std::vector<IpPrefix> addresses;  // without IPv6 link-local ones: the kernel makes those
    std::vector<net::Route> routes;   // through the NIC, without those the kernel or a router made; link is 0

    [[nodiscard]] std::string encode() const;
    static Result<NicState> decode(std::string_view text);  // Corrupt
};

Result<NicState> readNic(net::Netlink& netlink, const net::Link& link);

// Gives `link`, which is in netlink's namespace under whatever name, its former name, alias and settings. Goes on after
// a failure and tells the first; repeating is harmless. The alias comes last: until then the NIC is marked.
Result<void> restoreNic(net::Netlink& netlink, const net::Link& link, const NicState& state);

}  // namespace weft
