// NoneDriver: a container with its loopback and nothing else; no gateway bridge either.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "drivers/ages.h"
#include "drivers/inspect.h"
#include "drivers/network_driver.h"
#include "drivers/record_store.h"

namespace weft {

class NoneDriver final : public NetworkDriver, public ExternalConnectivity, public Reconcilable, public Inspectable {
public:
    // Both must outlive the driver.
    NoneDriver(RecordStore& records, const Clock& clock) : records_(records), clock_(clock) {}

    Result<void> createNetwork(const CreateNetworkRequest& request) override;
    Result<void> deleteNetwork(const NetworkId& networkId) override;
    // Unsupported when the sandbox has published ports.
    Result<CreateEndpointReply> createEndpoint(const CreateEndpointRequest& request) override;
    Result<void> deleteEndpoint(const NetworkId& networkId, const EndpointId& endpointId) override;
    Result<JoinReply> join(const JoinRequest& request) override;
    Result<void> leave(const NetworkId& networkId, const EndpointId& endpointId) override;

    Result<void> programExternalConnectivity(const ProgramExternalConnectivityRequest& request) override;
    Result<void> revokeExternalConnectivity(const NetworkId& networkId, const EndpointId& endpointId) override;

    // Releases endpoints that the engine never finished or never deleted: their sandbox is gone.
    Result<std::vector<Repair>> reconcile(bool dryRun) override;

    [[nodiscard]] std::vector<NetworkInfo> networks() const override;
    [[nodiscard]] std::vector<EndpointInfo> endpoints() const override;

private:
    // Why the endpoint is over; empty: it is not.
    [[nodiscard]] std::string whyOver(const EndpointRecord& endpoint) const;

    RecordStore& records_;
    const Clock& clock_;
    std::mutex sweeping_;
    Ages ages_;
};

}  // namespace weft
