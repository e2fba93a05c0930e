#include "drivers/overlay/overlay_rows.h"

#include <gtest/gtest.h>

#include "drivers/overlay/echo_link.h"
#include "drivers/overlay/host_plan.h"
#include "drivers/overlay/overlay_view.h"
#include "kv/row.h"
#include "tests/must.h"

namespace weft {
namespace {

NetworkClaim claim() {
    NetworkClaim claim;
    claim.stamp = 1'700'000'000'123;
    claim.vni = 4097;
    claim.mtu = 1430;
    claim.internal = true;
    claim.vtep = must(IpAddress::parse("2001:db8::1"));
    claim.port = 4789;
    claim.gateways = {must(IpPrefix::parse("10.32.0.1/16")), must(IpPrefix::parse("fd32::1/64"))};
    return claim;
}

EndpointRow endpoint() {
    EndpointRow row;
    row.stamp = 7;
    row.mac = must(MacAddress::parse("02:42:0a:20:00:02"));
    row.v4 = must(IpAddress::parse("10.32.0.2"));
    row.v6 = must(IpAddress::parse("fd32::2"));
    return row;
}

ProbeRow probe() {
    return {3, 1450, must(IpAddress::parse("192.0.2.7"))};
}

EchoRow echo() {
    return {{1, 2, 3}, must(IpAddress::parse("192.0.2.7"))};
}

TEST(OverlayRows, AreReadAsWritten) {
    EXPECT_EQ(must(decodeClaim(encode(claim()))), claim());
    EXPECT_EQ(must(decodeEndpoint(encode(endpoint()))), endpoint());
    EndpointRow one = endpoint();
    one.v4.reset();
    EXPECT_EQ(must(decodeEndpoint(encode(one))), one);
    EXPECT_EQ(must(decodeProbe(encode(probe()))), probe());
    EXPECT_EQ(must(decodeEcho(encode(echo()))), echo());
}

TEST(OverlayRows, FitTheStoreWithManySubnetsAndLongNames) {
    NetworkClaim large = claim();
    large.gateways.assign(32, must(IpPrefix::parse("fd32::1/64")));
    const std::string name(63, 'n');
    EXPECT_TRUE(kv::withinLimits(networkKey(name), encode(large)));
    EXPECT_TRUE(kv::withinLimits(endpointKey(name, EndpointId(std::string(64, 'e'))), encode(endpoint())));
}

TEST(OverlayRows, OfNoTimeOrMtuThatCanBeAreCorrupt) {
    NetworkClaim late = claim();
    late.stamp = kLastStamp;
    EXPECT_TRUE(decodeClaim(encode(late)));
    late.stamp = UINT64_MAX;  // whoever counted on from it would begin anew
    EXPECT_FALSE(decodeClaim(encode(late)));
    NetworkClaim narrow = claim();
    narrow.mtu = 0;  // who joined the network would take it over
    EXPECT_FALSE(decodeClaim(encode(narrow)));
    EndpointRow row = endpoint();
    row.stamp = kLastStamp + 1;
    EXPECT_FALSE(decodeEndpoint(encode(row)));
}

TEST(OverlayRows, DamagedOnesAreCorrupt) {
    for (const std::string& whole : {encode(claim()), encode(endpoint()), encode(probe()), encode(echo())}) {
        for (size_t size = 0; size < whole.size(); ++size) {
            EXPECT_FALSE(decodeClaim(whole.substr(0, size))) << size;
            EXPECT_FALSE(decodeEndpoint(whole.substr(0, size))) << size;
            EXPECT_FALSE(decodeProbe(whole.substr(0, size))) << size;
            EXPECT_FALSE(decodeEcho(whole.substr(0, size))) << size;
        }
        EXPECT_FALSE(decodeClaim(whole + "x"));
        EXPECT_FALSE(decodeEndpoint(whole + "x"));
        EXPECT_FALSE(decodeProbe(whole + "x"));
        EXPECT_FALSE(decodeEcho(whole + "x"));
    }
    NetworkClaim wild = claim();
    wild.vtep = must(IpAddress::parse("127.0.0.1"));
    EXPECT_FALSE(decodeClaim(encode(wild)));
    wild = claim();
    wild.vni = 1U << 24;
    EXPECT_FALSE(decodeClaim(encode(wild)));
    ProbeRow tiny = probe();
    tiny.mtu = 20;
    EXPECT_FALSE(decodeProbe(encode(tiny)));
    EndpointRow many = endpoint();
    many.mac = must(MacAddress::parse("01:00:5e:00:00:01"));
    EXPECT_FALSE(decodeEndpoint(encode(many)));
}

TEST(OverlayRows, KeysNameNetworkAndEndpoint) {
    const auto network = parseOverlayKey(networkKey("web"));
    ASSERT_TRUE(network);
    EXPECT_EQ(network->network, "web");
    EXPECT_FALSE(network->endpoint);
    const auto end = parseOverlayKey(endpointKey("web", EndpointId("e1")));
    ASSERT_TRUE(end);
    EXPECT_EQ(end->network, "web");
    EXPECT_EQ(end->endpoint, EndpointId("e1"));
    for (const char* other : {"overlay/", "overlay/net/", "overlay/net/a/b", "overlay/ep/web", "overlay/ep/web/",
                              "overlay/ep//e1", "ipam/x"}) {
        EXPECT_FALSE(parseOverlayKey(other)) << other;
    }
}

TEST(OverlayView, HoldsWhatIsVisibleAndNothingDamaged) {
    OverlayView view;
    kv::Row row{.owner = {{1}}, .key = networkKey("web"), .value = encode(claim())};
    view.apply(kv::RowEvent::Put, row);
    ASSERT_EQ(view.claims().at("web").size(), 1U);
    EXPECT_EQ(view.networksOf(row.owner), std::set<std::string>{"web"});
    EXPECT_TRUE(view.takeMarked()->at("web").all);
    view.apply(kv::RowEvent::Suspended, row);
    EXPECT_EQ(view.claims().at("web").size(), 1U) << "its containers run on";
    view.apply(kv::RowEvent::Forgotten, row);
    EXPECT_EQ(view.claims().at("web").size(), 1U) << "by the store, not by people";
    view.apply(kv::RowEvent::Put, row);
    row.value = "x";  // a damaged value hides the one before
    view.apply(kv::RowEvent::Put, row);
    EXPECT_TRUE(view.claims().empty());
    EXPECT_TRUE(view.networksOf(row.owner).empty());
}

TEST(OverlayView, ExaminesHostsThatSayInThisLifeThatTheyAnswer) {
    OverlayView view;
    uint64_t seen = 0;
    EXPECT_TRUE(view.awaitHosts(seen, {}));
    kv::Member member;
    member.id = {{1}};
    member.record.name = "other";
    member.record.address = {must(IpAddress::parse("192.0.2.8")), 7950};
    member.record.incarnation = uint64_t{2} << 32 | 5;
    view.onMember(member);
    const uint64_t before = seen;
    EXPECT_TRUE(view.awaitHosts(seen, std::chrono::hours(1))) << "at once";
    EXPECT_NE(seen, before);
    EXPECT_EQ(view.addresses(), std::set{must(IpAddress::parse("192.0.2.8"))});
    EXPECT_EQ(view.peers().at(member.id), (TunnelPlan::Peer{"other", must(IpAddress::parse("192.0.2.8")), {}}));

    view.apply(kv::RowEvent::Put, {.owner = member.id, .key = std::string(kProbeKey), .value = encode(probe())});
    EXPECT_FALSE(view.peers().at(member.id).mtu) << "what it says is of another life: an older weftd may run there now";
    member.record.incarnation = uint64_t{3} << 32;
    view.onMember(member);
    EXPECT_EQ(view.peers().at(member.id), (TunnelPlan::Peer{"other", must(IpAddress::parse("192.0.2.7")), 1450}));
    EXPECT_TRUE(view.takeMarked()->empty()) << "wakes, for the firewall";

    member.state = kv::MemberState::Suspect;
    view.onMember(member);
    EXPECT_EQ(view.peers().size(), 1U);
    member.state = kv::MemberState::Dead;
    view.onMember(member);
    EXPECT_TRUE(view.peers().empty());
    EXPECT_TRUE(view.addresses().empty());
}

TEST(OverlayView, TellsADaemonThatIsAwayFromAHostThatIs) {
    OverlayView view;
    kv::Member member;
    member.id = {{1}};
    const IpAddress address = must(IpAddress::parse("192.0.2.8"));
    member.record.address = {address, 7950};
    const kv::Row row{.owner = member.id, .key = networkKey("web"), .value = encode(claim())};
    view.onMember(member);
    view.apply(kv::RowEvent::Put, row);
    EXPECT_FALSE(view.claims().at("web").at(0).absent);
    EXPECT_EQ(view.hosts().at(member.id).presence, Presence::Here);

    member.state = kv::MemberState::Suspect;
    view.onMember(member);
    view.setAnswering({member.id});
    EXPECT_EQ(view.hosts().at(member.id).presence, Presence::Here);
    member.state = kv::MemberState::Dead;
    view.takeMarked();
    view.onMember(member);
    EXPECT_TRUE(view.takeMarked()->at("web").all);
    EXPECT_TRUE(view.claims().at("web").at(0).absent);
    EXPECT_EQ(view.hosts().at(member.id).presence, Presence::DaemonAway);
    EXPECT_TRUE(view.addresses().contains(address));
    EXPECT_TRUE(view.awayAddresses().empty());

    view.setAnswering({});
    EXPECT_TRUE(view.isAway(member.id));
    EXPECT_TRUE(view.addresses().empty());
    EXPECT_EQ(view.awayAddresses(), (std::set{address, claim().vtep}));
    kv::Member other = member;  // made anew at the same address
    other.id = {{2}};
    other.state = kv::MemberState::Alive;
    view.onMember(other);
    EXPECT_EQ(view.awayAddresses(), std::set{claim().vtep});

    member.state = kv::MemberState::Alive;
    view.onMember(member);
    EXPECT_EQ(view.hosts().at(member.id).presence, Presence::Here);
    view.forget(member.id);
    EXPECT_FALSE(view.claims().contains("web"));
    EXPECT_TRUE(view.networksOf(member.id).empty());
    EXPECT_FALSE(view.hosts().contains(member.id));
}

TEST(OverlayView, WhoIsThereComesBeforeWhoIsAway) {
    OverlayEndpoint away{.owner = {{2}}, .row = endpoint(), .absent = true};
    OverlayEndpoint there{.owner = {{1}}, .row = endpoint()};
    away.row.stamp = there.row.stamp + 1;
    EXPECT_LT(away.rank(), there.rank());
    away.absent = false;
    EXPECT_GT(away.rank(), there.rank());
}

// From the vectors of the SipHash paper's reference code: octets 0 to 7 under the key of octets 0 to 15.
TEST(EchoLink, ProvesBySipHash) {
    net::EchoKey key{};
    for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i);
    EXPECT_EQ(echoProof(key, 0x0706050403020100), 0x93f5f5799a932462U);
}

TEST(HostPlan, ThreeMissesInARowMakeAKernelGone) {
    HostPlan plan;
    const kv::NodeId one{{1}};
    const kv::NodeId two{{2}};
    plan.setHosts({one, two});
    EXPECT_EQ(plan.ask(), (std::vector{one, two}));
    EXPECT_EQ(plan.answering(), (std::set{one, two})) << "just asked";
    for (int missed = 1; missed <= HostPlan::kMisses; ++missed) {
        plan.answered(one);
        EXPECT_TRUE(plan.answering().contains(two)) << missed;
        plan.ask();
    }
    EXPECT_EQ(plan.answering(), std::set{one});
    plan.answered(two);
    EXPECT_EQ(plan.answering(), (std::set{one, two})) << "at once";
    plan.answered({{3}});
    plan.setHosts({two});
    EXPECT_EQ(plan.answering(), std::set{two});
}

}  // namespace
}  // namespace weft
