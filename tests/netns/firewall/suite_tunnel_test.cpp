// The guard of the tunnel port and of the resolver's. Each case first shows that its packet arrives without the guard.
#include "tests/netns/firewall/suite_fixture.h"

namespace weft::firewall::suite {

class TunnelGuard : public FirewallSuite {
protected:
    static constexpr uint16_t kPort = 4789;

    static firewall::Tunnel tunnel(IpFamily family) {
        const std::set<IpAddress> members = {address(Place::Outside, family)};
        return {kPort, members, members, address(Place::Host, family), "eth0"};
    }
    static Probe toHost(Place from, const IpAddress& to, uint16_t port = kPort) {
        return {from, to, port, Place::Host, port, kUdp};
    }
    static Probe toMember(Place from, IpFamily family) {
        return {from, address(Place::Outside, family), kPort, Place::Outside, kPort, kUdp};
    }
    static std::vector<IpAddress> toMany(Place from, IpFamily family) {
        if (family == IpFamily::V6) return {ip("ff02::1")};
        return {ip(from == Place::Outside ? "192.0.2.255"
                   : from == Place::I1    ? "10.3.0.255"
                                          : "10.1.0.255"),
                ip("255.255.255.255"), ip("224.0.0.1")};
    }

    void arrives(const char* what, const Probe& probe) {
        ASSERT_TRUE(lab->exchange(probe, kOpenPatience, true)) << what << " (" << probe.to.str() << "): lost";
    }
    void rpFilter(int mode) {
        lab->run(Place::Host,
                 "for i in /proc/sys/net/ipv4/conf/*/rp_filter; do echo " + std::to_string(mode) + " > $i; done");
    }
};
INSTANTIATE_TEST_SUITE_P(All, TunnelGuard, testing::ValuesIn(settings()), settingName);

TEST_P(TunnelGuard, TakesMembersOnly) {
    setNetworks({Net::A});
    const Intent intent{{network(Net::A)}, {}};
    for (const auto family : kFamilies) {
        const auto host = address(Place::Host, family);
        const auto direct = toHost(Place::Outside, host);
        open("before", direct);
        auto alone = tunnel(family);
        alone.members.clear();
        ok(firewall->setTunnel(alone));
        closed("a stranger", direct);
        open("another port", toHost(Place::Outside, host, kPort + 1));
        ok(firewall->setTunnel(tunnel(family)));
        open("a member", direct, address(Place::Outside, family));
        closed("a container", toHost(Place::A1, host));
        closed("its gateway", toHost(Place::A1, gateway(Net::A, family)));

        EXPECT_EQ(firewall->sync(intent, true)->repairs, std::vector<std::string>{});
        lab->run(Place::Host, "nft flush ruleset; iptables-legacy -t mangle -F; ip6tables-legacy -t mangle -F");
        EXPECT_NE(firewall->sync(intent, false)->repairs, std::vector<std::string>{});
        open("a member", direct);
        closed("a container", toHost(Place::A1, host));

        ok(firewall->removeNetwork(network(Net::A).id));
        ok(firewall->setTunnel(alone));
        closed("no member any more", direct);
        ok(firewall->setTunnel({}));
        open("after", direct);
        ok(firewall->setNetwork(network(Net::A)));
    }
}

// The kernel's vxlan socket is bound to no address.
TEST_P(TunnelGuard, TakesWhatIsSentToTheTunnelsAddress) {
    setNetworks({Net::A, Net::I});
    for (const auto family : kFamilies) {
        const auto each = [&](const auto& check) {
            for (const auto from : {Place::Outside, Place::A1, Place::I1}) {
                for (const auto& to : toMany(from, family)) check(toHost(from, to));
            }
            check(toHost(Place::Outside, secondHostAddress(family)));
            check(toHost(Place::Outside, gateway(Net::A, family)));
        };
        each([&](const Probe& probe) { arrives("before", probe); });
        ok(firewall->setTunnel(tunnel(family)));
        each([&](const Probe& probe) { closed("to another address", probe); });
        arrives("between containers", {Place::A1, toMany(Place::A1, family)[0], kPort, Place::A2, kPort, kUdp});
        ok(firewall->setTunnel({}));
    }
}

TEST_P(TunnelGuard, ABorrowedSourceOpensNothing) {
    setNetworks({Net::A, Net::I});
    for (const auto family : kFamilies) {
        const auto member = address(Place::Outside, family);
        for (const auto from : {Place::A1, Place::I1}) {
            lab->run(from, "ip addr add " + member.str() + (family == IpFamily::V4 ? "/32" : "/128 nodad") + " dev lo");
        }
        for (const int mode : {0, 2}) {
            rpFilter(mode);
            for (const auto from : {Place::A1, Place::I1}) {
                auto probe = toHost(from, gateway(from == Place::A1 ? Net::A : Net::I, family));
                probe.bind = member;
                auto firewallOff = tunnel(family);
                firewallOff.port = 0;
                ok(firewall->setTunnel(firewallOff));
                arrives("before", probe);
                ok(firewall->setTunnel(tunnel(family)));
                closed("a container as a member", probe);
                probe.to = address(Place::Host, family);
                closed("a container as a member", probe);
            }
        }
        ok(firewall->setTunnel({}));
    }
}

// With "iptables": false no table names the engine's bridges.
TEST_P(TunnelGuard, AnEngineWithoutRulesIsKnownByItsBridgesNames) {
    EXPECT_EQ(lab->run(Place::Host,
                       "echo 1 > /proc/sys/net/ipv6/conf/br-b/keep_addr_on_down; ip link set br-b down; "
                       "ip link set br-b name br-0123456789ab; ip link set br-0123456789ab up"),
              "");
    setNetworks({Net::A});
    rpFilter(0);
    for (const auto family : kFamilies) {
        const auto member = address(Place::Outside, family);
        lab->run(Place::B1,
                 "ip addr add " + member.str() + (family == IpFamily::V4 ? "/32" : "/128 nodad") + " dev lo");
        auto probe = toHost(Place::B1, gateway(Net::B, family));
        probe.bind = member;
        arrives("before", probe);
        ok(firewall->setTunnel(tunnel(family)));
        ASSERT_TRUE(firewall->sync({{network(Net::A)}, {}}, false));
        closed("a container as a member", probe);
        probe.to = address(Place::Host, family);
        closed("a container as a member", probe);
        ok(firewall->setTunnel({}));
    }
}

TEST_P(TunnelGuard, NobodyBorrowsTheHostsAddress) {
    setNetworks({Net::A});
    lab->run(Place::Outside, "ip addr add 192.0.2.66/24 dev eth0; ip addr add 2001:db8::66/64 dev eth0 nodad");
    for (const auto family : kFamilies) {
        const auto other = ip(family == IpFamily::V4 ? "192.0.2.66" : "2001:db8::66");
        // br-b is nobody's: neither weft's nor the engine's.
        for (const auto from : {Place::A1, Place::B1, Place::Host}) arrives("before", toMember(from, family));
        ok(firewall->setTunnel(tunnel(family)));
        closed("a container, masqueraded", toMember(Place::A1, family));
        closed("another forwarded source", toMember(Place::B1, family));
        closed("a socket of the host", toMember(Place::Host, family));
        closed("to the host itself", toHost(Place::Host, address(Place::Host, family)));
        closed("to its loopback", toHost(Place::Host, loopback(family)));
        for (const auto from : {Place::A1, Place::B1, Place::Host}) {
            arrives("nested, to no peer", {from, other, kPort, Place::Outside, kPort, kUdp});
            arrives("another port",
                    {from, address(Place::Outside, family), kPort + 1, Place::Outside, kPort + 1, kUdp});
        }
        ok(firewall->setTunnel({}));
    }
}

TEST_P(TunnelGuard, TheTunnelsOwnPacketsPass) {
    setNetworks({Net::A});
    for (const auto family : kFamilies) {
        const auto host = address(Place::Host, family);
        const auto member = address(Place::Outside, family);
        const std::string vxlan = "ip link add vx0 type vxlan id 7 dstport 4789 nolearning udp6zerocsumrx local ";
        lab->run(Place::Host, vxlan + host.str() + " remote " + member.str() + "; ip link set vx0 master br-a up");
        lab->run(Place::Outside, vxlan + member.str() + " remote " + host.str() +
                                     "; ip link set vx0 address 02:00:00:00:00:77" +
                                     "; ip addr add 10.1.0.77/24 dev vx0; ip addr add fd00:1::77/64 dev vx0 nodad; "
                                     "ip link set vx0 up");
        ok(firewall->setTunnel(tunnel(family)));
        for (const auto inner : kFamilies) {
            const auto remote = ip(inner == IpFamily::V4 ? "10.1.0.77" : "fd00:1::77");
            for (const auto protocol : {kUdp, kTcp}) {
                open("from a container", {Place::A1, remote, 80, Place::Outside, 80, protocol});
                open("from a socket of the host", {Place::Host, remote, 80, Place::Outside, 80, protocol});
            }
            lab->run(Place::Host, "ip neigh flush dev br-a");
            EXPECT_TRUE(lab->ping(Place::Host, remote));
        }
        lab->run(Place::Outside, "ip link del vx0");
        closed("past the tunnel", toMember(Place::Host, family));
        lab->run(Place::Host, "ip link del vx0");
        ok(firewall->setTunnel({}));
    }
}

// A bridge that has the tunnel's address is the way to the members.
TEST_P(TunnelGuard, AnUplinkMayBeABridge) {
    setNetworks({Net::A});
    const auto family = IpFamily::V4;
    auto own = tunnel(family);
    own.address = gateway(Net::A, family);
    own.members = own.peers = {address(Place::A1, family)};
    own.uplink = "br-a";
    ok(firewall->setTunnel(own));
    arrives("a member behind the bridge", toHost(Place::A1, own.address));
    closed("another host there", toHost(Place::A2, own.address));
    EXPECT_EQ(firewall->sync({{network(Net::A)}, {}}, true)->repairs, std::vector<std::string>{});
}

TEST_P(TunnelGuard, TheResolverAnswersBridgesOnly) {
    for (const auto family : kFamilies) {
        for (const auto protocol : {kUdp, kTcp}) {
            const Probe stranger{
                Place::Outside, address(Place::Host, family), kResolverPort, Place::Host, kResolverPort, protocol};
            open("before", stranger);
            setNetworks({Net::A, Net::I});
            ok(firewall->setResolver(kResolverPort));
            closed("a stranger", stranger);
            for (const auto net : {Net::A, Net::I}) {
                open("a network", {net == Net::A ? Place::A1 : Place::I1, gateway(net, family), kResolverPort,
                                   Place::Host, kResolverPort, protocol});
            }
            ok(firewall->clear());
            ok(firewall->setResolver(0));
        }
    }
}

}  // namespace weft::firewall::suite
