#include "ctl/ping.h"

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/unique_fd.h"
#include "kv/socket_address.h"

namespace weft::ctl {
namespace {

using Time = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPatience{1000};
constexpr size_t kLargestPacket = 9216;

std::chrono::microseconds since(Time::time_point begin) {
    return std::chrono::duration_cast<std::chrono::microseconds>(Time::now() - begin);
}

size_t ipHeader(const IpAddress& host) {
    return host.isV4() ? 20 : 40;
}

uint16_t checksum(const std::vector<uint8_t>& bytes) {
    uint32_t sum = 0;
    for (size_t i = 0; i < bytes.size(); i += 2) {
        sum += static_cast<uint32_t>(bytes[i] << 8) + (i + 1 < bytes.size() ? bytes[i + 1] : 0U);
    }
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(~sum);
}

// Type, code, checksum, identifier, sequence (RFC 792, RFC 4443); the kernel sums ICMPv6 itself.
std::vector<uint8_t> echoRequest(bool v4, uint16_t identifier, uint16_t sequence, size_t size) {
    std::vector<uint8_t> bytes(std::max<size_t>(size, 8));
    bytes[0] = v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST;
    bytes[4] = static_cast<uint8_t>(identifier >> 8);
    bytes[5] = static_cast<uint8_t>(identifier);
    bytes[6] = static_cast<uint8_t>(sequence >> 8);
    bytes[7] = static_cast<uint8_t>(sequence);
    if (v4) {
        const uint16_t sum = checksum(bytes);
        bytes[2] = static_cast<uint8_t>(sum >> 8);
        bytes[3] = static_cast<uint8_t>(sum);
    }
    return bytes;
}

bool isReply(bool v4, const std::vector<uint8_t>& request, const uint8_t* packet, size_t size) {
    size_t at = 0;
    if (v4 && size > 0) at = static_cast<size_t>(packet[0] & 15) * 4;  // raw IPv4 sockets get the header, too
    if (size < at + 8 || packet[at] != (v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY)) return false;
    return std::equal(request.begin() + 4, request.begin() + 8, packet + at + 4);
}

}  // namespace

RoundTrips pingGossip(const kv::Address& host, int count) {
    RoundTrips trips;
    const kv::SocketAddress name(host);
    for (; trips.sent < count; ++trips.sent) {
        const UniqueFd fd(::socket(host.ip.isV4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        const auto begin = Time::now();
        if (::connect(fd.get(), name.get(), name.size()) != 0) {
            if (errno != EINPROGRESS) continue;
            pollfd ready{fd.get(), POLLOUT, 0};
            if (::poll(&ready, 1, static_cast<int>(kPatience.count())) != 1) continue;
            int error = 0;
            socklen_t size = sizeof(error);
            ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
            if (error != 0) continue;
        }
        trips.times.push_back(since(begin));
    }
    return trips;
}

Result<RoundTrips> pingUnderlay(const IpAddress& host, int count, size_t bytes) {
    const bool v4 = host.isV4();
    const UniqueFd fd(
        ::socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6}));
    if (!fd) return errnoError(errno, "socket for ICMP");
    static_assert(IP_PMTUDISC_PROBE == IPV6_PMTUDISC_PROBE);
    const int whole = IP_PMTUDISC_PROBE;
    ::setsockopt(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, &whole,
                 sizeof(whole));
    const kv::SocketAddress name(kv::Address{host, 0});
    if (::connect(fd.get(), name.get(), name.size()) != 0) return errnoError(errno, "route to " + host.str());

    RoundTrips trips;
    std::vector<uint8_t> packet(kLargestPacket + 64);
    for (; trips.sent < count; ++trips.sent) {
        const auto request = echoRequest(v4, static_cast<uint16_t>(::getpid()), static_cast<uint16_t>(trips.sent),
                                         bytes > ipHeader(host) ? bytes - ipHeader(host) : 0);
        const auto begin = Time::now();
        if (::send(fd.get(), request.data(), request.size(), 0) < 0) continue;
        for (auto left = kPatience; left.count() > 0;
             left = kPatience - std::chrono::duration_cast<std::chrono::milliseconds>(since(begin))) {
            pollfd ready{fd.get(), POLLIN, 0};
            if (::poll(&ready, 1, static_cast<int>(left.count())) != 1) break;
            const ssize_t size = ::recv(fd.get(), packet.data(), packet.size(), 0);
            if (size < 0 || !isReply(v4, request, packet.data(), static_cast<size_t>(size))) continue;
            trips.times.push_back(since(begin));
            break;
        }
    }
    return trips;
}

Result<size_t> findMtu(const IpAddress& host) {
    size_t passes = 0;
    size_t fails = kLargestPacket + 1;
    // The usual ones first: a packet that is lost costs the whole patience.
    for (size_t next : {size_t{1500}, size_t{1501}, size_t{0}}) {
        while (fails - passes > 1) {
            const size_t bytes = next != 0 ? next : passes + (fails - passes) / 2;
            if (bytes <= passes || bytes >= fails) break;
            WEFT_ASSIGN(const RoundTrips trips, pingUnderlay(host, 1, bytes));
            (trips.times.empty() ? fails : passes) = bytes;
            if (next != 0) break;
        }
    }
    return passes;
}

}  // namespace weft::ctl
