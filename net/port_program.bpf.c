// Runs for each frame that comes in by a port of a network's bridge: see port_program.h. Nothing here is newer than
// Linux 5.10.
#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "port_maps.h"

enum { kPass = -1 };

enum { kPayload = ETH_HLEN + sizeof(struct ipv6hdr) };

// RFC 4861, section 4
enum { kRouterSolicitation = 133, kRouterAdvertisement, kNeighbourSolicitation, kNeighbourAdvertisement, kRedirect };
enum { kSourceLinkLayer = 1, kTargetLinkLayer = 2 };
enum { kListenerReport = 131, kListenerDone = 132, kListenerReportV2 = 143 };  // RFC 2710, RFC 3810

// More would be a chain that is made to hide its end.
enum { kMostHeaders = 8, kMostOptions = 8 };

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 16384);
    __type(key, __u32);  // link index
    __type(value, struct PortEntry);
} ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 16384);
    __type(key, __u32);
    __type(value, struct PortDropCounts);
} drops SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 16384);
    __type(key, struct SegmentAddress);
    __type(value, __u32);  // link index
} owners SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 1);  // set at load
    __type(key, struct SegmentMac);
    __type(value, __u32);  // link index
} macs SEC(".maps");

// The kernel takes a link out of it that goes, so that nothing is sent where nothing is.
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
    __uint(max_entries, 16384);
    __type(key, __u32);
    __type(value, __u32);
} links SEC(".maps");

// Frames in the present window of some 1.07 s. Two processors at once may count one too few.
enum { kWindowBits = 30 };  // of nanoseconds
struct floods {
    __u64 window;
    __u64 frames;
};
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 16384);
    __type(key, __u32);  // link index
    __type(value, struct floods);
} flooded SEC(".maps");

// What a check has to know. `link` is the port's.
struct sender {
    const struct PortEntry* port;
    __u32 link;
};

static int isMac(const void* mac, const struct PortEntry* port) {
    const __u16* a = mac;
    const __u16* b = (const void*)port->mac;
    return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

static int isNobodyElses(const struct sender* sender, __u32 a, __u32 b, __u32 c, __u32 d) {
    if ((sender->port->flags & kPortAnyAddress) == 0) return 0;
    const struct SegmentAddress key = {sender->port->segment, {a, b, c, d}};
    const __u32* owner = bpf_map_lookup_elem(&owners, &key);
    return owner == 0 || *owner == sender->link;
}

// May the port use it? 0.0.0.0 is another matter.
static int mayHaveV4(const struct sender* sender, __u32 address) {
    if (address == 0) return 0;
    if (address == sender->port->v4) return 1;
    if ((address & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000)) return 1;  // 169.254/16
    return isNobodyElses(sender, 0, 0, bpf_htonl(0xffff), address);
}

static int isUnspecified(const __u32* address) {
    return (address[0] | address[1] | address[2] | address[3]) == 0;
}

static int mayHaveV6(const struct sender* sender, const __u32* address) {
    const __u32* own = sender->port->v6;
    if (isUnspecified(address)) return 0;
    if (address[0] == own[0] && address[1] == own[1] && address[2] == own[2] && address[3] == own[3]) return 1;
    if ((address[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000)) return 1;  // fe80::/10
    return isNobodyElses(sender, address[0], address[1], address[2], address[3]);
}

// <linux/if_arp.h> leaves out the part for Ethernet.
enum { kEthernet = 1, kArpRequest = 1 };
struct arp {
    __be16 hardware;
    __be16 protocol;
    __u8 hardwareLength;
    __u8 protocolLength;
    __be16 operation;
    __u8 senderMac[ETH_ALEN];
    __u8 senderAddress[4];
    __u8 targetMac[ETH_ALEN];
    __u8 targetAddress[4];
} __attribute__((packed));

static int checkArp(struct __sk_buff* frame, const struct sender* sender) {
    struct arp arp;
    __u32 address;
    if (bpf_skb_load_bytes(frame, ETH_HLEN, &arp, sizeof arp) != 0) return kDropMalformed;
    if (arp.hardware != bpf_htons(kEthernet) || arp.protocol != bpf_htons(ETH_P_IP) || arp.hardwareLength != ETH_ALEN ||
        arp.protocolLength != sizeof address) {
        return kDropArp;
    }
    if (!isMac(arp.senderMac, sender->port)) return kDropArp;
    __builtin_memcpy(&address, arp.senderAddress, sizeof address);
    // A probe: the address is to be taken (RFC 5227).
    if (address == 0 && arp.operation == bpf_htons(kArpRequest)) return kPass;
    return mayHaveV4(sender, address) ? kPass : kDropArp;
}

static int checkIpv4(struct __sk_buff* frame, const struct sender* sender) {
    enum { kEnd = ETH_HLEN + sizeof(struct iphdr) };
    if ((void*)(long)frame->data + kEnd > (void*)(long)frame->data_end && bpf_skb_pull_data(frame, kEnd) != 0)
        return kDropMalformed;
    const struct iphdr* ip = (void*)(long)frame->data + ETH_HLEN;
    if ((void*)(ip + 1) > (void*)(long)frame->data_end) return kDropMalformed;
    if (mayHaveV4(sender, ip->saddr)) return kPass;
    if (ip->saddr != 0) return kDropIpv4;
    // Who has no address yet asks for one, and joins groups.
    if (ip->protocol == IPPROTO_IGMP) return kPass;
    if (ip->protocol != IPPROTO_UDP || (ip->frag_off & bpf_htons(0x1fff)) != 0) return kDropIpv4;
    __u16 port;
    if (bpf_skb_load_bytes(frame, ETH_HLEN + ip->ihl * 4 + 2, &port, sizeof port) != 0) return kDropMalformed;
    return port == bpf_htons(67) ? kPass : kDropIpv4;
}

// Of a neighbour discovery message, from `offset` to `end`.
static int checkOptions(struct __sk_buff* frame, const struct sender* sender, __u32 offset, __u32 end) {
    for (int i = 0; i < kMostOptions; ++i) {
        struct {
            __u8 type;
            __u8 length;
        } option;
        __u16 mac[ETH_ALEN / 2];
        if (offset >= end) return kPass;
        if (bpf_skb_load_bytes(frame, offset, &option, sizeof option) != 0 || option.length == 0) return kDropMalformed;
        if (option.type == kSourceLinkLayer || option.type == kTargetLinkLayer) {
            if (bpf_skb_load_bytes(frame, offset + sizeof option, mac, sizeof mac) != 0) return kDropMalformed;
            if (!isMac(mac, sender->port)) return kDropNeighbour;
        }
        offset += option.length * 8;
    }
    return offset >= end ? kPass : kDropMalformed;
}

// An IPv6 packet as far as its headers are known.
struct chain {
    __u32 offset;      // of the header that comes now
    __u32 end;         // of the packet
    __u8 next;         // kind of that header
    __u8 fragment;     // it is one
    __u8 unspecified;  // it has no source address
};

static int checkIcmp(struct __sk_buff* frame, const struct sender* sender, const struct chain* chain) {
    __u8 type;
    if (bpf_skb_load_bytes(frame, chain->offset, &type, sizeof type) != 0) return kDropMalformed;
    if (type == kRouterAdvertisement || type == kRedirect) return kDropRouter;
    const int isNeighbours = type == kNeighbourSolicitation || type == kNeighbourAdvertisement;
    if (!isNeighbours && type != kRouterSolicitation) {
        if (!chain->unspecified) return kPass;
        return type == kListenerReport || type == kListenerDone || type == kListenerReportV2 ? kPass : kDropIpv6;
    }
    if (chain->fragment) return kDropNeighbour;  // RFC 6980
    __u32 options = chain->offset + sizeof(struct icmp6hdr);
    if (isNeighbours) {
        __u32 target[4];
        if (bpf_skb_load_bytes(frame, options, target, sizeof target) != 0) return kDropMalformed;
        // Who advertises an address, or asks without one whether it is free, is about to have it.
        if ((type == kNeighbourAdvertisement || chain->unspecified) && !mayHaveV6(sender, target)) {
            return kDropNeighbour;
        }
        options += sizeof target;
    }
    return checkOptions(frame, sender, options, chain->end);
}

// Extension headers hide nothing: RFC 8200, section 4.
static int checkChain(struct __sk_buff* frame, const struct sender* sender, struct chain* chain) {
    for (int i = 0; i < kMostHeaders; ++i) {
        struct {
            __u8 next;
            __u8 length;
            __be16 fragment;
        } header;
        if (chain->next == IPPROTO_ICMPV6) return checkIcmp(frame, sender, chain);
        if (chain->next != IPPROTO_HOPOPTS && chain->next != IPPROTO_ROUTING && chain->next != IPPROTO_DSTOPTS &&
            chain->next != IPPROTO_FRAGMENT && chain->next != IPPROTO_AH && chain->next != IPPROTO_MH) {
            return chain->unspecified ? kDropIpv6 : kPass;
        }
        if (bpf_skb_load_bytes(frame, chain->offset, &header, sizeof header) != 0) return kDropMalformed;
        if (chain->next == IPPROTO_FRAGMENT) {
            // The first has all headers (RFC 7112), and nothing comes of the others without it.
            if ((header.fragment & bpf_htons(0xfff8)) != 0) return chain->unspecified ? kDropIpv6 : kPass;
            chain->fragment = 1;
            chain->offset += 8;
        } else if (chain->next == IPPROTO_AH) {
            chain->offset += (header.length + 2) * 4;
        } else {
            chain->offset += (header.length + 1) * 8;
        }
        chain->next = header.next;
    }
    return kDropMalformed;
}

static int checkIpv6(struct __sk_buff* frame, const struct sender* sender) {
    if ((void*)(long)frame->data + kPayload > (void*)(long)frame->data_end && bpf_skb_pull_data(frame, kPayload) != 0)
        return kDropMalformed;
    const struct ipv6hdr* ip = (void*)(long)frame->data + ETH_HLEN;
    if ((void*)(ip + 1) > (void*)(long)frame->data_end) return kDropMalformed;
    const int unspecified = isUnspecified(ip->saddr.in6_u.u6_addr32);
    if (!unspecified && !mayHaveV6(sender, ip->saddr.in6_u.u6_addr32)) return kDropIpv6;
    if (ip->nexthdr == IPPROTO_TCP || ip->nexthdr == IPPROTO_UDP) return unspecified ? kDropIpv6 : kPass;
    struct chain chain = {kPayload, kPayload + bpf_ntohs(ip->payload_len), ip->nexthdr, 0, unspecified};
    // Linux takes such a packet as it came, if a hop-by-hop header follows.
    if (ip->payload_len == 0) chain.end = frame->len;
    return checkChain(frame, sender, &chain);
}

// 01-80-C2-00-00-00 to -0F: IEEE 802.1Q, table 8-1.
static int isControl(const __u8* mac) {
    return mac[0] == 0x01 && mac[1] == 0x80 && mac[2] == 0xc2 && mac[3] == 0 && mac[4] == 0 && mac[5] < 16;
}

static int checkSender(struct __sk_buff* frame, const struct sender* sender) {
    const struct ethhdr* ethernet = (void*)(long)frame->data;
    if ((void*)(ethernet + 1) > (void*)(long)frame->data_end) return kDropMalformed;
    if (!isMac(ethernet->h_source, sender->port)) return kDropMac;
    // VLAN 0 is none, only a priority. The kernel has taken the outer tag off; a tag that is left is an inner one.
    if (frame->vlan_present && (frame->vlan_tci & 0x0fff) != 0) return kDropVlan;
    switch (frame->protocol) {
        case bpf_htons(ETH_P_IP):
            return checkIpv4(frame, sender);
        case bpf_htons(ETH_P_IPV6):
            return checkIpv6(frame, sender);
        case bpf_htons(ETH_P_ARP):
            return checkArp(frame, sender);
        case bpf_htons(ETH_P_8021Q):
        case bpf_htons(ETH_P_8021AD):
            return kDropVlan;
        default:
            return isControl(ethernet->h_dest) ? kDropControl : kPass;
    }
}

static int drop(__u32 link, __u32 reason) {
    struct PortDropCounts* counts = bpf_map_lookup_elem(&drops, &link);
    if (counts != 0 && reason < kPortDrops) __sync_fetch_and_add(&counts->by[reason], 1);
    return TC_ACT_SHOT;
}

// ARP, and what is as ARP in IPv6: the bridge answers it.
static int asksForNeighbour(struct __sk_buff* frame) {
    __u8 type;
    if (frame->protocol == bpf_htons(ETH_P_IP)) return 0;
    if (frame->protocol != bpf_htons(ETH_P_IPV6)) return 1;
    if (bpf_skb_load_bytes(frame, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, nexthdr), &type, 1) != 0) return 1;
    if (type != IPPROTO_ICMPV6) return 0;
    if (bpf_skb_load_bytes(frame, kPayload, &type, 1) != 0) return 1;
    return type >= kRouterSolicitation && type <= kRedirect;
}

// Broadcasts and multicasts are copied to every host that has the network, ARP is not.
static int floodsTooMuch(struct __sk_buff* frame, __u32 link) {
    __u8 first;
    if (bpf_skb_load_bytes(frame, 0, &first, sizeof first) != 0 || (first & 1) == 0) return 0;
    if (frame->protocol == bpf_htons(ETH_P_ARP)) return 0;
    const __u64 window = bpf_ktime_get_ns() >> kWindowBits;
    struct floods* floods = bpf_map_lookup_elem(&flooded, &link);
    if (floods == 0 || floods->window != window) {
        const struct floods begun = {window, 1};
        bpf_map_update_elem(&flooded, &link, &begun, BPF_ANY);
        return 0;
    }
    return __sync_fetch_and_add(&floods->frames, 1) >= kFloodsASecond;
}

SEC("tc")
int ingress(struct __sk_buff* frame) {
    const __u32 link = frame->ifindex;
    const struct PortEntry* port = bpf_map_lookup_elem(&ports, &link);
    if (port == 0) return TC_ACT_SHOT;  // its container is gone
    if (port->flags & kPortChecked) {
        const struct sender sender = {port, link};
        const int reason = checkSender(frame, &sender);
        if (reason != kPass) return drop(link, reason);
    }
    if ((port->flags & kPortFewFloods) && floodsTooMuch(frame, link)) return drop(link, kDropFlood);
    if ((port->flags & kPortFast) == 0) return TC_ACT_UNSPEC;

    const struct ethhdr* ethernet = (void*)(long)frame->data;
    if ((void*)(ethernet + 1) > (void*)(long)frame->data_end) return TC_ACT_UNSPEC;
    struct SegmentMac key = {port->segment, {0}, {0}};
    __builtin_memcpy(key.mac, ethernet->h_dest, ETH_ALEN);
    const __u32* target = bpf_map_lookup_elem(&macs, &key);
    // Split horizon: what came out of the tunnel does not go into it.
    if (target == 0 || *target == link || asksForNeighbour(frame)) return TC_ACT_UNSPEC;
    if (bpf_map_lookup_elem(&links, target) == 0) return TC_ACT_UNSPEC;
    return bpf_redirect(*target, 0);
}

char program_license[] SEC("license") = "GPL";
