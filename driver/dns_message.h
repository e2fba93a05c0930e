// The DNS messages that weftd's name server reads and writes (RFC 1035; AAAA: RFC 3596, SRV: RFC 2782, EDNS: RFC 6891).
//
// A name is text: labels parted by dots, without the last dot, lower case (a to z only), the root "". Its labels hold
// printable ASCII but for dots, spaces and backslashes, so the text stands for one name and needs no escapes. In what
// is written, a record with any other name, or one that is too long for a domain name, is left out.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace weft::driver {

enum class DnsType : uint16_t { A = 1, Soa = 6, Ptr = 12, Aaaa = 28, Srv = 33, Any = 255 };  // others as numbers

enum class DnsCode : uint8_t {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NameError = 3,
    NotImplemented = 4,
    Refused = 5,
};

inline constexpr size_t kDnsUdpMinimum = 512;   // octets that every asker takes
inline constexpr size_t kDnsUdpMaximum = 1232;  // above it datagrams may be fragmented (DNS flag day 2020)
inline constexpr size_t kDnsTcpMaximum = 65535;

struct DnsQuery {
    uint16_t id = 0;
    bool recursionDesired = false;
    DnsType type = DnsType::A;
    std::optional<std::string> name;   // none if it cannot be text, or its class is not IN: no name of ours
    std::optional<uint16_t> ednsSize;  // octets of UDP that the asker takes, at least 512; none without EDNS
    uint8_t ednsVersion = 0;
    std::vector<uint8_t> question;  // the section as it came, which answers repeat: some askers check their mix of case
};

// A query with exactly one question; further records but EDNS's are passed over. Unsupported: a query of another
// opcode. InvalidArgument: a response, or no well-formed query.
Result<DnsQuery> parseDnsQuery(std::span<const uint8_t> message);

struct DnsPointer {
    std::string name;
};

struct DnsService {
    uint16_t priority = 0;
    uint16_t weight = 0;
    uint16_t port = 0;
    std::string target;
};

using DnsRecord = std::variant<IpAddress, DnsPointer, DnsService>;

struct DnsAddress {
    std::string name;
    IpAddress address;
};

struct DnsAnswer {
    DnsCode code = DnsCode::NoError;
    bool authoritative = true;
    std::chrono::seconds ttl{0};       // of every record
    std::vector<DnsRecord> answers{};  // for the name asked for
    std::vector<DnsAddress> additional{};
};

// In `limit` octets, which are 512 or more: dnsUdpLimit() or kDnsTcpMaximum. Answers that do not fit are left out from
// the first one on, and the message is marked as truncated; additional ones are just left out. A query of an EDNS
// version other than 0 is answered BADVERS and no records.
std::vector<uint8_t> composeDnsAnswer(const DnsQuery& query, const DnsAnswer& answer, size_t limit);
size_t dnsUdpLimit(const DnsQuery& query);

// For what parseDnsQuery() refused: a header alone. Empty, so send nothing, if that has no header or is a response.
std::vector<uint8_t> composeDnsError(std::span<const uint8_t> query, DnsCode code);

// The address in "5.0.32.10.in-addr.arpa" or its like in ip6.arpa; a whole one only.
std::optional<IpAddress> addressOfReverseName(std::string_view name);

}  // namespace weft::driver
