#include "kv/prober.h"

#include <algorithm>

namespace weft::kv {

namespace {

constexpr size_t kMaxRelays = 1024;     // a flood of requests costs this much memory at most
constexpr size_t kMaxRelaysOfOne = 64;  // of one member, who must not take the others' place

}  // namespace

Prober::Prober(Context& context, Membership& membership, Hooks hooks)
    : context_(context),
      membership_(membership),
      hooks_(std::move(hooks)),
      awareness_(context.config.lifeguard ? context.config.awarenessMax : 1) {}

uint32_t Prober::newSequence() {
    for (;;) {
        const auto sequence = static_cast<uint32_t>(context_.random.next());
        if (!relays_.contains(sequence)) return sequence;
    }
}

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
    probe_ = Probe{.sequence = newSequence(), .target = target->id};
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
    for (const Member* helper : helpers) {
        const uint32_t sequence = newSequence();
        probe_->helpers[sequence] = {helper->id};
        hooks_.send(helper->record.address, helper->id, {PingRequest{sequence, target->id, target->record.address}});
    }
    if (context_.config.streamProbe) hooks_.streamProbe(*target, probe_->sequence);
}

void Prober::conclude() {
    const Probe probe = *probe_;
    probe_.reset();
    if (probe.acked) return;
    ++context_.counters.probesFailed;
    // Helpers that did not even send a nack hint that the trouble is here.
    const auto missing = std::ranges::count_if(probe.helpers, [](const auto& entry) { return !entry.second.nacked; });
    awareness_.apply(probe.helpers.empty() ? 1 : static_cast<int>(missing));
    membership_.suspect(probe.target);
}

void Prober::onPing(const Address& from, const NodeId& sender, const Ping& ping) {
    if (ping.target != membership_.selfId()) return;
    hooks_.send(from, sender, {Ack{ping.sequence, hooks_.root()}});
}

void Prober::onPingRequest(const Address& from, const NodeId& sender, const PingRequest& request) {
    const auto ofSender = [&](const auto& relay) { return relay.second.sender == sender; };
    const auto relayed = static_cast<size_t>(std::ranges::count_if(relays_, ofSender));
    if (relays_.size() >= kMaxRelays || relayed >= kMaxRelaysOfOne) return;
    const uint32_t sequence = newSequence();
    relays_.emplace(sequence, Relay{from, sender, request.target, request.sequence});
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

void Prober::answered() {
    if (std::exchange(probe_->acked, true)) return;
    context_.timers.cancel(indirectTimer_);
    awareness_.apply(-1);
}

void Prober::streamProved(uint32_t sequence) {
    if (probe_ && probe_->sequence == sequence) answered();
}

void Prober::onAck(const NodeId& sender, const Ack& ack) {
    if (probe_) {
        const auto helper = probe_->helpers.find(ack.sequence);
        const bool helped = helper != probe_->helpers.end() && helper->second.id == sender;
        if (helped || (probe_->sequence == ack.sequence && probe_->target == sender)) return answered();
    }
    const auto relay = relays_.find(ack.sequence);
    if (relay == relays_.end() || relay->second.target != sender) return;
    hooks_.send(relay->second.from, relay->second.sender, {Ack{relay->second.sequence, 0}});
    relays_.erase(relay);
}

void Prober::onNack(const NodeId& sender, const Nack& nack) {
    if (!probe_) return;
    const auto helper = probe_->helpers.find(nack.sequence);
    if (helper != probe_->helpers.end() && helper->second.id == sender) helper->second.nacked = true;
}

// Each dead member hears about deadPings pings an interval from the whole cluster. Its answer makes contact (node.cpp).
void Prober::pingTheDead() {
    const double chance = context_.config.deadPings * static_cast<double>(membership_.dead()) /
                          static_cast<double>(membership_.present());
    if (membership_.dead() == 0 || context_.random.unit() >= chance) return;
    for (const Member* member : membership_.pick(1, [](const Member& m) { return m.state == MemberState::Dead; })) {
        hooks_.send(member->record.address, member->id,
                    {Ping{newSequence(), member->id, 0},
                     DeadNotice{member->id, member->record.incarnation, membership_.selfId()}});
    }
}

}  // namespace weft::kv
