#include "kv/prober.h"

#include <algorithm>

namespace weft::kv {

namespace {

constexpr size_t kMaxRelays = 1024;  // a flood of requests costs this much memory at most

}  // namespace

Prober::Prober(Context& context, Membership& membership, Hooks hooks)
    : context_(context),
      membership_(membership),
      hooks_(std::move(hooks)),
      awareness_(context.config.lifeguard ? context.config.awarenessMax : 1),
      sequence_(static_cast<uint32_t>(context.random.next())) {}

void Prober::start() {
    // A random phase: nodes started together do not probe in step.
    const auto phase = context_.random.unit() * context_.config.probeInterval;
    nextTimer_ =
        context_.timers.after(std::chrono::duration_cast<Clock::Monotonic::duration>(phase), [this] { probeNext(); });
}

void Prober::stop() {
    context_.timers.cancel(indirectTimer_);
    context_.timers.cancel(nextTimer_);
    probe_.reset();
}

void Prober::probeNext() {
    if (probe_) conclude();
    pingTheDead();
    const auto interval = awareness_.scale(context_.config.probeInterval);
    nextTimer_ = context_.timers.after(interval, [this] { probeNext(); });
    const Member* target = nextTarget();
    if (target == nullptr) return;
    ++context_.counters.probes;
    probe_ = Probe{.sequence = ++sequence_, .target = target->id};
    std::vector<Message> messages{Ping{probe_->sequence, target->id, hooks_.root()}};
    // Lifeguard's buddy system: a suspect learns of it in the very ping it answers.
    if (context_.config.lifeguard && target->state == MemberState::Suspect) {
        messages.emplace_back(SuspectNotice{target->id, target->record.incarnation, membership_.selfId()});
    }
    hooks_.send(target->record.address, target->id, std::move(messages));
    indirectTimer_ = context_.timers.after(awareness_.scale(context_.config.probeTimeout), [this] { askOthers(); });
}

const Member* Prober::nextTarget() {
    for (int rounds = 0; rounds < 2; ++rounds) {
        while (!round_.empty()) {
            const Member* member = membership_.find(round_.back());
            round_.pop_back();
            if (member != nullptr && !member->gone()) return member;
        }
        for (const auto& [id, member] : membership_.members()) {
            if (!member.gone() && id != membership_.selfId()) round_.push_back(id);
        }
        for (size_t i = round_.size(); i > 1; --i) std::swap(round_[i - 1], round_[context_.random.below(i)]);
    }
    return nullptr;
}

void Prober::askOthers() {
    if (!probe_ || probe_->acked) return;
    const Member* target = membership_.find(probe_->target);
    if (target == nullptr) return;
    const auto helpers = membership_.pick(
        static_cast<size_t>(context_.config.indirectProbes),
        [&](const Member& member) { return member.state == MemberState::Alive && member.id != target->id; });
    probe_->nacksExpected = helpers.size();
    for (const Member* helper : helpers) {
        hooks_.send(helper->record.address, helper->id,
                    {PingRequest{probe_->sequence, target->id, target->record.address}});
    }
    if (context_.config.streamProbe) hooks_.streamProbe(*target, probe_->sequence);
}

void Prober::conclude() {
    const Probe probe = *probe_;
    probe_.reset();
    if (probe.acked) return;
    ++context_.counters.probesFailed;
    // Helpers that did not even send a nack hint that the trouble is here.
    const size_t missing = probe.nacksExpected - std::min(probe.nacks, probe.nacksExpected);
    awareness_.apply(probe.nacksExpected > 0 ? static_cast<int>(missing) : 1);
    membership_.suspect(probe.target);
}

void Prober::onPing(const Address& from, const NodeId& sender, const Ping& ping) {
    if (ping.target != membership_.selfId()) return;
    hooks_.send(from, sender, {Ack{ping.sequence, hooks_.root()}});
}

void Prober::onPingRequest(const Address& from, const NodeId& sender, const PingRequest& request) {
    if (relays_.size() >= kMaxRelays) return;
    const uint32_t sequence = ++sequence_;
    relays_.emplace(sequence, Relay{from, sender, request.sequence});
    hooks_.send(request.address, request.target, {Ping{sequence, request.target, 0}});
    context_.timers.after(context_.config.probeTimeout * 4 / 5, [this, sequence] {
        if (const auto relay = relays_.find(sequence); relay != relays_.end()) {
            hooks_.send(relay->second.from, relay->second.sender, {Nack{relay->second.sequence}});
        }
    });
    // A late ack is still worth passing on.
    context_.timers.after(awareness_.scale(context_.config.probeInterval),
                          [this, sequence] { relays_.erase(sequence); });
}

void Prober::onAck(const Ack& ack) {
    if (probe_ && probe_->sequence == ack.sequence) {
        if (std::exchange(probe_->acked, true)) return;
        context_.timers.cancel(indirectTimer_);
        awareness_.apply(-1);
        return;
    }
    if (const auto relay = relays_.extract(ack.sequence)) {
        hooks_.send(relay.mapped().from, relay.mapped().sender, {Ack{relay.mapped().sequence, 0}});
    }
}

void Prober::onNack(const Nack& nack) {
    if (probe_ && probe_->sequence == nack.sequence) ++probe_->nacks;
}

// Each dead member hears about deadPings pings an interval from the whole cluster. Its answer makes contact (node.cpp).
void Prober::pingTheDead() {
    const double chance = context_.config.deadPings * static_cast<double>(membership_.dead()) /
                          static_cast<double>(membership_.present());
    if (membership_.dead() == 0 || context_.random.unit() >= chance) return;
    for (const Member* member : membership_.pick(1, [](const Member& m) { return m.state == MemberState::Dead; })) {
        hooks_.send(member->record.address, member->id,
                    {Ping{++sequence_, member->id, 0},
                     DeadNotice{member->id, member->record.incarnation, membership_.selfId()}});
    }
}

}  // namespace weft::kv
