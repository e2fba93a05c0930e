// reconcile() of bridge mode: the kernel, the leases and the ports brought back to what the records say.

#include <algorithm>
#include <chrono>

#include "base/deadline.h"
#include "drivers/bridge/bridge_driver.h"
#include "drivers/leases.h"
#include "drivers/names.h"
#include "ipam/local_ipam.h"

namespace weft {

namespace {

// A network that is busy now is looked at in the next sweep.
constexpr std::chrono::milliseconds kSweepPatience{1000};
// Of one sweep with all busy networks together: the watchdog waits for it.
constexpr std::chrono::milliseconds kPatienceOfAll{8000};

// For those who change rules now; whoever comes later waits as long.
constexpr std::chrono::milliseconds kRulesPatience{4000};
constexpr const char* kRulesBusy = "the firewall's rules are being changed";

}  // namespace

firewall::Intent BridgeDriver::intent() const {
    firewall::Intent intent;
    for (const NetworkPtr& record : myNetworks()) {
        const auto network = read(record);
        intent.networks.push_back(network ? rulesOf(*network) : closedRulesOf(*record));
        for (const EndpointPtr& endpoint : context_.records.endpoints(record->request.networkId)) {
            if (!endpoint->published.empty()) intent.endpoints.push_back(rulesOf(*endpoint));
        }
    }
    return intent;
}

std::vector<std::pair<NetworkId, Error>> BridgeDriver::unreadable() const {
    std::vector<std::pair<NetworkId, Error>> found;
    for (const NetworkPtr& record : myNetworks()) {
        if (const auto network = read(record); !network) found.emplace_back(record->request.networkId, network.error());
    }
    return found;
}

Result<std::vector<Repair>> BridgeDriver::reconcileFirewall(bool dryRun) {
    std::unique_lock rules(rules_, std::defer_lock);
    {
        const std::lock_guard gate(rulesGate_);
        if (!rules.try_lock_for(kRulesPatience)) {
            return makeError(ErrorCode::Busy, kRulesBusy);
        }
    }
    WEFT_ASSIGN(const firewall::SyncReport report, context_.firewall.sync(intent(), dryRun));
    if (!dryRun) synced_ = true;
    std::vector<Repair> repairs;
    for (const std::string& line : report.repairs)
        repairs.push_back({"rule", line, dryRun ? "to repair" : "repaired", {}});
    return repairs;
}

Result<std::shared_lock<std::shared_timed_mutex>> BridgeDriver::lockRules() {
    {
        const auto gate = lockWithinCall(rulesGate_);
        if (!gate) return makeError(ErrorCode::Busy, kRulesBusy);
    }
    auto rules = lockWithinCall<std::shared_lock>(rules_);
    if (!rules) return makeError(ErrorCode::Busy, kRulesBusy);
    return rules;
}

Result<void> BridgeDriver::ensureSynced() {
    if (synced_) return {};
    WEFT_TRY(reconcileFirewall(false));
    return {};
}

Result<std::vector<Repair>> BridgeDriver::reconcile(bool dryRun) {
    const std::lock_guard sweeping(sweeping_);
    Sweep sweep(dryRun);
    const Deadline patience(kPatienceOfAll);
    ages_.look(context_.clock);

    WEFT_ASSIGN(auto listed, context_.netlink.listLinks());
    Links links;
    for (net::Link& link : listed) {
        std::string name = link.name;
        links.emplace(std::move(name), std::move(link));
    }

    if (!started_) {
        sweepPools(context_.ipam, sweep);
        if (overlayPools_ != nullptr) sweepPools(*overlayPools_, sweep);
    }
    sweepOrphans(links, sweep);
    std::set<NetworkId> over = givenBack(context_.ipam);
    if (overlayPools_ != nullptr) over.merge(givenBack(*overlayPools_));
    for (const NetworkPtr& record : myNetworks()) {
        sweepNetwork(record, links, over.contains(record->request.networkId), patience, sweep);
    }

    auto rules = reconcileFirewall(dryRun);
    if (!rules)
        sweep.fail("rule", "firewall", rules.error());
    else
        for (Repair& repair : *rules) sweep.note(std::move(repair));

    if (context_.portProgram != nullptr) context_.portProgram->prune();
    if (!dryRun) started_ = true;
    return sweep.take();
}

void BridgeDriver::sweepNetwork(const NetworkPtr& listed, const Links& links, bool givenBack, const Deadline& patience,
                                Sweep& sweep) {
    const NetworkId id = listed->request.networkId;
    const auto lock = context_.records.lock(id, std::min(kSweepPatience, patience.left()));
    const NetworkPtr record = context_.records.network(id);
    if (!lock || !record) return;
    auto network = read(record);
    if (!network) return sweep.fail("network", id.brief(), network.error());

    if (!started_) {
        if (auto restored = restoreLeases(poolsOf(*record), context_.records, id); !restored) {
            sweep.fail("lease", id.brief(), restored.error());
        }
    }
    ensureBridge(*network, sweep);
    const auto bridge = context_.netlink.getLink(record->link);
    const Ports ports{bridge ? std::optional(*bridge) : std::nullopt, portFlags(network->options)};
    for (const EndpointPtr& endpoint : context_.records.endpoints(id)) {
        sweepEndpoint(*network, *endpoint, ports, links, sweep);
    }
    if (hasRunning(id)) ensureForwarding(*network, sweep);
    if (givenBack && context_.records.endpointCount(id) == 0) {
        sweep.fix("network", id.brief(), "removed: its subnet was given back", [&] { return removeNetwork(*record); });
    }
}

bool BridgeDriver::hasRunning(const NetworkId& networkId) const {
    const auto endpoints = context_.records.endpoints(networkId);
    return std::any_of(endpoints.begin(), endpoints.end(), [this](const EndpointPtr& endpoint) {
        return endpoint->phase == EndpointPhase::Joined && endpoint->instance == instance_;
    });
}

void BridgeDriver::sweepEndpoint(const Network& network, const EndpointRecord& record, const Ports& ports,
                                 const Links& links, Sweep& sweep) {
    const std::string name = record.endpointId.brief();
    const auto letGo = [&](const std::string& why) {
        sweep.fix("endpoint", name, "released: " + why, [&] { return release(record); });
    };
    if (record.instance != instance_) return letGo("made before the host restarted");

    // The dump is older than the lock: what is not in it may have been made since.
    const auto found = links.find(record.link);
    net::Link since;
    const net::Link* link = found == links.end() ? nullptr : &found->second;
    if (link == nullptr) {
        auto now = context_.netlink.getLink(record.link);
        if (!now && now.error().code != ErrorCode::NotFound) return sweep.fail("endpoint", name, now.error());
        if (now) link = &(since = *std::move(now));
    }
    if (link == nullptr || link->alias != endpointMark(record.endpointId)) return letGo("its link is gone");

    const auto age = ages_.of(record.changed);
    const bool atHost = !link->parentNetnsId;
    if (cameBack(record, *link)) return letGo("its container gave the link back");
    if (record.phase == EndpointPhase::Left && age > kLeftGrace) return letGo("left and never deleted");
    if (record.phase == EndpointPhase::Created && atHost && age > kUnjoinedGrace) return letGo("never joined");
    if (record.phase == EndpointPhase::Joined && atHost && age > kUnmovedGrace) return letGo("joined and never moved");

    bool guarded = started_;
    if (ports.bridge && link->master != ports.bridge->index) {
        guarded = false;
        sweep.fix("link", record.link, "put back on " + network.record->link,
                  [&] { return context_.netlink.setMaster(link->index, ports.bridge->index); });
    }
    sweepGuard(network, record, ports, *link, guarded, sweep);
    if (link->port.hairpin != ports.flags.hairpin || link->port.isolated != ports.flags.isolated || link->master == 0) {
        sweep.fix("link", record.link, "port settings restored",
                  [&] { return context_.netlink.setPortFlags(link->index, ports.flags); });
    }
    if (!link->up) sweep.fix("link", record.link, "set up", [&] { return context_.netlink.setUp(link->index); });
    if (link->mtu != network.record->mtu) {
        sweep.fix("link", record.link, "MTU restored",
                  [&] { return context_.netlink.setMtu(link->index, network.record->mtu); });
    }
    const bool takesPorts = std::any_of(record.published.begin(), record.published.end(),
                                        [](const firewall::PublishedPort& port) { return port.hostPort != 0; });
    if (takesPorts && !book_.holds(record.endpointId)) {
        if (started_)
            return static_cast<void>(sweep.fix("port", name, "reserved again", [&] { return holdPorts(record); }));
        // Not a repair: after every start the sockets are to be made.
        if (sweep.dryRun()) return;
        if (auto held = holdPorts(record); !held) sweep.fail("port", name, held.error());
    }
}

// `guarded`: by this process before, so that what is missing was taken away.
void BridgeDriver::sweepGuard(const Network& network, const EndpointRecord& record, const Ports& ports,
                              const net::Link& link, bool guarded, Sweep& sweep) {
    if (!ports.bridge) return;
    net::PortProgram* program = context_.portProgram;
    if (guarded && (program == nullptr || program->isAttached(link.index))) return;
    if (guarded) {
        sweep.fix("program", record.link, "attached again", [&] { return program->restore(link.index); });
    } else if (!sweep.dryRun()) {
        // Not a repair: after every start it is to be made.
        if (auto done = guardPort(network, record, link.index, *ports.bridge); !done) {
            sweep.fail("program", record.link, done.error());
        }
    }
}

bool BridgeDriver::isOrphan(const net::Link& link) const {
    if (link.kind != "bridge" && link.kind != "veth") return false;
    if (net::isHalfMade(link)) {
        const auto networks = context_.records.networks();
        return std::none_of(networks.begin(), networks.end(),
                            [&](const NetworkPtr& network) { return network->link == link.name; });
    }
    if (const auto network = markedNetwork(link.alias)) return !context_.records.network(*network);
    if (const auto endpoint = markedEndpoint(link.alias)) return !context_.records.endpoint(*endpoint);
    return false;
}

void BridgeDriver::sweepOrphans(const Links& links, Sweep& sweep) {
    const auto now = context_.clock.now();
    std::map<std::string, Clock::Monotonic> seen;
    std::vector<const net::Link*> remove;
    for (const auto& [name, link] : links) {
        if (!isOrphan(link)) continue;
        const auto found = orphans_.find(name);
        const auto since = found == orphans_.end() ? now : found->second;
        if (started_ && now - since < kOrphanGrace) {
            seen.emplace(name, since);
        } else {
            remove.push_back(&link);
        }
    }
    if (!sweep.dryRun()) orphans_ = std::move(seen);
    std::vector<net::LinkIndex> indexes;
    for (const net::Link* link : remove) {
        indexes.push_back(link->index);
        sweep.note({"link", link->name, "removed: nobody's", {}});
    }
    if (indexes.empty() || sweep.dryRun()) return;
    if (auto removed = context_.netlink.deleteLinks(indexes); !removed)
        sweep.fail("link", "leftovers", removed.error());
}

// A create that was killed may have attached a pool to a network that never was.
void BridgeDriver::sweepPools(ipam::PoolBook& pools, Sweep& sweep) const {
    for (const ipam::PoolInfo& pool : pools.listPools()) {
        const NetworkId& id = pool.record.network;
        if (id.empty() || context_.records.network(id)) continue;
        sweep.fix("pool", pool.record.pool.str(), "detached: no network " + id.brief(),
                  [&] { return pools.detachPools(id); });
    }
}

}  // namespace weft
