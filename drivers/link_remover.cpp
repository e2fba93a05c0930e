#include "drivers/link_remover.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"

namespace weft {

namespace {

constexpr std::chrono::microseconds kLongestPause{5000};

}  // namespace

LinkRemover::~LinkRemover() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    queued_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

bool LinkRemover::listed(const net::Link& link) const {
    const auto index = netlink_.linkIndex(link.name);
    return index && *index == link.index;
}

Result<void> LinkRemover::remove(const net::Link& link) {
    {
        const std::lock_guard lock(mutex_);
        queue_.push_back(link.index);
        if (idle_ < queue_.size() && threads_.size() < kMaxThreads) threads_.emplace_back([this] { loop(); });
    }
    queued_.notify_one();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    // A link is off the lists after some 0.3 ms; where it takes long, the looks become rare.
    std::chrono::microseconds pause{30};
    while (listed(link)) {
        if (std::chrono::steady_clock::now() > deadline) {
            return makeError(ErrorCode::Timeout, "link " + link.name + " does not go away");
        }
        std::this_thread::sleep_for(pause);
        pause = std::min(2 * pause, kLongestPause);
    }
    return {};
}

void LinkRemover::loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
        ++idle_;
        queued_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        --idle_;
        if (queue_.empty()) return;
        const std::vector<net::LinkIndex> batch = std::exchange(queue_, {});
        lock.unlock();
        if (auto removed = netlink_.deleteLinks(batch); !removed) {
            logWarn("msg=\"remove links\" error={}", logValue(removed.error().message));
        }
        lock.lock();
    }
}

}  // namespace weft
