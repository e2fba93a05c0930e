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

}  // namespace weft
