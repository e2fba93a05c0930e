// Thousands of random schedules of writes, deletions, crashes with lost unsynced writes, restarts, rolled-back disks,
// stalls and partitions over small clusters. In the end everybody must hold exactly what each owner made durable, and
// what was deleted must stay deleted all the way.
//
// WEFT_SIM_SCHEDULES=N runs N schedules (spread over the shards), WEFT_SIM_SEED=N runs that one alone, with a log.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/unit/kv/simulator.h"

namespace weft::kv::sim {
namespace {

constexpr uint64_t kShards = 10;

uint64_t fromEnvironment(const char* name, uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

class Schedule {
public:
    explicit Schedule(uint64_t seed) : seed_(seed), random_(seed ^ 0x5eed), cluster_(seed, makeConfig()) {}

    // Empty, or what went wrong.
    std::string run() {
        cluster_.wire.loss = chance(0.5) ? 0 : 0.2 * random_.unit();
        cluster_.wire.duplicate = chance(0.5) ? 0 : 0.3 * random_.unit();
        cluster_.wire.delayMax = chance(0.5) ? 1ms : 50ms;
        cluster_.syncDelay = chance(0.3) ? 0ms : 30ms;
        const size_t hosts = 2 + random_.below(4);
        model_.resize(hosts);
        for (size_t i = 0; i < hosts; ++i) start(cluster_.add());
        const size_t steps = 10 + random_.below(25);
        for (size_t i = 0; i < steps && problem_.empty(); ++i) {
            step();
            // Mostly short; now and then long enough to be declared dead, or forgotten.
            pause(chance(0.8) ? 10ms + 1ms * random_.below(400) : 1ms * random_.below(chance(0.9) ? 4'000 : 30'000));
        }
        heal();
        return problem_;
    }

private:
    struct Owned {
        std::string value;
        std::set<std::string> unsettled;  // writes whose outcome a crash hid; "" is a deletion
        bool deletedForGood = false;      // erase() was confirmed: nothing may bring it back
        bool deleted = false;
    };

    Config makeConfig() {
        Config config = fastConfig();
        config.seeds = {hostAddress(0), hostAddress(1)};
        config.partitionLimit = 10s;
        config.tombstoneSlack =
            20s;  // detection included: probes stretch to 1.6 s each, suspicion to 5 s, stalls to 3 s
        config.lifeguard = seed_ % 4 != 0;
        return config;
    }

    bool chance(double p) { return random_.unit() < p; }
    void pause(Clock::Monotonic::duration time) { cluster_.run(time); }
    void log(const std::string& what) {
        if (fromEnvironment("WEFT_SIM_SEED", 0) != 0) {
            printf("%9.3f %s\n", std::chrono::duration<double>(cluster_.now().time_since_epoch()).count(),
                   what.c_str());
        }
    }
    void fail(const std::string& what) {
        if (problem_.empty()) problem_ = "seed " + std::to_string(seed_) + ": " + what;
        log("FAILED: " + what);
    }

    void start(size_t host) {
        log("start " + std::to_string(host));
        cluster_.start(host);
        // Keys are never used again after their deletion: once seen deleted, a row must not be seen again.
        auto gone = std::make_shared<std::set<std::pair<NodeId, std::string>>>();
        cluster_.node(host).watch("", [this, host, gone](RowEvent event, const Row& row) {
            log("  " + std::to_string(host) + " sees " + row.owner.brief() + " " + row.key +
                (event == RowEvent::Put       ? " = " + row.value
                 : event == RowEvent::Deleted ? " deleted"
                                              : " suspended"));
            if (event == RowEvent::Deleted && row.deleted) gone->emplace(row.owner, row.key);
            if (event == RowEvent::Put && gone->contains({row.owner, row.key})) {
                fail("host " + std::to_string(host) + " saw " + row.key + " again after its deletion");
            }
        });
    }

    void step() {
        const size_t host = random_.below(cluster_.size());
        if (!cluster_.up(host)) {
            if (chance(0.5)) start(host);
            return;
        }
        const double dice = random_.unit();
        if (dice < 0.45) return write(host);
        if (dice < 0.65) return erase(host);
        if (dice < 0.75) {
            log("crash " + std::to_string(host));
            return cluster_.crash(host);
        }
        if (dice < 0.80) return cluster_.stall(host, 1ms * random_.below(3000));
        if (dice < 0.82) {
            log("leave " + std::to_string(host));
            cluster_.node(host).leave([] {});
            pause(100ms);
            return cluster_.crash(host);
        }
        if (dice < 0.90) return cluster_.part({});
        std::vector<int> groups(cluster_.size());
        for (int& group : groups) group = static_cast<int>(random_.below(2));
        log("part");
        cluster_.part(groups);
    }

    void write(size_t host) {
        auto& rows = model_[host];
        std::string key;
        if (!rows.empty() && chance(0.5)) {
            key = std::next(rows.begin(), static_cast<ptrdiff_t>(random_.below(rows.size())))->first;
            if (rows[key].deleted) key.clear();
        }
        if (key.empty()) key = "k" + std::to_string(++lastKey_);
        settle(host, key, "v" + std::to_string(++lastKey_));
    }

    void erase(size_t host) {
        auto& rows = model_[host];
        if (rows.empty()) return;
        const auto at = std::next(rows.begin(), static_cast<ptrdiff_t>(random_.below(rows.size())));
        if (!at->second.deleted) settle(host, at->first, "");
    }

    void settle(size_t host, const std::string& key, const std::string& value) {
        log("host " + std::to_string(host) + " writes " + key + " = " + value);
        Owned& owned = model_[host][key];
        owned.unsettled.insert(value);
        if (value.empty()) owned.deleted = true;
        const auto done = [this, host, key, value](const Result<void>& result) {
            if (!result) return fail("a write failed");
            log("host " + std::to_string(host) + " wrote " + key + " = " + value);
            // Durable in call order: whatever was asked before this is settled too.
            Owned& settled = model_[host][key];
            settled.value = value;
            settled.unsettled.erase(value);
            settled.deletedForGood |= value.empty();
        };
        if (value.empty()) {
            cluster_.node(host).erase(key, done);
        } else {
            cluster_.node(host).put(key, value, done);
        }
    }

    void heal() {
        log("heal");
        cluster_.part({});
        cluster_.wire = {};
        for (size_t host = 0; host < cluster_.size(); ++host) {
            if (!cluster_.up(host)) start(host);
        }
        if (!cluster_.runUntil([this] { return cluster_.converged(); }, 15s)) return fail("did not converge");
        pause(500ms);
        for (size_t owner = 0; owner < cluster_.size(); ++owner) {
            for (const auto& [key, owned] : model_[owner]) {
                const auto truth = cluster_.node(owner).table().get(cluster_.id(owner), key);
                const std::string value = truth ? truth->value : "";
                if (value != owned.value && !owned.unsettled.contains(value)) {
                    return fail("host " + std::to_string(owner) + " has " + key + " = '" + value + "', made durable '" +
                                owned.value + "'");
                }
                if (owned.deletedForGood && truth) return fail(key + " came back to its owner");
            }
            for (size_t reader = 0; reader < cluster_.size(); ++reader) {
                if (visible(reader, owner) != visible(owner, owner)) {
                    return fail("host " + std::to_string(reader) + " sees other rows of host " + std::to_string(owner));
                }
            }
        }
    }

    std::map<std::string, std::string> visible(size_t reader, size_t owner) {
        std::map<std::string, std::string> rows;
        for (const Row& row : cluster_.node(reader).table().list("")) {
            if (row.owner == cluster_.id(owner)) rows[row.key] = row.value;
        }
        return rows;
    }

    uint64_t seed_;
    SeededRandom random_;
    Cluster cluster_;
    std::vector<std::map<std::string, Owned>> model_;
    uint64_t lastKey_ = 0;
    std::string problem_;
};

// Found failing once; each names what it taught.
TEST(PastSchedules, StayFixed) {
    // 7890, 8085: a node cut off took longer to declare the others dead than their tombstones lived, and revived a row.
    // What is forgotten now goes by the last sign of life.
    for (const uint64_t seed : {7890, 8085}) EXPECT_EQ(Schedule(seed).run(), "");
}

class Schedules : public testing::TestWithParam<uint64_t> {};

TEST_P(Schedules, ConvergeAndDeletedStaysDeleted) {
    if (const uint64_t seed = fromEnvironment("WEFT_SIM_SEED", 0)) {
        if (GetParam() != 0) return;
        ASSERT_EQ(Schedule(seed).run(), "");
        return;
    }
    const uint64_t count = fromEnvironment("WEFT_SIM_SCHEDULES", 10'000) / kShards;
    for (uint64_t i = 0; i < count; ++i) ASSERT_EQ(Schedule(1 + GetParam() + kShards * i).run(), "");
}

INSTANTIATE_TEST_SUITE_P(Shard, Schedules, testing::Range<uint64_t>(0, kShards));

}  // namespace
}  // namespace weft::kv::sim
