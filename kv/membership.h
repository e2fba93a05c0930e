// Membership: who is in the cluster and in which state. The rules by which records, suspicions and deaths override
// each other (SWIM), and the suspicion timers. Sends nothing itself: it says what to broadcast.
//
//     record with a higher incarnation          overrides everything (its owner signed it)
//     left, at the same incarnation             overrides alive, suspect, dead (signed, too)
//     suspect or dead notice                    counts only at the very incarnation known here
//
// A notice of an unknown incarnation is ignored: only the member itself can have made one, and its record will come.
// So a stolen cluster key can have members suspected, but cannot push an incarnation out of its owner's reach.
//
// Members are bounded in all and for each address (Config); to a newcomer gives way who is gone (the least id: the same
// everywhere), then whoever never spoke to this node. An address that tells of too many in a minute is not believed
// until the next.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "kv/context.h"
#include "kv/member.h"
#include "kv/message.h"
#include "kv/suspicion.h"

namespace weft::kv {

class Membership {
public:
    struct Events {
        // `before` is empty for a new member. After the change; a forgotten member is not reported here.
        std::function<void(const Member&, std::optional<MemberState> before)> changed;
        std::function<void(const Member&)> forgotten;
        std::function<void(const NodeId& about, Message)> broadcast;
        std::function<void()> refuted;                      // this node had to defend itself
        std::function<void(uint32_t epoch)> epochOutdated;  // this identity spoke in this epoch or later, but not here
        std::function<void(const Address&)> seenElsewhere{};  // this identity was, or is, at another address
    };

    Membership(Context& context, uint32_t epoch, Events events);

    [[nodiscard]] const NodeId& selfId() const { return selfId_; }
    [[nodiscard]] const Member& self() const { return members_.at(selfId_); }
    [[nodiscard]] const Member* find(const NodeId& id) const;
    // What the member said of itself at its last other address, if it had one.
    [[nodiscard]] const MemberRecord* former(const NodeId& id) const;
    [[nodiscard]] const std::map<NodeId, Member>& members() const { return members_; }
    [[nodiscard]] size_t present() const { return present_; }  // alive or suspect, this node included
    [[nodiscard]] size_t dead() const { return dead_; }        // dead, but not left
    // Members in the last eighth before they are forgotten are no longer told to others.
    [[nodiscard]] bool advertised(const Member& member) const;
    // Since the last sign of life. What is forgotten goes by this, not by when the death was noticed: an isolated node
    // of a thousand needs hours to declare all the others dead, and tombstones elsewhere do not wait for it.
    [[nodiscard]] std::chrono::seconds age(const Member& member) const;

    // A record from gossip, told by `teller`. True when it changed something.
    bool applyRecord(const MemberRecord& record, const IpAddress& teller) {
        return apply(record, MemberState::Alive, {}, true, &teller);
    }
    // What a peer told in anti-entropy. `announce`: pass it on by gossip too. No teller: what this node remembered.
    bool applyRemote(const MemberRecord& record, MemberState state, std::chrono::seconds age, const NodeId& peer,
                     bool announce, const IpAddress* teller);
    void heard(const NodeId& id);  // it spoke to this node: its packet opened, or its stream is proven
    void applySuspect(const SuspectNotice& notice);
    void applyDead(const DeadNotice& notice);
    void suspect(const NodeId& id);  // this node's own probe failed

    void announce();  // broadcasts the own record
    void leave();
    void beginEpoch(uint32_t epoch);
    void forgetOld();

    [[nodiscard]] const MemberExcess& excess() const { return excess_; }

    // Up to `count` distinct members, uniformly, for which `want` holds; never this node.
    std::vector<const Member*> pick(size_t count, const std::function<bool(const Member&)>& want) const;

private:
    bool apply(const MemberRecord& record, MemberState state, std::chrono::seconds age, bool announce,
               const IpAddress* teller);
    bool makeRoom(const MemberRecord& record, bool gone, const IpAddress* teller);
    bool evict(const IpAddress* address, const NodeId* gone);
    void remove(const NodeId& id);
    void leaveAddress(const IpAddress& address);
    [[nodiscard]] uint64_t wireBit() const { return context_.config.wire == WirePolicy::One ? 0 : kWire2Bit; }
    void applySelf(const MemberRecord& record);
    void setState(Member& member, MemberState state);
    void armSuspicion(const NodeId& id);
    void refute();
    void beginIncarnations(uint32_t epoch);
    [[nodiscard]] bool ownIncarnation(uint64_t incarnation) const;
    void signSelf(uint64_t incarnation);

    struct Pending {
        Suspicion suspicion;
        Timers::Handle timer;
    };

    Context& context_;
    Events events_;
    NodeId selfId_;
    uint64_t firstIncarnation_ = 0;           // of this epoch
    std::map<NodeId, MemberRecord> formers_;  // of members whose address has changed: the one before
    std::map<NodeId, Member> members_;
    std::vector<const Member*> order_;  // the others, for pick(); map nodes do not move
    std::map<NodeId, Pending> suspicions_;
    size_t present_ = 0;
    size_t dead_ = 0;
    std::map<IpAddress, size_t> atAddress_;
    struct Told {
        Clock::Monotonic since{};
        size_t newcomers = 0;
    };
    std::map<IpAddress, Told> tellers_;  // of the last minute
    MemberExcess excess_;
};

}  // namespace weft::kv
