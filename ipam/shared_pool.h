// SharedPool: what a person may want to know of a pool that the cluster shares.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/ip.h"

namespace weft::ipam {

struct SharedPool {
    struct Holder {
        std::string host;  // node name
        bool alive = false;
        size_t blocks = 0;  // none: only single addresses
    };

    IpPrefix prefix;
    IpAddress gateway;
    size_t blocks = 0;
    unsigned blockLength = 0;  // a block is a prefix of this length
    std::vector<Holder> holders;
    Uint128 freeHere = 0;  // this host can give out without asking
};

// "host1 holds 30 blocks, host2 holds 2 blocks (away)"
[[nodiscard]] std::string describeHolders(const SharedPool& pool);
// A line for each.
[[nodiscard]] std::string describe(std::span<const SharedPool> pools);

}  // namespace weft::ipam
