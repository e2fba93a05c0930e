#include "net/conntrack.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "namespace_fixture.h"
#include "net/nl_socket.h"

namespace weft::net {
namespace {

struct End {
    IpAddress address;
    uint16_t port = 0;
};

class ConntrackTest : public NamespaceTest {
protected:
    static void putTuple(Message& message, int attribute, const End& source, const End& destination, uint8_t protocol) {
        const bool v4 = source.address.isV4();
        message.nest(attribute, [&] {
            message.nest(CTA_TUPLE_IP, [&] {
                message.put(v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, source.address)
                    .put(v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, destination.address);
            });
            message.nest(CTA_TUPLE_PROTO, [&] {
                message.put(CTA_PROTO_NUM, protocol)
                    .put(CTA_PROTO_SRC_PORT, htons(source.port))
                    .put(CTA_PROTO_DST_PORT, htons(destination.port));
            });
        });
    }
    // An entry as a client's packet through DNAT makes it.
    static Message entry(const End& client, const End& host, const End& container, uint8_t protocol = IPPROTO_UDP) {
        nfgenmsg header{};
        header.nfgen_family = client.address.isV4() ? AF_INET : AF_INET6;
        Message message(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL);
        message.header(header);
        putTuple(message, CTA_TUPLE_ORIG, client, host, protocol);
        putTuple(message, CTA_TUPLE_REPLY, container, client, protocol);
        message.put(CTA_TIMEOUT, htonl(600)).put(CTA_STATUS, htonl(IPS_CONFIRMED | IPS_DST_NAT | IPS_DST_NAT_DONE));
        return message;
    }
    void insert(std::vector<Message> entries) {
        must(socket_->batch(entries, "insert", [](size_t, Error error) { ADD_FAILURE() << error.message; }));
    }
    size_t count() {
        return std::stoul(must(runIn(ns_, [] { return readSysctl("net/netfilter/nf_conntrack_count"); })));
    }

    const IpAddress client_ = must(IpAddress::parse("198.51.100.7"));
    const IpAddress host_ = must(IpAddress::parse("192.0.2.1"));
    const IpAddress otherHost_ = must(IpAddress::parse("192.0.2.2"));
    const IpAddress container_ = must(IpAddress::parse("10.0.0.2"));
    const IpAddress otherContainer_ = must(IpAddress::parse("10.0.0.3"));
    std::unique_ptr<NlSocket> socket_ = must(runIn(ns_, [] { return NlSocket::open(NETLINK_NETFILTER); }));
};

TEST_F(ConntrackTest, OnlyTheMappingIsFlushed) {
    std::vector<Message> entries;
    entries.push_back(entry({client_, 1}, {host_, 8080}, {container_, 80}));
    entries.push_back(entry({client_, 2}, {otherHost_, 8080}, {container_, 80}));
    entries.push_back(entry({client_, 3}, {host_, 8081}, {container_, 80}));       // another host port
    entries.push_back(entry({client_, 4}, {host_, 8080}, {container_, 81}));       // another container port
    entries.push_back(entry({client_, 5}, {host_, 8080}, {otherContainer_, 80}));  // another container
    entries.push_back(entry({client_, 6}, {host_, 8080}, {container_, 80}, IPPROTO_UDPLITE));
    insert(std::move(entries));
    ASSERT_EQ(count(), 6U);

    MappedFlow flow{
        .protocol = IPPROTO_UDP, .hostIp = host_, .hostPort = 8080, .containerIp = container_, .containerPort = 80};
    EXPECT_EQ(must(flushMappedFlows(ns_, {&flow, 1})), 1U);
    flow.hostIp = std::nullopt;
    EXPECT_EQ(must(flushMappedFlows(ns_, {&flow, 1})), 1U);
    EXPECT_EQ(must(flushMappedFlows(ns_, {&flow, 1})), 0U);
    EXPECT_EQ(count(), 4U);
    EXPECT_EQ(must(flushAddresses(ns_, {&container_, 1})), 3U);
    EXPECT_EQ(count(), 1U);
    EXPECT_EQ(must(flushAddresses(ns_, {&client_, 1})), 1U);
}

TEST_F(ConntrackTest, Ipv6AndManyAddressesAtOnce) {
    const auto client = must(IpAddress::parse("2001:db8::7"));
    const auto host = must(IpAddress::parse("2001:db8::1"));
    std::vector<Message> entries;
    std::vector<MappedFlow> flows;
    for (uint16_t i = 0; i < 20; ++i) {  // more than are asked for one by one
        const IpAddress container(IpFamily::V6, (Uint128{0xfd00} << 112) + 2 + i);
        entries.push_back(entry({client, 1}, {host, static_cast<uint16_t>(9000 + i)}, {container, 53}));
        flows.push_back({.protocol = IPPROTO_UDP,
                         .hostPort = static_cast<uint16_t>(9000 + i),
                         .containerIp = container,
                         .containerPort = 53});
    }
    entries.push_back(entry({client, 2}, {host, 9999}, {flows[0].containerIp, 53}));
    insert(std::move(entries));
    EXPECT_EQ(must(flushMappedFlows(ns_, {flows.data(), 2})), 2U);
    EXPECT_EQ(must(flushMappedFlows(ns_, flows)), 18U);
    EXPECT_EQ(count(), 1U);
}

TEST_F(ConntrackTest, LargeTable) {
    const uint32_t limit = static_cast<uint32_t>(std::stoul(must(readSysctl("net/netfilter/nf_conntrack_max"))));
    const uint32_t size = std::min(100000U, limit / 2);
    std::vector<Message> entries;
    for (uint32_t i = 0; i < size; ++i) {
        const IpAddress client(IpFamily::V4, 0x0b000000U + i);
        entries.push_back(entry({client, 1000}, {host_, 8080}, {i % 1000 == 0 ? container_ : otherContainer_, 80}));
        if (entries.size() == 1000) insert(std::exchange(entries, {}));
    }
    insert(std::move(entries));
    ASSERT_EQ(count(), size);
    const MappedFlow flow{.protocol = IPPROTO_UDP, .hostPort = 8080, .containerIp = container_, .containerPort = 80};
    const Stopwatch one;
    EXPECT_EQ(must(flushMappedFlows(ns_, {&flow, 1})), (size + 999) / 1000);
    const double oneTime = one.us();
    const Stopwatch rest;
    EXPECT_EQ(must(flushAddresses(ns_, {&otherContainer_, 1})), size - (size + 999) / 1000);
    std::printf("conntrack, %u entries: flush a mapping of %u %.0f us, flush the rest %.0f us\n", size,
                (size + 999) / 1000, oneTime, rest.us());
    EXPECT_EQ(count(), 0U);

    std::vector<Message> single;
    single.push_back(entry({client_, 1}, {host_, 8080}, {container_, 80}));
    insert(std::move(single));
    const Stopwatch small;
    EXPECT_EQ(must(flushMappedFlows(ns_, {&flow, 1})), 1U);
    std::printf("conntrack, 1 entry: flush %.0f us\n", small.us());
}

// A client behind a link whose packets to port 53 are redirected to a socket here.
class FlowLookupTest : public NamespaceTest {
protected:
    static constexpr uint16_t kResolver = 7953;

    void SetUp() override {
        NamespaceTest::SetUp();
        const auto here = "/proc/" + std::to_string(::getpid()) + "/fd/";
        ip("link add eth0 type veth peer name eth0 netns " + here + std::to_string(clientNs_.fd()));
        ip("link set eth0 up");
        runInside(clientNs_, "ip link set eth0 up");
        for (const char* address : {"10.0.0.1/24", "fd00::1/64 nodad"}) ip(std::string("addr add dev eth0 ") + address);
        for (const char* address : {"10.0.0.2/24", "fd00::2/64 nodad"}) {
            runInside(clientNs_, std::string("ip addr add dev eth0 ") + address);
        }
        for (const char* gateway : {"10.0.0.1", "fd00::1"}) {
            runInside(clientNs_, std::string("ip route add default via ") + gateway);
        }
        EXPECT_EQ(runInside(ns_,
                            "nft 'add table inet t; add chain inet t pre { type nat hook prerouting priority "
                            "-100; }; add rule inet t pre meta l4proto { 6, 17 } th dport 53 redirect to :7953'"),
                  "");
    }
    void TearDown() override {
        ip("link delete eth0");
        NamespaceTest::TearDown();
    }

    struct SocketAddress {
        sockaddr_storage storage{};
        socklen_t size = sizeof storage;
        sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
    };
    static SocketAddress socketAddress(const End& end) {
        SocketAddress result;
        const auto bytes = end.address.bytes();
        if (end.address.isV4()) {
            auto& in = reinterpret_cast<sockaddr_in&>(result.storage);
            in = {.sin_family = AF_INET, .sin_port = htons(end.port), .sin_addr = {}, .sin_zero = {}};
            std::memcpy(&in.sin_addr, bytes.data(), sizeof in.sin_addr);
        } else {
            auto& in = reinterpret_cast<sockaddr_in6&>(result.storage);
            in.sin6_family = AF_INET6;
            in.sin6_port = htons(end.port);
            std::memcpy(&in.sin6_addr, bytes.data(), sizeof in.sin6_addr);
        }
        return result;
    }
    static uint16_t portOf(const SocketAddress& address) {  // at the same place in both families
        return ntohs(reinterpret_cast<const sockaddr_in&>(address.storage).sin_port);
    }

    // Sends from the client to `to` and tells the flow that arrives at `local`.
    ReceivedFlow receive(const End& to, const End& local, const IpAddress& client, int type) {
        const int family = to.address.isV4() ? AF_INET : AF_INET6;
        server_ = must(socketIn(ns_, family, type, 0));
        client_ = must(socketIn(clientNs_, family, type, 0));
        auto own = socketAddress(local);
        auto target = socketAddress(to);
        const timeval patience{5, 0};
        const int on = 1;  // earlier connections to the port may still be closing
        ::setsockopt(server_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        ::setsockopt(server_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        ::setsockopt(client_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        EXPECT_EQ(::bind(server_.get(), own.get(), own.size), 0);
        if (type == SOCK_STREAM) {
            EXPECT_EQ(::listen(server_.get(), 1), 0);
        }
        EXPECT_EQ(::connect(client_.get(), target.get(), target.size), 0) << std::strerror(errno);
        EXPECT_EQ(::send(client_.get(), "ask", 3, 0), 3);
        SocketAddress peer;
        char buffer[16];
        const auto got = type == SOCK_STREAM
                             ? ::accept(server_.get(), peer.get(), &peer.size)
                             : ::recvfrom(server_.get(), buffer, sizeof buffer, 0, peer.get(), &peer.size);
        EXPECT_GE(got, 0) << std::strerror(errno);
        if (type == SOCK_STREAM) accepted_.reset(static_cast<int>(got));
        return {.protocol = static_cast<uint8_t>(type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP),
                .peer = client,
                .peerPort = portOf(peer),
                .local = local.address,
                .localPort = local.port};
    }

    NetNs clientNs_ = must(NetNs::create());
    UniqueFd server_;
    UniqueFd client_;
    UniqueFd accepted_;
};

TEST_F(FlowLookupTest, TellsWhereARedirectedFlowWasGoing) {
    FlowLookup lookup = must(FlowLookup::open(ns_));
    for (const bool v4 : {true, false}) {
        const auto local = must(IpAddress::parse(v4 ? "10.0.0.1" : "fd00::1"));
        const auto client = must(IpAddress::parse(v4 ? "10.0.0.2" : "fd00::2"));
        const auto outside = must(IpAddress::parse(v4 ? "192.0.2.53" : "2001:db8::53"));
        for (const int type : {SOCK_DGRAM, SOCK_STREAM}) {
            for (const auto& to : {outside, local}) {
                const auto flow = receive({to, 53}, {local, kResolver}, client, type);
                EXPECT_EQ(must(lookup.originalDestination(flow)), std::pair(to, uint16_t{53}));
            }
            const auto direct = receive({local, 5353}, {local, 5353}, client, type);
            EXPECT_EQ(must(lookup.originalDestination(direct)), std::pair(local, uint16_t{5353}));
        }
        ReceivedFlow unknown{.peer = client, .peerPort = 9, .local = local, .localPort = kResolver};
        EXPECT_EQ(lookup.originalDestination(unknown).error().code, ErrorCode::NotFound);
    }
}

TEST_F(FlowLookupTest, CostsLittle) {
    FlowLookup lookup = must(FlowLookup::open(ns_));
    const auto local = must(IpAddress::parse("10.0.0.1"));
    const auto client = must(IpAddress::parse("10.0.0.2"));
    const auto flow = receive({must(IpAddress::parse("192.0.2.53")), 53}, {local, kResolver}, client, SOCK_DGRAM);
    constexpr int kRounds = 10000;
    const Stopwatch watch;
    for (int i = 0; i < kRounds; ++i) ASSERT_TRUE(lookup.originalDestination(flow));
    std::printf("conntrack: look up a flow %.1f us\n", watch.us() / kRounds);
}

}  // namespace
}  // namespace weft::net
