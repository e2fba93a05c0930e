// Names of IP protocols for messages.
#pragma once

#include <cstdint>
#include <string>

namespace weft {

// "tcp" for 6 and so on, as iptables and Docker spell it; the number for one that weft does not deal in.
std::string protocolName(uint8_t protocol);

}  // namespace weft
