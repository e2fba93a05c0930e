// nf_tables (libnftables) as a Firewall back end: the table `inet weft`.
#pragma once

#include <memory>

#include "firewall/firewall.h"

namespace weft::firewall {

// Bound to the calling thread's namespace. Holds the intent it was told; a change is one transaction of the elements
// and chains that differ, so its cost does not grow with what is published already. A change that meets a damaged table
// (somebody flushed it) replaces the whole table instead. The table exists while there are networks.
// Unsupported where the kernel has no nf_tables.
Result<std::unique_ptr<Firewall>> makeNftFirewall();

}  // namespace weft::firewall
