// The published ports of bridge mode: plan, reserve, record, open; and the way back.

#include <algorithm>
#include <map>
#include <set>

#include "base/log.h"
#include "base/rollback.h"
#include "drivers/bridge/bridge_driver.h"
#include "net/conntrack.h"

namespace weft {

namespace {

constexpr uint8_t kUdp = 17;

bool overlaps(const IpAddress& a, const IpAddress& b) {
    return a.family() == b.family() && (a == b || a.isAny() || b.isAny());
}

// Routed ports are open at the container and take nothing on the host.
bool takesHostPort(const firewall::PublishedPort& port) {
    return port.hostPort != 0;
}

}  // namespace

EndpointPtr BridgeDriver::portHolder(const PortWish& wish) const {
    const auto holds = [&](const firewall::PublishedPort& port) {
        return takesHostPort(port) && port.protocol == wish.protocol && wish.range.contains(port.hostPort) &&
               std::any_of(wish.hostIps.begin(), wish.hostIps.end(),
                           [&](const IpAddress& address) { return overlaps(address, port.hostIp); });
    };
    for (const NetworkPtr& network : myNetworks()) {
        for (EndpointPtr& endpoint : context_.records.endpoints(network->request.networkId)) {
            if (std::any_of(endpoint->published.begin(), endpoint->published.end(), holds)) return std::move(endpoint);
        }
    }
    return nullptr;
}

// `locked` is the network whose lock the caller has. True: released.
bool BridgeDriver::releaseIfDead(const EndpointPtr& holder, const NetworkId& locked) {
    std::optional<NetworkLock> lock;
    if (holder->networkId != locked) {
        // Two calls that each want a port of the other's dead endpoint must not wait for each other.
        auto other = context_.records.lock(holder->networkId, std::chrono::milliseconds(100));
        if (!other) return false;
        lock.emplace(std::move(*other));
    }
    const EndpointPtr now = context_.records.endpoint(holder->networkId, holder->endpointId);
    if (!now) return true;
    if (now->phase != EndpointPhase::Left && isAlive(*now)) return false;
    logInfo("msg=\"release dead endpoint\" endpoint={} for=\"its host port\"", now->endpointId.brief());
    static_cast<void>(release(*now));  // what failed of it does not hold the port
    return true;
}

Result<net::PortReservation> BridgeDriver::reserve(const NetworkId& networkId, const PortWish& wish) {
    net::PortRequest request;
    request.protocol = wish.protocol;
    request.addresses = wish.hostIps;
    request.range = wish.range;
    // Each dead endpoint in the way is released once, so this ends.
    for (;;) {
        auto reserved = context_.ports.reserve(request);
        if (reserved) return reserved;
        const Error& error = reserved.error();
        if (error.code != ErrorCode::Busy && error.code != ErrorCode::Exhausted) return error;
        const EndpointPtr holder = wish.range.first == 0 ? nullptr : portHolder(wish);
        if (!holder) return error;
        if (releaseIfDead(holder, networkId)) continue;
        return makeError(error.code, error.message + " (endpoint " + holder->endpointId.brief() + " of network " +
                                         holder->networkId.brief() + ")");
    }
}

Result<void> BridgeDriver::publish(const Network& network, const EndpointRecord& endpoint, const PortOptions& ports) {
    PortPolicy policy;
    policy.defaultHostIp = network.options.hostBinding;
    policy.modeV4 = network.options.modeV4;
    policy.modeV6 = network.options.modeV6;
    WEFT_ASSIGN(const auto wishes, planPorts(ports.bindings, policy, endpoint.address, endpoint.addressV6));

    EndpointRecord record = endpoint;
    record.ports = ports;
    record.published.clear();
    std::vector<net::PortReservation> reservations;
    for (const PortWish& wish : wishes) {
        uint16_t hostPort = 0;
        if (!wish.hostIps.empty()) {
            auto reserved = reserve(network.id(), wish);
            if (!reserved) {
                return reserved.error().within("publish " + std::to_string(wish.containerPort) + "/" +
                                               std::string(toString(static_cast<IpProtocol>(wish.protocol))));
            }
            hostPort = reserved->port();
            reservations.push_back(std::move(*reserved));
        }
        const auto published = publishedFor(wish, hostPort, endpoint.address, endpoint.addressV6);
        record.published.insert(record.published.end(), published.begin(), published.end());
    }
    if (record == endpoint) return {};

    Rollback undo;
    book_.hold(endpoint.endpointId, std::move(reservations));
    undo.push([&] { book_.drop(endpoint.endpointId); });
    WEFT_TRY(ensureSynced());
    WEFT_ASSIGN(const auto rules, lockRules());
    PendingWrite written = context_.records.put(record);
    undo.push([&] { static_cast<void>(context_.records.put(endpoint)); });
    if (!record.published.empty()) {
        undo.push([&] { return context_.firewall.removeEndpoint(endpoint.endpointId); });
        WEFT_TRY(context_.firewall.setEndpoint(rulesOf(record)));
    }
    flushUnmapped(record);
    WEFT_TRY(written.wait());
    undo.commit();
    return {};
}

// A UDP client that kept sending while nobody published the port has its flow end at the host: for as long as it sends,
// conntrack does not ask the rules again.
void BridgeDriver::flushUnmapped(const EndpointRecord& endpoint) {
    std::vector<net::HostPort> ports;
    Result<std::vector<net::Address>> addresses = std::vector<net::Address>();
    for (const firewall::PublishedPort& port : endpoint.published) {
        if (!takesHostPort(port) || port.protocol != kUdp) continue;
        if (!port.hostIp.isAny()) {
            ports.push_back({kUdp, port.hostIp, port.hostPort});
            continue;
        }
        if (addresses && addresses->empty()) addresses = context_.netlink.listAddresses();
        if (!addresses) break;
        for (const net::Address& address : *addresses) {
            const IpAddress& ip = address.prefix.address();
            if (ip.family() == port.hostIp.family()) ports.push_back({kUdp, ip, port.hostPort});
        }
    }
    if (ports.empty()) return;
    const auto flushed = net::flushUnmappedFlows(context_.netlink.netns(), ports);
    if (!flushed) logWarn("msg=\"flush connections\" error={}", logValue(flushed.error().message));
}

// Closes the endpoint's ports. The caller has put the record without them, or erased it, and holds rules_.
Result<void> BridgeDriver::withdraw(const EndpointRecord& endpoint) {
    if (endpoint.published.empty()) return {};
    Result<void> outcome;
    if (synced_) outcome = context_.firewall.removeEndpoint(endpoint.endpointId);

    std::vector<net::MappedFlow> flows;
    for (const firewall::PublishedPort& port : endpoint.published) {
        // TCP's clients notice by themselves, and a look costs milliseconds.
        if (!takesHostPort(port) || port.protocol != kUdp) continue;
        net::MappedFlow flow;
        flow.protocol = port.protocol;
        if (!port.hostIp.isAny()) flow.hostIp = port.hostIp;
        flow.hostPort = port.hostPort;
        flow.containerIp = port.containerIp;
        flow.containerPort = port.containerPort;
        flows.push_back(flow);
    }
    if (!flows.empty()) {
        const auto flushed = net::flushMappedFlows(context_.netlink.netns(), flows);
        if (!flushed && outcome) outcome = flushed.error().within("flush connections");
    }
    book_.drop(endpoint.endpointId);
    return outcome;
}

Result<void> BridgeDriver::programExternalConnectivity(const ProgramExternalConnectivityRequest& request) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(request.networkId));
    WEFT_ASSIGN(const Network network, load(request.networkId));
    EndpointPtr endpoint = context_.records.endpoint(request.networkId, request.endpointId);
    if (!endpoint) return makeError(ErrorCode::NotFound, "no endpoint " + request.endpointId.brief());
    if (network.request().internal) {
        if (request.ports.bindings.empty()) return {};
        return makeError(ErrorCode::InvalidArgument, "an internal network publishes no ports");
    }
    if (!endpoint->published.empty()) {
        if (endpoint->ports.bindings == request.ports.bindings) {
            WEFT_TRY(holdPorts(*endpoint));
            WEFT_TRY(ensureSynced());
            WEFT_ASSIGN(const auto rules, lockRules());
            return context_.firewall.setEndpoint(rulesOf(*endpoint));
        }
        WEFT_TRY(revokeLocked(*endpoint));
        endpoint = context_.records.endpoint(request.networkId, request.endpointId);
    }
    return publish(network, *endpoint, request.ports);
}

Result<void> BridgeDriver::revokeLocked(const EndpointRecord& endpoint) {
    EndpointRecord record = endpoint;
    record.published.clear();
    WEFT_ASSIGN(const auto rules, lockRules());
    PendingWrite written = context_.records.put(std::move(record));
    Result<void> outcome = withdraw(endpoint);
    WEFT_TRY(written.wait());
    return outcome;
}

Result<void> BridgeDriver::revokeExternalConnectivity(const NetworkId& networkId, const EndpointId& endpointId) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(networkId));
    const EndpointPtr endpoint = context_.records.endpoint(networkId, endpointId);
    if (!endpoint || endpoint->published.empty()) return {};
    return revokeLocked(*endpoint);
}

// After a start: takes the sockets of the recorded ports again.
Result<void> BridgeDriver::holdPorts(const EndpointRecord& endpoint) {
    if (book_.holds(endpoint.endpointId)) return {};
    std::map<std::pair<uint8_t, uint16_t>, std::vector<IpAddress>> ports;
    for (const firewall::PublishedPort& port : endpoint.published) {
        if (!takesHostPort(port)) continue;
        auto& addresses = ports[{port.protocol, port.hostPort}];
        if (std::find(addresses.begin(), addresses.end(), port.hostIp) == addresses.end())
            addresses.push_back(port.hostIp);
    }
    if (ports.empty()) return {};
    std::vector<net::PortReservation> reservations;
    for (const auto& [key, addresses] : ports) {
        net::PortRequest request;
        request.protocol = key.first;
        request.addresses = addresses;
        request.range = {key.second, key.second};
        WEFT_ASSIGN(auto reserved, context_.ports.reserve(request));
        reservations.push_back(std::move(reserved));
    }
    book_.hold(endpoint.endpointId, std::move(reservations));
    return {};
}

}  // namespace weft
