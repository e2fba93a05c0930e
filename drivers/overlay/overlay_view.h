// OverlayView: the hosts there are now and what they say of overlay networks, kept by a watch of the gossip store. A
// host that is gone for now is not in it, nor are its rows.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "drivers/overlay/overlay_rows.h"
#include "drivers/overlay/tunnel_plan.h"
#include "kv/member.h"
#include "kv/table.h"

namespace weft {

// Any thread; never blocks on more than its own mutex, so that the store's thread may call apply().
class OverlayView {
public:
    struct Claim {
        kv::NodeId owner;
        NetworkClaim claim;

        // The smaller is the network's truth.
        [[nodiscard]] auto rank() const { return std::pair(claim.stamp, owner); }
    };
    struct Endpoint {
        kv::NodeId owner;
        EndpointRow row;

        // The greater has the address.
        [[nodiscard]] auto rank() const { return std::pair(row.stamp, owner); }
    };

    void apply(kv::RowEvent event, const kv::Row& row);
    void onMember(const kv::Member& member);  // another host

    [[nodiscard]] std::set<IpAddress> addresses() const;
    [[nodiscard]] std::map<kv::NodeId, TunnelPlan::Peer> peers() const;
    // Waits until addresses() or peers() are others than at `seen`, which is brought up to date, or the time is over.
    // False after stop().
    bool awaitHosts(uint64_t& seen, std::chrono::nanoseconds patience);

    [[nodiscard]] std::vector<Claim> claims(const std::string& network) const;
    [[nodiscard]] std::map<std::string, std::vector<Claim>> claims() const;
    [[nodiscard]] std::vector<Endpoint> endpoints(const std::string& network) const;
    // Keys and values of one host.
    [[nodiscard]] std::map<std::string, std::string> rowsOf(const kv::NodeId& owner) const;

    // Networks to look at again; those that change are marked by themselves.
    void mark(const std::string& network);
    // Waits for some or for a host that came or went, at most that long when it is given; none after stop().
    std::optional<std::set<std::string>> takeMarked(std::optional<std::chrono::nanoseconds> patience = {});
    void stop();

private:
    using Owned = std::pair<kv::NodeId, std::string>;  // owner, key

    void hostsChanged();

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::map<kv::NodeId, kv::MemberRecord> hosts_;
    std::map<kv::NodeId, ProbeRow> probes_;
    uint64_t generation_ = 1;       // of the two
    uint64_t takenGeneration_ = 0;  // by takeMarked()
    std::map<std::string, std::map<kv::NodeId, NetworkClaim>> claims_;
    std::map<std::string, std::map<Owned, EndpointRow>> endpoints_;
    std::map<Owned, std::string> rows_;
    std::set<std::string> marked_;
    bool stopping_ = false;
};

}  // namespace weft
