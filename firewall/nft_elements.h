// Reads set elements from the kernel by netlink. libnftables can list them as well, but takes a hundred times as long
// and keeps some kilobytes for each: 1.2 s and 30 MiB for 10,000 published ports.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"
#include "firewall/nft_rules.h"

namespace weft::firewall::nft {

// The elements of kTable's sets, spelt as networkElements() and endpointElements() do. `sets` are declarations as in
// Table::sets; one that is not there has no elements. In the calling thread's namespace.
Result<Elements> readElements(const std::map<std::string, std::string>& sets);

// The number of the kernel's rule set: every transaction on any table, whoever's, gives it the next. In the calling
// thread's namespace.
Result<uint32_t> readGeneration();

// One element of a set, from the bytes of its key (for an interval its first and last) and data.
struct RawElement {
    std::string_view key;
    std::string_view keyEnd;  // empty: no interval
    std::string_view data;    // empty: none
    std::string verdict;      // in place of data: "accept", "goto chain"
};
// Key and value in words; `type` is the set's declaration, "type ifname . ipv4_addr".
std::pair<std::string, std::string> spell(const std::string& type, const RawElement& element);

}  // namespace weft::firewall::nft
