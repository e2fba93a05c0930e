// What only the nft back end promises: a cost of publishing, and of a new connection, that does not grow.
#include "firewall/nft.h"

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <iostream>
#include <thread>

#include "firewall/nft_context.h"
#include "tests/netns/firewall/suite_fixture.h"

namespace weft::firewall::suite {

class Nft : public FirewallSuite {
protected:
    using Clock = std::chrono::steady_clock;

    static IpAddress nth(unsigned n) { return {IpFamily::V4, (Uint128{10} << 24) + (Uint128{1} << 16) + n}; }

    // Distinct host ports for 1,000 endpoints of up to 60 ports, over several host addresses' worth of protocols.
    static Endpoint sized(unsigned n, unsigned ports) {
        std::vector<PublishedPort> all;
        for (unsigned i = 0; i < ports; ++i) {
            const unsigned number = n * ports + i;
            all.push_back({number < 60000 ? kTcp : kUdp, IpAddress::any(IpFamily::V4),
                           static_cast<uint16_t>(1024 + number % 60000), nth(n + 2), static_cast<uint16_t>(1 + i)});
        }
        return endpoint("e" + std::to_string(n), Net::A, std::move(all));
    }

    // Median of a range, for a machine that does other things as well.
    static double median(std::vector<double> values) {
        std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
        return values[values.size() / 2];
    }
    template <typename Work>
    static double millisecondsOf(const Work& work) {
        const auto start = Clock::now();
        work();
        return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    }

    void flat(unsigned endpoints, unsigned ports) {
        setNetworks({Net::A});
        std::vector<double> adds;
        std::vector<double> removals;
        for (unsigned i = 0; i < endpoints; ++i) {
            const auto one = sized(i, ports);
            adds.push_back(millisecondsOf([&] { ok(firewall->setEndpoint(one)); }));
        }
        for (unsigned i = 0; i < endpoints; ++i) {
            const auto id = sized(i, 1).id;
            removals.push_back(millisecondsOf([&] { ok(firewall->removeEndpoint(id)); }));
        }
        for (const auto* times : {&adds, &removals}) {
            const double first = median({times->begin(), times->begin() + 100});
            const double last = median({times->end() - 100, times->end()});
            std::cout << (times == &adds ? "publish" : "unpublish") << " of " << ports << " port(s), " << endpoints
                      << " endpoints: first 100 " << first << " ms, last 100 " << last << " ms each (median)\n";
            // 0.2 ms: less than that is the noise of a busy machine, not growth.
            EXPECT_LT(last, std::max(first * 1.5, first + 0.2));
        }
    }
};
// Rules of others may name a link by its index: libnftables looks it up in a list that all threads share.
TEST_P(Nft, ListsRulesOnSeveralThreads) {
    lab->run(Place::Host,
             "nft 'add table inet user; add chain inet user c; add rule inet user c iif lo accept; "
             "add rule inet user c oif lo accept'");
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([] {
            auto context = NftContext::open();
            ASSERT_TRUE(context);
            for (int n = 0; n < 500; ++n) {
                const auto listing = context->list("inet user");
                ASSERT_TRUE(listing);
                EXPECT_NE(listing->find(" accept"), std::string::npos) << *listing;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    lab->run(Place::Host, "nft delete table inet user");
}

INSTANTIATE_TEST_SUITE_P(All, Nft, testing::Values(Setting{&subjects().back(), false}), settingName);

TEST_P(Nft, PublishingOnePortEachStaysFlat) {
    flat(1000, 1);
}

TEST_P(Nft, PublishingTenPortsEachStaysFlat) {
    flat(1000, 10);
}

TEST_P(Nft, PublishingFiftyPortsEachStaysFlat) {
    flat(200, 50);
}

TEST_P(Nft, OtherNetworksDoNotSlowAPublish) {
    setNetworks({Net::A});
    const auto publish = [&] {
        std::vector<double> times;
        for (unsigned i = 0; i < 50; ++i) {
            times.push_back(millisecondsOf([&] { ok(firewall->setEndpoint(sized(i % 2, 1))); }));
            ok(firewall->removeEndpoint(sized(i % 2, 1).id));
        }
        return median(times);
    };
    const double alone = publish();
    for (unsigned i = 0; i < 300; ++i) {
        Network net;
        net.id = NetworkId("n" + std::to_string(i));
        net.bridge = "br-n" + std::to_string(i);
        net.subnets = {IpPrefix(IpAddress(IpFamily::V4, (Uint128{172} << 24) + (i << 8)), 24)};
        ok(firewall->setNetwork(net));
    }
    const double among = publish();
    std::cout << "publish with 1 network: " << alone << " ms, with 301: " << among << " ms (median)\n";
    EXPECT_LT(among, std::max(alone * 1.5, alone + 0.2));
}

TEST_P(Nft, AHostPortHasOneEndpoint) {
    setNetworks({Net::A});
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    const auto taken = firewall->setEndpoint(endpoint("a2", Net::A, bothFamilies(8080, Place::A2, 80)));
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::Busy);
    open("the first still has it", {Place::Outside, address(Place::Host, IpFamily::V4), 8080, Place::A1, 80});
    ok(firewall->removeEndpoint(EndpointId("a1")));
    ok(firewall->setEndpoint(endpoint("a2", Net::A, bothFamilies(8080, Place::A2, 80))));
    open("the second", {Place::Outside, address(Place::Host, IpFamily::V4), 8080, Place::A2, 80});
}

TEST_P(Nft, AChangeMendsADamagedTable) {
    setNetworks({Net::A});
    ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
    for (const char* damage :
         {"nft flush ruleset", "nft flush map inet weft published4", "nft delete table inet weft"}) {
        lab->run(Place::Host, damage);
        ok(firewall->setEndpoint(endpoint("a2", Net::A, bothFamilies(8081, Place::A2, 80))));
        ok(firewall->removeEndpoint(EndpointId("a1")));
        ok(firewall->setEndpoint(endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))));
        open("published", {Place::Outside, address(Place::Host, IpFamily::V4), 8080, Place::A1, 80});
        ok(firewall->removeEndpoint(EndpointId("a2")));
    }
}

// The table as weft wrote it at c52709e: sets of other types under the same names.
TEST_P(Nft, AnOlderTableIsReplaced) {
    Intent intent;
    for (const auto net : {Net::A, Net::B, Net::I, Net::R, Net::P}) intent.networks.push_back(network(net));
    intent.networks[0].hostAddressV4 = secondHostAddress(IpFamily::V4);
    intent.endpoints = {endpoint("a1", Net::A, bothFamilies(8080, Place::A1, 80))};
    const auto proven = [&] {
        EXPECT_EQ(firewall->sync(intent, true)->repairs, std::vector<std::string>{});
        open("published", {Place::Outside, address(Place::Host, IpFamily::V4), 8080, Place::A1, 80});
        closed("guarded", {Place::Outside, address(Place::A1, IpFamily::V4), 80, Place::A1, 80});
        open("egress", {Place::A1, address(Place::Outside, IpFamily::V4), 7, Place::Outside, 7},
             secondHostAddress(IpFamily::V4));
    };
    const std::string older = "nft -f " WEFT_TEST_DATA "/nft-table-c52709e.nft";
    lab->run(Place::Host, older);
    EXPECT_THAT(firewall->sync(intent, false)->repairs, testing::Contains("set guarded4 declared otherwise"));
    proven();

    lab->run(Place::Host, "nft delete table inet weft; " + older);
    firewall = GetParam().subject->make();
    for (const auto& one : intent.networks) ok(firewall->setNetwork(one));
    ok(firewall->setEndpoint(intent.endpoints[0]));
    proven();
}

}  // namespace weft::firewall::suite
