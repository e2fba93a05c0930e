#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "drivers/host/nic_state.h"
#include "drivers/names.h"
#include "tests/netns/drivers/engine_lab.h"

namespace weft {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class HostTest : public EngineLab {
protected:
    CreateNetworkRequest lan(int number, std::map<std::string, std::string> options = {}) {
        CreateNetworkRequest request;
        request.networkId = networkId(number);
        request.options = std::move(options);
        IpamData data;
        data.pool = prefix("192.0.2.0/24");
        data.gateway = prefix("192.0.2.2/24");
        request.ipv4 = {data};
        return request;
    }
    std::vector<std::string> sweep() {
        std::vector<std::string> lines;
        for (const Repair& repair : must(d.host->reconcile(false))) {
            lines.push_back(repair.kind + " " + repair.object + ": " + repair.action +
                            (repair.error ? " FAILED " + repair.error->message : ""));
        }
        return lines;
    }
    // What eth0 has that a stay in a container takes away.
    std::string nic() {
        return shellInside(*host_,
                           "ip -o addr show dev eth0 scope global | sed s/.*eth0//; ip route show dev eth0; "
                           "ip -6 route show dev eth0 | grep -v fe80; ip -o link show eth0 | grep -o mtu.[0-9]*; "
                           "ip -o link show eth0 | grep -o alias.*; ip -o link show eth0 | grep -o ,UP");
    }
};

TEST_F(HostTest, MacvlanKilledBeforeItsMarkGoes) {
    stop();
    shellInside(*host_,
                "ip link add wv0 link eth0 group 2003134068 type macvlan; "
                "ip link add mine link eth0 type macvlan");
    start();
    EXPECT_THAT(weftLinks(), IsEmpty());
    shellInside(*host_, "ip link del mine");
}

TEST_F(HostTest, MacvlanPutsContainersOnTheWire) {
    const auto network = lan(1);
    must(d.host->createNetwork(network));
    must(d.host->createNetwork(network));
    must(d.host->createNetwork(lan(2, {{"parent", "eth0"}})));
    Container a = connect(*d.host, endpointRequest(network, 1, "192.0.2.10/24"));
    Container b = connect(*d.host, endpointRequest(lan(2), 2, "192.0.2.11/24"));
    EXPECT_EQ(a.join.gateway, ip("192.0.2.2"));
    EXPECT_FALSE(a.join.disableGatewayService);
    EXPECT_EQ(reach(*outside_, ip("192.0.2.10"), 80, a.ns, 80), ip("192.0.2.2"));
    EXPECT_EQ(reach(a.ns, ip("192.0.2.2"), 80, *outside_, 80), ip("192.0.2.10"));
    EXPECT_EQ(reach(a.ns, ip("192.0.2.11"), 80, b.ns, 80), ip("192.0.2.10"));
    EXPECT_THAT(sweep(), IsEmpty());
    disconnect(*d.host, a);
    disconnect(*d.host, b);
    EXPECT_THAT(weftLinks(), IsEmpty());
    must(d.host->deleteNetwork(networkId(1)));
    must(d.host->deleteNetwork(networkId(2)));
}

// As in bridge mode.
TEST_F(HostTest, ANetworkWhoseSubnetWasGivenBackGoes) {
    auto network = lan(1);
    ipam::PoolRequest wanted;
    wanted.addressSpace = network.ipv4[0].addressSpace = ipam::kLocalAddressSpace;
    wanted.pool = network.ipv4[0].pool;
    const auto pool = must(d.ipam->requestPool(wanted));
    must(d.host->createNetwork(network));
    EXPECT_THAT(sweep(), IsEmpty());
    must(d.ipam->releasePool(pool.poolId));
    EXPECT_THAT(sweep(), ElementsAre("network " + networkId(1).brief() + ": removed: its subnet was given back"));
    EXPECT_FALSE(d.records->network(networkId(1)));
    EXPECT_THAT(d.ipam->listPools(), IsEmpty());
}

TEST_F(HostTest, NeighboursHearThatAnAddressHasAnotherMac) {
    const auto network = lan(1);
    must(d.host->createNetwork(network));
    shellInside(*outside_, "ip neigh add 192.0.2.10 lladdr 02:00:00:00:00:99 dev eth0 nud reachable");
    Container a = connect(*d.host, endpointRequest(network, 1, "192.0.2.10/24"));
    EXPECT_TRUE(reach(*outside_, ip("192.0.2.10"), 80, a.ns, 80, 6, std::chrono::milliseconds(500)));
    disconnect(*d.host, a);
    must(d.host->deleteNetwork(network.networkId));
}

TEST_F(HostTest, SubnetMustBeTheLan) {
    const auto refusal = [&](CreateNetworkRequest request) {
        const auto made = d.host->createNetwork(request);
        EXPECT_FALSE(made);
        return made ? std::string() : made.error().message;
    };
    auto request = lan(1);
    request.ipv4[0].pool = prefix("10.0.0.0/24");
    request.ipv4[0].gateway.reset();
    EXPECT_THAT(refusal(request), HasSubstr("--subnet 192.0.2.0/24"));
    request = lan(1);
    request.ipv4[0].gateway = prefix("192.0.2.1/24");
    EXPECT_THAT(refusal(request), HasSubstr("this host's own address"));
    EXPECT_THAT(refusal(lan(1, {{"parent", "nosuch"}})), HasSubstr("parent"));
    EXPECT_THAT(refusal(lan(1, {{"parent", "lo"}})), HasSubstr("loopback"));
    must(d.host->createNetwork(lan(1)));
    auto own = endpointRequest(lan(1), 1, "192.0.2.1/24");
    EXPECT_THAT(d.host->createEndpoint(own).error().message, HasSubstr("this host's own"));
    must(d.host->deleteNetwork(networkId(1)));
}

TEST_F(HostTest, HostsOwnSandboxIsLeftAlone) {
    const auto network = lan(1);
    must(d.host->createNetwork(network));
    const auto request = endpointRequest(network, 1, "192.0.2.10/24");
    must(d.host->createEndpoint(request));
    const std::string self = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(host_->fd());
    const JoinReply reply = must(d.host->join({request.networkId, request.endpointId, self, {}}));
    EXPECT_TRUE(reply.sourceName.empty());
    EXPECT_TRUE(reply.disableGatewayService);
    EXPECT_THAT(weftLinks(), IsEmpty());
    EXPECT_THAT(sweep(), IsEmpty());
    must(d.host->leave(request.networkId, request.endpointId));
    must(d.host->deleteEndpoint(request.networkId, request.endpointId));
    must(d.host->deleteNetwork(network.networkId));
}

TEST_F(HostTest, MacvlanOfAGoneSandboxIsReleased) {
    const auto network = lan(1);
    must(d.host->createNetwork(network));
    Container a = connect(*d.host, endpointRequest(network, 1, "192.0.2.10/24"));
    must(d.host->createEndpoint(endpointRequest(network, 2, "192.0.2.11/24")));
    shellInside(a.ns, "ip link del eth0");
    EXPECT_THAT(sweep(), IsEmpty());
    clock_.advance(seconds(61));
    EXPECT_EQ(sweep().size(), 2U);
    EXPECT_EQ(d.records->endpointCount(network.networkId), 0U);
    EXPECT_THAT(weftLinks(), IsEmpty());
    must(d.host->deleteNetwork(network.networkId));
}

TEST_F(HostTest, ASweepDoesNotReadTheHostsLinksForEachContainer) {
    const auto network = lan(1);
    must(d.host->createNetwork(network));
    std::vector<Container> containers;
    constexpr int kContainers = 30;
    for (int i = 1; i <= kContainers; ++i) {
        containers.push_back(
            connect(*d.host, endpointRequest(network, i, "192.0.2." + std::to_string(100 + i) + "/24")));
    }
    shellInside(*host_,
                "for i in $(seq 500); do echo link add crowd$i type veth peer name crowded$i; done | ip -batch -");
    const auto fastest = [](const auto& work) {
        auto least = std::chrono::steady_clock::duration::max();
        for (int i = 0; i < 3; ++i) {
            const auto begin = std::chrono::steady_clock::now();
            work();
            least = std::min(least, std::chrono::steady_clock::now() - begin);
        }
        return least;
    };
    const auto reading = fastest([&] { must(d.netlink->listLinks()); });
    EXPECT_LT(fastest([&] { EXPECT_THAT(sweep(), IsEmpty()); }), kContainers / 2 * reading);
    for (Container& container : containers) disconnect(*d.host, container);
    must(d.host->deleteNetwork(network.networkId));
}

TEST_F(HostTest, MacvlanThatCameBackWithoutTheDaemonHoldsNoAddress) {
    const auto network = lan(1);
    must(d.host->createNetwork(network));
    Container first = connect(*d.host, endpointRequest(network, 1, "192.0.2.10/24"));
    stop();
    leaveSandbox(first);
    start();
    Container second = connect(*d.host, endpointRequest(network, 2, "192.0.2.10/24"));
    EXPECT_FALSE(d.records->endpoint(first.endpointId));
    EXPECT_EQ(d.host->createEndpoint(endpointRequest(network, 3, "192.0.2.10/24")).error().code, ErrorCode::Busy);
    disconnect(*d.host, second);
    must(d.host->deleteNetwork(network.networkId));
}

class ExclusiveTest : public HostTest {
protected:
    void SetUp() override {
        HostTest::SetUp();
        shellInside(
            *host_,
            "ip link set eth0 alias uplink; ip addr add 192.0.2.77/32 dev eth0; "
            "ip route add 198.51.100.0/24 via 192.0.2.2 metric 7; ip route add 203.0.113.0/24 dev eth0 src 192.0.2.77");
        before_ = nic();
        ASSERT_THAT(before_, HasSubstr("203.0.113.0/24"));
        network_ = lan(1, {{"parent", "eth0"}, {"exclusive", "true"}});
        must(d.host->createNetwork(network_));
    }
    void TearDown() override {
        if (!HasFailure()) {
            EXPECT_EQ(nic(), before_);
            must(d.host->deleteNetwork(network_.networkId));
        }
        HostTest::TearDown();
    }
    CreateEndpointRequest request(int number = 1) { return endpointRequest(network_, number, "192.0.2.1/24"); }

    CreateNetworkRequest network_;
    std::string before_;
};

TEST_F(ExclusiveTest, NicGoesInAndComesBack) {
    Container a = connect(*d.host, request());
    EXPECT_EQ(a.sourceName, "eth0");
    EXPECT_THAT(nic(), HasSubstr("does not exist"));
    EXPECT_EQ(reach(a.ns, ip("192.0.2.2"), 80, *outside_, 80), ip("192.0.2.1"));
    const auto second = d.host->createEndpoint(request(2));
    EXPECT_EQ(second.error().code, ErrorCode::Busy);
    EXPECT_THAT(sweep(), IsEmpty());
    disconnect(*d.host, a);
    EXPECT_EQ(nic(), before_);
}

TEST_F(ExclusiveTest, IsNotSharedWithMacvlan) {
    must(d.host->createNetwork(lan(2)));
    must(d.host->createEndpoint(endpointRequest(lan(2), 2, "192.0.2.10/24")));
    const auto refused = d.host->createEndpoint(request());
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr(endpointId(2).brief()));
    must(d.host->deleteNetwork(networkId(2)));
}

TEST_F(ExclusiveTest, ComesBackFromASandboxTheEngineLeftItIn) {
    Container a = connect(*d.host, request());
    must(d.host->leave(a.networkId, a.endpointId));
    must(d.host->deleteEndpoint(a.networkId, a.endpointId));
    EXPECT_EQ(nic(), before_);
}

TEST_F(ExclusiveTest, ComesBackWhenTheContainerAndBothDaemonsDied) {
    // This process holds the namespace by a descriptor, as the engine's bind mount does; nobody runs inside.
    Container a = connect(*d.host, request());
    restart();
    EXPECT_THAT(nic(), HasSubstr("does not exist"));
    clock_.advance(seconds(61));
    if (const auto lines = sweep(); lines.empty()) {
        GTEST_SKIP() << ("this /proc does not show all processes");
    } else {
        EXPECT_THAT(lines, ElementsAre("endpoint " + a.endpointId.brief() + ": released: its sandbox has no process"));
    }
}

TEST_F(ExclusiveTest, StaysWithALivingContainerThroughRestarts) {
    Container a = connect(*d.host, request());
    stop();  // the child shall not inherit the state file's lock
    const pid_t child = ::fork();
    if (child == 0) {
        const std::string inside = "--net=/proc/" + std::to_string(::getppid()) + "/fd/" + std::to_string(a.ns.fd());
        ::execlp("nsenter", "nsenter", inside.c_str(), "sleep", "60", nullptr);
        ::_exit(1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    start();
    clock_.advance(seconds(3600));
    EXPECT_THAT(sweep(), IsEmpty());
    EXPECT_EQ(reach(a.ns, ip("192.0.2.2"), 80, *outside_, 80), ip("192.0.2.1"));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    disconnect(*d.host, a);
}

TEST_F(ExclusiveTest, IsTheHostsAgainAfterItCameBackWithoutTheDaemon) {
    Container a = connect(*d.host, request());
    stop();
    leaveSandbox(a);
    start();  // TearDown compares the NIC
    EXPECT_FALSE(d.records->endpoint(a.endpointId));
}

TEST_F(ExclusiveTest, IsFreeAfterAnEngineThatCrashedLetItComeBack) {
    Container a = connect(*d.host, request());
    auto inside = must(net::Netlink::openIn(a.ns));
    must(inside->moveTo(must(inside->getLink("eth0")).index, *host_, "dev7"));
    Container b = connect(*d.host, request(2));
    EXPECT_FALSE(d.records->endpoint(a.endpointId));
    disconnect(*d.host, b);
}

TEST_F(ExclusiveTest, NeverJoinedIsGivenBack) {
    must(d.host->createEndpoint(request()));
    restart();
    clock_.advance(seconds(61));
    EXPECT_EQ(sweep().size(), 1U);
}

TEST_F(ExclusiveTest, ComesBackUnderAnotherName) {
    // The kernel saves a NIC from a namespace that ends, under a name that is free.
    Container a = connect(*d.host, request());
    must(d.host->leave(a.networkId, a.endpointId));
    auto inside = must(net::Netlink::openIn(a.ns));
    must(inside->setDown(must(inside->getLink("eth0")).index));
    must(inside->moveTo(must(inside->getLink("eth0")).index, *host_, "dev7"));
    must(d.host->deleteEndpoint(a.networkId, a.endpointId));
    EXPECT_EQ(nic(), before_);
}

TEST(NicState, SurvivesItsEncoding) {
    NicState state;
    state.name = "eth0";
    state.alias = "a, \"b\"";
    state.mac = MacAddress({2, 0, 0, 0, 0, 1});
    state.mtu = 9000;
    state.up = true;
    state.addresses = {prefix("192.0.2.1/24"), prefix("2001:db8::1/64")};
    net::Route route;
    route.destination = prefix("0.0.0.0/0");
    route.gateway = ip("192.0.2.2");
    route.metric = 100;
    state.routes = {route};
    const NicState back = must(NicState::decode(state.encode()));
    EXPECT_EQ(back.alias, state.alias);
    EXPECT_EQ(back.addresses, state.addresses);
    EXPECT_EQ(back.routes[0].gateway, route.gateway);
    EXPECT_EQ(back.encode(), state.encode());
    EXPECT_FALSE(NicState::decode(state.encode().substr(1)));
    EXPECT_FALSE(NicState::decode(""));
}

}  // namespace
}  // namespace weft
