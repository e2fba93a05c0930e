// Drivers that record what they were asked, and answer what a test wants.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "driver/http_server.h"
#include "drivers/inspect.h"
#include "drivers/network_driver.h"
#include "ipam/address_manager.h"

namespace weft::driver::testing {

class RecordingDriver : public NetworkDriver {
public:
    Result<void> createNetwork(const CreateNetworkRequest& request) override {
        network = request;
        return record("createNetwork");
    }
    Result<void> deleteNetwork(const NetworkId& networkId) override {
        return record("deleteNetwork " + networkId.brief());
    }
    Result<CreateEndpointReply> createEndpoint(const CreateEndpointRequest& request) override {
        endpoint = request;
        WEFT_TRY(record("createEndpoint"));
        return endpointReply;
    }
    Result<void> deleteEndpoint(const NetworkId&, const EndpointId& id) override {
        return record("deleteEndpoint " + id.brief());
    }
    Result<JoinReply> join(const JoinRequest& request) override {
        joined = request;
        WEFT_TRY(record("join"));
        return joinReply;
    }
    Result<void> leave(const NetworkId&, const EndpointId& id) override { return record("leave " + id.brief()); }

    CreateNetworkRequest network;
    CreateEndpointRequest endpoint;
    JoinRequest joined;
    CreateEndpointReply endpointReply;
    JoinReply joinReply;
    std::optional<Error> failure;          // of every call
    std::function<void()> during = [] {};  // runs within every call

    std::vector<std::string> calls() const {
        const std::lock_guard lock(mutex_);
        return calls_;
    }

protected:
    Result<void> record(std::string call) {
        {
            const std::lock_guard lock(mutex_);
            calls_.push_back(std::move(call));
        }
        during();
        if (failure) return *failure;
        return {};
    }

private:
    mutable std::mutex mutex_;
    std::vector<std::string> calls_;
};

// With every ability.
class FullDriver final : public RecordingDriver,
                         public ExternalConnectivity,
                         public SwarmAllocation,
                         public Inspectable {
public:
    Result<void> programExternalConnectivity(const ProgramExternalConnectivityRequest& request) override {
        programmed = request;
        return record("program");
    }
    Result<void> revokeExternalConnectivity(const NetworkId&, const EndpointId& id) override {
        return record("revoke " + id.brief());
    }
    Result<std::map<std::string, std::string>> allocateNetwork(const AllocateNetworkRequest& request) override {
        allocated = request;
        WEFT_TRY(record("allocate"));
        auto options = request.options;
        options["weft.vni"] = "4711";
        return options;
    }
    Result<void> freeNetwork(const NetworkId& networkId) override { return record("free " + networkId.brief()); }
    std::vector<NetworkInfo> networks() const override { return shownNetworks; }
    std::vector<EndpointInfo> endpoints() const override { return shownEndpoints; }

    ProgramExternalConnectivityRequest programmed;
    AllocateNetworkRequest allocated;
    std::vector<NetworkInfo> shownNetworks;
    std::vector<EndpointInfo> shownEndpoints;
};

class RecordingAddresses final : public ipam::AddressManager {
public:
    Result<ipam::PoolReply> requestPool(const ipam::PoolRequest& request) override {
        pool = request;
        if (failure) return *failure;
        return ipam::PoolReply{ipam::PoolId("pool-1"), request.pool.value_or(*IpPrefix::parse("10.208.0.0/24")), {}};
    }
    Result<void> releasePool(const ipam::PoolId& poolId) override {
        releasedPool = poolId;
        return {};
    }
    Result<IpPrefix> requestAddress(const ipam::AddressRequest& request) override {
        address = request;
        if (failure) return *failure;
        return IpPrefix(request.address.value_or(*IpAddress::parse("10.208.0.2")), 24);
    }
    Result<void> releaseAddress(const ipam::PoolId&, const IpAddress& released) override {
        releasedAddress = released;
        return {};
    }

    ipam::PoolRequest pool;
    ipam::AddressRequest address;
    ipam::PoolId releasedPool;
    IpAddress releasedAddress;
    std::optional<Error> failure;
};

}  // namespace weft::driver::testing
