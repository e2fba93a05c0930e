#include "net/port_program.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "namespace_fixture.h"

namespace weft::net {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

struct Station {
    NetNs ns = must(NetNs::create());
    LinkIndex port = 0;
    MacAddress mac;
};

// Two stations on a bridge that lets no pings through, and counts neighbour solicitations.
class PortProgramTest : public NamespaceTest {
protected:
    void SetUp() override {
        NamespaceTest::SetUp();
        bridge_ = must(netlink_->createBridge({.name = "br0", .alias = "t"})).index;
        for (int i = 1; i <= 2; ++i) {
            Station& station = stations_[i - 1];
            const std::string number = std::to_string(i);
            station.mac = must(MacAddress::parse("02:00:00:00:00:0" + number));
            addPort("p" + number, station);
            must(netlink_->moveTo(must(netlink_->getLink("p" + number + "c")).index, station.ns, "eth0"));
            const std::string address = "ip addr add 10.1.0." + number + "/24 dev eth0; ip addr add fd01::" + number +
                                        "/64 dev eth0 nodad; ip link set eth0 up";
            EXPECT_EQ(runInside(station.ns, "sh -c '" + address + "'"), "");
        }
        EXPECT_EQ(nft("table bridge t { chain f { type filter hook forward priority 0; ip protocol icmp drop; "
                      "icmpv6 type echo-request drop; icmpv6 type nd-neighbor-solicit counter; }; }"),
                  "");
    }
    void TearDown() override {
        for (const char* link : {"p1", "p2", "br0"}) must(netlink_->deleteLink(link));
        NamespaceTest::TearDown();
    }

    void addPort(const std::string& name, Station& station) {
        station.port = must(netlink_->createVeth(
            {.name = name, .peerName = name + "c", .alias = "t", .peerMac = station.mac, .master = bridge_}));
    }
    std::string nft(const std::string& rules) { return runInside(ns_, "nft '" + rules + "'"); }
    bool ping(const std::string& to) {
        return runInside(stations_[0].ns, "ping -c 1 -W 1 " + to).find(" 0% packet loss") != std::string::npos;
    }
    [[nodiscard]] PortProgram::Macs macs() const {
        return {{stations_[0].mac, stations_[0].port}, {stations_[1].mac, stations_[1].port}};
    }
    void attach(PortProgram& program) {
        for (const Station& station : stations_) must(program.setPort(station.port, {bridge_, {}, true}));
    }

    LinkIndex bridge_ = 0;
    Station stations_[2];
};

TEST_F(PortProgramTest, FramesForKnownMacsSkipTheBridge) {
    EXPECT_FALSE(ping("10.1.0.2"));
    EXPECT_FALSE(ping("fd01::2"));
    const auto program = must(PortProgram::load(ns_));
    attach(*program);
    EXPECT_FALSE(ping("10.1.0.2")) << "known to nobody";
    must(program->setMacs(bridge_, macs()));
    EXPECT_TRUE(ping("10.1.0.2"));
    EXPECT_TRUE(ping("fd01::2"));
    must(program->setMacs(bridge_, {}));
    EXPECT_FALSE(ping("10.1.0.2"));
}

TEST_F(PortProgramTest, WorksOnWithoutItsMakerUntilAnotherTakesItsPlace) {
    {
        const auto program = must(PortProgram::load(ns_));
        must(program->setMacs(bridge_, macs()));
        attach(*program);
    }
    EXPECT_TRUE(ping("10.1.0.2"));
    const auto other = must(PortProgram::load(ns_));
    attach(*other);
    EXPECT_FALSE(ping("10.1.0.2"));
    EXPECT_THAT(runInside(ns_, "tc filter show dev p1 ingress"), HasSubstr("pref 49152 bpf"));
}

TEST_F(PortProgramTest, TheBridgeAnswersNeighbourSolicitations) {
    const auto program = must(PortProgram::load(ns_));
    must(program->setMacs(bridge_, macs()));
    attach(*program);
    ASSERT_TRUE(ping("fd01::2"));
    EXPECT_EQ(nft("flush chain bridge t f; add rule bridge t f icmpv6 type nd-neighbor-solicit counter"), "");
    // To the MAC that is known, not to all.
    runInside(stations_[0].ns, "ip neigh replace fd01::2 lladdr " + stations_[1].mac.str() + " dev eth0 nud probe");
    const auto counted = [&] { return nft("list table bridge t").find("counter packets 0 ") == std::string::npos; };
    for (int patience = 40; !counted() && patience > 0; --patience) std::this_thread::sleep_for(50ms);
    EXPECT_TRUE(counted());
}

TEST_F(PortProgramTest, FramesForALinkThatIsGoneTakeTheBridge) {
    Station third;
    third.mac = must(MacAddress::parse("02:00:00:00:00:03"));
    addPort("p3", third);
    const auto program = must(PortProgram::load(ns_));
    attach(*program);
    must(program->setMacs(bridge_, {{stations_[1].mac, third.port}}));
    EXPECT_EQ(nft("delete table bridge t"), "");
    EXPECT_FALSE(ping("10.1.0.2")) << "sent elsewhere";
    must(netlink_->deleteLink("p3"));
    EXPECT_TRUE(ping("10.1.0.2"));
}

TEST_F(PortProgramTest, FramesForTheirOwnPortTakeTheBridge) {
    EXPECT_EQ(nft("delete table bridge t"), "");
    const auto program = must(PortProgram::load(ns_));
    must(program->setMacs(bridge_, {{stations_[1].mac, stations_[0].port}}));
    attach(*program);
    EXPECT_TRUE(ping("10.1.0.2"));
}

TEST_F(PortProgramTest, WhatDoesNotFitIsToldAndTakesTheBridge) {
    const auto program = must(PortProgram::load(ns_, 16));
    attach(*program);
    PortProgram::Macs many = macs();
    for (uint8_t i = 0; i < 16; ++i) many[MacAddress({6, 0, 0, 0, 0, i})] = stations_[1].port;
    const auto done = program->setMacs(bridge_, many);
    ASSERT_FALSE(done);
    EXPECT_THAT(done.error().message, HasSubstr("enter 06:00:00:00:00:0"));
    EXPECT_TRUE(ping("10.1.0.2")) << "it came before";
    must(program->setMacs(bridge_, macs()));
    EXPECT_TRUE(ping("10.1.0.2"));
}

TEST_F(PortProgramTest, ALinkThatIsNotThereIsAnError) {
    const auto program = must(PortProgram::load(ns_));
    EXPECT_FALSE(program->setPort(4711, {bridge_, {}, true}));
    EXPECT_FALSE(program->setMacs(bridge_, {{stations_[0].mac, 4711}}));
}

// --- Senders ---

using Bytes = std::vector<uint8_t>;

template <typename... Parts>
Bytes join(Bytes first, const Parts&... parts) {
    (first.insert(first.end(), parts.begin(), parts.end()), ...);
    return first;
}

Bytes number(uint16_t value) {
    return {static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)};
}

Bytes address(const std::string& text) {
    const IpAddress parsed = must(IpAddress::parse(text));
    const auto bytes = parsed.bytes();
    return {bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(parsed.size())};
}

const Bytes kOwn{2, 0, 0, 0, 0, 1};
const Bytes kOther{2, 0, 0, 0, 0, 2};
const Bytes kAll{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

Bytes ethernet(uint16_t type, const Bytes& payload, const Bytes& from = kOwn, const Bytes& to = kAll) {
    return join(to, from, number(type), payload);
}

Bytes tagged(uint16_t vlan, const Bytes& frame) {
    return join(Bytes(frame.begin(), frame.begin() + 12), number(0x8100), number(vlan),
                Bytes(frame.begin() + 12, frame.end()));
}

Bytes arp(uint8_t operation, const Bytes& mac, const std::string& from, uint8_t hardware = 1) {
    return ethernet(0x0806,
                    join({0, hardware, 8, 0, 6, 4, 0, operation}, mac, address(from), kOther, address("10.1.0.2")));
}

Bytes udp(uint16_t port) {
    return join(number(68), number(port), number(8), number(0));
}

Bytes ipv4(const std::string& from, uint8_t protocol, const Bytes& payload, uint16_t offset = 0,
           const Bytes& mac = kOwn) {
    return ethernet(0x0800,
                    join({0x45, 0}, number(static_cast<uint16_t>(20 + payload.size())), number(1), number(offset),
                         Bytes{64, protocol, 0, 0}, address(from), address("255.255.255.255"), payload),
                    mac);
}

Bytes ipv6(const std::string& from, uint8_t next, const Bytes& payload, bool tellLength = true) {
    const auto length = static_cast<uint16_t>(tellLength ? payload.size() : 0);
    return ethernet(
        0x86dd, join({0x60, 0, 0, 0}, number(length), Bytes{next, 255}, address(from), address("ff02::1"), payload));
}

Bytes icmp(uint8_t type, const Bytes& body = {}) {
    return join({type, 0, 0, 0, 0, 0, 0, 0}, body);
}

// A neighbour discovery message's link-layer option: 1 source, 2 target.
Bytes option(uint8_t type, const Bytes& mac) {
    return join({type, 1}, mac);
}

// Eight bytes that lead to `next`.
Bytes extension(uint8_t next) {
    return {next, 0, 1, 4, 0, 0, 0, 0};
}

Bytes fragment(uint8_t next, uint16_t offset) {
    return join({next, 0}, number(static_cast<uint16_t>(offset << 3 | 1)), Bytes{0, 0, 0, 7});
}

class PortSenderTest : public PortProgramTest {
protected:
    void SetUp() override {
        PortProgramTest::SetUp();
        // The bridge shall judge nothing: some of these frames have no checksums.
        EXPECT_EQ(nft("delete table bridge t"), "");
        runInside(ns_,
                  "sh -c 'echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables; echo 0 > "
                  "/proc/sys/net/bridge/bridge-nf-call-ip6tables'");
        program_ = must(PortProgram::load(ns_));
        for (int i = 0; i < 2; ++i) {
            sockets_[i] = must(socketIn(stations_[i].ns, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
            sockaddr_ll here{};
            here.sll_family = AF_PACKET;
            here.sll_protocol = htons(ETH_P_ALL);
            here.sll_ifindex = must(must(Netlink::openIn(stations_[i].ns))->linkIndex("eth0"));
            ASSERT_EQ(::bind(sockets_[i].get(), reinterpret_cast<sockaddr*>(&here), sizeof here), 0);
        }
    }

    void send(Bytes frame, uint32_t id) {
        frame.insert(frame.end(), {0xc0, 0xff, 0xee, static_cast<uint8_t>(id >> 24), static_cast<uint8_t>(id >> 16),
                                   static_cast<uint8_t>(id >> 8), static_cast<uint8_t>(id)});
        EXPECT_EQ(::send(sockets_[0].get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
    }
    // The ID at the end of the next frame that has one; nothing within a second.
    std::optional<uint32_t> receive() {
        for (;;) {
            pollfd poll{sockets_[1].get(), POLLIN, 0};
            if (::poll(&poll, 1, 1000) != 1) return std::nullopt;
            uint8_t frame[2048];
            const ssize_t size = ::recv(sockets_[1].get(), frame, sizeof frame, 0);
            if (size < 7) continue;
            const uint8_t* end = frame + size;
            if (end[-7] != 0xc0 || end[-6] != 0xff || end[-5] != 0xee) continue;
            return static_cast<uint32_t>(end[-4]) << 24 | static_cast<uint32_t>(end[-3]) << 16 |
                   static_cast<uint32_t>(end[-2]) << 8 | end[-1];
        }
    }
    // Whether the other station gets it. What does not come before the frame behind it was dropped.
    bool arrives(const Bytes& frame) {
        const uint32_t id = ids_ += 2;
        send(frame, id);
        send(ethernet(0x88b5, {}), id + 1);
        const auto first = receive();
        if (first == id) {
            EXPECT_EQ(receive(), id + 1);
        }
        EXPECT_TRUE(first == id || first == id + 1);
        return first == id;
    }

    void setPort(std::optional<PortSender> sender, bool fastPath = false) {
        must(program_->setPort(stations_[0].port, {bridge_, std::move(sender), fastPath}));
    }
    [[nodiscard]] PortSender sender() const {
        return {
            .mac = stations_[0].mac, .v4 = must(IpAddress::parse("10.1.0.1")), .v6 = must(IpAddress::parse("fd01::1"))};
    }
    [[nodiscard]] DropCounts counts() const { return program_->drops(stations_[0].port); }

    std::unique_ptr<PortProgram> program_;
    UniqueFd sockets_[2];
    uint32_t ids_ = 0;
};

struct Sent {
    const char* what;
    Bytes frame;
    std::optional<PortDrop> drop = {};  // none: it passes
};

std::vector<Sent> sentFrames() {
    const auto neighbours = [](uint8_t type, const std::string& target, const Bytes& options,
                               const std::string& from = "fd01::1") {
        return ipv6(from, 58, icmp(type, join(address(target), options)));
    };
    const Bytes advertisement = icmp(134, Bytes(8));
    Bytes manyHeaders;
    for (int i = 0; i < 9; ++i) manyHeaders = join(manyHeaders, extension(i == 8 ? 58 : 60));
    Bytes manyOptions;
    for (int i = 0; i < 8; ++i) manyOptions = join(manyOptions, Bytes{14, 1, 0, 0, 0, 0, 0, 0});
    return {
        {"its own", ipv4("10.1.0.1", 17, udp(9))},
        {"another's MAC", ipv4("10.1.0.1", 17, udp(9), 0, kOther), kDropMac},
        {"another's MAC, no IP", ethernet(0x88b5, {}, kOther), kDropMac},
        {"the bridge's group", ethernet(0x88b5, {}, kOwn, {0x01, 0x80, 0xc2, 0, 0, 0}), kDropControl},

        {"another's IPv4", ipv4("10.1.0.2", 17, udp(9)), kDropIpv4},
        {"IPv4 from outside", ipv4("192.0.2.1", 17, udp(9)), kDropIpv4},
        {"fragment of another's IPv4", ipv4("10.1.0.2", 17, udp(9), 1), kDropIpv4},
        {"IPv4 link-local", ipv4("169.254.3.4", 17, udp(9))},
        {"beside IPv4 link-local", ipv4("169.253.3.4", 17, udp(9)), kDropIpv4},
        {"DHCP", ipv4("0.0.0.0", 17, udp(67))},
        {"IGMP without an address", ipv4("0.0.0.0", 2, Bytes(8))},
        {"UDP without an address", ipv4("0.0.0.0", 17, udp(9)), kDropIpv4},
        {"TCP without an address", ipv4("0.0.0.0", 6, udp(67)), kDropIpv4},
        {"later fragment like DHCP", ipv4("0.0.0.0", 17, udp(67), 1), kDropIpv4},
        {"cut IPv4", ethernet(0x0800, {0x45, 0}), kDropMalformed},

        {"ARP", arp(1, kOwn, "10.1.0.1")},
        {"ARP reply", arp(2, kOwn, "10.1.0.1")},
        {"ARP probe", arp(1, kOwn, "0.0.0.0")},
        {"ARP link-local", arp(1, kOwn, "169.254.3.4")},
        {"ARP reply without an address", arp(2, kOwn, "0.0.0.0"), kDropArp},
        {"ARP with another's address", arp(1, kOwn, "10.1.0.2"), kDropArp},
        {"ARP reply with another's address", arp(2, kOwn, "10.1.0.2"), kDropArp},
        {"ARP with another's MAC", arp(2, kOther, "10.1.0.1"), kDropArp},
        {"ARP of IEEE 802", arp(2, kOwn, "10.1.0.1", 6), kDropArp},
        {"cut ARP", ethernet(0x0806, {0, 1, 8, 0, 6, 4}), kDropMalformed},

        {"own IPv6", ipv6("fd01::1", 17, udp(9))},
        {"IPv6 link-local", ipv6("fe80::77", 17, udp(9))},
        {"end of IPv6 link-local", ipv6("febf::77", 17, udp(9))},
        {"beside IPv6 link-local", ipv6("fec0::77", 17, udp(9)), kDropIpv6},
        {"another's IPv6", ipv6("fd01::2", 17, udp(9)), kDropIpv6},
        {"another's IPv6, fragment", ipv6("fd01::2", 44, join(fragment(17, 9), udp(9))), kDropIpv6},
        {"UDP without an IPv6 address", ipv6("::", 17, udp(9)), kDropIpv6},
        {"fragment without an IPv6 address", ipv6("::", 44, join(fragment(17, 9), udp(9))), kDropIpv6},
        {"echo without an IPv6 address", ipv6("::", 58, icmp(129)), kDropIpv6},
        {"group report without an IPv6 address", ipv6("::", 0, join(extension(58), icmp(143)))},
        {"cut IPv6", ethernet(0x86dd, {0x60, 0, 0, 0}), kDropMalformed},

        {"solicitation", neighbours(135, "fd01::2", option(1, kOwn))},
        {"duplicate address detection", neighbours(135, "fd01::1", {}, "::")},
        {"duplicate address detection of another's", neighbours(135, "fd01::2", {}, "::"), kDropNeighbour},
        {"solicitation with another's MAC", neighbours(135, "fd01::2", option(1, kOther)), kDropNeighbour},
        {"the same in the second option", neighbours(135, "fd01::2", join(option(14, kOwn), option(1, kOther))),
         kDropNeighbour},
        {"the same without a length",
         ipv6("fd01::1", 0, join(extension(58), icmp(135, join(address("fd01::2"), option(1, kOther)))), false),
         kDropNeighbour},
        {"advertisement", neighbours(136, "fd01::1", option(2, kOwn))},
        {"advertisement of link-local", neighbours(136, "fe80::77", option(2, kOwn))},
        {"advertisement of another's", neighbours(136, "fd01::2", option(2, kOwn)), kDropNeighbour},
        {"advertisement with another's MAC", neighbours(136, "fd01::1", option(2, kOther)), kDropNeighbour},
        {"the same behind a header",
         ipv6("fd01::1", 60, join(extension(58), icmp(136, join(address("fd01::2"), option(2, kOwn))))),
         kDropNeighbour},
        {"option without a length", neighbours(135, "fd01::2", {14, 0, 0, 0, 0, 0, 0, 0}), kDropMalformed},
        {"more options than are read", neighbours(135, "fd01::2", join(manyOptions, option(1, kOther))),
         kDropMalformed},
        {"cut solicitation", ipv6("fd01::1", 58, {135}), kDropMalformed},
        {"router solicitation", ipv6("fe80::77", 58, icmp(133, option(1, kOwn)))},
        {"router solicitation with another's MAC", ipv6("fe80::77", 58, icmp(133, option(1, kOther))), kDropNeighbour},

        {"router advertisement", ipv6("fe80::77", 58, advertisement), kDropRouter},
        {"redirect", ipv6("fe80::77", 58, icmp(137, Bytes(32))), kDropRouter},
        {"advertisement behind headers",
         ipv6("fe80::77", 0, join(extension(60), extension(43), extension(58), advertisement)), kDropRouter},
        {"advertisement behind AH",
         ipv6("fe80::77", 51, join(Bytes{58, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1}, advertisement)), kDropRouter},
        {"advertisement in a fragment", ipv6("fe80::77", 44, join(fragment(58, 0), advertisement)), kDropRouter},
        {"solicitation in a fragment",
         ipv6("fd01::1", 44, join(fragment(58, 0), icmp(135, join(address("fd01::2"), option(1, kOwn))))),
         kDropNeighbour},
        {"echo in a fragment", ipv6("fd01::1", 44, join(fragment(58, 0), icmp(129)))},
        {"later fragment", ipv6("fd01::1", 44, join(fragment(58, 3), udp(9)))},
        {"more headers than are read", ipv6("fe80::77", 60, join(manyHeaders, advertisement)), kDropMalformed},
        {"headers that end nowhere", ipv6("fd01::1", 60, Bytes{58, 200, 0, 0, 0, 0, 0, 0}), kDropMalformed},
        {"group report", ipv6("fe80::77", 0, join(extension(58), icmp(143)))},

        {"VLAN", tagged(5, ipv4("10.1.0.1", 17, udp(9))), kDropVlan},
        {"VLAN in VLAN 0", tagged(0, tagged(5, ipv4("10.1.0.1", 17, udp(9)))), kDropVlan},
        {"priority", tagged(0x2000, ipv4("10.1.0.1", 17, udp(9)))},
        {"another's IPv4 with priority", tagged(0x2000, ipv4("10.1.0.2", 17, udp(9))), kDropIpv4},
    };
}

TEST_F(PortSenderTest, EachFrameUncheckedArrives) {
    setPort({});
    for (const Sent& sent : sentFrames()) EXPECT_TRUE(arrives(sent.frame)) << sent.what;
    EXPECT_EQ(sum(counts()), 0U);
}

TEST_F(PortSenderTest, WhatIsNotTheSendersOwnIsDroppedAndCounted) {
    setPort(sender());
    for (const bool fastPath : {false, true}) {
        if (fastPath) {
            must(program_->setMacs(bridge_, macs()));
            must(program_->setPort(stations_[1].port, {bridge_, {}, true}));
            setPort(sender(), true);
        }
        for (Sent& sent : sentFrames()) {
            const bool isGroup = sent.drop == kDropControl;
            if (fastPath && !isGroup) std::copy(kOther.begin(), kOther.end(), sent.frame.begin());
            DropCounts before = counts();
            EXPECT_EQ(arrives(sent.frame), !sent.drop) << sent.what;
            if (sent.drop) ++before[*sent.drop];
            EXPECT_EQ(counts(), before) << sent.what;
        }
    }
    EXPECT_EQ(program_->allDrops(), counts());
}

TEST_F(PortSenderTest, WithoutAnAddressOfAFamilyItHasNoneThere) {
    setPort(PortSender{.mac = stations_[0].mac});
    EXPECT_FALSE(arrives(ipv4("10.1.0.1", 17, udp(9))));
    EXPECT_FALSE(arrives(ipv6("fd01::1", 17, udp(9))));
    EXPECT_FALSE(arrives(ipv6("::", 58, icmp(136, join(address("::"), option(2, kOwn))))));
    EXPECT_TRUE(arrives(ipv6("fe80::1", 17, udp(9))));
    EXPECT_TRUE(arrives(ipv4("0.0.0.0", 17, udp(67))));
}

TEST_F(PortSenderTest, AnyAddressThatNobodyElseHas) {
    PortSender any = sender();
    any.anyAddress = true;
    setPort(any);
    const auto reserve = [&](const std::string& text, std::optional<LinkIndex> owner) {
        must(program_->reserve(bridge_, must(IpAddress::parse(text)), owner));
    };
    for (const auto& pair : {std::pair("10.1.0.7", "fd01::7"), std::pair("192.0.2.1", "2001:db8::1")}) {
        const char* v4 = pair.first;
        const char* v6 = pair.second;
        const std::vector<Bytes> frames{ipv4(v4, 17, udp(9)), arp(2, kOwn, v4), ipv6(v6, 17, udp(9)),
                                        ipv6(v6, 58, icmp(136, join(address(v6), option(2, kOwn))))};
        const auto arrive = [&](bool expected) {
            for (const Bytes& frame : frames) EXPECT_EQ(arrives(frame), expected) << v4;
        };
        arrive(true);
        for (const char* text : {v4, v6}) reserve(text, stations_[1].port);
        arrive(false);
        for (const char* text : {v4, v6}) reserve(text, stations_[0].port);
        arrive(true);
        for (const char* text : {v4, v6}) reserve(text, bridge_);
        arrive(false);
        for (const char* text : {v4, v6}) reserve(text, {});
        arrive(true);
    }
    EXPECT_FALSE(arrives(arp(2, kOther, "10.1.0.7"))) << "another's MAC";
    EXPECT_FALSE(arrives(ipv6("fe80::77", 58, icmp(134, Bytes(8))))) << "router advertisement";
}

TEST_F(PortSenderTest, BroadcastsAreFewAndAllElseIsAsMuchAsIsSent) {
    must(program_->setPort(stations_[0].port, {bridge_, {}, false, true}));
    constexpr uint64_t kSent = 20 * kFloodsASecond;
    const auto begin = std::chrono::steady_clock::now();
    for (uint32_t i = 0; i < kSent; ++i) send(i % 2 == 0 ? ipv4("10.1.0.1", 17, udp(9)) : ethernet(0x88b5, {}), i);
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begin);
    const DropCounts dropped = counts();
    EXPECT_LE(kSent - dropped[kDropFlood], kFloodsASecond * (static_cast<uint64_t>(seconds.count()) + 2));
    constexpr uint64_t kOwnMulticasts = 20;  // at most, of the station's kernel: they count as well
    EXPECT_GE(kSent - dropped[kDropFlood], kFloodsASecond - kOwnMulticasts);
    for (uint32_t i = 0; i < 2 * kFloodsASecond; ++i) {
        send(ethernet(0x88b5, {}, kOwn, kOther), i);
        send(arp(1, kOwn, "10.1.0.1"), i);
    }
    // The station's own kernel sends some multicasts as well.
    EXPECT_LT(counts()[kDropFlood], dropped[kDropFlood] + 50);
    setPort({});
    const DropCounts before = counts();
    for (uint32_t i = 0; i < 2 * kFloodsASecond; ++i) send(ipv4("10.1.0.1", 17, udp(9)), i);
    EXPECT_EQ(counts(), before) << "without the limit";
}

TEST_F(PortSenderTest, RulesChangeBetweenTwoFrames) {
    setPort(sender());
    EXPECT_FALSE(arrives(ipv4("10.1.0.9", 17, udp(9))));
    setPort({});
    EXPECT_TRUE(arrives(ipv4("10.1.0.9", 17, udp(9))));
    setPort(sender());
    EXPECT_FALSE(arrives(ipv4("10.1.0.9", 17, udp(9))));
    EXPECT_EQ(counts()[kDropIpv4], 2U);
}

TEST_F(PortSenderTest, ChecksOnWithoutItsMakerAndTheNextTakesItsCountsOver) {
    setPort(sender());
    EXPECT_FALSE(arrives(ipv4("10.1.0.9", 17, udp(9))));
    program_.reset();
    EXPECT_FALSE(arrives(ipv4("10.1.0.9", 17, udp(9))));
    EXPECT_TRUE(arrives(ipv4("10.1.0.1", 17, udp(9))));
    program_ = must(PortProgram::load(ns_));
    EXPECT_FALSE(arrives(ipv4("10.1.0.9", 17, udp(9)))) << "before the port is set";
    setPort(sender());
    EXPECT_EQ(counts()[kDropIpv4], 3U);
    EXPECT_EQ(sum(program_->allDrops()), 0U) << "since it was loaded";
    EXPECT_FALSE(arrives(ipv4("10.1.0.9", 17, udp(9))));
    EXPECT_EQ(counts()[kDropIpv4], 4U);
    EXPECT_EQ(sum(program_->allDrops()), 1U);
}

TEST_F(PortSenderTest, NoFrameOfAnyKindPassesOrIsLostWhileTheNextTakesItsPlace) {
    setPort(sender());
    std::atomic<bool> done{false};
    std::atomic<uint32_t> rounds{0};
    std::thread busy([&] {
        for (; !done; ++rounds) {
            send(ipv4("10.1.0.9", 17, udp(9)), 0);
            send(ipv4("10.1.0.1", 17, udp(9)), rounds + 1);
            const auto came = receive();
            EXPECT_EQ(came, rounds + 1);
            if (came != rounds + 1) break;
        }
    });
    for (int i = 0; i < 20; ++i) {
        auto next = must(PortProgram::load(ns_));
        must(next->setPort(stations_[0].port, {bridge_, sender(), false}));
        program_ = std::move(next);
    }
    done = true;
    busy.join();
    EXPECT_GT(rounds, 20U);
}

TEST_F(PortSenderTest, AnAdministratorsRemovalIsSeenAndHealed) {
    setPort(sender());
    EXPECT_TRUE(program_->isAttached(stations_[0].port));
    EXPECT_EQ(runInside(ns_, "tc qdisc del dev p1 clsact"), "");
    EXPECT_FALSE(program_->isAttached(stations_[0].port));
    EXPECT_TRUE(arrives(ipv4("10.1.0.9", 17, udp(9))));
    must(program_->restore(stations_[0].port));
    EXPECT_TRUE(program_->isAttached(stations_[0].port));
    EXPECT_FALSE(arrives(ipv4("10.1.0.9", 17, udp(9))));
}

TEST_F(PortSenderTest, ManyAreFast) {
    constexpr int kPorts = 100;
    std::vector<LinkIndex> made;
    // Processor time, so that what else the machine does counts less.
    const auto used = [] { return 1e6 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
    const double begin = used();
    for (int i = 0; i < kPorts; ++i) {
        const std::string name = "m" + std::to_string(i);
        made.push_back(
            must(netlink_->createVeth({.name = name, .peerName = name + "c", .alias = "t", .master = bridge_})));
    }
    const double linked = used();
    for (const LinkIndex index : made) must(program_->setPort(index, {bridge_, sender(), true}));
    const double port = (used() - linked) / kPorts;
    std::printf("a veth pair: %.0f us; the program at it: %.0f us\n", (linked - begin) / kPorts, port);
    EXPECT_LT(port, 2000) << "a program loaded for each would take some 25 ms";
    must(netlink_->deleteLinks(made));
}

TEST_F(PortSenderTest, APortThatIsForgottenIsClosedAndItsCountsStayInTheSum) {
    setPort(sender());
    EXPECT_FALSE(arrives(ipv4("10.1.0.9", 17, udp(9))));
    program_->prune();
    EXPECT_TRUE(arrives(ipv4("10.1.0.1", 17, udp(9)))) << "its link is there";
    program_->removePort(stations_[0].port);
    send(ipv4("10.1.0.1", 17, udp(9)), 1);
    setPort({});
    send(ipv4("10.1.0.1", 17, udp(9)), 2);
    EXPECT_EQ(receive(), 2U);
    EXPECT_EQ(program_->allDrops()[kDropIpv4], 1U);
    EXPECT_EQ(sum(counts()), 0U);
}

}  // namespace
}  // namespace weft::net
