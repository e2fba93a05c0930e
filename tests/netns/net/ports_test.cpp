#include "net/ports.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <set>

#include "namespace_fixture.h"

namespace weft::net {
namespace {

using ::testing::HasSubstr;

constexpr uint8_t kTcp = IPPROTO_TCP;
constexpr uint8_t kUdp = IPPROTO_UDP;
constexpr uint8_t kSctp = IPPROTO_SCTP;

class PortsTest : public NamespaceTest {
protected:
    // A program that wants the port, as servers do: SO_REUSEADDR, bind, listen. The errno, 0 for success.
    int serve(int type, uint16_t port, UniqueFd* keep = nullptr) {
        UniqueFd fd = must(socketIn(ns_, AF_INET, type, 0));
        const int on = 1;
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, type == SOCK_STREAM ? &on : nullptr, sizeof on);
        sockaddr_in name{};
        name.sin_family = AF_INET;
        name.sin_port = htons(port);
        name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0) return errno;
        if (type == SOCK_STREAM && ::listen(fd.get(), 1) != 0) return errno;
        if (keep != nullptr) *keep = std::move(fd);
        return 0;
    }

    const IpAddress any4_ = IpAddress::any(IpFamily::V4);
    const IpAddress any6_ = IpAddress::any(IpFamily::V6);
    std::unique_ptr<PortAllocator> ports_ = must(PortAllocator::openIn(ns_));
};

TEST_F(PortsTest, HeldPortIsClosedToOthersAndFreedWithItsReservation) {
    for (const auto& [protocol, type] : {std::pair{kTcp, SOCK_STREAM}, std::pair{kUdp, SOCK_DGRAM}}) {
        EXPECT_EQ(serve(type, 8080), 0);
        {
            const auto held =
                must(ports_->reserve({.protocol = protocol, .addresses = {any4_, any6_}, .range = {8080, 8080}}));
            EXPECT_EQ(held.port(), 8080);
            EXPECT_TRUE(held.bound());
            EXPECT_EQ(serve(type, 8080), EADDRINUSE);
            const auto again = ports_->reserve({.protocol = protocol, .addresses = {any4_}, .range = {8080, 8080}});
            ASSERT_FALSE(again);
            EXPECT_EQ(again.error().code, ErrorCode::Busy);
            EXPECT_THAT(again.error().message, HasSubstr("held by weft"));
        }
        EXPECT_EQ(serve(type, 8080), 0);
    }
    // Nothing listens: a client is refused at once.
    const auto held = must(ports_->reserve({.protocol = kTcp, .addresses = {any4_}, .range = {8081, 8081}}));
    EXPECT_THAT(runInside(ns_, "ss -Hltn"), ::testing::IsEmpty());
}

TEST_F(PortsTest, BusyNamesTheHolder) {
    for (const auto& [protocol, type] : {std::pair{kTcp, SOCK_STREAM}, std::pair{kUdp, SOCK_DGRAM}}) {
        UniqueFd server;
        ASSERT_EQ(serve(type, 9000, &server), 0);
        const auto refused = ports_->reserve({.protocol = protocol, .addresses = {any4_}, .range = {9000, 9000}});
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, ErrorCode::Busy);
        EXPECT_THAT(refused.error().message,
                    HasSubstr(protocol == kTcp ? "port 0.0.0.0:9000/tcp is held by netns_net_test"
                                               : "port 0.0.0.0:9000/udp is held by netns_net_test"));
        EXPECT_THAT(refused.error().message, HasSubstr("(pid " + std::to_string(::getpid()) + ")"));
        // Another address of the same port is free, and one range further on too.
        must(ports_->reserve(
            {.protocol = protocol, .addresses = {must(IpAddress::parse("127.0.0.2"))}, .range = {9000, 9000}}));
        EXPECT_EQ(must(ports_->reserve({.protocol = protocol, .addresses = {any4_}, .range = {9000, 9002}})).port(),
                  9001);
    }
}

TEST_F(PortsTest, RangeRunsOut) {
    const PortRequest request{.protocol = kTcp, .addresses = {any4_, any6_}, .range = {7000, 7001}};
    const auto first = must(ports_->reserve(request));
    const auto second = must(ports_->reserve(request));
    EXPECT_EQ(first.port(), 7000);
    EXPECT_EQ(second.port(), 7001);
    EXPECT_EQ(ports_->reserve(request).error().code, ErrorCode::Exhausted);
}

TEST_F(PortsTest, EphemeralPortsGoRoundAndAvoidTheReserved) {
    must(runIn(ns_, []() -> Result<void> {
        WEFT_TRY(setSysctl("net/ipv4/ip_local_port_range", "40000 40009"));
        WEFT_TRY(setSysctl("net/ipv4/ip_local_reserved_ports", "40003-40004"));
        return {};
    }));
    const PortRequest request{.protocol = kUdp, .addresses = {any4_, any6_}, .range = {}};
    std::vector<uint16_t> given;
    for (int i = 0; i < 8; ++i) given.push_back(must(ports_->reserve(request)).port());  // freed at once each
    const std::set<uint16_t> different(given.begin(), given.end());
    EXPECT_EQ(different, (std::set<uint16_t>{40000, 40001, 40002, 40005, 40006, 40007, 40008, 40009}));

    std::vector<PortReservation> held;
    for (int i = 0; i < 8; ++i) held.push_back(must(ports_->reserve(request)));
    EXPECT_EQ(ports_->reserve(request).error().code, ErrorCode::Exhausted);
    const uint16_t freed = held[3].port();
    held.erase(held.begin() + 3);
    EXPECT_EQ(must(ports_->reserve(request)).port(), freed);
}

TEST_F(PortsTest, AddressOfAnotherHostIsRefused) {
    const auto refused =
        ports_->reserve({.protocol = kTcp, .addresses = {must(IpAddress::parse("192.0.2.1"))}, .range = {80, 80}});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::InvalidArgument);
    EXPECT_THAT(refused.error().message, HasSubstr("does not have the address 192.0.2.1"));
    EXPECT_EQ(ports_->reserve({.protocol = 1, .addresses = {any4_}, .range = {80, 80}}).error().code,
              ErrorCode::InvalidArgument);
}

TEST_F(PortsTest, SctpIsHeldWithOrWithoutKernelSockets) {
    auto held = must(ports_->reserve({.protocol = kSctp, .addresses = {any4_}, .range = {5000, 5000}}));
    const UniqueFd probe(::socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP));
    EXPECT_EQ(held.bound(), bool(probe));
    const PortRequest same{
        .protocol = kSctp, .addresses = {must(IpAddress::parse("127.0.0.1"))}, .range = {5000, 5000}};
    EXPECT_EQ(ports_->reserve(same).error().code, ErrorCode::Busy);
    { const PortReservation moved = std::move(held); }
    must(ports_->reserve(same));
}

TEST_F(PortsTest, TimeWaitIsNoHolder) {
    UniqueFd server;
    ASSERT_EQ(serve(SOCK_STREAM, 8082, &server), 0);
    UniqueFd client = must(socketIn(ns_, AF_INET, SOCK_STREAM, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(8082);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    UniqueFd accepted(::accept(server.get(), nullptr, nullptr));
    accepted.reset();  // the server closes first: its side goes to TIME_WAIT
    char byte = 0;
    EXPECT_EQ(::read(client.get(), &byte, 1), 0);
    client.reset();
    server.reset();
    ASSERT_THAT(runInside(ns_, "ss -Htan"), HasSubstr("TIME-WAIT"));
    const auto held = must(ports_->reserve({.protocol = kTcp, .addresses = {any4_}, .range = {8082, 8082}}));
    EXPECT_EQ(serve(SOCK_STREAM, 8082), EADDRINUSE);  // not shared with those who set SO_REUSEADDR
}

TEST_F(PortsTest, UdpDoesNotQueue) {
    const auto held = must(ports_->reserve({.protocol = kUdp, .addresses = {any4_}, .range = {8053, 8053}}));
    const UniqueFd client = must(socketIn(ns_, AF_INET, SOCK_DGRAM, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(8053);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < 10; ++i) {
        EXPECT_EQ(::sendto(client.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&name), sizeof name), 1);
    }
    EXPECT_THAT(runInside(ns_, "ss -Huan sport = 8053"), ::testing::ContainsRegex("UNCONN +0 +0 "));
}

TEST_F(PortsTest, ManyAreFast) {
    must(raiseFileLimit());
    std::vector<PortReservation> held;
    double time = 0;
    must(runIn(ns_, [&]() -> Result<void> {  // as the daemon does, in its own namespace
        const Stopwatch watch;
        for (int i = 0; i < 1000; ++i) {
            held.push_back(must(ports_->reserve({.protocol = kTcp, .addresses = {any4_, any6_}, .range = {}})));
        }
        time = watch.us();
        return {};
    }));
    std::set<uint16_t> different;
    for (const PortReservation& one : held) different.insert(one.port());
    EXPECT_EQ(different.size(), held.size());
    std::printf("port on both families, ephemeral: %.1f us each\n", time / 1000);
}

}  // namespace
}  // namespace weft::net
