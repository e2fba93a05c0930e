// Deadline: when a caller stops waiting. One for a whole call, handed through every lock and wait of it: limits of
// their own would add up.
#pragma once

#include <algorithm>
#include <chrono>

namespace weft {

class Deadline {
public:
    explicit Deadline(std::chrono::milliseconds patience) : at_(std::chrono::steady_clock::now() + patience) {}

    // Zero once it has passed.
    [[nodiscard]] std::chrono::milliseconds left() const {
        const auto rest = std::chrono::ceil<std::chrono::milliseconds>(at_ - std::chrono::steady_clock::now());
        return std::max(rest, std::chrono::milliseconds(0));
    }

private:
    std::chrono::steady_clock::time_point at_;
};

}  // namespace weft
