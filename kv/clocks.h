// Clocks: what the members' wall clocks show, and what most of them agree on.
#pragma once

#include <map>
#include <vector>

#include "base/clock.h"
#include "kv/types.h"

namespace weft::kv {

// One's own clock may be wrong (a board without a battery starts in 1970), and so may any one member's, by accident or
// on purpose. The median is right while most are.
class Clocks {
public:
    using Seconds = std::chrono::seconds;

    void note(const NodeId& member, uint64_t wallSeconds, Clock::Monotonic now);
    void forget(const NodeId& member) { ahead_.erase(member); }
    [[nodiscard]] bool knows(const NodeId& member) const { return ahead_.contains(member); }
    // The member's wall clock at `now`.
    [[nodiscard]] Clock::Wall of(const NodeId& member, Clock::Monotonic now) const;
    // Of `self` and the given members that are known; of an even number the later of the two in the middle.
    [[nodiscard]] Clock::Wall median(Clock::Wall self, const std::vector<NodeId>& members, Clock::Monotonic now) const;

private:
    std::map<NodeId, Seconds> ahead_;  // wall clock less this node's monotonic one, so that own jumps do not show
};

}  // namespace weft::kv
