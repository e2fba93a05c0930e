// LocalIpam: pools and leases of one host.
//
// Who may take an address back depends on who uses it, so drivers tell which network uses a pool and which endpoint an
// address:
//   createNetwork  -> attachPool     (gateway and aux addresses are the network's until it goes)
//   createEndpoint -> bindLease      (a bound lease outlives stray releases; only a dead endpoint loses it)
//   deleteEndpoint -> unbindLease    (the engine's ReleaseAddress follows; if it got lost, collect() frees the lease)
//   deleteNetwork  -> detachPools
// Pools of networks that other drivers serve are never attached; their leases only the engine frees.
//
// Attachments are stored. Bindings are not: they follow from the drivers' endpoint records. So after a start, before
// the sockets answer, the driver calls for each of its networks attachPool (a crash may have come between the two
// records) and restoreBindings (until then collect() leaves the network's leases alone), and the daemon
// detachForgotten.
//
// Any thread. The mutex is never held while the disk is written or a callback runs: changes are reserved in memory,
// committed, then answered; what fails to commit is taken back.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"
#include "ipam/address_manager.h"
#include "ipam/lease_store.h"
#include "ipam/pool.h"
#include "ipam/pool_book.h"
#include "ipam/subnets.h"

namespace weft::ipam {

// A prefix some pool must not overlap, and what holds it, for messages: "route on eth0", "resolver".
struct Occupied {
    IpPrefix prefix;
    std::string holder;
};

struct LocalIpamConfig {
    // Tried in order. Empty: 4,096 /24s of 10.208.0.0/12, out of the way of Docker's own defaults and of the pod
    // networks common with Kubernetes.
    std::vector<DefaultRange> defaultsV4;
    // Empty: 65,536 /64s of the host's own random unique local /48 (RFC 4193).
    std::vector<DefaultRange> defaultsV6;

    // Pools are shared with other hosts: only what hold() named is given out, but for gateways.
    bool onlyHeld = false;

    // An explicit address asked for again within this time, and not bound yet, counts as the engine's retry.
    std::chrono::seconds retryWindow{30};
    // A released address is not chosen again within this time unless nothing else is free.
    std::chrono::seconds quarantine{60};
    // Leases no endpoint took, or none holds any more, are freed after this time.
    std::chrono::seconds unboundGrace{60};
};

// Called without locks held; must not call back into LocalIpam. Each may be empty.
struct LocalIpamHooks {
    // Host routes and resolvers, without default routes and the routes of weft's own networks.
    std::function<Result<std::vector<Occupied>>()> occupied;
    // Whether a driver still has the endpoint. Empty: all are alive. Not asked within retryWindow after bindLease, so
    // a driver may bind before it records the endpoint.
    std::function<bool(const EndpointId&)> endpointIsAlive;
    // A dead endpoint lost its address to a new request or to collect().
    std::function<void(const EndpointId&, const IpAddress&)> bindingReleased;
    std::function<uint64_t()> random;  // empty: the system's
};

struct PoolInfo {
    PoolRecord record;
    Uint128 used = 0;       // leases of any kind
    Uint128 free = 0;       // still to be chosen from: of the sub-pool, if any
    Uint128 endpoints = 0;  // distinct living endpoints that hold leases
};

struct LeaseInfo {
    LeaseRecord record;
    EndpointId endpoint;          // empty: not bound
    std::chrono::seconds age{0};  // since the request, binding, unbinding or start of the daemon
};

// A lease that collect() freed.
struct CollectedLease {
    LeaseKey key;
    EndpointId endpoint;  // the dead endpoint that held it; empty: nobody
};

class LocalIpam final : public AddressManager, public PoolBook {
public:
    // Loads the store. `store` and `clock` must outlive it.
    static Result<std::unique_ptr<LocalIpam>> create(LeaseStore& store, const Clock& clock, LocalIpamConfig config = {},
                                                     LocalIpamHooks hooks = {});
    ~LocalIpam() override;

    Result<PoolReply> requestPool(const PoolRequest& request) override;
    Result<void> releasePool(const PoolId& poolId) override;
    Result<IpPrefix> requestAddress(const AddressRequest& request) override;
    Result<void> releaseAddress(const PoolId& poolId, const IpAddress& address) override;

    Result<bool> attachPool(const NetworkId& networkId, const std::string& addressSpace, const IpPrefix& pool,
                            std::span<const IpAddress> reserved) override;
    Result<void> detachPools(const NetworkId& networkId) override;

    // After a start, when all drivers have loaded: detaches the pools of networks that none of them knows (killed
    // between attachPool and recording the network). Returns those networks.
    Result<std::vector<NetworkId>> detachForgotten(std::span<const NetworkId> known);

    Result<void> bindLease(const NetworkId& networkId, const IpAddress& address, const EndpointId& endpointId) override;
    void unbindLease(const NetworkId& networkId, const IpAddress& address, const EndpointId& endpointId) override;
    Result<void> restoreBindings(const NetworkId& networkId,
                                 std::span<const std::pair<IpAddress, EndpointId>> bindings) override;

    // Frees, after the grace time, leases of attached pools that no living endpoint holds, and pools whose network was
    // detached and that the engine has not released since. Call it every few seconds.
    Result<std::vector<CollectedLease>> collect();

    // --- for pools shared with other hosts (onlyHeld) ---
    // What this host holds of a prefix outlives the pool's coming and going. Never blocks on the disk.
    void hold(const IpPrefix& prefix, AddressRange range, std::span<const Uint128> holes = {});
    // Gives the range up. False, and nothing happens, while a lease or quarantine is in it. Quarantine does not hold a
    // single address: somebody asked for that one.
    bool vacate(const IpPrefix& prefix, AddressRange range);
    // Gives the address out no more; a lease of it stays.
    void withhold(const IpPrefix& prefix, Uint128 address);
    // Leases of endpoints outside what is held: of an identity that this host had.
    [[nodiscard]] std::vector<std::pair<IpPrefix, IpAddress>> leasesNotHeld(size_t most) const;
    // Gives nothing of the prefix out any more; leases stay.
    void withdraw(const IpPrefix& prefix);
    [[nodiscard]] bool isVacant(const IpPrefix& prefix, AddressRange range);
    // Gives up one free address of the range, if there is one.
    std::optional<IpAddress> vacateAny(const IpPrefix& prefix, AddressRange within);
    // Whether requestAddress without address has something to choose within `within`.
    [[nodiscard]] bool isFree(const IpPrefix& prefix, const IpPrefix& within);
    // Held, without lease. Quarantine counts as free.
    [[nodiscard]] Uint128 freeHeld(const IpPrefix& prefix) const;
    [[nodiscard]] bool hasPool(const IpPrefix& prefix) const;
    [[nodiscard]] std::optional<PoolRecord> findRecord(const PoolId& poolId) const;

    [[nodiscard]] std::vector<PoolInfo> listPools() const override;
    // Ordered by pool and address; of one pool, or of all if the id is empty.
    [[nodiscard]] std::vector<LeaseInfo> listLeases(const PoolId& poolId = {}) const;

private:
    using Lock = std::unique_lock<std::mutex>;

    LocalIpam(LeaseStore& store, const Clock& clock, LocalIpamConfig config, LocalIpamHooks hooks);
    Result<void> load();

    // These wait, with the mutex released, until the pool is settled; nullptr if there is none.
    Pool* findPool(const IpPrefix& prefix) const;
    void erasePool(const PoolId& poolId);
    const HeldRanges* heldOf(const IpPrefix& prefix);
    Pool* settledPool(Lock& lock, const PoolId& poolId);
    Pool* settledOverlap(Lock& lock, const IpPrefix& prefix);
    Pool* settledPool(Lock& lock, const std::function<bool(const Pool&)>& matches);

    // Writes with the mutex released. What the change speaks of must be marked as settling.
    Result<void> commit(Lock& lock, const IpamChange& change);
    Result<void> commitNewPool(Lock& lock, const PoolRecord& record);
    Result<void> commitNewLease(Lock& lock, Pool& pool, const IpAddress& address, LeaseKind kind);
    Result<void> collectPools(Lock& lock);
    // Keeps everybody else from the pool until settle().
    void unsettle(Lock& lock, Pool& pool);
    void settle(Pool& pool);

    Result<std::vector<Occupied>> occupiedPrefixes(const PoolRequest& request) const;
    Result<PoolReply> requestGivenPool(const PoolRequest& request, std::span<const Occupied> occupied);
    Result<PoolReply> choosePool(const PoolRequest& request, std::span<const Occupied> occupied);
    PoolId newPoolId() const;

    // Asks the driver, with the mutex released.
    bool isDead(Lock& lock, const EndpointId& endpointId) const;
    bool mayBeDead(const Lease& lease) const;
    [[nodiscard]] std::chrono::seconds age(const Lease& lease) const;
    void reportReleased(const EndpointId& endpointId, const IpAddress& address) const;

    LeaseStore& store_;
    const Clock& clock_;
    LocalIpamConfig config_;
    LocalIpamHooks hooks_;

    mutable std::mutex mutex_;
    std::condition_variable settled_;  // a pool or lease is no longer in the middle of a change
    std::map<IpPrefix, HeldRanges> held_;
    std::map<PoolId, std::unique_ptr<Pool>> pools_;
    std::map<IpPrefix, Pool*> byPrefix_;  // of all, disjoint
};

}  // namespace weft::ipam
