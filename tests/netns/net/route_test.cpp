#include <gmock/gmock.h>

#include <algorithm>

#include "namespace_fixture.h"
#include "net/announce.h"

namespace weft::net {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

IpPrefix prefix(const char* text) {
    return must(IpPrefix::parse(text));
}
IpAddress address(const char* text) {
    return must(IpAddress::parse(text));
}

class RouteTest : public NamespaceTest {
protected:
    void SetUp() override {
        NamespaceTest::SetUp();
        must(netlink_->createVeth({.name = "h0", .peerName = "c0", .alias = "t", .mtu = 1400}));
        link_ = must(netlink_->getLink("h0")).index;
        must(netlink_->setUp(must(netlink_->getLink("c0")).index));
    }
    void TearDown() override {
        must(netlink_->deleteLink("h0"));
        NamespaceTest::TearDown();
    }
    LinkIndex link_ = 0;
};

TEST_F(RouteTest, AddressesComeAndGo) {
    for (int twice = 0; twice < 2; ++twice) {
        must(netlink_->setAddress({.link = link_, .prefix = prefix("10.1.0.1/24"), .noPrefixRoute = true}));
        must(netlink_->setAddress({.link = link_, .prefix = prefix("fd01::1/64"), .noDad = true}));
    }
    const std::string seen = ip("addr show h0");
    EXPECT_THAT(seen, HasSubstr("inet 10.1.0.1/24 scope global noprefixroute h0"));
    EXPECT_THAT(seen, HasSubstr("inet6 fd01::1/64 scope global nodad"));
    EXPECT_THAT(ip("route"), Not(HasSubstr("10.1.0.0/24")));
    EXPECT_THAT(ip("-6 route"), HasSubstr("fd01::/64"));

    const auto listed = must(netlink_->listAddresses(link_));
    const auto v6 =
        std::find_if(listed.begin(), listed.end(), [](const Address& a) { return a.prefix == prefix("fd01::1/64"); });
    ASSERT_NE(v6, listed.end());
    EXPECT_TRUE(v6->noDad);
    EXPECT_FALSE(v6->tentative);
    for (int twice = 0; twice < 2; ++twice) {
        must(netlink_->deleteAddress(link_, prefix("10.1.0.1/24")));
        must(netlink_->deleteAddress(link_, prefix("fd01::1/64")));
    }
    EXPECT_THAT(ip("addr show h0"), Not(HasSubstr("10.1.0.1")));
    EXPECT_THAT(ip("addr show h0"), Not(HasSubstr("fd01::1")));
}

TEST_F(RouteTest, RoutesAreListedAndLookedUp) {
    must(netlink_->setAddress({.link = link_, .prefix = prefix("10.1.0.1/24")}));
    must(netlink_->setAddress({.link = link_, .prefix = prefix("fd01::1/64"), .noDad = true}));
    EXPECT_EQ(netlink_->lookupRoute(address("192.0.2.1")).error().code, ErrorCode::Unavailable);
    EXPECT_EQ(netlink_->lookupRoute(address("2001:db8::1")).error().code, ErrorCode::Unavailable);
    for (int twice = 0; twice < 2; ++twice) {
        must(netlink_->setRoute({.destination = prefix("0.0.0.0/0"), .gateway = address("10.1.0.9"), .link = link_}));
        must(netlink_->setRoute({.destination = prefix("::/0"), .gateway = address("fd01::9"), .link = link_}));
        must(netlink_->setRoute(
            {.destination = prefix("192.0.2.0/24"), .gateway = address("10.1.0.8"), .metric = 5, .mtu = 1300}));
    }
    EXPECT_THAT(ip("route"), HasSubstr("default via 10.1.0.9 dev h0"));
    EXPECT_THAT(ip("route"), HasSubstr("192.0.2.0/24 via 10.1.0.8 dev h0 metric 5 mtu 1300"));

    const auto v4 = must(netlink_->lookupRoute(address("198.51.100.1")));
    EXPECT_EQ(v4.link, link_);
    EXPECT_EQ(v4.source, address("10.1.0.1"));
    EXPECT_EQ(v4.gateway, address("10.1.0.9"));
    EXPECT_EQ(v4.mtu, 1400U);
    EXPECT_EQ(must(netlink_->lookupRoute(address("192.0.2.7"))).mtu, 1300U);
    EXPECT_TRUE(must(netlink_->lookupRoute(address("10.1.0.1"))).local);
    const auto v6 = must(netlink_->lookupRoute(address("2001:db8::1")));
    EXPECT_EQ(v6.source, address("fd01::1"));
    EXPECT_EQ(v6.mtu, 1400U);

    const auto routes = must(netlink_->listRoutes());
    const auto has = [&](const char* destination) {
        return std::count_if(routes.begin(), routes.end(),
                             [&](const Route& r) { return r.destination == prefix(destination); });
    };
    EXPECT_EQ(has("0.0.0.0/0"), 1);
    EXPECT_EQ(has("::/0"), 1);
    EXPECT_EQ(has("10.1.0.0/24"), 1);
    for (int twice = 0; twice < 2; ++twice) {
        must(netlink_->deleteRoute({.destination = prefix("192.0.2.0/24"), .metric = 5}));
    }
    EXPECT_THAT(ip("route"), Not(HasSubstr("192.0.2.0/24")));
}

TEST_F(RouteTest, MultipathRouteShowsItsFirstHop) {
    must(netlink_->setAddress({.link = link_, .prefix = prefix("10.1.0.1/24")}));
    ip("route add 192.0.2.0/24 nexthop via 10.1.0.7 dev h0 nexthop via 10.1.0.8 dev h0");
    const auto routes = must(netlink_->listRoutes());
    const auto found = std::find_if(routes.begin(), routes.end(),
                                    [](const Route& r) { return r.destination == prefix("192.0.2.0/24"); });
    ASSERT_NE(found, routes.end());
    EXPECT_EQ(found->link, link_);
    EXPECT_EQ(found->gateway, address("10.1.0.7"));
}

TEST_F(RouteTest, NeighboursAreProgrammedInBatches) {
    std::vector<Neighbour> entries;
    for (uint32_t i = 0; i < 500; ++i) {
        entries.push_back(
            {.link = link_, .address = {IpFamily::V4, 0x0a010100U + i}, .mac = macFromKey(std::to_string(i))});
        entries.push_back({.link = link_,
                           .address = {IpFamily::V6, (Uint128{0xfd01} << 112) + i},
                           .mac = macFromKey(std::to_string(i))});
    }
    for (int twice = 0; twice < 2; ++twice) must(netlink_->setNeighbours(entries));
    auto listed = must(netlink_->listNeighbours(link_));
    std::sort(listed.begin(), listed.end());
    std::sort(entries.begin(), entries.end());
    EXPECT_EQ(listed, entries);
    EXPECT_THAT(ip("neigh show 10.1.1.7"), HasSubstr(macFromKey("7").str() + " PERMANENT"));
    entries[0].mac = macFromKey("moved");
    must(netlink_->setNeighbours(entries));
    EXPECT_THAT(ip("neigh show " + entries[0].address.str()), HasSubstr(macFromKey("moved").str()));
    for (int twice = 0; twice < 2; ++twice) must(netlink_->deleteNeighbours(entries));
    EXPECT_TRUE(must(netlink_->listNeighbours(link_)).empty());

    // One bad entry does not stop the others, and is named.
    entries[3].link = 4711;
    const auto result = netlink_->setNeighbours(entries);
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, HasSubstr(entries[3].address.str()));
    EXPECT_EQ(must(netlink_->listNeighbours(link_)).size(), entries.size() - 1);
}

TEST_F(RouteTest, AnnouncementCorrectsStaleNeighbours) {
    const NetNs other = must(NetNs::create());
    const auto there = must(Netlink::openIn(other));
    must(netlink_->moveTo(must(netlink_->getLink("c0")).index, other));
    const LinkIndex peer = must(there->getLink("c0")).index;
    must(there->setAddress({.link = peer, .prefix = prefix("10.1.0.2/24")}));
    must(there->setAddress({.link = peer, .prefix = prefix("fd01::2/64"), .noDad = true}));
    must(there->setUp(peer));
    runInside(other, "ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:01 nud stale dev c0");
    runInside(other, "ip neigh add fd01::9 lladdr 02:00:00:00:00:01 nud stale dev c0");
    const auto mac = must(MacAddress::parse("02:00:00:00:00:09"));
    for (const char* text : {"10.1.0.9", "fd01::9"}) {
        must(announceAddress(ns_, link_, address(text), mac));
        // The frame is in the peer's backlog when sendto() returns; softirq may still have to run.
        std::string seen;
        for (int attempt = 0; attempt < 100 && seen.find(mac.str()) == std::string::npos; ++attempt) {
            seen = runInside(other, std::string("ip neigh show ") + text);
        }
        EXPECT_THAT(seen, HasSubstr(mac.str()));
    }
    EXPECT_EQ(announceAddress(ns_, 4711, address("10.1.0.9"), mac).error().code, ErrorCode::NotFound);
}

TEST_F(RouteTest, AddressesAreFast) {
    const Stopwatch watch;
    for (uint32_t i = 0; i < 100; ++i) {
        must(netlink_->setAddress({.link = link_, .prefix = {{IpFamily::V4, 0x0a020001U + (i << 8)}, 24}}));
    }
    std::printf("address set: %.0f us each\n", watch.us() / 100);
}

class FdbTest : public NamespaceTest {
protected:
    void SetUp() override {
        NamespaceTest::SetUp();
        bridge_ = must(netlink_->createBridge({.name = "br0", .alias = "t"})).index;
        link_ = must(netlink_->createVxlan({.name = "vx0",
                                            .alias = "t",
                                            .vxlan = {.vni = 42, .local = address("127.0.0.1")},
                                            .master = bridge_,
                                            .port = {.learning = false}}))
                    .index;
    }
    void TearDown() override {
        must(netlink_->deleteLinks(std::vector{link_, bridge_}));
        NamespaceTest::TearDown();
    }
    LinkIndex bridge_ = 0;
    LinkIndex link_ = 0;
};

TEST_F(FdbTest, RemotesAreReplacedNotAdded) {
    FdbEntry entry{.link = link_, .mac = macFromKey("a"), .remote = address("127.0.0.2")};
    FdbEntry local{.link = link_, .mac = macFromKey("a"), .bridgePort = true};
    for (int twice = 0; twice < 2; ++twice) must(netlink_->setFdb(std::vector{entry, local}));
    entry.remote = address("127.0.0.3");
    must(netlink_->setFdb({&entry, 1}));
    const std::string seen = runInside(ns_, "bridge fdb show dev vx0");
    EXPECT_THAT(seen, HasSubstr(entry.mac.str() + " dst 127.0.0.3 self permanent"));
    EXPECT_THAT(seen, Not(HasSubstr("127.0.0.2")));
    EXPECT_THAT(seen, HasSubstr(entry.mac.str() + " master br0 static"));
    EXPECT_EQ(must(netlink_->listFdb(link_)).size(), 2U) << seen;

    // A removal that names the old remote is of the past: it leaves the new one.
    FdbEntry old = entry;
    old.remote = address("127.0.0.2");
    must(netlink_->deleteFdb({&old, 1}));
    EXPECT_THAT(runInside(ns_, "bridge fdb show dev vx0"), HasSubstr("127.0.0.3"));
    for (int twice = 0; twice < 2; ++twice) must(netlink_->deleteFdb(std::vector{entry, local}));
    EXPECT_TRUE(must(netlink_->listFdb(link_)).empty());
}

TEST_F(FdbTest, FloodListHasManyRemotes) {
    std::vector<FdbEntry> flood;
    for (uint32_t i = 1; i <= 3; ++i) {
        flood.push_back({.link = link_, .mac = MacAddress(), .remote = IpAddress(IpFamily::V4, 0x7f000001U + i)});
    }
    for (int twice = 0; twice < 2; ++twice) must(netlink_->setFdb(flood));
    EXPECT_EQ(must(netlink_->listFdb(link_)), flood);
    must(netlink_->deleteFdb({flood.data(), 1}));
    EXPECT_EQ(must(netlink_->listFdb(link_)).size(), 2U);
}

TEST_F(FdbTest, TenThousandEntries) {
    std::vector<FdbEntry> entries;
    for (uint32_t i = 0; i < 10000; ++i) {
        entries.push_back({.link = link_,
                           .mac = macFromKey(std::to_string(i)),
                           .remote = IpAddress(IpFamily::V4, 0x7f000002U + i % 100)});
    }
    const Stopwatch set;
    must(netlink_->setFdb(entries));
    const double setTime = set.us();
    const Stopwatch list;
    auto listed = must(netlink_->listFdb(link_));
    const double listTime = list.us();
    std::sort(listed.begin(), listed.end());
    std::sort(entries.begin(), entries.end());
    EXPECT_EQ(listed, entries);
    const Stopwatch removal;
    must(netlink_->deleteFdb(entries));
    std::printf("FDB, 10,000 entries: set %.0f us, list %.0f us, delete %.0f us\n", setTime, listTime, removal.us());
    EXPECT_TRUE(must(netlink_->listFdb(link_)).empty());

    // All of them failing is reported once, with the count, and does not overrun the socket.
    for (FdbEntry& entry : entries) entry.link = 4711;
    const auto failed = netlink_->setFdb(entries);
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, ErrorCode::NotFound);
    EXPECT_THAT(failed.error().message, HasSubstr("9999 more"));
}

}  // namespace
}  // namespace weft::net
