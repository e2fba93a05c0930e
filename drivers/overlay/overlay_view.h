// OverlayView: what all hosts say of overlay networks now, kept by a watch of the gossip store. Rows of a host that is
// gone for now are not in it.
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

    [[nodiscard]] std::vector<Claim> claims(const std::string& network) const;
    [[nodiscard]] std::map<std::string, std::vector<Claim>> claims() const;
    [[nodiscard]] std::vector<Endpoint> endpoints(const std::string& network) const;
    // Keys and values of one host.
    [[nodiscard]] std::map<std::string, std::string> rowsOf(const kv::NodeId& owner) const;

    // Networks to look at again; those that change are marked by themselves.
    void mark(const std::string& network);
    // Waits for some, at most that long when it is given; none after stop().
    std::optional<std::set<std::string>> takeMarked(std::optional<std::chrono::nanoseconds> patience = {});
    void stop();

private:
    using Owned = std::pair<kv::NodeId, std::string>;  // owner, key

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, std::map<kv::NodeId, NetworkClaim>> claims_;
    std::map<std::string, std::map<Owned, EndpointRow>> endpoints_;
    std::map<Owned, std::string> rows_;
    std::set<std::string> marked_;
    bool stopping_ = false;
};

}  // namespace weft
