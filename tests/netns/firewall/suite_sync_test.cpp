// sync(): it finds what others broke, mends it, and leaves alone what is right.
#include <map>
#include <random>
#include <thread>

#include "tests/netns/firewall/suite_fixture.h"

namespace weft::firewall::suite {

class Sync : public FirewallSuite {
protected:
    void SetUp() override {
        FirewallSuite::SetUp();
        ok(firewall->setResolver(kResolverPort));
    }

    static Intent intent() {
        Intent all;
        for (const auto net : {Net::A, Net::B, Net::I, Net::R, Net::P}) all.networks.push_back(network(net));
        all.networks[1].hostAddressV4 = secondHostAddress(IpFamily::V4);
        all.networks[1].hostAddressV6 = secondHostAddress(IpFamily::V6);
        all.networks[0].resolve = all.networks[2].resolve = true;
        auto ports = bothFamilies(8080, Place::A1, 80);
        ports.push_back(port(8081, Place::A1, 81, IpFamily::V4, kTcp, ip("127.0.0.1")));
        all.endpoints = {endpoint("a1", Net::A, ports), endpoint("p1", Net::P, bothFamilies(8082, Place::P1, 80)),
                         endpoint("r1", Net::R, bothFamilies(8083, Place::R1, 80, kUdp))};
        return all;
    }

    std::vector<std::string> sync(const Intent& wanted, bool dryRun) {
        const auto report = firewall->sync(wanted, dryRun);
        EXPECT_TRUE(report) << report.error().message;
        return report ? report->repairs : std::vector<std::string>{"sync failed"};
    }

    std::string dump() {
        return lab->run(Place::Host,
                        "{ " + GetParam().subject->dump + "; } | grep -v '^#' | sed 's/\\[[0-9]*:[0-9]*\\]//'");
    }
};
INSTANTIATE_TEST_SUITE_P(All, Sync, testing::ValuesIn(settings()), settingName);

TEST_P(Sync, FromNothing) {
    EXPECT_FALSE(sync(intent(), true).empty());
    EXPECT_FALSE(sync(intent(), false).empty());
    EXPECT_EQ(sync(intent(), true), std::vector<std::string>{});
    for (const auto family : kFamilies) {
        open("published", {Place::Outside, address(Place::Host, family), 8080, Place::A1, 80});
        closed("guarded", {Place::Outside, address(Place::A1, family), 80, Place::A1, 80});
    }
}

TEST_P(Sync, ANewProcessAdoptsWhatIsRight) {
    sync(intent(), false);
    const auto before = dump();
    firewall = GetParam().subject->make();
    for (const uint16_t port : {uint16_t{0}, kResolverPort}) {
        ok(firewall->setResolver(port));
        EXPECT_EQ(dump(), before) << "only remembered";
    }
    EXPECT_EQ(sync(intent(), false), std::vector<std::string>{});
    EXPECT_EQ(dump(), before);
}

TEST_P(Sync, RemovesWhatIsNotWanted) {
    sync(intent(), false);
    Intent less = intent();
    less.networks.resize(1);
    less.endpoints.clear();
    EXPECT_FALSE(sync(less, false).empty());
    EXPECT_EQ(sync(less, true), std::vector<std::string>{});
    closed("unpublished", {Place::Outside, address(Place::Host, IpFamily::V4), 8080, Place::A1, 80});
    EXPECT_FALSE(sync({}, false).empty());
    EXPECT_EQ(lab->run(Place::Host, "{ " + GetParam().subject->dump + "; } | grep -ci 'weft.*DROP' || true"), "0\n");
}

TEST_P(Sync, SettingTheSameAgainChangesNothing) {
    sync(intent(), false);
    const auto before = dump();
    for (const auto& one : intent().networks) ok(firewall->setNetwork(one));
    for (const auto& one : intent().endpoints) ok(firewall->setEndpoint(one));
    EXPECT_EQ(dump(), before);
}

TEST_P(Sync, FindsWhatOthersChangedSinceNothingWasWrong) {
    sync(intent(), false);
    const auto healthy = dump();
    for (const auto& damage : GetParam().subject->damages) {
        SCOPED_TRACE(damage.what);
        EXPECT_EQ(sync(intent(), false), std::vector<std::string>{});
        lab->run(Place::Host, damage.command);
        EXPECT_FALSE(sync(intent(), false).empty());
        EXPECT_EQ(dump(), healthy);
    }
}

TEST_P(Sync, MendsDamage) {
    for (const auto& damage : GetParam().subject->damages) {
        SCOPED_TRACE(damage.what);
        sync(intent(), false);
        const auto healthy = dump();
        lab->run(Place::Host, damage.command);
        const auto hurt = dump();
        ASSERT_NE(hurt, healthy);

        const auto found = sync(intent(), true);
        EXPECT_FALSE(found.empty());
        EXPECT_EQ(dump(), hurt) << "a dry run only reports";
        EXPECT_EQ(sync(intent(), false), found);
        EXPECT_EQ(dump(), healthy);
        EXPECT_EQ(sync(intent(), true), std::vector<std::string>{});
    }
    open("published", {Place::Outside, address(Place::Host, IpFamily::V4), 8080, Place::A1, 80});
    closed("guarded", {Place::Outside, address(Place::A1, IpFamily::V4), 80, Place::A1, 80});
    const Vouching vouching(*firewall);
    open("a query", {Place::A1, address(Place::Outside, IpFamily::V4), 53, Place::Host, kResolverPort, kUdp});
}

// Any way to an intent makes the same rules as going there at once.
TEST_P(Sync, HistoryDoesNotMatter) {
    const auto seed = std::random_device{}();
    RecordProperty("seed", std::to_string(seed));
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto upTo = [&](unsigned n) { return static_cast<unsigned>(random() % n); };

    constexpr Net kNets[] = {Net::A, Net::B, Net::I, Net::R, Net::P};
    constexpr Place kPlaceOf[] = {Place::A1, Place::B1, Place::I1, Place::R1, Place::P1};
    std::map<NetworkId, Network> networks;
    std::map<EndpointId, Endpoint> endpoints;
    uint16_t resolver = kResolverPort;
    for (int step = 0; step < 120; ++step) {
        const unsigned which = upTo(5);
        switch (upTo(6)) {
            case 0: {
                auto net = network(kNets[which]);
                net.icc = upTo(2) == 0;
                net.masquerade = upTo(2) == 0;
                net.modeV4 = upTo(2) == 0 ? GatewayMode::Nat : GatewayMode::Routed;
                net.resolve = upTo(2) == 0;
                if (upTo(3) == 0) net.subnets.pop_back();
                if (upTo(3) == 0) net.hostAddressV4 = secondHostAddress(IpFamily::V4);
                ok(firewall->setNetwork(net));
                networks[net.id] = net;
                break;
            }
            case 1:
                ok(firewall->removeNetwork(network(kNets[which]).id));
                networks.erase(network(kNets[which]).id);
                break;
            case 4: {
                const EndpointId id("e" + std::to_string(upTo(8)));
                ok(firewall->removeEndpoint(id));
                endpoints.erase(id);
                break;
            }
            case 5:
                resolver = static_cast<uint16_t>(upTo(3) == 0 ? 0 : kResolverPort + upTo(2));
                ok(firewall->setResolver(resolver));
                break;
            default: {
                const unsigned number = upTo(8);
                std::vector<PublishedPort> ports;
                for (unsigned i = upTo(4); i > 0; --i) {
                    const auto family = upTo(2) == 0 ? IpFamily::V4 : IpFamily::V6;
                    const uint8_t protocol = upTo(2) == 0 ? kTcp : kUdp;
                    auto one =
                        port(static_cast<uint16_t>(8000 + number * 10 + i), kPlaceOf[which], 80, family, protocol);
                    if (family == IpFamily::V4 && upTo(3) == 0) one.hostIp = ip("127.0.0.1");
                    ports.push_back(one);
                }
                const auto made = endpoint("e" + std::to_string(number), kNets[which], ports);
                ok(firewall->setEndpoint(made));
                endpoints[made.id] = made;
            }
        }
    }
    Intent wanted;
    for (const auto& [id, net] : networks) wanted.networks.push_back(net);
    for (const auto& [id, one] : endpoints) wanted.endpoints.push_back(one);

    const auto grown = dump();
    firewall = GetParam().subject->make();
    ok(firewall->setResolver(resolver));
    EXPECT_EQ(sync(wanted, true), std::vector<std::string>{});
    ok(firewall->clear());
    ok(firewall->setResolver(resolver));
    sync(wanted, false);
    EXPECT_EQ(dump(), grown);
}

TEST_P(Sync, ClearLeavesOtherPeoplesRules) {
    const std::string others =
        "iptables-legacy -A FORWARD -s 198.51.100.1 -j DROP; iptables-legacy -t nat -A POSTROUTING -s 198.51.100.1 -j "
        "ACCEPT; ip6tables-legacy -t raw -A PREROUTING -s 2001:db8:9::1 -j DROP; nft add table ip other";
    const std::string all =
        "{ iptables-legacy-save; ip6tables-legacy-save; nft list tables; } | grep -E '198.51|db8:9|other'";
    sync({}, false);
    lab->run(Place::Host, others);
    const auto before = lab->run(Place::Host, all);
    sync(intent(), false);
    ok(firewall->clear());
    EXPECT_EQ(lab->run(Place::Host, all), before);
}

TEST_P(Sync, CallsFromManyThreads) {
    for (const auto& one : intent().networks) ok(firewall->setNetwork(one));
    std::vector<std::thread> threads;
    Intent wanted = intent();
    wanted.endpoints.clear();
    for (uint16_t i = 0; i < 8; ++i) {
        wanted.endpoints.push_back(
            endpoint("t" + std::to_string(i), Net::A, bothFamilies(static_cast<uint16_t>(9000 + i), Place::A1, 80)));
    }
    for (const auto& one : wanted.endpoints) {
        threads.emplace_back([&firewall = *firewall, one] {
            for (int round = 0; round < 5; ++round) {
                EXPECT_TRUE(firewall.setEndpoint(one));
                EXPECT_TRUE(firewall.removeEndpoint(one.id));
            }
            EXPECT_TRUE(firewall.setEndpoint(one));
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(sync(wanted, true), std::vector<std::string>{});
}

}  // namespace weft::firewall::suite
