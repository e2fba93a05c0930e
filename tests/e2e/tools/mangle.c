// A NIC that is to finish the checksums of TCP and UDP in VXLAN frames, and to cut large segments there, and does not:
// what reaches it unfinished is lost, as the receiver would drop it. For the ingress of the link's other end, where
// packets arrive as they were given to the NIC. mangle.sh attaches it.
#include <linux/bpf.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

static long (*load)(const void *, u32, void *, u32) = (void *)BPF_FUNC_skb_load_bytes;
static long (*sum)(const void *, u32, const void *, u32, u32) = (void *)BPF_FUNC_csum_diff;

#define SWAP(x) __builtin_bswap16(x)
enum { PASS = 0, DROP = 2, IP4 = 0x0800, IP6 = 0x86dd, TCP = 6, UDP = 17, VXLAN_PORT = 4789 };

// The header of the IP packet behind the Ethernet header at `at`: what the pseudo header is made of.
struct packet {
    u32 addresses[8];
    u32 partial;  // what the checksum field holds while the rest is to be done
    u32 payload;  // where it begins
    u8 protocol;
};

static __attribute__((always_inline)) int parse(struct __sk_buff *skb, u32 at, struct packet *p)
{
    u16 type, length;
    u32 total;
    if (load(skb, at + 12, &type, 2)) return 0;
    at += 14;
    if (SWAP(type) == IP4) {
        if (load(skb, at + 9, &p->protocol, 1) || load(skb, at + 2, &length, 2) || load(skb, at + 12, p->addresses, 8)) return 0;
        p->payload = at + 20;
        total = sum(0, 0, p->addresses, 8, 0) + (SWAP((u16)(SWAP(length) - 20)));
    } else if (SWAP(type) == IP6) {
        if (load(skb, at + 6, &p->protocol, 1) || load(skb, at + 4, &length, 2) || load(skb, at + 8, p->addresses, 32)) return 0;
        p->payload = at + 40;
        total = sum(0, 0, p->addresses, 32, 0) + length;
    } else {
        return 0;
    }
    total += (u32)p->protocol << 8;
    total = (total & 0xffff) + (total >> 16);
    p->partial = (total & 0xffff) + (total >> 16);
    return 1;
}

__attribute__((section("classifier"))) int mangle(struct __sk_buff *skb)
{
    struct packet outer, inner;
    u16 port, checksum;
    if (!parse(skb, 0, &outer) || outer.protocol != UDP) return PASS;
    if (load(skb, outer.payload + 2, &port, 2) || SWAP(port) != VXLAN_PORT) return PASS;
    if (!parse(skb, outer.payload + 16, &inner) || (inner.protocol != TCP && inner.protocol != UDP)) return PASS;
    if (skb->gso_segs > 1) return DROP;
    if (load(skb, inner.payload + (inner.protocol == TCP ? 16 : 6), &checksum, 2)) return PASS;
    return checksum == inner.partial ? DROP : PASS;
}

char kLicense[] __attribute__((section("license"))) = "GPL";
