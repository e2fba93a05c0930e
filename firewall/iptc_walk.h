// The legacy tables for firewall/packet_walk.h.
#pragma once

#include <vector>

#include "firewall/iptc_table.h"
#include "firewall/packet_walk.h"

namespace weft::firewall::iptc {

// Of the packet's family, those that the calling thread's namespace has; `nat` is not among them. Takes the xtables
// lock.
Result<std::vector<WalkedTable>> readTables(const Packet& packet);

// `entry` as one packet sees it; exposed for tests.
WalkedRule judge(const RawRule& entry, const Packet& packet);

}  // namespace weft::firewall::iptc
