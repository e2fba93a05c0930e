#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "drivers/names.h"
#include "tests/netns/drivers/engine_lab.h"

namespace weft {
namespace {

using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class BridgeTest : public EngineLab {
protected:
    net::NetNs& outside() { return *outside_; }
    net::NetNs& host() { return *host_; }
    static PortBinding port(uint16_t container, uint16_t hostPort, IpProtocol protocol = IpProtocol::Tcp,
                            std::optional<IpAddress> hostIp = {}) {
        return {protocol, container, hostIp, hostPort, 0};
    }
};

TEST_F(BridgeTest, NetworkIsWhatWasAsked) {
    const auto request = networkRequest(1, "10.20.0.0/24", "fd00:20::/64");
    createNetwork(request);
    createNetwork(request);
    const std::string name = bridgeName(request.networkId);
    const std::string seen = shellInside(host(), "ip -d addr show " + name);
    EXPECT_THAT(seen, HasSubstr("mtu 1450"));  // the default route's
    EXPECT_THAT(seen, HasSubstr("inet 10.20.0.1/24"));
    EXPECT_THAT(seen, HasSubstr("inet6 fd00:20::1/64"));
    EXPECT_THAT(seen, Not(HasSubstr("tentative")));
    EXPECT_THAT(seen, HasSubstr("alias weft network " + request.networkId.str()));
    const auto sysctl = [&](const std::string& key) {
        std::string value = shellInside(host(), "cat /proc/sys/net/" + key);
        value.pop_back();
        return value;
    };
    EXPECT_EQ(sysctl("ipv4/conf/" + name + "/forwarding"), "1");
    EXPECT_EQ(sysctl("ipv4/conf/" + name + "/route_localnet"), "1");
    EXPECT_EQ(sysctl("ipv6/conf/" + name + "/accept_ra"), "0");
    EXPECT_EQ(sysctl("ipv4/ip_forward"), "1");
    EXPECT_EQ(sysctl("ipv6/conf/all/forwarding"), "1");
    EXPECT_EQ(recorder_.kernel.networks.at(request.networkId).bridge, name);
    EXPECT_THAT(reconcile(), IsEmpty());

    auto other = request;
    other.internal = true;
    EXPECT_EQ(d.bridge->createNetwork(other).error().code, ErrorCode::AlreadyExists);
    must(d.bridge->deleteNetwork(request.networkId));
    must(d.bridge->deleteNetwork(request.networkId));
    EXPECT_TRUE(recorder_.kernel.networks.empty());
    EXPECT_TRUE(d.ipam->listLeases().empty() || endpointLeases() == 0);
}

// Who is to send as somebody else: a second address, and another MAC.
class SpoofTest : public BridgeTest {
protected:
    static bool pings(const Container& from, const std::string& to, const std::string& source = {}) {
        const std::string option = source.empty() ? "" : "-I " + source + " ";
        return shellInside(from.ns, "ping -c 1 -W 1 " + option + to).find(" 0% packet loss") != std::string::npos;
    }
    // Whether the other one answers to an address that only `container` says it has.
    static bool forges(const Container& container, const std::string& address, const std::string& to) {
        shellInside(container.ns, "ip addr add " + address + "/32 dev eth0 2> /dev/null");
        return pings(container, to, address);
    }
    net::DropCounts drops(const Container& container) {
        return d.portProgram->drops(must(d.netlink->linkIndex(hostEndName(container.endpointId))));
    }
    CreateEndpointRequest withSpoof(CreateEndpointRequest request, const std::string& value) {
        request.options["weft.spoof"] = value;
        return request;
    }
    std::string fdb(const MacAddress& mac) { return shellInside(host(), "bridge fdb show | grep " + mac.str()); }
};

TEST_F(SpoofTest, AContainerSendsAsItselfUnlessTheNetworkOrTheEndpointAllowsMore) {
    const auto closed = networkRequest(1, "10.20.0.0/24");
    const auto open = networkRequest(2, "10.21.0.0/24", {}, {{"weft.spoof", "allow"}});
    createNetwork(closed);
    createNetwork(open);
    ASSERT_EQ(d.bridge->networks().size(), 2U);
    EXPECT_EQ(d.bridge->networks()[0].spoof, false);
    EXPECT_EQ(d.bridge->networks()[1].spoof, true);

    Container plain = connect(endpointRequest(closed, 1, "10.20.0.2/24"));
    Container allowed = connect(withSpoof(endpointRequest(closed, 2, "10.20.0.3/24"), "allow"));
    Container inOpen = connect(endpointRequest(open, 3, "10.21.0.2/24"));
    Container denied = connect(withSpoof(endpointRequest(open, 4, "10.21.0.3/24"), "deny"));
    for (const int restarts : {0, 1}) {
        EXPECT_TRUE(pings(plain, "10.20.0.3"));
        EXPECT_TRUE(pings(plain, "10.20.0.1"));
        EXPECT_FALSE(forges(plain, "10.20.0.9", "10.20.0.3"));
        EXPECT_FALSE(forges(plain, "10.20.0.9", "10.20.0.1")) << "towards the host";
        EXPECT_FALSE(forges(denied, "10.21.0.9", "10.21.0.2"));
        EXPECT_TRUE(forges(allowed, "10.20.0.8", "10.20.0.2"));
        EXPECT_TRUE(forges(inOpen, "10.21.0.8", "10.21.0.3"));
        EXPECT_GE(net::sum(drops(plain)), 2U * static_cast<unsigned>(restarts + 1)) << "counts outlive weftd";
        EXPECT_EQ(net::sum(drops(allowed)), 0U);
        restart();
    }
    EXPECT_THAT(reconcile(), IsEmpty());

    const auto refused = d.bridge->createEndpoint(withSpoof(endpointRequest(closed, 5, "10.20.0.4/24"), "yes"));
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("must be allow or deny"));
    EXPECT_EQ(d.bridge->createEndpoint(withSpoof(endpointRequest(closed, 1, "10.20.0.2/24"), "allow")).error().code,
              ErrorCode::AlreadyExists);
    for (Container* container : {&plain, &allowed, &inOpen, &denied}) disconnect(*container);
    must(d.bridge->deleteNetwork(closed.networkId));
    must(d.bridge->deleteNetwork(open.networkId));
}

TEST_F(SpoofTest, AMacStaysAtItsPort) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container victim = connect(endpointRequest(network, 1, "10.20.0.2/24"));
    Container thief = connect(withSpoof(endpointRequest(network, 2, "10.20.0.3/24"), "allow"));
    const std::string before = fdb(*victim.mac);
    EXPECT_THAT(before, HasSubstr("dev " + hostEndName(victim.endpointId) + " sticky master"));
    EXPECT_THAT(before, HasSubstr("sticky"));
    EXPECT_EQ(shellInside(thief.ns, "ip link set eth0 address " + victim.mac->str()), "");
    shellInside(thief.ns, "ping -c 1 -W 1 10.20.0.1");
    EXPECT_EQ(fdb(*victim.mac), before);
    EXPECT_TRUE(pings(victim, "10.20.0.1"));

    auto gateway = endpointRequest(network, 3, "10.20.0.4/24");
    gateway.mac = must(d.netlink->getLink(bridgeName(network.networkId))).mac;
    const auto refused = d.bridge->createEndpoint(gateway);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("is the gateway's"));
    disconnect(victim);
    disconnect(thief);
    must(d.bridge->deleteNetwork(network.networkId));
}

// What c52709e made has neither program nor entry.
TEST_F(SpoofTest, ContainersOfAnEarlierWeftdAreCheckedFromAdoptionOn) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container old = connect(endpointRequest(network, 1, "10.20.0.2/24"));
    const std::string link = hostEndName(old.endpointId);
    stop();
    EXPECT_EQ(shellInside(host(), "tc qdisc del dev " + link + " clsact; bridge fdb del " + old.mac->str() + " dev " +
                                      link + " master"),
              "");
    EXPECT_TRUE(forges(old, "10.20.0.9", "10.20.0.1"));
    start();
    EXPECT_FALSE(forges(old, "10.20.0.9", "10.20.0.1"));
    EXPECT_TRUE(pings(old, "10.20.0.1"));
    EXPECT_THAT(fdb(*old.mac), HasSubstr("sticky"));

    EXPECT_EQ(shellInside(host(), "tc qdisc del dev " + link + " clsact"), "");
    EXPECT_THAT(reconcile(), ElementsAre("program " + link + ": attached again"));
    EXPECT_FALSE(forges(old, "10.20.0.9", "10.20.0.1"));
    EXPECT_THAT(reconcile(), IsEmpty());
    disconnect(old);
    must(d.bridge->deleteNetwork(network.networkId));
}

// DHCP or a router beside weft may have given a container any address, but none that weft gave to another.
TEST_F(SpoofTest, OnAUsersBridgeAnAddressOfNobodyElse) {
    EXPECT_EQ(shellInside(host(), "ip link add home0 type bridge; ip link set home0 up"), "");
    const auto network = networkRequest(1, "10.20.0.0/24", {}, {{"com.docker.network.bridge.name", "home0"}});
    createNetwork(network);
    Container one = connect(endpointRequest(network, 1, "10.20.0.2/24"));
    Container two = connect(endpointRequest(network, 2, "10.20.0.3/24"));
    EXPECT_TRUE(pings(one, "10.20.0.3"));
    EXPECT_TRUE(forges(one, "10.20.0.77", "10.20.0.3"));
    EXPECT_EQ(net::sum(drops(one)), 0U);
    const auto announces = [&](const std::string& address) {
        const uint64_t before = net::sum(drops(one));
        shellInside(one.ns, "ip addr add " + address + "/32 dev eth0");
        pings(one, "10.20.0.200", address);
        shellInside(one.ns, "ip addr del " + address + "/32 dev eth0");
        return net::sum(drops(one)) == before;
    };
    EXPECT_FALSE(announces("10.20.0.3")) << "the other container's";
    EXPECT_FALSE(announces("10.20.0.1")) << "the gateway's";
    disconnect(two);
    EXPECT_TRUE(announces("10.20.0.3")) << "nobody's any more";
    disconnect(one);
    must(d.bridge->deleteNetwork(network.networkId));
    EXPECT_EQ(shellInside(host(), "ip link del home0"), "");
}

TEST_F(BridgeTest, HoldersAreNamed) {
    createNetwork(networkRequest(1, "10.20.0.0/24"));
    const auto refusal = [&](CreateNetworkRequest request) {
        const auto made = d.bridge->createNetwork(request);
        EXPECT_FALSE(made);
        return made ? std::string() : made.error().message;
    };
    CreateNetworkRequest request;
    request.networkId = networkId(2);
    IpamData data;
    data.pool = prefix("10.20.0.128/25");
    request.ipv4 = {data};
    EXPECT_THAT(refusal(request), HasSubstr("weft network " + networkId(1).brief()));
    request.ipv4[0].pool = prefix("192.0.0.0/16");
    EXPECT_THAT(refusal(request), HasSubstr("on eth0"));
    request.ipv4[0].pool = prefix("10.30.0.0/24");
    request.options = {{"com.docker.network.bridge.name", bridgeName(networkId(1))}};
    EXPECT_THAT(refusal(request), HasSubstr("weft network " + networkId(1).brief()));
    request.options = {{"com.docker.network.bridge.name", "eth0"}};
    EXPECT_THAT(refusal(request), HasSubstr("alias \"wire\""));
    request.options = {{"com.docker.network.bridge.name", "docker0"}};
    shellInside(host(), "ip link add docker0 type bridge");
    EXPECT_THAT(refusal(request), HasSubstr("Docker"));
    shellInside(host(), "ip link del docker0");
    EXPECT_THAT(weftLinks(), ElementsAre(bridgeName(networkId(1))));
    must(d.bridge->deleteNetwork(networkId(1)));
}

TEST_F(BridgeTest, UsersOwnBridgeIsUsedAndLeftAsItWas) {
    shellInside(host(), "ip link add br-mine type bridge; ip addr add 10.99.0.1/24 dev br-mine");
    auto request = networkRequest(1, "10.20.0.0/24", "", {{"com.docker.network.bridge.name", "br-mine"}});
    createNetwork(request);
    // Without the guard of a network this opens the host's own 127.0.0.1 to whoever is on the bridge.
    const std::string localnet = "cat /proc/sys/net/ipv4/conf/br-mine/route_localnet";
    EXPECT_EQ(shellInside(host(), localnet), "1\n");
    Container a = connect(endpointRequest(request, 1, "10.20.0.2/24"));
    EXPECT_TRUE(reach(host(), ip("10.20.0.2"), 80, a.ns, 80));
    disconnect(a);
    restart();
    must(d.bridge->deleteNetwork(request.networkId));
    const std::string left = shellInside(host(), "ip addr show br-mine");
    EXPECT_THAT(left, HasSubstr("10.99.0.1/24"));
    EXPECT_THAT(left, Not(HasSubstr("10.20.0.1")));
    EXPECT_EQ(shellInside(host(), localnet), "0\n");
    shellInside(host(), "ip link del br-mine");
}

// IPAM is told before the driver, and the engine does not repeat DeleteNetwork.
TEST_F(BridgeTest, ANetworkWhoseSubnetWasGivenBackGoes) {
    const auto gone = networkRequest(1, "10.20.0.0/24");
    const auto stays = networkRequest(2, "10.21.0.0/24");
    createNetwork(gone);
    createNetwork(stays);
    for (const ipam::PoolInfo& pool : d.ipam->listPools()) {
        if (pool.record.network == gone.networkId) must(d.ipam->releasePool(pool.record.id));
    }
    restart();
    EXPECT_THAT(weftLinks(), ElementsAre(bridgeName(stays.networkId)));
    EXPECT_FALSE(d.records->network(gone.networkId));
    EXPECT_EQ(d.ipam->listPools().size(), 1U);
    EXPECT_EQ(recorder_.kernel.networks.size(), 1U);
    must(d.bridge->deleteNetwork(gone.networkId));
    must(d.bridge->deleteNetwork(stays.networkId));
}

// By another weft, or by hand.
TEST_F(BridgeTest, ANetworkWhoseOptionsCannotBeReadIsClosedNotOpened) {
    const auto request = networkRequest(1, "10.20.0.0/24");
    createNetwork(request);
    NetworkRecord record = *d.records->network(request.networkId);
    const std::string bridge = record.link;
    record.request.options["weft.option.of.tomorrow"] = "1";
    must(d.records->put(std::move(record)).wait());
    restart();
    ASSERT_TRUE(recorder_.kernel.networks.contains(request.networkId));
    const firewall::Network& rules = recorder_.kernel.networks.at(request.networkId);
    EXPECT_TRUE(rules.internal);
    EXPECT_FALSE(rules.icc);
    EXPECT_EQ(rules.bridge, bridge);
    EXPECT_THAT(rules.subnets, ElementsAre(prefix("10.20.0.0/24")));
    ASSERT_THAT(d.bridge->unreadable(), SizeIs(1));
    EXPECT_THAT(d.bridge->unreadable().at(0).second.message, HasSubstr("weft.option.of.tomorrow"));
    must(d.bridge->deleteNetwork(request.networkId));
    EXPECT_THAT(d.bridge->unreadable(), IsEmpty());
    EXPECT_THAT(recorder_.kernel.networks, IsEmpty());
}

TEST_F(BridgeTest, RulesAreRepairedWhileOthersChangeThem) {
    constexpr int kNetworks = 4;
    std::atomic<bool> stop = false;
    std::vector<std::thread> engine;
    recorder_.delay = std::chrono::milliseconds(30);
    for (int i = 1; i <= kNetworks; ++i) {
        const auto network = networkRequest(i, "10.2" + std::to_string(i) + ".0.0/24");
        createNetwork(network);
        const auto request = endpointRequest(network, i, "10.2" + std::to_string(i) + ".0.2/24");
        must(d.bridge->createEndpoint(request));
        engine.emplace_back([this, &stop, id = request.networkId, endpoint = request.endpointId, i] {
            const PortOptions ports{{port(80, static_cast<uint16_t>(8080 + i))}, {}};
            while (!stop) {
                must(d.bridge->programExternalConnectivity({id, endpoint, ports}));
                must(d.bridge->revokeExternalConnectivity(id, endpoint));
            }
        });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_TRUE(d.bridge->reconcileFirewall(false));
    stop = true;
    for (std::thread& thread : engine) thread.join();
    for (int i = 1; i <= kNetworks; ++i) must(d.bridge->deleteNetwork(networkId(i)));
}

TEST_F(BridgeTest, EndpointIsWhatWasAskedAndGoes) {
    const auto network = networkRequest(1, "10.20.0.0/24", "fd00:20::/64");
    createNetwork(network);
    const auto request = endpointRequest(network, 1, "10.20.0.2/24", "fd00:20::2/64");
    const auto reply = must(d.bridge->createEndpoint(request));
    EXPECT_EQ(reply.mac->str(), "02:42:0a:14:00:02");
    EXPECT_FALSE(reply.address);
    EXPECT_EQ(must(d.bridge->createEndpoint(request)).mac, reply.mac);
    auto different = request;
    different.mac = must(MacAddress::parse("02:00:00:00:00:05"));
    EXPECT_EQ(d.bridge->createEndpoint(different).error().code, ErrorCode::AlreadyExists);

    const auto link = must(d.netlink->getLink(hostEndName(request.endpointId)));
    EXPECT_EQ(link.mtu, 1450U);
    EXPECT_EQ(link.alias, endpointMark(request.endpointId));
    EXPECT_EQ(link.master, must(d.netlink->getLink(bridgeName(network.networkId))).index);
    const auto peer = must(d.netlink->getLink(containerEndName(request.endpointId)));
    EXPECT_EQ(peer.mac, *reply.mac);
    EXPECT_EQ(peer.mtu, 1450U);
    EXPECT_EQ(endpointLeases(), 2U);

    const JoinReply join = must(d.bridge->join({request.networkId, request.endpointId, "/nowhere", {}}));
    EXPECT_EQ(join.sourceName, containerEndName(request.endpointId));
    EXPECT_EQ(join.destinationPrefix, "eth");
    EXPECT_EQ(join.gateway, ip("10.20.0.1"));
    EXPECT_EQ(join.gatewayV6, ip("fd00:20::1"));
    EXPECT_FALSE(join.disableGatewayService);

    must(d.bridge->leave(request.networkId, request.endpointId));
    must(d.bridge->deleteEndpoint(request.networkId, request.endpointId));
    must(d.bridge->deleteEndpoint(request.networkId, request.endpointId));
    must(d.bridge->leave(request.networkId, request.endpointId));
    EXPECT_THAT(weftLinks(), ElementsAre(bridgeName(network.networkId)));
    EXPECT_EQ(d.bridge->join({request.networkId, request.endpointId, "/nowhere", {}}).error().code,
              ErrorCode::NotFound);
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_F(BridgeTest, AddressesAreOneEndpointsAtATime) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"));
    auto second = endpointRequest(network, 2, "10.20.0.2/24");
    const auto refused = d.bridge->createEndpoint(second);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::Busy);
    EXPECT_THAT(refused.error().message, HasSubstr(endpointId(1).brief()));
    for (const char* bad : {"10.20.0.1/24", "10.21.0.2/24"}) {
        second.address = prefix(bad);
        EXPECT_EQ(d.bridge->createEndpoint(second).error().code, ErrorCode::InvalidArgument) << bad;
    }
    // The container died with its namespace, and nobody told the driver.
    shellInside(a.ns, "ip link del eth0");
    second.address = prefix("10.20.0.2/24");
    must(d.bridge->createEndpoint(second));
    EXPECT_EQ(d.records->endpointCount(network.networkId), 1U);
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_F(BridgeTest, ReusedAddressWithAnotherMacIsReachableAtOnce) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container neighbour = connect(endpointRequest(network, 9, "10.20.0.9/24"));
    auto request = endpointRequest(network, 1, "10.20.0.2/24");
    request.mac = must(MacAddress::parse("02:00:00:00:00:77"));
    Container a = connect(request);
    ASSERT_TRUE(reach(neighbour.ns, ip("10.20.0.2"), 80, a.ns, 80));
    ASSERT_TRUE(reach(host(), ip("10.20.0.2"), 80, a.ns, 80));
    EXPECT_THAT(shellInside(neighbour.ns, "ip neigh"), HasSubstr("02:00:00:00:00:77"));
    disconnect(a);
    Container b = connect(endpointRequest(network, 2, "10.20.0.2/24"));
    EXPECT_TRUE(reach(neighbour.ns, ip("10.20.0.2"), 80, b.ns, 80, 6, std::chrono::milliseconds(500)));
    EXPECT_TRUE(reach(host(), ip("10.20.0.2"), 80, b.ns, 80, 6, std::chrono::milliseconds(500)));
    disconnect(b);
    disconnect(neighbour);
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_F(BridgeTest, IccFalseClosesTheBridgeItself) {
    const auto network = networkRequest(1, "10.20.0.0/24", "", {{"com.docker.network.bridge.enable_icc", "false"}});
    createNetwork(network);
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"));
    Container b = connect(endpointRequest(network, 2, "10.20.0.3/24"));
    EXPECT_TRUE(closed(a.ns, ip("10.20.0.3"), 80, b.ns, 80));
    EXPECT_TRUE(reach(host(), ip("10.20.0.3"), 80, b.ns, 80));
    // Where frames pass the rules these decide, and hairpin is needed.
    shellInside(host(), "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables");
    EXPECT_THAT(reconcile(), ElementsAre("link " + hostEndName(a.endpointId) + ": port settings restored",
                                         "link " + hostEndName(b.endpointId) + ": port settings restored"));
    EXPECT_TRUE(must(d.netlink->getLink(hostEndName(a.endpointId))).port.hairpin.value());
    EXPECT_TRUE(reach(a.ns, ip("10.20.0.3"), 80, b.ns, 80));  // the recorder filters nothing
    EXPECT_THAT(reconcile(), IsEmpty());
    disconnect(a);
    disconnect(b);
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_F(BridgeTest, SeveralSubnetsAndAnotherGateway) {
    CreateNetworkRequest request;
    request.networkId = networkId(1);
    IpamData first;
    first.pool = prefix("10.20.0.0/24");
    first.auxAddresses = {{"DefaultGatewayIPv4", prefix("10.20.0.254/24")}};
    IpamData second;
    second.pool = prefix("10.21.0.0/24");
    second.gateway = prefix("10.21.0.77/24");
    request.ipv4 = {first, second};
    createNetwork(request);
    EXPECT_THAT(shellInside(host(), "ip addr show " + bridgeName(request.networkId)),
                ::testing::AllOf(HasSubstr("10.20.0.1/24"), HasSubstr("10.21.0.77/24")));
    const auto gatewayOf = [&](int number, const std::string& address) {
        const auto endpoint = endpointRequest(request, number, address);
        must(d.bridge->createEndpoint(endpoint));
        return must(d.bridge->join({endpoint.networkId, endpoint.endpointId, "/x", {}})).gateway;
    };
    EXPECT_EQ(gatewayOf(1, "10.20.0.2/24"), ip("10.20.0.254"));
    EXPECT_EQ(gatewayOf(2, "10.21.0.2/24"), ip("10.21.0.77"));
    must(d.bridge->deleteNetwork(request.networkId));
}

TEST_F(BridgeTest, InternalHasNoGatewayAndPublishesNothing) {
    auto network = networkRequest(1, "10.20.0.0/24");
    network.internal = true;
    createNetwork(network);
    EXPECT_EQ(shellInside(host(), "cat /proc/sys/net/ipv4/ip_forward"), "0\n");
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"));
    EXPECT_FALSE(a.join.gateway);
    EXPECT_TRUE(a.join.disableGatewayService);
    EXPECT_FALSE(d.bridge->programExternalConnectivity({a.networkId, a.endpointId, {{port(80, 8080)}, {}}}));
    disconnect(a);
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_F(BridgeTest, PortsAreHeldNamedAndGivenBack) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"), {port(80, 8080), port(81, 0)});
    must(d.bridge->programExternalConnectivity({a.networkId, a.endpointId, {{port(80, 8080), port(81, 0)}, {}}}));
    const auto published = d.records->endpoint(a.endpointId)->published;
    ASSERT_EQ(published.size(), 2U);
    EXPECT_EQ(recorder_.kernel.endpoints.at(a.endpointId).ports, published);
    EXPECT_EQ(published[0].hostPort, 8080);
    EXPECT_NE(published[1].hostPort, 0);

    Container b = connect(endpointRequest(network, 2, "10.20.0.3/24"));
    const auto want = [&](uint16_t hostPort) {
        return d.bridge->programExternalConnectivity({b.networkId, b.endpointId, {{port(90, hostPort)}, {}}});
    };
    const auto refused = want(8080);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::Busy);
    EXPECT_THAT(refused.error().message, HasSubstr(a.endpointId.brief()));
    // Another program's socket.
    const UniqueFd other = must(net::socketIn(host(), AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(8099);
    ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(other.get(), 1), 0);
    const auto taken = want(8099);
    ASSERT_FALSE(taken);
    EXPECT_THAT(taken.error().message, HasSubstr("pid " + std::to_string(::getpid())));
    EXPECT_TRUE(d.records->endpoint(b.endpointId)->published.empty());

    // Held across a restart, free after the end.
    restart();
    EXPECT_FALSE(want(8080));
    must(d.bridge->revokeExternalConnectivity(a.networkId, a.endpointId));
    must(d.bridge->revokeExternalConnectivity(a.networkId, a.endpointId));
    EXPECT_FALSE(recorder_.kernel.endpoints.contains(a.endpointId));
    must(want(8080));
    // Its holder's link is gone: the port goes to who wants it.
    shellInside(b.ns, "ip link del eth0");
    must(d.bridge->programExternalConnectivity({a.networkId, a.endpointId, {{port(80, 8080)}, {}}}));
    EXPECT_FALSE(d.records->endpoint(b.endpointId));
    disconnect(a);
    EXPECT_TRUE(recorder_.kernel.endpoints.empty());
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_F(BridgeTest, FailedPublishLeavesNothing) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"));
    recorder_.failSetEndpoint = makeError(ErrorCode::Timeout, "locked");
    EXPECT_FALSE(d.bridge->programExternalConnectivity({a.networkId, a.endpointId, {{port(80, 8080)}, {}}}));
    recorder_.failSetEndpoint.reset();
    EXPECT_TRUE(d.records->endpoint(a.endpointId)->published.empty());
    must(d.bridge->programExternalConnectivity({a.networkId, a.endpointId, {{port(80, 8080)}, {}}}));
    disconnect(a);
    must(d.bridge->deleteNetwork(network.networkId));
}

// Reconciliation

TEST_F(BridgeTest, HealsWhatOthersDamaged) {
    const auto network = networkRequest(1, "10.20.0.0/24", "fd00:20::/64");
    createNetwork(network);
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24", "fd00:20::2/64"), {port(80, 8080)});
    const std::string bridge = bridgeName(network.networkId);
    for (const std::string& damage : std::initializer_list<std::string>{
             "ip addr flush dev " + bridge,
             "ip link set " + bridge + " down",
             "ip link set " + bridge + " mtu 1300",
             "ip link set " + hostEndName(a.endpointId) + " nomaster",
             "ip link set " + hostEndName(a.endpointId) + " down",
             "echo 0 > /proc/sys/net/ipv4/conf/" + bridge + "/forwarding",
             "echo 0 > /proc/sys/net/ipv4/ip_forward",
             "ip link del " + bridge,
         }) {
        EXPECT_EQ(shellInside(host(), damage), "") << damage;
        recorder_.kernel.endpoints.clear();
        const auto dry = reconcile(true);
        EXPECT_THAT(dry, Not(IsEmpty())) << damage;
        EXPECT_TRUE(recorder_.kernel.endpoints.empty()) << "dry run changed rules";
        reconcile();
        EXPECT_THAT(reconcile(), IsEmpty()) << damage;
        EXPECT_TRUE(reach(host(), ip("10.20.0.2"), 80, a.ns, 80)) << damage;
        EXPECT_TRUE(reach(host(), ip("fd00:20::2"), 80, a.ns, 80)) << damage;
        EXPECT_EQ(recorder_.kernel.endpoints.size(), 1U);
    }
    disconnect(a);
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_F(BridgeTest, ReleasesTheDeadAndUnfinishedAfterGrace) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container dead = connect(endpointRequest(network, 1, "10.20.0.2/24"), {port(80, 8080)});
    Container alive = connect(endpointRequest(network, 2, "10.20.0.3/24"));
    must(d.bridge->createEndpoint(endpointRequest(network, 3, "10.20.0.4/24")));  // never joined
    Container left = connect(endpointRequest(network, 4, "10.20.0.5/24"));
    must(d.bridge->leave(left.networkId, left.endpointId));
    shellInside(dead.ns, "ip link del eth0");
    EXPECT_EQ(endpointLeases(), 4U);

    EXPECT_THAT(reconcile(), Contains("endpoint " + dead.endpointId.brief() + ": released: its link is gone"));
    EXPECT_EQ(d.records->endpointCount(network.networkId), 3U);
    EXPECT_TRUE(recorder_.kernel.endpoints.empty());
    clock_.advance(seconds(61));
    reconcile();
    EXPECT_EQ(d.records->endpointCount(network.networkId), 1U);
    EXPECT_TRUE(d.records->endpoint(alive.endpointId));
    clock_.advance(seconds(61));
    must(d.ipam->collect());
    EXPECT_EQ(endpointLeases(), 1U);
    EXPECT_TRUE(reach(host(), ip("10.20.0.3"), 80, alive.ns, 80));
    disconnect(alive);
    must(d.bridge->deleteNetwork(network.networkId));
}

// The engine ends a container without the daemon when that is away for longer than it tries.
TEST_F(BridgeTest, AContainerThatEndedWithoutTheDaemonHoldsNothing) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container first = connect(endpointRequest(network, 1, "10.20.0.2/24"), {port(80, 8080)});
    must(d.bridge->createEndpoint(endpointRequest(network, 2, "10.20.0.3/24")));
    JoinRequest join{network.networkId, endpointId(2), "/run/docker/netns/none-yet", {}};
    must(d.bridge->join(join));  // and the engine has not moved it yet
    stop();
    leaveSandbox(first);

    start(false);
    Container second = connect(endpointRequest(network, 3, "10.20.0.2/24"), {port(80, 8080)});
    EXPECT_FALSE(d.records->endpoint(first.endpointId));
    leaveSandbox(second);
    EXPECT_THAT(reconcile(),
                Contains("endpoint " + second.endpointId.brief() + ": released: its container gave the link back"));
    EXPECT_TRUE(recorder_.kernel.endpoints.empty());
    EXPECT_TRUE(d.records->endpoint(endpointId(2)));
    must(d.bridge->deleteNetwork(network.networkId));
}

// The group comes with a creation, the alias after it.
TEST_F(BridgeTest, LinksKilledBeforeTheirMarkAreFinishedOrGo) {
    constexpr const char* kHalf = " group 2003134068 type ";
    const auto network = networkRequest(1, "10.20.0.0/24");
    const std::string bridge = bridgeName(network.networkId);
    createNetwork(network);
    must(d.bridge->createEndpoint(endpointRequest(network, 1, "10.20.0.2/24")));
    stop();
    shellInside(host(), "ip link del " + bridge + "; ip link add " + bridge + kHalf + "bridge; " +
                            "ip link add weft-half" + kHalf + "bridge; ip link add wv0" + kHalf +
                            "veth peer name wc0; ip link del " + hostEndName(endpointId(1)) + "; ip link add " +
                            hostEndName(endpointId(1)) + kHalf + "veth peer name " + containerEndName(endpointId(1)));
    start();
    EXPECT_THAT(weftLinks(), ElementsAre(bridge));
    EXPECT_EQ(must(d.netlink->getLink(bridge)).alias, networkMark(network.networkId));
    EXPECT_EQ(d.records->endpointCount(network.networkId), 0U);
    // Later it may be one that is being made.
    shellInside(host(), std::string("ip link add weft-half") + kHalf + "bridge");
    EXPECT_THAT(reconcile(), IsEmpty());
    EXPECT_THAT(weftLinks(), ::testing::UnorderedElementsAre(bridge, "weft-half"));
    // Or one whose maker got no answer from the kernel in time.
    clock_.advance(seconds(31));
    EXPECT_THAT(reconcile(), ElementsAre("link weft-half: removed: nobody's"));
    EXPECT_THAT(weftLinks(), ElementsAre(bridge));
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_F(BridgeTest, OrphansGoAndStrangersStay) {
    shellInside(host(),
                "ip link add weft-stranger type bridge; ip link add wv0 type veth peer name wc0; "
                "ip link add nobody type bridge; ip link set nobody alias \"weft network " +
                    networkId(7).str() + "\"");
    reconcile();
    EXPECT_THAT(weftLinks(), Contains("nobody"));  // may be under way
    clock_.advance(seconds(31));
    EXPECT_THAT(reconcile(), ElementsAre("link nobody: removed: nobody's"));
    EXPECT_THAT(weftLinks(), ::testing::UnorderedElementsAre("weft-stranger", "wv0", "wc0"));
    shellInside(host(), "ip link del weft-stranger; ip link del wv0");
}

TEST_F(BridgeTest, HostRebootRebuildsNetworksAndReleasesEndpoints) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"), {port(80, 8080)});
    stop();
    recorder_.kernel = {};
    // Another namespace is another kernel instance, and it is empty.
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    host_ = must(net::NetNs::current());
    start();
    EXPECT_THAT(weftLinks(), ElementsAre(bridgeName(network.networkId)));
    EXPECT_EQ(d.records->endpointCount(network.networkId), 0U);
    EXPECT_EQ(recorder_.kernel.networks.size(), 1U);
    EXPECT_TRUE(recorder_.kernel.endpoints.empty());
    // Left to the engine, which comes next, and closes the host to others' packets only if it finds it off.
    EXPECT_EQ(shellInside(host(), "cat /proc/sys/net/ipv4/ip_forward"), "0\n");
    Container b = connect(endpointRequest(network, 2, "10.20.0.2/24"), {port(80, 8080)});
    EXPECT_TRUE(reach(host(), ip("10.20.0.2"), 80, b.ns, 80));
    disconnect(b);
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_F(BridgeTest, RestartBetweenAnyTwoCallsLosesNothing) {
    auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    restart();
    const auto request = endpointRequest(network, 1, "10.20.0.2/24");
    restart();
    const auto mac = must(d.bridge->createEndpoint(request)).mac;
    restart();
    EXPECT_EQ(must(d.bridge->createEndpoint(request)).mac, mac);
    Container a{request.networkId, request.endpointId, request.address, {}, mac, {}, {}, must(net::NetNs::create())};
    a.join = must(d.bridge->join({request.networkId, request.endpointId, "/x", {}}));
    a.sourceName = a.join.sourceName;
    restart();
    enter(a);
    restart();
    must(d.bridge->programExternalConnectivity({a.networkId, a.endpointId, {{port(80, 8080)}, {}}}));
    restart();
    EXPECT_TRUE(reach(host(), ip("10.20.0.2"), 80, a.ns, 80));
    EXPECT_EQ(recorder_.kernel.endpoints.size(), 1U);
    clock_.advance(seconds(600));
    EXPECT_THAT(reconcile(), IsEmpty());
    must(d.ipam->collect());
    EXPECT_EQ(endpointLeases(), 1U);
    must(d.bridge->leave(a.networkId, a.endpointId));
    restart();
    EXPECT_TRUE(recorder_.kernel.endpoints.empty());
    must(d.bridge->deleteEndpoint(a.networkId, a.endpointId));
    restart();
    must(d.bridge->deleteNetwork(network.networkId));
    restart();
    EXPECT_THAT(weftLinks(), IsEmpty());
}

TEST_F(BridgeTest, ABridgeKilledBeforeItHadItsAliasIsRemoved) {
    stop();
    // The group is what net/ gives a link in the message that creates it.
    EXPECT_EQ(shellInside(host(), "ip link add weft-half group 2003134068 type bridge"), "");
    EXPECT_EQ(shellInside(host(), "ip link add somebodys type bridge"), "");
    start(false);
    EXPECT_EQ(reconcile().size(), 1U);
    EXPECT_THAT(weftLinks(), IsEmpty());
    EXPECT_EQ(shellInside(host(), "ip link del somebodys"), "");
}

// A child plays the daemon and is killed at a random instruction, again and again; its successor must leave nothing.
TEST_F(BridgeTest, KilledAnywhereLeaksNothing) {
    auto kept = networkRequest(1, "10.20.0.0/24");
    createNetwork(kept);
    Container alive = connect(endpointRequest(kept, 1, "10.20.0.2/24"), {port(80, 8080)});
    std::mt19937 random(::testing::UnitTest::GetInstance()->random_seed());
    size_t repairs = 0;
    for (int round = 0; round < 15; ++round) {
        stop();
        int started[2];
        ASSERT_EQ(::pipe2(started, O_CLOEXEC), 0);
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            start();
            ::close(started[1]);
            for (int number = 100;; ++number) {
                const auto network = networkRequest(number, "10.21.0.0/24");
                createNetwork(network);
                for (const auto& [in, address] :
                     {std::pair(kept, "10.20.0.9/24"), std::pair(network, "10.21.0.9/24")}) {
                    const auto request = endpointRequest(in, number * 2 + (in.networkId == kept.networkId), address);
                    const PortOptions ports{{port(80, 9090)}, {}};
                    must(d.bridge->createEndpoint(request));
                    must(d.bridge->join({request.networkId, request.endpointId, "/x", ports}));
                    must(d.bridge->programExternalConnectivity({request.networkId, request.endpointId, ports}));
                    must(d.bridge->leave(request.networkId, request.endpointId));
                    must(d.bridge->deleteEndpoint(request.networkId, request.endpointId));
                }
                must(d.bridge->deleteNetwork(network.networkId));
                for (const ipam::PoolInfo& pool : d.ipam->listPools()) {
                    if (pool.record.pool == prefix("10.21.0.0/24")) must(d.ipam->releasePool(pool.record.id));
                }
            }
        }
        ::close(started[1]);
        char end = 0;
        if (round % 3 != 0) {  // the others may meet it at its start
            EXPECT_EQ(::read(started[0], &end, 1), 0);
        }
        ::close(started[0]);
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 100000));
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);

        start(false);
        repairs += reconcile().size();
        EXPECT_TRUE(reach(host(), ip("10.20.0.2"), 80, alive.ns, 80));
        clock_.advance(seconds(600));
        repairs += reconcile().size();
        must(d.ipam->collect());
        clock_.advance(seconds(600));
        must(d.ipam->collect());
        // The engine's part: networks it made and knows of are removed by it.
        for (const NetworkPtr& network : d.records->networks()) {
            EXPECT_EQ(d.records->endpointCount(network->request.networkId),
                      network->request.networkId == kept.networkId);
            if (network->request.networkId != kept.networkId) must(d.bridge->deleteNetwork(network->request.networkId));
        }
        for (const ipam::PoolInfo& pool : d.ipam->listPools()) {
            if (pool.record.pool == prefix("10.21.0.0/24")) must(d.ipam->releasePool(pool.record.id));
        }
        EXPECT_THAT(weftLinks(),
                    ::testing::UnorderedElementsAre(bridgeName(kept.networkId), hostEndName(alive.endpointId)));
        EXPECT_EQ(endpointLeases(), 1U);
        EXPECT_THAT(reconcile(), IsEmpty());
        if (HasFailure()) break;
    }
    EXPECT_GT(repairs, 0U) << "no kill met the child at work";
    std::printf("repairs after 15 kills: %zu\n", repairs);
    disconnect(alive);
    must(d.bridge->deleteNetwork(kept.networkId));
}

TEST_F(BridgeTest, ThousandEndpointsAreAsFastAsTheFirst) {
    const auto network = networkRequest(1, "10.20.0.0/16");
    createNetwork(network);
    constexpr int kCount = 1000;
    std::vector<double> up;
    std::vector<double> created;
    std::vector<double> joined;
    std::vector<double> programmed;
    std::vector<double> down;
    const auto timed = [](std::vector<double>& into, const auto& step) {
        const auto start = std::chrono::steady_clock::now();
        step();
        into.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    };
    std::vector<CreateEndpointRequest> requests;
    for (int i = 0; i < kCount; ++i) {
        const auto address = "10.20." + std::to_string(1 + i / 250) + "." + std::to_string(1 + i % 250) + "/16";
        requests.push_back(endpointRequest(network, i + 1, address));
    }
    for (const auto& request : requests) {
        const PortOptions ports{{port(80, 0)}, {}};
        timed(created, [&] { must(d.bridge->createEndpoint(request)); });
        timed(joined, [&] { must(d.bridge->join({request.networkId, request.endpointId, "/x", ports})); });
        timed(programmed, [&] {
            must(d.bridge->programExternalConnectivity({request.networkId, request.endpointId, ports}));
        });
        up.push_back(created.back() + joined.back() + programmed.back());
    }
    const auto sweep = std::chrono::steady_clock::now();
    EXPECT_THAT(reconcile(), IsEmpty());
    const double swept = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - sweep).count();
    for (const auto& request : requests) {
        timed(down, [&] {
            must(d.bridge->leave(request.networkId, request.endpointId));
            must(d.bridge->deleteEndpoint(request.networkId, request.endpointId));
        });
    }
    const auto median = [](std::vector<double> values) {
        std::sort(values.begin(), values.end());
        return values[values.size() / 2];
    };
    for (const auto& [what, times] :
         {std::pair("CreateEndpoint", created), std::pair("Join", joined), std::pair("Program", programmed),
          std::pair("together", up), std::pair("Leave+DeleteEndpoint", down)}) {
        const double first = median({times.begin(), times.begin() + 100});
        const double last = median({times.end() - 100, times.end()});
        std::printf("%-20s p50 %.3f ms, first 100 %.3f ms, last 100 %.3f ms\n", what, median(times), first, last);
    }
    std::printf("reconcile of %d endpoints %.1f ms\n", kCount, swept);
    EXPECT_EQ(d.records->endpointCount(network.networkId), 0U);
    must(d.bridge->deleteNetwork(network.networkId));
}

// Real rules and real packets, by each back end.

class PacketTest : public EngineLab, public ::testing::WithParamInterface<RulesBy> {
protected:
    PacketTest() : EngineLab(GetParam()) {}
};

TEST_P(PacketTest, PublishedPortsAreReachedAndOthersAreNot) {
    const auto network = networkRequest(1, "10.20.0.0/24", "fd00:20::/64");
    const auto otherNetwork = networkRequest(2, "10.21.0.0/24");
    createNetwork(network);
    createNetwork(otherNetwork);
    const std::vector<PortBinding> bindings{{IpProtocol::Tcp, 80, {}, 8080, 0},
                                            {IpProtocol::Udp, 53, {}, 5353, 0},
                                            {IpProtocol::Tcp, 81, ip("127.0.0.1"), 8081, 0}};
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24", "fd00:20::2/64"), bindings);
    Container b = connect(endpointRequest(network, 2, "10.20.0.3/24"));
    Container c = connect(endpointRequest(otherNetwork, 3, "10.21.0.2/24"));

    EXPECT_EQ(reach(*outside_, ip("192.0.2.1"), 8080, a.ns, 80), ip("192.0.2.2"));
    EXPECT_EQ(reach(*outside_, ip("2001:db8::1"), 8080, a.ns, 80), ip("2001:db8::2"));
    EXPECT_EQ(reach(*outside_, ip("192.0.2.1"), 5353, a.ns, 53, IPPROTO_UDP), ip("192.0.2.2"));
    EXPECT_TRUE(reach(*host_, ip("127.0.0.1"), 8080, a.ns, 80));
    EXPECT_TRUE(reach(*host_, ip("127.0.0.1"), 8081, a.ns, 81));
    EXPECT_TRUE(reach(*host_, ip("192.0.2.1"), 8080, a.ns, 80));
    EXPECT_TRUE(reach(b.ns, ip("192.0.2.1"), 8080, a.ns, 80));
    EXPECT_TRUE(reach(a.ns, ip("192.0.2.1"), 8080, a.ns, 80));  // its own
    EXPECT_TRUE(reach(c.ns, ip("192.0.2.1"), 8080, a.ns, 80));
    EXPECT_TRUE(reach(b.ns, ip("10.20.0.2"), 99, a.ns, 99));
    EXPECT_EQ(reach(a.ns, ip("192.0.2.2"), 99, *outside_, 99), ip("192.0.2.1"));  // masqueraded

    shellInside(*outside_, "ip route add 10.20.0.0/24 via 192.0.2.1; ip route add 127.0.0.1 via 192.0.2.1 table 99");
    EXPECT_TRUE(closed(*outside_, ip("10.20.0.2"), 80, a.ns, 80));
    EXPECT_TRUE(closed(*outside_, ip("192.0.2.1"), 8081, a.ns, 81));
    EXPECT_TRUE(closed(c.ns, ip("10.20.0.2"), 80, a.ns, 80));

    must(d.bridge->revokeExternalConnectivity(a.networkId, a.endpointId));
    EXPECT_TRUE(closed(*outside_, ip("192.0.2.1"), 8080, a.ns, 80));
    for (Container* container : {&a, &b, &c}) disconnect(*container);
    must(d.bridge->deleteNetwork(network.networkId));
    must(d.bridge->deleteNetwork(otherNetwork.networkId));
}

TEST_P(PacketTest, UdpFollowsThePortToItsNewContainer) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    const std::vector<PortBinding> bindings{{IpProtocol::Udp, 53, {}, 5353, 0}};
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"), bindings);
    // One client socket throughout: its flow is known to conntrack.
    const UniqueFd client = must(net::socketIn(*outside_, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(5353);
    ASSERT_EQ(::inet_pton(AF_INET, "192.0.2.1", &to.sin_addr), 1);
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    const auto say = [&] {
        // An ICMP error that came in is told once, in place of sending.
        while (::send(client.get(), "x", 1, 0) != 1 && errno == ECONNREFUSED) {
        }
    };
    const auto arrives = [&](const Container& at) {
        const UniqueFd server = must(net::socketIn(at.ns, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_in any{};
        any.sin_family = AF_INET;
        any.sin_port = htons(53);
        EXPECT_EQ(::bind(server.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
        say();
        timeval patience{1, 0};
        ::setsockopt(server.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        char byte = 0;
        return ::recv(server.get(), &byte, 1, 0) == 1;
    };
    EXPECT_TRUE(arrives(a));
    Container b = connect(endpointRequest(network, 2, "10.20.0.3/24"));
    must(d.bridge->leave(a.networkId, a.endpointId));
    // The client goes on while nobody has the port: this flow must not stick to the host either.
    say();
    must(d.bridge->programExternalConnectivity({b.networkId, b.endpointId, {bindings, {}}}));
    EXPECT_TRUE(arrives(b));
    must(d.bridge->deleteEndpoint(a.networkId, a.endpointId));
    disconnect(b);
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_P(PacketTest, RulesComeBackAfterARestart) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"), {{IpProtocol::Tcp, 80, {}, 8080, 0}});
    stop();
    shellInside(*host_, "nft flush ruleset 2>/dev/null; iptables-legacy -t nat -F; iptables-legacy -F");
    start();
    EXPECT_TRUE(reach(*outside_, ip("192.0.2.1"), 8080, a.ns, 80));
    EXPECT_THAT(reconcile(), IsEmpty());
    disconnect(a);
    must(d.bridge->deleteNetwork(network.networkId));
}

// The back end is new and knows nothing of what is in the kernel.
TEST_P(PacketTest, OtherNetworksKeepTheirRulesWhenTheFirstSweepFailed) {
    const auto network = networkRequest(1, "10.20.0.0/24");
    createNetwork(network);
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"), {{IpProtocol::Tcp, 80, {}, 8080, 0}});
    Container b = connect(endpointRequest(network, 2, "10.20.0.3/24"));
    const auto isOpen = [&] { return reach(*outside_, ip("192.0.2.1"), 8080, a.ns, 80).has_value(); };
    restart(false);
    const auto other = networkRequest(2, "10.21.0.0/24");
    createNetwork(other);
    EXPECT_TRUE(isOpen());
    restart(false);
    must(d.bridge->deleteNetwork(other.networkId));
    EXPECT_TRUE(isOpen());
    restart(false);
    must(
        d.bridge->programExternalConnectivity({b.networkId, b.endpointId, {{{IpProtocol::Tcp, 80, {}, 8081, 0}}, {}}}));
    EXPECT_TRUE(isOpen());
    EXPECT_TRUE(reach(*outside_, ip("192.0.2.1"), 8081, b.ns, 80));
    disconnect(a);
    disconnect(b);
    must(d.bridge->deleteNetwork(network.networkId));
}

TEST_P(PacketTest, RoutedModeOpensWithoutMapping) {
    const auto network =
        networkRequest(1, "10.20.0.0/24", "", {{"com.docker.network.bridge.gateway_mode_ipv4", "routed"}});
    createNetwork(network);
    Container a = connect(endpointRequest(network, 1, "10.20.0.2/24"), {{IpProtocol::Tcp, 80, {}, 8080, 0}});
    shellInside(*outside_, "ip route add 10.20.0.0/24 via 192.0.2.1");
    EXPECT_EQ(reach(*outside_, ip("10.20.0.2"), 80, a.ns, 80), ip("192.0.2.2"));
    EXPECT_TRUE(closed(*outside_, ip("10.20.0.2"), 81, a.ns, 81));
    EXPECT_TRUE(closed(*outside_, ip("192.0.2.1"), 8080, a.ns, 80));
    EXPECT_EQ(reach(a.ns, ip("192.0.2.2"), 99, *outside_, 99), ip("10.20.0.2"));
    disconnect(a);
    must(d.bridge->deleteNetwork(network.networkId));
}

INSTANTIATE_TEST_SUITE_P(Firewall, PacketTest, ::testing::Values(RulesBy::Iptc, RulesBy::Nft),
                         [](const auto& by) { return by.param == RulesBy::Iptc ? "iptc" : "nft"; });

}  // namespace
}  // namespace weft
