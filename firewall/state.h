// The intent a back end was told, as it keeps it between calls.
#pragma once

#include <map>
#include <set>
#include <string>

#include "firewall/firewall.h"

namespace weft::firewall {

// Of conntrack, for flows to the resolver.
inline constexpr uint16_t kResolverZone = 7953;

struct State {
    std::map<NetworkId, Network> networks;  // sorted: the same intent always makes the same rules
    std::map<EndpointId, Endpoint> endpoints;
    Tunnel tunnel = {};
    uint16_t resolver = 0;
    std::set<std::string> engines = {};  // the engine's bridges (firewall/passage.h): found, not told
    std::set<std::string> named = {};    // bridges with names of the engine's, which may be in no table: found too

    // Nothing is wanted in the kernel.
    [[nodiscard]] bool empty() const { return networks.empty() && tunnel.port == 0; }

    // Links that no member's packets come in by.
    [[nodiscard]] std::set<std::string> inside() const;

    bool operator==(const State&) const = default;
};

// InvalidArgument for what no rule can say: a bad link name, a protocol without ports, a port of 0.
Result<void> validate(const Network& network);
Result<void> validate(const Endpoint& endpoint);

// The validated state of an intent.
Result<State> stateOf(const Intent& intent);

}  // namespace weft::firewall
