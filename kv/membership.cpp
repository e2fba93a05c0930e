#include "kv/membership.h"

#include <algorithm>
#include <tuple>

namespace weft::kv {

using std::chrono::seconds;

namespace {

constexpr size_t kMaxTellers = 1024;
constexpr seconds kTellFor{60};

}  // namespace

Membership::Membership(Context& context, uint32_t epoch, Events events)
    : context_(context), events_(std::move(events)), selfId_(NodeId::of(context.signer.publicKey())) {
    Member& self = members_[selfId_];
    self.id = selfId_;
    self.since = context_.clock.now();
    self.record.publicKey = context_.signer.publicKey();
    self.record.name = context_.config.nodeName.substr(0, kMaxNameBytes);
    self.record.address = context_.config.advertise;
    beginIncarnations(epoch);
    present_ = 1;
    ++atAddress_[self.record.address.ip];
}

const MemberRecord* Membership::former(const NodeId& id) const {
    const auto found = formers_.find(id);
    return found == formers_.end() ? nullptr : &found->second;
}

const Member* Membership::find(const NodeId& id) const {
    const auto found = members_.find(id);
    return found == members_.end() ? nullptr : &found->second;
}

seconds Membership::age(const Member& member) const {
    return std::chrono::duration_cast<seconds>(context_.clock.now() - member.heard);
}

bool Membership::advertised(const Member& member) const {
    return !member.gone() || age(member) < context_.config.partitionLimit * 7 / 8;
}

bool Membership::apply(const MemberRecord& record, MemberState state, seconds age, bool announce,
                       const IpAddress* teller) {
    const NodeId id = NodeId::of(record.publicKey);
    if (id == selfId_) {
        applySelf(record);
        return false;
    }
    const auto known = members_.find(id);
    if (known != members_.end()) {
        const MemberRecord& held = known->second.record;
        if (record.incarnation < held.incarnation) return false;
        if (record.incarnation == held.incarnation && (held.left || !record.left)) return false;
    } else if (record.left && state == MemberState::Alive) {
        return false;  // a goodbye of somebody never met
    }
    if (!context_.signer.verify(record.publicKey, signedBytes(record, context_.config.cluster), record.signature)) {
        ++context_.counters.badSignature;
        return false;
    }
    if (known == members_.end() && !makeRoom(record, record.left || state != MemberState::Alive, teller)) {
        ++context_.counters.membersRefused;
        return false;
    }

    std::optional<MemberState> before;
    Member& member = members_[id];
    if (known != members_.end()) {
        before = member.state;
        leaveAddress(member.record.address.ip);
    } else {
        member.id = id;
        order_.push_back(&member);
        member.since = context_.clock.now();
        ++present_;
    }
    member.heard = std::max(member.heard, context_.clock.now() - age);
    if (before && member.record.address != record.address) formers_[id] = member.record;
    member.record = record;
    ++atAddress_[record.address.ip];
    setState(member, record.left ? MemberState::Left : state);
    if (announce) events_.broadcast(id, record);
    events_.changed(member, before);
    return true;
}

// What others hold of us is older or the same. Else this identity signed it in another life: the disk was rolled back,
// or the key runs twice.
void Membership::applySelf(const MemberRecord& record) {
    const bool own = record == self().record || ownIncarnation(record.incarnation);
    const bool elsewhere = record.address != self().record.address;
    if (own && !elsewhere) return;
    if (!context_.signer.verify(record.publicKey, signedBytes(record, context_.config.cluster), record.signature)) {
        ++context_.counters.badSignature;
        return;
    }
    if (elsewhere && events_.seenElsewhere) events_.seenElsewhere(record.address);
    if (!own) events_.epochOutdated(static_cast<uint32_t>(record.incarnation >> 32));
}

bool Membership::applyRemote(const MemberRecord& record, MemberState state, seconds age, const NodeId& peer,
                             bool announce, const IpAddress* teller) {
    const NodeId id = NodeId::of(record.publicKey);
    const Member* known = find(id);
    const bool gone = state == MemberState::Dead || state == MemberState::Left;
    if (known == nullptr) {
        if (gone && age >= context_.config.partitionLimit * 7 / 8) return false;
        return apply(record, gone ? state : MemberState::Alive, age, announce, teller);
    }
    const bool changed = apply(record, MemberState::Alive, age, announce, teller);
    // A death told by a peer is a suspicion here: the member may be on this side of what parted it from the peer.
    if (state == MemberState::Dead) applySuspect({id, record.incarnation, peer});
    return changed;
}

void Membership::heard(const NodeId& id) {
    const auto found = members_.find(id);
    if (found == members_.end()) return;
    found->second.heard = context_.clock.now();
    found->second.proved = true;
}

void Membership::applySuspect(const SuspectNotice& notice) {
    const auto found = members_.find(notice.target);
    if (found == members_.end() || found->second.record.incarnation != notice.incarnation) return;
    if (notice.target == selfId_) return refute();
    Member& member = found->second;
    if (member.state == MemberState::Alive) {
        setState(member, MemberState::Suspect);
        suspicions_.insert_or_assign(
            member.id, Pending{Suspicion(context_.config, present_, notice.from, context_.clock.now()), {}});
        armSuspicion(member.id);
        events_.broadcast(member.id, notice);
        events_.changed(member, MemberState::Alive);
    } else if (member.state == MemberState::Suspect && suspicions_.at(member.id).suspicion.confirm(notice.from)) {
        armSuspicion(member.id);
        events_.broadcast(member.id, notice);
    }
}

void Membership::suspect(const NodeId& id) {
    const Member* member = find(id);
    if (member == nullptr || member->gone()) return;
    ++context_.counters.suspected;
    applySuspect({id, member->record.incarnation, selfId_});
}

void Membership::armSuspicion(const NodeId& id) {
    Pending& pending = suspicions_.at(id);
    context_.timers.cancel(pending.timer);
    const auto delay = std::max(Clock::Monotonic::duration{}, pending.suspicion.deadline() - context_.clock.now());
    pending.timer = context_.timers.after(delay, [this, id] {
        ++context_.counters.declaredDead;
        applyDead({id, members_.at(id).record.incarnation, selfId_});
    });
}

void Membership::applyDead(const DeadNotice& notice) {
    const auto found = members_.find(notice.target);
    if (found == members_.end() || found->second.record.incarnation != notice.incarnation) return;
    if (notice.target == selfId_) return refute();
    Member& member = found->second;
    if (member.gone()) return;
    const MemberState before = member.state;
    setState(member, MemberState::Dead);
    events_.broadcast(member.id, notice);
    events_.changed(member, before);
}

void Membership::setState(Member& member, MemberState state) {
    if (const auto pending = suspicions_.find(member.id); pending != suspicions_.end()) {
        context_.timers.cancel(pending->second.timer);
        suspicions_.erase(pending);
    }
    if (member.state == state) return;
    present_ -= member.gone() ? 0 : 1;
    dead_ -= member.state == MemberState::Dead ? 1 : 0;
    member.state = state;
    member.since = context_.clock.now();
    present_ += member.gone() ? 0 : 1;
    dead_ += member.state == MemberState::Dead ? 1 : 0;
}

void Membership::signSelf(uint64_t incarnation) {
    MemberRecord& record = members_.at(selfId_).record;
    record.incarnation = incarnation;
    record.signature = context_.signer.sign(signedBytes(record, context_.config.cluster));
}

void Membership::beginIncarnations(uint32_t epoch) {
    constexpr size_t kStarts = 1 << 30;
    firstIncarnation_ = uint64_t{epoch} << 32 | wireBit() | context_.random.below(kStarts);
    signSelf(firstIncarnation_);
}

// Of an earlier epoch, or said in this one and refuted since.
bool Membership::ownIncarnation(uint64_t incarnation) const {
    return incarnation >> 32 < firstIncarnation_ >> 32 ||
           (incarnation >= firstIncarnation_ && incarnation < self().record.incarnation);
}

void Membership::announce() {
    events_.broadcast(selfId_, self().record);
}

void Membership::refute() {
    if (self().record.left) return;
    ++context_.counters.refuted;
    signSelf(self().record.incarnation + 1);
    announce();
    events_.refuted();
}

void Membership::leave() {
    members_.at(selfId_).record.left = true;
    signSelf(self().record.incarnation + 1);
    announce();
}

void Membership::beginEpoch(uint32_t epoch) {
    beginIncarnations(epoch);
    announce();
}

void Membership::forgetOld() {
    std::vector<NodeId> old;
    for (const auto& [id, member] : members_) {
        if (member.gone() && age(member) >= context_.config.partitionLimit) old.push_back(id);
    }
    for (const NodeId& id : old) remove(id);
    std::erase_if(tellers_, [this](const auto& entry) { return context_.clock.now() - entry.second.since > kTellFor; });
}

void Membership::remove(const NodeId& id) {
    formers_.erase(id);
    if (Member& member = members_.at(id); !member.gone()) {
        const MemberState before = member.state;
        setState(member, MemberState::Dead);
        events_.changed(member, before);
    }
    std::erase(order_, &members_.at(id));
    const auto member = members_.extract(id);
    dead_ -= member.mapped().state == MemberState::Dead ? 1 : 0;
    leaveAddress(member.mapped().record.address.ip);
    events_.forgotten(member.mapped());
}

void Membership::leaveAddress(const IpAddress& address) {
    if (--atAddress_.at(address) == 0) atAddress_.erase(address);
}

bool Membership::makeRoom(const MemberRecord& record, bool gone, const IpAddress* teller) {
    if (teller == nullptr) return members_.size() < context_.config.maxMembers;
    const auto now = context_.clock.now();
    if (!tellers_.contains(*teller) && tellers_.size() >= kMaxTellers) {
        tellers_.erase(std::ranges::min_element(tellers_, {}, [](const auto& entry) { return entry.second.since; }));
    }
    Told& told = tellers_[*teller];
    if (now - told.since > kTellFor) told = {.since = now, .newcomers = 0};
    const IpAddress& address = record.address.ip;
    const auto here = atAddress_.find(address);
    const NodeId id = NodeId::of(record.publicKey);
    const NodeId* goneId = gone ? &id : nullptr;
    const bool crowded = here != atAddress_.end() && here->second >= context_.config.membersAnAddress;
    if (told.newcomers < context_.config.newcomersAMinute && (!crowded || evict(&address, goneId)) &&
        (members_.size() < context_.config.maxMembers || evict(nullptr, goneId))) {
        ++told.newcomers;
        return true;
    }
    excess_ = {.count = excess_.count + 1, .teller = *teller, .last = now};
    return false;
}

// Of those at the address, or of all, the gone one with the least id: all nodes keep the same ones. Else the one
// longest here that never spoke to us; but for a newcomer that is gone itself (`gone`) only a gone one of a lesser id.
bool Membership::evict(const IpAddress* address, const NodeId* gone) {
    const Member* victim = nullptr;
    for (const Member* member : order_) {
        if (address != nullptr && member->record.address.ip != *address) continue;
        if (member->gone() ? gone != nullptr && *gone < member->id : gone != nullptr || member->proved) continue;
        const auto rank = [](const Member& one) {
            return std::tuple(!one.gone(), one.gone() ? Clock::Monotonic{} : one.since, one.id);
        };
        if (victim == nullptr || rank(*member) < rank(*victim)) victim = member;
    }
    if (victim == nullptr) return false;
    remove(victim->id);
    return true;
}

std::vector<const Member*> Membership::pick(size_t count, const std::function<bool(const Member&)>& want) const {
    std::vector<const Member*> picked;
    // A few random tries suit the usual case (most members qualify); the full scan settles the rest.
    for (size_t tries = 0; tries < 3 * count && picked.size() < count && !order_.empty(); ++tries) {
        const Member* member = order_[context_.random.below(order_.size())];
        if (std::ranges::find(picked, member) == picked.end() && want(*member)) picked.push_back(member);
    }
    if (picked.size() == count || order_.empty()) return picked;
    const size_t start = context_.random.below(order_.size());
    for (size_t i = 0; i < order_.size() && picked.size() < count; ++i) {
        const Member* member = order_[(start + i) % order_.size()];
        if (std::ranges::find(picked, member) == picked.end() && want(*member)) picked.push_back(member);
    }
    return picked;
}

}  // namespace weft::kv
