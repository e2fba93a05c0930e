#include "kv/clocks.h"

#include <algorithm>

namespace weft::kv {

void Clocks::note(const NodeId& member, uint64_t wallSeconds, Clock::Monotonic now) {
    constexpr uint64_t kLast = uint64_t{1} << 33;  // year 2242: later is nonsense, and would not fit every type
    const Seconds wall(static_cast<int64_t>(std::min(wallSeconds, kLast)));
    ahead_[member] = wall - std::chrono::duration_cast<Seconds>(now.time_since_epoch());
}

Clock::Wall Clocks::of(const NodeId& member, Clock::Monotonic now) const {
    return Clock::Wall(ahead_.at(member) + std::chrono::duration_cast<Seconds>(now.time_since_epoch()));
}

Clock::Wall Clocks::median(Clock::Wall self, const std::vector<NodeId>& members, Clock::Monotonic now) const {
    std::vector<Clock::Wall> all{self};
    for (const NodeId& member : members) {
        if (knows(member)) all.push_back(of(member, now));
    }
    const auto middle = all.begin() + static_cast<ptrdiff_t>(all.size() / 2);
    std::ranges::nth_element(all, middle);
    return *middle;
}

}  // namespace weft::kv
