// OverlayView: the hosts there are and what they say of overlay networks, kept by a watch of the gossip store. A host
// whose weftd has gone stays in it with the last it said, for its containers run on, until it is forgotten.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "drivers/overlay/host_memory.h"
#include "drivers/overlay/host_plan.h"
#include "drivers/overlay/overlay_plan.h"
#include "drivers/overlay/overlay_rows.h"
#include "drivers/overlay/tunnel_plan.h"
#include "kv/member.h"
#include "kv/table.h"

namespace weft {

// What changed of a network.
struct OverlayChanges {
    bool all = false;  // claims, hosts, or who knows
    // Of rows of containers that came, changed or went.
    std::set<MacAddress> macs;
    std::set<IpAddress> addresses;
    std::set<EndpointId> own;  // containers of this host

    void add(const EndpointRow& row);
};

// Any thread; never blocks on more than its own mutex, so that the store's thread may call apply().
class OverlayView {
public:
    void apply(kv::RowEvent event, const kv::Row& row);
    void onMember(const kv::Member& member);  // another host

    void remember(const kv::NodeId& id, const RememberedHost& host);  // of an earlier life, unless it is known
    void forget(const kv::NodeId& id);                                // with its rows

    // Of hosts that may send into tunnels: those whose kernels are there, but strangers to the ledger.
    [[nodiscard]] std::set<IpAddress> addresses() const;
    // Of hosts that are away, where no other host is.
    [[nodiscard]] std::set<IpAddress> awayAddresses() const;
    struct Echo {
        EchoRow row;
        bool silent = false;  // its weftd has not answered lately
    };
    [[nodiscard]] std::map<kv::NodeId, Echo> echoes() const;  // of the other hosts
    [[nodiscard]] std::optional<EchoRow> echo(const kv::NodeId& host) const;
    // Of silent hosts, those whose kernels answer.
    void setAnswering(const std::set<kv::NodeId>& hosts);
    struct KnownHost {
        std::string name;
        IpAddress address;
        Presence presence = Presence::Here;
    };
    // The other hosts, also those that the gossip store has forgotten and that are remembered.
    [[nodiscard]] std::map<kv::NodeId, KnownHost> hosts() const;
    [[nodiscard]] bool isAway(const kv::NodeId& host) const;  // with its kernel

    [[nodiscard]] std::map<kv::NodeId, TunnelPlan::Peer> peers() const;  // whose weftd is there
    // Waits until hosts are others than at `seen`, which is brought up to date, or the time is over.
    // False after stop().
    bool awaitHosts(uint64_t& seen, std::chrono::nanoseconds patience);

    [[nodiscard]] OverlayClaims claims() const;
    // Those of the network, and of every network that has one with a VNI of these.
    [[nodiscard]] OverlayClaims claimsAround(const std::string& network) const;
    [[nodiscard]] std::vector<OverlayEndpoint> endpoints(const std::string& network) const;
    // What forwarding() needs of them to tell what becomes of these MACs and addresses. Adds addresses that change with
    // the MACs.
    [[nodiscard]] std::vector<OverlayEndpoint> endpointsAround(const std::string& network,
                                                               OverlayChanges& changes) const;
    [[nodiscard]] std::vector<OverlayEndpoint> endpointsWith(const std::string& network,
                                                             const IpAddress& address) const;
    // Networks that the host speaks of.
    [[nodiscard]] std::set<std::string> networksOf(const kv::NodeId& owner) const;

    void setLedger(std::shared_ptr<const LedgerFacts> facts);
    [[nodiscard]] std::shared_ptr<const LedgerFacts> ledger() const;

    // Networks to look at again; those that change are marked by themselves.
    void mark(const std::string& network);
    void mark(const std::string& network, const EndpointId& own);
    // Waits for some or for a host that came or went, at most that long when it is given; none after stop().
    std::optional<std::map<std::string, OverlayChanges>> takeMarked(
        std::optional<std::chrono::nanoseconds> patience = {});
    void stop();

private:
    using Owned = std::pair<kv::NodeId, std::string>;  // owner, key

    struct Endpoints {
        std::map<Owned, EndpointRow> rows;
        std::multimap<MacAddress, const Owned*> byMac;
        std::multimap<IpAddress, const Owned*> byAddress;
    };

    struct Host {
        kv::MemberRecord record;
        bool gone = false;     // its weftd
        bool silent = false;   // gone, or suspected
        bool answers = false;  // silent, but its kernel answers
        bool operator==(const Host&) const = default;

        [[nodiscard]] Presence presence() const;
    };

    void hostsChanged();
    void markNetworksOf(const kv::NodeId& owner);
    [[nodiscard]] std::set<std::string> namesOf(const kv::NodeId& owner) const;
    [[nodiscard]] bool isAbsent(const kv::NodeId& owner) const;
    void setClaim(const std::string& network, const kv::NodeId& owner, std::optional<NetworkClaim> claim);
    void setEndpoint(const std::string& network, const Owned& owned, const std::optional<EndpointRow>& row);

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::map<kv::NodeId, Host> hosts_;
    std::map<kv::NodeId, ProbeRow> probes_;
    std::map<kv::NodeId, EchoRow> echoes_;
    uint64_t generation_ = 1;       // of the three
    uint64_t takenGeneration_ = 0;  // by takeMarked()
    std::shared_ptr<const LedgerFacts> ledger_ = std::make_shared<LedgerFacts>();
    std::map<std::string, std::map<kv::NodeId, NetworkClaim>> claims_;
    std::map<uint32_t, std::multiset<std::string>> byVni_;  // networks with such a claim, once a claim
    std::map<std::string, Endpoints> endpoints_;
    std::map<std::string, OverlayChanges> marked_;
    bool stopping_ = false;
};

}  // namespace weft
