// Ages: how old records are by the wall clock they were stamped with, for graces. A clock that was set does not count:
// what was stamped before is then as old as the time since that was noticed, by the monotonic clock.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/clock.h"

namespace weft {

class Ages {
public:
    // At the beginning of each sweep; before the first call of of(). One thread at a time.
    void look(const Clock& clock) {
        const Look now{clock.wall(), clock.now()};
        if (!trusted_) trusted_ = now;
        if (last_) {
            const auto drift = (now.wall - last_->wall) - (now.monotonic - last_->monotonic);
            if (drift > kSet || drift < -kSet) {
                trusted_ = now;
                wasSet_ = true;
            }
        }
        last_ = now;
    }

    // Never negative.
    [[nodiscard]] Clock::Monotonic::duration of(Clock::Wall stamp) const {
        const auto noticed = last_->monotonic - trusted_->monotonic;
        if (stamp > last_->wall) return noticed;
        const Clock::Monotonic::duration age = last_->wall - stamp;
        return wasSet_ && stamp < trusted_->wall ? std::min(age, noticed) : age;
    }

private:
    static constexpr std::chrono::seconds kSet{5};

    struct Look {
        Clock::Wall wall;
        Clock::Monotonic monotonic;
    };
    std::optional<Look> last_;
    std::optional<Look> trusted_;  // since then the clock was not set
    bool wasSet_ = false;
};

}  // namespace weft
