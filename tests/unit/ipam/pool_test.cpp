#include "ipam/pool.h"

#include <gtest/gtest.h>

#include <bit>
#include <random>
#include <set>

#include "fake_store.h"
#include "ipam/subnets.h"

namespace weft::ipam {
namespace {

using std::chrono::seconds;

Pool makePool(std::string_view cidr, std::optional<std::string_view> range = std::nullopt) {
    PoolRecord record;
    record.pool = prefix(cidr);
    if (range) record.subPool = prefix(*range);
    return Pool(std::move(record));
}

std::string next(Pool& pool, Clock::Monotonic now = {}) {
    const auto address = pool.chooseNext(now);
    if (!address) return "none";
    pool.take(*address, LeaseKind::Endpoint, now);
    return address->str();
}

TEST(IntervalSet, AgreesWithAPlainSet) {
    std::mt19937 random(7);
    IntervalSet<> runs;
    std::set<unsigned> plain;
    for (int step = 0; step < 20000; ++step) {
        const auto value = static_cast<unsigned>(random() % 64);
        if (random() % 2 == 0) {
            ASSERT_EQ(runs.insert(value), plain.insert(value).second);
        } else {
            ASSERT_EQ(runs.erase(value), plain.erase(value) == 1);
        }
        const auto from = static_cast<unsigned>(random() % 64);
        const auto last = static_cast<unsigned>(random() % 64);
        unsigned gap = from;
        while (gap <= last && plain.contains(gap)) ++gap;
        ASSERT_EQ(runs.firstGap(from, last), gap <= last ? std::optional<Uint128>(gap) : std::nullopt);
        ASSERT_EQ(runs.contains(from), plain.contains(from));
        size_t count = 0;
        for (const unsigned v : plain) count += plain.contains(v - 1) ? 0 : 1;
        ASSERT_EQ(runs.runs(), count);
    }
}

TEST(IntervalSet, WorksAtBothEnds) {
    IntervalSet<> set;
    const Uint128 top = ~Uint128{0};
    EXPECT_TRUE(set.insert(top));
    EXPECT_TRUE(set.insert(0));
    EXPECT_TRUE(set.insert(top - 1));
    EXPECT_EQ(set.runs(), 2U);
    EXPECT_EQ(set.firstGap(top - 1, top), std::nullopt);
    EXPECT_EQ(set.firstGap(0, top), Uint128{1});
    EXPECT_TRUE(set.erase(top));
    EXPECT_EQ(set.firstGap(top - 1, top), top);
}

struct CountingLess {
    static inline uint64_t comparisons = 0;
    bool operator()(Uint128 a, Uint128 b) const {
        ++comparisons;
        return a < b;
    }
};

// The worst case for runs: every second address of a /16 free. No call may look at more than a path of the tree.
TEST(IntervalSet, EveryCallIsLogarithmic) {
    IntervalSet<CountingLess> set;
    constexpr unsigned kSize = 65536;
    const auto limit = uint64_t{4} * std::bit_width(kSize) + 8;
    uint64_t worst = 0;
    const auto measured = [&](const auto& call) {
        CountingLess::comparisons = 0;
        call();
        worst = std::max(worst, CountingLess::comparisons);
    };
    for (unsigned v = 0; v < kSize; v += 2) measured([&] { set.insert(v); });
    EXPECT_EQ(set.runs(), kSize / 2);
    for (unsigned v = 1; v < kSize; v += 2) {
        measured([&] { EXPECT_EQ(set.firstGap(0, kSize - 1), Uint128{v}); });
        measured([&] { set.insert(v); });
    }
    EXPECT_EQ(set.runs(), 1U);
    for (unsigned v = 0; v < kSize; v += 2) measured([&] { set.erase(v); });
    EXPECT_LE(worst, limit);
}

TEST(Pool, UsableAddressesByPrefixLength) {
    const auto range = [](std::string_view cidr) {
        const auto usable = usableRange(prefix(cidr));
        const IpFamily family = prefix(cidr).family();
        return IpAddress(family, usable.first).str() + "-" + IpAddress(family, usable.last).str();
    };
    EXPECT_EQ(range("10.0.0.0/8"), "10.0.0.1-10.255.255.254");
    EXPECT_EQ(range("10.0.0.0/24"), "10.0.0.1-10.0.0.254");
    EXPECT_EQ(range("10.0.0.4/30"), "10.0.0.5-10.0.0.6");
    EXPECT_EQ(range("10.0.0.4/31"), "10.0.0.4-10.0.0.5");
    EXPECT_EQ(range("10.0.0.4/32"), "10.0.0.4-10.0.0.4");
    EXPECT_EQ(range("fd00::/64"), "fd00::1-fd00::ffff:ffff:ffff:ffff");
    EXPECT_EQ(range("fd00::/126"), "fd00::1-fd00::3");
    EXPECT_EQ(range("fd00::4/127"), "fd00::4-fd00::5");
    EXPECT_EQ(range("fd00::4/128"), "fd00::4-fd00::4");
}

TEST(Pool, HandsOutEveryAddressOnce) {
    for (const char* cidr : {"10.0.0.0/24", "10.0.0.0/28", "10.0.0.0/30", "10.0.0.0/31", "10.0.0.0/32", "fd00::/120"}) {
        Pool pool = makePool(cidr);
        const auto usable = usableRange(prefix(cidr));
        std::set<std::string> seen;
        for (Uint128 i = 0; i < usable.size(); ++i) {
            const std::string address = next(pool);
            EXPECT_TRUE(pool.isUsable(ip(address))) << address;
            EXPECT_TRUE(seen.insert(address).second) << address;
        }
        EXPECT_EQ(next(pool), "none") << cidr;
        EXPECT_EQ(pool.freeCount(), Uint128{0});
    }
}

TEST(Pool, FillsASlash16) {
    Pool pool = makePool("10.1.0.0/16");
    for (int i = 0; i < 65534; ++i) ASSERT_NE(next(pool), "none");
    EXPECT_EQ(next(pool), "none");
    EXPECT_EQ(pool.leases().size(), 65534U);
}

TEST(Pool, HugePoolsCostNothing) {
    Pool v4 = makePool("10.0.0.0/8");
    EXPECT_EQ(next(v4), "10.0.0.1");
    EXPECT_EQ(v4.freeCount(), Uint128{(1U << 24) - 3});
    Pool v6 = makePool("fd00::/8");
    EXPECT_EQ(next(v6), "fd00::1");
    EXPECT_EQ(v6.freeCount(), (Uint128{1} << 120) - 2);
}

TEST(Pool, ReleasedAddressesComeLast) {
    Pool pool = makePool("10.0.0.0/29");  // .1 to .6
    for (int i = 0; i < 4; ++i) next(pool);
    const Clock::Monotonic now(seconds(100));
    pool.dropInto(ip("10.0.0.2"), now + seconds(60));
    pool.drop(ip("10.0.0.1"));
    EXPECT_EQ(next(pool, now), "10.0.0.5");
    EXPECT_EQ(next(pool, now), "10.0.0.6");
    EXPECT_EQ(next(pool, now), "10.0.0.1");  // wraps round, past the one in quarantine
    EXPECT_EQ(next(pool, now), "10.0.0.2");  // nothing else is left
    EXPECT_EQ(next(pool, now), "none");
}

TEST(Pool, QuarantineEnds) {
    Pool pool = makePool("10.0.0.0/29");
    for (int i = 0; i < 6; ++i) next(pool);
    Clock::Monotonic now(seconds(100));
    pool.dropInto(ip("10.0.0.3"), now + seconds(60));
    pool.dropInto(ip("10.0.0.1"), now + seconds(60));
    now += seconds(60);
    EXPECT_EQ(next(pool, now), "10.0.0.1");  // by position again, not by time of release
    EXPECT_EQ(next(pool, now), "10.0.0.3");
}

TEST(Pool, AddressLeasedAgainFromQuarantineIsNotFreedByItsEnd) {
    Pool pool = makePool("10.0.0.0/30");
    const Clock::Monotonic now(seconds(100));
    next(pool, now);
    pool.dropInto(ip("10.0.0.1"), now + seconds(60));
    pool.take(ip("10.0.0.1"), LeaseKind::Endpoint, now);
    EXPECT_EQ(next(pool, now + seconds(90)), "10.0.0.2");
    EXPECT_EQ(next(pool, now + seconds(90)), "none");
}

TEST(Pool, SubPoolBoundsTheChoiceOnly) {
    Pool pool = makePool("10.0.0.0/24", "10.0.0.252/30");
    EXPECT_EQ(pool.freeCount(), Uint128{3});
    EXPECT_EQ(pool.chooseLowest({})->str(), "10.0.0.252");
    EXPECT_TRUE(pool.isUsable(ip("10.0.0.1")));
    pool.take(ip("10.0.0.1"), LeaseKind::Aux, {});
    EXPECT_EQ(pool.freeCount(), Uint128{3});
    EXPECT_EQ(next(pool), "10.0.0.252");
    EXPECT_EQ(next(pool), "10.0.0.253");
    EXPECT_EQ(next(pool), "10.0.0.254");
    EXPECT_EQ(next(pool), "none");  // .255 is the broadcast address
}

TEST(Pool, StartsBehindItsLeasesAfterALoad) {
    Pool pool = makePool("10.0.0.0/24");
    pool.take(ip("10.0.0.1"), LeaseKind::Gateway, {});
    pool.take(ip("10.0.0.9"), LeaseKind::Endpoint, {});
    pool.moveCursorBehindLeases();
    EXPECT_EQ(next(pool), "10.0.0.10");
    EXPECT_EQ(pool.gateway(), ip("10.0.0.1"));
}

TEST(Subnets, LowestFreeOne) {
    const DefaultRange ranges[] = {{prefix("10.208.0.0/22"), 24}, {prefix("10.99.0.0/24"), 25}};
    std::vector<IpPrefix> blocked;
    const auto choose = [&] {
        const auto subnet = chooseSubnet(ranges, blocked);
        return subnet ? subnet->str() : "none";
    };
    EXPECT_EQ(choose(), "10.208.0.0/24");
    blocked = {prefix("10.208.1.7/32"), prefix("10.208.0.0/30"), prefix("fd00::/8"), prefix("192.168.0.0/16")};
    EXPECT_EQ(choose(), "10.208.2.0/24");
    blocked.push_back(prefix("10.208.2.0/23"));
    EXPECT_EQ(choose(), "10.99.0.0/25");
    blocked.push_back(prefix("10.99.0.64/26"));
    EXPECT_EQ(choose(), "10.99.0.128/25");
    blocked.push_back(prefix("10.99.0.255/32"));
    EXPECT_EQ(choose(), "none");
    blocked = {prefix("10.0.0.0/8")};
    EXPECT_EQ(choose(), "none");
}

TEST(Subnets, ChosenNeverOverlapsWhatIsBlocked) {
    std::mt19937 random(11);
    const DefaultRange ranges[] = {{prefix("10.208.0.0/20"), 24}};
    for (int round = 0; round < 2000; ++round) {
        std::vector<IpPrefix> blocked;
        for (auto i = random() % 12; i > 0; --i) {
            blocked.emplace_back(IpAddress(IpFamily::V4, 0x0ad00000 + random() % 4096),
                                 static_cast<uint8_t>(20 + random() % 13));
        }
        const auto subnet = chooseSubnet(ranges, blocked);
        const auto isFree = [&](const IpPrefix& candidate) {
            return std::none_of(blocked.begin(), blocked.end(), [&](const auto& b) { return b.overlaps(candidate); });
        };
        std::optional<IpPrefix> expected;
        for (unsigned i = 0; i < 16 && !expected; ++i) {
            const IpPrefix candidate({IpFamily::V4, 0x0ad00000 + i * 256}, 24);
            if (isFree(candidate)) expected = candidate;
        }
        ASSERT_EQ(subnet, expected);
    }
}

TEST(Subnets, RangesAreChecked) {
    EXPECT_TRUE(checkRange({prefix("10.0.0.0/8"), 24}, IpFamily::V4));
    EXPECT_FALSE(checkRange({prefix("10.0.0.0/24"), 16}, IpFamily::V4));
    EXPECT_FALSE(checkRange({prefix("10.0.0.0/24"), 31}, IpFamily::V4));
    EXPECT_FALSE(checkRange({prefix("fd00::/48"), 64}, IpFamily::V4));
    EXPECT_TRUE(checkRange({prefix("fd00::/48"), 64}, IpFamily::V6));
    EXPECT_FALSE(checkRange({prefix("0.0.0.0/0"), 24}, IpFamily::V4));
}

}  // namespace
}  // namespace weft::ipam
