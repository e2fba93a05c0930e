#include "net/announce.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace weft::net {

namespace {

using Frame = std::vector<uint8_t>;

void append(Frame& frame, const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    frame.insert(frame.end(), bytes, bytes + size);
}
void append16(Frame& frame, uint16_t value) {
    frame.push_back(static_cast<uint8_t>(value >> 8));
    frame.push_back(static_cast<uint8_t>(value));
}

// An ARP request for one's own address (RFC 5227 section 3: preferred over the reply form).
Frame arpAnnouncement(const IpAddress& address, const MacAddress& mac) {
    constexpr uint8_t kBroadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    constexpr uint8_t kNobody[6] = {};
    Frame frame;
    append(frame, kBroadcast, 6);
    append(frame, mac.bytes().data(), 6);
    append16(frame, ETH_P_ARP);
    append16(frame, ARPHRD_ETHER);
    append16(frame, ETH_P_IP);
    frame.push_back(6);
    frame.push_back(4);
    append16(frame, ARPOP_REQUEST);
    append(frame, mac.bytes().data(), 6);
    append(frame, address.bytes().data(), 4);
    append(frame, kNobody, 6);
    append(frame, address.bytes().data(), 4);
    return frame;
}

uint16_t internetChecksum(const Frame& bytes) {
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < bytes.size(); i += 2) sum += static_cast<uint32_t>(bytes[i] << 8 | bytes[i + 1]);
    while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(~sum);
}

// Neighbour advertisement to all nodes with the override flag (RFC 4861 section 7.2.6).
Frame neighbourAdvertisement(const IpAddress& address, const MacAddress& mac) {
    constexpr uint8_t kAllNodes[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    constexpr uint8_t kAllNodesMac[6] = {0x33, 0x33, 0, 0, 0, 1};
    constexpr uint8_t kOverride = 0x20;
    constexpr uint16_t kLength = 32;  // 24 and the link-layer address option

    Frame body;
    body.push_back(ND_NEIGHBOR_ADVERT);
    body.push_back(0);
    append16(body, 0);  // checksum
    body.insert(body.end(), {kOverride, 0, 0, 0});
    append(body, address.bytes().data(), 16);
    body.push_back(ND_OPT_TARGET_LINKADDR);
    body.push_back(1);  // in units of 8 bytes
    append(body, mac.bytes().data(), 6);

    Frame pseudo;
    append(pseudo, address.bytes().data(), 16);
    append(pseudo, kAllNodes, 16);
    append16(pseudo, 0);
    append16(pseudo, kLength);
    append16(pseudo, 0);
    append16(pseudo, IPPROTO_ICMPV6);
    append(pseudo, body.data(), body.size());
    const uint16_t checksum = internetChecksum(pseudo);
    body[2] = static_cast<uint8_t>(checksum >> 8);
    body[3] = static_cast<uint8_t>(checksum);

    Frame frame;
    append(frame, kAllNodesMac, 6);
    append(frame, mac.bytes().data(), 6);
    append16(frame, ETH_P_IPV6);
    frame.insert(frame.end(), {0x60, 0, 0, 0});
    append16(frame, kLength);
    frame.push_back(IPPROTO_ICMPV6);
    frame.push_back(255);  // receivers drop any other hop limit
    append(frame, address.bytes().data(), 16);
    append(frame, kAllNodes, 16);
    append(frame, body.data(), body.size());
    return frame;
}

}  // namespace

Result<void> announceAddress(const NetNs& ns, LinkIndex link, const IpAddress& address, const MacAddress& mac) {
    const Frame frame = address.isV4() ? arpAnnouncement(address, mac) : neighbourAdvertisement(address, mac);
    // Protocol 0: it sends only, and no packet is queued on it.
    WEFT_ASSIGN(const UniqueFd socket, socketIn(ns, AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0));
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_ifindex = link;
    to.sll_halen = 6;
    std::memcpy(to.sll_addr, frame.data(), 6);
    if (::sendto(socket.get(), frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0) {
        return errnoError(errno, "announce " + address.str());
    }
    return {};
}

}  // namespace weft::net
