#include "net/fast_path.h"

#include <gmock/gmock.h>

#include <chrono>
#include <string>
#include <thread>

#include "namespace_fixture.h"

namespace weft::net {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

struct Station {
    NetNs ns = must(NetNs::create());
    LinkIndex port = 0;
    MacAddress mac;
};

// Two stations on a bridge that lets no pings through, and counts neighbour solicitations.
class FastPathTest : public NamespaceTest {
protected:
    void SetUp() override {
        NamespaceTest::SetUp();
        bridge_ = must(netlink_->createBridge({.name = "br0", .alias = "t"})).index;
        for (int i = 1; i <= 2; ++i) {
            Station& station = stations_[i - 1];
            const std::string number = std::to_string(i);
            station.mac = must(MacAddress::parse("02:00:00:00:00:0" + number));
            addPort("p" + number, station);
            must(netlink_->moveTo(must(netlink_->getLink("p" + number + "c")).index, station.ns, "eth0"));
            const std::string address = "ip addr add 10.1.0." + number + "/24 dev eth0; ip addr add fd01::" + number +
                                        "/64 dev eth0 nodad; ip link set eth0 up";
            EXPECT_EQ(runInside(station.ns, "sh -c '" + address + "'"), "");
        }
        EXPECT_EQ(nft("table bridge t { chain f { type filter hook forward priority 0; ip protocol icmp drop; "
                      "icmpv6 type echo-request drop; icmpv6 type nd-neighbor-solicit counter; }; }"),
                  "");
    }
    void TearDown() override {
        for (const char* link : {"p1", "p2", "br0"}) must(netlink_->deleteLink(link));
        NamespaceTest::TearDown();
    }

    void addPort(const std::string& name, Station& station) {
        station.port = must(netlink_->createVeth(
            {.name = name, .peerName = name + "c", .alias = "t", .peerMac = station.mac, .master = bridge_}));
    }
    std::string nft(const std::string& rules) { return runInside(ns_, "nft '" + rules + "'"); }
    bool ping(const std::string& to) {
        return runInside(stations_[0].ns, "ping -c 1 -W 1 " + to).find(" 0% packet loss") != std::string::npos;
    }
    [[nodiscard]] FastPath::Ports ports() const {
        return {{stations_[0].mac, stations_[0].port}, {stations_[1].mac, stations_[1].port}};
    }
    void attach(FastPath& path) {
        for (const Station& station : stations_) must(path.attach(station.port));
    }

    LinkIndex bridge_ = 0;
    Station stations_[2];
};

TEST_F(FastPathTest, FramesForKnownMacsSkipTheBridge) {
    EXPECT_FALSE(ping("10.1.0.2"));
    EXPECT_FALSE(ping("fd01::2"));
    FastPath path = must(FastPath::load(ns_));
    attach(path);
    EXPECT_FALSE(ping("10.1.0.2")) << "known to nobody";
    must(path.setPorts(ports()));
    EXPECT_TRUE(ping("10.1.0.2"));
    EXPECT_TRUE(ping("fd01::2"));
    must(path.setPorts({}));
    EXPECT_FALSE(ping("10.1.0.2"));
}

TEST_F(FastPathTest, WorksOnWithoutItsMakerUntilAnotherTakesItsPlace) {
    {
        FastPath path = must(FastPath::load(ns_));
        must(path.setPorts(ports()));
        attach(path);
    }
    EXPECT_TRUE(ping("10.1.0.2"));
    FastPath other = must(FastPath::load(ns_));
    attach(other);
    EXPECT_FALSE(ping("10.1.0.2"));
    EXPECT_THAT(runInside(ns_, "tc filter show dev p1 ingress"), HasSubstr("pref 49152 bpf"));
}

TEST_F(FastPathTest, TheBridgeAnswersNeighbourSolicitations) {
    FastPath path = must(FastPath::load(ns_));
    must(path.setPorts(ports()));
    attach(path);
    ASSERT_TRUE(ping("fd01::2"));
    EXPECT_EQ(nft("flush chain bridge t f; add rule bridge t f icmpv6 type nd-neighbor-solicit counter"), "");
    // To the MAC that is known, not to all.
    runInside(stations_[0].ns, "ip neigh replace fd01::2 lladdr " + stations_[1].mac.str() + " dev eth0 nud probe");
    const auto counted = [&] { return nft("list table bridge t").find("counter packets 0 ") == std::string::npos; };
    for (int patience = 40; !counted() && patience > 0; --patience) std::this_thread::sleep_for(50ms);
    EXPECT_TRUE(counted());
}

TEST_F(FastPathTest, FramesForALinkThatIsGoneTakeTheBridge) {
    Station third;
    third.mac = must(MacAddress::parse("02:00:00:00:00:03"));
    addPort("p3", third);
    FastPath path = must(FastPath::load(ns_));
    attach(path);
    must(path.setPorts({{stations_[1].mac, third.port}}));
    EXPECT_EQ(nft("delete table bridge t"), "");
    EXPECT_FALSE(ping("10.1.0.2")) << "sent elsewhere";
    must(netlink_->deleteLink("p3"));
    EXPECT_TRUE(ping("10.1.0.2"));
}

TEST_F(FastPathTest, FramesForTheirOwnPortTakeTheBridge) {
    EXPECT_EQ(nft("delete table bridge t"), "");
    FastPath path = must(FastPath::load(ns_));
    must(path.setPorts({{stations_[1].mac, stations_[0].port}}));
    attach(path);
    EXPECT_TRUE(ping("10.1.0.2"));
}

TEST_F(FastPathTest, WhatDoesNotFitIsToldAndTakesTheBridge) {
    FastPath path = must(FastPath::load(ns_));
    attach(path);
    FastPath::Ports many = ports();
    for (int i = 0; i < 16384; ++i) {
        const auto number = static_cast<uint8_t>(i >> 8);
        many[MacAddress({6, 0, 0, 0, number, static_cast<uint8_t>(i)})] = stations_[1].port;
    }
    const auto done = path.setPorts(many);
    ASSERT_FALSE(done);
    EXPECT_THAT(done.error().message, HasSubstr("enter 06:00:00:00:3f:f"));
    EXPECT_TRUE(ping("10.1.0.2")) << "it came before";
    must(path.setPorts(ports()));
    EXPECT_TRUE(ping("10.1.0.2"));
}

TEST_F(FastPathTest, ALinkThatIsNotThereIsAnError) {
    FastPath path = must(FastPath::load(ns_));
    EXPECT_FALSE(path.attach(4711));
    EXPECT_FALSE(path.setPorts({{stations_[0].mac, 4711}}));
}

}  // namespace
}  // namespace weft::net
