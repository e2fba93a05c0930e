// Doctor: looks at the host for what keeps weft's networks from working, and says what to type.
#pragma once

#include <string>
#include <vector>

#include "drivers/inspect.h"
#include "drivers/overlay/tunnel_probe.h"
#include "net/netlink.h"
#include "net/port_program.h"

namespace weft::driver {

enum class Health : uint8_t { Good, Warning, Bad };

struct Check {
    std::string name;  // "ip_forward"
    Health health = Health::Good;
    std::string found;
    std::string fix;  // what to type; empty: nothing to do
};

// Looks at the calling thread's namespace, which must be `netlink`'s, and changes nothing there; what kinds of links
// the kernel has is tried in a throwaway namespace. `networks` are weft's own. Takes some ten milliseconds.
std::vector<Check> examineHost(net::Netlink& netlink, const std::vector<NetworkInfo>& networks);

// A container that sent what is not its own.
struct ForgingPort {
    EndpointId endpoint;
    NetworkId network;
    net::DropCounts drops{};
};
// Whether containers' senders are checked, and who was caught; `trouble`: why the kernel cannot, or empty. Pure.
std::vector<Check> senderChecks(std::vector<ForgingPort> ports, const std::string& trouble);

// Whether hosts whose weftd is silent can be asked; `trouble`: why not, or empty. Pure.
Check silentHostsCheck(const std::string& trouble);

// What the probes of the ways to other hosts found. `nic` is the link that they leave by, `port` VXLAN's. Pure.
std::vector<Check> tunnelChecks(const TunnelReport& report, const std::string& nic, uint16_t port);
// The same for people who did not ask: what is in trouble, a line each.
std::vector<std::string> tunnelWarnings(const TunnelReport& report);
// The link that has the address; "eth0" if none has.
std::string linkWith(net::Netlink& netlink, const IpAddress& address);

}  // namespace weft::driver
