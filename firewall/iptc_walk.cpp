#include "firewall/iptc_walk.h"

extern "C" {
#include <libiptc/libip6tc.h>  // does not say so itself
}
#include <libiptc/libiptc.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/xt_addrtype.h>
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_multiport.h>
#include <linux/netfilter/xt_state.h>
#include <linux/netfilter/xt_tcpudp.h>
#undef bytes
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "base/protocol.h"
#include "firewall/iptc_lock.h"

namespace weft::firewall::iptc {

namespace {

constexpr auto kLockPatience = std::chrono::seconds(4);
constexpr std::array kTables{"raw", "mangle", "filter", "security"};
constexpr std::array<std::string_view, 6> kPassing{"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT"};

Applies matched(bool does) {
    return does ? Applies::Yes : Applies::No;
}

// What the two families' entries have under other names, and the rule's text as far as it is read.
struct Fields {
    std::string in, out;
    const unsigned char* inMask = nullptr;
    const unsigned char* outMask = nullptr;
    IpPrefix source, destination;
    bool maskedOddly = false;        // an address mask that is no prefix
    uint8_t protocol = 0;            // 0: any
    uint8_t inverted = 0;            // IPT_INV_...
    size_t matches = 0, target = 0;  // offsets
};

IpPrefix prefixOf(IpFamily family, const void* address, const void* mask, bool& odd) {
    const auto bits = IpAddress::fromBytes(family, static_cast<const uint8_t*>(mask)).bits();
    uint8_t length = 0;
    while (length < addressBits(family) && (bits >> (addressBits(family) - 1U - length) & 1) != 0) ++length;
    const IpPrefix prefix(IpAddress::fromBytes(family, static_cast<const uint8_t*>(address)), length);
    const Uint128 rest = length == addressBits(family) ? 0 : bits << length;
    odd = odd || (family == IpFamily::V4 ? static_cast<uint32_t>(rest) != 0 : rest != 0);
    return prefix;
}

template <typename Entry, typename Header>
Fields fieldsOf(IpFamily family, const Entry& entry, const Header& ip) {
    Fields fields;
    fields.in = ip.iniface;
    fields.out = ip.outiface;
    fields.inMask = ip.iniface_mask;
    fields.outMask = ip.outiface_mask;
    fields.source = prefixOf(family, &ip.src, &ip.smsk, fields.maskedOddly);
    fields.destination = prefixOf(family, &ip.dst, &ip.dmsk, fields.maskedOddly);
    fields.protocol = static_cast<uint8_t>(ip.proto);
    fields.inverted = ip.invflags;
    fields.matches = sizeof(Entry);
    fields.target = entry.target_offset;
    return fields;
}

// A mask shorter than the name's NUL means a prefix: "-i br+".
bool sameLink(const std::string& name, const unsigned char* mask, const std::string& actual) {
    if (name.empty()) return true;
    const bool whole = mask[name.size()] != 0;
    return whole ? actual == name : actual.starts_with(name);
}

template <typename Info>
Info infoOf(const xt_entry_match& match) {
    Info info;
    std::memcpy(&info, match.data, std::min(sizeof info, match.u.match_size - sizeof match));
    return info;
}

std::string range(uint16_t first, uint16_t last) {
    return first == last ? std::to_string(first) : std::to_string(first) + ":" + std::to_string(last);
}

// Conditions, one after the other, and their spelling.
class Judge {
public:
    Judge(const RawRule& raw, const Packet& packet) : raw_(raw), packet_(packet) {}

    WalkedRule judge() {
        const bool isV4 = packet_.destination.isV4();
        const auto* bytes = raw_.entry.data();
        const Fields fields = isV4 ? fieldsOf(IpFamily::V4, *reinterpret_cast<const ipt_entry*>(bytes),
                                              reinterpret_cast<const ipt_entry*>(bytes)->ip)
                                   : fieldsOf(IpFamily::V6, *reinterpret_cast<const ip6t_entry*>(bytes),
                                              reinterpret_cast<const ip6t_entry*>(bytes)->ipv6);
        addHeader(fields);
        for (size_t at = fields.matches; at < fields.target;) {
            const auto& match = *reinterpret_cast<const xt_entry_match*>(bytes + at);
            addMatch(match);
            at += match.u.match_size;
        }
        addTarget(reinterpret_cast<const xt_entry_target*>(bytes + fields.target)->u.user.name);
        return std::move(rule_);
    }

private:
    void add(Applies match, const std::string& spelling) {
        rule_.match = std::min(rule_.match, match);
        rule_.text += (rule_.text.empty() ? "" : " ") + spelling;
    }
    void add(bool does, bool inverted, const std::string& spelling) {
        add(matched(does != inverted), (inverted ? "! " : "") + spelling);
    }

    void addHeader(const Fields& fields) {
        const auto isInverted = [&](int flag) { return (fields.inverted & flag) != 0; };
        if (fields.source.length() != 0) {
            add(fields.source.contains(packet_.source), isInverted(IPT_INV_SRCIP), "-s " + fields.source.str());
        }
        if (fields.destination.length() != 0) {
            add(fields.destination.contains(packet_.destination), isInverted(IPT_INV_DSTIP),
                "-d " + fields.destination.str());
        }
        if (fields.maskedOddly) rule_.match = std::min(rule_.match, Applies::Maybe);
        const auto link = [&](const char* flag, const std::string& name, const unsigned char* mask,
                              const std::string& actual, int inversion) {
            if (name.empty()) return;
            add(sameLink(name, mask, actual), isInverted(inversion),
                std::string(flag) + name + (mask[name.size()] == 0 ? "+" : ""));
        };
        link("-i ", fields.in, fields.inMask, packet_.in, IPT_INV_VIA_IN);
        link("-o ", fields.out, fields.outMask, packet_.out, IPT_INV_VIA_OUT);
        if (fields.protocol != 0) {
            add(fields.protocol == packet_.protocol, isInverted(XT_INV_PROTO), "-p " + protocolName(fields.protocol));
        }
    }

    void addMatch(const xt_entry_match& match) {
        const std::string_view name = match.u.user.name;
        const int revision = match.u.user.revision;
        if (name == "comment") return;
        if (name == "tcp") return addTcp(infoOf<xt_tcp>(match));
        if (name == "udp") return addUdp(infoOf<xt_udp>(match));
        if (name == "multiport" && revision == 1) return addMultiport(infoOf<xt_multiport_v1>(match));
        if (name == "state") return addState(infoOf<xt_state_info>(match).statemask, false);
        if (name == "conntrack" && revision == 3 && addConntrack(infoOf<xt_conntrack_mtinfo3>(match))) return;
        if (name == "addrtype" && revision == 1 && addType(infoOf<xt_addrtype_info_v1>(match))) return;
        add(Applies::Maybe, "-m " + std::string(name) + " ...");
    }

    void addPorts(const char* flag, const uint16_t* ports, bool inverted, bool known) {
        if (ports[0] == 0 && ports[1] == 0xffff) return;
        const std::string spelling = flag + range(ports[0], ports[1]);
        if (!known) return add(Applies::Maybe, (inverted ? "! " : "") + spelling);
        add(ports[0] <= packet_.port && packet_.port <= ports[1], inverted, spelling);
    }

    void addTcp(const xt_tcp& tcp) {
        addPorts("--sport ", tcp.spts, (tcp.invflags & XT_TCP_INV_SRCPT) != 0, false);
        addPorts("--dport ", tcp.dpts, (tcp.invflags & XT_TCP_INV_DSTPT) != 0, true);
        constexpr uint8_t kSyn = 0x02;  // the first packet's only flag
        if (tcp.flg_mask != 0) {
            add((tcp.flg_mask & kSyn) == tcp.flg_cmp, (tcp.invflags & XT_TCP_INV_FLAGS) != 0, "--tcp-flags ...");
        }
        if (tcp.option != 0) add(Applies::Maybe, "--tcp-option ...");
    }

    void addUdp(const xt_udp& udp) {
        addPorts("--sport ", udp.spts, (udp.invflags & XT_UDP_INV_SRCPT) != 0, false);
        addPorts("--dport ", udp.dpts, (udp.invflags & XT_UDP_INV_DSTPT) != 0, true);
    }

    void addMultiport(const xt_multiport_v1& ports) {
        bool found = false;
        std::string list;
        for (int i = 0; i < std::min<int>(ports.count, XT_MULTI_PORTS); ++i) {
            const uint16_t first = ports.ports[i];
            uint16_t last = first;
            if (ports.pflags[i] != 0 && i + 1 < XT_MULTI_PORTS) last = ports.ports[++i];
            found = found || (first <= packet_.port && packet_.port <= last);
            list += (list.empty() ? "" : ",") + range(first, last);
        }
        if (ports.flags == XT_MULTIPORT_DESTINATION) return add(found, ports.invert != 0, "--dports " + list);
        add(Applies::Maybe, "--ports " + list);
    }

    void addState(unsigned mask, bool inverted) {
        const bool isNew = (mask & XT_CONNTRACK_STATE_BIT(IP_CT_NEW)) != 0;
        const bool dnat = packet_.dnat && (mask & XT_CONNTRACK_STATE_DNAT) != 0;
        std::string list;
        for (const auto& [bit, word] :
             {std::pair(XT_CONNTRACK_STATE_BIT(IP_CT_NEW), "NEW"),
              std::pair(XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED), "ESTABLISHED"),
              std::pair(XT_CONNTRACK_STATE_BIT(IP_CT_RELATED), "RELATED"),
              std::pair(XT_CONNTRACK_STATE_INVALID, "INVALID"), std::pair(XT_CONNTRACK_STATE_DNAT, "DNAT")}) {
            if ((mask & static_cast<unsigned>(bit)) != 0) list += (list.empty() ? "" : ",") + std::string(word);
        }
        add(isNew || dnat, inverted, "--ctstate " + list);
    }

    // False when it asks for more than the state.
    bool addConntrack(const xt_conntrack_mtinfo3& info) {
        if (info.match_flags != XT_CONNTRACK_STATE) return false;
        addState(info.state_mask, (info.invert_flags & XT_CONNTRACK_STATE) != 0);
        return true;
    }

    bool addType(const xt_addrtype_info_v1& info) {
        if (info.source != 0 || info.dest != XT_ADDRTYPE_LOCAL) return false;
        if ((info.flags & (XT_ADDRTYPE_LIMIT_IFACE_IN | XT_ADDRTYPE_LIMIT_IFACE_OUT)) != 0) return false;
        add(packet_.toLocal, (info.flags & XT_ADDRTYPE_INVERT_DEST) != 0, "--dst-type LOCAL");
        return true;
    }

    void addTarget(std::string_view extension) {
        const std::string& target = raw_.target;
        rule_.text += (rule_.text.empty() ? "-j " : " -j ") + target;
        if (target.empty() || std::find(kPassing.begin(), kPassing.end(), target) != kPassing.end()) return;
        if (target == "ACCEPT") {
            rule_.action = Action::Accept;
        } else if (target == "DROP" || target == "REJECT") {
            rule_.action = Action::Drop;
        } else if (target == "RETURN") {
            rule_.action = Action::Return;
        } else if (!extension.empty()) {
            rule_.action = Action::Unknown;
        } else {
            rule_.action = isGoto() ? Action::Goto : Action::Jump;
            rule_.target = target;
        }
    }

    [[nodiscard]] bool isGoto() const {
        const auto* bytes = raw_.entry.data();
        if (packet_.destination.isV4()) {
            return (reinterpret_cast<const ipt_entry*>(bytes)->ip.flags & IPT_F_GOTO) != 0;
        }
        return (reinterpret_cast<const ip6t_entry*>(bytes)->ipv6.flags & IP6T_F_GOTO) != 0;
    }

    const RawRule& raw_;
    const Packet& packet_;
    WalkedRule rule_;
};

std::string lowered(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](char c) { return static_cast<char>(c | 0x20); });
    return text;
}

}  // namespace

WalkedRule judge(const RawRule& entry, const Packet& packet) {
    return Judge(entry, packet).judge();
}

Result<std::vector<WalkedTable>> readTables(const Packet& packet) {
    const IpFamily family = packet.destination.family();
    const std::string command = family == IpFamily::V4 ? "iptables-legacy" : "ip6tables-legacy";
    std::vector<WalkedTable> tables;
    for (const char* name : kTables) {
        if (!tableExists(family, name)) continue;
        WEFT_ASSIGN(const auto lock, XtablesLock::take(kLockPatience));
        WEFT_ASSIGN(const auto chains, readTable(family, name));
        WalkedTable& table = tables.emplace_back();
        table.place = command + " " + name;
        const std::string tool = command + " -t " + name;
        for (const RawChain& raw : chains) {
            WalkedChain& chain = table.chains[raw.name];
            if (!raw.policy.empty()) chain.hook = lowered(raw.name);
            chain.drops = raw.policy == "DROP";
            chain.policyFix = tool + " -I " + raw.name + (packet.in.empty() ? "" : " -i " + packet.in) +
                              (packet.out.empty() ? "" : " -o " + packet.out) + " -j ACCEPT";
            for (size_t i = 0; i < raw.rules.size(); ++i) {
                chain.rules.push_back(judge(raw.rules[i], packet));
                chain.rules.back().fix = tool + " -D " + raw.name + " " + std::to_string(i + 1);
            }
        }
    }
    return tables;
}

}  // namespace weft::firewall::iptc
