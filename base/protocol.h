// Names of IP protocols for messages.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace weft {

// "tcp" for 6 and so on, as iptables and Docker spell it; the number for one that weft does not deal in.
std::string protocolName(uint8_t protocol);
// Of "tcp", "udp" and "sctp", those that have ports; nothing for any other text.
std::optional<uint8_t> protocolNumber(std::string_view name);

}  // namespace weft
