#include "tests/netns/firewall/suite_lab.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

namespace weft::firewall::suite {

namespace {

struct Container {
    Place place;
    Net net;
    int host;  // the last part of its address
};
constexpr Container kContainers[] = {
    {Place::A1, Net::A, 2}, {Place::A2, Net::A, 3}, {Place::B1, Net::B, 2}, {Place::I1, Net::I, 2},
    {Place::I2, Net::I, 3}, {Place::R1, Net::R, 2}, {Place::P1, Net::P, 2},
};
constexpr Net kNets[] = {Net::A, Net::B, Net::I, Net::R, Net::P};

std::string letter(Net net) {
    return std::string(1, "abirp"[static_cast<size_t>(net)]);
}
std::string bridge(Net net) {
    return "br-" + letter(net);
}

IpAddress inNet(Net net, int host, IpFamily family) {
    const auto number = std::to_string(static_cast<int>(net) + 1);
    return family == IpFamily::V4 ? ip("10." + number + ".0." + std::to_string(host))
                                  : ip("fd00:" + number + "::" + std::to_string(host));
}

void require(bool ok, const char* what) {
    if (!ok) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

UniqueFd currentNamespace() {
    UniqueFd fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    require(static_cast<bool>(fd), "open namespace");
    return fd;
}

UniqueFd newNamespace() {
    UniqueFd made;
    std::thread([&] {
        require(::unshare(CLONE_NEWNET) == 0, "unshare");
        made = currentNamespace();
    }).join();
    return made;
}

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t size = 0;
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

SocketAddress socketAddress(const IpAddress& address, uint16_t port) {
    SocketAddress result;
    const auto bytes = address.bytes();
    if (address.isV4()) {
        auto& in = reinterpret_cast<sockaddr_in&>(result.storage);
        in.sin_family = AF_INET;
        in.sin_port = htons(port);
        std::memcpy(&in.sin_addr, bytes.data(), 4);
        result.size = sizeof in;
    } else {
        auto& in = reinterpret_cast<sockaddr_in6&>(result.storage);
        in.sin6_family = AF_INET6;
        in.sin6_port = htons(port);
        std::memcpy(&in.sin6_addr, bytes.data(), 16);
        result.size = sizeof in;
    }
    return result;
}

IpAddress addressOf(const sockaddr_storage& storage) {
    if (storage.ss_family == AF_INET) {
        return IpAddress::fromBytes(
            IpFamily::V4, reinterpret_cast<const uint8_t*>(&reinterpret_cast<const sockaddr_in&>(storage).sin_addr));
    }
    return IpAddress::fromBytes(
        IpFamily::V6, reinterpret_cast<const uint8_t*>(&reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr));
}

using Deadline = std::chrono::steady_clock::time_point;

bool readyBy(Deadline deadline, int fd, short events) {
    pollfd entry{fd, events, 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    return ::poll(&entry, 1, static_cast<int>(std::max<int64_t>(left.count(), 0))) > 0;
}

// Receives the next datagram and where it came from.
std::optional<std::pair<std::string, SocketAddress>> receive(int fd, Deadline deadline) {
    if (!readyBy(deadline, fd, POLLIN)) return std::nullopt;
    char buffer[2048];
    SocketAddress from;
    from.size = sizeof from.storage;
    const ssize_t size = ::recvfrom(fd, buffer, sizeof buffer, MSG_DONTWAIT, from.get(), &from.size);
    if (size < 0) return std::nullopt;
    return std::pair{std::string(buffer, static_cast<size_t>(size)), from};
}

std::optional<IpAddress> exchangeTcp(int client, int server, const SocketAddress& to, Deadline deadline) {
    SocketAddress target = to;
    if (::connect(client, target.get(), target.size) != 0 && errno != EINPROGRESS) return std::nullopt;
    if (!readyBy(deadline, client, POLLOUT) || ::send(client, "ask", 3, MSG_NOSIGNAL) != 3) return std::nullopt;
    if (!readyBy(deadline, server, POLLIN)) return std::nullopt;
    SocketAddress peer;
    peer.size = sizeof peer.storage;
    const UniqueFd accepted(::accept4(server, peer.get(), &peer.size, SOCK_NONBLOCK));
    if (!accepted || !receive(accepted.get(), deadline)) return std::nullopt;
    if (::send(accepted.get(), "answer", 6, MSG_NOSIGNAL) != 6) return std::nullopt;
    const auto reply = receive(client, deadline);
    return reply && reply->first == "answer" ? std::optional(addressOf(peer.storage)) : std::nullopt;
}

std::optional<IpAddress> exchangeUdp(int client, int server, const SocketAddress& to, Deadline deadline, bool oneWay) {
    SocketAddress target = to;
    // Connected: a reply from another address than was asked does not count.
    if (::connect(client, target.get(), target.size) != 0) return std::nullopt;
    if (::send(client, "ask", 3, 0) != 3) return std::nullopt;
    auto request = receive(server, deadline);
    if (!request) return std::nullopt;
    const auto peer = addressOf(request->second.storage);
    if (oneWay) return peer;
    if (::sendto(server, "answer", 6, 0, request->second.get(), request->second.size) != 6) return std::nullopt;
    const auto reply = receive(client, deadline);
    return reply && reply->first == "answer" ? std::optional(peer) : std::nullopt;
}

// RFC 9260 appendix A.
uint32_t crc32c(const uint8_t* data, size_t size) {
    uint32_t crc = ~0U;
    for (size_t i = 0; i < size; ++i) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0);
    }
    return ~crc;
}

// The kernel here may have no SCTP sockets, so the handshake's first two packets are made by hand.
struct __attribute__((packed)) SctpInit {
    uint16_t source, destination;
    uint32_t tag, checksum;
    uint8_t type, flags;  // 1: INIT, 2: INIT ACK
    uint16_t length;
    uint32_t initTag, window;
    uint16_t outStreams, inStreams;
    uint32_t tsn;
};

SctpInit sctpInit(uint8_t type, uint16_t source, uint16_t destination, uint32_t tag) {
    SctpInit packet{};
    packet.source = htons(source);
    packet.destination = htons(destination);
    packet.tag = tag;
    packet.type = type;
    packet.length = htons(20);
    packet.initTag = htonl(0x01020304);
    packet.window = htonl(65536);
    packet.outStreams = packet.inStreams = htons(1);
    packet.checksum = crc32c(reinterpret_cast<const uint8_t*>(&packet), sizeof packet);
    return packet;
}

// The next packet of a type to a port; a raw IPv4 socket hands out the IP header as well.
std::optional<std::pair<SctpInit, SocketAddress>> receiveSctp(int fd, uint8_t type, uint16_t port, bool v4,
                                                              Deadline deadline) {
    while (auto packet = receive(fd, deadline)) {
        const size_t skip = v4 ? size_t{4} * (static_cast<uint8_t>(packet->first[0]) & 0x0f) : 0;
        SctpInit init;
        if (packet->first.size() < skip + sizeof init) continue;
        std::memcpy(&init, packet->first.data() + skip, sizeof init);
        if (init.type == type && ntohs(init.destination) == port) return std::pair{init, packet->second};
    }
    return std::nullopt;
}

std::optional<IpAddress> exchangeSctp(int client, int server, const Probe& probe, Deadline deadline, bool oneWay) {
    static uint16_t clientPort = 40000;
    ++clientPort;
    const bool v4 = probe.to.isV4();
    auto target = socketAddress(probe.to, 0);
    const auto ask = sctpInit(1, clientPort, probe.port, 0);
    if (::sendto(client, &ask, sizeof ask, 0, target.get(), target.size) != sizeof ask) return std::nullopt;
    auto request = receiveSctp(server, 1, probe.serverPort, v4, deadline);
    if (!request) return std::nullopt;
    auto peer = request->second;
    const auto source = addressOf(peer.storage);
    if (oneWay) return source;
    const auto answer = sctpInit(2, probe.serverPort, ntohs(request->first.source), request->first.initTag);
    peer = socketAddress(source, 0);
    if (::sendto(server, &answer, sizeof answer, 0, peer.get(), peer.size) != sizeof answer) return std::nullopt;
    const auto reply = receiveSctp(client, 2, clientPort, v4, deadline);
    if (!reply || addressOf(reply->second.storage) != probe.to || ntohs(reply->first.source) != probe.port) {
        return std::nullopt;
    }
    return source;
}

}  // namespace

IpAddress ip(const std::string& text) {
    return IpAddress::parse(text).value();
}

IpAddress address(Place place, IpFamily family) {
    if (place == Place::Host) return ip(family == IpFamily::V4 ? "192.0.2.1" : "2001:db8::1");
    if (place == Place::Outside) return ip(family == IpFamily::V4 ? "192.0.2.2" : "2001:db8::2");
    for (const auto& container : kContainers) {
        if (container.place == place) return inNet(container.net, container.host, family);
    }
    throw std::logic_error("no such place");
}

IpAddress secondHostAddress(IpFamily family) {
    return ip(family == IpFamily::V4 ? "192.0.2.9" : "2001:db8::9");
}
IpAddress gateway(Net net, IpFamily family) {
    return inNet(net, 1, family);
}
IpAddress loopback(IpFamily family) {
    return ip(family == IpFamily::V4 ? "127.0.0.1" : "::1");
}

Network network(Net net) {
    Network result;
    result.id = NetworkId(std::string(4, letter(net)[0]));
    result.bridge = bridge(net);
    result.subnets = {IpPrefix(gateway(net, IpFamily::V4), 24).network(),
                      IpPrefix(gateway(net, IpFamily::V6), 64).network()};
    result.internal = net == Net::I;
    result.masquerade = net != Net::P;
    if (net == Net::R) result.modeV4 = result.modeV6 = GatewayMode::Routed;
    return result;
}

Endpoint endpoint(const std::string& id, Net net, std::vector<PublishedPort> ports) {
    return Endpoint{EndpointId(id), network(net).id, std::move(ports)};
}

Lab::Lab(bool bridgeNetfilter) : home_(currentNamespace()) {
    for (auto& fd : namespaces_) fd = newNamespace();
    build(bridgeNetfilter);
    require(::setns(namespaces_[0].get(), CLONE_NEWNET) == 0, "setns");
}

Lab::~Lab() {
    EXPECT_EQ(::setns(home_.get(), CLONE_NEWNET), 0);
}

void Lab::inside(Place place, const std::function<void()>& work) {
    std::thread([&] {
        require(::setns(namespaces_[static_cast<size_t>(place)].get(), CLONE_NEWNET) == 0, "setns");
        work();
    }).join();
}

std::string Lab::run(Place place, const std::string& command) {
    std::string output;
    inside(place, [&] {
        const auto all = "{ " + command + "\n} 2>&1";
        FILE* pipe = ::popen(all.c_str(), "r");  // the child starts in this thread's namespace
        require(pipe != nullptr, "popen");
        char buffer[4096];
        for (size_t size; (size = ::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, size);
        EXPECT_EQ(::pclose(pipe), 0) << command << "\n" << output;
    });
    return output;
}

void Lab::build(bool bridgeNetfilter) {
    const auto link = [&](Place place) {
        return "/proc/" + std::to_string(::getpid()) + "/fd/" +
               std::to_string(namespaces_[static_cast<size_t>(place)].get());
    };
    const auto batch = [&](Place place, const std::string& lines) {
        run(place, "ip -batch - <<'END'\n" + lines + "END");
    };
    for (size_t i = 0; i < kPlaces; ++i) {
        run(static_cast<Place>(i), "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");  // addresses work at once
    }
    std::ostringstream host;
    host << "link set lo up\nlink add eth0 type veth peer name eth0 netns " << link(Place::Outside)
         << "\nlink set eth0 up\naddr add 192.0.2.1/24 dev eth0\naddr add 192.0.2.9/24 dev eth0\n"
            "addr add 2001:db8::1/64 dev eth0 nodad\n"
            "addr add 2001:db8::9/64 dev eth0 nodad preferred_lft 0\n";  // never chosen as a source
    for (const auto net : kNets) {
        host << "link add " << bridge(net) << " type bridge\nlink set " << bridge(net) << " up\n";
        for (const auto family : kFamilies) {
            host << "addr add " << gateway(net, family).str() << (family == IpFamily::V4 ? "/24" : "/64 nodad")
                 << " dev " << bridge(net) << "\n";
        }
    }
    for (const auto& container : kContainers) {
        const auto port = "v" + letter(container.net) + std::to_string(container.host);
        host << "link add " << port << " type veth peer name eth0 netns " << link(container.place) << "\nlink set "
             << port << " master " << bridge(container.net) << " up\nlink set " << port
             << " type bridge_slave hairpin on\n";
    }
    batch(Place::Host, host.str());
    for (const auto& container : kContainers) {
        std::ostringstream inner;
        inner << "link set lo up\nlink set eth0 up\n";
        for (const auto family : kFamilies) {
            inner << "addr add " << address(container.place, family).str()
                  << (family == IpFamily::V4 ? "/24" : "/64 nodad") << " dev eth0\nroute add default via "
                  << gateway(container.net, family).str() << "\n";
        }
        batch(container.place, inner.str());
    }
    // The outside's loopback stays down, so that it can route 127.0.0.0/8 at the host.
    batch(Place::Outside,
          "link set eth0 up\naddr add 192.0.2.2/24 dev eth0\naddr add 2001:db8::2/64 dev eth0 nodad\n"
          "route add default via 192.0.2.1\nroute add default via 2001:db8::1\n"
          "route add 127.0.0.0/8 via 192.0.2.1\n");
    run(Place::Outside, "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet");

    std::string sysctls = "echo 1 > /proc/sys/net/ipv4/ip_forward\necho 1 > /proc/sys/net/ipv6/conf/all/forwarding\n";
    for (const auto net : kNets) {
        sysctls += "echo 1 > /proc/sys/net/ipv4/conf/" + bridge(net) + "/route_localnet\n";
    }
    for (const char* family : {"iptables", "ip6tables"}) {
        const auto file = std::string("/proc/sys/net/bridge/bridge-nf-call-") + family;
        sysctls += "[ ! -e " + file + " ] || echo " + (bridgeNetfilter ? "1" : "0") + " > " + file + "\n";
    }
    run(Place::Host, sysctls);
}

std::optional<IpAddress> Lab::exchange(const Probe& probe, std::chrono::milliseconds patience, bool oneWay) {
    const auto family = probe.to.family();
    const int domain = family == IpFamily::V4 ? AF_INET : AF_INET6;
    const int type = (probe.protocol == kTcp   ? SOCK_STREAM
                      : probe.protocol == kUdp ? SOCK_DGRAM
                                               : SOCK_RAW) |
                     SOCK_NONBLOCK | SOCK_CLOEXEC;
    UniqueFd server;
    UniqueFd client;
    const int yes = 1;
    inside(probe.server, [&] {
        server.reset(::socket(domain, type, probe.protocol));
        require(static_cast<bool>(server), "socket");
        ::setsockopt(server.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        auto own = socketAddress(probe.listen.value_or(IpAddress::any(family)),
                                 probe.protocol == kSctp ? 0 : probe.serverPort);
        require(::bind(server.get(), own.get(), own.size) == 0, "bind server");
        if (probe.protocol == kTcp) require(::listen(server.get(), 8) == 0, "listen");
    });
    auto to = socketAddress(probe.to, probe.port);
    inside(probe.from, [&] {
        client.reset(::socket(domain, type, probe.protocol));
        require(static_cast<bool>(client), "socket");
        ::setsockopt(client.get(), SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
        if (!probe.to.isV4()) reinterpret_cast<sockaddr_in6&>(to.storage).sin6_scope_id = ::if_nametoindex("eth0");
        if (!probe.bind) return;
        ::setsockopt(client.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        auto own = socketAddress(*probe.bind, probe.bindPort);
        require(::bind(client.get(), own.get(), own.size) == 0, "bind client");
    });
    const auto deadline = std::chrono::steady_clock::now() + patience;
    if (probe.protocol == kTcp) return exchangeTcp(client.get(), server.get(), to, deadline);
    if (probe.protocol == kUdp) return exchangeUdp(client.get(), server.get(), to, deadline, oneWay);
    return exchangeSctp(client.get(), server.get(), probe, deadline, oneWay);
}

bool Lab::ping(Place from, const IpAddress& to) {
    const auto command = "ping -n -q -c 1 -W 1 " + to.str() + " >/dev/null && echo yes || echo no";
    return run(from, command) == "yes\n";
}

}  // namespace weft::firewall::suite
