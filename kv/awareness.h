// Awareness: how much this node trusts its own failure detector (Lifeguard's local health multiplier).
#pragma once

#include <algorithm>

namespace weft::kv {

// 0 is well. A failed probe, a missing nack or having to refute a suspicion adds one; a successful probe takes one
// off. A node that is slow itself then probes more slowly and waits longer, instead of blaming the others.
class Awareness {
public:
    explicit Awareness(int max) : max_(max) {}  // at most max times as long; 1: always well

    void apply(int delta) { score_ = std::clamp(score_ + delta, 0, max_ - 1); }
    [[nodiscard]] int score() const { return score_; }
    template <typename Duration>
    [[nodiscard]] Duration scale(Duration duration) const {
        return duration * (score_ + 1);
    }

private:
    int max_;
    int score_ = 0;
};

}  // namespace weft::kv
