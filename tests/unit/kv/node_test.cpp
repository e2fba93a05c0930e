// Clusters of a few nodes: join, spread, fail, heal, restart, leave, and what strangers can do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/kv/simulator.h"

namespace weft::kv::sim {
namespace {

class Clusters : public testing::Test {
protected:
    static Config joined() {
        Config config;
        config.seeds = {hostAddress(0)};
        return config;
    }
    static void up(Cluster& cluster, size_t hosts) {
        for (size_t i = 0; i < hosts; ++i) cluster.start(cluster.add());
        ASSERT_TRUE(cluster.runUntil([&] { return cluster.converged(); }, 10s));
    }
    static void put(Cluster& cluster, size_t host, const std::string& key, const std::string& value) {
        bool done = false;
        cluster.node(host).put(key, value, [&](const Result<void>& result) { done = result.has_value(); });
        ASSERT_TRUE(cluster.runUntil([&] { return done; }, 1s));
        cluster.run(1ms);
    }
    static std::string valueAt(Cluster& cluster, size_t reader, size_t owner, const std::string& key) {
        const auto row = cluster.node(reader).table().get(cluster.id(owner), key);
        return row ? row->value : "(none)";
    }
    static MemberState stateAt(Cluster& cluster, size_t reader, size_t host) {
        return cluster.node(reader).member(cluster.id(host))->state;
    }
};

TEST_F(Clusters, JoinThroughOneSeed) {
    Cluster cluster(1, joined());
    up(cluster, 5);
    EXPECT_EQ(cluster.node(4).members().size(), 5U);
}

TEST_F(Clusters, SeedsAreAskedUntilTheyAnswer) {
    Cluster cluster(1, joined());
    cluster.add();
    cluster.start(cluster.add());
    cluster.run(10min);
    cluster.start(0);
    EXPECT_TRUE(cluster.runUntil([&] { return cluster.converged(); }, 5s));
}

TEST_F(Clusters, RowReachesTheOthersWithinMilliseconds) {
    Cluster cluster(1, joined());
    up(cluster, 3);
    cluster.run(10s);
    put(cluster, 0, "ep/1", "one");
    cluster.run(20ms);
    EXPECT_EQ(valueAt(cluster, 1, 0, "ep/1"), "one");
    EXPECT_EQ(valueAt(cluster, 2, 0, "ep/1"), "one");
}

TEST_F(Clusters, NewcomerGetsEverythingInOneExchange) {
    Cluster cluster(1, joined());
    up(cluster, 2);
    for (int i = 0; i < 3000; ++i) {
        cluster.node(0).put("k" + std::to_string(i), std::string(100, 'x'), [](const Result<void>&) {});
    }
    cluster.run(1s);
    const size_t late = cluster.add();
    cluster.start(late);
    ASSERT_TRUE(cluster.runUntil([&] { return cluster.node(late).table().size() == 3000; }, 1s, 1ms));
    EXPECT_EQ(cluster.node(late).counters().syncsFinished, 1U);
}

TEST_F(Clusters, AnHourAwayConvergesInOneExchangeWithinTwoSecondsOfContact) {
    Cluster cluster(1, joined());
    up(cluster, 3);
    for (int i = 0; i < 200; ++i) put(cluster, 0, "k" + std::to_string(i), "old");
    cluster.run(2s);
    cluster.part({0, 0, 1});
    cluster.run(1min);
    EXPECT_EQ(stateAt(cluster, 0, 2), MemberState::Dead);
    for (int i = 0; i < 100; ++i) put(cluster, 0, "k" + std::to_string(i), "new");
    for (int i = 100; i < 150; ++i) cluster.node(1).put("m" + std::to_string(i), "new", [](const Result<void>&) {});
    for (int i = 190; i < 200; ++i) cluster.node(0).erase("k" + std::to_string(i), [](const Result<void>&) {});
    put(cluster, 2, "alone", "too");
    cluster.run(1h);
    const uint64_t before = cluster.node(2).counters().streamBytesSent;
    cluster.part({});
    ASSERT_TRUE(
        cluster.runUntil([&] { return cluster.node(2).counters().packetsReceived > 0 && cluster.converged(); }, 3s));
    EXPECT_EQ(valueAt(cluster, 2, 0, "k0"), "new");
    EXPECT_EQ(valueAt(cluster, 2, 0, "k195"), "(none)");
    EXPECT_EQ(valueAt(cluster, 2, 1, "m149"), "new");
    EXPECT_EQ(valueAt(cluster, 0, 2, "alone"), "too");
    // Digests went over, not the 200 rows.
    EXPECT_LT(cluster.node(2).counters().streamBytesSent - before, 60'000U);
}

TEST_F(Clusters, RowsOfAFailedNodeAreSuspendedAndComeBackWithIt) {
    Cluster cluster(1, joined());
    up(cluster, 3);
    std::vector<RowEvent> seen;
    cluster.node(1).watch("ep/", [&](RowEvent event, const Row&) { seen.push_back(event); });
    put(cluster, 2, "ep/1", "two");
    cluster.run(1s);
    cluster.crash(2);
    cluster.run(1min);
    EXPECT_EQ(stateAt(cluster, 1, 2), MemberState::Dead);
    EXPECT_EQ(valueAt(cluster, 1, 2, "ep/1"), "(none)");
    EXPECT_NE(cluster.node(1).table().find(cluster.id(2), "ep/1"), nullptr);
    cluster.start(2);
    ASSERT_TRUE(cluster.runUntil([&] { return cluster.converged(); }, 5s));
    EXPECT_EQ(valueAt(cluster, 1, 2, "ep/1"), "two");
    EXPECT_THAT(seen, testing::ElementsAre(RowEvent::Put, RowEvent::Suspended, RowEvent::Put));
}

TEST_F(Clusters, RestartWithinTheSuspicionTimeIsNoFailure) {
    Cluster cluster(1, joined());
    up(cluster, 4);
    bool died = false;
    cluster.node(1).onMember([&](const Member& member) { died |= member.gone(); });
    cluster.crash(3);
    cluster.run(2s);
    cluster.start(3);
    cluster.run(1min);
    EXPECT_FALSE(died);
    EXPECT_TRUE(cluster.converged());
}

TEST_F(Clusters, WhoRestartsAMomentAfterItMetTheOthersNeedsNoSeed) {
    Cluster cluster(1, joined());
    up(cluster, 2);
    cluster.run(2s);
    cluster.config().seeds.clear();
    for (const size_t host : {0, 1}) cluster.crash(host);
    for (const size_t host : {0, 1}) cluster.start(host);
    EXPECT_TRUE(cluster.runUntil([&] { return cluster.converged(); }, 5s));
}

TEST_F(Clusters, LeaverIsNotSuspected) {
    Cluster cluster(1, joined());
    up(cluster, 3);
    put(cluster, 2, "ep/1", "two");
    bool gone = false;
    cluster.node(2).leave([&] { gone = true; });
    ASSERT_TRUE(cluster.runUntil([&] { return gone; }, 6s));
    cluster.crash(2);
    EXPECT_EQ(stateAt(cluster, 0, 2), MemberState::Left);
    EXPECT_EQ(valueAt(cluster, 1, 2, "ep/1"), "(none)");
    cluster.run(1min);
    EXPECT_EQ(cluster.node(0).counters().suspected, 0U);
    cluster.start(2);
    ASSERT_TRUE(cluster.runUntil([&] { return cluster.converged(); }, 5s));
    EXPECT_EQ(valueAt(cluster, 1, 2, "ep/1"), "two");
}

TEST_F(Clusters, BeyondThePartitionLimitBothSidesStartFromEmpty) {
    Config config = joined();
    config.partitionLimit = 600s;
    config.tombstoneSlack = 120s;
    Cluster cluster(1, config);
    up(cluster, 3);
    put(cluster, 0, "dead", "x");
    put(cluster, 0, "lives", "x");
    cluster.run(2s);
    cluster.part({0, 0, 1});
    cluster.run(1s);
    cluster.node(0).erase("dead", [](const Result<void>&) {});
    cluster.run(1000s);
    // Nobody remembers the deletion; nobody remembers the row either.
    EXPECT_EQ(cluster.node(0).table().find(cluster.id(0), "dead"), nullptr);
    EXPECT_EQ(cluster.node(2).table().size(), 0U);
    EXPECT_FALSE(cluster.node(2).member(cluster.id(0)));
    cluster.part({});
    ASSERT_TRUE(cluster.runUntil([&] { return cluster.converged(); }, 10s));
    EXPECT_EQ(valueAt(cluster, 2, 0, "lives"), "x");
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(cluster.node(i).table().find(cluster.id(0), "dead"), nullptr);
}

// Late in its life a tombstone is no longer told, but it must still answer whoever holds the row.
TEST_F(Clusters, RetiredTombstoneStillAnswersAnOlderRow) {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        Config config = joined();
        config.partitionLimit = 800s;
        config.tombstoneSlack = 20s;
        Cluster cluster(seed, config);
        up(cluster, 3);
        put(cluster, 0, "dead", "x");
        cluster.run(2s);
        cluster.part({0, 0, 1});
        cluster.run(1s);
        cluster.node(0).erase("dead", [](const Result<void>&) {});
        cluster.run(760s);
        ASSERT_EQ(cluster.node(2).table().size(), 1U);
        cluster.part({});
        ASSERT_TRUE(cluster.runUntil([&] { return cluster.converged(); }, 10s)) << seed;
        for (size_t i = 0; i < 3; ++i) EXPECT_EQ(valueAt(cluster, i, 0, "dead"), "(none)") << seed;
    }
}

TEST_F(Clusters, RolledBackDiskStillComesBack) {
    Cluster cluster(1, joined());
    up(cluster, 3);
    for (int i = 0; i < 5; ++i) {
        cluster.crash(2);
        cluster.start(2);
        cluster.run(3s);
    }
    put(cluster, 2, "k", "new");
    cluster.run(2s);
    cluster.crash(2);
    cluster.rollBackDisk(2, 1);
    cluster.start(2);
    ASSERT_TRUE(cluster.runUntil([&] { return cluster.converged(); }, 20s));
    put(cluster, 2, "k", "newer");
    cluster.run(1s);
    EXPECT_EQ(valueAt(cluster, 0, 2, "k"), "newer");
}

TEST_F(Clusters, BlockedUdpIsNotAFailure) {
    Cluster cluster(1, joined());
    up(cluster, 2);
    cluster.wire.loss = 1;  // packets; streams only get slower
    cluster.run(30s);
    EXPECT_EQ(stateAt(cluster, 0, 1), MemberState::Alive);
    EXPECT_EQ(cluster.node(0).counters().suspected, 0U);
}

TEST_F(Clusters, KeysRotateWithoutAGap) {
    Cluster cluster(1, joined());
    up(cluster, 3);
    const Key next{{2}};
    const auto everyRow = [&](const std::string& key) {
        for (size_t i = 0; i < 3; ++i) cluster.node(i).put(key, "x", [](const Result<void>&) {});
        cluster.run(300ms);
        EXPECT_EQ(cluster.node(0).table().list(key).size(), 3U) << key;
        EXPECT_EQ(cluster.node(2).table().list(key).size(), 3U) << key;
    };
    const KeyId old = *cluster.keyring(0).primary();
    for (size_t i = 0; i < 3; ++i) {
        ASSERT_TRUE(cluster.keyring(i).add(next));
        everyRow("add" + std::to_string(i));
    }
    for (size_t i = 0; i < 3; ++i) {
        ASSERT_TRUE(cluster.keyring(i).use(next.id()));
        everyRow("use" + std::to_string(i));
    }
    for (size_t i = 0; i < 3; ++i) {
        ASSERT_TRUE(cluster.keyring(i).remove(old));
        everyRow("remove" + std::to_string(i));
    }
    cluster.run(10s);
    for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(cluster.node(i).counters().unknownKey + cluster.node(i).counters().forged, 0U);
        EXPECT_EQ(cluster.node(i).counters().probesFailed, 0U);
    }
}

TEST_F(Clusters, ClustersWithEqualKeysDoNotMix) {
    Cluster cluster(1, joined());
    cluster.start(cluster.add());
    cluster.config().cluster = "other";
    cluster.start(cluster.add());
    cluster.run(30s);
    EXPECT_EQ(cluster.node(0).members().size(), 1U);
    EXPECT_EQ(cluster.node(1).members().size(), 1U);
    EXPECT_GT(cluster.node(0).counters().streamsFailed, 0U);
}

// --- strangers ---

TEST_F(Clusters, ReplayedPacketsChangeNothing) {
    Cluster cluster(1, joined());
    std::vector<std::pair<size_t, Bytes>> recorded;
    cluster.tap = [&](size_t, const Address& to, BytesView bytes) {
        recorded.emplace_back(static_cast<size_t>(to.ip.bits() & 0xff) - 1, Bytes(bytes.begin(), bytes.end()));
    };
    up(cluster, 3);
    put(cluster, 0, "k", "old");
    cluster.run(1s);
    put(cluster, 0, "k", "new");
    cluster.run(20s);
    cluster.tap = nullptr;
    const uint64_t digest = cluster.node(1).digest();
    const uint64_t sent = cluster.node(1).counters().replayed;
    for (const auto& [to, packet] : recorded) {
        for (size_t host = 0; host < 3; ++host) cluster.inject(host, hostAddress(77), packet);
    }
    cluster.run(0s);
    size_t dropped = 0;
    for (size_t host = 0; host < 3; ++host) {
        dropped += cluster.node(host).counters().replayed + cluster.node(host).counters().forged;
    }
    EXPECT_EQ(dropped, 3 * recorded.size());  // at their receiver replayed, elsewhere forged
    EXPECT_GT(cluster.node(1).counters().replayed, sent);
    EXPECT_EQ(cluster.node(1).digest(), digest);
    EXPECT_EQ(valueAt(cluster, 1, 0, "k"), "new");
}

TEST_F(Clusters, WrongKeysAndNoiseCostUnderFiveMicrosecondsEach) {
    Cluster cluster(1, joined());
    up(cluster, 2);
    const uint64_t digest = cluster.node(0).digest();
    SeededRandom random(7);
    Keyring wrong;
    ASSERT_TRUE(wrong.add(Key{{9}}));
    const auto flood = [&](bool namesOurKey, bool whole) {
        std::vector<Bytes> packets;
        for (int i = 0; i < 2000; ++i) {
            Bytes plain(1300), packet;
            random.fill(plain);
            wrong.seal(random, {}, plain, packet);
            const KeyId id = *cluster.keyring(0).primary();
            for (size_t b = 0; namesOurKey && b < 4; ++b) packet[1 + b] = static_cast<uint8_t>(id >> (24 - 8 * b));
            if (!whole) packet.resize(random.below(packet.size()));
            packets.push_back(std::move(packet));
        }
        double best = 1e9;
        for (int round = 0; round < 5; ++round) {
            const auto start = std::chrono::steady_clock::now();
            for (const Bytes& packet : packets) cluster.node(0).onPacket(hostAddress(99), packet);
            const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
            best = std::min(best, took.count() / static_cast<double>(packets.size()));
        }
        return best;
    };
    const double unknown = flood(false, true), forged = flood(true, true), cut = flood(true, false);
    printf("a stranger's packet: unknown key %.2f us, forged %.2f us, cut off %.2f us\n", unknown, forged, cut);
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    EXPECT_LT(std::max({unknown, forged, cut}), 5);
#endif
    EXPECT_EQ(cluster.node(0).counters().unknownKey + cluster.node(0).counters().forged, 3U * 5 * 2000);
    EXPECT_EQ(cluster.node(0).unopenedFrom(hostAddress(99).ip), cluster.node(0).now());
    EXPECT_FALSE(cluster.node(0).unopenedFrom(hostAddress(1).ip));
    EXPECT_EQ(cluster.node(0).digest(), digest);
    EXPECT_EQ(cluster.node(0).members().size(), 2U);
    EXPECT_TRUE(cluster.converged());
}

TEST_F(Clusters, NoiseOnStreamsIsDropped) {
    Cluster cluster(1, joined());
    up(cluster, 2);
    SeededRandom random(3);
    StreamId stream = 1'000'000;
    for (int i = 0; i < 2000; ++i) {
        Bytes noise(random.below(400));
        random.fill(noise);
        // Often with the length a hello has, so that it is opened.
        if (noise.size() > 4 && i % 2 == 0) noise[0] = noise[1] = noise[2] = 0, noise[3] = 94;
        cluster.node(0).onStreamAccepted(++stream, hostAddress(99));
        cluster.node(0).onStreamData(stream, noise);
        cluster.node(0).onStreamClosed(stream);
    }
    // Silent ones give way beyond a bound, so they keep no member out; what is left of them is given up in time.
    for (int i = 0; i < 2000; ++i) cluster.node(0).onStreamAccepted(++stream, hostAddress(99));
    EXPECT_GT(cluster.node(0).counters().streamsRefused, 1900U);
    cluster.start(cluster.add());
    EXPECT_TRUE(cluster.runUntil([&] { return cluster.converged(); }, 5s));
    const uint64_t failed = cluster.node(0).counters().streamsFailed;
    cluster.run(11s);
    EXPECT_GT(cluster.node(0).counters().streamsFailed, failed + 20);
}

}  // namespace
}  // namespace weft::kv::sim
