#include "kv/node.h"

#include <sodium.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "kv/broadcast_queue.h"
#include "kv/context.h"
#include "kv/membership.h"
#include "kv/message.h"
#include "kv/prober.h"
#include "kv/replay_window.h"
#include "kv/secure_stream.h"
#include "kv/sync.h"

namespace weft::kv {

namespace {

using namespace std::chrono_literals;

constexpr size_t kPacketHeaderBytes = 16 + 4 + 8;  // sender, epoch, counter
constexpr size_t kMaxUnopened = 256;               // hosts of which it is remembered
constexpr size_t kMaxStrangers = 4096;             // replay windows of authenticated senders that are no members yet
constexpr size_t kMaxAccepted = 128;               // streams others opened to us, at one time
constexpr size_t kMaxUnproven = 32;                // of them without a handshake yet
constexpr size_t kMaxSyncs = 8;                    // streams we opened for anti-entropy, at one time
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
          table_(clock, this->config().partitionLimit + this->config().tombstoneSlack),
          queue_(this->config().queueLimit),
          membership_(context_, epoch_, membershipEvents()),
          prober_(context_, membership_, proberHooks()),
          version_(uint64_t{epoch_} << 32) {
        for (Row& row : persisted.rows) {
            version_ = std::max(version_, row.version);
            table_.apply(std::move(row));
        }
        changedAt_ = now();
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
            membership_.applyRemote(record, MemberState::Alive, {}, membership_.selfId(), false);
        }
        unsummed_.insert(membership_.selfId());
    }

    void start() {
        started_ = true;
        membership_.announce();
        prober_.start();
        hurryGossip();
        for (const Member* member : membership_.pick(2, [](const Member&) { return true; })) {
            startSync(member->record.address);
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

    void setSeeds(std::vector<Address> seeds) { context_.config.seeds = std::move(seeds); }
    void onMember(MemberCallback callback) { memberCallbacks_.push_back(std::move(callback)); }

    uint64_t root();
    Context& context() { return context_; }
    Table& table() { return table_; }
    Membership& membership() { return membership_; }
    void giveUp(const NodeId& id) { givenUp_.insert(id); }
    bool gaveUp(const NodeId& id) const { return givenUp_.contains(id); }
    int healthScore() { return prober_.awareness().score(); }
    std::optional<Clock::Monotonic> unopenedFrom(const IpAddress& host) const {
        const auto found = unopened_.find(host);
        return found == unopened_.end() ? std::nullopt : std::optional(found->second);
    }
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
        NodeId expected;                       // of a Probe stream: who must be there
        Address address;
        bool announce = true;
        Timers::Handle timeout;
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
    void send(const Address& to, const NodeId& id, const std::vector<Message>& messages);
    void sendPacket(const Address& to, const NodeId& id, Writer packet);
    Writer beginPacket() const;
    size_t packetRoom(const Writer& packet) const {
        const size_t limit = config().packetBytes - Keyring::kOverhead;
        return packet.size() < limit ? limit - packet.size() : 0;
    }
    void fill(Writer& packet);
    bool accept(const NodeId& sender, uint32_t epoch, uint64_t counter);
    void noteUnopened(const Address& from);
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
    Stream* open(const Address& to, StreamPurpose purpose, StreamId& id);
    void arm(StreamId id);
    void drop(StreamId id, bool failed);
    bool onFrame(StreamId id, BytesView frame);
    void streamProbe(const Member& member, uint32_t sequence);
    void startSync(const Address& to);
    void makeSession(StreamId id, Stream& stream);
    void syncTick();
    void seedTick();
    void saveMembers();
    void saveMembersSoon();

    // rows
    bool applyRow(Row row, bool announce);
    bool applyOwnRow(const Row& row);
    Row makeRow(std::string key, std::string value, bool deleted);
    void commit(Row row, Done done);
    void broadcastRow(const Row& row);

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
    std::map<IpAddress, Clock::Monotonic> unopened_;  // who sent what did not open, and when last
    Bytes plain_;                                     // reused by onPacket

    uint64_t root_ = 0;  // of the summed members; see root()
    std::map<NodeId, uint64_t> summed_;
    std::set<NodeId> unsummed_;
    std::set<NodeId> givenUp_;
    Clock::Monotonic changedAt_;

    static constexpr Timers::Handle kNoTimer{Timers::Time::max(), 0};
    Timers::Handle gossipTimer_ = kNoTimer;
    Clock::Monotonic lastGossip_{};

    std::map<StreamId, Stream> streams_;
    size_t accepted_ = 0, unproven_ = 0, syncs_ = 0;
    Clock::Monotonic lastSync_{};

    uint64_t version_;
    std::map<std::string, Row> saving_;  // the newest of each own key that is on its way to the disk
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// --- membership ---

Membership::Events Node::Impl::membershipEvents() {
    return {
        .changed =
            [this](const Member& member, std::optional<MemberState> before) {
                changed(member.id);
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
                changed(member.id);
            },
        .broadcast = [this](const NodeId& about,
                            const Message& message) { broadcast("m" + about.str(), encode(message), true); },
        .refuted =
            [this] {
                if (config().lifeguard) prober_.awareness().apply(1);
                changed(membership_.selfId());
            },
        .epochOutdated =
            [this](uint32_t seen) {
                epoch_ = seen + 1;
                packetCounter_ = 0;
                version_ = std::max(version_, uint64_t{epoch_} << 32);
                storage_.saveEpoch(epoch_);
                membership_.beginEpoch(epoch_);
                changed(membership_.selfId());
            },
    };
}

Prober::Hooks Node::Impl::proberHooks() {
    return {
        .send = [this](const Address& to, const NodeId& id,
                       const std::vector<Message>& messages) { send(to, id, messages); },
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

Writer Node::Impl::beginPacket() const {
    Writer packet;
    packet.id(membership_.selfId());
    packet.u32(epoch_);
    packet.u64(0);  // numbered when sent
    return packet;
}

void Node::Impl::send(const Address& to, const NodeId& id, const std::vector<Message>& messages) {
    Writer packet = beginPacket();
    for (const Message& message : messages) packet.bytes(encode(message));
    fill(packet);
    sendPacket(to, id, std::move(packet));
}

void Node::Impl::fill(Writer& packet) {
    const int limit = BroadcastQueue::transmitLimit(config().retransmitMult, membership_.present());
    for (const Bytes& message : queue_.take(packetRoom(packet), limit)) packet.bytes(message);
}

void Node::Impl::sendPacket(const Address& to, const NodeId& id, Writer packet) {
    if (keyring_.empty()) return;
    Bytes plain = std::move(packet).take();
    Writer number;
    number.u64(++packetCounter_);
    std::ranges::copy(number.view(), plain.begin() + 16 + 4);
    Bytes box;
    keyring_.seal(context_.random, packetContext(id), plain, box);
    ++context_.counters.packetsSent;
    context_.counters.bytesSent += box.size();
    transport_.sendPacket(to, box);
}

bool Node::Impl::accept(const NodeId& sender, uint32_t epoch, uint64_t counter) {
    auto window = windows_.find(sender);
    if (window == windows_.end()) {
        // Only holders of the key get here; still, one of them must not fill the memory with made-up senders.
        if (membership_.find(sender) == nullptr && windows_.size() >= membership_.members().size() + kMaxStrangers) {
            return false;
        }
        window = windows_.try_emplace(sender).first;
    }
    return window->second.accept(epoch, counter);
}

void Node::Impl::noteUnopened(const Address& from) {
    if (unopened_.size() < kMaxUnopened || unopened_.contains(from.ip)) unopened_[from.ip] = now();
}

void Node::Impl::onPacket(const Address& from, BytesView bytes) {
    Counters& counters = context_.counters;
    ++counters.packetsReceived;
    counters.bytesReceived += bytes.size();
    switch (keyring_.open(bytes, packetContext(membership_.selfId()), plain_)) {
        case Keyring::Opened::UnknownKey:
            ++counters.unknownKey;
            return noteUnopened(from);
        case Keyring::Opened::Forged:
            ++counters.forged;
            return noteUnopened(from);
        case Keyring::Opened::Ok:
            break;
    }
    const Bytes plain = std::move(plain_);
    Reader in(plain);
    const NodeId sender = in.id();
    const uint32_t epoch = in.u32();
    const uint64_t counter = in.u64();
    if (!in.ok() || sender == membership_.selfId()) {
        ++counters.malformed;
        return;
    }
    if (!accept(sender, epoch, counter)) {
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

void Node::Impl::onMessage(const Address& from, const NodeId& sender, Message& message) {
    if (auto* ping = std::get_if<Ping>(&message)) {
        prober_.onPing(from, sender, *ping);
        compareRoot(sender, ping->root);
    } else if (auto* request = std::get_if<PingRequest>(&message)) {
        prober_.onPingRequest(from, sender, *request);
    } else if (auto* ack = std::get_if<Ack>(&message)) {
        prober_.onAck(*ack);
        compareRoot(sender, ack->root);
    } else if (auto* nack = std::get_if<Nack>(&message)) {
        prober_.onNack(*nack);
    } else if (auto* record = std::get_if<MemberRecord>(&message)) {
        membership_.applyRecord(*record);
    } else if (auto* suspect = std::get_if<SuspectNotice>(&message)) {
        membership_.applySuspect(*suspect);
    } else if (auto* dead = std::get_if<DeadNotice>(&message)) {
        membership_.applyDead(*dead);
    } else if (auto* row = std::get_if<Row>(&message)) {
        applyRow(std::move(*row), true);
    }
}

// A member held dead speaks: the partition is over, or it was never dead. One exchange brings both up to date.
void Node::Impl::heardFrom(const NodeId& sender) {
    membership_.heard(sender);
    const Member* member = membership_.find(sender);
    if (member != nullptr && member->state == MemberState::Dead && now() - lastSync_ >= config().syncSpacing) {
        startSync(member->record.address);
    }
}

void Node::Impl::compareRoot(const NodeId& sender, uint64_t theirs) {
    if (theirs == 0 || !started_ || theirs == root()) return;
    if (now() - changedAt_ < config().syncQuiet || now() - lastSync_ < config().syncSpacing) return;
    if (const Member* member = membership_.find(sender)) startSync(member->record.address);
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
        Writer packet = beginPacket();
        const size_t empty = packet.size();
        fill(packet);
        if (packet.size() == empty) return;
        sendPacket(target->record.address, target->id, std::move(packet));
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

Node::Impl::Stream* Node::Impl::open(const Address& to, StreamPurpose purpose, StreamId& id) {
    if (keyring_.empty()) return nullptr;
    const StreamId opened = transport_.connect(to);
    auto secure = SecureStream::initiate(keyring_, context_.random, config().cluster, membership_.selfId(), purpose,
                                         [this, opened](BytesView bytes) {
                                             context_.counters.streamBytesSent += bytes.size();
                                             transport_.sendStream(opened, bytes);
                                         });
    id = opened;
    Stream& stream =
        streams_.try_emplace(opened, Stream{std::move(secure), false, {}, 0, {}, to, true, {}}).first->second;
    arm(opened);
    return &stream;
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
        if (!stream.mapped().secure.established()) --unproven_;
    } else if (stream.mapped().secure.purpose() == StreamPurpose::Sync) {
        --syncs_;
    }
    if (failed) ++context_.counters.streamsFailed;
    transport_.closeStream(id);
}

void Node::Impl::onStreamAccepted(StreamId id, const Address& from) {
    if (keyring_.empty() || accepted_ >= kMaxAccepted) {
        ++context_.counters.streamsRefused;
        transport_.closeStream(id);
        return;
    }
    // The oldest gives way, not the newest: strangers that connect and say nothing must not keep a member out, whose
    // hello comes within a round trip.
    if (unproven_ >= kMaxUnproven) {
        const auto oldest = std::ranges::find_if(
            streams_, [](const auto& entry) { return entry.second.accepted && !entry.second.secure.established(); });
        ++context_.counters.streamsRefused;
        drop(oldest->first, false);
    }
    ++context_.counters.streamsAccepted;
    ++accepted_;
    ++unproven_;
    auto secure = SecureStream::accept(keyring_, context_.random, config().cluster, membership_.selfId(),
                                       [this, id](BytesView bytes) {
                                           context_.counters.streamBytesSent += bytes.size();
                                           transport_.sendStream(id, bytes);
                                       });
    streams_.try_emplace(id, Stream{std::move(secure), true, {}, 0, {}, from, true, {}});
    arm(id);
}

void Node::Impl::onStreamData(StreamId id, BytesView bytes) {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    Stream& stream = found->second;
    const bool before = stream.secure.established();
    bool finished = false;
    const bool sound = stream.secure.receive(bytes, [&](BytesView frame) {
        if (stream.secure.purpose() != StreamPurpose::Sync || finished) return false;
        makeSession(id, stream);
        const auto progress = stream.session->onFrame(frame);
        if (progress == SyncSession::Progress::Malformed) ++context_.counters.malformed;
        finished = progress == SyncSession::Progress::Finished;
        return progress != SyncSession::Progress::Malformed;
    });
    if (!before && stream.secure.established()) {
        if (stream.accepted) --unproven_;
        if (!stream.accepted && stream.secure.purpose() == StreamPurpose::Probe) {
            if (stream.secure.peer() == stream.expected) prober_.streamProved(stream.probe);
            finished = true;
        } else if (!stream.accepted && sound && !finished) {
            makeSession(id, stream);
            stream.session->begin();
        }
    }
    if (!sound && !before && stream.accepted) noteUnopened(stream.address);
    if (!sound || finished) return drop(id, !sound);
    if (stream.secure.established()) arm(id);  // only proven peers may take their time
}

void Node::Impl::onStreamClosed(StreamId id) {
    const auto stream = streams_.find(id);
    if (stream == streams_.end()) return;
    drop(id, !stream->second.secure.established());
}

void Node::Impl::makeSession(StreamId id, Stream& stream) {
    if (stream.session) return;
    const bool announce = stream.announce;
    stream.session = std::make_unique<SyncSession>(
        context_, membership_, table_, stream.secure.peer(), announce,
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
    Stream* stream = open(member.record.address, StreamPurpose::Probe, id);
    if (stream == nullptr) return;
    stream->probe = sequence;
    stream->expected = member.id;
}

void Node::Impl::startSync(const Address& to) {
    if (to == config().advertise || syncs_ >= kMaxSyncs) return;
    for (const auto& [id, stream] : streams_) {
        if (!stream.accepted && stream.address == to && stream.secure.purpose() == StreamPurpose::Sync) return;
    }
    StreamId id = 0;
    Stream* stream = open(to, StreamPurpose::Sync, id);
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
                startSync(member->record.address);
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
        startSync(*picked);
        candidates.erase(picked);
    }
    context_.timers.after(jittered(config().seedInterval), [this] { seedTick(); });
}

void Node::Impl::saveMembers() {
    std::vector<MemberRecord> records;
    for (const auto& [id, member] : membership_.members()) {
        if (!member.gone() && id != membership_.selfId()) records.push_back(member.record);
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
    if (!context_.signer.verify(owner->record.publicKey, signedBytes(row, config().cluster), row.signature)) {
        ++context_.counters.badSignature;
        return true;
    }
    if (row.owner == membership_.selfId()) return applyOwnRow(row);
    ++context_.counters.rowsApplied;
    changed(row.owner);
    const NodeId id = row.owner;
    const std::string key = row.key;
    table_.apply(std::move(row));
    if (announce) {
        if (const Row* held = table_.find(id, key)) broadcastRow(*held);
    }
    return true;
}

// Others hold a row of ours that we do not: from before a restart, or from a disk since rolled back. What this node has
// is what counts. It says so with a version above the other's.
bool Node::Impl::applyOwnRow(const Row& row) {
    version_ = std::max(version_, row.version);
    if (saving_.contains(row.key)) return true;  // about to be settled by a newer version
    const Row* held = table_.find(row.owner, row.key);
    if (row.deleted && (held == nullptr || held->deleted)) {
        changed(membership_.selfId());
        table_.apply(row);
        return true;
    }
    ++context_.counters.rowsReasserted;
    const bool present = held != nullptr && !held->deleted;
    commit(makeRow(row.key, present ? held->value : "", !present), [](const Result<void>&) {});
    return true;
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
    commit(makeRow(std::move(key), std::move(value), false), std::move(done));
}

void Node::Impl::erase(std::string key, Done done) {
    const Row* held = table_.find(membership_.selfId(), key);
    if ((held == nullptr || held->deleted) && !saving_.contains(key)) return done({});
    commit(makeRow(std::move(key), "", true), std::move(done));
}

void Node::Impl::broadcastRow(const Row& row) {
    std::string name = "r" + row.owner.str() + row.key;
    broadcast(std::move(name), encode(row), false);
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
Clock::Monotonic Node::now() const {
    return impl_->context().clock.now();
}
const Counters& Node::counters() const {
    return impl_->counters();
}
std::optional<Clock::Monotonic> Node::unopenedFrom(const IpAddress& host) const {
    return impl_->unopenedFrom(host);
}
int Node::healthScore() const {
    return impl_->healthScore();
}
uint64_t Node::digest() const {
    return impl_->root();
}

}  // namespace weft::kv
