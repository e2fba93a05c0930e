// ClusterIpam: addresses of pools that many hosts share. Answers every call from this host's own blocks where it can.
//
// A pool is known by its prefix: equal --subnet on two hosts is one pool. Its gateway is the same on every host. What
// the drivers tell (attachPool, bindLease, ...) means the same as in LocalIpam. The protocol between hosts is
// BlockAllocator's (block_allocator.h, docs/ipam.md).
//
// Any thread, never the gossip node's. Blocks on the disk, and up to `patience`, within a call (CallDeadline) not
// beyond it, for blocks of other hosts. Takes a turn on the node's thread every ten seconds, and ten times a second
// while something is being waited for.
//
// For the daemon: one of them, with tables of its own in the database (schemaComponent() has them), after the
// kv::Service has started and gone before it ends. At start, before the sockets answer: attachPool and restoreBindings
// for every network, then detachForgotten; later collect() every few seconds, as with LocalIpam.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "ipam/address_manager.h"
#include "ipam/evidence.h"
#include "ipam/lease_store.h"
#include "ipam/ledger_facts.h"
#include "ipam/local_ipam.h"
#include "ipam/pool_book.h"
#include "ipam/shared_pool.h"
#include "kv/runner.h"

namespace weft::ipam {

inline constexpr const char* kOverlayLocalAddressSpace = "weft-overlay-local";
inline constexpr const char* kOverlayGlobalAddressSpace = "weft-overlay-global";

struct ClusterIpamConfig {
    // Addresses of --join, resolved; none while a name is not resolved. Without any but this host's own this host may
    // be the first of a cluster; else it waits until it has met the others. Empty function: no seeds.
    std::function<std::optional<std::vector<kv::Address>>()> seeds;
    bool alone = false;  // there are no other hosts
    Evidence evidence;   // as in BlockAllocator
    std::chrono::milliseconds patience{4500};
    std::chrono::seconds quarantine{60};
};

class ClusterIpam final : public AddressManager, public PoolBook {
public:
    // `runner`, `store` (DatabaseLeaseStore(database, "ipam_cluster")) and `clock` must outlive it. Hooks: LocalIpam's.
    static Result<std::unique_ptr<ClusterIpam>> create(kv::Runner& runner, LeaseStore& store, const Clock& clock,
                                                       ClusterIpamConfig config = {}, LocalIpamHooks hooks = {});
    ~ClusterIpam() override;

    [[nodiscard]] AddressSpaces addressSpaces() const override {
        return {kOverlayLocalAddressSpace, kOverlayGlobalAddressSpace};
    }
    // A subnet is required: hosts know a pool by it.
    Result<PoolReply> requestPool(const PoolRequest& request) override;
    Result<void> releasePool(const PoolId& poolId) override;
    // Unavailable: the hosts that could give addresses are away, as the message says.
    Result<IpPrefix> requestAddress(const AddressRequest& request) override;
    Result<void> releaseAddress(const PoolId& poolId, const IpAddress& address) override;

    // As in LocalIpam, but what this host does not hold is not leased anew.
    Result<bool> attachPool(const NetworkId& networkId, const std::string& addressSpace, const IpPrefix& pool,
                            std::span<const IpAddress> reserved) override;
    Result<void> detachPools(const NetworkId& networkId) override;
    Result<std::vector<NetworkId>> detachForgotten(std::span<const NetworkId> known);
    Result<void> bindLease(const NetworkId& networkId, const IpAddress& address, const EndpointId& endpointId) override;
    void unbindLease(const NetworkId& networkId, const IpAddress& address, const EndpointId& endpointId) override;
    Result<void> restoreBindings(const NetworkId& networkId,
                                 std::span<const std::pair<IpAddress, EndpointId>> bindings) override;
    Result<std::vector<CollectedLease>> collect();
    [[nodiscard]] std::vector<PoolInfo> listPools() const override;
    [[nodiscard]] std::vector<LeaseInfo> listLeases(const PoolId& poolId = {}) const;

    // `weftctl node forget`: gives up a dead host for ever, and a living one gets its blocks, once. Again: success, no
    // effect. `host` is a node name or id. Busy: it is alive; NotFound; Unavailable: not done yet, and who is missing;
    // it goes on by itself until weftd restarts. `force`: where half of the hosts are gone. Ask the operator first:
    // forgetRisk says what.
    Result<std::string> forgetNode(const std::string& host, bool force);
    [[nodiscard]] static std::string forgetRisk(const std::string& host);

    // For weftctl: the pools of the cluster and who holds them; and the same in lines of text, with the state of the
    // agreement among the hosts.
    [[nodiscard]] Result<std::vector<SharedPool>> sharedPools() const;
    [[nodiscard]] Result<std::string> describe() const;

    // As of a moment ago. Any thread, the gossip node's too; never waits, never null.
    [[nodiscard]] std::shared_ptr<const LedgerFacts> facts() const;

private:
    struct State;
    explicit ClusterIpam(std::unique_ptr<State> state);
    Result<IpAddress> gatewayOf(const IpPrefix& prefix, std::optional<IpAddress> given);
    std::unique_ptr<State> state_;
};

}  // namespace weft::ipam
