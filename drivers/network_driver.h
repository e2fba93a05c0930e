// NetworkDriver: what a network mode (bridge, overlay, host, none) does, as typed calls.
//
// The front end (driver/) decodes Docker's JSON into these structs once and knows nothing of links or rules; a mode
// knows nothing of HTTP or JSON. Modes never include each other.
//
// Contract of every call (from the engine's behaviour, see docs/docker-plugin-protocol in docs/architecture.md):
// - Idempotent by ID. Creating the same thing again with equal arguments succeeds, with different ones is
//   AlreadyExists. Deleting or leaving what is absent succeeds.
// - What it changed is on disk before it returns: the engine never replays a call after a restart.
// - Any thread; calls for different networks run at once. All waits of a call together end with the thread's
//   CallDeadline (base/deadline.h): Timeout or Busy. Each has a limit of its own, too.
// - Never calls Docker's API: the engine holds locks while it waits for the answer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"

namespace weft {

// One subnet of a network as IPAM made it.
struct IpamData {
    std::string addressSpace;  // empty from a swarm manager
    IpPrefix pool;
    std::optional<IpPrefix> gateway;  // with the pool's prefix length
    std::map<std::string, IpPrefix> auxAddresses;

    bool operator==(const IpamData&) const = default;
};

struct CreateNetworkRequest {
    NetworkId networkId;
    std::map<std::string, std::string> options;  // the user's -o, uninterpreted
    bool internal = false;
    bool enableIpv4 = true;  // absent before engine 28: true
    bool enableIpv6 = false;
    std::vector<IpamData> ipv4;
    std::vector<IpamData> ipv6;

    bool operator==(const CreateNetworkRequest&) const = default;
};

enum class IpProtocol : uint8_t { Icmp = 1, Tcp = 6, Udp = 17, Sctp = 132 };
std::string_view toString(IpProtocol protocol);

// One `-p`: a container port wanted on the host.
struct PortBinding {
    IpProtocol protocol = IpProtocol::Tcp;
    uint16_t containerPort = 0;
    std::optional<IpAddress> hostIp;  // none: every address, both families
    uint16_t hostPort = 0;            // 0: choose one
    uint16_t hostPortEnd = 0;         // > hostPort: choose within the range

    bool operator==(const PortBinding&) const = default;
};

struct ExposedPort {
    IpProtocol protocol = IpProtocol::Tcp;
    uint16_t port = 0;

    bool operator==(const ExposedPort&) const = default;
};

// What the engine says about a sandbox's ports; the same keys come in CreateEndpoint, Join and
// ProgramExternalConnectivity.
struct PortOptions {
    std::vector<PortBinding> bindings;
    std::vector<ExposedPort> exposed;

    bool operator==(const PortOptions&) const = default;
};

// Of networks whose ports are checked and, first of the two, of their endpoints: "allow" or "deny".
inline constexpr const char* kSpoofOption = "weft.spoof";

struct CreateEndpointRequest {
    NetworkId networkId;
    EndpointId endpointId;
    std::optional<IpPrefix> address;
    std::optional<IpPrefix> addressV6;
    std::optional<MacAddress> mac;
    PortOptions ports;
    std::map<std::string, std::string> options;  // weft's own, --driver-opt weft.*=
};

// Only what the request left open may be set: the engine fails on anything else.
struct CreateEndpointReply {
    std::optional<IpPrefix> address;
    std::optional<IpPrefix> addressV6;
    std::optional<MacAddress> mac;
};

struct JoinRequest {
    NetworkId networkId;
    EndpointId endpointId;
    std::string sandboxKey;  // a path that may not exist yet (engines up to 27)
    PortOptions ports;
};

struct StaticRoute {
    IpPrefix destination;
    std::optional<IpAddress> nextHop;  // none: on-link
};

struct JoinReply {
    std::string sourceName;         // link in the host's namespace the engine will move; empty: none
    std::string destinationPrefix;  // "eth": the engine adds the lowest free index
    std::optional<IpAddress> gateway;
    std::optional<IpAddress> gatewayV6;
    std::vector<StaticRoute> routes;
    bool disableGatewayService = false;  // true: no docker_gwbridge even without a gateway
};

struct ProgramExternalConnectivityRequest {
    NetworkId networkId;
    EndpointId endpointId;
    PortOptions ports;
};

class NetworkDriver {
public:
    virtual ~NetworkDriver() = default;

    virtual Result<void> createNetwork(const CreateNetworkRequest& request) = 0;
    virtual Result<void> deleteNetwork(const NetworkId& networkId) = 0;
    virtual Result<CreateEndpointReply> createEndpoint(const CreateEndpointRequest& request) = 0;
    virtual Result<void> deleteEndpoint(const NetworkId& networkId, const EndpointId& endpointId) = 0;
    virtual Result<JoinReply> join(const JoinRequest& request) = 0;
    virtual Result<void> leave(const NetworkId& networkId, const EndpointId& endpointId) = 0;
};

// A mode that publishes ports. Without it the front end answers 404, which the engine takes as "not supported".
class ExternalConnectivity {
public:
    virtual ~ExternalConnectivity() = default;

    virtual Result<void> programExternalConnectivity(const ProgramExternalConnectivityRequest& request) = 0;
    virtual Result<void> revokeExternalConnectivity(const NetworkId& networkId, const EndpointId& endpointId) = 0;
};

// What a Swarm manager asks before any node has the network. Its IPAM data has no address space, and IPv4 alone.
struct AllocateNetworkRequest {
    NetworkId networkId;  // Swarm's: the same on all nodes
    std::map<std::string, std::string> options;
    std::vector<IpamData> ipv4;
};

// A mode whose networks a Swarm may make.
class SwarmAllocation {
public:
    virtual ~SwarmAllocation() = default;

    // The options that the network has on every node, the user's among them: what is left out here is lost. The manager
    // keeps them, and asks again with them when it takes the lead: then nothing may change.
    virtual Result<std::map<std::string, std::string>> allocateNetwork(const AllocateNetworkRequest& request) = 0;
    virtual Result<void> freeNetwork(const NetworkId& networkId) = 0;
};

// One difference between intent and kernel that reconcile() found.
struct Repair {
    std::string kind;            // "link", "address", "rule", "endpoint", ...: the label of the metric
    std::string object;          // the thing's name
    std::string action;          // "recreated", "removed", ...
    std::optional<Error> error;  // set: the repair failed and will be tried again
};

// A mode with kernel state that can drift from its records.
class Reconcilable {
public:
    virtual ~Reconcilable() = default;

    // Compares records with the kernel and heals; with dryRun only reports what it would do.
    virtual Result<std::vector<Repair>> reconcile(bool dryRun) = 0;
};

}  // namespace weft
