// Beside an engine: its tables in either world let weft's traffic pass, and are neither broken nor opened; which back
// end a host gets; and damage is noticed.
#include "firewall/passage.h"

#include <atomic>
#include <thread>

#include "firewall/select.h"
#include "firewall/watch.h"
#include "tests/netns/firewall/suite_fixture.h"

namespace weft::firewall::suite {

struct World {
    std::string name;
    std::string v4, v6;  // the engine's iptables and ip6tables
};

inline void PrintTo(const World& world, std::ostream* out) {
    *out << world.name;
}

inline std::string besideName(const testing::TestParamInfo<std::tuple<World, Backend>>& info) {
    return std::get<0>(info.param).name + "_" + std::string(toString(std::get<1>(info.param)));
}

// A lab with an engine that has written its rules as Docker 20.10 does: br-r is the engine's bridge here.
class BesideWorld : public testing::TestWithParam<std::tuple<World, Backend>> {
protected:
    void SetUp() override {
        lock_ = "/tmp/weft-xtables-" + std::to_string(::getpid()) + ".lock";
        ::setenv("XTABLES_LOCKFILE", lock_.c_str(), 1);
        lab = std::make_unique<Lab>(false);
        firewall = makeFirewall(backend()).value();
    }
    void TearDown() override {
        ASSERT_TRUE(firewall->clear());
        EXPECT_EQ(host("{ iptables-legacy-save; ip6tables-legacy-save; nft list ruleset; } "
                       "2>/dev/null | grep -i weft || true"),
                  "");
        firewall.reset();
        lab.reset();
        ::unlink(lock_.c_str());
    }

    const World& world() const { return std::get<0>(GetParam()); }
    Backend backend() const { return std::get<1>(GetParam()); }
    std::string host(const std::string& command) { return lab->run(Place::Host, command); }
    void both(const std::string& rules) {
        for (const auto& tool : {world().v4, world().v6}) host("t=" + tool + "; " + rules);
    }

    // As at each start of dockerd: chains made if missing, its own refilled, jumps put on top again.
    void startEngine() {
        both(
            "$t -P FORWARD DROP; for c in DOCKER DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2; do "
            "$t -n -L $c >/dev/null 2>&1 || $t -N $c; done; "
            "for c in DOCKER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2; do $t -F $c; done; "
            "$t -C DOCKER-USER -j RETURN 2>/dev/null || $t -A DOCKER-USER -j RETURN; "
            "$t -C FORWARD -o br-r -j DOCKER 2>/dev/null || { "
            "$t -I FORWARD -i br-r -o br-r -j ACCEPT; $t -I FORWARD -i br-r ! -o br-r -j ACCEPT; "
            "$t -I FORWARD -o br-r -j DOCKER; "
            "$t -I FORWARD -o br-r -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; }; "
            "for c in DOCKER-ISOLATION-STAGE-1 DOCKER-USER; do $t -D FORWARD -j $c 2>/dev/null; "
            "$t -I FORWARD -j $c; done; "
            "$t -A DOCKER-ISOLATION-STAGE-1 -i br-r ! -o br-r -j DOCKER-ISOLATION-STAGE-2; "
            "$t -A DOCKER-ISOLATION-STAGE-2 -o br-r -j DROP");
        // One published port.
        host(world().v4 + " -A DOCKER -d 10.4.0.2/32 ! -i br-r -o br-r -p tcp --dport 80 -j ACCEPT");
        host(world().v6 + " -A DOCKER -d fd00:4::2/128 ! -i br-r -o br-r -p tcp --dport 80 -j ACCEPT");
    }

    Intent intent() { return {{network(Net::A), network(Net::B)}, {endpoint("a1", Net::A, ports(8080, Place::A1))}}; }
    static std::vector<PublishedPort> ports(uint16_t hostPort, Place place) {
        std::vector<PublishedPort> all;
        for (const auto family : kFamilies) {
            all.push_back({kTcp, IpAddress::any(family), hostPort, address(place, family), 80});
        }
        return all;
    }
    std::vector<std::string> sync(bool dryRun = false) {
        const auto report = firewall->sync(intent(), dryRun);
        EXPECT_TRUE(report) << report.error().message;
        return report ? report->repairs : std::vector<std::string>{"sync failed"};
    }

    void open(const char* what, const Probe& probe) {
        EXPECT_TRUE(lab->exchange(probe, kOpenPatience, false)) << what << " (" << probe.to.str() << "): no answer";
    }
    void closed(const char* what, const Probe& probe) {
        EXPECT_FALSE(lab->exchange(probe, kClosedPatience, true)) << what << " (" << probe.to.str() << "): got through";
    }
    void check() {
        for (const auto family : kFamilies) {
            const auto outside = address(Place::Outside, family);
            const auto engines = address(Place::R1, family);
            open("weft to the outside", {Place::A1, outside, 7, Place::Outside, 7});
            open("weft's published port", {Place::Outside, address(Place::Host, family), 8080, Place::A1, 80});
            open("the engine's to the outside", {Place::R1, outside, 7, Place::Outside, 7});
            open("the engine's to weft's published port",
                 {Place::R1, address(Place::Host, family), 8080, Place::A1, 80});
            open("the engine's published port", {Place::Outside, engines, 80, Place::R1, 80});
            closed("the engine's published port at its own address, from weft",
                   {Place::A1, engines, 80, Place::R1, 80});
            closed("weft's published port at its own address, from the engine's",
                   {Place::R1, address(Place::A1, family), 80, Place::A1, 80});
            closed("the engine's other ports, from outside", {Place::Outside, engines, 81, Place::R1, 81});
            closed("the engine's other ports, from weft", {Place::A1, engines, 81, Place::R1, 81});
            closed("weft's other ports, from the engine's", {Place::R1, address(Place::A1, family), 81, Place::A1, 81});
            closed("between networks of weft", {Place::B1, address(Place::A1, family), 81, Place::A1, 81});
        }
    }

    std::unique_ptr<Lab> lab;
    std::unique_ptr<Firewall> firewall;

private:
    std::string lock_;
};

INSTANTIATE_TEST_SUITE_P(All, BesideWorld,
                         testing::Combine(testing::Values(World{"EngineNft", "iptables-nft", "ip6tables-nft"},
                                                          World{"EngineLegacy", "iptables-legacy", "ip6tables-legacy"}),
                                          testing::Values(Backend::Nft, Backend::Iptc)),
                         besideName);

TEST_P(BesideWorld, NeitherBreaksNorOpensTheOther) {
    startEngine();
    sync();
    check();
    EXPECT_EQ(sync(true), std::vector<std::string>{});
}

TEST_P(BesideWorld, WeftFirst) {
    sync();
    startEngine();
    EXPECT_FALSE(sync().empty());
    check();
}

TEST_P(BesideWorld, TheEngineRestarts) {
    startEngine();
    sync();
    startEngine();
    sync();
    check();
    EXPECT_EQ(sync(true), std::vector<std::string>{});
}

TEST_P(BesideWorld, ANewBridgeOfTheEngineIsNotOpened) {
    startEngine();
    sync();
    both("$t -I FORWARD -o br-p -j DOCKER");
    EXPECT_FALSE(sync().empty());
    for (const auto family : kFamilies) {
        closed("new bridge", {Place::A1, address(Place::P1, family), 80, Place::P1, 80});
    }
    EXPECT_EQ(sync(true), std::vector<std::string>{});
}

TEST_P(BesideWorld, UsersKeepTheirSay) {
    startEngine();
    sync();
    host(world().v4 + " -I DOCKER-USER -i br-a -d 192.0.2.2 -j DROP");
    EXPECT_EQ(sync(), std::vector<std::string>{});
    closed("forbidden", {Place::A1, address(Place::Outside, IpFamily::V4), 7, Place::Outside, 7});
    open("another's", {Place::B1, address(Place::Outside, IpFamily::V4), 7, Place::Outside, 7});
}

TEST_P(BesideWorld, TheEnginesToolsStillReadTheirTables) {
    startEngine();
    sync();
    for (const auto& tool : {world().v4, world().v6}) {
        const auto listed = host(tool + " -S FORWARD");
        EXPECT_NE(listed.find("-A FORWARD -j DOCKER-USER\n-A FORWARD "), std::string::npos) << listed;
        EXPECT_NE(listed.find("-j WEFT-FORWARD\n-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n"), std::string::npos)
            << listed;
        const auto rules = host(tool + " -S WEFT-FORWARD");
        EXPECT_NE(rules.find("-o br-r"), std::string::npos) << rules;
        host(tool + "-save | " + tool + "-restore");
    }
    EXPECT_EQ(sync(true), std::vector<std::string>{});
}

TEST_P(BesideWorld, RemovalLeavesTheEnginesRules) {
    startEngine();
    // A legacy table that exists makes iptables-nft warn.
    const auto list = "{ " + world().v4 + " -S; " + world().v6 + " -S; } 2>&1 | grep -v '^#'";
    const auto before = host(list);
    sync();
    EXPECT_TRUE(firewall->removeNetwork(network(Net::A).id));
    EXPECT_TRUE(firewall->removeNetwork(network(Net::B).id));
    EXPECT_EQ(host(list), before);
}

TEST_P(BesideWorld, AutoFollowsTheEngine) {
    startEngine();
    const auto choice = chooseBackend();
    ASSERT_TRUE(choice) << choice.error().message;
    EXPECT_EQ(choice->backend, world().name == "EngineNft" ? Backend::Nft : Backend::Iptc) << choice->reason;
    EXPECT_NE(choice->reason.find("Docker's chains"), std::string::npos) << choice->reason;
}

TEST_P(BesideWorld, ChangingTheBackEndLeavesNothingOfTheOther) {
    startEngine();
    sync();
    const Backend next = backend() == Backend::Nft ? Backend::Iptc : Backend::Nft;
    firewall = makeFirewall(next).value();
    sync();
    ASSERT_TRUE(clearOther(next));
    EXPECT_EQ(sync(true), std::vector<std::string>{});
    check();
    if (next == Backend::Iptc) {
        EXPECT_EQ(host("nft list tables | grep weft || true"), "");
    } else {
        EXPECT_EQ(host("{ iptables-legacy-save -t nat; ip6tables-legacy-save -t raw; } | grep WEFT || true"), "");
    }
}

// Damage is noticed and mended by way of the watch, well within the 5 s that are promised.
class Watched : public BesideWorld {
protected:
    void SetUp() override {
        BesideWorld::SetUp();
        startEngine();
        sync();
        watch = Watch::start([this] {
                    ++calls;
                    sync();
                }).value();
    }
    void TearDown() override {
        watch.reset();
        BesideWorld::TearDown();
    }

    std::chrono::milliseconds untilMended(const std::string& damage) {
        host(damage);
        const auto start = std::chrono::steady_clock::now();
        const auto took = [&] {
            return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
        };
        while (!sync(true).empty() && took() < std::chrono::seconds(10)) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        return took();
    }

    std::atomic<int> calls = 0;
    std::unique_ptr<Watch> watch;
};
INSTANTIATE_TEST_SUITE_P(All, Watched,
                         testing::Combine(testing::Values(World{"EngineNft", "iptables-nft", "ip6tables-nft"},
                                                          World{"EngineLegacy", "iptables-legacy", "ip6tables-legacy"}),
                                          testing::Values(Backend::Nft, Backend::Iptc)),
                         besideName);

TEST_P(Watched, DamageIsMended) {
    const std::vector<std::string> damages = {
        world().v4 + " -F",
        world().v6 + " -F",
        "nft flush ruleset",
        "iptables-legacy -t nat -F",
        // At once: between -F and -X the repair may come.
        R"(for t in raw nat filter; do printf '*%s\nCOMMIT\n' $t | iptables-legacy-restore; done)",
        "nft delete table inet weft || true",
    };
    for (const auto& damage : damages) {
        EXPECT_LT(untilMended(damage), std::chrono::seconds(5)) << damage;
        startEngine();
        EXPECT_LT(untilMended("true"), std::chrono::seconds(5)) << "the engine's restart";
        check();
    }
}

// Several, for an unhurried watch may be lucky with one.
TEST_P(Watched, NewBridgesOfTheEngineAreKnownSoon) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // what the set-up stirred up settles
    for (int i = 0; i < 6; ++i) {
        watch->hurry();
        const auto took = untilMended(world().v4 + " -A FORWARD -o br-new" + std::to_string(i) + " -j DOCKER");
        std::printf("known after %d ms\n", static_cast<int>(took.count()));
        EXPECT_LT(took, std::chrono::milliseconds(600));
    }
}

TEST_P(Watched, OwnChangesInNftablesAreNotDamage) {
    if (backend() != Backend::Nft || world().name != "EngineNft") GTEST_SKIP() << "legacy tables do not tell who";
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // what the set-up stirred up settles
    const int before = calls;
    for (uint16_t i = 0; i < 20; ++i) {
        ASSERT_TRUE(firewall->setEndpoint(endpoint("a2", Net::A, ports(static_cast<uint16_t>(9000 + i), Place::A2))));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    EXPECT_EQ(calls, before);
}

}  // namespace weft::firewall::suite
