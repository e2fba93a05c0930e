#include "firewall/iptc_rule.h"

#include <arpa/inet.h>
extern "C" {
#include <libiptc/libip6tc.h>  // does not say so itself
}
#include <libiptc/libiptc.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/xt_CT.h>
#include <linux/netfilter/xt_addrtype.h>
#include <linux/netfilter/xt_comment.h>
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_mark.h>
#include <linux/netfilter/xt_owner.h>
#include <linux/netfilter/xt_recent.h>
#define _Bool bool  // xt_sctp.h has C functions
#include <linux/netfilter/xt_sctp.h>
#undef _Bool
#undef bytes
#include <linux/netfilter/xt_tcpudp.h>
#include <netinet/in.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/protocol.h"

namespace weft::firewall::iptc {

namespace {

// The two families' entries differ in little more than their names.
struct V4 {
    using Entry = ipt_entry;
    static auto& header(Entry& entry) { return entry.ip; }
    static const auto& header(const Entry& entry) { return entry.ip; }
    static void setProtocol(Entry& entry, uint8_t protocol) { entry.ip.proto = protocol; }
};
struct V6 {
    using Entry = ip6t_entry;
    static auto& header(Entry& entry) { return entry.ipv6; }
    static const auto& header(const Entry& entry) { return entry.ipv6; }
    static void setProtocol(Entry& entry, uint8_t protocol) {
        entry.ipv6.proto = protocol;
        entry.ipv6.flags |= IP6T_F_PROTO;
    }
};
static_assert(IPT_INV_VIA_IN == IP6T_INV_VIA_IN && IPT_INV_VIA_OUT == IP6T_INV_VIA_OUT);
static_assert(IPT_INV_SRCIP == IP6T_INV_SRCIP && IPT_INV_DSTIP == IP6T_INV_DSTIP);

void setAddress(void* address, void* mask, const IpPrefix& prefix) {
    const IpAddress network = prefix.network().address();
    const unsigned bits = addressBits(prefix.family());
    const Uint128 ones = prefix.length() == 0 ? 0 : ~Uint128{0} << (bits - prefix.length());
    std::memcpy(address, network.bytes().data(), network.size());
    std::memcpy(mask, IpAddress(prefix.family(), ones).bytes().data(), network.size());
}

void setLink(char* name, unsigned char* mask, const std::string& link, bool isPrefix = false) {
    assert(link.size() < IFNAMSIZ);
    std::memcpy(name, link.c_str(), link.size() + 1);
    std::memset(mask, 0xff, link.size() + (isPrefix ? 0 : 1));  // the NUL too: the whole name
}

// Appends `Head` (a match's or target's header) and its info; returns the header, good until the next append.
template <typename Head, typename Info>
Head& append(std::vector<uint8_t>& entry, const char* name, uint8_t revision, const Info& info) {
    const size_t at = entry.size();
    const size_t size = XT_ALIGN(sizeof(Head) + sizeof(Info));
    entry.resize(at + size);
    std::memcpy(entry.data() + at + sizeof(Head), &info, sizeof(Info));
    auto& head = *reinterpret_cast<Head*>(entry.data() + at);
    std::strncpy(head.u.user.name, name, sizeof head.u.user.name - 1);
    head.u.user.revision = revision;
    return head;
}

template <typename Info>
void addMatch(std::vector<uint8_t>& entry, const char* name, uint8_t revision, const Info& info) {
    const size_t at = entry.size();
    auto& match = append<xt_entry_match>(entry, name, revision, info);
    match.u.user.match_size = static_cast<uint16_t>(entry.size() - at);
}

template <typename Info>
void addTarget(std::vector<uint8_t>& entry, const char* name, uint8_t revision, const Info& info) {
    const size_t at = entry.size();
    auto& target = append<xt_entry_target>(entry, name, revision, info);
    target.u.user.target_size = static_cast<uint16_t>(entry.size() - at);
}

// A struct without a stray byte in its padding: rules are compared byte by byte. To be passed on by reference only: a
// copy need not have the padding.
template <typename Info>
struct Zeroed : Info {
    Zeroed() { std::memset(static_cast<Info*>(this), 0, sizeof(Info)); }
};

void addPortMatch(const Rule& rule, std::vector<uint8_t>& entry) {
    const uint16_t port = rule.destinationPort;
    if (rule.protocol == IPPROTO_TCP) {
        Zeroed<xt_tcp> info;
        info.spts[1] = 0xffff;
        info.dpts[0] = info.dpts[1] = port;
        addMatch(entry, "tcp", 0, info);
    } else if (rule.protocol == IPPROTO_UDP) {
        Zeroed<xt_udp> info;
        info.spts[1] = 0xffff;
        info.dpts[0] = info.dpts[1] = port;
        addMatch(entry, "udp", 0, info);
    } else {
        assert(rule.protocol == IPPROTO_SCTP);
        Zeroed<xt_sctp_info> info;
        info.dpts[0] = info.dpts[1] = port;
        info.flags = XT_SCTP_DEST_PORTS;
        for (auto& flag : info.flag_info) flag.chunktype = 0xff;  // none, as iptables writes it
        addMatch(entry, "sctp", 0, info);
    }
}

uint16_t stateMask(CtState state) {
    if (state == CtState::Dnat) return XT_CONNTRACK_STATE_DNAT;
    return XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED) | XT_CONNTRACK_STATE_BIT(IP_CT_RELATED);
}

void addMatches(const Rule& rule, std::vector<uint8_t>& entry) {
    if (rule.destinationPort != 0) addPortMatch(rule, entry);
    if (rule.icmpv6Type) {
        Zeroed<ip6t_icmp> info;
        info.type = *rule.icmpv6Type;
        info.code[1] = 0xff;
        addMatch(entry, "icmp6", 0, info);
    }
    if (rule.ctState) {
        Zeroed<xt_conntrack_mtinfo3> info;
        info.match_flags = XT_CONNTRACK_STATE;
        if (rule.ctState->inverted) info.invert_flags = XT_CONNTRACK_STATE;
        info.state_mask = stateMask(rule.ctState->value);
        addMatch(entry, "conntrack", 3, info);
    }
    if (rule.toLocal) {
        Zeroed<xt_addrtype_info_v1> info;
        info.dest = XT_ADDRTYPE_LOCAL;
        if (!*rule.toLocal) info.flags = XT_ADDRTYPE_INVERT_DEST;
        addMatch(entry, "addrtype", 1, info);
    }
    if (!rule.recently.empty()) {
        Zeroed<xt_recent_mtinfo_v1> info;  // a mask of zeros: every packet's address is the any address
        info.seconds = 1;
        info.check_set = XT_RECENT_CHECK;
        std::strncpy(info.name, rule.recently.c_str(), sizeof info.name - 1);
        addMatch(entry, "recent", 1, info);
    }
    if (rule.fromSocket) {
        Zeroed<xt_owner_match_info> info;
        info.match = XT_OWNER_SOCKET;
        addMatch(entry, "owner", 1, info);
    }
    if (rule.unmarked != 0) {
        Zeroed<xt_mark_mtinfo1> info;
        info.mask = rule.unmarked;
        addMatch(entry, "mark", 1, info);
    }
    // Last, so that only packets that match the rest pay for it.
    Zeroed<xt_comment_info> info;
    std::strncpy(info.comment, rule.comment.c_str(), sizeof info.comment - 1);
    addMatch(entry, "comment", 0, info);
}

template <typename Range>
Range natRange(const Rule& rule) {
    Zeroed<Range> range;
    range.flags = rule.target == "DNAT" || rule.target == "SNAT" ? NF_NAT_RANGE_MAP_IPS : 0;
    if (rule.natPort != 0) range.flags |= NF_NAT_RANGE_PROTO_SPECIFIED;
    const auto address = rule.natAddress.bytes();
    if constexpr (std::is_same_v<Range, nf_nat_ipv4_range>) {
        std::memcpy(&range.min_ip, address.data(), sizeof range.min_ip);
        range.max_ip = range.min_ip;
        range.min.all = range.max.all = htons(rule.natPort);
    } else {
        std::memcpy(&range.min_addr, address.data(), address.size());
        range.max_addr = range.min_addr;
        range.min_proto.all = range.max_proto.all = htons(rule.natPort);
    }
    return range;
}

// Revisions are those that iptables itself writes (1.8.9), so that people can list, save and restore our rules.
void addNatTarget(const Rule& rule, IpFamily family, std::vector<uint8_t>& entry) {
    if (rule.target == "DNAT") {
        addTarget(entry, "DNAT", 2, natRange<nf_nat_range2>(rule));
    } else if (family == IpFamily::V4) {
        Zeroed<nf_nat_ipv4_multi_range_compat> info;
        info.rangesize = 1;
        info.range[0] = natRange<nf_nat_ipv4_range>(rule);
        addTarget(entry, rule.target.c_str(), 0, info);
    } else {
        addTarget(entry, rule.target.c_str(), rule.target == "SNAT" ? 1 : 0, natRange<nf_nat_range>(rule));
    }
}

void addMarkTarget(const Rule& rule, std::vector<uint8_t>& entry) {
    Zeroed<xt_mark_tginfo2> info;
    info.mark = info.mask = rule.mark;
    addTarget(entry, "MARK", 2, info);
}

bool isNat(const std::string& target) {
    return target == "DNAT" || target == "SNAT" || target == "MASQUERADE" || target == "REDIRECT";
}

template <typename F>
void encodeAs(const Rule& rule, IpFamily family, std::vector<uint8_t>& bytes) {
    bytes.assign(sizeof(typename F::Entry), 0);
    auto& entry = *reinterpret_cast<typename F::Entry*>(bytes.data());
    auto& ip = F::header(entry);
    if (rule.in) {
        setLink(ip.iniface, ip.iniface_mask, rule.in->value);
        if (rule.in->inverted) ip.invflags |= IPT_INV_VIA_IN;
    }
    if (rule.out) {
        setLink(ip.outiface, ip.outiface_mask, rule.out->value, rule.outIsPrefix);
        if (rule.out->inverted) ip.invflags |= IPT_INV_VIA_OUT;
    }
    if (rule.source) {
        setAddress(&ip.src, &ip.smsk, rule.source->value);
        if (rule.source->inverted) ip.invflags |= IPT_INV_SRCIP;
    }
    if (rule.destination) {
        setAddress(&ip.dst, &ip.dmsk, rule.destination->value);
        if (rule.destination->inverted) ip.invflags |= IPT_INV_DSTIP;
    }
    if (rule.protocol != 0) F::setProtocol(entry, rule.protocol);

    addMatches(rule, bytes);
    const auto targetOffset = static_cast<uint16_t>(bytes.size());
    if (isNat(rule.target)) {
        addNatTarget(rule, family, bytes);
    } else if (rule.target == "CT") {
        Zeroed<xt_ct_target_info_v1> info;
        info.flags = XT_CT_ZONE_DIR_ORIG;
        info.zone = rule.zone;
        addTarget(bytes, "CT", 2, info);
    } else if (rule.target == "MARK") {
        addMarkTarget(rule, bytes);
    } else {
        addTarget(bytes, rule.target.c_str(), 0, int{0});  // a standard target: libiptc fills in the verdict
    }
    auto& whole = *reinterpret_cast<typename F::Entry*>(bytes.data());  // the buffer may have moved
    whole.target_offset = targetOffset;
    whole.next_offset = static_cast<uint16_t>(bytes.size());
}

// Names are compared as text: behind their NUL the kernel leaves whatever it likes.
template <typename F>
bool sameAs(const typename F::Entry& left, const char* target, const typename F::Entry& right) {
    if (std::memcmp(&F::header(left), &F::header(right), sizeof F::header(left)) != 0) return false;
    if (left.target_offset != right.target_offset || left.next_offset != right.next_offset) return false;

    const auto* a = reinterpret_cast<const uint8_t*>(&left);
    const auto* b = reinterpret_cast<const uint8_t*>(&right);
    for (size_t at = sizeof left; at < left.target_offset;) {
        const auto& x = *reinterpret_cast<const xt_entry_match*>(a + at);
        const auto& y = *reinterpret_cast<const xt_entry_match*>(b + at);
        const size_t size = x.u.match_size;
        if (size != y.u.match_size || x.u.user.revision != y.u.user.revision) return false;
        if (std::strcmp(x.u.user.name, y.u.user.name) != 0) return false;
        if (std::memcmp(x.data, y.data, size - sizeof x) != 0) return false;
        at += size;
    }

    const auto& x = *reinterpret_cast<const xt_entry_target*>(a + left.target_offset);
    const auto& y = *reinterpret_cast<const xt_entry_target*>(b + left.target_offset);
    if (std::strcmp(target, y.u.user.name) != 0) return false;
    if (!isNat(y.u.user.name) && std::strcmp(target, "MARK") != 0) return true;
    return x.u.user.revision == y.u.user.revision && x.u.target_size == y.u.target_size &&
           std::memcmp(x.data, y.data, x.u.target_size - sizeof x) == 0;
}

}  // namespace

void encode(const Rule& rule, IpFamily family, std::vector<uint8_t>& entry) {
    if (family == IpFamily::V4) {
        encodeAs<V4>(rule, family, entry);
    } else {
        encodeAs<V6>(rule, family, entry);
    }
}

bool sameRule(IpFamily family, const void* entry, const char* target, const std::vector<uint8_t>& encoded) {
    if (family == IpFamily::V4) {
        return sameAs<V4>(*static_cast<const ipt_entry*>(entry), target,
                          *reinterpret_cast<const ipt_entry*>(encoded.data()));
    }
    return sameAs<V6>(*static_cast<const ip6t_entry*>(entry), target,
                      *reinterpret_cast<const ip6t_entry*>(encoded.data()));
}

std::string Rule::str() const {
    std::string text;
    const auto add = [&](const char* flag, const std::string& value, bool inverted = false) {
        if (!text.empty()) text += ' ';
        text += (inverted ? std::string("! ") : std::string()) + flag + ' ' + value;
    };
    if (source) add("-s", source->value.str(), source->inverted);
    if (destination) add("-d", destination->value.str(), destination->inverted);
    if (in) add("-i", in->value, in->inverted);
    if (out) add("-o", out->value + (outIsPrefix ? "+" : ""), out->inverted);
    if (protocol != 0) add("-p", protocolName(protocol));
    if (destinationPort != 0) add("--dport", std::to_string(destinationPort));
    if (icmpv6Type) add("--icmpv6-type", std::to_string(*icmpv6Type));
    if (ctState) add("--ctstate", ctState->value == CtState::Dnat ? "DNAT" : "RELATED,ESTABLISHED", ctState->inverted);
    if (toLocal) add("--dst-type", "LOCAL", !*toLocal);
    if (!recently.empty()) add("--rcheck --seconds 1 --name", recently);
    if (fromSocket) add("--socket-exists", "");
    if (unmarked != 0) add("--mark", "0/" + std::to_string(unmarked));
    add("-j", target);
    if (zone != 0) add("--zone-orig", std::to_string(zone));
    if (target == "MARK") {
        add("--or-mark", std::to_string(mark));
    } else if (target == "REDIRECT") {
        add("--to-ports", std::to_string(natPort));
    } else if (natPort != 0) {
        add("--to-destination",
            (natAddress.isV6() ? "[" + natAddress.str() + "]" : natAddress.str()) + ":" + std::to_string(natPort));
    } else if (target == "SNAT") {
        add("--to-source", natAddress.str());
    }
    add("#", comment);
    return text;
}

}  // namespace weft::firewall::iptc
