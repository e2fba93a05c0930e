#include "kv/suspicion.h"

#include <algorithm>
#include <cmath>

namespace weft::kv {

Suspicion::Suspicion(const Config& config, size_t members, const NodeId& from, Clock::Monotonic now) : start_(now) {
    const double scale = std::max(1.0, std::log10(static_cast<double>(std::max<size_t>(1, members))));
    min_ = config.suspicionMult * scale * config.probeInterval;
    max_ = min_ * (config.lifeguard ? config.suspicionMaxMult : 1);
    // With too few others to confirm, waiting for them would only delay.
    const auto wanted = static_cast<size_t>(std::max(0, config.suspicionMult - 2));
    expected_ = members < wanted + 2 ? 0 : wanted;
    witnesses_.insert(from);
}

bool Suspicion::confirm(const NodeId& from) {
    return witnesses_.size() <= expected_ && witnesses_.insert(from).second;
}

Clock::Monotonic Suspicion::deadline() const {
    auto timeout = min_;
    if (expected_ > 0) {
        const double share =
            std::log(static_cast<double>(witnesses_.size())) / std::log(static_cast<double>(expected_ + 1));
        timeout = std::max(min_, max_ - (max_ - min_) * share);
    }
    return start_ + std::chrono::duration_cast<Clock::Monotonic::duration>(timeout);
}

}  // namespace weft::kv
