// Deadline: when a caller stops waiting. One for a whole call, for every lock and wait of it: limits of their own would
// add up.
#pragma once

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>

namespace weft {

class Deadline {
public:
    explicit Deadline(std::chrono::milliseconds patience) : at_(std::chrono::steady_clock::now() + patience) {}
    explicit Deadline(std::chrono::steady_clock::time_point at) : at_(at) {}

    // Zero once it has passed.
    [[nodiscard]] std::chrono::milliseconds left() const {
        const auto rest = std::chrono::ceil<std::chrono::milliseconds>(at_ - std::chrono::steady_clock::now());
        return std::max(rest, std::chrono::milliseconds(0));
    }

private:
    std::chrono::steady_clock::time_point at_;
};

// The deadline of the call that this thread answers, while the object lives: the functions below keep to it without
// being told. Of nested ones each counts. Must end on the thread that made it.
class CallDeadline {
public:
    explicit CallDeadline(const Deadline& deadline) : deadline_(deadline), outer_(current()) { current() = this; }
    ~CallDeadline() { current() = outer_; }
    CallDeadline(const CallDeadline&) = delete;
    CallDeadline& operator=(const CallDeadline&) = delete;

    // None: this thread answers no call, and may wait as long as it likes.
    [[nodiscard]] static std::optional<std::chrono::milliseconds> left() {
        std::optional<std::chrono::milliseconds> least;
        for (const CallDeadline* call = current(); call != nullptr; call = call->outer_) {
            const auto left = call->deadline_.left();
            least = std::min(least.value_or(left), left);
        }
        return least;
    }

private:
    static const CallDeadline*& current() {
        thread_local const CallDeadline* innermost = nullptr;
        return innermost;
    }

    Deadline deadline_;
    const CallDeadline* outer_;
};

// A wait's own limit, or what is left of the call if that is less.
inline std::chrono::milliseconds withinCall(std::chrono::milliseconds limit) {
    return std::min(limit, CallDeadline::left().value_or(limit));
}

// Holds nothing if the call has to end before the mutex is free. Threads without a call wait until it is.
template <template <typename> class Lock = std::unique_lock, typename TimedMutex>
[[nodiscard]] Lock<TimedMutex> lockWithinCall(TimedMutex& mutex) {
    const auto left = CallDeadline::left();
    return left ? Lock<TimedMutex>(mutex, *left) : Lock<TimedMutex>(mutex);
}

}  // namespace weft
