// Evidence: rows outside ipam/ that say which addresses containers have.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "kv/row.h"

namespace weft::ipam {

// Rows by which hosts say which addresses their containers have: such an address is given to nobody else, whoever holds
// its block.
struct Evidence {
    std::string prefix;  // empty: there are none
    std::function<std::vector<IpAddress>(const kv::Row& row)> addresses;
};

}  // namespace weft::ipam
