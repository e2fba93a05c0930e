// Which host ports and openings the `-p` of an endpoint come to. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "drivers/network_driver.h"
#include "firewall/firewall.h"
#include "net/sysctl.h"

namespace weft {

struct PortPolicy {
    std::optional<IpAddress> defaultHostIp;  // for bindings without; none: any address of both families
    firewall::GatewayMode modeV4 = firewall::GatewayMode::Nat;
    firewall::GatewayMode modeV6 = firewall::GatewayMode::Nat;
};

// One container port and what it needs on the host.
struct PortWish {
    uint8_t protocol = 6;
    uint16_t containerPort = 0;
    std::vector<IpAddress> hostIps;  // to be reserved, the same port on all
    net::PortRange range;            // {0, 0}: any ephemeral
    std::vector<IpAddress> opened;   // container addresses in routed families: nothing to reserve

    bool operator==(const PortWish&) const = default;
};

// Wishes for given ports come before those that leave the choice, so that a choice never takes a given one. Repeated
// bindings count once. InvalidArgument for what can never work (ICMP, port 0, a host IP of a family the endpoint
// lacks).
Result<std::vector<PortWish>> planPorts(std::span<const PortBinding> bindings, const PortPolicy& policy,
                                        const std::optional<IpPrefix>& address,
                                        const std::optional<IpPrefix>& addressV6);

// The wish as the firewall wants it, with the port the reservation got.
std::vector<firewall::PublishedPort> publishedFor(const PortWish& wish, uint16_t hostPort,
                                                  const std::optional<IpPrefix>& address,
                                                  const std::optional<IpPrefix>& addressV6);

}  // namespace weft
