#include "kv/node.h"

#include <sodium.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <set>

#include "kv/broadcast_queue.h"
#include "kv/clocks.h"
#include "kv/context.h"
#include "kv/membership.h"
#include "kv/message.h"
#include "kv/prober.h"
#include "kv/recent_hosts.h"
#include "kv/replay_window.h"
#include "kv/secure_stream.h"
#include "kv/sync.h"

namespace weft::kv {

namespace {

using namespace std::chrono_literals;

constexpr size_t kMaxUnopened = 256;      // hosts of which it is remembered
constexpr size_t kMaxOldHosts = 64;       // the same, of those refused for their wire
constexpr size_t kMaxAccepted = 128;      // streams others opened to us, at one time
constexpr size_t kMaxUnproven = 32;       // of them not proven yet
constexpr size_t kMaxAcceptedOfOne = 32;  // of them from one address
constexpr size_t kMaxUnprovenOfOne = 16;  // not proven, from one address
constexpr size_t kMaxHellos = 1024;       // nonces of hellos remembered, so that a recording is known
constexpr size_t kMaxSyncs = 8;           // streams we opened for anti-entropy, at one time
constexpr auto kIntroduceEvery = 1s;      // at most, to one member
constexpr uint32_t kMaxRaises = 3;        // of the epoch in one life: more of them are a race with a twin
constexpr auto kLookForTwinEvery = 1s;    // at most
constexpr auto kLeaveLimit = 5s;
constexpr auto kSaveMembersEvery = 60s;
constexpr auto kSaveMembersSoon = 1s;  // who comes or goes seldom does so alone

uint64_t hashMember(const Member& member, uint64_t rows) {
    Writer out;
    out.id(member.id);
    out.u64(member.record.incarnation);
    out.u8(member.gone() ? 1 : 0);
    out.u64(rows);
    static constexpr std::array<uint8_t, crypto_shorthash_KEYBYTES> kKey{'m', 'e', 'm', 'b', 'e', 'r'};
    std::array<uint8_t, crypto_shorthash_BYTES> hash;
    crypto_shorthash(hash.data(), out.view().data(), out.size(), kKey.data());
    return Reader(hash).u64();
}

}  // namespace

class Node::Impl {
public:
    Impl(Config config, Persisted persisted, Keyring& keyring, const Signer& signer, const Clock& clock, Random& random,
         Transport& transport, Storage& storage)
        : context_{std::move(config), clock, random, signer, Timers(clock), {}},
          epoch_(persisted.epoch),
          keyring_(keyring),
          transport_(transport),
          storage_(storage),
          table_(clock, this->config().partitionLimit + this->config().tombstoneSlack,
                 Table::Quotas{.rows = this->config().rowsAnOwner,
                               .bytes = this->config().bytesAnOwner,
                               .tombstones = this->config().tombstonesAnOwner,
                               .exempt = NodeId::of(signer.publicKey())}),
          queue_(this->config().queueLimit),
          membership_(context_, epoch_, membershipEvents()),
          prober_(context_, membership_, proberHooks()),
          version_(uint64_t{epoch_} << 32),
          doubt_(persisted.doubt),
          origin_(persisted.origin) {
        for (Row& row : persisted.rows) {
            version_ = std::max(version_, row.version);
            table_.apply(std::move(row));
        }
        changedAt_ = doubtedAt_ = now();
        // A tenth of the shortest limit keeps the exact moment within its slack.
        const auto collect = std::max<Clock::Monotonic::duration>(
            100ms, std::min<Clock::Monotonic::duration>(60s, this->config().partitionLimit / 64));
        every(collect, [this] {
            table_.collectTombstones();
            membership_.forgetOld();
            for (const auto& [id, member] : membership_.members()) unsummed_.insert(id);
        });
        // Believed until the failure detector says otherwise: a restarted host needs no seed to be back.
        for (const MemberRecord& record : persisted.members) {
            membership_.applyRemote(record, MemberState::Alive, {}, membership_.selfId(), false, nullptr);
            membership_.heard(NodeId::of(record.publicKey));
        }
        unsummed_.insert(membership_.selfId());
    }

    void start() {
        started_ = true;
        membership_.announce();
        prober_.start();
        hurryGossip();
        for (const Member* member : membership_.pick(2, [](const Member&) { return true; })) {
            startSync(member->record.address, member->id);
        }
        seedTick();
        syncTick();
        every(kSaveMembersEvery, [this] { saveMembers(); });
    }

    void leave(std::function<void()> done) {
        prober_.stop();
        membership_.leave();
        changed(membership_.selfId());
        saveMembers();
        awaitGoodbye(std::move(done), now() + kLeaveLimit);
    }

    void onPacket(const Address& from, BytesView bytes);
    void onStreamAccepted(StreamId id, const Address& from);
    void onStreamData(StreamId id, BytesView bytes);
    void onStreamClosed(StreamId id);

    void put(std::string key, std::string value, Done done);
    void erase(std::string key, Done done);

    void reissue(const std::string& key, Done done);

    [[nodiscard]] uint32_t epoch() const { return epoch_; }
    [[nodiscard]] bool inDoubt() const { return doubt_; }
    [[nodiscard]] Origin origin() const { return origin_; }
    [[nodiscard]] Clock::Monotonic doubtedAt() const { return doubtedAt_; }
    [[nodiscard]] bool hasTwin() const { return twin_ || raises_ >= kMaxRaises; }
    void settleDoubt(Done done);
    void onDoubt(std::function<void()> callback) { doubtCallbacks_.push_back(std::move(callback)); }

    void setSeeds(std::vector<Address> seeds) { context_.config.seeds = std::move(seeds); }
    void onMember(MemberCallback callback) { memberCallbacks_.push_back(std::move(callback)); }

    uint64_t root();
    Context& context() { return context_; }
    Table& table() { return table_; }
    Membership& membership() { return membership_; }
    void giveUp(const NodeId& id) {
        if (!givenUp_.insert(id).second) return;
        if (const Member* member = membership_.find(id)) sortByWire(*member);
        for (const auto& callback : givenUpCallbacks_) callback(id);
    }
    void onGivenUp(std::function<void(const NodeId&)> callback) {
        for (const NodeId& id : givenUp_) callback(id);
        givenUpCallbacks_.push_back(std::move(callback));
    }
    bool gaveUp(const NodeId& id) const { return givenUp_.contains(id); }
    int healthScore() { return prober_.awareness().score(); }
    std::optional<Clock::Monotonic> unopenedFrom(const IpAddress& host) const { return unopened_.last(host); }
    const std::set<NodeId>& speakersOfWire1() const { return wire1_; }
    std::vector<IpAddress> refusedForTheirWire() const {
        std::vector<IpAddress> hosts;
        for (const auto& [host, last] : oldHosts_.all()) {
            if (now() - last < std::chrono::minutes(10)) hosts.push_back(host);
        }
        return hosts;
    }
    const std::set<NodeId>& beyondQuota() const { return beyondQuota_; }
    Clock::Wall medianClock() const;
    std::vector<Node::ClockOffset> clocks() const;
    Counters& counters() {
        context_.counters.broadcastsDropped = queue_.dropped();
        return context_.counters;
    }

private:
    struct Stream {
        SecureStream secure;
        bool accepted;
        std::unique_ptr<SyncSession> session;  // of a Sync stream once established
        uint32_t probe = 0;                    // of a Probe stream: what to answer
        NodeId expected;                       // who must be there; zero: whoever is
        Address address;
        bool announce = true;
        bool mayChangeWire = false;  // refused, it is tried once more in the other wire
        Timers::Handle timeout{};
    };

    const Config& config() const { return context_.config; }
    Clock::Monotonic now() const { return context_.clock.now(); }

    void every(Clock::Monotonic::duration interval, std::function<void()> run) {
        context_.timers.after(interval, [this, interval, run = std::move(run)] {
            run();
            every(interval, run);
        });
    }
    Clock::Monotonic::duration jittered(Clock::Monotonic::duration interval) {  // 0.75 to 1.25 of it
        return std::chrono::duration_cast<Clock::Monotonic::duration>(interval * (0.75 + 0.5 * context_.random.unit()));
    }

    Membership::Events membershipEvents();
    Prober::Hooks proberHooks();
    void changed(const NodeId& id) {
        unsummed_.insert(id);
        changedAt_ = now();
    }

    // packets
    Bytes packetContext(const NodeId& receiver) const;
    std::optional<Wire> wireTo(const Member& member) const;
    bool takesWire1() const;
    void sortByWire(const Member& member);
    void send(const Address& to, const NodeId& id, const std::vector<Message>& messages);
    void sendPacket(const Address& to, const NodeId& id, Wire wire, Writer packet);
    Writer beginPacket(Wire wire, uint32_t receiverEpoch) const;
    size_t packetRoom(const Writer& packet) const {
        const size_t limit = config().packetBytes - Keyring::kOverhead;
        return packet.size() < limit ? limit - packet.size() : 0;
    }
    void fill(Writer& packet);
    bool isVouched(const Address& from, const NodeId& sender, uint32_t epoch, Reader messages);
    void introduce(const NodeId& id, uint32_t epoch);
    void onMessage(const Address& from, const NodeId& sender, Message& message);
    void heardFrom(const NodeId& sender);
    void compareRoot(const NodeId& sender, uint64_t root);

    // gossip
    void broadcast(std::string name, Bytes message, bool urgent);
    void gossipTick();
    void gossip();
    void hurryGossip();
    void awaitGoodbye(std::function<void()> done, Clock::Monotonic limit);

    // streams
    Stream* open(const Address& to, StreamPurpose purpose, const NodeId& expected, std::optional<Wire> wire,
                 StreamId& id);
    bool isNewHello(const SecureStream::Nonce& nonce);
    std::optional<StreamId> oldestUnproven(const IpAddress* address) const;
    bool makeRoomForStream(const IpAddress& address);
    bool retryInOtherWire(StreamId id);
    void onConnected(StreamId id, Stream& stream);
    void arm(StreamId id);
    void drop(StreamId id, bool failed);
    bool onFrame(StreamId id, BytesView frame);
    void streamProbe(const Member& member, uint32_t sequence);
    void startSync(const Address& to, const NodeId& expected);
    void makeSession(StreamId id, Stream& stream);
    void syncTick();
    void seedTick();
    void saveMembers();
    void saveMembersSoon();

    // rows
    bool applyRow(Row row, bool announce);
    bool applyOwnRow(const Row& row);
    [[nodiscard]] bool kept(const std::string& key) const;
    void beginDoubt();
    void tellOfTwin(const Address& from, const NodeId& id, uint32_t epoch);
    void lookForTwin(const Address& at);
    void hearOfSelf(const SecureStream& secure);
    void hearOfEpoch(uint32_t seen);
    void raiseEpoch(uint32_t seen);
    Row makeRow(std::string key, std::string value, bool deleted);
    void commit(Row row, Done done);
    void broadcastRow(const Row& row);
    void noteBeyondQuota(const NodeId& owner) {
        ++context_.counters.rowsBeyondQuota;
        beyondQuota_.insert(owner);
    }

    Context context_;
    uint32_t epoch_;
    Keyring& keyring_;
    Transport& transport_;
    Storage& storage_;
    Table table_;
    BroadcastQueue queue_;
    Membership membership_;
    Prober prober_;
    std::vector<MemberCallback> memberCallbacks_;

    bool started_ = false;
    bool savingMembers_ = false;
    uint64_t packetCounter_ = 0;
    std::map<NodeId, ReplayWindow> windows_;
    std::map<NodeId, Clock::Monotonic> introduced_;  // when last, of members
    std::map<NodeId, Clock::Monotonic> toldOfTwin_;
    RecentHosts unopened_{kMaxUnopened};  // who sent what did not open
    RecentHosts oldHosts_{kMaxOldHosts};  // who was refused for its wire
    Bytes plain_;                         // reused by onPacket

    uint64_t root_ = 0;  // of the summed members; see root()
    std::map<NodeId, uint64_t> summed_;
    std::set<NodeId> unsummed_;
    std::set<NodeId> givenUp_;
    std::set<NodeId> wire1_;  // members that do not speak wire 2, the gone ones too
    std::set<NodeId> beyondQuota_;
    Clocks clocks_;
    std::vector<std::function<void(const NodeId&)>> givenUpCallbacks_;
    Clock::Monotonic changedAt_;

    static constexpr Timers::Handle kNoTimer{Timers::Time::max(), 0};
    Timers::Handle gossipTimer_ = kNoTimer;
    Clock::Monotonic lastGossip_{};

    std::map<StreamId, Stream> streams_;
    size_t accepted_ = 0, unproven_ = 0, syncs_ = 0;
    std::set<SecureStream::Nonce> hellos_;
    std::deque<SecureStream::Nonce> helloOrder_;
    Clock::Monotonic lastSync_{};

    uint64_t version_;
    bool doubt_;
    const Origin origin_;
    Clock::Monotonic doubtedAt_{};
    uint32_t raises_ = 0;  // of the epoch
    bool twin_ = false;    // it answered
    std::optional<Clock::Monotonic> lookedForTwin_;
    std::vector<std::function<void()>> doubtCallbacks_;
    std::map<std::string, Row> saving_;  // the newest of each own key that is on its way to the disk
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// --- membership ---

Membership::Events Node::Impl::membershipEvents() {
    return {
        .changed =
            [this](const Member& member, std::optional<MemberState> before) {
                changed(member.id);
                sortByWire(member);
                const bool wasGone = before && (*before == MemberState::Dead || *before == MemberState::Left);
                if (member.gone() && !wasGone) table_.suspend(member.id);
                if (!member.gone() && wasGone) table_.resume(member.id);
                if (member.gone() != (!before || wasGone)) saveMembersSoon();
                const Member copy = member;
                for (size_t i = 0; i < memberCallbacks_.size(); ++i) memberCallbacks_[i](copy);
            },
        .forgotten =
            [this](const Member& member) {
                table_.forget(member.id);
                windows_.erase(member.id);
                introduced_.erase(member.id);
                toldOfTwin_.erase(member.id);
                wire1_.erase(member.id);
                beyondQuota_.erase(member.id);
                clocks_.forget(member.id);
                changed(member.id);
            },
        .broadcast = [this](const NodeId& about,
                            const Message& message) { broadcast("m" + about.str(), encode(message), true); },
        .refuted =
            [this] {
                if (config().lifeguard) prober_.awareness().apply(1);
                changed(membership_.selfId());
            },
        .epochOutdated = [this](uint32_t seen) { hearOfEpoch(seen); },
        .seenElsewhere = [this](const Address& at) { lookForTwin(at); },
    };
}

Prober::Hooks Node::Impl::proberHooks() {
    return {
        .send =
            [this](const Address& to, const NodeId& id, std::vector<Message> messages) {
                const Member* member = membership_.find(id);
                const bool answer = std::holds_alternative<Ack>(messages.front());
                if (answer && member != nullptr && wireTo(*member) == Wire::Two) {
                    const auto wall = context_.clock.wall().time_since_epoch();
                    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wall).count();
                    messages.emplace_back(ClockNotice{static_cast<uint64_t>(std::max<int64_t>(0, seconds))});
                }
                send(to, id, messages);
            },
        .streamProbe = [this](const Member& member, uint32_t sequence) { streamProbe(member, sequence); },
        .root = [this] { return root(); },
    };
}

uint64_t Node::Impl::root() {
    for (const NodeId& id : std::exchange(unsummed_, {})) {
        uint64_t& hash = summed_[id];
        const Member* member = membership_.find(id);
        const uint64_t fresh =
            member != nullptr && membership_.advertised(*member) ? hashMember(*member, table_.digest(id)) : 0;
        root_ ^= std::exchange(hash, fresh) ^ fresh;
        if (member == nullptr) summed_.erase(id);
    }
    return root_;
}

// --- packets ---

Bytes Node::Impl::packetContext(const NodeId& receiver) const {
    Writer context;
    context.text8("weft packet");
    context.text8(config().cluster);
    context.id(receiver);
    return std::move(context).take();
}

std::optional<Wire> Node::Impl::wireTo(const Member& member) const {
    if (config().wire == WirePolicy::One) return Wire::One;
    if (speaksWire2(member.record)) return Wire::Two;
    return config().wire == WirePolicy::Two ? std::nullopt : std::optional(Wire::One);
}

// While a member speaks it; and by a node that is alone, which has nobody to protect and may be found by such members.
bool Node::Impl::takesWire1() const {
    if (config().wire != WirePolicy::Either) return config().wire == WirePolicy::One;
    return !wire1_.empty() || membership_.members().size() == 1;
}

void Node::Impl::sortByWire(const Member& member) {
    const bool over = member.state == MemberState::Left || (member.gone() && givenUp_.contains(member.id));
    if (speaksWire2(member.record) || over) {
        wire1_.erase(member.id);
    } else {
        wire1_.insert(member.id);
    }
}

Writer Node::Impl::beginPacket(Wire wire, uint32_t receiverEpoch) const {
    Writer packet;
    packet.id(membership_.selfId());
    packet.u32(epoch_);
    packet.u64(0);  // numbered when sent
    if (wire == Wire::Two) packet.u32(receiverEpoch);
    return packet;
}

void Node::Impl::send(const Address& to, const NodeId& id, const std::vector<Message>& messages) {
    const Member* member = membership_.find(id);
    const auto wire = member == nullptr ? std::nullopt : wireTo(*member);
    if (!wire) return;
    Writer packet = beginPacket(*wire, epochOf(member->record));
    for (const Message& message : messages) packet.bytes(encode(message));
    fill(packet);
    sendPacket(to, id, *wire, std::move(packet));
}

void Node::Impl::fill(Writer& packet) {
    const int limit = BroadcastQueue::transmitLimit(config().retransmitMult, membership_.present());
    for (const Bytes& message : queue_.take(packetRoom(packet), limit)) packet.bytes(message);
}

void Node::Impl::sendPacket(const Address& to, const NodeId& id, Wire wire, Writer packet) {
    if (keyring_.empty()) return;
    Bytes plain = std::move(packet).take();
    Writer number;
    number.u64(++packetCounter_);
    std::ranges::copy(number.view(), plain.begin() + 16 + 4);
    Bytes box;
    keyring_.seal(wire, context_.random, packetContext(id), plain, box);
    ++context_.counters.packetsSent;
    context_.counters.bytesSent += box.size();
    transport_.sendPacket(to, box);
}

void Node::Impl::onPacket(const Address& from, BytesView bytes) {
    Counters& counters = context_.counters;
    ++counters.packetsReceived;
    counters.bytesReceived += bytes.size();
    const auto wire = Keyring::wireOf(bytes);
    if (wire == Wire::One && !takesWire1()) {
        ++counters.oldWire;
        return;
    }
    const bool spoken = wire && (*wire == Wire::One || config().wire != WirePolicy::One);
    switch (spoken ? keyring_.open(bytes, packetContext(membership_.selfId()), plain_) : Keyring::Opened::UnknownKey) {
        case Keyring::Opened::UnknownKey:
            ++counters.unknownKey;
            return unopened_.note(from.ip, now());
        case Keyring::Opened::Forged:
            ++counters.forged;
            return unopened_.note(from.ip, now());
        case Keyring::Opened::Ok:
            break;
    }
    const Bytes plain = std::move(plain_);
    Reader in(plain);
    const NodeId sender = in.id();
    const uint32_t epoch = in.u32();
    const uint64_t counter = in.u64();
    const uint32_t receiverEpoch = wire == Wire::Two ? in.u32() : epoch_;
    if (!in.ok() || sender == membership_.selfId()) {
        ++counters.malformed;
        return;
    }
    // Of an earlier life: recorded then, or by a member that has not heard of this one. Nothing in it counts.
    if (receiverEpoch != epoch_ || !isVouched(from, sender, epoch, in)) {
        ++counters.outdated;
        if (receiverEpoch == epoch_) tellOfTwin(from, sender, epoch);
        return introduce(sender, epoch);
    }
    if (wire == Wire::One && config().wire != WirePolicy::One && speaksWire2(membership_.find(sender)->record)) {
        ++counters.oldWire;
        return introduce(sender, epoch);  // it remembers us from before our upgrade
    }
    if (!windows_[sender].accept(epoch, counter)) {
        ++counters.replayed;
        return;
    }
    heardFrom(sender);
    Message message;
    for (;;) {
        const Decoded decoded = decodeNext(in, message);
        if (decoded == Decoded::End) return;
        if (decoded == Decoded::Ok) {
            onMessage(from, sender, message);
        } else if (decoded == Decoded::Unknown) {
            ++counters.unknownMessage;
        } else {
            ++counters.malformed;
            return;
        }
    }
}

// Whether the sender's own signed record says that it is in this epoch: else anybody with the cluster's key could
// number packets in its name. The record may come in the packet itself.
bool Node::Impl::isVouched(const Address& from, const NodeId& sender, uint32_t epoch, Reader messages) {
    const auto vouched = [&] {
        const Member* member = membership_.find(sender);
        return member != nullptr && epochOf(member->record) == epoch;
    };
    if (vouched()) return true;
    Message message;
    for (Decoded decoded; (decoded = decodeNext(messages, message)) != Decoded::End;) {
        if (decoded == Decoded::Malformed) return false;
        const auto* record = decoded == Decoded::Ok ? std::get_if<MemberRecord>(&message) : nullptr;
        if (record != nullptr && NodeId::of(record->publicKey) == sender) membership_.applyRecord(*record, from.ip);
    }
    return vouched();
}

// The member and this node do not know each other's present life. Says so to the address in its record, not to where
// the packet came from: that may be anybody with a recording.
void Node::Impl::introduce(const NodeId& id, uint32_t epoch) {
    const Member* member = membership_.find(id);
    if (member == nullptr || !started_) return;
    const auto [last, first] = introduced_.try_emplace(id, now());
    if (!first && now() - last->second < kIntroduceEvery) return;
    last->second = now();
    if (wireTo(*member) != Wire::Two) return startSync(member->record.address, id);
    Writer packet = beginPacket(Wire::Two, std::max(epoch, epochOf(member->record)));
    packet.bytes(encode(membership_.self().record));
    packet.bytes(encode(Introduce{}));
    sendPacket(member->record.address, id, Wire::Two, std::move(packet));
}

// A member moved, and speaks in its former life at its former address: it runs twice, and that life does not hear of
// the other, for nobody sends there any more.
void Node::Impl::tellOfTwin(const Address& from, const NodeId& id, uint32_t epoch) {
    const Member* member = membership_.find(id);
    const MemberRecord* former = membership_.former(id);
    if (member == nullptr || former == nullptr || former->address != from || epochOf(*former) != epoch) return;
    const auto [last, first] = toldOfTwin_.try_emplace(id, now());
    if (!first && now() - last->second < kIntroduceEvery) return;
    last->second = now();
    const Wire wire = speaksWire2(*former) ? Wire::Two : Wire::One;
    Writer packet = beginPacket(wire, epoch);
    packet.bytes(encode(member->record));
    sendPacket(from, id, wire, std::move(packet));
}

void Node::Impl::onMessage(const Address& from, const NodeId& sender, Message& message) {
    if (auto* ping = std::get_if<Ping>(&message)) {
        prober_.onPing(from, sender, *ping);
        compareRoot(sender, ping->root);
    } else if (auto* request = std::get_if<PingRequest>(&message)) {
        prober_.onPingRequest(from, sender, *request);
    } else if (auto* ack = std::get_if<Ack>(&message)) {
        prober_.onAck(sender, *ack);
        compareRoot(sender, ack->root);
    } else if (auto* nack = std::get_if<Nack>(&message)) {
        prober_.onNack(sender, *nack);
    } else if (auto* record = std::get_if<MemberRecord>(&message)) {
        membership_.applyRecord(*record, from.ip);
    } else if (auto* suspect = std::get_if<SuspectNotice>(&message)) {
        membership_.applySuspect(*suspect);
    } else if (auto* dead = std::get_if<DeadNotice>(&message)) {
        membership_.applyDead(*dead);
    } else if (auto* row = std::get_if<Row>(&message)) {
        applyRow(std::move(*row), true);
    } else if (const auto* clock = std::get_if<ClockNotice>(&message)) {
        clocks_.note(sender, clock->seconds, now());
    } else if (std::holds_alternative<Introduce>(message)) {
        const Member* member = membership_.find(sender);
        send(member->record.address, sender, {membership_.self().record});
    }
}

// A member held dead speaks: the partition is over, or it was never dead. One exchange brings both up to date.
void Node::Impl::heardFrom(const NodeId& sender) {
    membership_.heard(sender);
    const Member* member = membership_.find(sender);
    if (member != nullptr && member->state == MemberState::Dead && now() - lastSync_ >= config().syncSpacing) {
        startSync(member->record.address, sender);
    }
}

void Node::Impl::compareRoot(const NodeId& sender, uint64_t theirs) {
    if (theirs == 0 || !started_ || theirs == root()) return;
    if (now() - changedAt_ < config().syncQuiet || now() - lastSync_ < config().syncSpacing) return;
    if (const Member* member = membership_.find(sender)) startSync(member->record.address, sender);
}

// --- gossip ---

void Node::Impl::broadcast(std::string name, Bytes message, bool urgent) {
    queue_.push(std::move(name), std::move(message), urgent);
    if (started_) hurryGossip();
}

void Node::Impl::gossipTick() {
    gossip();
    gossipTimer_ = kNoTimer;  // an idle cluster does not wake for gossip
    if (!queue_.empty()) {
        gossipTimer_ = context_.timers.after(jittered(config().gossipInterval), [this] { gossipTick(); });
    }
}

// Brings the next round forward for a message that was never sent.
void Node::Impl::hurryGossip() {
    const auto soon = std::max<Clock::Monotonic>(now() + config().gossipDelay, lastGossip_ + config().gossipSpacing);
    if (gossipTimer_.first <= soon) return;
    context_.timers.cancel(gossipTimer_);
    gossipTimer_ = context_.timers.after(soon - now(), [this] { gossipTick(); });
}

void Node::Impl::gossip() {
    if (queue_.empty()) return;
    lastGossip_ = now();
    const auto targets = membership_.pick(static_cast<size_t>(config().gossipNodes), [this](const Member& member) {
        return !member.gone() || (member.state == MemberState::Dead && now() - member.since < config().gossipToTheDead);
    });
    for (const Member* target : targets) {
        const auto wire = wireTo(*target);
        if (!wire) continue;
        Writer packet = beginPacket(*wire, epochOf(target->record));
        const size_t empty = packet.size();
        fill(packet);
        if (packet.size() == empty) return;
        sendPacket(target->record.address, target->id, *wire, std::move(packet));
    }
}

void Node::Impl::awaitGoodbye(std::function<void()> done, Clock::Monotonic limit) {
    if (!started_ || membership_.present() <= 1 || now() >= limit ||
        !queue_.contains("m" + membership_.selfId().str())) {
        return done();
    }
    context_.timers.after(config().gossipSpacing,
                          [this, done = std::move(done), limit]() mutable { awaitGoodbye(std::move(done), limit); });
}

// --- streams ---

// Without a wire: the one that suits whom we expect, and if that is refused the other, while both are spoken.
Node::Impl::Stream* Node::Impl::open(const Address& to, StreamPurpose purpose, const NodeId& expected,
                                     std::optional<Wire> wire, StreamId& id) {
    if (keyring_.empty()) return nullptr;
    const Member* member = membership_.find(expected);
    const bool knownToSpeak2 = member != nullptr && speaksWire2(member->record);
    const bool mayChange = !wire && config().wire == WirePolicy::Either && !knownToSpeak2 && takesWire1();
    if (!wire) wire = member != nullptr ? wireTo(*member) : std::optional(Wire::Two);
    if (!wire) return nullptr;
    if (config().wire == WirePolicy::One) wire = Wire::One;
    const StreamId opened = transport_.connect(to);
    auto secure = SecureStream::initiate(keyring_, context_.random, config().cluster, {membership_.selfId(), epoch_},
                                         purpose, *wire, expected, [this, opened](BytesView bytes) {
                                             context_.counters.streamBytesSent += bytes.size();
                                             transport_.sendStream(opened, bytes);
                                         });
    id = opened;
    Stream made{.secure = std::move(secure),
                .accepted = false,
                .session = {},
                .expected = expected,
                .address = to,
                .mayChangeWire = mayChange};
    Stream& stream = streams_.try_emplace(opened, std::move(made)).first->second;
    arm(opened);
    return &stream;
}

bool Node::Impl::retryInOtherWire(StreamId id) {
    const Stream& refused = streams_.at(id);
    if (!refused.mayChangeWire || refused.secure.established()) return false;
    const Wire other = refused.secure.wire() == Wire::One ? Wire::Two : Wire::One;
    StreamId fresh = 0;
    Stream* stream = open(refused.address, refused.secure.purpose(), refused.expected, other, fresh);
    if (stream == nullptr) return false;
    stream->probe = refused.probe;
    stream->announce = refused.announce;
    if (stream->secure.purpose() == StreamPurpose::Sync) ++syncs_;
    return true;
}

void Node::Impl::arm(StreamId id) {
    Stream& stream = streams_.at(id);
    context_.timers.cancel(stream.timeout);
    stream.timeout = context_.timers.after(config().streamTimeout, [this, id] { drop(id, true); });
}

void Node::Impl::drop(StreamId id, bool failed) {
    auto stream = streams_.extract(id);
    if (stream.empty()) return;
    context_.timers.cancel(stream.mapped().timeout);
    if (stream.mapped().accepted) {
        --accepted_;
        if (!stream.mapped().secure.proven()) --unproven_;
    } else if (stream.mapped().secure.purpose() == StreamPurpose::Sync) {
        --syncs_;
    }
    if (failed) ++context_.counters.streamsFailed;
    transport_.closeStream(id);
}

std::optional<StreamId> Node::Impl::oldestUnproven(const IpAddress* address) const {
    for (const auto& [id, stream] : streams_) {
        if (!stream.accepted || stream.secure.proven()) continue;
        if (address == nullptr || stream.address.ip == *address) return id;
    }
    return std::nullopt;
}

// The oldest gives way, not the newest, and one of the same address first: strangers that connect and say nothing, or
// what they recorded, must not keep a member out, which is proven within two round trips.
bool Node::Impl::makeRoomForStream(const IpAddress& address) {
    size_t here = 0, unprovenHere = 0;
    for (const auto& [id, stream] : streams_) {
        if (!stream.accepted || stream.address.ip != address) continue;
        ++here;
        unprovenHere += stream.secure.proven() ? 0 : 1;
    }
    const bool full = accepted_ >= kMaxAccepted || unproven_ >= kMaxUnproven;
    const bool crowded = here >= kMaxAcceptedOfOne || unprovenHere >= kMaxUnprovenOfOne;
    if (!full && !crowded) return true;
    auto victim = oldestUnproven(&address);
    if (!victim && !crowded) victim = oldestUnproven(nullptr);
    ++context_.counters.streamsRefused;
    if (!victim) return false;
    drop(*victim, false);
    return true;
}

bool Node::Impl::isNewHello(const SecureStream::Nonce& nonce) {
    if (!hellos_.insert(nonce).second) return false;
    helloOrder_.push_back(nonce);
    if (helloOrder_.size() > kMaxHellos) {
        hellos_.erase(helloOrder_.front());
        helloOrder_.pop_front();
    }
    return true;
}

void Node::Impl::onStreamAccepted(StreamId id, const Address& from) {
    if (keyring_.empty() || !makeRoomForStream(from.ip)) {
        if (keyring_.empty()) ++context_.counters.streamsRefused;
        transport_.closeStream(id);
        return;
    }
    ++context_.counters.streamsAccepted;
    ++accepted_;
    ++unproven_;
    SecureStream::Policy policy{.wire1 = takesWire1(),
                                .wire2 = config().wire != WirePolicy::One,
                                .isNew = [this](const SecureStream::Nonce& nonce) { return isNewHello(nonce); }};
    auto secure = SecureStream::accept(keyring_, context_.random, config().cluster, {membership_.selfId(), epoch_},
                                       std::move(policy), [this, id](BytesView bytes) {
                                           context_.counters.streamBytesSent += bytes.size();
                                           transport_.sendStream(id, bytes);
                                       });
    streams_.try_emplace(
        id, Stream{.secure = std::move(secure), .accepted = true, .session = {}, .expected = {}, .address = from});
    arm(id);
}

void Node::Impl::onStreamData(StreamId id, BytesView bytes) {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    Stream& stream = found->second;
    SecureStream& secure = stream.secure;
    const bool wasEstablished = secure.established();
    bool wasProven = secure.proven();
    const auto proved = [&] {
        if (std::exchange(wasProven, true)) return;
        if (stream.accepted) --unproven_;
        membership_.heard(secure.peer());
    };
    bool finished = false;
    const bool sound = secure.receive(bytes, [&](BytesView frame) {
        proved();
        if (secure.purpose() != StreamPurpose::Sync || finished) return false;
        makeSession(id, stream);
        const auto progress = stream.session->onFrame(frame);
        if (progress == SyncSession::Progress::Malformed) ++context_.counters.malformed;
        finished = progress == SyncSession::Progress::Finished;
        return progress != SyncSession::Progress::Malformed;
    });
    if (!wasEstablished && secure.established()) {
        if (stream.accepted && secure.peer() == membership_.selfId()) hearOfSelf(secure);
        if (stream.accepted) {
            finished = finished || secure.purpose() == StreamPurpose::Probe;  // the handshake was the answer
        } else {
            proved();
            onConnected(id, stream);
            finished = finished || secure.purpose() == StreamPurpose::Probe;
        }
    }
    if (!sound && stream.accepted && !secure.established()) {
        switch (secure.refusal()) {
            case SecureStream::Refusal::Replayed:
                ++context_.counters.replayed;
                break;
            case SecureStream::Refusal::OldWire:
                ++context_.counters.oldWire;
                oldHosts_.note(stream.address.ip, now());
                break;
            default:
                unopened_.note(stream.address.ip, now());
        }
    }
    if (!sound || finished) return drop(id, !sound);
    if (secure.proven()) arm(id);  // only proven peers may take their time
}

// A stream of ours was answered.
void Node::Impl::onConnected(StreamId id, Stream& stream) {
    const SecureStream& secure = stream.secure;
    if (secure.purpose() == StreamPurpose::Sync) {
        makeSession(id, stream);
        stream.session->begin();
        return;
    }
    if (secure.peer() != stream.expected) return;
    if (secure.peer() == membership_.selfId()) {
        if (hellos_.contains(secure.ourNonce())) return;  // this node itself
        beginDoubt();
        if (hasTwin()) return;
        twin_ = true;
        // Once more, so that what the others tell the twin is of this life: then it looks here, too.
        return raiseEpoch(std::max(epoch_, secure.peerEpoch()));
    }
    prober_.streamProved(stream.probe);
    // It lives, but in a life we do not know, so our packets did not open.
    const Member* member = membership_.find(stream.expected);
    const bool unknownLife =
        member != nullptr && secure.wire() == Wire::Two && secure.peerEpoch() != epochOf(member->record);
    if (unknownLife) startSync(stream.address, stream.expected);
}

void Node::Impl::onStreamClosed(StreamId id) {
    const auto stream = streams_.find(id);
    if (stream == streams_.end()) return;
    retryInOtherWire(id);
    drop(id, !stream->second.secure.established());
}

void Node::Impl::makeSession(StreamId id, Stream& stream) {
    if (stream.session) return;
    const bool announce = stream.announce;
    stream.session = std::make_unique<SyncSession>(
        context_, membership_, table_, stream.secure.peer(), stream.address.ip, announce,
        SyncSession::Hooks{.send =
                               [this, id](BytesView frame) {
                                   if (const auto at = streams_.find(id); at != streams_.end()) {
                                       at->second.secure.send(frame);
                                   }
                               },
                           .root = [this] { return root(); },
                           .applyRow = [this, announce](Row row) { return applyRow(std::move(row), announce); }});
}

void Node::Impl::streamProbe(const Member& member, uint32_t sequence) {
    StreamId id = 0;
    Stream* stream = open(member.record.address, StreamPurpose::Probe, member.id, {}, id);
    if (stream != nullptr) stream->probe = sequence;
}

void Node::Impl::startSync(const Address& to, const NodeId& expected) {
    if (to == config().advertise || syncs_ >= kMaxSyncs) return;
    for (const auto& [id, stream] : streams_) {
        if (!stream.accepted && stream.address == to && stream.secure.purpose() == StreamPurpose::Sync) return;
    }
    StreamId id = 0;
    Stream* stream = open(to, StreamPurpose::Sync, expected, {}, id);
    if (stream == nullptr) return;
    ++syncs_;
    ++context_.counters.syncsStarted;
    lastSync_ = now();
    // A node that joins learns what everybody else knows: no news.
    stream->announce = membership_.present() > 1;
}

void Node::Impl::syncTick() {
    const double n = static_cast<double>(membership_.present());
    const double scale = n <= 32 ? 1 : 1 + std::ceil(std::log2(n / 32));
    context_.timers.after(
        jittered(std::chrono::duration_cast<Clock::Monotonic::duration>(config().syncInterval * scale)), [this] {
            for (const Member* member :
                 membership_.pick(1, [](const Member& m) { return m.state == MemberState::Alive; })) {
                startSync(member->record.address, member->id);
            }
            syncTick();
        });
}

// For ever: a seed nobody living answers for may be an island to join.
void Node::Impl::seedTick() {
    std::set<Address> answered{config().advertise};
    for (const auto& [id, member] : membership_.members()) {
        if (!member.gone()) answered.insert(member.record.address);
    }
    std::vector<Address> candidates;
    for (const Address& seed : config().seeds) {
        if (!answered.contains(seed)) candidates.push_back(seed);
    }
    for (size_t tries = 0; tries < 3 && !candidates.empty(); ++tries) {
        const auto picked = candidates.begin() + static_cast<ptrdiff_t>(context_.random.below(candidates.size()));
        startSync(*picked, {});
        candidates.erase(picked);
    }
    context_.timers.after(jittered(config().seedInterval), [this] { seedTick(); });
}

void Node::Impl::saveMembers() {
    std::vector<MemberRecord> records;
    for (const auto& [id, member] : membership_.members()) {
        if (!member.gone() && member.proved && id != membership_.selfId()) records.push_back(member.record);
    }
    if (!records.empty()) storage_.saveMembers(std::move(records));
}

// Who restarts a moment after it met the others must find them again, seed or not; and not believe in the dead.
void Node::Impl::saveMembersSoon() {
    if (std::exchange(savingMembers_, true)) return;
    context_.timers.after(kSaveMembersSoon, [this] {
        savingMembers_ = false;
        saveMembers();
    });
}

// --- rows ---

bool Node::Impl::applyRow(Row row, bool announce) {
    if (row.owner != membership_.selfId() && !table_.wants(row)) {
        ++context_.counters.rowsStale;
        return false;
    }
    const Member* owner = membership_.find(row.owner);
    if (owner == nullptr) {
        ++context_.counters.unknownOwner;
        return true;
    }
    if (const Row* held = table_.find(row.owner, row.key); held != nullptr && !supersedes(row, *held)) {
        ++context_.counters.rowsStale;
        return false;
    }
    if (table_.isBeyondQuota(row)) {
        noteBeyondQuota(row.owner);
        return true;
    }
    if (!context_.signer.verify(owner->record.publicKey, signedBytes(row, config().cluster), row.signature)) {
        ++context_.counters.badSignature;
        return true;
    }
    if (row.owner == membership_.selfId()) return applyOwnRow(row);
    ++context_.counters.rowsApplied;
    changed(row.owner);
    const NodeId id = row.owner;
    const std::string key = row.key;
    const uint64_t lost = table_.usage(id).lost;
    table_.apply(std::move(row));
    if (table_.usage(id).lost != lost) noteBeyondQuota(id);
    if (announce) {
        if (const Row* held = table_.find(id, key)) broadcastRow(*held);
    }
    return true;
}

bool Node::Impl::kept(const std::string& key) const {
    return std::ranges::any_of(config().keptPrefixes,
                               [&](const std::string& prefix) { return key.starts_with(prefix); });
}

// Others hold a row of ours that we do not: it was deleted just before a restart, or this node's memory is not what it
// was, for what others see was on our disk before. Of a promise the higher version counts; of anything else what this
// node has, and it says so with a version above the other's.
bool Node::Impl::applyOwnRow(const Row& row) {
    version_ = std::max(version_, row.version);
    const Row* held = table_.find(row.owner, row.key);
    const bool present = held != nullptr && !held->deleted;
    const auto epoch = static_cast<uint32_t>(row.version >> 32);
    if (epoch >= epoch_) hearOfEpoch(epoch);
    if (present || (kept(row.key) && !row.deleted)) beginDoubt();
    if (hasTwin()) return true;  // it would never end
    const auto pending = saving_.find(row.key);
    if (pending != saving_.end() && pending->second.version > row.version) return true;  // about to be settled
    if (row.deleted && !present) {
        changed(membership_.selfId());
        table_.apply(row);
        return true;
    }
    if (kept(row.key)) {
        commit(row, [](const Result<void>&) {});
        return true;
    }
    ++context_.counters.rowsReasserted;
    commit(makeRow(row.key, present ? held->value : "", !present), [](const Result<void>&) {});
    return true;
}

// This identity is or was in that epoch, and not here: the disk was rolled back, or the key runs twice.
void Node::Impl::hearOfEpoch(uint32_t seen) {
    beginDoubt();
    if (hasTwin()) return;
    raises_ = seen == UINT32_MAX ? kMaxRaises : raises_ + 1;
    raiseEpoch(seen);
}

// Above what this identity said elsewhere.
void Node::Impl::raiseEpoch(uint32_t seen) {
    if (seen == UINT32_MAX) return;
    epoch_ = seen + 1;
    packetCounter_ = 0;
    version_ = std::max(version_, uint64_t{epoch_} << 32);
    storage_.saveEpoch(epoch_);
    membership_.beginEpoch(epoch_);
    changed(membership_.selfId());
}

// Anybody with the cluster's key can say so; what the others know of this node tells whether there is something to it.
void Node::Impl::hearOfSelf(const SecureStream& secure) {
    const bool self = std::ranges::any_of(streams_, [&](const auto& stream) {
        return !stream.second.accepted && stream.second.secure.ourNonce() == secure.theirNonce();
    });
    if (self || hasTwin() || now() - lastSync_ < config().syncSpacing) return;
    for (const Member* member : membership_.pick(2, [](const Member& one) { return !one.gone(); })) {
        startSync(member->record.address, member->id);
    }
}

// Whoever answers there under this node's identity, and is not this very node by another of its addresses, is a twin.
void Node::Impl::lookForTwin(const Address& at) {
    if (hasTwin() || (lookedForTwin_ && now() - *lookedForTwin_ < kLookForTwinEvery)) return;
    lookedForTwin_ = now();
    StreamId id = 0;
    open(at, StreamPurpose::Probe, membership_.selfId(), {}, id);
}

void Node::Impl::beginDoubt() {
    doubtedAt_ = now();
    if (std::exchange(doubt_, true)) return;
    storage_.saveDoubt(true, [](const Result<void>&) {});
    for (size_t i = 0; i < doubtCallbacks_.size(); ++i) doubtCallbacks_[i]();
}

void Node::Impl::settleDoubt(Done done) {
    if (!doubt_) return done({});
    if (hasTwin()) return done(makeError(ErrorCode::Busy, "this node's identity runs elsewhere, too"));
    const auto asOf = doubtedAt_;
    storage_.saveDoubt(false, [this, asOf, done = std::move(done), alive = std::weak_ptr(alive_)](Result<void> saved) {
        if (alive.expired()) return;
        if (saved && doubtedAt_ != asOf) {
            storage_.saveDoubt(true, [](const Result<void>&) {});
            return done(makeError(ErrorCode::Busy, "doubted again meanwhile"));
        }
        if (saved) doubt_ = false;
        done(std::move(saved));
    });
}

Row Node::Impl::makeRow(std::string key, std::string value, bool deleted) {
    Row row{.owner = membership_.selfId(),
            .key = std::move(key),
            .version = ++version_,
            .deleted = deleted,
            .value = std::move(value)};
    row.signature = context_.signer.sign(signedBytes(row, config().cluster));
    return row;
}

void Node::Impl::commit(Row row, Done done) {
    saving_.insert_or_assign(row.key, row);
    storage_.save(row, [this, row, done = std::move(done), alive = std::weak_ptr(alive_)](Result<void> saved) {
        if (alive.expired()) return;
        const auto pending = saving_.find(row.key);
        if (pending != saving_.end() && pending->second.version == row.version) saving_.erase(pending);
        if (!saved) return done(std::move(saved));
        // The disk may answer while a later version is already in the table.
        if (table_.wants(row)) {
            changed(membership_.selfId());
            table_.apply(row);
            broadcastRow(row);
        }
        done({});
    });
}

void Node::Impl::put(std::string key, std::string value, Done done) {
    if (!withinLimits(key, value)) {
        return done(makeError(ErrorCode::InvalidArgument,
                              "a key has 1 to 255 bytes, key and value together at most 1024: " + key.substr(0, 64)));
    }
    const auto pending = saving_.find(key);
    const Row* held = pending != saving_.end() ? nullptr : table_.find(membership_.selfId(), key);
    if (held != nullptr && !held->deleted && held->value == value) return done({});
    const Table::Usage used = table_.usage(membership_.selfId());
    const bool fresh = pending == saving_.end() && (held == nullptr || held->deleted);
    if (fresh && (used.rows + saving_.size() >= config().rowsAnOwner ||
                  used.bytes + key.size() + value.size() >= config().bytesAnOwner)) {
        return done(makeError(ErrorCode::Exhausted, "this host tells the cluster " + std::to_string(used.rows) +
                                                        " rows already; the others take no more of one host"));
    }
    commit(makeRow(std::move(key), std::move(value), false), std::move(done));
}

void Node::Impl::erase(std::string key, Done done) {
    const Row* held = table_.find(membership_.selfId(), key);
    if ((held == nullptr || held->deleted) && !saving_.contains(key)) return done({});
    commit(makeRow(std::move(key), "", true), std::move(done));
}

void Node::Impl::reissue(const std::string& key, Done done) {
    const auto pending = saving_.find(key);
    const Row* held = pending != saving_.end() ? &pending->second : table_.find(membership_.selfId(), key);
    if (held == nullptr || held->deleted) return done({});
    commit(makeRow(key, held->value, false), std::move(done));
}

void Node::Impl::broadcastRow(const Row& row) {
    std::string name = "r" + row.owner.str() + row.key;
    broadcast(std::move(name), encode(row), false);
}

// --- clocks ---

Clock::Wall Node::Impl::medianClock() const {
    std::vector<NodeId> present;
    for (const auto& [id, member] : membership_.members()) {
        if (!member.gone()) present.push_back(id);
    }
    return clocks_.median(context_.clock.wall(), present, now());
}

std::vector<Node::ClockOffset> Node::Impl::clocks() const {
    const auto median = medianClock();
    const auto off = [&](Clock::Wall wall) { return std::chrono::duration_cast<std::chrono::seconds>(wall - median); };
    std::vector<Node::ClockOffset> all;
    for (const auto& [id, member] : membership_.members()) {
        if (id == membership_.selfId()) all.push_back({id, off(context_.clock.wall())});
        if (!member.gone() && clocks_.knows(id)) all.push_back({id, off(clocks_.of(id, now()))});
    }
    return all;
}

// --- the public face ---

Node::Node(Config config, Persisted persisted, Keyring& keyring, const Signer& signer, const Clock& clock,
           Random& random, Transport& transport, Storage& storage)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(persisted), keyring, signer, clock, random, transport,
                                   storage)) {}
Node::~Node() = default;

void Node::start() {
    impl_->start();
}
void Node::leave(std::function<void()> done) {
    impl_->leave(std::move(done));
}
void Node::onPacket(const Address& from, BytesView bytes) {
    impl_->onPacket(from, bytes);
}
void Node::onStreamAccepted(StreamId stream, const Address& from) {
    impl_->onStreamAccepted(stream, from);
}
void Node::onStreamData(StreamId stream, BytesView bytes) {
    impl_->onStreamData(stream, bytes);
}
void Node::onStreamClosed(StreamId stream) {
    impl_->onStreamClosed(stream);
}
void Node::tick() {
    impl_->context().timers.run();
}
Clock::Monotonic Node::nextDeadline() const {
    return impl_->context().timers.next();
}
void Node::put(std::string key, std::string value, Done done) {
    impl_->put(std::move(key), std::move(value), std::move(done));
}
void Node::erase(std::string key, Done done) {
    impl_->erase(std::move(key), std::move(done));
}
void Node::reissue(const std::string& key, Done done) {
    impl_->reissue(key, std::move(done));
}
uint32_t Node::epoch() const {
    return impl_->epoch();
}
bool Node::inDoubt() const {
    return impl_->inDoubt();
}

Origin Node::origin() const {
    return impl_->origin();
}

Clock::Monotonic Node::doubtedAt() const {
    return impl_->doubtedAt();
}
bool Node::hasTwin() const {
    return impl_->hasTwin();
}
void Node::settleDoubt(Done done) {
    impl_->settleDoubt(std::move(done));
}
void Node::onDoubt(std::function<void()> callback) {
    impl_->onDoubt(std::move(callback));
}
const Table& Node::table() const {
    return impl_->table();
}
WatchId Node::watch(std::string prefix, const Table::Callback& callback) {
    return impl_->table().watch(std::move(prefix), callback);
}
void Node::unwatch(WatchId id) {
    impl_->table().unwatch(id);
}
const NodeId& Node::id() const {
    return impl_->membership().selfId();
}
std::vector<Member> Node::members() const {
    std::vector<Member> all;
    for (const auto& [id, member] : impl_->membership().members()) all.push_back(member);
    return all;
}
std::optional<Member> Node::member(const NodeId& id) const {
    const Member* found = impl_->membership().find(id);
    return found == nullptr ? std::nullopt : std::optional(*found);
}
void Node::giveUp(const NodeId& id) {
    impl_->giveUp(id);
}
void Node::onGivenUp(std::function<void(const NodeId&)> callback) {
    impl_->onGivenUp(std::move(callback));
}
std::vector<Member> Node::roster() const {
    std::vector<Member> shown = members();
    std::erase_if(shown, [this](const Member& member) { return member.gone() && impl_->gaveUp(member.id); });
    return shown;
}
void Node::onMember(MemberCallback callback) {
    impl_->onMember(std::move(callback));
}
void Node::setSeeds(std::vector<Address> seeds) {
    impl_->setSeeds(std::move(seeds));
}
void Node::after(Clock::Monotonic::duration delay, std::function<void()> run) {
    impl_->context().timers.after(delay, std::move(run));
}
Clock::Monotonic Node::now() const {
    return impl_->context().clock.now();
}
const Counters& Node::counters() const {
    return impl_->counters();
}
std::optional<Clock::Monotonic> Node::unopenedFrom(const IpAddress& host) const {
    return impl_->unopenedFrom(host);
}
bool Node::allNew() const {
    return impl_->speakersOfWire1().empty();
}
std::vector<NodeId> Node::speakersOfWire1() const {
    return {impl_->speakersOfWire1().begin(), impl_->speakersOfWire1().end()};
}
std::vector<IpAddress> Node::refusedForTheirWire() const {
    return impl_->refusedForTheirWire();
}
std::vector<NodeId> Node::beyondQuota() const {
    return {impl_->beyondQuota().begin(), impl_->beyondQuota().end()};
}
const MemberExcess& Node::membersExcess() const {
    return impl_->membership().excess();
}
Clock::Wall Node::medianClock() const {
    return impl_->medianClock();
}
std::vector<Node::ClockOffset> Node::clocks() const {
    return impl_->clocks();
}
int Node::healthScore() const {
    return impl_->healthScore();
}
uint64_t Node::digest() const {
    return impl_->root();
}

}  // namespace weft::kv
