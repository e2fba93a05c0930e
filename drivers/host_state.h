// What the modes ask of the host itself: its way out, what its routes occupy, and forwarding.
#pragma once

#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "drivers/record_store.h"
#include "ipam/local_ipam.h"
#include "net/netlink.h"

namespace weft {

// The link of the default route with the smallest metric, IPv4 before IPv6. NotFound when there is none.
Result<net::Link> defaultRouteLink(net::Netlink& netlink);

// Prefixes that routes and addresses of the host hold, and by what ("route on eth0"), without default routes,
// link-local ones, and those of links with a weft mark.
Result<std::vector<ipam::Occupied>> occupiedByHost(net::Netlink& netlink);

// Turns forwarding of a family on for the host if it is off, and notes what it was. True: it was off.
// IPv6: a host that forwards ignores router advertisements unless told otherwise, so links whose default route came
// from one are told (accept_ra = 2) before.
Result<bool> enableForwarding(net::Netlink& netlink, RecordStore& records, IpFamily family, bool dryRun);

}  // namespace weft
