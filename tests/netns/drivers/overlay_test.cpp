// Overlay networks between hosts in namespaces behind one switch: real links and packets, the gossip store simulated.

#include <array>
#include <atomic>
#include <ctime>
#include <future>
#include <iostream>
#include <memory>
#include <thread>

#include "base/deadline.h"
#include "drivers/names.h"
#include "drivers/overlay/overlay_driver.h"
#include "ipam/cluster_ipam.h"
#include "net/announce.h"
#include "net/offload.h"
#include "tests/netns/drivers/engine_lab.h"
#include "tests/netns/net/namespace_fixture.h"
#include "tests/unit/kv/simulator.h"

namespace weft {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// The simulated cluster for threads: every piece of work is followed by the time that gossip needs.
class Gossip {
public:
    Gossip() : cluster_(1, config()) {}
    ~Gossip() {
        for (size_t host = 0; host < cluster_.size(); ++host) cluster_.crash(host);
    }

    size_t add() {
        const std::lock_guard lock(mutex_);
        const size_t host = cluster_.add();
        cluster_.start(host);
        cluster_.run(3s);
        return host;
    }
    void work(size_t host, const std::function<void(kv::Node&)>& work) {
        const std::lock_guard lock(mutex_);
        work(cluster_.node(host));
        cluster_.run(500ms);
    }
    kv::NodeId id(int host) {
        const std::lock_guard lock(mutex_);
        return cluster_.id(static_cast<size_t>(host) - 1);
    }
    void fillDisk(int host, bool full) {
        const std::lock_guard lock(mutex_);
        if (full) {
            cluster_.fullDisks.insert(static_cast<size_t>(host) - 1);
        } else {
            cluster_.fullDisks.erase(static_cast<size_t>(host) - 1);
        }
    }
    void pass(std::chrono::seconds time) {
        const std::lock_guard lock(mutex_);
        cluster_.run(time);
    }
    void part(std::vector<int> groups, std::chrono::seconds time) {
        const std::lock_guard lock(mutex_);
        cluster_.part(std::move(groups));
        cluster_.run(time);
    }

private:
    static kv::Config config() {
        kv::Config config = kv::sim::fastConfig();
        config.seeds = {kv::sim::hostAddress(0)};
        return config;
    }

    std::mutex mutex_;
    kv::sim::Cluster cluster_;
};

class SimulatedRunner final : public kv::Runner {
public:
    SimulatedRunner(Gossip& gossip, size_t host) : gossip_(gossip), host_(host) {}
    void post(std::function<void(kv::Node&)> work) override {
        std::this_thread::sleep_for(delay.load());
        gossip_.work(host_, work);
    }
    Result<void> call(std::function<void(kv::Node&)> work, std::chrono::milliseconds) override {
        gossip_.work(host_, work);
        return {};
    }

    std::atomic<std::chrono::milliseconds> delay{0ms};  // of what is posted

private:
    Gossip& gossip_;
    size_t host_;
};

struct Host {
    Host(Gossip& gossip, int hostNumber) : number(hostNumber), runner(gossip, gossip.add()) {
        const SchemaComponent components[] = {ipam::schemaComponent(), RecordStore::schema(), HostMemory::schema()};
        database = must(Database::open(scratch / "state.db", components));
        netlink = must(net::Netlink::openIn(ns));
        ports = must(net::PortAllocator::openIn(ns));
        leases = std::make_unique<ipam::DatabaseLeaseStore>(*database);
        pools = must(ipam::LocalIpam::create(*leases, clock));
    }
    void start(const std::string& vtep, bool swarm = false) {
        records = must(RecordStore::open(*database));
        portProgram = must(net::PortProgram::load(ns));
        const DriverContext context{*records, *netlink, *ports, firewall, *pools, clock, portProgram.get()};
        bridge = must(BridgeDriver::create(context));
        if (clustered) memory = must(HostMemory::open(*database, clock));
        overlay = must(OverlayDriver::create(context, *bridge, runner,
                                             {.vtep = ip(vtep),
                                              .clustered = clustered,
                                              .swarm = swarm,
                                              .ledger = [this] { return facts.load(); },
                                              .memory = memory},
                                             *pools));
        must(bridge->reconcile(false));
        must(overlay->reconcile(false));
    }
    void stop() {
        overlay.reset();
        if (memory) must(memory->write());
        bridge.reset();
        records.reset();
    }
    std::string shell(const std::string& command) { return shellInside(ns, command); }

    int number;
    bool clustered = false;
    std::atomic<std::shared_ptr<const LedgerFacts>> facts = std::make_shared<const LedgerFacts>();
    net::NetNs ns = must(net::NetNs::create());
    Scratch scratch;
    SystemClock clock;
    RecordingFirewall firewall;
    SimulatedRunner runner;
    std::unique_ptr<Database> database;
    std::unique_ptr<net::Netlink> netlink;
    std::unique_ptr<net::PortAllocator> ports;
    std::unique_ptr<net::PortProgram> portProgram;
    std::unique_ptr<ipam::DatabaseLeaseStore> leases;
    std::unique_ptr<ipam::LocalIpam> pools;
    std::unique_ptr<RecordStore> records;
    std::unique_ptr<BridgeDriver> bridge;
    std::shared_ptr<HostMemory> memory;
    std::unique_ptr<OverlayDriver> overlay;
};

class OverlayTest : public ::testing::TestWithParam<IpFamily> {
protected:
    static constexpr int kHosts = 3;

    void SetUp() override {
        EXPECT_EQ(shellInside(wire_, "ip link add br0 mtu 9000 type bridge; ip link set br0 up"), "");
        for (int i = 1; i <= kHosts; ++i) {
            hosts_.push_back(std::make_unique<Host>(gossip_, i));
            Host& host = *hosts_.back();
            auto wire = must(net::Netlink::openIn(wire_));
            const std::string port = "h" + std::to_string(i);
            must(wire->createVeth({.name = port,
                                   .peerName = "eth0",
                                   .alias = "wire",
                                   .peerAlias = "wire",
                                   .mtu = kUnderlay,
                                   .master = must(wire->getLink("br0")).index}));
            must(wire->moveTo(must(wire->getLink("eth0")).index, host.ns));
            EXPECT_EQ(host.shell("ip link set lo up; ip link set eth0 up; ip addr add " + vtep(i) +
                                 (GetParam() == IpFamily::V4 ? "/24 dev eth0" : "/64 dev eth0 nodad")),
                      "");
            host.start(vtep(i));
        }
    }

    std::string vtep(int i) const {
        return (GetParam() == IpFamily::V4 ? "192.0.2." : "2001:db8::") + std::to_string(i);
    }
    Host& host(int i) { return *hosts_.at(static_cast<size_t>(i) - 1); }

    static CreateNetworkRequest request(int host, const std::string& name = "backend",
                                        const std::string& subnet = "10.32.0.0/16") {
        CreateNetworkRequest request;
        request.networkId = networkId(100 * host + static_cast<int>(name.size()));
        request.options["weft.network"] = name;
        request.enableIpv6 = true;
        const auto data = [](const std::string& pool) {
            IpamData subnetData;
            subnetData.addressSpace = ipam::kOverlayLocalAddressSpace;
            subnetData.pool = prefix(pool);
            return subnetData;
        };
        request.ipv4 = {data(subnet)};
        request.ipv6 = {data("fd32:" + std::to_string(name.size()) + "::/64")};
        return request;
    }
    void createEverywhere() {
        for (int i = 1; i <= kHosts; ++i) must(host(i).overlay->createNetwork(request(i)));
    }

    Container run(int i, int number, const std::string& last) {
        CreateEndpointRequest endpoint;
        endpoint.networkId = request(i).networkId;
        endpoint.endpointId = endpointId(number);
        endpoint.address = prefix("10.32.0." + last + "/16");
        endpoint.addressV6 = prefix("fd32:7::" + last + "/64");
        Container container{.networkId = endpoint.networkId,
                            .endpointId = endpoint.endpointId,
                            .address = endpoint.address,
                            .addressV6 = endpoint.addressV6,
                            .mac = {},
                            .sourceName = {},
                            .join = {},
                            .ns = must(net::NetNs::create())};
        container.mac = must(host(i).overlay->createEndpoint(endpoint)).mac;
        container.join = must(host(i).overlay->join({container.networkId, container.endpointId, "/sandbox", {}}));
        container.sourceName = container.join.sourceName;
        must(host(i).netlink->moveTo(must(host(i).netlink->getLink(container.sourceName)).index, container.ns, "eth0"));
        EXPECT_EQ(shellInside(container.ns,
                              "ip link set lo up; ip link set eth0 up; ip addr add " + container.address->str() +
                                  " dev eth0; ip addr add " + container.addressV6->str() +
                                  " dev eth0 nodad; ip route add default via " + container.join.gateway->str()),
                  "");
        return container;
    }
    void stop(int i, Container& container) {
        must(host(i).overlay->leave(container.networkId, container.endpointId));
        must(host(i).overlay->deleteEndpoint(container.networkId, container.endpointId));
    }

    static std::string ping(const Container& from, const std::string& to, const std::string& options = "") {
        return shellInside(from.ns, "ping -c 1 -W 1 " + options + " " + to + " > /dev/null || echo lost");
    }
    static bool soon(const std::function<bool()>& holds, std::chrono::milliseconds patience = 3s) {
        for (const auto end = std::chrono::steady_clock::now() + patience; std::chrono::steady_clock::now() < end;) {
            if (holds()) return true;
            std::this_thread::sleep_for(5ms);
        }
        return holds();
    }
    bool knows(int i, const std::string& address) {
        return host(i).shell("ip neigh show nud permanent").find(address + " ") != std::string::npos;
    }

    void TearDown() override {
        for (auto& host : hosts_) {
            for (const NetworkInfo& network : host->overlay->networks()) must(host->overlay->deleteNetwork(network.id));
            EXPECT_THAT(host->shell("ip -br link | grep -e ^weft -e ^w[cvx] || true"), IsEmpty());
            EXPECT_TRUE(host->firewall.kernel.networks.empty());
        }
        for (auto& host : hosts_) host->stop();
    }

    // Restarts the driver as a part of the cluster, which probes the ways to the others.
    void startProbing(int i) {
        host(i).stop();
        host(i).clustered = true;
        host(i).start(vtep(i));
    }
    std::optional<TunnelHealth> way(int from, int to) {
        for (const TunnelHealth& health : host(from).overlay->tunnels().tunnels) {
            if (health.vtep.str() == vtep(to)) return health;
        }
        return std::nullopt;
    }
    bool soonPresence(int from, int of, Presence presence) {
        return soon(
            [&] {
                for (const auto& [id, known] : host(from).overlay->hosts()) {
                    if (known.address == kv::sim::hostAddress(static_cast<size_t>(of) - 1).ip)
                        return known.presence == presence;
                }
                return false;
            },
            10s);
    }
    bool soonWay(int from, int to, TunnelState state) {
        return soon(
            [&] {
                const auto found = way(from, to);
                return found && found->state == state;
            },
            20s);
    }
    // A NIC of host `i` that does not finish what it is to finish of packets in tunnels.
    void mangle(int i) {
        const std::string tool = std::string(WEFT_TEST_DATA) + "/../e2e/tools/mangle.sh";
        EXPECT_EQ(shellInside(wire_, tool + " h" + std::to_string(i) + " " + (host(i).scratch / ".")), "");
    }
    // A megabyte by TCP; the container there is ready for one.
    static bool streams(const Container& from, const Container& to) {
        const std::string address = to.address->address().str();
        return shellInside(from.ns, "timeout 5 iperf3 -c " + address +
                                        " -n 1M --connect-timeout 1500 > /dev/null 2>&1 && echo sent") == "sent\n";
    }

    // The frames in tunnels that leave host `i` while something is done, as tcpdump puts them.
    std::string tunnelled(int i, const std::function<void()>& doing) {
        const std::string file = host(i).scratch / "capture";
        EXPECT_EQ(
            shellInside(wire_, "timeout 10 tcpdump -l -nn --immediate-mode -i h" + std::to_string(i) +
                                   " udp port 4789 > " + file + " 2> " + file + ".log & echo $! > " + file + ".pid"),
            "");
        EXPECT_TRUE(soon([&] { return shellInside(wire_, "grep listening " + file + ".log") != ""; }));
        doing();
        std::this_thread::sleep_for(200ms);
        return shellInside(wire_, "kill $(cat " + file + ".pid); cat " + file);
    }

    static constexpr uint32_t kUnderlay = 1500;
    Gossip gossip_;
    net::NetNs wire_ = must(net::NetNs::create());
    std::vector<std::unique_ptr<Host>> hosts_;
};

INSTANTIATE_TEST_SUITE_P(Underlay, OverlayTest, ::testing::Values(IpFamily::V4, IpFamily::V6),
                         [](const auto& family) { return family.param == IpFamily::V4 ? "IPv4" : "IPv6"; });

TEST_P(OverlayTest, NoHostRemembersAContainerThatIsGone) {
    createEverywhere();
    Container gone = run(1, 1, "11");
    Container kept = run(2, 2, "12");
    // Both hosts learn both: the container's own from its packets, the other from the solicitation that is flooded.
    for (const Container& container : {std::cref(gone), std::cref(kept)}) {
        EXPECT_EQ(ping(container, container.join.gateway->str()), "");
        EXPECT_TRUE(soon([&] { return ping(container, "ff02::2%eth0", "-6") == ""; }));
    }
    const auto mentions = [&](int i, const Container& container) {
        return host(i).shell("(ip neigh; bridge fdb) | grep -e " + container.mac->str() + " || true");
    };
    for (const int i : {1, 2}) {
        EXPECT_TRUE(soon([&] { return mentions(i, gone).find("fe80:") != std::string::npos; })) << mentions(i, gone);
        EXPECT_TRUE(soon([&] { return mentions(i, kept).find("fe80:") != std::string::npos; })) << mentions(i, kept);
    }
    stop(1, gone);
    for (const int i : {1, 2}) {
        EXPECT_TRUE(soon([&] { return mentions(i, gone) == ""; })) << i << ": " << mentions(i, gone);
        EXPECT_NE(mentions(i, kept), "");
    }
    stop(2, kept);
}

TEST_P(OverlayTest, NobodyTakesTheMacOrAddressOfAContainerElsewhere) {
    for (int i = 1; i <= kHosts; ++i) {
        auto network = request(i);
        network.options["weft.fastpath"] = "false";
        network.options["weft.spoof"] = i == 1 ? "allow" : "deny";
        must(host(i).overlay->createNetwork(network));
    }
    Container thief = run(1, 1, "11");
    Container remote = run(2, 2, "12");
    Container local = run(1, 3, "13");
    EXPECT_TRUE(soon([&] { return ping(local, "10.32.0.12") == ""; }));
    const auto entry = [&] { return host(1).shell("bridge fdb show | grep " + remote.mac->str() + " | grep master"); };
    const std::string before = entry();
    EXPECT_THAT(before, HasSubstr("sticky"));
    EXPECT_EQ(shellInside(thief.ns, "ip link set eth0 address " + remote.mac->str()), "");
    ping(thief, "10.32.0.1");
    EXPECT_EQ(entry(), before);
    EXPECT_EQ(ping(local, "10.32.0.12"), "");

    // On a host where it is not allowed, not even to send.
    EXPECT_EQ(shellInside(remote.ns, "ip addr add 10.32.0.99/32 dev eth0"), "");
    EXPECT_NE(ping(remote, "10.32.0.13", "-I 10.32.0.99"), "");
    EXPECT_EQ(ping(remote, "10.32.0.13"), "");
    stop(1, thief);
    stop(2, remote);
    stop(1, local);
}

TEST_P(OverlayTest, ContainersOfAllHostsReachEachOtherInFullSize) {
    createEverywhere();
    std::vector<Container> containers;
    for (int i = 1; i <= kHosts; ++i) containers.push_back(run(i, i, std::to_string(10 + i)));
    const int mtu = static_cast<int>(kUnderlay) - (GetParam() == IpFamily::V4 ? 50 : 70);
    for (int i = 1; i <= kHosts; ++i) {
        for (int j = 1; j <= kHosts; ++j) {
            if (i == j) continue;
            EXPECT_TRUE(soon([&] { return knows(i, "10.32.0.1" + std::to_string(j)); })) << i << j;
        }
    }
    for (const Container& a : containers) {
        for (const Container& b : containers) {
            if (&a == &b) continue;
            const std::string to = b.address->address().str();
            const std::string to6 = b.addressV6->address().str();
            EXPECT_EQ(ping(a, to), "") << to << shellInside(a.ns, "ip neigh");
            EXPECT_EQ(ping(a, to6), "") << to6 << shellInside(a.ns, "ip neigh");
            EXPECT_EQ(ping(a, to, "-M do -s " + std::to_string(mtu - 28)), "");
            EXPECT_EQ(ping(a, to6, "-M do -s " + std::to_string(mtu - 48)), "");
        }
    }
    for (int i = 1; i <= kHosts; ++i) stop(i, containers[static_cast<size_t>(i) - 1]);
    for (int i = 1; i <= kHosts; ++i) {
        EXPECT_TRUE(soon([&] { return host(i).shell("ip neigh show nud permanent") == ""; }))
            << host(i).shell("ip neigh");
    }
}

// With the cable pulled nobody else can answer.
TEST_P(OverlayTest, TheOwnHostTellsTheMacOfEveryContainer) {
    createEverywhere();
    Container a = run(1, 1, "11");
    Container b = run(2, 2, "12");
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.12") && knows(1, "fd32:7::12"); }));
    EXPECT_EQ(host(1).shell("ip link set eth0 down"), "");
    EXPECT_EQ(ping(a, "10.32.0.12"), "lost\n");
    EXPECT_EQ(ping(a, "fd32:7::12"), "lost\n");
    EXPECT_THAT(shellInside(a.ns, "ip neigh show 10.32.0.12"), HasSubstr(b.mac->str()));
    EXPECT_THAT(shellInside(a.ns, "ip neigh show fd32:7::12"), HasSubstr(b.mac->str()));
    EXPECT_EQ(ping(a, "10.32.0.1"), "");
    EXPECT_EQ(ping(a, "10.32.0.99"), "lost\n");
    EXPECT_THAT(shellInside(a.ns, "ip neigh show 10.32.0.99"), Not(HasSubstr("lladdr")));
    const MacAddress gateway = must(host(1).netlink->getLink(bridgeName(a.networkId))).mac;
    EXPECT_THAT(shellInside(a.ns, "ip neigh show 10.32.0.1"), HasSubstr(gateway.str()));
    EXPECT_EQ(must(host(2).netlink->getLink(bridgeName(b.networkId))).mac, gateway);
    stop(1, a);
    stop(2, b);
}

TEST_P(OverlayTest, AQuestionForAnAddressThatNobodyHasStaysOnItsHost) {
    createEverywhere();
    Container a = run(1, 1, "11");
    Container b = run(2, 2, "12");
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.12") && knows(1, "fd32:7::12"); }));
    const std::string neighbour = linkLocalOf(*b.mac).str() + "%eth0";
    EXPECT_TRUE(soon([&] { return ping(a, neighbour).empty(); }));
    const std::string left = tunnelled(1, [&] {
        EXPECT_EQ(shellInside(a.ns, "ip neigh flush dev eth0"), "");
        EXPECT_EQ(ping(a, "10.32.0.12"), "");
        EXPECT_EQ(ping(a, "fd32:7::12"), "");
        EXPECT_EQ(ping(a, neighbour), "") << "the host tells link-local ones as well";
        EXPECT_EQ(ping(a, "10.32.0.99"), "lost\n");
        EXPECT_EQ(ping(a, "fd32:7::99"), "lost\n");
        shellInside(host(1).ns, "ping -c 1 -W 1 10.32.0.98");
        // Asked of whom one knows, and told to all.
        shellInside(a.ns, "ip neigh replace 10.32.0.12 lladdr " + b.mac->str() + " dev eth0 nud probe; sleep 0.1");
        const auto inside = must(net::Netlink::openIn(a.ns));
        for (const IpPrefix& own : {*a.address, *a.addressV6}) {
            must(net::announceAddress(a.ns, must(inside->getLink("eth0")).index, own.address(), *a.mac));
        }
        shellInside(a.ns, "ping -b -c 1 -W 1 10.32.255.255");
        EXPECT_EQ(ping(a, "ff02::1%eth0", "-6"), "");
    });
    EXPECT_THAT(left, HasSubstr("> 10.32.0.12: ICMP echo request")) << "the capture sees what leaves";
    EXPECT_THAT(left, HasSubstr("> 10.32.255.255: ICMP echo request")) << "broadcast goes to all hosts";
    EXPECT_THAT(left, HasSubstr("> ff02::1: ICMP6, echo request")) << "so does multicast";
    EXPECT_THAT(left, Not(HasSubstr("who-has")));
    EXPECT_THAT(left, Not(HasSubstr("neighbor solicitation")));
    stop(1, a);
    stop(2, b);
}

TEST_P(OverlayTest, AnAddressThatMovesLeavesNothingBehind) {
    createEverywhere();
    Container watcher = run(3, 3, "13");
    Container first = run(1, 1, "11");
    ASSERT_TRUE(soon([&] { return knows(3, "10.32.0.11"); }));
    EXPECT_EQ(ping(watcher, "10.32.0.11"), "");
    stop(1, first);
    Container second = run(2, 2, "11");
    EXPECT_TRUE(soon([&] { return ping(watcher, "10.32.0.11").empty(); }));
    const std::string fdb = host(3).shell("bridge fdb show dev " + tunnelName(watcher.networkId));
    EXPECT_THAT(fdb, HasSubstr(first.mac->str() + " dst " + vtep(2)));
    EXPECT_THAT(fdb, Not(HasSubstr(first.mac->str() + " dst " + vtep(1))));
    stop(2, second);
    EXPECT_TRUE(soon([&] { return !knows(3, "10.32.0.11"); }));
    EXPECT_THAT(host(3).shell("bridge fdb show dev " + tunnelName(watcher.networkId)),
                Not(HasSubstr(first.mac->str())));
    stop(3, watcher);
}

TEST_P(OverlayTest, DamageIsFoundByDumpAndRepaired) {
    createEverywhere();
    Container a = run(1, 1, "11");
    Container b = run(2, 2, "12");
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.12"); }));
    EXPECT_THAT(must(host(1).overlay->reconcile(true)), IsEmpty());
    const std::string tunnel = tunnelName(a.networkId);
    const std::string bridge = bridgeName(a.networkId);
    EXPECT_EQ(host(1).shell("ip neigh del 10.32.0.12 dev " + bridge + "; bridge fdb append 02:00:00:00:00:99 dev " +
                            tunnel + " dst " + vtep(3)),
              "");
    EXPECT_EQ(must(host(1).overlay->reconcile(true)).size(), 2U);
    EXPECT_FALSE(knows(1, "10.32.0.12"));
    EXPECT_EQ(must(host(1).overlay->reconcile(false)).size(), 2U);
    EXPECT_EQ(host(1).overlay->status().at(0).drift, 2U);
    EXPECT_TRUE(knows(1, "10.32.0.12"));
    EXPECT_THAT(host(1).shell("bridge fdb show dev " + tunnel), Not(HasSubstr("02:00:00:00:00:99")));

    EXPECT_EQ(host(1).shell("ip link del " + tunnel), "");
    EXPECT_FALSE(must(host(1).overlay->reconcile(false)).empty());
    EXPECT_EQ(ping(a, "10.32.0.12"), "");
    EXPECT_THAT(must(host(1).overlay->reconcile(true)), IsEmpty());
    stop(1, a);
    stop(2, b);
}

TEST_P(OverlayTest, ARestartFindsItsTunnelsAndRows) {
    createEverywhere();
    Container a = run(1, 1, "11");
    Container b = run(2, 2, "12");
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.12"); }));
    const auto index = must(host(1).netlink->getLink(tunnelName(a.networkId))).index;
    host(1).stop();
    EXPECT_EQ(ping(a, "10.32.0.12"), "");
    host(1).start(vtep(1));
    EXPECT_EQ(must(host(1).netlink->getLink(tunnelName(a.networkId))).index, index);
    EXPECT_EQ(ping(a, "10.32.0.12"), "");
    EXPECT_TRUE(knows(2, "10.32.0.11"));
    stop(1, a);
    EXPECT_TRUE(soon([&] { return !knows(2, "10.32.0.11"); }));
    stop(2, b);
}

TEST_P(OverlayTest, ATunnelOfAnOlderWeftdIsMadeAnewWithWhatItHad) {
    createEverywhere();
    Container a = run(1, 1, "11");
    Container b = run(2, 2, "12");
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.12") && knows(2, "10.32.0.11"); }));
    host(1).stop();
    const net::Link now = must(host(1).netlink->getLink(tunnelName(a.networkId)));
    const auto fdb = must(host(1).netlink->listFdb(now.index));
    net::VxlanSpec older{.name = now.name,
                         .alias = now.alias,
                         .vxlan = *now.vxlan,
                         .mac = {},
                         .mtu = now.mtu,
                         .master = now.master,
                         .port = now.port};
    older.vxlan.proxy = false;
    const net::LinkIndex made = must(host(1).netlink->createVxlan(older)).index;
    ASSERT_NE(made, now.index);
    std::vector<net::FdbEntry> entries = fdb;
    for (net::FdbEntry& entry : entries) entry.link = made;
    must(host(1).netlink->setFdb(entries));
    EXPECT_EQ(ping(a, "10.32.0.12"), "");
    host(2).stop();                // it would find the first host dead
    gossip_.part({0, 1, 1}, 60s);  // nothing is heard of the others now
    host(1).start(vtep(1));
    const net::Link renewed = must(host(1).netlink->getLink(tunnelName(a.networkId)));
    EXPECT_TRUE(renewed.vxlan->proxy);
    EXPECT_EQ(ping(a, "10.32.0.12"), "");
    gossip_.part({}, 60s);
    host(2).start(vtep(2));
    stop(1, a);
    stop(2, b);
}

TEST_P(OverlayTest, TheDeathOfADaemonIsNotTheDeathOfItsHost) {
    for (int i = 1; i <= kHosts; ++i) startProbing(i);
    createEverywhere();
    Container a = run(1, 1, "11");
    Container c = run(3, 3, "13");
    const auto canAsk = [&](int from, int to) {
        return host(from).shell("bridge fdb show dev w-echo 2>&1").find(vtep(to)) != std::string::npos;
    };
    ASSERT_TRUE(soon([&] { return canAsk(1, 3) && canAsk(3, 1) && canAsk(3, 2); }, 10s));
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.13") && knows(3, "10.32.0.11"); }));
    EXPECT_TRUE(soonPresence(1, 3, Presence::Here));

    host(3).stop();
    gossip_.part({0, 0, 1}, 60s);
    EXPECT_TRUE(soonPresence(1, 3, Presence::DaemonAway));
    EXPECT_EQ(ping(a, "10.32.0.13"), "");
    EXPECT_EQ(ping(c, "fd32:7::11"), "");
    const auto passes = [&] { return host(1).firewall.tunnel.members.contains(ip(vtep(3))); };
    EXPECT_TRUE(passes());

    // Whoever comes to have the address has it, and only as long.
    Container successor = run(2, 4, "13");
    EXPECT_TRUE(soon(
        [&] { return host(1).shell("ip neigh show 10.32.0.13").find(successor.mac->str()) != std::string::npos; }));
    stop(2, successor);
    EXPECT_TRUE(
        soon([&] { return host(1).shell("ip neigh show 10.32.0.13").find(c.mac->str()) != std::string::npos; }));
    EXPECT_EQ(ping(a, "10.32.0.13"), "");

    // One that starts meanwhile adopts what is there.
    host(1).stop();
    host(1).start(vtep(1));
    EXPECT_TRUE(soonPresence(1, 3, Presence::DaemonAway));
    EXPECT_EQ(ping(a, "10.32.0.13"), "");

    EXPECT_EQ(shellInside(wire_, "ip link set h3 down"), "");
    EXPECT_TRUE(soonPresence(1, 3, Presence::HostAway));
    EXPECT_TRUE(soon([&] { return !passes(); }));
    EXPECT_TRUE(knows(1, "10.32.0.13"));
    EXPECT_EQ(shellInside(wire_, "ip link set h3 up"), "");
    EXPECT_TRUE(soonPresence(1, 3, Presence::DaemonAway));
    EXPECT_TRUE(soon([&] { return ping(a, "10.32.0.13") == ""; }));

    gossip_.part({}, 60s);
    host(3).start(vtep(3));
    EXPECT_TRUE(soonPresence(1, 3, Presence::Here));
    stop(1, a);
    stop(3, c);
}

TEST_P(OverlayTest, WhyAKernelCannotBeAskedIsTold) {
    EXPECT_FALSE(host(1).overlay->hostWatchTrouble());
    host(1).shell("ip link add w-echo type bridge");  // somebody else's
    startProbing(1);
    EXPECT_TRUE(soon([&] { return host(1).overlay->hostWatchTrouble() != ""; }));
    host(1).shell("ip link del w-echo");
    EXPECT_TRUE(soon([&] { return host(1).overlay->hostWatchTrouble() == ""; }, 15s));
}

TEST_P(OverlayTest, WhatEndedWhileWeftdWasDownIsForgottenAfterARestart) {
    createEverywhere();
    Container gone = run(2, 2, "12");
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.12"); }));
    host(1).stop();
    stop(2, gone);
    host(1).start(vtep(1));
    // Rows of a cluster just joined may be late: nothing is cut off before they had their time.
    EXPECT_TRUE(knows(1, "10.32.0.12"));
    EXPECT_TRUE(soon([&] { return !knows(1, "10.32.0.12"); }, 15s));
}

TEST_P(OverlayTest, TcpThatANicDamagesIsFoundByProbesAndHealed) {
    createEverywhere();
    Container a = run(1, 1, "11");
    Container b = run(2, 2, "12");
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.12") && knows(2, "10.32.0.11"); }));
    EXPECT_EQ(shellInside(b.ns, "iperf3 -s -1 -D"), "");
    mangle(1);
    EXPECT_EQ(ping(a, "10.32.0.12"), "") << "pings pass";
    EXPECT_FALSE(streams(a, b)) << "but TCP does not";

    startProbing(2);
    EXPECT_THAT(must(host(1).netlink->listLinks({.kind = "vxlan"})), ::testing::SizeIs(1)) << "the probe's is not seen";
    startProbing(1);
    EXPECT_TRUE(soonWay(1, 2, TunnelState::Healed)) << (way(1, 2) ? way(1, 2)->detail : "no way");
    EXPECT_FALSE(host(1).overlay->tunnels().offload);
    EXPECT_TRUE(streams(a, b));
    EXPECT_TRUE(soonWay(2, 1, TunnelState::Good)) << way(2, 1)->detail;
    EXPECT_TRUE(host(2).overlay->tunnels().offload) << "its NIC is well";
    EXPECT_EQ(way(1, 3), std::nullopt) << "not a part of the cluster by its address";

    // What follows is so from the start.
    CreateNetworkRequest later = request(1, "late", "10.34.0.0/16");
    must(host(1).overlay->createNetwork(later));
    const auto offload = [&](const NetworkId& id) { return must(net::checksumOffload(host(1).ns, tunnelName(id))); };
    EXPECT_FALSE(offload(later.networkId));
    EXPECT_FALSE(offload(a.networkId));
    must(net::setChecksumOffload(host(1).ns, tunnelName(a.networkId), true));
    EXPECT_FALSE(must(host(1).overlay->reconcile(false)).empty());
    EXPECT_FALSE(offload(a.networkId));
    stop(1, a);
    stop(2, b);
}

TEST_P(OverlayTest, AWayThatIsClosedOrCutIsTold) {
    startProbing(1);
    startProbing(2);
    ASSERT_TRUE(soonWay(1, 2, TunnelState::Good)) << (way(1, 2) ? way(1, 2)->detail : "no way");
    ASSERT_TRUE(soonWay(2, 1, TunnelState::Good));
    EXPECT_EQ(shellInside(wire_,
                          "nft \"add table bridge cut; add chain bridge cut f { type filter hook forward priority "
                          "0; }; add rule bridge cut f udp dport 4789 udp length > 1300 drop\""),
              "");
    startProbing(1);
    EXPECT_TRUE(soonWay(1, 2, TunnelState::Cut)) << (way(1, 2) ? way(1, 2)->detail : "no way");
    EXPECT_TRUE(host(1).overlay->tunnels().offload);
    EXPECT_EQ(shellInside(wire_, "nft \"flush chain bridge cut f; add rule bridge cut f udp dport 4789 drop\""), "");
    startProbing(1);
    EXPECT_TRUE(soonWay(1, 2, TunnelState::Closed)) << (way(1, 2) ? way(1, 2)->detail : "no way");
    EXPECT_TRUE(host(1).overlay->tunnels().offload);
}

TEST_P(OverlayTest, WhatCannotBeOneNetworkIsRefusedWithBothValues) {
    must(host(1).overlay->createNetwork(request(1)));
    const auto other = host(2).overlay->createNetwork(request(2, "backend", "10.33.0.0/16"));
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, ErrorCode::AlreadyExists);
    EXPECT_THAT(other.error().message, HasSubstr("10.32.0.0/16"));
    EXPECT_THAT(other.error().message, HasSubstr("10.33.0.0/16"));

    const auto overlapping = host(2).overlay->createNetwork(request(2, "frontend"));
    ASSERT_FALSE(overlapping);
    EXPECT_THAT(overlapping.error().message, HasSubstr("\"backend\""));

    CreateNetworkRequest docker = request(2);
    docker.ipv4.front().addressSpace = "LocalDefault";
    const auto dockers = host(2).overlay->createNetwork(docker);
    ASSERT_FALSE(dockers);
    EXPECT_THAT(dockers.error().message, HasSubstr("--ipam-driver weft-overlay"));

    CreateNetworkRequest large = request(2);
    large.options["com.docker.network.driver.mtu"] = "1500";
    EXPECT_FALSE(host(2).overlay->createNetwork(large));
    EXPECT_TRUE(host(2).overlay->networks().empty());
    must(host(2).overlay->createNetwork(request(2)));
    EXPECT_EQ(host(1).overlay->status().at(0).vni, host(2).overlay->status().at(0).vni);
}

TEST_P(OverlayTest, ASwarmsManagerChoosesWhatTheNodesThenHave) {
    for (int i = 1; i <= kHosts; ++i) {
        host(i).stop();
        host(i).start(vtep(i), true);
    }
    AllocateNetworkRequest wanted;
    wanted.networkId = NetworkId("pn8pf681rnjok2oq36zzjr1ht");
    wanted.options["weft.broadcast"] = "false";
    wanted.ipv4 = {{"", prefix("10.60.0.0/16"), prefix("10.60.0.1/16"), {}}};
    const auto options = must(host(1).overlay->allocateNetwork(wanted));
    EXPECT_EQ(options.at("weft.broadcast"), "false");
    EXPECT_EQ(options.at("weft.network"), wanted.networkId.str());
    EXPECT_EQ(must(host(1).overlay->allocateNetwork(wanted)), options) << "asked again";

    AllocateNetworkRequest other = wanted;
    other.networkId = networkId(2);
    other.options["weft.vni"] = options.at("weft.vni");
    EXPECT_FALSE(host(1).overlay->allocateNetwork(other)) << "the VNI is allocated, though no node has the network";
    other.options["weft.vnj"] = "1";
    EXPECT_FALSE(host(1).overlay->allocateNetwork(other));

    CreateNetworkRequest node;
    node.networkId = wanted.networkId;
    node.options = wanted.options;
    node.ipv4 = wanted.ipv4;
    node.ipv4.front().addressSpace = "LocalDefault";
    const auto alone = host(2).overlay->createNetwork(node);
    ASSERT_FALSE(alone);
    EXPECT_THAT(alone.error().message, HasSubstr("docker swarm init"));
    node.options = options;
    for (int i : {1, 2}) must(host(i).overlay->createNetwork(node));
    EXPECT_EQ(std::to_string(host(2).overlay->status().at(0).vni), options.at("weft.vni"));

    wanted.options = options;
    for (int i = 1; i <= kHosts; ++i) {
        EXPECT_EQ(must(host(i).overlay->allocateNetwork(wanted)), options) << "host " << i << " takes the lead";
    }
    must(host(1).overlay->freeNetwork(wanted.networkId));
    must(host(1).overlay->freeNetwork(wanted.networkId));
}

TEST_P(OverlayTest, OfTwoMadeApartTheLaterTakesTheVni) {
    gossip_.part({0, 1, 1}, 60s);
    CreateNetworkRequest preset = request(1);
    preset.options["weft.vni"] = "5000";
    must(host(1).overlay->createNetwork(preset));
    std::this_thread::sleep_for(5ms);  // the claims' stamps are milliseconds
    must(host(2).overlay->createNetwork(request(2)));
    EXPECT_NE(host(2).overlay->status().at(0).vni, 5000U);
    gossip_.part({}, 60s);
    EXPECT_TRUE(soon([&] { return host(2).overlay->status().at(0).vni == 5000U; }));
    EXPECT_EQ(host(1).overlay->status().at(0).vni, 5000U);
    EXPECT_EQ(host(2).overlay->status().at(0).conflict, "");
    Container a = run(1, 1, "11");
    Container b = run(2, 2, "12");
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.12") && knows(2, "10.32.0.11"); }));
    EXPECT_EQ(ping(a, "10.32.0.12"), "");
    stop(1, a);
    stop(2, b);
}

// C4: a claim with a stamp of 0, the network's VNI and other subnets; B3: the same from a host of another ledger.
TEST_P(OverlayTest, OneHostsWordCutsNobodyOffAndAStrangerIsNoPeer) {
    createEverywhere();
    Container a = run(1, 1, "11");
    Container b = run(2, 2, "12");
    ASSERT_TRUE(soon([&] { return knows(1, "10.32.0.12") && knows(2, "10.32.0.11"); }));
    NetworkClaim claim;
    claim.vni = host(1).overlay->status().at(0).vni;
    claim.mtu = 1400;
    claim.vtep = ip(vtep(3));
    claim.port = 4789;
    claim.gateways = {prefix("10.99.0.1/24")};
    const size_t evil = gossip_.add();
    gossip_.work(evil, [&](kv::Node& node) { node.put(networkKey("backend"), encode(claim), [](const auto&) {}); });
    EXPECT_EQ(ping(a, "10.32.0.12"), "");
    EXPECT_EQ(host(1).overlay->status().at(0).hosts.size(), 2U);
    EXPECT_EQ(host(1).overlay->status().at(0).conflict, "");

    const auto facts = std::make_shared<LedgerFacts>();
    facts->strangers.insert(gossip_.id(host(2).number));
    host(1).facts = facts;
    EXPECT_TRUE(soon([&] { return !host(1).overlay->status().at(0).conflict.empty(); }));
    EXPECT_TRUE(soon([&] { return !knows(1, "10.32.0.12"); }));
    EXPECT_THAT(host(1).overlay->status().at(0).conflict, HasSubstr(vtep(2)));
    EXPECT_EQ(host(1).overlay->status().at(0).hosts, std::vector{ip(vtep(3))});
    stop(1, a);
    stop(2, b);
}

// E2. Prints what a change costs.
TEST_P(OverlayTest, AChangeAmongThousandsOfContainersCostsLittle) {
    if (GetParam() == IpFamily::V6) GTEST_SKIP() << "once is enough";
    constexpr uint32_t kContainers = 3000;
    constexpr uint32_t kChanges = 20;
    createEverywhere();
    const auto row = [](uint32_t number) {
        EndpointRow made;
        made.stamp = 1;
        made.mac = MacAddress(
            std::array<uint8_t, 6>{2, 66, 10, 32, static_cast<uint8_t>(number >> 8), static_cast<uint8_t>(number)});
        made.v4 = ip("10.32." + std::to_string(1 + number / 250) + "." + std::to_string(2 + number % 250));
        return encode(made);
    };
    const auto put = [&](const std::string& network, uint32_t number) {
        gossip_.work(2, [&](kv::Node& node) {
            node.put(endpointKey(network, EndpointId(std::to_string(number))), row(number), [](const auto&) {});
        });
    };
    gossip_.work(2, [&](kv::Node& node) {
        for (uint32_t i = 0; i < kContainers; ++i) {
            node.put(endpointKey("backend", EndpointId(std::to_string(i))), row(i), [](const auto&) {});
        }
    });
    gossip_.pass(20s);
    const auto has = [&](int i, size_t containers) {
        return host(i).overlay->status().at(0).remoteEndpoints == containers;
    };
    ASSERT_TRUE(soon([&] { return has(1, kContainers) && has(2, kContainers); }, 30s));
    // Of all hosts' drivers and the simulated gossip; and of that alone, for rows of a network that is nowhere.
    const auto cost = [&](const std::string& network) {
        const std::clock_t begin = std::clock();
        for (uint32_t i = 0; i < kChanges; ++i) put(network, kContainers + i);
        if (network == "backend") {
            EXPECT_TRUE(soon([&] { return has(1, kContainers + kChanges) && has(2, kContainers + kChanges); }));
        }
        return 1000.0 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC / kChanges;
    };
    const double without = cost("nowhere");
    const double with = cost("backend");
    std::cout << "a change: " << with - without << " ms of processor time in " << kHosts << " drivers, and " << without
              << " ms of gossip\n";
    EXPECT_LT(with - without, 10) << "it was 40 ms and more with all entries looked at";
}

// D1: the row of a container is written when there is room again, and the row of one that ended goes.
TEST_P(OverlayTest, ADiskThatWasFullForAMomentLeavesNothingBehind) {
    createEverywhere();
    Container gone = run(1, 1, "11");
    ASSERT_TRUE(soon([&] { return knows(2, "10.32.0.11"); }));
    gossip_.fillDisk(host(1).number, true);
    stop(1, gone);
    Container a = run(1, 2, "12");
    gossip_.fillDisk(host(1).number, false);
    gossip_.pass(5s);
    EXPECT_TRUE(soon([&] { return knows(2, "10.32.0.12"); }));
    EXPECT_TRUE(soon([&] { return !knows(2, "10.32.0.11"); }));
    stop(1, a);
}

// Of one create: the store's write takes its time, then another call has the network.
TEST_P(OverlayTest, TheWaitsOfACallDoNotAddUp) {
    std::promise<void> locked;
    std::promise<void> release;
    std::thread other([&] {
        const NetworkLock lock = must(host(1).records->lock(request(1).networkId));
        locked.set_value();
        release.get_future().wait();
    });
    locked.get_future().wait();
    host(1).runner.delay = 700ms;
    const auto begin = std::chrono::steady_clock::now();
    {
        const CallDeadline call(Deadline(1s));
        EXPECT_EQ(host(1).overlay->createNetwork(request(1)).error().code, ErrorCode::Busy);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 4s);  // 1 s, and what undoing posts
    host(1).runner.delay = 0ms;
    release.set_value();
    other.join();
    must(host(1).overlay->createNetwork(request(1)));
}

TEST_P(OverlayTest, OfTwoMadeApartWithOtherSubnetsTheLaterStaysApartAndSaysSo) {
    gossip_.part({0, 1, 1}, 60s);
    must(host(1).overlay->createNetwork(request(1)));
    std::this_thread::sleep_for(5ms);  // the claims' stamps are milliseconds
    must(host(2).overlay->createNetwork(request(2, "backend", "10.33.0.0/16")));
    gossip_.part({}, 60s);
    EXPECT_TRUE(soon([&] { return !host(2).overlay->status().at(0).conflict.empty(); }));
    const OverlayStatus later = host(2).overlay->status().at(0);
    EXPECT_THAT(later.conflict, HasSubstr("10.32.0.0/16"));
    EXPECT_THAT(later.conflict, HasSubstr("10.33.0.0/16"));
    EXPECT_THAT(later.hosts, IsEmpty());
    EXPECT_EQ(host(1).overlay->status().at(0).conflict, "");
    EXPECT_THAT(host(1).overlay->status().at(0).hosts, IsEmpty());
    // The one in the way goes: what is left is whole.
    must(host(1).overlay->deleteNetwork(request(1).networkId));
    EXPECT_TRUE(soon([&] { return host(2).overlay->status().at(0).conflict.empty(); }));
}

}  // namespace
}  // namespace weft
