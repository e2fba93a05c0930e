#include "drivers/port_plan.h"

#include <algorithm>

namespace weft {

namespace {

std::string describe(const PortBinding& binding) {
    return std::to_string(binding.containerPort) + "/" + std::string(toString(binding.protocol));
}

}  // namespace

Result<std::vector<PortWish>> planPorts(std::span<const PortBinding> bindings, const PortPolicy& policy,
                                        const std::optional<IpPrefix>& address,
                                        const std::optional<IpPrefix>& addressV6) {
    std::vector<PortWish> wishes;
    for (const PortBinding& binding : bindings) {
        const auto refuse = [&](const std::string& why) {
            return makeError(ErrorCode::InvalidArgument, "publish " + describe(binding) + ": " + why);
        };
        if (binding.protocol == IpProtocol::Icmp) return refuse("ICMP has no ports");
        if (binding.containerPort == 0) return refuse("the container port is missing");
        if (binding.hostPortEnd != 0 && binding.hostPortEnd < binding.hostPort) {
            return refuse("the host port range ends before it starts");
        }

        PortWish wish;
        wish.protocol = static_cast<uint8_t>(binding.protocol);
        wish.containerPort = binding.containerPort;
        wish.range = {binding.hostPort, std::max(binding.hostPort, binding.hostPortEnd)};

        std::vector<IpAddress> hostIps;
        const std::optional<IpAddress>& asked = binding.hostIp ? binding.hostIp : policy.defaultHostIp;
        if (asked) {
            hostIps = {*asked};
        } else {
            hostIps = {IpAddress::any(IpFamily::V4), IpAddress::any(IpFamily::V6)};
        }
        for (const IpAddress& hostIp : hostIps) {
            const std::optional<IpPrefix>& inside = hostIp.isV4() ? address : addressV6;
            if (!inside) {
                if (!asked) continue;
                return refuse("host address " + hostIp.str() + " is given, but the container has no " +
                              std::string(toString(hostIp.family())) + " address");
            }
            if ((hostIp.isV4() ? policy.modeV4 : policy.modeV6) == firewall::GatewayMode::Routed) {
                wish.opened.push_back(inside->address());
            } else if (hostIp.isV6() && hostIp.isLoopback()) {
                return refuse("the kernel lets no packet from ::1 out to a container; publish on 127.0.0.1");
            } else {
                wish.hostIps.push_back(hostIp);
            }
        }
        if (wish.hostIps.empty()) wish.range = {};
        if (std::find(wishes.begin(), wishes.end(), wish) == wishes.end()) wishes.push_back(std::move(wish));
    }
    const auto given = [](const PortWish& wish) {
        return wish.range.first != 0 && wish.range.first == wish.range.last;
    };
    std::stable_partition(wishes.begin(), wishes.end(), given);
    return wishes;
}

std::vector<firewall::PublishedPort> publishedFor(const PortWish& wish, uint16_t hostPort,
                                                  const std::optional<IpPrefix>& address,
                                                  const std::optional<IpPrefix>& addressV6) {
    std::vector<firewall::PublishedPort> published;
    for (const IpAddress& hostIp : wish.hostIps) {
        const IpAddress inside = (hostIp.isV4() ? address : addressV6)->address();
        published.push_back({wish.protocol, hostIp, hostPort, inside, wish.containerPort});
    }
    for (const IpAddress& inside : wish.opened) {
        published.push_back({wish.protocol, IpAddress::any(inside.family()), 0, inside, wish.containerPort});
    }
    return published;
}

}  // namespace weft
