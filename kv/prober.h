// Prober: the failure detector (SWIM section 3, Lifeguard). One member at a time in a shuffled round:
//
//     0                probeTimeout                     probeInterval * (health + 1)
//     | Ping -----------| PingRequest to k others --------| no Ack: suspect
//                       | stream probe -------------------|
//
// A round visits everybody once, so the time until somebody probes a dead member is bounded, not just likely.
// Each question has a random number of its own, and only who was asked can answer it: the target, or the helper that
// got this number. So a member can keep a dead one alive only for those that ask it, and only for the rounds they ask
// it in.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "kv/awareness.h"
#include "kv/context.h"
#include "kv/membership.h"
#include "kv/message.h"

namespace weft::kv {

class Prober {
public:
    struct Hooks {
        std::function<void(const Address&, const NodeId&, std::vector<Message>)> send;
        // Proves by a stream that the member lives; answers by streamProved(sequence).
        std::function<void(const Member&, uint32_t sequence)> streamProbe;
        std::function<uint64_t()> root;  // for Ping and Ack
    };

    Prober(Context& context, Membership& membership, Hooks hooks);

    void start();
    void stop();

    void onPing(const Address& from, const NodeId& sender, const Ping& ping);
    void onPingRequest(const Address& from, const NodeId& sender, const PingRequest& request);
    void onAck(const NodeId& sender, const Ack& ack);
    void onNack(const NodeId& sender, const Nack& nack);
    void streamProved(uint32_t sequence);  // of the probe it was opened for

    Awareness& awareness() { return awareness_; }

private:
    struct Helper {
        NodeId id;
        bool nacked = false;
    };
    struct Probe {
        uint32_t sequence;
        NodeId target;
        std::map<uint32_t, Helper> helpers{};  // by the number each was given
        bool acked = false;
    };
    struct Relay {
        Address from;
        NodeId sender;
        NodeId target;
        uint32_t sequence;
    };

    void probeNext();
    const Member* nextTarget();
    void askOthers();
    void conclude();
    void pingTheDead();
    void answered();
    uint32_t newSequence();

    Context& context_;
    Membership& membership_;
    Hooks hooks_;
    Awareness awareness_;
    std::optional<Probe> probe_;
    std::map<uint32_t, Relay> relays_;  // by the sequence of our own ping; bounded by kMaxRelays
    std::vector<NodeId> round_;
    Timers::Handle indirectTimer_, nextTimer_;
};

}  // namespace weft::kv
