// What only the legacy tables have: the lock, iptables itself as a second reader, counters, and a cost that grows.
#include "firewall/iptc.h"

#include <fcntl.h>
#include <sys/file.h>

#include <ctime>
#include <iostream>
#include <thread>

#include "base/deadline.h"
#include "tests/netns/firewall/suite_fixture.h"

namespace weft::firewall::suite {

class Iptc : public FirewallSuite {
protected:
    static Intent intent(uint16_t endpoints = 1) {
        Intent all;
        for (const auto net : {Net::A, Net::B, Net::I, Net::R, Net::P}) all.networks.push_back(network(net));
        all.networks[0].icc = false;
        all.networks[0].resolve = true;
        all.networks[1].hostAddressV4 = secondHostAddress(IpFamily::V4);
        all.networks[1].hostAddressV6 = secondHostAddress(IpFamily::V6);
        for (uint16_t i = 0; i < endpoints; ++i) all.endpoints.push_back(nth(i));
        return all;
    }
    static Endpoint nth(uint16_t i) {
        const auto hostPort = static_cast<uint16_t>(10000 + i);
        std::vector<PublishedPort> ports;
        for (const auto protocol : {kTcp, kUdp, kSctp}) {
            ports.push_back(port(hostPort, Place::A1, 80, IpFamily::V4, protocol));
            if (i > 0) return endpoint("e" + std::to_string(i), Net::A, ports);
            ports.push_back(port(hostPort, Place::A1, 80, IpFamily::V6, protocol));
            ports.push_back(port(hostPort, Place::A1, 81, IpFamily::V4, protocol, ip("127.0.0.1")));
        }
        return endpoint("e" + std::to_string(i), Net::A, ports);
    }
    std::vector<std::string> differences(const Intent& wanted) {
        const auto report = firewall->sync(wanted, true);
        EXPECT_TRUE(report) << report.error().message;
        return report ? report->repairs : std::vector<std::string>{"sync failed"};
    }
};
INSTANTIATE_TEST_SUITE_P(All, Iptc, testing::Values(Setting{&subjects().front(), false}), settingName);

// iptables parses what it printed and writes its own structs: byte by byte they have to be ours.
TEST_P(Iptc, IptablesWritesTheSameRules) {
    ok(firewall->setResolver(kResolverPort));
    ASSERT_TRUE(firewall->sync(intent(), false));
    const auto saved = lab->run(Place::Host, "iptables-legacy-save; ip6tables-legacy-save");
    EXPECT_EQ(saved.find("unsupported"), std::string::npos) << saved;
    lab->run(Place::Host,
             "iptables-legacy-save | iptables-legacy-restore; "
             "ip6tables-legacy-save | ip6tables-legacy-restore");
    EXPECT_EQ(differences(intent()), std::vector<std::string>{});
}

TEST_P(Iptc, CountersOfOtherRulesSurviveAPublish) {
    ASSERT_TRUE(firewall->sync(intent(), false));
    open("egress", {Place::A1, address(Place::Outside, IpFamily::V4), 7, Place::Outside, 7});
    const std::string count = "iptables-legacy-save -c -t nat | grep -- '-s 10.1.0.0/24 ! -o'";
    const auto before = lab->run(Place::Host, count);
    EXPECT_EQ(before.find("[0:0]"), std::string::npos) << before;
    ok(firewall->setEndpoint(nth(1)));
    EXPECT_EQ(lab->run(Place::Host, count), before);
}

TEST_P(Iptc, WaitsForTheLockAndGivesUp) {
    ASSERT_TRUE(firewall->sync(intent(), false));
    const UniqueFd other(::open(std::getenv("XTABLES_LOCKFILE"), O_RDONLY));
    ASSERT_EQ(::flock(other.get(), LOCK_EX), 0);
    const auto start = std::chrono::steady_clock::now();
    const auto result = firewall->setEndpoint(nth(1));
    const auto took = std::chrono::steady_clock::now() - start;
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::Timeout) << result.error().message;
    EXPECT_LT(took, std::chrono::seconds(5));
    {
        const auto again = std::chrono::steady_clock::now();
        const CallDeadline call(Deadline(std::chrono::milliseconds(100)));
        EXPECT_FALSE(firewall->setEndpoint(nth(1)));
        EXPECT_LT(std::chrono::steady_clock::now() - again, std::chrono::seconds(2));
    }

    std::thread releaser([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        ::flock(other.get(), LOCK_UN);
    });
    ok(firewall->setEndpoint(nth(2)));
    releaser.join();
    Intent wanted = intent();
    wanted.endpoints.push_back(nth(2));
    EXPECT_EQ(differences(wanted), std::vector<std::string>{}) << "the call that failed left nothing";
}

TEST_P(Iptc, ARefusedCallLeavesNothing) {
    ASSERT_TRUE(firewall->sync(intent(), false));
    Network clash = network(Net::B);
    clash.bridge = std::string(40, 'x');  // no link has such a name
    const auto result = firewall->setNetwork(clash);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::InvalidArgument) << result.error().message;
    EXPECT_EQ(differences(intent()), std::vector<std::string>{});
}

TEST_P(Iptc, AUsersRuleIntoOurChainDoesNotStopRemoval) {
    ASSERT_TRUE(firewall->sync(intent(), false));
    lab->run(Place::Host, "iptables-legacy -N MINE; iptables-legacy -A MINE -j WEFT-TO-br-b");
    ok(firewall->removeNetwork(network(Net::B).id));
    EXPECT_EQ(lab->run(Place::Host, "iptables-legacy -S WEFT-TO-br-b"), "-N WEFT-TO-br-b\n");
    lab->run(Place::Host, "iptables-legacy -F MINE");
}

TEST_P(Iptc, UsersRulesBeforeOursStayThere) {
    ASSERT_TRUE(firewall->sync(intent(), false));
    lab->run(Place::Host, "iptables-legacy -I FORWARD -s 192.0.2.2 -j DROP");
    EXPECT_EQ(differences(intent()), std::vector<std::string>{});
    closed("forbidden", {Place::Outside, address(Place::Host, IpFamily::V4), 10000, Place::A1, 80});
}

// Not a limit but a record: the kernel swaps whole tables, so each publish costs O(rules), and nft is there for more.
TEST_P(Iptc, CostOfAPublish) {
    for (const uint16_t endpoints : std::initializer_list<uint16_t>{1, 100, 1000}) {
        ASSERT_TRUE(firewall->sync(intent(endpoints), false));
        constexpr int kRounds = 20;
        const auto start = std::chrono::steady_clock::now();
        const auto startCpu = std::clock();
        for (int i = 0; i < kRounds; ++i) {
            ok(firewall->setEndpoint(nth(2000)));
            ok(firewall->removeEndpoint(nth(2000).id));
        }
        const auto took = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start);
        const double each = took.count() / kRounds / 2;
        const double cpu = 1e3 * static_cast<double>(std::clock() - startCpu) / CLOCKS_PER_SEC / kRounds / 2;
        RecordProperty("ms_with_" + std::to_string(endpoints), std::to_string(each));
        std::cout << "with " << endpoints << " endpoints: " << each << " ms a call, " << cpu << " ms of CPU\n";
        EXPECT_LT(each, 1000);
    }
}

}  // namespace weft::firewall::suite
