// AddressManager: Docker's IpamDriver as typed calls.
//
// The front end decodes JSON into these structs; an address manager knows nothing of HTTP, JSON or links. LocalIpam
// serves one host; overlay networks bring a second one that shares pools between hosts.
//
// Contract of every call (from the engine's behaviour):
// - What it answers is on disk before it returns: an address is never handed out twice, whatever is killed when.
// - Releasing what is unknown, or was released before, succeeds.
// - Requests that repeat one whose answer was lost succeed with the same answer where they can be told apart from
//   a second user's.
// - Any thread; concurrent calls share commits. Blocks on the disk.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"

namespace weft::ipam {

inline constexpr const char* kLocalAddressSpace = "weft-local";
inline constexpr const char* kGlobalAddressSpace = "weft-global";

// Opaque to the engine, stable across restarts, never used again after a release.
using PoolId = Id<struct PoolIdTag>;

struct PoolRequest {
    std::string addressSpace;
    std::optional<IpPrefix> pool;                // --subnet; none: choose one
    std::optional<IpPrefix> subPool;             // --ip-range; only with pool
    std::map<std::string, std::string> options;  // --ipam-opt, uninterpreted
    bool v6 = false;                             // family to choose when pool is none
    bool onHostNetwork = false;  // weft-host: the pool is the LAN of a NIC, so the host's routes do not rule it out
};

struct PoolReply {
    PoolId poolId;
    IpPrefix pool;  // network form
    std::map<std::string, std::string> data;
};

struct AddressRequest {
    PoolId poolId;
    std::optional<IpAddress> address;  // --ip, --gateway, --aux-address; none: the next free
    bool gateway = false;              // RequestAddressType is com.docker.network.gateway
    std::optional<MacAddress> mac;     // com.docker.network.endpoint.macaddress; not needed
};

class AddressManager {
public:
    virtual ~AddressManager() = default;

    // What GetDefaultAddressSpaces tells: CreateNetwork's IpamData then shows who gave the pool.
    struct AddressSpaces {
        const char* local;
        const char* global;
    };
    [[nodiscard]] virtual AddressSpaces addressSpaces() const { return {kLocalAddressSpace, kGlobalAddressSpace}; }

    // InvalidArgument: address space, pool or sub-pool cannot be; Busy: overlaps what the message names; Exhausted.
    virtual Result<PoolReply> requestPool(const PoolRequest& request) = 0;

    // Takes the pool's leases along. While a network uses the pool it is released when the network is deleted.
    virtual Result<void> releasePool(const PoolId& poolId) = 0;

    // The address with the pool's prefix length. NotFound: no such pool; InvalidArgument: the address is outside of
    // it or reserved; Busy: held by whom the message names; Exhausted: the message says how many leases are held.
    virtual Result<IpPrefix> requestAddress(const AddressRequest& request) = 0;

    // Ignored while the address is a gateway, aux address or living endpoint of a network: that is a rolled-back
    // duplicate's release, not the owner's.
    virtual Result<void> releaseAddress(const PoolId& poolId, const IpAddress& address) = 0;
};

}  // namespace weft::ipam
