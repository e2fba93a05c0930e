// IntervalSet: a set of integers kept as runs, so that its size follows the number of runs and not of members.
// Runs are disjoint and never adjacent, so the integer after a run's end is always free. Every call is O(log runs).
#pragma once

#include <functional>
#include <iterator>
#include <map>
#include <optional>

#include "base/ip.h"

namespace weft::ipam {

template <typename Compare = std::less<Uint128>>
class IntervalSet {
public:
    // False if it was there already.
    bool insert(Uint128 value) {
        auto after = runs_.upper_bound(value);
        auto before = after == runs_.begin() ? runs_.end() : std::prev(after);
        if (before != runs_.end() && before->second >= value) return false;
        const bool joinsBefore = before != runs_.end() && before->second + 1 == value;
        const bool joinsAfter = after != runs_.end() && after->first == value + 1;
        if (joinsBefore && joinsAfter) {
            before->second = after->second;
            runs_.erase(after);
        } else if (joinsBefore) {
            before->second = value;
        } else if (joinsAfter) {
            auto node = runs_.extract(after);
            node.key() = value;
            runs_.insert(std::move(node));
        } else {
            runs_.emplace_hint(after, value, value);
        }
        return true;
    }

    // False if it was not there.
    bool erase(Uint128 value) {
        auto after = runs_.upper_bound(value);
        if (after == runs_.begin()) return false;
        auto run = std::prev(after);
        const auto [start, end] = *run;
        if (end < value) return false;
        if (value < end) runs_.emplace_hint(after, value + 1, end);
        if (start < value) {
            run->second = value - 1;
        } else {
            runs_.erase(run);
        }
        return true;
    }

    [[nodiscard]] bool contains(Uint128 value) const {
        auto after = runs_.upper_bound(value);
        return after != runs_.begin() && std::prev(after)->second >= value;
    }

    // The lowest integer of [from, last] that is not in the set.
    [[nodiscard]] std::optional<Uint128> firstGap(Uint128 from, Uint128 last) const {
        if (from > last) return std::nullopt;
        auto after = runs_.upper_bound(from);
        if (after == runs_.begin()) return from;
        const Uint128 end = std::prev(after)->second;
        if (end < from) return from;
        if (end >= last) return std::nullopt;
        return end + 1;
    }

    [[nodiscard]] bool intersects(Uint128 from, Uint128 last) const {
        auto after = runs_.upper_bound(last);
        return after != runs_.begin() && std::prev(after)->second >= from;
    }

    [[nodiscard]] size_t runs() const { return runs_.size(); }

private:
    std::map<Uint128, Uint128, Compare> runs_;  // first to last, both members
};

}  // namespace weft::ipam
