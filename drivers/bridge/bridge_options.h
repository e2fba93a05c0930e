// Options of bridge mode, under the names that Docker's own bridge has for them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "drivers/network_driver.h"
#include "firewall/firewall.h"

namespace weft {

// The name that an overlay network has on all hosts, and its VNI.
inline constexpr const char* kOverlayNameOption = "weft.network";
inline constexpr const char* kOverlayVniOption = "weft.vni";

struct BridgeOptions {
    std::string name;  // of the bridge link; empty: weft names it
    bool icc = true;
    bool masquerade = true;
    bool inhibitV4 = false;                // the bridge gets no IPv4 address
    std::optional<IpAddress> hostBinding;  // publishes here what names no host address
    firewall::GatewayMode modeV4 = firewall::GatewayMode::Nat;
    firewall::GatewayMode modeV6 = firewall::GatewayMode::Nat;
    std::optional<IpAddress> hostV4;  // source of masqueraded traffic
    std::optional<IpAddress> hostV6;
    std::string interfacePrefix = "eth";
    uint32_t mtu = 0;           // 0: the default route's
    bool spoofAllowed = false;  // containers may send with any MAC and address, router advertisements and VLAN tags
    // Overlay mode only.
    std::string overlay;    // the network's name on all hosts
    uint32_t vni = 0;       // 0: chosen
    bool broadcast = true;  // and multicast reach containers on other hosts
    bool fastPath = true;   // between containers past the bridge and the host's rules

    bool operator==(const BridgeOptions&) const = default;
};

// Pure. InvalidArgument: unknown, malformed or contradictory; Unsupported: known, but not here.
Result<BridgeOptions> parseBridgeOptions(const CreateNetworkRequest& request, bool overlay = false);

// Of an endpoint: its kSpoofOption, if it has one.
Result<std::optional<bool>> parseEndpointSpoof(std::string_view mode,
                                               const std::map<std::string, std::string>& options);

// The subnets in use: the families that are on. InvalidArgument when a family that is on has none, none is on, a subnet
// leaves no room, two overlap, or a gateway is outside.
Result<std::vector<IpamData>> bridgeSubnets(const CreateNetworkRequest& request);

// The bridge's own address in a subnet: the gateway, or the first address where IPAM gave none.
IpPrefix gatewayAddress(const IpamData& subnet);

// Sysctls of a bridge as {name, value}, in the order to set them.
std::vector<std::pair<std::string, std::string>> bridgeSysctls(const std::string& bridge,
                                                               const CreateNetworkRequest& request,
                                                               const BridgeOptions& options);

}  // namespace weft
