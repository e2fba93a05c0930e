// HostWatch: asks the kernels of hosts whose weftd is silent, by what HostPlan says, on a thread of its own. The death
// of a daemon is not the death of its host: containers there go on, and so does what leads to them.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "drivers/overlay/echo_link.h"
#include "drivers/overlay/overlay_view.h"

namespace weft {

class HostWatch {
public:
    // Called on the watch's thread.
    struct Hooks {
        std::function<Result<std::unique_ptr<EchoLink>>(const net::EchoKey& key)> open;
        std::function<void(const net::EchoKey& key)> offer;  // tells the others that this host's kernel can be asked
    };

    // The key is that of an earlier life where there was one. Ends when `view` is stopped, or itself.
    static Result<std::unique_ptr<HostWatch>> start(std::shared_ptr<OverlayView> view, const kv::NodeId& self,
                                                    Hooks hooks);
    ~HostWatch();

    // Why others cannot be asked, nor ask; empty: they can. Any thread.
    [[nodiscard]] std::string trouble() const;

private:
    HostWatch(std::shared_ptr<OverlayView> view, Hooks hooks, const net::EchoKey& key, UniqueFd stopped)
        : view_(std::move(view)), hooks_(std::move(hooks)), key_(key), stopped_(std::move(stopped)) {}
    void work();
    Result<void> prepare(const std::map<kv::NodeId, OverlayView::Echo>& hosts);
    void ask(const std::map<kv::NodeId, OverlayView::Echo>& hosts);

    std::shared_ptr<OverlayView> view_;
    const Hooks hooks_;
    const net::EchoKey key_;
    UniqueFd stopped_;  // an eventfd
    // Of the thread.
    std::unique_ptr<EchoLink> link_;
    std::set<IpAddress> peers_;
    HostPlan plan_;
    uint64_t number_ = 0;

    mutable std::mutex mutex_;
    std::string trouble_;
    std::thread thread_;
};

}  // namespace weft
