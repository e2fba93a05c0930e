#include "tests/unit/kv/simulator.h"

#include <sodium.h>

#include <algorithm>

namespace weft::kv::sim {

FastSigner::FastSigner(uint64_t number) {
    crypto_generichash(publicKey_.data(), publicKey_.size(), reinterpret_cast<const uint8_t*>(&number), sizeof number,
                       nullptr, 0);
}

Signature FastSigner::compute(const PublicKey& key, BytesView message) {
    Signature signature{};
    crypto_shorthash(signature.data(), message.data(), message.size(), key.data());
    return signature;
}

class Cluster::HostStorage final : public Storage {
public:
    HostStorage(Cluster& cluster, size_t host) : cluster_(cluster), host_(host) {}
    void save(const Row& row, Done done) override;
    void saveEpoch(uint32_t epoch) override;
    void saveDoubt(bool doubt, Done done) override;
    void saveMembers(std::vector<MemberRecord> members) override;

private:
    Cluster& cluster_;
    size_t host_;
};

class Cluster::HostTransport final : public Transport {
public:
    HostTransport(Cluster& cluster, size_t host) : cluster_(cluster), host_(host) {}
    void sendPacket(const Address& to, BytesView bytes) override;
    StreamId connect(const Address& to) override;
    void sendStream(StreamId stream, BytesView bytes) override;
    void closeStream(StreamId stream) override;

private:
    Cluster& cluster_;
    size_t host_;
};

class Cluster::HostClock final : public Clock {
public:
    explicit HostClock(const Clock& clock) : clock_(clock) {}
    [[nodiscard]] Monotonic now() const override { return clock_.now(); }
    [[nodiscard]] Wall wall() const override { return clock_.wall() + ahead; }
    std::chrono::seconds ahead{0};

private:
    const Clock& clock_;
};

struct Cluster::Host {
    Host(Cluster& cluster, size_t number)
        : clock(cluster.clock_),
          address(hostAddress(number)),
          signer(std::make_unique<FastSigner>(number)),
          random(cluster.random_.next()),
          transport(cluster, number),
          storage(cluster, number) {
        static_cast<void>(keyring.add(cluster.key_));
    }
    HostClock clock;
    Address address;
    std::unique_ptr<FastSigner> signer;
    SeededRandom random;
    Keyring keyring;
    HostTransport transport;
    HostStorage storage;
    Disk disk;
    std::unique_ptr<Node> node;
    uint64_t life = 0;
    Time stalledUntil{};
    std::vector<std::function<void()>> deferred;
    Time nextTick = Time::max();
    Time lastWrite{};
};

Address hostAddress(size_t host) {
    return {{IpFamily::V4, Uint128{10} << 24 | (host + 1)}, kDefaultPort};
}

Config fastConfig() {
    Config config;
    config.probeInterval = 200ms;
    config.probeTimeout = 100ms;
    config.gossipInterval = 40ms;
    config.gossipSpacing = 10ms;
    config.gossipToTheDead = 6s;
    config.syncInterval = 6s;
    config.syncSpacing = 200ms;
    config.syncQuiet = 100ms;
    config.streamTimeout = 2s;
    config.seedInterval = 400ms;
    return config;
}

Cluster::Cluster(uint64_t seed, Config config, Key key) : random_(seed), config_(std::move(config)), key_(key) {}
Cluster::~Cluster() = default;

void Cluster::setClock(size_t host, std::chrono::seconds ahead) {
    hosts_[host]->clock.ahead = ahead;
}

void Cluster::rollBackDisk(size_t host, uint32_t epoch) {
    hosts_[host]->disk.epoch = epoch;
}

const Cluster::Disk& Cluster::disk(size_t host) const {
    return hosts_[host]->disk;
}

void Cluster::putDiskBack(size_t number, Disk disk, bool noticed) {
    Host& host = *hosts_[number];
    if (noticed) {
        disk.epoch = std::max(disk.epoch, host.disk.epoch);  // node.key says
        disk.doubt = true;
    }
    host.disk = std::move(disk);
}

void Cluster::setIdentity(size_t host, uint64_t number) {
    hosts_[host]->signer = std::make_unique<FastSigner>(number);
}

bool Cluster::up(size_t host) const {
    return hosts_[host]->node != nullptr;
}

Node& Cluster::node(size_t host) {
    return *hosts_[host]->node;
}

Keyring& Cluster::keyring(size_t host) {
    return hosts_[host]->keyring;
}

NodeId Cluster::id(size_t host) const {
    return NodeId::of(hosts_[host]->signer->publicKey());
}

size_t Cluster::add() {
    const size_t host = hosts_.size();
    hosts_.push_back(std::make_unique<Host>(*this, host));
    byAddress_[hosts_.back()->address] = host;
    return host;
}

void Cluster::start(size_t number, std::vector<MemberRecord> known) {
    Host& host = *hosts_[number];
    Config config = config_;
    config.nodeName = "host" + std::to_string(number);
    config.advertise = host.address;
    Persisted persisted{.epoch = ++host.disk.epoch,
                        .rows = {},
                        .doubt = host.disk.doubt,
                        .origin = host.disk.origin,
                        .members = host.disk.members};
    for (auto row = host.disk.rows.begin(); row != host.disk.rows.end();) {
        if (row->second.owner == id(number)) {
            persisted.rows.push_back(row->second);
            ++row;
        } else {
            row = host.disk.rows.erase(row);  // of an identity that it had
        }
    }
    if (!known.empty()) persisted.members = std::move(known);
    ++host.life;
    host.nextTick = Time::max();
    host.node = std::make_unique<Node>(std::move(config), std::move(persisted), host.keyring, *host.signer, host.clock,
                                       host.random, host.transport, host.storage);
    host.node->start();
    afterwards(number);
}

void Cluster::crash(size_t number) {
    Host& host = *hosts_[number];
    host.node.reset();
    ++host.life;
    host.stalledUntil = {};
    host.deferred.clear();
    // The kernel resets the connections; whether the others hear of it is the wire's business.
    for (auto& [id, end] : ends_) {
        if (end.host != number || !end.open) continue;
        end.open = false;
        streamEvent(end.peer, now() + delay(), [](Node& node, StreamId stream) { node.onStreamClosed(stream); });
    }
}

void Cluster::stall(size_t host, Clock::Monotonic::duration time) {
    hosts_[host]->stalledUntil = std::max(hosts_[host]->stalledUntil, now() + time);
}

void Cluster::part(std::vector<int> groupOfHost) {
    groups_ = std::move(groupOfHost);
}

bool Cluster::parted(size_t a, size_t b) const {
    return a < groups_.size() && b < groups_.size() && groups_[a] != groups_[b];
}

Clock::Monotonic::duration Cluster::delay() {
    const auto spread = wire.delayMax - wire.delayMin;
    return wire.delayMin + std::chrono::duration_cast<Clock::Monotonic::duration>(spread * random_.unit());
}

void Cluster::at(Time time, std::function<void()> run) {
    events_.emplace(std::pair(std::max(time, now()), ++lastEvent_), std::move(run));
}

void Cluster::deliver(size_t number, uint64_t life, Time time, std::function<void()> run) {
    at(time, [this, number, life, run = std::move(run)] {
        Host& host = *hosts_[number];
        if (host.life != life || !host.node) return;
        if (host.stalledUntil > now() || !host.deferred.empty()) {
            if (host.deferred.empty()) at(host.stalledUntil, [this, number, life] { wake(number, life); });
            host.deferred.push_back(run);
            return;
        }
        run();
        afterwards(number);
    });
}

// What came meanwhile is handled in order, but only after the timers: the unkind order for a failure detector.
void Cluster::wake(size_t number, uint64_t life) {
    Host& host = *hosts_[number];
    if (host.life != life || !host.node) return;
    if (host.stalledUntil > now()) return at(host.stalledUntil, [this, number, life] { wake(number, life); });
    host.node->tick();
    for (const auto& run : std::exchange(host.deferred, {})) run();
    afterwards(number);
}

void Cluster::afterwards(size_t number) {
    Host& host = *hosts_[number];
    const Time due = host.node->nextDeadline();
    if (due >= host.nextTick) return;
    host.nextTick = due;
    deliver(number, host.life, due, [this, &host] {
        host.nextTick = Time::max();
        host.node->tick();
    });
}

void Cluster::run(Clock::Monotonic::duration time) {
    const Time end = now() + time;
    for (size_t host = 0; host < hosts_.size(); ++host) {
        if (up(host)) afterwards(host);  // the test may have set timers by its own calls
    }
    while (!events_.empty() && events_.begin()->first.first <= end) {
        auto event = events_.extract(events_.begin());
        if (event.key().first > now()) clock_.advance(event.key().first - now());
        event.mapped()();
    }
    clock_.advance(end - now());
}

bool Cluster::runUntil(const std::function<bool()>& done, Clock::Monotonic::duration limit,
                       Clock::Monotonic::duration step) {
    const Time end = now() + limit;
    while (!done()) {
        if (now() >= end) return false;
        run(step);
    }
    return true;
}

bool Cluster::converged() {
    std::optional<uint64_t> digest;
    size_t living = 0;
    for (const auto& host : hosts_) living += host->node ? 1 : 0;
    for (const auto& host : hosts_) {
        if (!host->node) continue;
        if (digest && *digest != host->node->digest()) return false;
        digest = host->node->digest();
        size_t alive = 0;
        for (const Member& member : host->node->members()) alive += member.state == MemberState::Alive ? 1 : 0;
        if (alive != living) return false;
    }
    return true;
}

void Cluster::inject(size_t to, const Address& from, Bytes packet) {
    deliver(to, hosts_[to]->life, now(),
            [this, to, from, packet = std::move(packet)] { node(to).onPacket(from, packet); });
}

void Cluster::HostTransport::sendPacket(const Address& to, BytesView bytes) {
    if (cluster_.tap) cluster_.tap(host_, to, bytes);
    const auto found = cluster_.byAddress_.find(to);
    if (found == cluster_.byAddress_.end() || cluster_.parted(host_, found->second)) return;
    const size_t target = found->second;
    const int copies = cluster_.random_.unit() < cluster_.wire.duplicate ? 2 : 1;
    for (int copy = 0; copy < copies; ++copy) {
        if (cluster_.random_.unit() < cluster_.wire.loss) continue;
        cluster_.deliver(target, cluster_.hosts_[target]->life, cluster_.now() + cluster_.delay(),
                         [&cluster = cluster_, target, from = cluster_.hosts_[host_]->address,
                          packet = Bytes(bytes.begin(), bytes.end())] { cluster.node(target).onPacket(from, packet); });
    }
}

StreamId Cluster::HostTransport::connect(const Address& to) {
    const StreamId ours = ++cluster_.lastStream_;
    const StreamId theirs = ++cluster_.lastStream_;
    const auto found = cluster_.byAddress_.find(to);
    cluster_.ends_[ours] = {host_, cluster_.hosts_[host_]->life, theirs, {}, true};
    if (found == cluster_.byAddress_.end() || !cluster_.up(found->second)) {
        cluster_.ends_.at(ours).open = false;
        cluster_.deliver(host_, cluster_.hosts_[host_]->life, cluster_.now() + 2 * cluster_.delay(),
                         [&cluster = cluster_, host = host_, ours] { cluster.node(host).onStreamClosed(ours); });
        return ours;
    }
    cluster_.ends_[theirs] = {found->second, cluster_.hosts_[found->second]->life, ours, {}, true};
    cluster_.streamEvent(
        theirs, cluster_.now() + cluster_.delay(),
        [from = cluster_.hosts_[host_]->address](Node& node, StreamId id) { node.onStreamAccepted(id, from); });
    return ours;
}

// In order; what the wire loses is sent again; while parted it waits, as TCP does, and in the end is forgotten: the far
// host never hears that the stream broke.
void Cluster::streamEvent(StreamId toEnd, Time time, std::function<void(Node&, StreamId)> event) {
    const auto found = ends_.find(toEnd);
    if (found == ends_.end()) return;
    if (random_.unit() < wire.loss) time += 200ms;
    found->second.lastArrival = std::max(found->second.lastArrival, time);
    const size_t host = found->second.host;
    deliver(host, found->second.life, found->second.lastArrival, [this, toEnd, host, event = std::move(event)] {
        const auto end = ends_.find(toEnd);
        if (end == ends_.end() || !end->second.open) return;
        const auto peer = ends_.find(end->second.peer);
        if (peer != ends_.end() && parted(host, peer->second.host)) {
            if (!peer->second.open) {
                end->second.open = false;
                return;
            }
            at(now() + 200ms, [this, toEnd, event] { streamEvent(toEnd, now(), event); });
            return;
        }
        event(node(host), toEnd);
    });
}

void Cluster::HostTransport::sendStream(StreamId stream, BytesView bytes) {
    const auto end = cluster_.ends_.find(stream);
    if (end == cluster_.ends_.end() || !end->second.open) return;
    const auto peer = cluster_.ends_.find(end->second.peer);
    if (cluster_.streamTap && peer != cluster_.ends_.end()) {
        cluster_.streamTap(host_, cluster_.hosts_[peer->second.host]->address, bytes);
    }
    cluster_.streamEvent(
        end->second.peer, cluster_.now() + cluster_.delay(),
        [data = Bytes(bytes.begin(), bytes.end())](Node& node, StreamId id) { node.onStreamData(id, data); });
}

void Cluster::HostTransport::closeStream(StreamId stream) {
    const auto end = cluster_.ends_.find(stream);
    if (end == cluster_.ends_.end()) return;
    end->second.open = false;
    cluster_.streamEvent(end->second.peer, cluster_.now() + cluster_.delay(),
                         [](Node& node, StreamId id) { node.onStreamClosed(id); });
}

void Cluster::HostStorage::save(const Row& row, Done done) {
    Host& host = *cluster_.hosts_[host_];
    const auto write = [&cluster = cluster_, host = host_, row, done = std::move(done)] {
        if (cluster.fullDisks.contains(host)) {
            ++cluster.refusedRows;
            return done(makeError(ErrorCode::Unavailable, "the disk is full"));
        }
        auto& rows = cluster.hosts_[host]->disk.rows;
        const auto& kept = cluster.config_.keptPrefixes;
        if (row.deleted && std::ranges::none_of(kept, [&](const auto& at) { return row.key.starts_with(at); })) {
            rows.erase(row.key);
        } else {
            rows[row.key] = row;
        }
        done({});
    };
    if (cluster_.syncDelay.count() == 0) return write();
    const auto takes =
        std::chrono::duration_cast<Clock::Monotonic::duration>(cluster_.syncDelay * cluster_.random_.unit());
    host.lastWrite = std::max(host.lastWrite, cluster_.now() + takes);
    cluster_.deliver(host_, host.life, host.lastWrite, write);
}

void Cluster::HostStorage::saveEpoch(uint32_t epoch) {
    cluster_.hosts_[host_]->disk.epoch = epoch;
}

void Cluster::HostStorage::saveDoubt(bool doubt, Done done) {
    Host& host = *cluster_.hosts_[host_];
    const auto write = [&cluster = cluster_, host = host_, doubt, done = std::move(done)] {
        cluster.hosts_[host]->disk.doubt = doubt;
        done({});
    };
    if (cluster_.syncDelay.count() == 0) return write();
    host.lastWrite = std::max(host.lastWrite, cluster_.now());
    cluster_.deliver(host_, host.life, host.lastWrite, write);
}

void Cluster::HostStorage::saveMembers(std::vector<MemberRecord> members) {
    cluster_.hosts_[host_]->disk.members = std::move(members);
}

}  // namespace weft::kv::sim
