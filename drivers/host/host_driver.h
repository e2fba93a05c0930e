// HostDriver: containers on the host's own wire, without bridge, NAT or port mapping.
//
// By default each endpoint gets a macvlan link (mode bridge) on the parent NIC. With -o exclusive=true the one endpoint
// of the network gets the NIC itself; its addresses, routes, MTU and state are in the endpoint's record from before it
// goes in until it is back. See README.md beside this file.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "drivers/ages.h"
#include "drivers/context.h"
#include "drivers/host/host_options.h"
#include "drivers/inspect.h"
#include "drivers/network_driver.h"
#include "drivers/sweep.h"

namespace weft {

class HostDriver final : public NetworkDriver, public Reconcilable, public Inspectable {
public:
    static constexpr std::string_view kMode = "host";

    // After these an endpoint that the engine began and never finished is released.
    static constexpr std::chrono::seconds kUnjoinedGrace{60};
    static constexpr std::chrono::seconds kLeftGrace{60};
    static constexpr std::chrono::seconds kUnmovedGrace{300};
    // Its sandbox has no process, or its link is nowhere.
    static constexpr std::chrono::seconds kDeadGrace{60};
    // A NIC that is nowhere any more is given up.
    static constexpr std::chrono::seconds kLostGrace{600};

    // Context: no firewall rules and no ports are used.
    static Result<std::unique_ptr<HostDriver>> create(DriverContext context);

    Result<void> createNetwork(const CreateNetworkRequest& request) override;
    Result<void> deleteNetwork(const NetworkId& networkId) override;
    // Published ports are ignored with a warning in the log, as Docker's macvlan driver does.
    Result<CreateEndpointReply> createEndpoint(const CreateEndpointRequest& request) override;
    // Exclusive: brings the NIC back, from wherever it is, with what it had. Unavailable while it is nowhere; the next
    // sweep tries again.
    Result<void> deleteEndpoint(const NetworkId& networkId, const EndpointId& endpointId) override;
    Result<JoinReply> join(const JoinRequest& request) override;
    Result<void> leave(const NetworkId& networkId, const EndpointId& endpointId) override;

    // Releases endpoints whose sandbox is gone and brings their NICs back. The first call also restores lease bindings.
    Result<std::vector<Repair>> reconcile(bool dryRun) override;

    // As BridgeDriver's.
    bool isAlive(const EndpointId& endpointId);

    [[nodiscard]] std::vector<NetworkInfo> networks() const override { return networkInfos(context_.records, kMode); }
    [[nodiscard]] std::vector<EndpointInfo> endpoints() const override {
        return endpointInfos(context_.records, kMode);
    }

private:
    // Where an endpoint's link is.
    struct Place {
        enum class Kind : uint8_t { Host, Sandbox, Nowhere, Unknown };
        Kind kind = Kind::Unknown;
        net::Link link;                           // Host and Sandbox
        std::unique_ptr<net::Netlink> sandbox{};  // Sandbox
    };

    HostDriver(DriverContext context, std::string instance);

    Result<NetworkPtr> load(const NetworkId& networkId) const;
    Result<void> removeNetwork(const NetworkId& networkId);
    Result<void> checkSubnets(const CreateNetworkRequest& request, const HostOptions& options, const net::Link& parent,
                              std::vector<IpAddress>& own);
    Result<void> claim(const EndpointPtr& holder, const EndpointId& self, const std::string& what);
    Result<void> checkParentFree(const std::string& parent, bool exclusive, const EndpointRecord& self);
    static std::string markOf(const EndpointRecord& endpoint);
    Place find(const EndpointRecord& endpoint);
    // Whether a NIC is back from its container, and no Leave came: the engine gave up on a daemon that was away, or
    // crashed itself. One that still waits to go in is up, if it was; a move takes it down.
    static bool nicCameBack(const EndpointRecord& endpoint, const Place& place);
    void announce(const net::Link& parent, const EndpointRecord& endpoint) const;
    bool isAlive(const EndpointRecord& endpoint);
    Result<void> takeBack(const EndpointRecord& endpoint);
    Result<void> release(const EndpointRecord& endpoint);
    void sweepEndpoint(const EndpointRecord& endpoint, Sweep& sweep);
    void sweepOrphans(Sweep& sweep);

    DriverContext context_;
    std::string instance_;
    std::timed_mutex nics_;  // who hands out a parent, alone or shared
    std::mutex sweeping_;
    bool started_ = false;
    Ages ages_;
};

}  // namespace weft
