// PoolBook: what a network mode tells IPAM about the pools and leases it uses. LocalIpam and ClusterIpam are books.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"

namespace weft::ipam {

struct PoolInfo;

// Any thread; may block on the disk.
class PoolBook {
public:
    virtual ~PoolBook() = default;

    // Ties the pool to a network; `reserved` are its gateway and aux addresses. False: the pool is not weft's (another
    // IPAM made it). Repeating is a success. An empty address space (swarm) matches any. Busy: attached to another.
    virtual Result<bool> attachPool(const NetworkId& networkId, const std::string& addressSpace, const IpPrefix& pool,
                                    std::span<const IpAddress> reserved) = 0;

    // Unties all pools of the network and forgets its bindings.
    virtual Result<void> detachPools(const NetworkId& networkId) = 0;

    // Marks the address as used by the endpoint; leases it if it was not. Success without effect if no pool of the
    // network holds it. Writes only in the rare case that the lease was gone. Busy: another living endpoint has it.
    virtual Result<void> bindLease(const NetworkId& networkId, const IpAddress& address,
                                   const EndpointId& endpointId) = 0;

    // Success if bound to nobody or to another endpoint. Never writes.
    virtual void unbindLease(const NetworkId& networkId, const IpAddress& address, const EndpointId& endpointId) = 0;

    // After a start: all bindings of one network, from its endpoint records. Call it also when there are none.
    // Addresses that clash are reported and left with their first owner.
    virtual Result<void> restoreBindings(const NetworkId& networkId,
                                         std::span<const std::pair<IpAddress, EndpointId>> bindings) = 0;

    [[nodiscard]] virtual std::vector<PoolInfo> listPools() const = 0;
};

}  // namespace weft::ipam
