// Pool: the leases of one pool in memory, and the choice of the next address. Pure; its owner locks.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <optional>

#include "base/clock.h"
#include "ipam/interval_set.h"
#include "ipam/lease_store.h"

namespace weft::ipam {

// First and last address that may be given out of a prefix.
struct AddressRange {
    Uint128 first;
    Uint128 last;

    [[nodiscard]] bool contains(Uint128 bits) const { return first <= bits && bits <= last; }
    [[nodiscard]] Uint128 size() const { return last - first + 1; }
};

// Leaves out network and broadcast address of IPv4 (but not of a /31, RFC 3021, or /32) and the subnet-router anycast
// address of IPv6 (but not of a /127, RFC 6164, or /128).
AddressRange usableRange(const IpPrefix& prefix);

// The parts of a shared pool that this host may give addresses from: disjoint ranges.
class HeldRanges {
public:
    void insert(AddressRange range) { ranges_[range.first] = range.last; }
    // Splits what overlaps.
    void erase(AddressRange range);
    [[nodiscard]] bool contains(Uint128 bits) const;
    [[nodiscard]] Uint128 size() const;
    [[nodiscard]] const std::map<Uint128, Uint128>& ranges() const { return ranges_; }  // first to last

private:
    std::map<Uint128, Uint128> ranges_;
};

struct Lease {
    LeaseKind kind = LeaseKind::Endpoint;
    bool settling = false;  // between memory and disk: whoever wants it waits
    EndpointId endpoint;    // empty: not bound
    Clock::Monotonic since;
};

class Pool {
public:
    // `held` outlives the pool; null: all of it may be given out.
    explicit Pool(PoolRecord poolRecord, const HeldRanges* held = nullptr);

    PoolRecord record;
    bool settling = false;                     // the pool itself is between memory and disk
    size_t settlingLeases = 0;                 // then the pool may not go
    bool bindingsKnown = true;                 // false after a start until the driver has restored them
    std::optional<Clock::Monotonic> detached;  // since then its network is gone, and no other has taken it

    [[nodiscard]] bool isUsable(const IpAddress& address) const;
    [[nodiscard]] bool isHeld(const IpAddress& address) const {
        return held_ == nullptr || held_->contains(address.bits());
    }
    // No lease and no quarantine in it.
    [[nodiscard]] bool isVacant(AddressRange range, Clock::Monotonic now);
    // A held address without lease or quarantine, in the sub-pool or not.
    [[nodiscard]] std::optional<Uint128> findVacant(AddressRange within, Clock::Monotonic now);
    Lease* find(const IpAddress& address);
    [[nodiscard]] const std::map<Uint128, Lease>& leases() const { return leases_; }
    std::map<Uint128, Lease>& leases() { return leases_; }
    [[nodiscard]] IpAddress address(Uint128 bits) const { return {record.pool.family(), bits}; }

    // The next free address after the last one chosen, round and round. One still in quarantine only if no other is
    // left, the one released longest ago first.
    std::optional<IpAddress> chooseNext(Clock::Monotonic now);
    // The lowest free address: for gateways, as Docker does.
    std::optional<IpAddress> chooseLowest(Clock::Monotonic now);

    // `address` must be usable. If it was leased, only kind and time change.
    Lease& take(const IpAddress& address, LeaseKind kind, Clock::Monotonic now);
    void drop(const IpAddress& address);
    // drop, but kept from being chosen until `quarantineEnd`.
    void dropInto(const IpAddress& address, Clock::Monotonic quarantineEnd);

    // Of the range that addresses are chosen from.
    [[nodiscard]] Uint128 freeCount() const { return range_.size() - leasedInRange_; }
    // The gateway's lease, if it has one.
    [[nodiscard]] std::optional<IpAddress> gateway() const;
    // To be called once after loading leases: start choosing behind them rather than at what was released last.
    void moveCursorBehindLeases();

private:
    [[nodiscard]] std::optional<Uint128> firstFree(Uint128 from, Uint128 last) const;
    void endQuarantine(Clock::Monotonic now);
    std::optional<Uint128> takeFromQuarantine();

    const HeldRanges* held_;
    AddressRange usable_;
    AddressRange range_;  // usable_ within the sub-pool
    Uint128 cursor_;
    IntervalSet<> taken_;  // leased or in quarantine
    std::map<Uint128, Lease> leases_;
    Uint128 leasedInRange_ = 0;
    std::optional<Uint128> gateway_;

    struct Quarantined {
        Uint128 bits;
        Clock::Monotonic end;
    };
    std::deque<Quarantined> quarantine_;  // oldest first; may name an address that was leased again meanwhile
};

}  // namespace weft::ipam
