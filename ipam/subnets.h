// Choice of a free subnet for a pool that was asked for without one.
#pragma once

#include <optional>
#include <span>

#include "base/ip.h"
#include "base/result.h"

namespace weft::ipam {

// Pools without a subnet are cut from here: subnets of `length` bits within `base`.
struct DefaultRange {
    IpPrefix base;
    uint8_t length;
};

// InvalidArgument if subnets of that length cannot be cut from the base.
Result<void> checkRange(const DefaultRange& range, IpFamily family);

// How many subnets the range holds.
Uint128 subnetCount(const DefaultRange& range);

// The lowest subnet of the first range that overlaps none of `blocked` (any family, any order, may overlap).
std::optional<IpPrefix> chooseSubnet(std::span<const DefaultRange> ranges, std::span<const IpPrefix> blocked);

}  // namespace weft::ipam
