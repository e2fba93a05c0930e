#include "ipam/subnets.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace weft::ipam {

Result<void> checkRange(const DefaultRange& range, IpFamily family) {
    // Smaller subnets would not hold a gateway and two endpoints.
    const unsigned longest = addressBits(family) - 2;
    if (range.base.family() == family && range.base.length() > 0 && range.length >= range.base.length() &&
        range.length <= longest) {
        return {};
    }
    return makeError(ErrorCode::InvalidArgument,
                     "default pool " + range.base.str() + " cut to /" + std::to_string(range.length) + ": needs an " +
                         std::string(toString(family)) + " base and a length from the base's to /" +
                         std::to_string(longest));
}

Uint128 subnetCount(const DefaultRange& range) {
    return Uint128{1} << (range.length - range.base.length());
}

std::optional<IpPrefix> chooseSubnet(std::span<const DefaultRange> ranges, std::span<const IpPrefix> blocked) {
    for (const auto& range : ranges) {
        const IpFamily family = range.base.family();
        std::vector<std::pair<Uint128, Uint128>> holes;
        for (const auto& prefix : blocked) {
            if (prefix.overlaps(range.base)) holes.emplace_back(prefix.first().bits(), prefix.last().bits());
        }
        std::sort(holes.begin(), holes.end());

        const Uint128 size = Uint128{1} << (addressBits(family) - range.length);
        const Uint128 last = range.base.last().bits();
        Uint128 start = range.base.first().bits();
        bool fits = true;
        for (const auto& [holeStart, holeEnd] : holes) {
            if (holeStart > start + (size - 1)) break;
            if (holeEnd < start) continue;
            fits = holeEnd < last;
            if (!fits) break;
            start = (holeEnd / size + 1) * size;
            fits = start <= last;
            if (!fits) break;
        }
        if (fits) return IpPrefix({family, start}, range.length);
    }
    return std::nullopt;
}

}  // namespace weft::ipam
