#include "drivers/overlay/host_plan.h"

#include <utility>

namespace weft {

std::string_view toString(Presence presence) {
    switch (presence) {
        case Presence::Here:
            return "here";
        case Presence::DaemonAway:
            return "daemon away";
        case Presence::HostAway:
            return "host away";
    }
    return "";
}

void HostPlan::setHosts(const std::set<kv::NodeId>& hosts) {
    std::erase_if(ways_, [&](const auto& way) { return !hosts.contains(way.first); });
    for (const kv::NodeId& host : hosts) ways_.try_emplace(host);
}

std::vector<kv::NodeId> HostPlan::ask() {
    std::vector<kv::NodeId> asked;
    for (auto& [host, way] : ways_) {
        if (std::exchange(way.open, true) && way.missed < kMisses) ++way.missed;
        asked.push_back(host);
    }
    return asked;
}

void HostPlan::answered(const kv::NodeId& host) {
    const auto way = ways_.find(host);
    if (way != ways_.end()) way->second = {.missed = 0, .open = false};
}

std::set<kv::NodeId> HostPlan::answering() const {
    std::set<kv::NodeId> hosts;
    for (const auto& [host, way] : ways_) {
        if (way.missed < kMisses) hosts.insert(host);
    }
    return hosts;
}

}  // namespace weft
