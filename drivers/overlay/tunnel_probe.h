// TunnelProbe: examines the ways to the other hosts over real VXLAN, by what TunnelPlan says, on a thread of its own.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "drivers/overlay/overlay_view.h"
#include "drivers/overlay/probe_link.h"
#include "drivers/overlay/tunnel_plan.h"
#include "kv/random.h"

namespace weft {

struct TunnelReport {
    bool probes = false;     // false: alone, or tunnels of others cannot be examined
    std::string trouble;     // why they cannot
    bool offload = true;     // false: turned off on this host's tunnels, for a NIC on the way damages what it finishes
    std::string offloadWhy;  // by which way that was found
    Clock::Monotonic now;
    std::vector<TunnelHealth> tunnels;  // a host each, by name
};

class TunnelProbe {
public:
    // Called on the probe's thread.
    struct Hooks {
        std::function<Result<std::unique_ptr<ProbeLink>>()> open;
        std::function<Result<uint32_t>()> mtu;         // that containers have, or could have
        std::function<void(uint32_t)> offer;           // tells the others that this host answers probes of this MTU
        std::function<Result<void>(bool)> setOffload;  // on this host's tunnels
    };

    // `clock` must outlive it. It ends when `view` is stopped, or itself.
    TunnelProbe(const Clock& clock, std::shared_ptr<OverlayView> view, Hooks hooks);
    ~TunnelProbe();

    // Any thread.
    [[nodiscard]] TunnelReport report() const;

private:
    void work();
    Result<void> prepare();
    void examine(const TunnelPlan::Step& step);

    const Clock& clock_;
    std::shared_ptr<OverlayView> view_;
    const Hooks hooks_;
    kv::SystemRandom random_;

    mutable std::mutex mutex_;
    TunnelPlan plan_{clock_, random_};
    std::shared_ptr<ProbeLink> link_;  // of the thread; stopped by others
    std::string trouble_;
    std::string offloadWhy_;
    bool stopping_ = false;

    std::thread thread_;
};

}  // namespace weft
