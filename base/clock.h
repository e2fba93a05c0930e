// Time, injected: daemon code takes a Clock so that tests can stop it and move it.
#pragma once

#include <chrono>

namespace weft {

class Clock {
public:
    using Monotonic = std::chrono::steady_clock::time_point;
    using Wall = std::chrono::system_clock::time_point;

    virtual ~Clock() = default;
    [[nodiscard]] virtual Monotonic now() const = 0;  // for intervals; never goes back
    [[nodiscard]] virtual Wall wall() const = 0;      // for records that outlive a boot
};

class SystemClock final : public Clock {
public:
    [[nodiscard]] Monotonic now() const override { return std::chrono::steady_clock::now(); }
    [[nodiscard]] Wall wall() const override { return std::chrono::system_clock::now(); }
};

// Stands still until advance() is called. Any thread may read; one thread advances.
class ManualClock final : public Clock {
public:
    [[nodiscard]] Monotonic now() const override { return Monotonic(elapsed_); }
    [[nodiscard]] Wall wall() const override {
        return Wall(std::chrono::duration_cast<Wall::duration>(std::chrono::hours(24 * 365 * 50) + elapsed_));
    }
    void advance(std::chrono::nanoseconds by) { elapsed_ += by; }

private:
    std::chrono::nanoseconds elapsed_{std::chrono::hours(1)};
};

}  // namespace weft
