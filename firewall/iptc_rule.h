// Rule: one rule of a legacy table in words, and its kernel form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"

namespace weft::firewall::iptc {

// A condition that may be turned round ("! -i br0").
template <typename T>
struct Match {
    T value{};
    bool inverted = false;

    bool operator==(const Match&) const = default;
};
template <typename T>
using OptionalMatch = std::optional<Match<T>>;

enum class CtState : uint8_t { EstablishedOrRelated, Dnat };

struct Rule {
    std::string comment;  // whose rule it is

    // Conditions; what is absent matches everything.
    OptionalMatch<std::string> in, out;  // link names
    OptionalMatch<IpPrefix> source, destination;
    uint8_t protocol = 0;          // IP protocol number
    uint16_t destinationPort = 0;  // needs protocol TCP, UDP or SCTP
    std::optional<uint8_t> icmpv6Type;
    OptionalMatch<CtState> ctState;
    std::optional<bool> toLocal;  // the destination is (not) one of the host's own addresses
    std::string recently;         // the list of that name got the any address within the last second
    bool outIsPrefix = false;     // `out` begins so
    bool fromSocket = false;      // a socket of this namespace sends it; OUTPUT and POSTROUTING only
    uint32_t unmarked = 0;        // none of these bits are set in the packet's mark; 0: never mind

    std::string target;  // ACCEPT, DROP, RETURN, DNAT, SNAT, MASQUERADE, REDIRECT, CT, MARK, or a chain
    IpAddress natAddress;
    uint16_t natPort = 0;  // DNAT and REDIRECT only
    uint16_t zone = 0;     // CT only: of the flow's original direction
    uint32_t mark = 0;     // MARK only: the bits to set

    // As iptables would spell it, for people.
    [[nodiscard]] std::string str() const;
};

// The struct ipt_entry (IPv4) or ip6t_entry (IPv6) with its matches and target, as libiptc takes it. `entry` is
// overwritten, so that one buffer serves many rules.
void encode(const Rule& rule, IpFamily family, std::vector<uint8_t>& entry);

// Whether `entry`, which libiptc read from the kernel, is what encode() made as `encoded`. `target` is libiptc's name
// for the entry's target: in the entry itself the kernel keeps chains as offsets.
bool sameRule(IpFamily family, const void* entry, const char* target, const std::vector<uint8_t>& encoded);

}  // namespace weft::firewall::iptc
