#include "drivers/overlay/tunnel_probe.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace weft {

namespace {

constexpr std::chrono::seconds kRetry{1};
constexpr int kFailures = 5;  // until they are spoken of: the kernel takes a moment to remove a killed weftd's link
constexpr std::chrono::seconds kLookAround{30};  // for an MTU that changed

void tell(const TunnelPlan::Change& change) {
    const TunnelHealth& now = change.now;
    const bool good = now.state == TunnelState::Good || now.state == TunnelState::Healed;
    LogLevel level = LogLevel::Warn;
    if (good) level = change.was == TunnelState::Unknown ? LogLevel::Debug : LogLevel::Info;
    logAt(level, "tunnel host={} address={} state={} was={} found={}", now.host, now.vtep.str(), toString(now.state),
          toString(change.was), logValue(now.detail));
}

}  // namespace

TunnelProbe::TunnelProbe(const Clock& clock, std::shared_ptr<OverlayView> view, Hooks hooks)
    : clock_(clock), view_(std::move(view)), hooks_(std::move(hooks)), thread_([this] { work(); }) {}

TunnelProbe::~TunnelProbe() {
    view_->stop();
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        if (link_) link_->stop();
    }
    thread_.join();
}

void TunnelProbe::work() {
    uint64_t seen = 0;
    int failures = 0;  // in a row
    for (;;) {
        const auto prepared = prepare();
        auto until = clock_.now() + kRetry;
        if (prepared) {
            std::optional<TunnelPlan::Step> step;
            {
                const std::lock_guard lock(mutex_);
                step = plan_.next();
                until = std::min(plan_.due(), clock_.now() + kLookAround);
            }
            if (step) examine(*step);
        }
        {
            const std::lock_guard lock(mutex_);
            if (stopping_) return;
            failures = prepared ? 0 : failures + 1;
            trouble_ = failures < kFailures ? "" : prepared.error().message;
            if (failures == kFailures) logWarn("msg=\"tunnels are not examined\" why={}", logValue(trouble_));
        }
        if (!view_->awaitHosts(seen, until - clock_.now())) return;
    }
}

// Brings link and plan to what is known of the hosts.
Result<void> TunnelProbe::prepare() {
    if (!link_) {
        WEFT_ASSIGN(std::shared_ptr<ProbeLink> made, hooks_.open());
        const std::lock_guard lock(mutex_);
        link_ = std::move(made);
        if (stopping_) link_->stop();
    }
    WEFT_ASSIGN(const uint32_t mtu, hooks_.mtu());
    WEFT_TRY(link_->setMtu(mtu));
    auto peers = view_->peers();
    std::set<IpAddress> vteps;
    for (auto& [id, peer] : peers) {
        if (peer.vtep.family() != link_->vtep().family()) peer.mtu.reset();
        if (peer.mtu) vteps.insert(peer.vtep);
    }
    WEFT_TRY(link_->setPeers(vteps));
    hooks_.offer(mtu);
    const std::lock_guard lock(mutex_);
    plan_.setPeers(peers);
    return {};
}

void TunnelProbe::examine(const TunnelPlan::Step& step) {
    if (const auto set = link_->setOffload(step.offload); !set) logWarn("{}", set.error().message);
    const TunnelFindings findings = link_->examine(step.vtep, step.mtu);
    std::optional<TunnelPlan::Change> change;
    bool turned = false;
    {
        const std::lock_guard lock(mutex_);
        if (stopping_) return;
        const bool before = plan_.offload();
        change = plan_.found(step, findings);
        turned = before != plan_.offload();
        if (turned && before) offloadWhy_ = "TCP to " + step.host + " passed only without";
    }
    logDebug("tunnel probe host={} offload={} small={} large={} checksummed={} answered={} stream={} bytes={}",
             step.host, step.offload, findings.small, findings.large, findings.checksummed, findings.answered,
             findings.stream, findings.size);
    if (change) tell(*change);
    if (!turned) return;
    const bool on = report().offload;
    if (on) {
        logInfo("msg=\"checksum offload is turned on again on tunnels: packets arrive whole\" host={}", step.host);
    } else {
        logWarn(
            "msg=\"the network damages what it is to finish of packets in tunnels: checksum offload is turned off on "
            "them\" host={} see=\"weftctl doctor\"",
            step.host);
    }
    if (const auto done = hooks_.setOffload(on); !done) logError("{}", done.error().message);
}

TunnelReport TunnelProbe::report() const {
    const std::lock_guard lock(mutex_);
    return {link_ != nullptr && trouble_.empty(), trouble_, plan_.offload(), offloadWhy_, clock_.now(), plan_.health()};
}

}  // namespace weft
