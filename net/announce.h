// Tells neighbours that an address is now behind this link: gratuitous ARP or unsolicited neighbour advertisement.
#pragma once

#include "base/ip.h"
#include "base/result.h"
#include "net/netlink.h"

namespace weft::net {

// Sends one announcement of `address` at `mac` out of `link` in `ns`, as a broadcast (all-nodes for IPv6) frame.
// For a bridge link the frame goes to all its ports. NotFound when the link is gone, Kernel (ENETDOWN) when it is
// down. Does not wait for anything; the caller repeats if the neighbours may have missed it.
Result<void> announceAddress(const NetNs& ns, LinkIndex link, const IpAddress& address, const MacAddress& mac);

}  // namespace weft::net
