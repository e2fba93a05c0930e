/* What weftd and its program at the ports share: keys and values of the program's maps. C, for both read it. */
#pragma once

#include <linux/types.h>

enum {
    kPortChecked = 1 << 0,    /* who sends is checked: else only counted among the fast path's ports */
    kPortAnyAddress = 1 << 1, /* with kPortChecked: any address that is nobody else's in `owners` */
    kPortFast = 1 << 2,       /* frames for MACs in `macs` go straight to their port */
    kPortFewFloods = 1 << 3,  /* broadcasts and multicasts beyond kFloodsASecond are dropped */
};

enum { kFloodsASecond = 1000 };

/* Why a frame was dropped; names in port_program.cpp. */
enum PortDrop {
    kDropMac,       /* another's MAC as sender */
    kDropIpv4,      /* another's IPv4 address as source */
    kDropIpv6,      /* another's IPv6 address as source */
    kDropArp,       /* another's MAC or address as sender in ARP */
    kDropNeighbour, /* another's MAC or address in neighbour discovery */
    kDropRouter,    /* router advertisement or redirect */
    kDropVlan,      /* VLAN tag */
    kDropControl,   /* to the group of bridges' own protocols: spanning tree, LLDP, ... */
    kDropMalformed, /* cut off, or more headers than are looked at */
    kDropFlood,     /* too many broadcasts and multicasts */
    kPortDrops
};

struct PortEntry {
    __u32 flags;
    __u32 segment; /* link index of its bridge */
    __u32 v4;      /* network order; 0: none */
    __u32 v6[4];   /* all 0: none */
    __u8 mac[6];
    __u8 padding[2];
};

struct PortDropCounts {
    __u64 by[kPortDrops];
};

struct SegmentMac {
    __u32 segment;
    __u8 mac[6];
    __u8 padding[2];
};

struct SegmentAddress {
    __u32 segment;
    __u32 address[4]; /* IPv4 as ::ffff:a.b.c.d */
};
