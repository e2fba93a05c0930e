// Network sysctls of the calling thread's namespace (see runIn() for another's).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace weft::net {

// `name` with slashes, below /proc/sys: "net/ipv4/ip_forward". The value without its newline. NotFound when this
// kernel has no such setting (IPv6 off, br_netfilter not loaded) or the link is gone.
Result<std::string> readSysctl(const std::string& name);

// Writes only if different; true when it wrote.
Result<bool> setSysctl(const std::string& name, std::string_view value);

// In a managed plugin /proc/sys is read-only, whatever its capabilities (runc's default): makes it writable for this
// process's mount namespace.
Result<void> makeSysctlsWritable();

// linkSysctl(IpFamily::V6, "eth0", "accept_ra"): "net/ipv6/conf/eth0/accept_ra".
std::string linkSysctl(IpFamily family, std::string_view link, std::string_view setting);

struct PortRange {
    uint16_t first = 0;
    uint16_t last = 0;  // inclusive

    [[nodiscard]] bool contains(uint16_t port) const { return port >= first && port <= last; }
    bool operator==(const PortRange&) const = default;
};

Result<PortRange> ephemeralPorts();              // ip_local_port_range
Result<std::vector<PortRange>> reservedPorts();  // ip_local_reserved_ports

// "8080,9148-9150" as the kernel writes it; exposed for its tests.
Result<std::vector<PortRange>> parsePortList(std::string_view text);

// Whether bridged frames of this namespace go through the iptables of `family` (br_netfilter loaded and on).
bool bridgeCallsIptables(IpFamily family);

}  // namespace weft::net
