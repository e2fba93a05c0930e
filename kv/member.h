// A member of the cluster as the others know it.
#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"
#include "kv/types.h"

namespace weft::kv {

constexpr size_t kMaxNameBytes = 64;

// What a node says about itself, signed by itself. Incarnation is epoch << 32 | counter: a restart starts a new
// epoch, a refutation counts up, and the higher one wins. The counter starts anywhere, so that two runs of one identity
// in one epoch (a cloned host) do not say the same.
struct MemberRecord {
    PublicKey publicKey{};
    std::string name;
    Address address;
    uint64_t incarnation = 0;
    bool left = false;  // said goodbye; only the node itself can say so
    Signature signature{};

    bool operator==(const MemberRecord&) const = default;
};

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

    [[nodiscard]] bool gone() const { return state == MemberState::Dead || state == MemberState::Left; }
};

}  // namespace weft::kv
