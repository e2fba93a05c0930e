// Runs for each frame that comes in by a port of a network's bridge: see fast_path.h.
#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { kFirstNeighbourMessage = 133, kLastNeighbourMessage = 137 };  // RFC 4861, section 4

struct mac {
    __u8 bytes[ETH_ALEN];
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 16384);
    __type(key, struct mac);
    __type(value, __u32);  // link index
} ports SEC(".maps");

// The kernel takes a link out of it that goes, so that nothing is sent where nothing is.
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
    __uint(max_entries, 1024);  // ports of a bridge
    __type(key, __u32);
    __type(value, __u32);
} links SEC(".maps");

// ARP, and what is as ARP in IPv6: the bridge answers it.
static int asksForNeighbour(struct __sk_buff* frame) {
    __u8 type;
    if (frame->protocol == bpf_htons(ETH_P_IP)) return 0;
    if (frame->protocol != bpf_htons(ETH_P_IPV6)) return 1;
    if (bpf_skb_load_bytes(frame, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, nexthdr), &type, 1) != 0) return 1;
    if (type != IPPROTO_ICMPV6) return 0;
    if (bpf_skb_load_bytes(frame, ETH_HLEN + sizeof(struct ipv6hdr), &type, 1) != 0) return 1;
    return type >= kFirstNeighbourMessage && type <= kLastNeighbourMessage;
}

SEC("tc")
int forward(struct __sk_buff* frame) {
    const struct ethhdr* ethernet = (void*)(long)frame->data;
    if ((void*)(ethernet + 1) > (void*)(long)frame->data_end) return TC_ACT_UNSPEC;
    struct mac destination;
    __builtin_memcpy(&destination, ethernet->h_dest, ETH_ALEN);
    const __u32* port = bpf_map_lookup_elem(&ports, &destination);
    // Split horizon: what came out of the tunnel does not go into it.
    if (port == 0 || *port == frame->ifindex || asksForNeighbour(frame)) return TC_ACT_UNSPEC;
    if (bpf_map_lookup_elem(&links, port) == 0) return TC_ACT_UNSPEC;
    return bpf_redirect(*port, 0);
}

char program_license[] SEC("license") = "GPL";
