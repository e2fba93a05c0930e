#include "ipam/pool.h"

#include <algorithm>
#include <utility>

namespace weft::ipam {

AddressRange usableRange(const IpPrefix& prefix) {
    AddressRange range{prefix.first().bits(), prefix.last().bits()};
    if (addressBits(prefix.family()) - prefix.length() < 2) return range;
    ++range.first;
    if (prefix.family() == IpFamily::V4) --range.last;
    return range;
}

void HeldRanges::erase(AddressRange range) {
    auto at = ranges_.upper_bound(range.first);
    if (at != ranges_.begin() && std::prev(at)->second >= range.first) --at;
    while (at != ranges_.end() && at->first <= range.last) {
        const auto [first, last] = *at;
        at = ranges_.erase(at);
        if (first < range.first) ranges_[first] = range.first - 1;
        if (last > range.last) ranges_[range.last + 1] = last;
    }
}

bool HeldRanges::contains(Uint128 bits) const {
    const auto after = ranges_.upper_bound(bits);
    return after != ranges_.begin() && std::prev(after)->second >= bits;
}

Uint128 HeldRanges::size() const {
    Uint128 sum = 0;
    for (const auto& [first, last] : ranges_) sum += last - first + 1;
    return sum;
}

Pool::Pool(PoolRecord poolRecord, const HeldRanges* held)
    : record(std::move(poolRecord)), held_(held), usable_(usableRange(record.pool)), range_(usable_) {
    if (record.subPool) {
        range_.first = std::max(range_.first, record.subPool->first().bits());
        range_.last = std::min(range_.last, record.subPool->last().bits());
    }
    cursor_ = range_.first;
}

bool Pool::isUsable(const IpAddress& address) const {
    return address.family() == record.pool.family() && usable_.contains(address.bits());
}

bool Pool::isVacant(AddressRange range, Clock::Monotonic now) {
    endQuarantine(now);
    return !taken_.intersects(range.first, range.last);
}

std::optional<Uint128> Pool::findVacant(AddressRange within, Clock::Monotonic now) {
    endQuarantine(now);
    return firstFree(within.first, within.last);
}

std::optional<Uint128> Pool::firstFree(Uint128 from, Uint128 last) const {
    if (held_ == nullptr) return taken_.firstGap(from, last);
    auto range = held_->ranges().upper_bound(from);
    if (range != held_->ranges().begin()) range = std::prev(range);
    for (; range != held_->ranges().end() && range->first <= last; ++range) {
        if (auto bits = taken_.firstGap(std::max(from, range->first), std::min(last, range->second))) return bits;
    }
    return std::nullopt;
}

Lease* Pool::find(const IpAddress& address) {
    if (address.family() != record.pool.family()) return nullptr;
    const auto found = leases_.find(address.bits());
    return found == leases_.end() ? nullptr : &found->second;
}

std::optional<IpAddress> Pool::chooseNext(Clock::Monotonic now) {
    endQuarantine(now);
    auto bits = firstFree(cursor_, range_.last);
    if (!bits) bits = firstFree(range_.first, range_.last);
    if (!bits) bits = takeFromQuarantine();
    if (!bits) return std::nullopt;
    cursor_ = *bits == range_.last ? range_.first : *bits + 1;
    return address(*bits);
}

std::optional<IpAddress> Pool::chooseLowest(Clock::Monotonic now) {
    endQuarantine(now);
    auto bits = firstFree(range_.first, range_.last);
    if (!bits) bits = takeFromQuarantine();
    if (!bits) return std::nullopt;
    return address(*bits);
}

Lease& Pool::take(const IpAddress& address, LeaseKind kind, Clock::Monotonic now) {
    const Uint128 bits = address.bits();
    const auto [entry, isNew] = leases_.try_emplace(bits);
    if (isNew) taken_.insert(bits);
    if (isNew && range_.contains(bits)) ++leasedInRange_;
    if (kind == LeaseKind::Gateway) gateway_ = bits;
    Lease& lease = entry->second;
    lease.kind = kind;
    lease.since = now;
    return lease;
}

void Pool::drop(const IpAddress& address) {
    const Uint128 bits = address.bits();
    if (leases_.erase(bits) == 0) return;
    taken_.erase(bits);
    if (range_.contains(bits)) --leasedInRange_;
    if (gateway_ == bits) gateway_.reset();
}

void Pool::dropInto(const IpAddress& address, Clock::Monotonic quarantineEnd) {
    drop(address);
    taken_.insert(address.bits());
    quarantine_.push_back({address.bits(), quarantineEnd});
}

std::optional<IpAddress> Pool::gateway() const {
    if (!gateway_) return std::nullopt;
    return address(*gateway_);
}

void Pool::moveCursorBehindLeases() {
    auto lease = leases_.upper_bound(range_.last);
    if (lease == leases_.begin()) return;
    const Uint128 highest = std::prev(lease)->first;
    if (highest >= range_.first && highest < range_.last) cursor_ = highest + 1;
}

void Pool::endQuarantine(Clock::Monotonic now) {
    while (!quarantine_.empty() && quarantine_.front().end <= now) {
        const Uint128 bits = quarantine_.front().bits;
        quarantine_.pop_front();
        if (!leases_.contains(bits)) taken_.erase(bits);
    }
}

std::optional<Uint128> Pool::takeFromQuarantine() {
    while (!quarantine_.empty()) {
        const Uint128 bits = quarantine_.front().bits;
        quarantine_.pop_front();
        if (leases_.contains(bits)) continue;
        taken_.erase(bits);
        if (range_.contains(bits) && (held_ == nullptr || held_->contains(bits))) return bits;
    }
    return std::nullopt;
}

}  // namespace weft::ipam
