// Timers: callbacks at points of the node's own time. Equal times run in the order they were set.
#pragma once

#include <functional>
#include <map>

#include "base/clock.h"

namespace weft::kv {

class Timers {
public:
    using Time = Clock::Monotonic;
    using Handle = std::pair<Time, uint64_t>;

    explicit Timers(const Clock& clock) : clock_(clock) {}

    Handle after(Clock::Monotonic::duration delay, std::function<void()> fire) {
        const Handle handle{clock_.now() + delay, ++last_};
        pending_.emplace(handle, std::move(fire));
        return handle;
    }
    // A timer that fired or was cancelled: no effect.
    void cancel(const Handle& handle) { pending_.erase(handle); }

    // Runs what is due now; a timer set to a due time meanwhile runs too.
    void run() {
        while (!pending_.empty() && pending_.begin()->first.first <= clock_.now()) {
            auto fire = std::move(pending_.begin()->second);
            pending_.erase(pending_.begin());
            fire();
        }
    }
    [[nodiscard]] Time next() const { return pending_.empty() ? Time::max() : pending_.begin()->first.first; }

private:
    const Clock& clock_;
    std::map<Handle, std::function<void()>> pending_;
    uint64_t last_ = 0;
};

}  // namespace weft::kv
