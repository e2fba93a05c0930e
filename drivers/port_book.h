// PortBook: the host ports held for endpoints, in memory; the sockets inside are what keeps others off. Any thread.
#pragma once

#include <map>
#include <mutex>
#include <vector>

#include "base/id.h"
#include "net/ports.h"

namespace weft {

class PortBook {
public:
    // Replaces what the endpoint held.
    void hold(const EndpointId& id, std::vector<net::PortReservation> reservations) {
        const std::lock_guard lock(mutex_);
        held_.insert_or_assign(id, std::move(reservations));
    }
    void drop(const EndpointId& id) {
        const std::lock_guard lock(mutex_);
        held_.erase(id);
    }
    [[nodiscard]] bool holds(const EndpointId& id) const {
        const std::lock_guard lock(mutex_);
        return held_.contains(id);
    }

private:
    mutable std::mutex mutex_;
    std::map<EndpointId, std::vector<net::PortReservation>> held_;
};

}  // namespace weft
