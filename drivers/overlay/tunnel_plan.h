// TunnelPlan: which way to another host is examined next, and what follows from what was found. Pure; time comes from
// the clock.
//
// The trouble looked for: a NIC or hypervisor that is to fill in checksums of TCP inside of VXLAN frames, or to cut
// large segments there, and does it wrong. Then pings pass and TCP between containers stalls. The way round is not to
// leave that work to it: checksum offload of the tunnels is turned off.
//
// Ways are examined one at a time. When what this host sends is found damaged twice in a row, the same is tried without
// offload. If that is well on the ways to two hosts (or to the only one there is) the tunnels get it so, until a way of
// these is found well with offload: no host's word alone costs the others.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "kv/random.h"
#include "kv/types.h"

namespace weft {

// What passed on one way, of datagrams without a checksum (which no NIC touches), with one, and of a stream.
struct TunnelFindings {
    bool small = false;        // without checksum, forth and back
    bool large = false;        // of full size without checksum, forth
    bool checksummed = false;  // small, forth
    bool answered = false;     // small with checksum, back
    bool stream = false;       // TCP, forth
    uint32_t size = 0;         // of the large ones, with inner IP header: an MTU

    bool operator==(const TunnelFindings&) const = default;
};

enum class TunnelState : uint8_t {
    Unknown,  // not examined yet, or the other weftd is too old for it
    Good,
    Healed,   // passes since this host's checksum offload is off
    Closed,   // nothing passes
    Cut,      // large packets do not pass
    Damaged,  // what this host sends does not arrive whole, with or without offload
    Damages,  // what the other host sends does not
};
inline constexpr TunnelState kTunnelStates[] = {TunnelState::Unknown, TunnelState::Good, TunnelState::Healed,
                                                TunnelState::Closed,  TunnelState::Cut,  TunnelState::Damaged,
                                                TunnelState::Damages};
std::string_view toString(TunnelState state);  // "unknown", "good", ...

// By one examination without regard to what was before; never Unknown or Healed.
TunnelState judge(const TunnelFindings& findings);

struct TunnelHealth {
    kv::NodeId id;
    std::string host;  // its name
    IpAddress vtep;
    TunnelState state = TunnelState::Unknown;
    std::string detail;  // a sentence for people: what was found, or why nothing is known
    std::optional<Clock::Monotonic> examined;
};

class TunnelPlan {
public:
    struct Peer {
        std::string host;
        IpAddress vtep;
        std::optional<uint32_t> mtu;  // of its probe; none: its weftd answers no probes

        bool operator==(const Peer&) const = default;
    };
    struct Step {
        kv::NodeId peer;
        std::string host;
        IpAddress vtep;
        uint32_t mtu = 0;  // the peer's
        bool offload = true;
    };

    // A new way is examined within 2 s, each again after 10 minutes or so, one in trouble after 10 s. Between
    // two examinations there is a second, or five where neither is new or in trouble: so that with hundreds of hosts
    // (256 KiB an examination) this stays below 100 kB/s for a host.
    static constexpr std::chrono::milliseconds kFirst{2000};
    static constexpr std::chrono::seconds kEvery{600};
    static constexpr std::chrono::seconds kTroubled{10};
    static constexpr std::chrono::seconds kPause{1};
    static constexpr std::chrono::seconds kIdlePause{5};

    TunnelPlan(const Clock& clock, kv::Random& random) : clock_(clock), random_(random) {}

    // The living hosts of now, without this one. What left is forgotten.
    void setPeers(const std::map<kv::NodeId, Peer>& peers);

    // What to examine, if that is due now. found() must follow, unless the peer left.
    std::optional<Step> next();
    [[nodiscard]] Clock::Monotonic due() const;
    struct Change {
        TunnelState was;
        TunnelHealth now;
    };
    // What changed by it, if something did.
    std::optional<Change> found(const Step& step, const TunnelFindings& findings);

    // Whether tunnels may leave checksums to what is below them.
    [[nodiscard]] bool offload() const { return offload_; }
    [[nodiscard]] std::vector<TunnelHealth> health() const;  // in order of host

private:
    struct Way {
        Peer peer;
        Clock::Monotonic due;
        TunnelHealth health;
        bool doubted = false;  // the last examination was worse than the state
        bool trial = false;    // the next one is without offload
        bool needs = false;    // the last trial helped
    };

    Clock::Monotonic in(std::chrono::nanoseconds time, double jitter);
    void weigh();
    void askAnother();
    std::optional<Change> conclude(Way& way, TunnelState state, const TunnelFindings& findings);

    const Clock& clock_;
    kv::Random& random_;
    std::map<kv::NodeId, Way> ways_;
    Clock::Monotonic rest_;  // none is due before
    bool offload_ = true;
};

}  // namespace weft
