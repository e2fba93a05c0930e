// What passes and what does not, proven with packets. One test a sentence of the intent in firewall/firewall.h.
#include <thread>

#include "tests/netns/firewall/suite_fixture.h"

namespace weft::firewall::suite {

class Traffic : public FirewallSuite {};
INSTANTIATE_TEST_SUITE_P(All, Traffic, testing::ValuesIn(settings()), settingName);

TEST_P(Traffic, EgressIsMasqueraded) {
    setAllNetworks();
    for (const auto family : kFamilies) {
        const auto outside = address(Place::Outside, family);
        for (const auto protocol : {kTcp, kUdp, kSctp}) {
            open("to the outside", {Place::A1, outside, 7, Place::Outside, 7, protocol}, address(Place::Host, family));
        }
        EXPECT_TRUE(lab->ping(Place::A1, outside));
    }
}

TEST_P(Traffic, EgressTakesTheHostAddressAsked) {
    auto net = network(Net::A);
    net.hostAddressV4 = secondHostAddress(IpFamily::V4);
    net.hostAddressV6 = secondHostAddress(IpFamily::V6);
    ok(firewall->setNetwork(net));
    for (const auto family : kFamilies) {
        open("to the outside", {Place::A1, address(Place::Outside, family), 7, Place::Outside, 7},
             secondHostAddress(family));
    }
}

TEST_P(Traffic, EgressKeepsItsAddressWithoutMasquerade) {
    setAllNetworks();
    for (const auto family : kFamilies) {
        const auto outside = address(Place::Outside, family);
        open("not masqueraded", {Place::P1, outside, 7, Place::Outside, 7}, address(Place::P1, family));
        open("routed", {Place::R1, outside, 7, Place::Outside, 7, kUdp}, address(Place::R1, family));
    }
}

TEST_P(Traffic, SameNetworkIsNotTranslated) {
    setAllNetworks();
    for (const auto family : kFamilies) {
        open("a neighbour", {Place::A1, address(Place::A2, family), 80, Place::A2, 80}, address(Place::A1, family));
        EXPECT_TRUE(lab->ping(Place::A1, address(Place::A2, family)));
    }
}

TEST_P(Traffic, PublishedPortsAnswerOutsideWithTheClientsAddress) {
    setAllNetworks();
    std::vector<PublishedPort> ports;
    for (const auto protocol : {kTcp, kUdp, kSctp}) {
        for (const auto& one : bothFamilies(8080, Place::A1, 80, protocol)) ports.push_back(one);
    }
    ok(firewall->setEndpoint(endpoint("a1", Net::A, ports)));
    ok(firewall->setEndpoint(endpoint("p1", Net::P, bothFamilies(8081, Place::P1, 80))));
    for (const auto family : kFamilies) {
        const auto outside = address(Place::Outside, family);
        for (const auto protocol : {kTcp, kUdp, kSctp}) {
            open("published", {Place::Outside, address(Place::Host, family), 8080, Place::A1, 80, protocol}, outside);
        }
        open("another host address", {Place::Outside, secondHostAddress(family), 8080, Place::A1, 80}, outside);
        open("the gateway's address", {Place::Outside, gateway(Net::A, family), 8080, Place::A1, 80}, outside);
        open("without masquerade", {Place::Outside, address(Place::Host, family), 8081, Place::P1, 80}, outside);
        closed("not published", {Place::Outside, address(Place::Host, family), 8082, Place::A1, 80});
    }
}

TEST_P(Traffic, QueriesGoToTheResolver) {
    constexpr uint16_t kDns = 53;
    const auto answered = [&](const char* what, Place from, const IpAddress& to, uint16_t port, uint8_t protocol) {
        open(what, {from, to, kDns, Place::Host, port, protocol}, address(from, to.family()));
    };
    auto a = network(Net::A);
    auto b = network(Net::B);
    auto i = network(Net::I);
    a.resolve = i.resolve = true;
    ok(firewall->setResolver(kResolverPort));
    for (const auto& one : {a, b}) ok(firewall->setNetwork(one));
    ok(firewall->setNetwork(i));
    const Vouching vouching(*firewall);
    for (const auto family : kFamilies) {
        const auto outside = address(Place::Outside, family);
        for (const auto protocol : {kUdp, kTcp}) {
            for (const auto& to : {outside, gateway(Net::A, family), address(Place::Host, family)}) {
                answered("with `resolve`", Place::A1, to, kResolverPort, protocol);
            }
            for (const auto& to : {outside, gateway(Net::I, family)}) {
                answered("an internal network", Place::I1, to, kResolverPort, protocol);
            }
            open("a server in the network", {Place::A1, address(Place::A2, family), kDns, Place::A2, kDns, protocol},
                 address(Place::A1, family));
            open("another port", {Place::A1, outside, 54, Place::Outside, 54, protocol});
            open("without `resolve`", {Place::B1, outside, kDns, Place::Outside, kDns, protocol});
            answered("without `resolve`, the gateway", Place::B1, gateway(Net::B, family), kDns, protocol);
            answered("from outside", Place::Outside, address(Place::Host, family), kDns, protocol);
            answered("from the host", Place::Host, address(Place::Host, family), kDns, protocol);
        }
    }
    ok(firewall->setResolver(kResolverPort + 1));
    b.resolve = true;
    ok(firewall->setNetwork(b));
    a.resolve = false;
    ok(firewall->setNetwork(a));
    for (const auto family : kFamilies) {
        const auto outside = address(Place::Outside, family);
        answered("from now on", Place::B1, outside, kResolverPort + 1, kUdp);
        open("no longer", {Place::A1, outside, kDns, Place::Outside, kDns, kUdp});
    }
    ok(firewall->setResolver(0));
    for (const auto family : kFamilies) {
        const auto outside = address(Place::Outside, family);
        open("no resolver", {Place::B1, outside, kDns, Place::Outside, kDns, kUdp});
        answered("no resolver, the gateway", Place::B1, gateway(Net::B, family), kDns, kUdp);
    }
    const Intent intent{{a, b, i}, {}};
    EXPECT_EQ(firewall->sync(intent, true)->repairs, std::vector<std::string>{});
}

// Also for a client that keeps its source port, so that conntrack knows the flow.
TEST_P(Traffic, QueriesGoWhereTheyWereSentASecondAfterTheResolverFellSilent) {
    constexpr uint16_t kDns = 53;
    auto a = network(Net::A);
    a.resolve = true;
    ok(firewall->setResolver(kResolverPort));
    ok(firewall->setNetwork(a));
    const auto ask = [&](IpFamily family, Place server, uint16_t port) {
        const Probe probe{.from = Place::A1,
                          .to = address(Place::Outside, family),
                          .port = kDns,
                          .server = server,
                          .serverPort = port,
                          .protocol = kUdp,
                          .bind = address(Place::A1, family),
                          .bindPort = 5353};
        return lab->exchange(probe, kClosedPatience, false).has_value();
    };
    const auto direct = [&](IpFamily family) { return ask(family, Place::Outside, kDns); };
    const auto redirected = [&](IpFamily family) { return ask(family, Place::Host, kResolverPort); };
    for (const auto family : kFamilies) EXPECT_TRUE(direct(family)) << "nobody has vouched yet";
    for (int round = 0; round < 2; ++round) {
        {
            const Vouching vouching(*firewall);
            for (const auto family : kFamilies) EXPECT_TRUE(redirected(family)) << "it answers";
        }
        const auto silent = std::chrono::steady_clock::now();
        for (const auto family : kFamilies) {
            while (!direct(family)) ASSERT_LT(std::chrono::steady_clock::now(), silent + kOpenPatience);
        }
        EXPECT_LT(std::chrono::steady_clock::now(), silent + kVouchHolds + 4 * kClosedPatience);
    }
    EXPECT_EQ(firewall->sync({{a}, {}}, true)->repairs, std::vector<std::string>{});
}

TEST_P(Traffic, TheResolverComesBeforePublishedPorts) {
    constexpr uint16_t kDns = 53;
    lab->run(Place::Host,
             "for i in iptables-legacy ip6tables-legacy; do $i -t nat -N DOCKER; "
             "$i -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; "
             "$i -t nat -A DOCKER -p tcp --dport 53 -j REDIRECT --to-ports 9053; done");
    auto net = network(Net::A);
    net.resolve = true;
    ok(firewall->setNetwork(net));
    setNetworks({Net::B});
    ok(firewall->setEndpoint(endpoint("a2", Net::A, bothFamilies(kDns, Place::A2, kDns, kUdp))));
    ok(firewall->setResolver(kResolverPort));
    const Vouching vouching(*firewall);
    for (const auto family : kFamilies) {
        const auto host = address(Place::Host, family);
        for (const auto protocol : {kUdp, kTcp}) {
            for (const auto& to : {host, gateway(Net::A, family)}) {
                open("a query", {Place::A1, to, kDns, Place::Host, kResolverPort, protocol});
            }
        }
        for (const auto from : {Place::Outside, Place::B1}) {
            open("published", {from, host, kDns, Place::A2, kDns, kUdp});
            open("published by the engine", {from, host, kDns, Place::Host, 9053, kTcp});
        }
    }
}

TEST_P(Traffic, ReplacingPortsClosesTheOldOnes) {
    setNetworks({Net::A});
    for (const auto family : kFamilies) {
        const auto host = address(Place::Host, family);
        ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
        ok(firewall->setEndpoint(endpoint("a2", Net::A, bothFamilies(8090, Place::A2, 80))));
        open("first", {Place::Outside, host, 8080, Place::A1, 80});
        ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8081, Place::A1, 81))));
        open("second", {Place::Outside, host, 8081, Place::A1, 81});
        closed("first", {Place::Outside, host, 8080, Place::A1, 80});
        ok(firewall->setEndpoint(endpoint("a1", Net::A, {})));
        closed("emptied", {Place::Outside, host, 8081, Place::A1, 81});
        ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8082, Place::A1, 80))));
        ok(firewall->removeEndpoint(EndpointId("a1")));
        ok(firewall->removeEndpoint(EndpointId("a1")));
        closed("removed", {Place::Outside, host, 8082, Place::A1, 80});
        open("the other endpoint's", {Place::Outside, host, 8090, Place::A2, 80});
    }
}

TEST_P(Traffic, PublishedOnOneHostAddressOnly) {
    setNetworks({Net::A});
    std::vector<PublishedPort> ports;
    for (const auto family : kFamilies) {
        ports.push_back(port(8080, Place::A1, 80, family, kTcp, secondHostAddress(family)));
        ports.push_back(port(8080, Place::A1, 81, family, kTcp, address(Place::Host, family)));
    }
    ok(firewall->setEndpoint(endpoint("a1", Net::A, ports)));
    for (const auto family : kFamilies) {
        open("its address", {Place::Outside, secondHostAddress(family), 8080, Place::A1, 80});
        open("the same port on another", {Place::Outside, address(Place::Host, family), 8080, Place::A1, 81});
        closed("a third", {Place::Outside, gateway(Net::A, family), 8080, Place::A1, 80});
    }
}

TEST_P(Traffic, TheHostReachesPublishedPorts) {
    setAllNetworks();
    for (const auto protocol : {kTcp, kUdp, kSctp}) {
        const auto id = std::to_string(protocol);
        ok(firewall->setEndpoint(endpoint(id, Net::A, bothFamilies(8080, Place::A1, 80, protocol))));
        for (const auto family : kFamilies) {
            open("by its address", {Place::Host, address(Place::Host, family), 8080, Place::A1, 80, protocol});
            open("by the gateway", {Place::Host, gateway(Net::A, family), 8080, Place::A1, 80, protocol});
            open("directly", {Place::Host, address(Place::A1, family), 80, Place::A1, 80, protocol});
        }
        // ::1 cannot be translated: the kernel never lets it leave for another link.
        open("by 127.0.0.1", {Place::Host, ip("127.0.0.1"), 8080, Place::A1, 80, protocol},
             gateway(Net::A, IpFamily::V4));
        open("by 127.1.2.3", {Place::Host, ip("127.1.2.3"), 8080, Place::A1, 80, protocol});
    }
}

TEST_P(Traffic, TheHostsOwnServicesStayItsOwn) {
    setAllNetworks();
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    for (const auto family : kFamilies) {
        open("loopback", {Place::Host, loopback(family), 9000, Place::Host, 9000}, loopback(family));
        open("from outside", {Place::Outside, address(Place::Host, family), 9000, Place::Host, 9000});
        open("from a container", {Place::A1, gateway(Net::A, family), 9000, Place::Host, 9000},
             address(Place::A1, family));
        open("another host's same port", {Place::A1, address(Place::Outside, family), 8080, Place::Outside, 8080});
        open("the host to another's same port",
             {Place::Host, address(Place::Outside, family), 8080, Place::Outside, 8080});
    }
    open("::1", {Place::Host, ip("::1"), 8080, Place::Host, 8080});
}

TEST_P(Traffic, Hairpin) {
    setAllNetworks();
    for (const auto protocol : {kTcp, kUdp, kSctp}) {
        const auto id = std::to_string(protocol);
        ok(firewall->setEndpoint(endpoint(id, Net::A, bothFamilies(8080, Place::A1, 80, protocol))));
        for (const auto family : kFamilies) {
            for (const auto& host : {address(Place::Host, family), gateway(Net::A, family)}) {
                open("a neighbour", {Place::A2, host, 8080, Place::A1, 80, protocol}, gateway(Net::A, family));
                open("itself", {Place::A1, host, 8080, Place::A1, 80, protocol}, gateway(Net::A, family));
            }
        }
    }
    ok(firewall->setEndpoint(endpoint("p1", Net::P, bothFamilies(8081, Place::P1, 80))));
    for (const auto family : kFamilies) {
        open("without masquerade", {Place::P1, address(Place::Host, family), 8081, Place::P1, 80});
    }
}

TEST_P(Traffic, OtherNetworksReachPublishedPortsThroughTheHost) {
    setAllNetworks();
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    ok(firewall->setEndpoint(endpoint("p1", Net::P, bothFamilies(8081, Place::P1, 80))));
    for (const auto family : kFamilies) {
        for (const auto& host : {address(Place::Host, family), gateway(Net::A, family), gateway(Net::B, family)}) {
            open("published", {Place::B1, host, 8080, Place::A1, 80});
            open("from a network without masquerade", {Place::P1, host, 8080, Place::A1, 80},
                 address(Place::P1, family));
            open("from a routed network", {Place::R1, host, 8080, Place::A1, 80});
            open("of a network without masquerade", {Place::B1, host, 8081, Place::P1, 80});
        }
    }
}

TEST_P(Traffic, NetworksAreIsolated) {
    setAllNetworks();
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    ok(firewall->setEndpoint(endpoint("p1", Net::P, bothFamilies(8081, Place::P1, 80))));
    for (const auto family : kFamilies) {
        const auto a1 = address(Place::A1, family);
        for (const auto protocol : {kTcp, kUdp, kSctp}) {
            closed("an unpublished port", {Place::B1, a1, 81, Place::A1, 81, protocol});
        }
        for (const auto from : {Place::B1, Place::P1, Place::R1}) {
            closed("a published port, at the container's address", {from, a1, 80, Place::A1, 80});
            if (from == Place::P1) continue;
            closed("the same without masquerade", {from, address(Place::P1, family), 80, Place::P1, 80});
        }
        EXPECT_FALSE(lab->ping(Place::B1, a1));
        EXPECT_FALSE(lab->ping(Place::B1, address(Place::P1, family)));
    }
}

TEST_P(Traffic, TheOutsideCannotRouteIn) {
    setAllNetworks();
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    ok(firewall->setEndpoint(endpoint("p1", Net::P, bothFamilies(8081, Place::P1, 80))));
    for (const auto family : kFamilies) {
        for (const auto place : {Place::A1, Place::P1}) {
            const auto container = address(place, family);
            for (const auto protocol : {kTcp, kUdp, kSctp}) {
                closed("an unpublished port", {Place::Outside, container, 81, place, 81, protocol});
            }
            closed("a published port", {Place::Outside, container, 80, place, 80});
            EXPECT_FALSE(lab->ping(Place::Outside, container));
        }
    }
}

TEST_P(Traffic, LoopbackPortsAreForTheHostOnly) {
    setAllNetworks();
    const auto local = ip("127.0.0.1");
    for (const auto protocol : {kTcp, kUdp, kSctp}) {
        ok(firewall->setEndpoint(
            endpoint(std::to_string(protocol), Net::A, {port(8080, Place::A1, 80, IpFamily::V4, protocol, local)})));
        open("the host", {Place::Host, local, 8080, Place::A1, 80, protocol});
        closed("the host by another address",
               {Place::Host, address(Place::Host, IpFamily::V4), 8080, Place::A1, 80, protocol});
        for (const auto from : {Place::Outside, Place::A2, Place::B1}) {
            closed("the host's address", {from, address(Place::Host, IpFamily::V4), 8080, Place::A1, 80, protocol});
        }
        // A neighbour on the wire that routes 127.0.0.0/8 here.
        closed("a routed loopback address", {Place::Outside, local, 8080, Place::A1, 80, protocol});
    }
}

TEST_P(Traffic, ContainersCannotUseTheBridgesLoopbackRoute) {
    setAllNetworks();
    ok(firewall->setEndpoint(endpoint("b1", Net::B, {port(8080, Place::B1, 80, IpFamily::V4, kUdp, ip("127.0.0.1"))})));
    lab->run(Place::A1,
             "ip addr flush dev lo; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; "
             "ip route add 127.0.0.0/8 via 10.1.0.1 src 10.1.0.2; ip addr add 127.0.0.5/32 dev eth0");
    const auto local = ip("127.0.0.1");
    closed("a service on the host's loopback", {Place::A1, local, 9000, Place::Host, 9000, kUdp, {}, local});
    closed("a port published on it", {Place::A1, local, 8080, Place::B1, 80, kUdp});
    closed("from a loopback address",
           {Place::A1, gateway(Net::A, IpFamily::V4), 9000, Place::Host, 9000, kUdp, ip("127.0.0.5")});
}

TEST_P(Traffic, IccOff) {
    auto net = network(Net::A);
    net.icc = false;
    ok(firewall->setNetwork(net));
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    for (const auto family : kFamilies) {
        const auto a1 = address(Place::A1, family);
        open("published, directly", {Place::A2, a1, 80, Place::A1, 80});
        open("published, by the host", {Place::A2, address(Place::Host, family), 8080, Place::A1, 80});
        open("published, from outside", {Place::Outside, address(Place::Host, family), 8080, Place::A1, 80});
        open("the host", {Place::Host, a1, 81, Place::A1, 81});
        open("egress", {Place::A1, address(Place::Outside, family), 7, Place::Outside, 7});
        // Without br_netfilter frames between two ports never pass a packet filter's hooks.
        if (!GetParam().bridgeNetfilter) continue;
        for (const auto protocol : {kTcp, kUdp, kSctp}) {
            closed("unpublished", {Place::A2, a1, 81, Place::A1, 81, protocol});
        }
        EXPECT_FALSE(lab->ping(Place::A2, a1));
    }
}

TEST_P(Traffic, InternalNetworks) {
    setAllNetworks();
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    ok(firewall->setEndpoint(endpoint("i1", Net::I, bothFamilies(8081, Place::I1, 80))));
    for (const auto family : kFamilies) {
        const auto i1 = address(Place::I1, family);
        open("within", {Place::I2, i1, 80, Place::I1, 80}, address(Place::I2, family));
        closed("to the outside", {Place::I1, address(Place::Outside, family), 7, Place::Outside, 7});
        closed("to the outside", {Place::I1, address(Place::Outside, family), 7, Place::Outside, 7, kUdp});
        closed("to a network", {Place::I1, address(Place::A1, family), 80, Place::A1, 80});
        closed("to a routed network", {Place::I1, address(Place::R1, family), 80, Place::R1, 80});
        closed("to a published port", {Place::I1, gateway(Net::I, family), 8080, Place::A1, 80});
        for (const auto from : {Place::Outside, Place::A1, Place::R1, Place::P1}) {
            closed("directly", {from, i1, 80, Place::I1, 80});
            closed("as if published", {from, address(Place::Host, family), 8081, Place::I1, 80});
        }
        EXPECT_FALSE(lab->ping(Place::I1, address(Place::Outside, family)));
        EXPECT_FALSE(lab->ping(Place::Outside, i1));
    }
}

TEST_P(Traffic, RoutedMode) {
    setAllNetworks();
    std::vector<PublishedPort> ports;
    for (const auto protocol : {kTcp, kUdp, kSctp}) {
        for (const auto& one : bothFamilies(8080, Place::R1, 80, protocol)) ports.push_back(one);
    }
    ok(firewall->setEndpoint(endpoint("r1", Net::R, ports)));
    for (const auto family : kFamilies) {
        const auto r1 = address(Place::R1, family);
        for (const auto protocol : {kTcp, kUdp, kSctp}) {
            open("published", {Place::Outside, r1, 80, Place::R1, 80, protocol}, address(Place::Outside, family));
            closed("unpublished", {Place::Outside, r1, 81, Place::R1, 81, protocol});
        }
        open("from another network", {Place::B1, r1, 80, Place::R1, 80});
        closed("unpublished, from another network", {Place::B1, r1, 81, Place::R1, 81});
        closed("no mapping", {Place::Outside, address(Place::Host, family), 8080, Place::R1, 80});
        EXPECT_TRUE(lab->ping(Place::Outside, r1));
        EXPECT_TRUE(lab->ping(Place::B1, r1));
    }
}

TEST_P(Traffic, RoutedIpv6BesideNatIpv4) {
    auto net = network(Net::A);
    net.modeV6 = GatewayMode::Routed;
    ok(firewall->setNetwork(net));
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    open("nat", {Place::Outside, address(Place::Host, IpFamily::V4), 8080, Place::A1, 80});
    closed("nat, directly", {Place::Outside, address(Place::A1, IpFamily::V4), 80, Place::A1, 80});
    open("routed", {Place::Outside, address(Place::A1, IpFamily::V6), 80, Place::A1, 80});
    closed("routed, by the host", {Place::Outside, address(Place::Host, IpFamily::V6), 8080, Place::A1, 80});
}

TEST_P(Traffic, SeveralSubnets) {
    auto net = network(Net::A);
    net.subnets.push_back(IpPrefix::parse("10.11.0.0/24").value());
    net.subnets.push_back(IpPrefix::parse("fd00:11::/64").value());
    ok(firewall->setNetwork(net));
    setNetworks({Net::B});
    lab->run(Place::Host, "ip addr add 10.11.0.1/24 dev br-a; ip addr add fd00:11::1/64 dev br-a nodad");
    lab->run(Place::A1,
             "ip addr flush dev eth0; ip addr add 10.11.0.2/24 dev eth0; ip addr add fd00:11::2/64 dev eth0 nodad; "
             "ip route replace default via 10.11.0.1; ip route replace default via fd00:11::1");
    ok(firewall->setEndpoint(
        endpoint("a1", Net::A,
                 {{kTcp, ip("0.0.0.0"), 8080, ip("10.11.0.2"), 80}, {kTcp, ip("::"), 8080, ip("fd00:11::2"), 80}})));
    for (const auto family : kFamilies) {
        const auto a1 = ip(family == IpFamily::V4 ? "10.11.0.2" : "fd00:11::2");
        const auto host = address(Place::Host, family);
        open("egress", {Place::A1, address(Place::Outside, family), 7, Place::Outside, 7}, host);
        open("published", {Place::Outside, host, 8080, Place::A1, 80});
        open("hairpin from the other subnet", {Place::A2, host, 8080, Place::A1, 80});
        closed("directly", {Place::Outside, a1, 80, Place::A1, 80});
        closed("from another network", {Place::B1, a1, 80, Place::A1, 80});
    }
}

TEST_P(Traffic, ARemovedNetworkLeavesTheOthersAlone) {
    setAllNetworks();
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    ok(firewall->removeNetwork(network(Net::B).id));
    ok(firewall->removeNetwork(network(Net::B).id));
    ok(firewall->removeNetwork(network(Net::I).id));
    for (const auto family : kFamilies) {
        open("published", {Place::Outside, address(Place::Host, family), 8080, Place::A1, 80});
        open("egress", {Place::A1, address(Place::Outside, family), 7, Place::Outside, 7});
        closed("directly", {Place::Outside, address(Place::A1, family), 80, Place::A1, 80});
    }
}

// Connections live on while the rules around them change, as they do on every publish.
TEST_P(Traffic, OpenConnectionsSurviveChanges) {
    lab->run(Place::Host, "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP");
    setNetworks({Net::A});
    lab->run(Place::Outside, "ping -n -q -i 0.01 -c 50 192.0.2.1 > /dev/null");
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    for (const auto family : kFamilies) {
        const auto pings = std::string("ping -n -q -i 0.01 -c 100 ") + address(Place::Outside, family).str() +
                           " | grep -o '[0-9]* received'";
        std::string received;
        std::thread pinger([&] { received = lab->run(Place::A1, pings); });
        for (int i = 0; i < 50; ++i) {
            EXPECT_TRUE(firewall->setEndpoint(
                endpoint("a2", Net::A, bothFamilies(static_cast<uint16_t>(9000 + i), Place::A2, 80))));
            EXPECT_TRUE(firewall->setNetwork(network(Net::B)));
            EXPECT_TRUE(firewall->removeNetwork(network(Net::B).id));
        }
        pinger.join();
        EXPECT_EQ(received, "100 received\n");
    }
}

// Beside an engine that writes legacy tables: its policy and its chains do not stop weft, its users' rules do.
class BesideEngine : public FirewallSuite {
protected:
    void startEngine() {
        for (const char* tool : {"iptables-legacy", "ip6tables-legacy"}) {
            const std::string t = tool;
            lab->run(Place::Host, t + " -P FORWARD DROP; for c in DOCKER-USER DOCKER-FORWARD DOCKER; do " + t +
                                      " -L $c -n >/dev/null 2>&1 || " + t + " -N $c; done; " + t +
                                      " -D FORWARD -j DOCKER-FORWARD 2>/dev/null; " + t +
                                      " -D FORWARD -j DOCKER-USER 2>/dev/null; " + t +
                                      " -I FORWARD -j DOCKER-FORWARD; " + t + " -I FORWARD -j DOCKER-USER; " + t +
                                      " -F DOCKER-FORWARD; " + t + " -A DOCKER-FORWARD -o br-r -j ACCEPT; " + t +
                                      " -A DOCKER-FORWARD -i br-b -j DROP");
        }
    }
    Intent intent() {
        return {{network(Net::A), network(Net::B), network(Net::R)},
                {endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))}};
    }
    void check() {
        for (const auto family : kFamilies) {
            const auto host = address(Place::Host, family);
            open("egress", {Place::A1, address(Place::Outside, family), 7, Place::Outside, 7}, host);
            open("egress past the engine's drop", {Place::B1, address(Place::Outside, family), 7, Place::Outside, 7});
            open("published", {Place::Outside, host, 8080, Place::A1, 80}, address(Place::Outside, family));
            open("within", {Place::A1, address(Place::A2, family), 80, Place::A2, 80});
            closed("opened by nobody but the engine", {Place::Outside, address(Place::R1, family), 81, Place::R1, 81});
        }
    }
};
INSTANTIATE_TEST_SUITE_P(All, BesideEngine, testing::ValuesIn(settings()), settingName);

TEST_P(BesideEngine, EngineFirst) {
    startEngine();
    ASSERT_TRUE(firewall->sync(intent(), false));
    check();
}

TEST_P(BesideEngine, EngineRestarts) {
    ASSERT_TRUE(firewall->sync(intent(), false));
    startEngine();
    const auto report = firewall->sync(intent(), false);
    ASSERT_TRUE(report);
    EXPECT_FALSE(report->repairs.empty());
    check();
    startEngine();
    ASSERT_TRUE(firewall->sync(intent(), false));
    check();
    EXPECT_TRUE(firewall->sync(intent(), true)->repairs.empty());
}

TEST_P(BesideEngine, UsersKeepTheirSay) {
    startEngine();
    ASSERT_TRUE(firewall->sync(intent(), false));
    lab->run(Place::Host,
             "iptables-legacy -I DOCKER-USER -s 192.0.2.2 -j DROP; "
             "ip6tables-legacy -I DOCKER-USER -s 2001:db8::2 -j DROP");
    for (const auto family : kFamilies) {
        const Probe probe{Place::Outside, address(Place::Host, family), 8080, Place::A1, 80};
        closed("forbidden by the user", probe);
    }
    ASSERT_TRUE(firewall->sync(intent(), false));
    for (const auto family : kFamilies) {
        closed("still", {Place::Outside, address(Place::Host, family), 8080, Place::A1, 80});
    }
    lab->run(Place::Host, "iptables-legacy -F DOCKER-USER; ip6tables-legacy -F DOCKER-USER");
    check();
}

}  // namespace weft::firewall::suite
