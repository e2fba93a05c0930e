// Suspicion: how long a member stays suspect before it is declared dead (Lifeguard's dynamic timeout).
#pragma once

#include <chrono>
#include <set>

#include "base/clock.h"
#include "kv/config.h"

namespace weft::kv {

// Starts at the longest timeout. Each distinct node that also suspects the member shortens it, on a logarithmic scale:
//     timeout(c) = max - (max - min) * log(c + 1) / log(k + 1)      c confirmations of the k expected
// A node whose own link is bad hears no confirmations and waits longest.
class Suspicion {
public:
    // `members`: alive or suspect, this node included.
    Suspicion(const Config& config, size_t members, const NodeId& from, Clock::Monotonic now);

    // True when `from` is a new witness that still counts: worth passing on.
    bool confirm(const NodeId& from);
    [[nodiscard]] Clock::Monotonic deadline() const;

private:
    Clock::Monotonic start_;
    std::chrono::duration<double> min_, max_;
    size_t expected_;  // k: the first suspect message is not a confirmation
    std::set<NodeId> witnesses_;
};

}  // namespace weft::kv
