#include "base/protocol.h"

#include <netinet/in.h>

namespace weft {

std::string protocolName(uint8_t protocol) {
    switch (protocol) {
        case IPPROTO_ICMP:
            return "icmp";
        case IPPROTO_ICMPV6:
            return "ipv6-icmp";
        case IPPROTO_TCP:
            return "tcp";
        case IPPROTO_UDP:
            return "udp";
        case IPPROTO_SCTP:
            return "sctp";
        default:
            return std::to_string(protocol);
    }
}

std::optional<uint8_t> protocolNumber(std::string_view name) {
    for (const int protocol : {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP}) {
        if (name == protocolName(static_cast<uint8_t>(protocol))) return static_cast<uint8_t>(protocol);
    }
    return std::nullopt;
}

}  // namespace weft
