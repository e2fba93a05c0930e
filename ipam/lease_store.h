// LeaseStore: where LocalIpam keeps pools and leases across restarts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"
#include "ipam/address_manager.h"

namespace weft::ipam {

enum class LeaseKind : uint8_t {
    Endpoint = 0,
    Gateway = 1,
    Aux = 2,
};

struct PoolRecord {
    PoolId id;
    std::string addressSpace;
    IpPrefix pool;
    std::optional<IpPrefix> subPool;
    NetworkId network;      // empty: attached to none of weft's networks
    bool released = false;  // by the engine, while attached

    bool operator==(const PoolRecord&) const = default;
};

struct LeaseKey {
    PoolId poolId;
    IpAddress address;

    auto operator<=>(const LeaseKey&) const = default;
};

struct LeaseRecord {
    LeaseKey key;
    LeaseKind kind = LeaseKind::Endpoint;

    bool operator==(const LeaseRecord&) const = default;
};

// Whole content at start.
struct StoredIpam {
    std::optional<IpPrefix> sitePrefix;  // the host's own /48 of unique local addresses
    std::vector<PoolRecord> pools;
    std::vector<LeaseRecord> leases;  // of those pools only
};

// Applied as one: all or nothing.
struct IpamChange {
    std::optional<IpPrefix> sitePrefix;
    std::vector<PoolRecord> putPools;  // new or replaced
    std::vector<PoolId> erasePools;    // with their leases
    std::vector<LeaseRecord> putLeases;
    std::vector<LeaseKey> eraseLeases;
};

class LeaseStore {
public:
    virtual ~LeaseStore() = default;

    virtual Result<StoredIpam> load() = 0;

    // Returns once the change is on disk. Any thread. After an error nothing of it counts.
    virtual Result<void> apply(const IpamChange& change) = 0;
};

}  // namespace weft::ipam
