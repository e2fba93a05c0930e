// OverlayDriver: a network over many hosts. On each host it is a bridge network, which BridgeDriver keeps, with one
// port more: a vxlan link whose tables hold the containers of the other hosts. What the others have is read from the
// gossip store, and what this host has is written there. See README.md beside this file.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "drivers/bridge/bridge_driver.h"
#include "drivers/context.h"
#include "drivers/overlay/host_memory.h"
#include "drivers/overlay/host_watch.h"
#include "drivers/overlay/overlay_view.h"
#include "drivers/overlay/tunnel_probe.h"
#include "drivers/sweep.h"
#include "kv/own_rows.h"
#include "kv/runner.h"

namespace weft {

struct OverlayConfig {
    IpAddress vtep;        // where the other hosts send frames to: an address of this host
    uint16_t port = 4789;  // UDP, the same on all hosts
    // Of the outer packets, by a hash of the inner flow (RFC 7348, section 5).
    std::pair<uint16_t, uint16_t> sourcePorts{49152, 65535};
    // There may be other hosts: the ways to them are examined, and the port takes packets from them only, whether this
    // host has networks or not.
    bool clustered = false;
    // Networks are a Swarm's alone: it says which there are, and gives out their addresses.
    bool swarm = false;
    // What the hosts' ledger says, another pointer when that changes; must not wait. Empty: nothing.
    std::function<std::shared_ptr<const LedgerFacts>()> ledger = {};
    // Null: hosts that are away are known as long as this process and the store do.
    std::shared_ptr<HostMemory> memory = {};
};

// For weftctl.
struct OverlayStatus {
    NetworkId id;
    std::string name;
    uint32_t vni = 0;
    std::vector<IpAddress> hosts;  // VTEPs of the others that have it
    size_t remoteEndpoints = 0;
    bool fastPath = false;  // frames between containers pass no bridge and no rules of the host
    uint64_t drift = 0;     // entries that a dump found to differ, since the start
    std::string conflict;   // not empty: why it is apart from hosts that have the name as well,
    std::string advice;     // and what to do
};

// What this host knows of the way to a container of another, and what its kernel has of it: for weftctl trace.
struct OverlayWay {
    OverlayStatus status;
    uint32_t overhead = 0;            // of a frame in the tunnel, bytes
    uint16_t port = 0;                // UDP
    std::optional<kv::NodeId> owner;  // the host whose row has the address; none: no row of a host that is there
    EndpointRow row;
    std::optional<IpAddress> vtep;  // of that host; none: it is not in this network with us
    std::optional<net::Link> tunnel;
    std::optional<IpAddress> remote;      // where the tunnel sends what is for the row's MAC
    bool floods = false;                  // the host gets what the tunnel has no entry for
    bool atTunnel = false;                // the bridge sends that to the tunnel
    std::optional<MacAddress> neighbour;  // what the bridge answers to who asks for the address
};

using EngineKnows = std::function<Result<bool>(const NetworkId&)>;

class OverlayDriver final : public NetworkDriver,
                            public ExternalConnectivity,
                            public SwarmAllocation,
                            public Reconcilable,
                            public Inspectable {
public:
    static constexpr std::string_view kMode = BridgeDriver::kOverlayMode;

    // All must outlive it. Makes `bridge` carry overlay networks with addresses from `pools`; call it before anybody
    // calls `bridge`.
    static Result<std::unique_ptr<OverlayDriver>> create(DriverContext context, BridgeDriver& bridge,
                                                         kv::Runner& runner, OverlayConfig config,
                                                         ipam::PoolBook& pools);
    ~OverlayDriver() override;

    Result<void> createNetwork(const CreateNetworkRequest& request) override;
    Result<void> deleteNetwork(const NetworkId& networkId) override;
    Result<CreateEndpointReply> createEndpoint(const CreateEndpointRequest& request) override;
    Result<void> deleteEndpoint(const NetworkId& networkId, const EndpointId& endpointId) override;
    Result<JoinReply> join(const JoinRequest& request) override { return bridge_.join(request); }
    Result<void> leave(const NetworkId& networkId, const EndpointId& endpointId) override {
        return bridge_.leave(networkId, endpointId);
    }
    Result<void> programExternalConnectivity(const ProgramExternalConnectivityRequest& request) override {
        return bridge_.programExternalConnectivity(request);
    }
    Result<void> revokeExternalConnectivity(const NetworkId& networkId, const EndpointId& endpointId) override {
        return bridge_.revokeExternalConnectivity(networkId, endpointId);
    }

    // Names the network by its ID unless the user did, and chooses its VNI.
    Result<std::map<std::string, std::string>> allocateNetwork(const AllocateNetworkRequest& request) override;
    Result<void> freeNetwork(const NetworkId& networkId) override;

    // What a person should know of this host's part.
    [[nodiscard]] std::vector<std::string> warnings() const;

    // Removes the network of that name if no container is on it and `known` says that the engine has it not: then the
    // engine forgot it while weftd could not be told.
    Result<void> removeForgotten(const std::string& name, const EngineKnows& known);

    // The tunnels, their tables against a dump, and this host's rows; after the bridge driver's.
    Result<std::vector<Repair>> reconcile(bool dryRun) override;

    [[nodiscard]] std::vector<NetworkInfo> networks() const override { return networkInfos(context_.records, kMode); }
    [[nodiscard]] std::vector<EndpointInfo> endpoints() const override {
        return endpointInfos(context_.records, kMode);
    }
    [[nodiscard]] std::vector<OverlayStatus> status() const;
    [[nodiscard]] TunnelReport tunnels() const;
    // Any thread, does not wait.
    [[nodiscard]] std::map<kv::NodeId, OverlayView::KnownHost> hosts() const { return view_->hosts(); }
    [[nodiscard]] bool isAway(const kv::NodeId& host) const { return view_->isAway(host); }
    [[nodiscard]] const std::shared_ptr<HostMemory>& memory() const { return config_.memory; }
    // Why it is not known whether hosts without their weftd are there; empty: it is. None: not clustered.
    [[nodiscard]] std::optional<std::string> hostWatchTrouble() const {
        return hostWatch_ ? std::optional(hostWatch_->trouble()) : std::nullopt;
    }

    // NotFound for a network that is not of this mode.
    [[nodiscard]] Result<OverlayWay> wayTo(const NetworkId& networkId, const IpAddress& address) const;

    // By records alone, any thread. The name on all hosts of a Docker network of this mode.
    [[nodiscard]] std::optional<std::string> overlayName(const NetworkId& networkId) const;
    struct Surroundings {
        std::string network;  // its name on all hosts
        bool internal = false;
    };
    // The network with `container` in a subnet and `gateway` as its own address; with `bridge` not empty on that link.
    [[nodiscard]] std::optional<Surroundings> networkAround(const IpAddress& container, const IpAddress& gateway,
                                                            const std::string& bridge) const;

private:
    // Entries of the kernel's tables.
    struct Tables {
        std::set<net::FdbEntry> fdb;  // of the vxlan link and of the bridge for it
        std::set<net::Neighbour> neighbours;
    };
    // A network's record and what was read from it.
    struct Network {
        NetworkPtr record;
        BridgeOptions options;
        NetworkClaim claim;  // as this host makes it
        MacAddress gateway;

        [[nodiscard]] const NetworkId& id() const { return record->request.networkId; }
        [[nodiscard]] const std::string& name() const { return options.overlay; }
    };
    struct Tunnel {
        // Of all below; held by who changes the tunnel. May wait for a network's lock, not vice versa.
        std::timed_mutex mutex;
        bool removed = false;
        net::LinkIndex link = 0;
        net::LinkIndex bridge = 0;
        Tables tables;
        std::map<IpAddress, size_t> remotes;  // hosts that `tables` sends to, and by how many entries
        // As the last whole look left it; none: none was had yet, or it failed.
        std::optional<Network> network;
        OverlayAgreement agreement;
        std::map<EndpointId, EndpointRow> published;
        OverlayStatus status;

        void setTables(Tables now);
        void count(const net::FdbEntry& entry, bool comes);
    };
    using TunnelPtr = std::shared_ptr<Tunnel>;
    // What others may see of a tunnel while it is worked on.
    struct Shown {
        OverlayStatus status;
        net::LinkIndex link = 0;
        net::LinkIndex bridge = 0;
        std::set<IpAddress> remotes;
        OverlayAgreement agreement;
    };

    OverlayDriver(DriverContext context, BridgeDriver& bridge, kv::Runner& runner, OverlayConfig config);
    void work();

    Result<Network> read(NetworkPtr record) const;
    [[nodiscard]] NetworkPtr find(const std::string& name) const;
    [[nodiscard]] Result<void> checkPools(const CreateNetworkRequest& request) const;
    [[nodiscard]] NetworkClaim claimOf(const std::vector<IpamData>& subnets, bool internal) const;
    // Makes the claim agree with those of others, or refuses it.
    Result<void> settle(NetworkClaim& claim, const std::string& name, uint32_t presetVni) const;
    // The largest MTU of containers that reaches every host known.
    Result<uint32_t> largestMtu() const;
    [[nodiscard]] uint32_t overhead() const { return config_.vtep.isV4() ? 50 : 70; }
    [[nodiscard]] uint64_t stampOf(Clock::Wall time) const;

    TunnelPtr tunnelOf(const NetworkId& networkId);
    // Looks at everything of the network. With no tunnel's lock held.
    Result<void> refresh(const NetworkPtr& record);

    // With the tunnel's lock held.
    Result<void> refresh(const NetworkPtr& record, Tunnel& tunnel);
    Result<void> refresh(Tunnel& tunnel, OverlayChanges& changes);
    void show(const Tunnel& tunnel);
    Result<void> keepVni(Network& network, uint32_t vni);
    Result<void> ensureTunnel(const Network& network, uint32_t vni, Tunnel& tunnel);
    [[nodiscard]] LocalEndpoints localTo(const Network& network) const;
    [[nodiscard]] static Tables tablesOf(const Forwarding& wanted, const Tunnel& tunnel);
    // Makes `wanted` of `had`, which are a part of the tunnel's tables.
    Result<void> program(Tunnel& tunnel, const Tables& had, const Tables& wanted);
    Result<void> readTables(Tunnel& tunnel);
    Result<Tables> dump(net::LinkIndex link, net::LinkIndex bridge) const;
    // After program(): the fast path's table, and the program at the tunnel's port. Those of containers are the bridge
    // driver's.
    void shorten(const Network& network, Tunnel& tunnel) const;
    void shorten(Tunnel& tunnel, const std::set<MacAddress>& changed) const;
    // What the kernel has and no row speaks of is kept for a while after the start: the rows of the others come within
    // a second, and the containers here talk to them meanwhile.
    void keepUnknown(const Network& network, const Tables& before, Tables& wanted) const;
    void publish(const Network& network, Tunnel& tunnel);
    void publish(Tunnel& tunnel, const EndpointId& own, OverlayChanges& changes);
    [[nodiscard]] std::optional<EndpointRow> rowOf(const EndpointPtr& endpoint) const;
    void unlearn(const Tunnel& tunnel, const EndpointRow& row);
    Result<void> removeTunnel(const NetworkId& networkId);
    void sweepNetwork(const NetworkPtr& record, Tunnel& tunnel, Sweep& sweep);

    // Lets the other hosts send into the tunnels, and nobody else.
    Result<void> guard();
    void findUplink();
    void startProbe(uint32_t epoch);
    Result<void> startHostWatch();
    // Of what this host's networks have, else could have.
    Result<uint32_t> probeMtu() const;
    [[nodiscard]] net::VxlanSettings tunnelSettings(uint32_t vni) const;
    Result<void> setOffload(bool on);
    void adoptTunnels();
    void withdraw(const std::string& name);
    void sweepTunnels(Sweep& sweep);  // with links_ held

    // Locks in order: creating_, a tunnel's, links_, guarding_, shownMutex_.
    DriverContext context_;
    BridgeDriver& bridge_;
    kv::Runner& runner_;
    OverlayConfig config_;
    kv::NodeId self_;
    kv::WatchId watch_ = 0;
    std::shared_ptr<OverlayView> view_ = std::make_shared<OverlayView>();

    std::timed_mutex creating_;
    // With creating_ held. Of networks this manager allocated: some may be on no node yet. Not kept over a restart:
    // then two networks without a task could be given the same VNI, and the second is refused where its first task is.
    std::map<NetworkId, std::pair<std::string, uint32_t>> allocated_;  // name, VNI

    kv::OwnRows rows_;
    std::atomic<Clock::Monotonic> settled_{};  // until then rows of others may be on their way
    std::atomic<bool> offload_ = true;         // tunnels leave checksums to what is below them
    std::timed_mutex links_;                   // held by who makes vxlan links, or removes those that are nobody's
    std::timed_mutex guarding_;
    firewall::Tunnel guard_;         // with guarding_ held
    std::string uplink_;             // the link that has config_.vtep; the same
    mutable std::mutex shownMutex_;  // never held while anything is waited for
    std::map<NetworkId, TunnelPtr> tunnels_;
    std::map<NetworkId, Shown> shown_;
    std::map<std::string, NetworkId> names_;  // of networks that have a record, or soon will

    std::thread worker_;
    std::unique_ptr<TunnelProbe> probe_;    // null: not clustered
    std::unique_ptr<HostWatch> hostWatch_;  // null: not clustered
};

}  // namespace weft
