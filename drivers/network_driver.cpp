#include "drivers/network_driver.h"

namespace weft {

std::string_view toString(IpProtocol protocol) {
    switch (protocol) {
        case IpProtocol::Icmp:
            return "icmp";
        case IpProtocol::Tcp:
            return "tcp";
        case IpProtocol::Udp:
            return "udp";
        case IpProtocol::Sctp:
            return "sctp";
    }
    return "unknown";
}

}  // namespace weft
