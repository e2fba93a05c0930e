#include <gmock/gmock.h>

#include <algorithm>
#include <vector>

#include "namespace_fixture.h"

namespace weft::net {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class LinkTest : public NamespaceTest {
protected:
    Link bridge(uint32_t mtu = 1500) {
        return must(netlink_->createBridge({.name = "br0", .alias = "weft:n", .mtu = mtu}));
    }
    VethSpec vethSpec(LinkIndex master, int number = 0) {
        return {.name = "h" + std::to_string(number),
                .peerName = "c" + std::to_string(number),
                .alias = "weft:e" + std::to_string(number),
                .mtu = 1400,
                .peerMac = must(MacAddress::parse("02:42:0a:00:00:02")),
                .master = master};
    }
};

TEST_F(LinkTest, BridgeHasWhatWasAsked) {
    const auto mac = must(MacAddress::parse("02:00:00:00:00:01"));
    const Link made = must(netlink_->createBridge({.name = "br0", .alias = "weft:n1", .mtu = 9000, .mac = mac}));
    EXPECT_TRUE(made.up);
    EXPECT_EQ(made.mac, mac);
    const std::string seen = ip("-d link show br0");
    EXPECT_THAT(seen, HasSubstr("mtu 9000"));
    EXPECT_THAT(seen, HasSubstr("02:00:00:00:00:01"));
    EXPECT_THAT(seen, HasSubstr("alias weft:n1"));
    EXPECT_THAT(seen, HasSubstr("forward_delay 0 "));
    EXPECT_THAT(seen, HasSubstr("stp_state 0"));
    EXPECT_THAT(seen, HasSubstr("mcast_snooping 0"));

    // The MTU stays when a smaller port comes and goes.
    must(netlink_->createVeth(vethSpec(made.index)));
    must(netlink_->deleteLink("h0"));
    EXPECT_EQ(must(netlink_->getLink("br0")).mtu, 9000U);
    must(netlink_->deleteLink(made.index));
}

TEST_F(LinkTest, BridgeIsAdoptedWithItsPorts) {
    const Link first = bridge();
    must(netlink_->createVeth(vethSpec(first.index)));
    must(netlink_->setDown(first.index));
    const auto mac = must(MacAddress::parse("02:00:00:00:00:09"));
    const Link second = must(netlink_->createBridge({.name = "br0", .alias = "weft:n", .mtu = 1400, .mac = mac}));
    EXPECT_EQ(second.index, first.index);
    EXPECT_TRUE(second.up);
    EXPECT_EQ(second.mtu, 1400U);
    EXPECT_EQ(second.mac, mac);
    EXPECT_EQ(must(netlink_->listLinks({.kind = "veth", .master = first.index})).size(), 1U);
    must(netlink_->deleteLink("h0"));
    must(netlink_->deleteLink("br0"));
}

TEST_F(LinkTest, ForeignLinkOfThatNameIsLeftAlone) {
    ip("link add br0 type bridge");
    ip("link set br0 alias theirs");
    const auto made = netlink_->createBridge({.name = "br0", .alias = "weft:n"});
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, ErrorCode::AlreadyExists);
    EXPECT_THAT(made.error().message, HasSubstr("theirs"));
    const auto veth = netlink_->createVeth({.name = "h0", .peerName = "br0", .alias = "weft:e"});
    ASSERT_FALSE(veth);
    EXPECT_EQ(veth.error().code, ErrorCode::AlreadyExists);
    EXPECT_THAT(ip("link show br0"), HasSubstr("state DOWN"));
    EXPECT_THAT(ip("link show br0"), HasSubstr("alias theirs"));
    // No mark at all is not ours either.
    ip("link set br0 alias ''");
    EXPECT_FALSE(netlink_->createBridge({.name = "br0", .alias = "weft:n"}));
    must(netlink_->deleteLink("br0"));
}

TEST_F(LinkTest, LinkLeftHalfMadeIsReplaced) {
    // As a kill between creation and alias leaves it: the group is there, the alias is not.
    ip("link add br0 group 2003134068 type bridge");
    must(netlink_->createBridge({.name = "br0", .alias = "weft:n"}));
    ip("link add h0 group 2003134068 type veth peer name c0");
    EXPECT_EQ(must(netlink_->getLink(must(netlink_->createVeth(vethSpec(0))))).alias, "weft:e0");
    must(netlink_->deleteLink("h0"));
    must(netlink_->deleteLink("br0"));
}

TEST_F(LinkTest, VethIsAPortReadyToUse) {
    const Link br = bridge();
    VethSpec spec = vethSpec(br.index);
    spec.port = {.hairpin = true, .isolated = true, .learning = false, .unicastFlood = false, .neighSuppress = true};
    spec.peerAlias = "weft:c0";
    const Link made = must(netlink_->getLink(must(netlink_->createVeth(spec))));
    EXPECT_EQ(made.master, br.index);
    EXPECT_EQ(made.kind, "veth");
    EXPECT_TRUE(made.up);
    EXPECT_EQ(made.port.hairpin, true);
    EXPECT_EQ(made.port.learning, false);
    EXPECT_EQ(made.parent, must(netlink_->getLink("c0")).index);
    EXPECT_EQ(must(netlink_->linkIndex("h0")), made.index);

    const std::string host = ip("-d link show h0");
    for (const char* expected : {"master br0", "mtu 1400", "alias weft:e0", "hairpin on", "isolated on", "learning off",
                                 "flood off", "neigh_suppress on", "addrgenmode none", "numtxqueues 1", ",UP"}) {
        EXPECT_THAT(host, HasSubstr(expected));
    }
    const std::string peer = ip("-d link show c0");
    for (const char* expected : {"mtu 1400", "02:42:0a:00:00:02", "state DOWN", "alias weft:c0", "addrgenmode eui64"}) {
        EXPECT_THAT(peer, HasSubstr(expected));
    }

    // Again: replaced, the peer too.
    EXPECT_NE(must(netlink_->createVeth(spec)), made.index);
    must(netlink_->setPortFlags(must(netlink_->getLink("h0")).index, {.hairpin = false}));
    EXPECT_THAT(ip("-d link show h0"), HasSubstr("hairpin off"));
    EXPECT_THAT(ip("-d link show h0"), HasSubstr("isolated on"));
    must(netlink_->deleteLink("h0"));
    EXPECT_EQ(netlink_->getLink("c0").error().code, ErrorCode::NotFound);
    EXPECT_EQ(netlink_->linkIndex("c0").error().code, ErrorCode::NotFound);
    must(netlink_->deleteLink("br0"));
}

TEST_F(LinkTest, FailedVethLeavesNothing) {
    VethSpec spec = vethSpec(0);
    spec.port = {.hairpin = true};
    spec.alias = std::string(300, 'x');  // longer than the kernel takes
    EXPECT_FALSE(netlink_->createVeth(spec));
    EXPECT_EQ(must(netlink_->listLinks()).size(), 1U);
}

TEST_F(LinkTest, ErrorsNameTheReason) {
    const auto absent = netlink_->getLink("nothing");
    EXPECT_EQ(absent.error().code, ErrorCode::NotFound);
    EXPECT_EQ(absent.error().sysErrno, ENODEV);
    EXPECT_EQ(netlink_->createVeth({.name = "a-name-of-16-chr", .peerName = "c", .alias = "x"}).error().code,
              ErrorCode::InvalidArgument);
    const LinkIndex link = must(netlink_->createVeth(vethSpec(0)));
    const auto tooBig = netlink_->setMtu(link, 70000);
    ASSERT_FALSE(tooBig);
    EXPECT_EQ(tooBig.error().sysErrno, EINVAL);
    EXPECT_THAT(tooBig.error().message, HasSubstr("greater than device maximum"));  // the kernel's own words
    must(netlink_->deleteLink(link));
    must(netlink_->deleteLink("nothing"));
    must(netlink_->deleteLink(4711));
}

TEST_F(LinkTest, LinkMovesAndComesBack) {
    const NetNs other = must(NetNs::create());
    const auto there = must(Netlink::openIn(other));
    must(netlink_->createVeth(vethSpec(0)));
    const Link peer = must(netlink_->getLink("c0"));
    must(netlink_->moveTo(peer.index, other, "eth0"));
    const Link moved = must(there->getLink("eth0"));
    EXPECT_EQ(moved.mac, peer.mac);
    EXPECT_TRUE(must(netlink_->getLink("h0")).parentNetnsId.has_value());
    must(there->moveTo(moved.index, ns_, "c0"));
    EXPECT_EQ(must(netlink_->getLink("c0")).mac, peer.mac);
    must(netlink_->deleteLinks(std::vector{must(netlink_->getLink("h0")).index}));
}

TEST_F(LinkTest, MacvlanOverAVeth) {
    must(netlink_->createVeth({.name = "wire", .peerName = "far", .alias = "w", .mtu = 1450}));
    const LinkIndex parent = must(netlink_->getLink("wire")).index;
    const Link made = must(netlink_->createMacvlan({.name = "mv0", .alias = "weft:m", .parent = parent}));
    EXPECT_EQ(made.parent, parent);
    EXPECT_EQ(made.mtu, 1450U);
    EXPECT_THAT(ip("-d link show mv0"), HasSubstr("macvlan mode bridge"));
    must(netlink_->deleteLink("mv0"));
    must(netlink_->deleteLink("wire"));
}

TEST_F(LinkTest, VxlanHasWhatWasAskedAndIsAdopted) {
    const Link br = bridge(1450);
    for (const char* local : {"192.0.2.1", "2001:db8::1"}) {
        const VxlanSpec spec{.name = "vx0",
                             .alias = "weft:v",
                             .vxlan = {.vni = 4097,
                                       .port = 4790,
                                       .local = must(IpAddress::parse(local)),
                                       .udp6ZeroCsumRx = true,
                                       .sourcePorts = {{49152, 65535}}},
                             .mtu = 1430,
                             .master = br.index,
                             .port = {.learning = false, .neighSuppress = true}};
        const Link made = must(netlink_->createVxlan(spec));
        EXPECT_EQ(made.vxlan, spec.vxlan);
        EXPECT_TRUE(made.up);
        const std::string seen = ip("-d link show vx0");
        for (const char* expected : {"vxlan id 4097", "dstport 4790", "nolearning", "srcport 49152 65535", "ttl 64",
                                     "udp6zerocsumrx", "mtu 1430", "master br0", "neigh_suppress on", local}) {
            EXPECT_THAT(seen, HasSubstr(expected));
        }
        must(netlink_->setDown(made.index));
        EXPECT_EQ(must(netlink_->createVxlan(spec)).index, made.index);
        EXPECT_TRUE(must(netlink_->getLink("vx0")).up);

        VxlanSpec changed = spec;
        changed.vxlan.vni = 4098;
        EXPECT_NE(must(netlink_->createVxlan(changed)).index, made.index);

        VxlanSpec second = changed;
        second.name = "vx1";
        const auto refused = netlink_->createVxlan(second);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, ErrorCode::AlreadyExists);
        EXPECT_THAT(refused.error().message, HasSubstr("vx0"));
        must(netlink_->deleteLink("vx0"));
    }
    must(netlink_->deleteLink("br0"));
}

TEST_F(LinkTest, DiscardedLinksGoInTheBackground) {
    const Link br = bridge();
    std::vector<double> creation;
    std::vector<double> removal;
    for (int i = 0; i < 50; ++i) {
        const Stopwatch create;
        const LinkIndex link = must(netlink_->createVeth(vethSpec(br.index, i)));
        creation.push_back(create.us());
        const Stopwatch discard;
        netlink_->discardLink(link);
        removal.push_back(discard.us());
    }
    // One of a discarded link's name: replaced, and not removed with it.
    netlink_->discardLink(must(netlink_->createVeth(vethSpec(br.index))));
    const LinkIndex again = must(netlink_->createVeth(vethSpec(br.index)));
    netlink_->waitForDiscarded();
    const auto left = must(netlink_->listLinks({.kind = "veth", .master = br.index}));
    ASSERT_EQ(left.size(), 1U);
    EXPECT_EQ(left[0].index, again);
    std::sort(creation.begin(), creation.end());
    std::sort(removal.begin(), removal.end());
    std::printf("in turn: create p50 %.0f us, p95 %.0f us; discard p50 %.0f us\n", creation[25], creation[47],
                removal[25]);

    netlink_->discardLink(br.index);
    netlink_->discardLink(again);
    netlink_ = must(Netlink::openIn(ns_));  // destruction waits for the removal
    EXPECT_EQ(must(netlink_->listLinks()).size(), 1U);
}

TEST_F(LinkTest, ManyVethsAreMadeAndRemovedFast) {
    constexpr int kCount = 100;
    const Link br = bridge();
    std::vector<double> creation;
    std::vector<double> removal;
    std::vector<LinkIndex> links;
    for (int i = 0; i < kCount; ++i) {
        VethSpec spec = vethSpec(br.index, i);
        spec.port = {.hairpin = true};
        const Stopwatch watch;
        links.push_back(must(netlink_->createVeth(spec)));
        creation.push_back(watch.us());
    }
    for (int i = 0; i < 10; ++i) {
        const Stopwatch watch;
        must(netlink_->deleteLink(links.back()));
        removal.push_back(watch.us());
        links.pop_back();
    }
    const Stopwatch watch;
    must(netlink_->deleteLinks(links));
    const double batch = watch.us();
    std::sort(creation.begin(), creation.end());
    std::sort(removal.begin(), removal.end());
    std::printf("veth with port: create p50 %.0f us, p95 %.0f us; delete p50 %.0f us; %zu at once %.0f us\n",
                creation[kCount / 2], creation[kCount * 95 / 100], removal[5], links.size(), batch);
    EXPECT_EQ(must(netlink_->listLinks({.kind = "veth"})).size(), 0U);
    must(netlink_->deleteLink("br0"));
}

TEST_F(LinkTest, TrafficIsCountedByLink) {
    const LinkTraffic before = must(netlink_->linkTraffic()).at("lo");
    ASSERT_THAT(runInside(ns_, "ping -c 1 -s 1000 127.0.0.1"), HasSubstr("1 received"));
    const LinkTraffic after = must(netlink_->linkTraffic()).at("lo");
    EXPECT_GT(after.sentBytes, before.sentBytes + 2000) << "there and back";
    EXPECT_LT(after.sentBytes, before.sentBytes + 4000);
    EXPECT_EQ(after.receivedBytes - before.receivedBytes, after.sentBytes - before.sentBytes);
}

}  // namespace
}  // namespace weft::net
