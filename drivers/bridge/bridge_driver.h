// BridgeDriver: a bridge for each network, a veth pair for each endpoint, published ports by the firewall.
//
// The records are the intent; every handler writes its record, brings the kernel there, and answers when both are done.
// reconcile() brings the kernel there again after whatever happened. See README.md beside this file.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/deadline.h"
#include "drivers/ages.h"
#include "drivers/bridge/bridge_options.h"
#include "drivers/context.h"
#include "drivers/inspect.h"
#include "drivers/link_remover.h"
#include "drivers/network_driver.h"
#include "drivers/port_book.h"
#include "drivers/port_plan.h"
#include "drivers/sweep.h"

namespace weft {

class BridgeDriver final : public NetworkDriver, public ExternalConnectivity, public Reconcilable, public Inspectable {
public:
    static constexpr std::string_view kMode = "bridge";

    // After these an endpoint that the engine began and never finished is released.
    static constexpr std::chrono::seconds kUnjoinedGrace{60};
    static constexpr std::chrono::seconds kLeftGrace{60};
    // Joined, and the engine has not moved the link: engines up to 27 do so when the runtime calls back.
    static constexpr std::chrono::seconds kUnmovedGrace{300};
    static constexpr std::chrono::seconds kOrphanGrace{30};

    static Result<std::unique_ptr<BridgeDriver>> create(DriverContext context);

    // --- for overlay mode: its networks are bridges with one port more, and their records are in this driver's hands,
    // so that rules, host ports and addresses of both modes are kept in one place. ---
    static constexpr std::string_view kOverlayMode = "overlay";
    // The pools of overlay networks; before any call and reconcile. `pools` must outlive the driver.
    void carryOverlays(ipam::PoolBook& pools) { overlayPools_ = &pools; }
    // createNetwork with this MTU (of the containers) and these notes in its record.
    Result<void> createOverlay(const CreateNetworkRequest& request, uint32_t mtu, std::string notes);

    Result<void> createNetwork(const CreateNetworkRequest& request) override;
    Result<void> deleteNetwork(const NetworkId& networkId) override;
    Result<CreateEndpointReply> createEndpoint(const CreateEndpointRequest& request) override;
    Result<void> deleteEndpoint(const NetworkId& networkId, const EndpointId& endpointId) override;
    Result<JoinReply> join(const JoinRequest& request) override;
    Result<void> leave(const NetworkId& networkId, const EndpointId& endpointId) override;

    Result<void> programExternalConnectivity(const ProgramExternalConnectivityRequest& request) override;
    Result<void> revokeExternalConnectivity(const NetworkId& networkId, const EndpointId& endpointId) override;

    // The first call, before the sockets answer, also restores port reservations and lease bindings, and removes
    // leftovers at once: no handler is under way.
    Result<std::vector<Repair>> reconcile(bool dryRun) override;

    // What the rules are to do, by the records.
    [[nodiscard]] firewall::Intent intent() const;

    // Networks whose record cannot be read (its options are of another weft, or were edited), and why. Their rules let
    // nothing in or out until the record is readable again or the network is removed.
    [[nodiscard]] std::vector<std::pair<NetworkId, Error>> unreadable() const;

    // Only the rules: quick, for when a notification says that somebody touched them.
    Result<std::vector<Repair>> reconcileFirewall(bool dryRun);

    // Made in this kernel instance, and its link is there. Any thread, without locks: for LocalIpamHooks.
    bool isAlive(const EndpointId& endpointId);

    [[nodiscard]] std::vector<NetworkInfo> networks() const override { return networkInfos(context_.records, kMode); }
    [[nodiscard]] std::vector<EndpointInfo> endpoints() const override {
        return endpointInfos(context_.records, kMode);
    }

private:
    // A record with its options read.
    struct Network {
        NetworkPtr record;
        BridgeOptions options;
        std::vector<IpamData> subnets;

        [[nodiscard]] const NetworkId& id() const { return record->request.networkId; }
        [[nodiscard]] const CreateNetworkRequest& request() const { return record->request; }
        [[nodiscard]] const IpamData* subnetOf(const IpAddress& address) const;
        // What its containers have as their gateway.
        [[nodiscard]] std::optional<IpAddress> gatewayFor(const std::optional<IpPrefix>& address) const;
    };
    using Links = std::map<std::string, net::Link, std::less<>>;
    // What the links of a network's endpoints have in common.
    struct Ports {
        std::optional<net::Link> bridge;
        net::PortFlags flags;
    };

    BridgeDriver(DriverContext context, std::string instance);

    static bool isMine(const NetworkPtr& record) {
        return record && (record->mode == kMode || record->mode == kOverlayMode);
    }
    [[nodiscard]] std::vector<NetworkPtr> myNetworks() const;
    [[nodiscard]] ipam::PoolBook& poolsOf(const NetworkRecord& record) const;
    [[nodiscard]] ipam::PoolBook& poolsOf(const NetworkId& networkId) const;
    Result<void> makeNetwork(NetworkRecord draft);
    static Result<Network> read(NetworkPtr record);
    Result<Network> load(const NetworkId& networkId) const;
    static firewall::Network rulesOf(const Network& network);
    static firewall::Network closedRulesOf(const NetworkRecord& record);
    static firewall::Endpoint rulesOf(const EndpointRecord& endpoint);
    // Network
    Result<void> checkSubnets(const Network& network);
    Result<void> checkLink(const Network& network);
    void removeOrphanBridges();
    // Creates or heals the bridge. Notes in the record which addresses it gave to a bridge that is not weft's.
    void ensureBridge(Network& network, Sweep& sweep);
    // Not before the engine is up: an engine that finds forwarding off turns it on and only then sets the policy of
    // FORWARD to DROP, which its own networks rely on. After a boot weftd is there first.
    void ensureForwarding(const Network& network, Sweep& sweep);
    // A container joined it in this kernel instance, so the engine is up or was.
    [[nodiscard]] bool hasRunning(const NetworkId& networkId) const;
    Result<void> removeBridge(const NetworkRecord& record);
    Result<void> removeNetwork(const NetworkRecord& record);

    // Endpoint
    static Result<void> checkAddresses(const Network& network, const CreateEndpointRequest& request);
    Result<void> claim(const EndpointPtr& holder, const EndpointId& self, const std::string& what);
    bool isAlive(const EndpointRecord& endpoint);
    // Whether the engine has taken the link from the container, and its Leave never came: it gives up after some 15 s
    // without a daemon. The container's end has been up, in the sandbox, and is back at the host.
    static bool cameBack(const EndpointRecord& endpoint, const net::Link& link);
    Result<void> addLink(Network& network, const EndpointRecord& endpoint);
    Result<void> removeLink(const EndpointRecord& endpoint);
    // The program at the port, and the port's own MAC in the bridge's table, which no other port can take.
    Result<void> guardPort(const Network& network, const EndpointRecord& endpoint, net::LinkIndex port,
                           const net::Link& bridge);
    Result<void> release(const EndpointRecord& endpoint);
    void announce(const Network& network, const EndpointRecord& endpoint);
    void rememberMac(const EndpointRecord& endpoint);
    [[nodiscard]] net::PortFlags portFlags(const BridgeOptions& options) const;

    // Ports
    Result<void> publish(const Network& network, const EndpointRecord& endpoint, const PortOptions& ports);
    Result<void> withdraw(const EndpointRecord& endpoint);
    Result<void> revokeLocked(const EndpointRecord& endpoint);
    Result<net::PortReservation> reserve(const NetworkId& networkId, const PortWish& wish);
    void flushUnmapped(const EndpointRecord& endpoint);
    EndpointPtr portHolder(const PortWish& wish) const;
    bool releaseIfDead(const EndpointPtr& holder, const NetworkId& locked);
    Result<void> holdPorts(const EndpointRecord& endpoint);

    // Rules
    Result<std::shared_lock<std::shared_timed_mutex>> lockRules();  // Busy when the call has to end
    // Before whatever adds rules: a back end that does not know what an earlier process left would replace it.
    Result<void> ensureSynced();

    // Reconciliation
    void sweepNetwork(const NetworkPtr& record, const Links& links, bool givenBack, const Deadline& patience,
                      Sweep& sweep);
    void sweepEndpoint(const Network& network, const EndpointRecord& record, const Ports& ports, const Links& links,
                       Sweep& sweep);
    void sweepGuard(const Network& network, const EndpointRecord& record, const Ports& ports, const net::Link& link,
                    bool guarded, Sweep& sweep);
    [[nodiscard]] bool isOrphan(const net::Link& link) const;
    void sweepOrphans(const Links& links, Sweep& sweep);
    void sweepPools(ipam::PoolBook& pools, Sweep& sweep) const;

    DriverContext context_;
    ipam::PoolBook* overlayPools_ = nullptr;
    std::string instance_;  // of the host's namespace, now
    LinkRemover remover_;
    PortBook book_;

    std::timed_mutex creating_;  // one network at a time is checked against all others

    // Shared by who changes the rules of one network or endpoint together with its record, exclusive for who makes the
    // rules equal to all records. The gate is shut while that one waits: a stream of others would keep it out for ever.
    std::shared_timed_mutex rules_;
    std::timed_mutex rulesGate_;
    std::atomic<bool> synced_{false};  // the back end knows what is in the kernel

    std::mutex staleMutex_;
    // MACs that users chose, of addresses that are free again: neighbours may still have them in their caches.
    std::map<std::pair<NetworkId, IpAddress>, MacAddress> staleMacs_;

    std::mutex sweeping_;
    bool started_ = false;  // the first sweep is done
    Ages ages_;
    std::map<std::string, Clock::Monotonic> orphans_;  // link name: first seen
};

}  // namespace weft
