// LinkRemover: takes links away without making the caller wait for the kernel's grace periods.
//
// The kernel takes a link off its lists (nobody sees it, its name is free) after some 0.3 ms, and answers after some
// 20 ms: in between it waits for RCU and for the last references, without any lock. remove() returns at the first
// moment. A few threads wait for the second, so that removals one after another do not queue; what queues up
// nevertheless goes in one request.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/result.h"
#include "net/netlink.h"

namespace weft {

class LinkRemover {
public:
    // `netlink` must outlive it.
    explicit LinkRemover(net::Netlink& netlink) : netlink_(netlink) {}
    ~LinkRemover();  // waits for the removals under way

    // The link is off its namespace's lists on return. Success if it was. Any thread; Timeout after 2 s (the removal
    // goes on).
    Result<void> remove(const net::Link& link);

private:
    static constexpr size_t kMaxThreads = 8;

    void loop();
    [[nodiscard]] bool listed(const net::Link& link) const;

    net::Netlink& netlink_;

    std::mutex mutex_;
    std::condition_variable queued_;
    std::vector<net::LinkIndex> queue_;
    std::vector<std::thread> threads_;  // made when needed
    size_t idle_ = 0;
    bool stopping_ = false;
};

}  // namespace weft
