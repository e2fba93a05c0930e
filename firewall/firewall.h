// Firewall: intent in, packet filter rules out.
//
// Callers speak of networks and published ports, never of chains or rules. Two back ends implement it over one test
// suite: iptc (libip4tc/libip6tc on the legacy tables) and nft (libnftables, maps); tests use a recording fake.
//
// The intent, for every network N with bridge B and subnets S:
// - forwarding: B to B passes if icc, else only to published ports; B to elsewhere passes unless internal; elsewhere
//   to B passes for replies, for published ports and (routed mode) for ICMP; all else to B is dropped. An internal
//   network passes B to B only.
// - direct access: a packet that comes in on another link for an address in S, not the host's own, is dropped before
//   routing, unless the family is in routed mode or not masqueraded (replies come straight to S then, and forwarding
//   lets new connections in only where they were DNATed).
// - NAT: S leaving by another link is masqueraded (or SNATed to hostAddress) if masquerade; published ports are DNATed
//   for traffic to the host's own addresses from outside, from the host and from containers (hairpin).
// - a port published on a loopback address is reachable from the host only.
// - DNS: if the network has `resolve`, a query (port 53, UDP or TCP) that comes in from B goes to the host's resolver
//   port, but for one to another's address in S: a DNS server in a container of the network stays reachable. This is
//   behind the drop of direct access and ahead of published ports, the engine's too. It holds for kVouchHolds after
//   vouch(), and queries go where they were sent without it.
// - the tunnel port of overlay networks takes unicast to the tunnel's own address only, from members' addresses only,
//   and by no link behind which others' addresses are easily borrowed: bridges of weft or of the engine, and lo.
// - nobody else sends to a peer's tunnel port by this host, whose address opens it: what is forwarded out of such a
//   bridge, or with a source that is no member's, and what a socket of the host sends itself, are dropped. What a
//   socket of the host sends into a network passes, for it is marked (kTunnelMark) on its way to the bridge.
// - the resolver's port answers bridges of networks only.
// - the engine's own filter tables, whichever world they are in, let B's traffic pass behind DOCKER-USER.
//
// Idempotent: setting an equal intent again changes nothing; removing what is absent succeeds. Each call is atomic:
// one commit per table (iptc) or one transaction (nft), so a packet sees the rules before or after, never between.
// Any thread. Blocks on the kernel, and iptc on the xtables lock for at most a few seconds (Timeout).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"

namespace weft::firewall {

enum class GatewayMode : uint8_t {
    Nat,     // published ports are mapped on the host; container addresses are hidden
    Routed,  // no NAT; published ports are opened at the container's own address
};

struct Network {
    NetworkId id;
    std::string bridge;             // link name
    std::vector<IpPrefix> subnets;  // network form, both families
    bool internal = false;
    bool icc = true;
    bool masquerade = true;
    GatewayMode modeV4 = GatewayMode::Nat;
    GatewayMode modeV6 = GatewayMode::Nat;
    std::optional<IpAddress> hostAddressV4;  // SNAT source in place of MASQUERADE
    std::optional<IpAddress> hostAddressV6;
    bool resolve = false;  // DNS queries of its containers go to the resolver

    bool operator==(const Network&) const = default;
};

// One mapping; in routed mode hostIp/hostPort are ignored and the container's port is opened.
struct PublishedPort {
    uint8_t protocol = 6;  // IP protocol number: 6, 17 or 132
    IpAddress hostIp;      // any() of its family: every host address of that family
    uint16_t hostPort = 0;
    IpAddress containerIp;  // same family as hostIp
    uint16_t containerPort = 0;

    auto operator<=>(const PublishedPort&) const = default;
};

struct Endpoint {
    EndpointId id;
    NetworkId networkId;
    std::vector<PublishedPort> ports;

    bool operator==(const Endpoint&) const = default;
};

// The UDP port at which overlay frames arrive (RFC 7348): whoever may send there can put frames into the networks.
struct Tunnel {
    uint16_t port = 0;                 // 0: none, and no rule about it
    std::set<IpAddress> members = {};  // whose packets come in
    std::set<IpAddress> peers = {};    // to whom nobody else sends: the members, and those who may be ones for others
    IpAddress address = {};            // this host's: what the members send to
    std::string uplink = {};           // the link that has it, trusted even if it is a bridge of a network

    bool operator==(const Tunnel&) const = default;
};

// The bit of a packet's mark that says: a socket of this host sends it into a network. It outlives the encapsulation,
// where the packet still belongs to that socket. A container's marks do not leave its namespace.
inline constexpr uint32_t kTunnelMark = 0x1000;

// Everything that should be in the kernel, the tunnel and the resolver apart.
struct Intent {
    std::vector<Network> networks;
    std::vector<Endpoint> endpoints;
};

struct SyncReport {
    std::vector<std::string>
        repairs;  // one line a difference found ("chain WEFT-FORWARD missing"); empty: all was right
};

enum class Backend : uint8_t { Iptc, Nft };

inline constexpr std::chrono::seconds kVouchHolds{1};

class Firewall {
public:
    virtual ~Firewall() = default;

    [[nodiscard]] virtual Backend backend() const = 0;

    virtual Result<void> setNetwork(const Network& network) = 0;
    virtual Result<void> removeNetwork(const NetworkId& id) = 0;

    // Replaces the whole list of the endpoint's ports; an empty list unpublishes.
    virtual Result<void> setEndpoint(const Endpoint& endpoint) = 0;
    virtual Result<void> removeEndpoint(const EndpointId& id) = 0;

    // Replaces what was set before; sync() keeps it. Before the first network or sync() of this process it is only
    // remembered, for what is in the kernel is still an earlier process' work.
    virtual Result<void> setTunnel(const Tunnel& tunnel) = 0;

    // The port of the host at which the daemon answers DNS; 0: none, and no rule about it. Queries arrive there at an
    // address of the bridge they came in from. Lives like the tunnel.
    virtual Result<void> setResolver(uint16_t port) = 0;

    // The resolver answers: queries go there for kVouchHolds from now. Who keeps a source port is switched over as
    // well, both ways. Never blocks, takes no lock, and does nothing where there are no rules.
    virtual void vouch() = 0;

    // Makes the kernel equal to `intent`, the tunnel and the resolver in one go: after a start, or when rules were
    // damaged by others. Also puts back the passage through the engine's tables. With dryRun only reports.
    virtual Result<SyncReport> sync(const Intent& intent, bool dryRun) = 0;

    // Removes everything this back end ever made (uninstall, change of back end).
    virtual Result<void> clear() = 0;
};

}  // namespace weft::firewall
