#include "driver/trace.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <functional>

namespace weft::driver {

namespace {

using testing::HasSubstr;
using Damage = std::function<void(TraceFacts&)>;

IpAddress ip(const char* text) {
    return IpAddress::parse(text).value();
}

MacAddress mac(uint8_t last) {
    return MacAddress({2, 0x42, 0, 0, 0, last});
}

net::Link link(const char* name, net::LinkIndex index) {
    net::Link made;
    made.name = name;
    made.index = index;
    made.up = true;
    return made;
}

// A container 10.1.0.2 on a bridge network, from which everything is in order.
TraceFacts facts(const char* destination, TraceGoal goal) {
    TraceFacts facts;
    facts.question = {"e1", "web", destination, 6, 80};
    facts.destination = ip(destination);
    facts.goal = goal;
    facts.endpoint.link = "wv1";
    facts.endpoint.sandboxKey = "/run/docker/netns/1";
    facts.network.bridge = "weft-a";
    facts.network.subnets = {IpPrefix::parse("10.1.0.0/24").value()};
    facts.mtu = 1450;
    facts.route = net::RouteLookup{.link = 2, .source = ip("10.1.0.2"), .mtu = 1450};
    facts.leavesBy = "eth0";
    facts.leavesByWeft = true;
    facts.bridge = link("weft-a", 7);
    facts.port = link("wv1", 8);
    facts.port->master = 7;
    facts.outward = net::RouteLookup{.link = 3, .source = ip("192.0.2.1"), .mtu = 1500};
    facts.outwardLink = "eth0";
    return facts;
}

TraceFacts neighbour() {
    TraceFacts made = facts("10.1.0.3", TraceGoal::Neighbour);
    made.target.emplace();
    made.target->link = "wv2";
    made.targetPort = link("wv2", 9);
    made.targetPort->master = 7;
    made.expected = made.cached = mac(3);
    return made;
}

TraceFacts remote() {
    TraceFacts made = facts("10.1.0.9", TraceGoal::Remote);
    made.host = TraceHost{"node2", ip("192.0.2.2"), kv::MemberState::Alive, false, std::chrono::seconds(9), {}};
    OverlayWay& way = made.way.emplace();
    way.status.vni = 4711;
    way.overhead = 50;
    way.port = 4789;
    way.row.mac = mac(9);
    way.vtep = way.remote = ip("192.0.2.2");
    way.tunnel = link("wxa", 10);
    way.atTunnel = way.floods = true;
    way.neighbour = mac(9);
    made.underlay = made.outward;
    made.underlayLink = "eth0";
    return made;
}

TraceFacts host() {
    return facts("192.0.2.1", TraceGoal::Host);
}

TraceFacts other() {
    TraceFacts made = facts("10.2.0.2", TraceGoal::OtherNetwork);
    made.targetNetwork = firewall::Network{};
    made.targetNetwork->bridge = "weft-b";
    made.target.emplace();
    return made;
}

TraceFacts elsewhere() {
    return facts("198.51.100.1", TraceGoal::Elsewhere);
}

void expectStop(TraceFacts from, const char* name, const char* why, const Damage& damage) {
    damage(from);
    const auto steps = composeTrace(from);
    ASSERT_FALSE(steps.empty());
    EXPECT_EQ(steps.back().name, name);
    EXPECT_EQ(steps.back().health, Health::Bad) << steps.back().found;
    EXPECT_THAT(steps.back().found, HasSubstr(why));
    EXPECT_FALSE(steps.back().fix.empty()) << name;
    for (size_t i = 0; i + 1 < steps.size(); ++i) EXPECT_NE(steps[i].health, Health::Bad) << steps[i].found;
}

void expectPass(
    TraceFacts from, Health health, const Damage& damage = [](TraceFacts&) {}) {
    damage(from);
    Health worst = Health::Good;
    for (const Check& step : composeTrace(from)) worst = std::max(worst, step.health);
    EXPECT_EQ(worst, health) << composeTrace(from).back().found;
}

firewall::PublishedPort published(uint16_t hostPort, uint16_t containerPort) {
    return {6, IpAddress::any(IpFamily::V4), hostPort, ip("10.1.0.3"), containerPort};
}

}  // namespace

TEST(Trace, NothingStopsWhatIsInOrder) {
    for (const TraceFacts& from : {neighbour(), remote(), elsewhere()}) expectPass(from, Health::Good);
    expectPass(host(), Health::Good, [](TraceFacts& facts) { facts.question.port = 0; });
    expectPass(host(), Health::Good, [](TraceFacts& facts) { facts.listening = true; });
    expectPass(host(), Health::Good, [](TraceFacts& facts) {
        facts.published = published(80, 8080);
        facts.targetNetwork = facts.network;
    });
}

TEST(Trace, TheContainersOwnSide) {
    expectStop(neighbour(), "container", "does not run", [](TraceFacts& facts) { facts.endpoint.sandboxKey.clear(); });
    expectStop(elsewhere(), "container", "no way",
               [](TraceFacts& facts) { facts.route = makeError(ErrorCode::Unavailable, ""); });
    expectStop(elsewhere(), "network", "internal", [](TraceFacts& facts) {
        facts.route = makeError(ErrorCode::Unavailable, "");
        facts.network.internal = true;
    });
    expectStop(neighbour(), "neighbour", "stale", [](TraceFacts& facts) { facts.cached = mac(4); });
    expectStop(neighbour(), "bridge", "not there", [](TraceFacts& facts) { facts.port.reset(); });
    expectStop(neighbour(), "bridge", "not a port", [](TraceFacts& facts) { facts.port->master = 0; });
    expectStop(neighbour(), "bridge", "is down", [](TraceFacts& facts) { facts.bridge->up = false; });
    TraceFacts foreign = elsewhere();
    foreign.leavesByWeft = false;
    EXPECT_EQ(composeTrace(foreign).back().health, Health::Warning);
}

TEST(Trace, ASenderThatIsNotItself) {
    const Damage checked = [](TraceFacts& facts) {
        facts.sender = net::PortSender{.mac = mac(2), .v4 = ip("10.1.0.2")};
    };
    expectPass(neighbour(), Health::Good, checked);
    const auto from = [&](const char* source, bool anyAddress = false) {
        return [&checked, source, anyAddress](TraceFacts& facts) {
            checked(facts);
            facts.sender->anyAddress = anyAddress;
            facts.route->source = ip(source);
        };
    };
    expectStop(neighbour(), "sender", "10.1.0.9 is not an address", from("10.1.0.9"));
    expectPass(neighbour(), Health::Good, from("169.254.1.1"));
    expectPass(neighbour(), Health::Good, from("10.1.0.9", true));
    expectPass(neighbour(), Health::Good, [](TraceFacts& facts) { facts.route->source = ip("10.1.0.9"); });

    const Damage caught = [&](TraceFacts& facts) {
        checked(facts);
        facts.drops[kDropArp] = 3;
        facts.drops[kDropMac] = 1;
    };
    expectPass(neighbour(), Health::Warning, caught);
    TraceFacts facts = neighbour();
    caught(facts);
    const auto steps = composeTrace(facts);
    const auto step = std::find_if(steps.begin(), steps.end(), [](const Check& each) { return each.name == "sender"; });
    ASSERT_NE(step, steps.end());
    EXPECT_THAT(step->found, HasSubstr("4 frames were dropped at wv1"));
    EXPECT_THAT(step->found, HasSubstr("mac 1, arp 3"));
    EXPECT_THAT(step->fix, HasSubstr("weft.spoof=allow"));
}

TEST(Trace, WithinABridge) {
    expectStop(neighbour(), "destination", "not connected", [](TraceFacts& facts) { facts.targetPort->master = 0; });
    expectStop(neighbour(), "icc", "tcp port 80", [](TraceFacts& facts) { facts.network.icc = false; });
    const Damage open = [](TraceFacts& facts) {
        facts.network.icc = false;
        facts.target->ports = {published(8080, 80)};
    };
    expectPass(neighbour(), Health::Good, open);
    expectStop(neighbour(), "icc", "tcp port 80", [&](TraceFacts& facts) {
        open(facts);
        facts.port->port.isolated = facts.targetPort->port.isolated = true;
    });
    expectStop(facts("10.1.0.7", TraceGoal::Nobody), "destination", "no container", [](TraceFacts&) {});
}

TEST(Trace, ThroughATunnel) {
    expectStop(remote(), "host", "is dead for 9 s",
               [](TraceFacts& facts) { facts.host->state = kv::MemberState::Dead; });
    expectStop(remote(), "key", "does not open", [](TraceFacts& facts) {
        facts.host->state = kv::MemberState::Dead;
        facts.host->unopened = std::chrono::seconds(2);
    });
    expectStop(remote(), "host", "is dead", [](TraceFacts& facts) {
        facts.host->state = kv::MemberState::Dead;
        facts.host->unopened = std::chrono::hours(2);
    });
    expectPass(remote(), Health::Warning, [](TraceFacts& facts) { facts.host->state = kv::MemberState::Suspect; });
    expectStop(remote(), "network", "other VNI", [](TraceFacts& facts) { facts.way->status.conflict = "other VNI"; });
    expectStop(remote(), "tunnel", "down", [](TraceFacts& facts) { facts.way->tunnel->up = false; });
    expectStop(remote(), "neighbour", "stale", [](TraceFacts& facts) { facts.way->neighbour = mac(4); });
    expectStop(remote(), "neighbour", "stale: the bridge", [](TraceFacts& facts) {
        facts.way->neighbour = facts.cached = mac(4);  // the container has it from the bridge
        facts.expected = mac(9);
    });
    expectStop(remote(), "neighbour", "nobody else is asked", [](TraceFacts& facts) { facts.way->neighbour.reset(); });
    expectStop(remote(), "fdb", "on the bridge", [](TraceFacts& facts) { facts.way->atTunnel = false; });
    expectPass(remote(), Health::Good, [](TraceFacts& facts) {
        facts.way->atTunnel = false;
        facts.fastPath = true;
    });
    expectStop(remote(), "fdb", "stale", [](TraceFacts& facts) { facts.way->remote = ip("192.0.2.3"); });
    const Damage forgetful = [](TraceFacts& facts) { facts.way->remote.reset(); };
    expectPass(remote(), Health::Warning, forgetful);
    expectStop(remote(), "fdb", "on wxa", [&](TraceFacts& facts) {
        forgetful(facts);
        facts.way->floods = false;
    });
    expectStop(remote(), "underlay", "no route",
               [](TraceFacts& facts) { facts.underlay = makeError(ErrorCode::Unavailable, ""); });
    expectStop(remote(), "mtu", "more than 1350 bytes", [](TraceFacts& facts) { facts.underlay->mtu = 1400; });
}

TEST(Trace, ToTheHostAndOtherNetworks) {
    expectStop(host(), "port", "not published", [](TraceFacts&) {});
    expectStop(host(), "network", "internal", [](TraceFacts& facts) {
        facts.network.internal = true;
        facts.published = published(80, 8080);
        facts.targetNetwork = firewall::Network{};
    });
    expectStop(other(), "port", "not published", [](TraceFacts&) {});
    expectStop(other(), "network", "host's addresses only",
               [](TraceFacts& facts) { facts.target->ports = {published(8080, 80)}; });
    expectStop(other(), "network", "which is internal",
               [](TraceFacts& facts) { facts.targetNetwork->internal = true; });
    const Damage routed = [](TraceFacts& facts) { facts.targetNetwork->modeV4 = firewall::GatewayMode::Routed; };
    expectStop(other(), "port", "not published", routed);
    expectPass(other(), Health::Good, [&](TraceFacts& facts) {
        routed(facts);
        facts.target->ports = {published(8080, 80)};
    });
}

TEST(Trace, OutOfTheHost) {
    expectStop(elsewhere(), "network", "internal", [](TraceFacts& facts) { facts.network.internal = true; });
    expectStop(elsewhere(), "forwarding", "off", [](TraceFacts& facts) { facts.forwarding = false; });
    expectStop(elsewhere(), "route", "none",
               [](TraceFacts& facts) { facts.outward = makeError(ErrorCode::Unavailable, ""); });
    expectStop(elsewhere(), "network", "of the engine", [](TraceFacts& facts) { facts.toEngine = true; });
    expectPass(elsewhere(), Health::Warning, [](TraceFacts& facts) { facts.network.masquerade = false; });
}

TEST(Trace, Rules) {
    const auto meets = [](std::vector<firewall::Obstacle> obstacles) {
        return [obstacles = std::move(obstacles)](TraceFacts& facts) { facts.obstacles = obstacles; };
    };
    expectStop(elsewhere(), "rules", "nft inet fw way: drop", meets({{"nft inet fw way", "drop", "delete it", true}}));
    expectStop(elsewhere(), "rules", "weft's passage",
               meets({{"nft ip filter FORWARD", "policy drop", "insert a rule", true}}));
    expectPass(elsewhere(), Health::Warning, meets({{"nft inet fw way", "meta mark 1 drop", "delete it", false}}));
    expectPass(elsewhere(), Health::Warning,
               [](TraceFacts& facts) { facts.obstacles = makeError(ErrorCode::Timeout, "lock"); });
}

}  // namespace weft::driver
