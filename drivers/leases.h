// An endpoint's addresses as leases of weft's IPAM; without effect for addresses of another IPAM.
#pragma once

#include <set>

#include "base/result.h"
#include "drivers/record_store.h"
#include "ipam/local_ipam.h"
#include "ipam/pool_book.h"

namespace weft {

inline void unbindLeases(ipam::PoolBook& ipam, const EndpointRecord& endpoint) {
    for (const auto& prefix : {endpoint.address, endpoint.addressV6}) {
        if (prefix) ipam.unbindLease(endpoint.networkId, prefix->address(), endpoint.endpointId);
    }
}

// All or none.
inline Result<void> bindLeases(ipam::PoolBook& ipam, const EndpointRecord& endpoint) {
    for (const auto& prefix : {endpoint.address, endpoint.addressV6}) {
        if (!prefix) continue;
        if (auto bound = ipam.bindLease(endpoint.networkId, prefix->address(), endpoint.endpointId); !bound) {
            unbindLeases(ipam, endpoint);
            return bound;
        }
    }
    return {};
}

// After a start, from all records of a network.
inline Result<void> restoreLeases(ipam::PoolBook& ipam, const RecordStore& records, const NetworkId& networkId) {
    std::vector<std::pair<IpAddress, EndpointId>> bindings;
    for (const EndpointPtr& endpoint : records.endpoints(networkId)) {
        for (const auto& prefix : {endpoint->address, endpoint->addressV6}) {
            if (prefix) bindings.emplace_back(prefix->address(), endpoint->endpointId);
        }
    }
    return ipam.restoreBindings(networkId, bindings);
}

// Networks whose subnet the engine gave back to weft's IPAM. It does so right before DeleteNetwork, which it never
// repeats.
inline std::set<NetworkId> givenBack(const ipam::PoolBook& ipam) {
    std::set<NetworkId> networks;
    for (const ipam::PoolInfo& pool : ipam.listPools()) {
        if (pool.record.released) networks.insert(pool.record.network);
    }
    return networks;
}

}  // namespace weft
