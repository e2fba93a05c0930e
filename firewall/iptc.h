// The legacy tables (libip4tc/libip6tc) as a Firewall back end.
#pragma once

#include <memory>

#include "firewall/firewall.h"

namespace weft::firewall {

// Works on the namespace of the thread that makes each call. Holds the intent it was told; the kernel's WEFT- chains
// are made equal to it, so after a start the first call is sync(). Several instances are safe beside each other.
//
// A call costs O(rules): the kernel takes a table only as a whole. Unsupported where the kernel lacks the legacy
// tables; Timeout when another program held the xtables lock (/run/xtables.lock, or $XTABLES_LOCKFILE) for 4 s.
// A failed call leaves the kept intent as it was and puts the tables it had already committed back.
std::unique_ptr<Firewall> makeIptcFirewall();

}  // namespace weft::firewall
