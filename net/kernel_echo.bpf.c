// Answers questions that come in by a link: see kernel_echo.h.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { kVersion = 1, kAsk = 1, kAnswer = 2 };

struct key {
    __u64 words[2];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct key);
} secret SEC(".maps");

struct frame {
    __u8 destination[ETH_ALEN];
    __u8 source[ETH_ALEN];
    __be16 protocol;
    __u8 version;
    __u8 kind;
    __u64 number;
    __u64 proof;
} __attribute__((packed));

static __u64 rotate(__u64 word, int by) {
    return word << by | word >> (64 - by);
}

// SipHash-2-4 of a number's eight bytes (Aumasson, Bernstein: SipHash, 2012).
static __always_inline __u64 siphash(const struct key* key, __u64 number) {
    __u64 v0 = key->words[0] ^ 0x736f6d6570736575ULL;
    __u64 v1 = key->words[1] ^ 0x646f72616e646f6dULL;
    __u64 v2 = key->words[0] ^ 0x6c7967656e657261ULL;
    __u64 v3 = key->words[1] ^ 0x7465646279746573ULL;
    const __u64 blocks[2] = {number, 8ULL << 56};
#pragma unroll
    for (int round = 0; round < 8; ++round) {
        if (round == 0) v3 ^= blocks[0];
        if (round == 2) v3 ^= blocks[1];
        if (round == 4) v2 ^= 0xff;
        v0 += v1;
        v1 = rotate(v1, 13) ^ v0;
        v0 = rotate(v0, 32);
        v2 += v3;
        v3 = rotate(v3, 16) ^ v2;
        v0 += v3;
        v3 = rotate(v3, 21) ^ v0;
        v2 += v1;
        v1 = rotate(v1, 17) ^ v2;
        v2 = rotate(v2, 32);
        if (round == 1) v0 ^= blocks[0];
        if (round == 3) v0 ^= blocks[1];
    }
    return v0 ^ v1 ^ v2 ^ v3;
}

SEC("tc")
int echo(struct __sk_buff* packet) {
    struct frame frame;
    const __u32 first = 0;
    if (packet->protocol != bpf_htons(ETH_P_802_EX1)) return TC_ACT_UNSPEC;
    if (bpf_skb_load_bytes(packet, 0, &frame, sizeof frame) != 0) return TC_ACT_UNSPEC;
    if (frame.version != kVersion || frame.kind != kAsk) return TC_ACT_UNSPEC;
    const struct key* key = bpf_map_lookup_elem(&secret, &first);
    if (key == 0) return TC_ACT_UNSPEC;
    __u8 asker[ETH_ALEN];
    __builtin_memcpy(asker, frame.source, ETH_ALEN);
    __builtin_memcpy(frame.source, frame.destination, ETH_ALEN);
    __builtin_memcpy(frame.destination, asker, ETH_ALEN);
    frame.kind = kAnswer;
    frame.proof = siphash(key, frame.number);
    if (bpf_skb_store_bytes(packet, 0, &frame, sizeof frame, 0) != 0) return TC_ACT_UNSPEC;
    return bpf_redirect(packet->ifindex, 0);
}

char program_license[] SEC("license") = "GPL";
