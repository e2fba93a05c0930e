// Names and marks of weft's links. A mark (the link's alias) says whose it is: what carries one and has no record is a
// leftover, what carries none is not weft's (but see net::isHalfMade).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"

namespace weft {

std::string bridgeName(const NetworkId& id);         // "weft-" and 10 hex digits
std::string hostEndName(const EndpointId& id);       // "wv" and 12
std::string tunnelName(const NetworkId& id);         // "wx" and 12: an overlay's vxlan link
std::string containerEndName(const EndpointId& id);  // "wc" and 12: the engine's SrcName
std::string networkMark(const NetworkId& id);        // "weft network ID"
std::string endpointMark(const EndpointId& id);      // "weft endpoint ID"
std::optional<NetworkId> markedNetwork(std::string_view alias);
std::optional<EndpointId> markedEndpoint(std::string_view alias);

// 02:42 and the IPv4 address, else from the IPv6 address: who reuses an address also reuses its MAC, so neighbours'
// ARP caches stay right.
MacAddress macFromAddress(const std::optional<IpPrefix>& v4, const std::optional<IpPrefix>& v6,
                          const EndpointId& fallback);

// InvalidArgument unless the kernel takes it as a link's name.
Result<void> checkLinkName(std::string_view name);

}  // namespace weft
