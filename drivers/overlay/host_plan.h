// HostPlan: whether the kernels of hosts whose weftd is silent still answer, by questions asked each kPeriod. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "kv/types.h"

namespace weft {

// Of a host of the cluster, as far as can be seen from here.
enum class Presence : uint8_t {
    Here,
    DaemonAway,  // its weftd is silent, its kernel answers: containers there run and are reached
    HostAway,    // neither answers, or nobody could ask yet
};
std::string_view toString(Presence presence);  // "here", "daemon away", "host away"

class HostPlan {
public:
    static constexpr std::chrono::milliseconds kPeriod{1000};
    // In a row, until a kernel is taken to be gone. Who has just been asked for the first time counts as there.
    static constexpr int kMisses = 3;

    // Who is to be asked; what is known of others is forgotten.
    void setHosts(const std::set<kv::NodeId>& hosts);
    // A period begins: whoever was asked in the last one and did not answer has missed it. Who is asked now.
    std::vector<kv::NodeId> ask();
    void answered(const kv::NodeId& host);
    // Whose kernels answer.
    [[nodiscard]] std::set<kv::NodeId> answering() const;

private:
    struct Way {
        int missed = 0;     // in a row
        bool open = false;  // asked in this period, no answer yet
    };
    std::map<kv::NodeId, Way> ways_;
};

}  // namespace weft
