// A cluster of real nodes on virtual time: a seeded wire that loses, delays, repeats and parts, disks that forget what
// was not yet synced, and hosts that stall. The same seed gives the same run.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kv/node.h"

namespace weft::kv::sim {

using namespace std::chrono_literals;

class SeededRandom final : public Random {
public:
    explicit SeededRandom(uint64_t seed) : engine_(seed) {}
    uint64_t next() override { return engine_(); }
    void fill(std::span<uint8_t> bytes) override {
        for (size_t i = 0; i < bytes.size(); i += 8) {
            const uint64_t word = engine_();
            std::memcpy(bytes.data() + i, &word, std::min<size_t>(8, bytes.size() - i));
        }
    }

private:
    std::mt19937_64 engine_;
};

// Stands in for Ed25519 where thousands of signatures a second would drown the run. Checks as strictly.
class FastSigner final : public Signer {
public:
    explicit FastSigner(uint64_t number);
    [[nodiscard]] const PublicKey& publicKey() const override { return publicKey_; }
    [[nodiscard]] Signature sign(BytesView message) const override { return compute(publicKey_, message); }
    [[nodiscard]] bool verify(const PublicKey& key, BytesView message, const Signature& signature) const override {
        return compute(key, message) == signature;
    }

private:
    static Signature compute(const PublicKey& key, BytesView message);
    PublicKey publicKey_{};
};

struct Wire {
    double loss = 0;
    double duplicate = 0;
    Clock::Monotonic::duration delayMin = 200us;
    Clock::Monotonic::duration delayMax = 1ms;
};

class Cluster {
public:
    using Time = Clock::Monotonic;

    Cluster(uint64_t seed, Config config, Key key = {{1}});
    ~Cluster();

    Wire wire;
    std::set<size_t> fullDisks;  // of these hosts: every row is refused
    size_t refusedRows = 0;
    Clock::Monotonic::duration syncDelay{0};  // how long a disk takes to make a write durable, at most

    // Adds a host; its seeds are those of the config given. Not started.
    size_t add();
    // `known`: records it remembers from an earlier life.
    void start(size_t host, std::vector<MemberRecord> known = {});
    // What was not durable yet is gone.
    void crash(size_t host);
    void stall(size_t host, Clock::Monotonic::duration time);  // receives, ticks and sends nothing meanwhile
    void part(std::vector<int> groupOfHost);  // hosts of different groups do not hear each other; empty heals
    void setClock(size_t host, std::chrono::seconds ahead);  // the wall clock, against the others'
    void rollBackDisk(size_t host, uint32_t epoch);
    // What a disk remembers. Of a host that is down it may be taken, lost or put back.
    struct Disk {
        uint32_t epoch = 0;
        std::map<std::string, Row> rows;
        std::vector<MemberRecord> members;
        bool doubt = false;
        Origin origin = Origin::New;
    };
    [[nodiscard]] const Disk& disk(size_t host) const;
    // As the service does, that compares the database with node.key: `noticed` when only the database is put back.
    void putDiskBack(size_t host, Disk disk, bool noticed);
    // The same key pair on another host, or a new one on this. Down.
    void setIdentity(size_t host, uint64_t number);

    void run(Clock::Monotonic::duration time);
    // Until `done` holds (looked at every step); false after `limit`.
    bool runUntil(const std::function<bool()>& done, Clock::Monotonic::duration limit,
                  Clock::Monotonic::duration step = 50ms);

    [[nodiscard]] size_t size() const { return hosts_.size(); }
    [[nodiscard]] bool up(size_t host) const;
    Node& node(size_t host);
    Keyring& keyring(size_t host);
    [[nodiscard]] NodeId id(size_t host) const;
    [[nodiscard]] Time now() const { return clock_.now(); }
    [[nodiscard]] const Clock& clock() const { return clock_; }
    [[nodiscard]] Config& config() { return config_; }
    Random& random() { return random_; }

    // Equal digests among hosts that are up, and each sees each alive.
    bool converged();

    // Called with each packet sent, before the wire decides its fate.
    std::function<void(size_t from, const Address& to, BytesView)> tap;
    std::function<void(size_t from, const Address& to, BytesView)> streamTap;  // the same of bytes on streams
    void inject(size_t to, const Address& from, Bytes packet);

private:
    struct Host;
    class HostClock;
    class HostTransport;
    class HostStorage;
    struct End {
        size_t host = 0;
        uint64_t life = 0;
        StreamId peer = 0;
        Time lastArrival{};
        bool open = true;
    };

    void at(Time time, std::function<void()> run);
    // Runs `deliver` on the host at `time` or once it no longer stalls, if it still lives that life.
    void deliver(size_t host, uint64_t life, Time time, std::function<void()> deliver);
    void afterwards(size_t host);
    void wake(size_t host, uint64_t life);
    [[nodiscard]] bool parted(size_t a, size_t b) const;
    Clock::Monotonic::duration delay();
    void streamEvent(StreamId toEnd, Time time, std::function<void(Node&, StreamId)> event);

    ManualClock clock_;
    SeededRandom random_;
    Config config_;
    Key key_;
    std::map<std::pair<Time, uint64_t>, std::function<void()>> events_;
    uint64_t lastEvent_ = 0;
    std::vector<std::unique_ptr<Host>> hosts_;
    std::map<Address, size_t> byAddress_;
    std::vector<int> groups_;
    std::map<StreamId, End> ends_;
    StreamId lastStream_ = 0;
};

// LAN defaults with every time a fifth: schedules of many seconds in few.
Config fastConfig();
Address hostAddress(size_t host);

}  // namespace weft::kv::sim
