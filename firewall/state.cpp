#include "firewall/state.h"

#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <cctype>

namespace weft::firewall {

Result<void> validate(const Network& network) {
    // What Docker accepts in a link name, and what stands in a rule set's text without quoting trouble.
    const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; };
    const std::string& name = network.bridge;
    if (!name.empty() && name.size() < IFNAMSIZ && std::all_of(name.begin(), name.end(), plain)) return {};
    return makeError(ErrorCode::InvalidArgument,
                     "'" + name + "' is no link name: 1 to 15 letters, digits, '-', '_' and '.'");
}

Result<void> validate(const Endpoint& endpoint) {
    for (const auto& port : endpoint.ports) {
        const bool known =
            port.protocol == IPPROTO_TCP || port.protocol == IPPROTO_UDP || port.protocol == IPPROTO_SCTP;
        if (!known || port.containerPort == 0 || port.hostIp.family() != port.containerIp.family()) {
            return makeError(ErrorCode::InvalidArgument, "port " + port.containerIp.str() + " " +
                                                             std::to_string(port.containerPort) + " protocol " +
                                                             std::to_string(port.protocol) + " cannot be published");
        }
    }
    return {};
}

std::set<std::string> State::inside() const {
    std::set<std::string> links = engines;
    links.insert(named.begin(), named.end());
    for (const auto& [id, network] : networks) links.insert(network.bridge);
    links.erase(tunnel.uplink);
    links.insert("lo");
    return links;
}

Result<State> stateOf(const Intent& intent) {
    State state;
    for (const auto& network : intent.networks) {
        WEFT_TRY(validate(network));
        state.networks.insert_or_assign(network.id, network);
    }
    for (const auto& endpoint : intent.endpoints) {
        WEFT_TRY(validate(endpoint));
        state.endpoints.insert_or_assign(endpoint.id, endpoint);
    }
    return state;
}

}  // namespace weft::firewall
