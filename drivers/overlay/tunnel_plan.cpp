#include "drivers/overlay/tunnel_plan.h"

#include <algorithm>
#include <utility>

namespace weft {

namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kAgain{2};  // to be sure

// `helped`: it is so with offload alone.
std::string describe(TunnelState state, const TunnelFindings& findings, bool helped) {
    const std::string size = std::to_string(findings.size);
    switch (state) {
        case TunnelState::Unknown:
            return "not examined yet";
        case TunnelState::Good:
            return "packets up to " + size + " bytes and TCP pass";
        case TunnelState::Healed:
            return "packets up to " + size + " bytes and TCP pass, with checksum offload off on this host's tunnels";
        case TunnelState::Closed:
            return "nothing passes: is the UDP port of VXLAN open on the way?";
        case TunnelState::Cut:
            return "small packets pass, those of " + size + " bytes do not";
        case TunnelState::Damaged:
            if (helped) {
                return "TCP and UDP from here arrive whole only without checksum offload, which one host's word does "
                       "not turn off for all";
            }
            return findings.checksummed
                       ? "small packets pass, TCP stalls, also without checksum offload"
                       : "pings pass, TCP and UDP from here arrive damaged, also without checksum offload";
        case TunnelState::Damages:
            return "pings pass, TCP and UDP from there arrive damaged";
    }
    return "";
}

}  // namespace

std::string_view toString(TunnelState state) {
    switch (state) {
        case TunnelState::Unknown:
            return "unknown";
        case TunnelState::Good:
            return "good";
        case TunnelState::Healed:
            return "healed";
        case TunnelState::Closed:
            return "closed";
        case TunnelState::Cut:
            return "cut";
        case TunnelState::Damaged:
            return "damaged";
        case TunnelState::Damages:
            return "damages";
    }
    return "";
}

TunnelState judge(const TunnelFindings& findings) {
    if (!findings.small) return TunnelState::Closed;
    if (!findings.checksummed) return TunnelState::Damaged;
    if (!findings.answered) return TunnelState::Damages;
    if (!findings.large) return TunnelState::Cut;
    return findings.stream ? TunnelState::Good : TunnelState::Damaged;
}

Clock::Monotonic TunnelPlan::in(std::chrono::nanoseconds time, double jitter) {
    const double factor = 1 + jitter * (2 * random_.unit() - 1);
    return clock_.now() + std::chrono::nanoseconds(static_cast<int64_t>(static_cast<double>(time.count()) * factor));
}

void TunnelPlan::setPeers(const std::map<kv::NodeId, Peer>& peers) {
    std::erase_if(ways_, [&](const auto& way) { return !peers.contains(way.first); });
    for (const auto& [id, peer] : peers) {
        Way& way = ways_[id];
        if (way.peer == peer) continue;
        const bool moved = way.peer.vtep != peer.vtep || way.peer.mtu.has_value() != peer.mtu.has_value();
        way.peer = peer;
        if (moved) {
            way.health = {};
            way.doubted = way.trial = way.needs = false;
            way.due = in(kFirst / 2, 1);
        }
        way.health.id = id;
        way.health.host = peer.host;
        way.health.vtep = peer.vtep;
        if (moved) way.health.detail = peer.mtu ? "not examined yet" : "its weftd answers no probes";
    }
}

std::optional<TunnelPlan::Step> TunnelPlan::next() {
    const auto now = clock_.now();
    if (now < rest_) return std::nullopt;
    auto first = ways_.end();
    for (auto way = ways_.begin(); way != ways_.end(); ++way) {
        if (!way->second.peer.mtu || way->second.due > now) continue;
        if (first == ways_.end() || way->second.due < first->second.due) first = way;
    }
    if (first == ways_.end()) return std::nullopt;
    const Way& way = first->second;
    return Step{first->first, way.peer.host, way.peer.vtep, *way.peer.mtu, !way.trial};
}

Clock::Monotonic TunnelPlan::due() const {
    auto due = Clock::Monotonic::max();
    for (const auto& [id, way] : ways_) {
        if (way.peer.mtu) due = std::min(due, way.due);
    }
    return std::max(due, rest_);
}

std::optional<TunnelPlan::Change> TunnelPlan::found(const Step& step, const TunnelFindings& findings) {
    rest_ = clock_.now() + kPause;
    const auto entry = ways_.find(step.peer);
    if (entry == ways_.end()) return std::nullopt;
    Way& way = entry->second;
    way.health.examined = clock_.now();
    const TunnelState before = way.health.state;
    const TunnelState state = judge(findings);

    if (std::exchange(way.trial, false)) {
        const bool helps = state != TunnelState::Damaged && state != TunnelState::Closed;
        if (helps && !std::exchange(way.needs, true)) {
            weigh();
            if (offload_) askAnother();
        }
        if (helps && offload_) return conclude(way, TunnelState::Damaged, findings);
        return conclude(way, state == TunnelState::Good ? TunnelState::Healed : state, findings);
    }
    if (state == TunnelState::Good) {
        way.doubted = way.needs = false;
        weigh();
        if (before == TunnelState::Good || before == TunnelState::Healed) rest_ = clock_.now() + kIdlePause;
        return conclude(way, TunnelState::Good, findings);
    }
    // A host that is just dying or busy is no trouble.
    if (!std::exchange(way.doubted, true)) {
        way.due = in(kAgain, 0.5);
        return std::nullopt;
    }
    if (state == TunnelState::Damaged && step.offload) {
        way.trial = true;
        way.due = clock_.now();
        return std::nullopt;
    }
    return conclude(way, state, findings);
}

std::optional<TunnelPlan::Change> TunnelPlan::conclude(Way& way, TunnelState state, const TunnelFindings& findings) {
    const bool good = state == TunnelState::Good || state == TunnelState::Healed;
    way.due = good ? in(kEvery, 0.2) : in(kTroubled, 0.2);
    way.doubted = !good;
    way.health.detail = describe(state, findings, way.needs);
    const TunnelState was = std::exchange(way.health.state, state);
    if (was == state) return std::nullopt;
    return Change{was, way.health};
}

void TunnelPlan::weigh() {
    const auto count = [this](const auto& is) { return std::count_if(ways_.begin(), ways_.end(), is); };
    const auto needing = count([](const auto& way) { return way.second.needs; });
    const auto answering = count([](const auto& way) { return way.second.peer.mtu.has_value(); });
    offload_ = needing < std::min<ptrdiff_t>(2, std::max<ptrdiff_t>(answering, 1));
}

// Another host is to confirm it, or not.
void TunnelPlan::askAnother() {
    const auto other = std::find_if(ways_.begin(), ways_.end(),
                                    [](const auto& way) { return !way.second.needs && way.second.peer.mtu; });
    if (other != ways_.end()) other->second.due = std::min(other->second.due, clock_.now());
}

std::vector<TunnelHealth> TunnelPlan::health() const {
    std::vector<TunnelHealth> all;
    for (const auto& [id, way] : ways_) all.push_back(way.health);
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.host < b.host; });
    return all;
}

}  // namespace weft
