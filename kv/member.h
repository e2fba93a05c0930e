// A member of the cluster as the others know it.
#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"
#include "kv/types.h"

namespace weft::kv {

constexpr size_t kMaxNameBytes = 64;

// What a node says about itself, signed by itself. Incarnation is epoch << 32 | wire << 31 | counter: a restart starts
// a new epoch, a refutation counts up, and the higher one wins. The counter starts anywhere, so that two runs of one
// identity in one epoch (a cloned host) do not say the same.
struct MemberRecord {
    PublicKey publicKey{};
    std::string name;          // fit to print; one that is not gives way to the start of the id
    std::string signedName{};  // as signed, where `name` gave way; else empty
    Address address;
    uint64_t incarnation = 0;
    bool left = false;  // said goodbye; only the node itself can say so
    Signature signature{};

    bool operator==(const MemberRecord&) const = default;
};

// Whether the node speaks wire 2 (docs/gossip.md). Nodes before it never set the bit, and pass it on untouched.
constexpr uint64_t kWire2Bit = uint64_t{1} << 31;
inline bool speaksWire2(const MemberRecord& record) {
    return (record.incarnation & kWire2Bit) != 0;
}
// The start of its life that the node is in.
inline uint32_t epochOf(const MemberRecord& record) {
    return static_cast<uint32_t>(record.incarnation >> 32);
}

// What the node signs.
Bytes signedBytes(const MemberRecord& record, const std::string& cluster);

// Ranked: at the same incarnation the later one wins.
enum class MemberState : uint8_t { Alive, Suspect, Dead, Left };
std::string_view toString(MemberState state);

struct Member {
    NodeId id;
    MemberRecord record;
    MemberState state = MemberState::Alive;
    Clock::Monotonic since;  // when the state began here
    Clock::Monotonic heard;  // the last sign of life: its packet, its new record, or a peer's word of one
    bool proved = false;     // spoke to this node itself: only such members are remembered over a restart

    [[nodiscard]] bool gone() const { return state == MemberState::Dead || state == MemberState::Left; }
};

// Members that were not taken, for there are too many (membership.h), and who told of the last.
struct MemberExcess {
    uint64_t count = 0;
    IpAddress teller;
    Clock::Monotonic last{};
};

}  // namespace weft::kv
