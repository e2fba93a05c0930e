// RecentHosts: when a host was last heard of, for a limited number of them; the one longest silent gives way.
#pragma once

#include <list>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"

namespace weft::kv {

class RecentHosts {
public:
    explicit RecentHosts(size_t limit) : limit_(limit) {}

    void note(const IpAddress& host, Clock::Monotonic now) {
        if (const auto known = byHost_.find(host); known != byHost_.end()) {
            order_.splice(order_.end(), order_, known->second);
            order_.back().second = now;
            return;
        }
        if (byHost_.size() >= limit_) {
            byHost_.erase(order_.front().first);
            order_.pop_front();
        }
        byHost_[host] = order_.insert(order_.end(), {host, now});
    }
    [[nodiscard]] std::optional<Clock::Monotonic> last(const IpAddress& host) const {
        const auto known = byHost_.find(host);
        return known == byHost_.end() ? std::nullopt : std::optional(known->second->second);
    }
    [[nodiscard]] std::vector<std::pair<IpAddress, Clock::Monotonic>> all() const {  // longest silent first
        return {order_.begin(), order_.end()};
    }

private:
    using Order = std::list<std::pair<IpAddress, Clock::Monotonic>>;
    size_t limit_;
    Order order_;
    std::map<IpAddress, Order::iterator> byHost_;
};

}  // namespace weft::kv
