#include "drivers/overlay/overlay_view.h"

#include <utility>

#include "base/log.h"

namespace weft {

void OverlayView::apply(kv::RowEvent event, const kv::Row& row) {
    if (event == kv::RowEvent::Forgotten) return;
    const bool there = event != kv::RowEvent::Deleted;
    if (row.key == kProbeKey || row.key == kEchoKey) {
        const std::lock_guard lock(mutex_);
        const auto keep = [&](auto& map, const auto& decoded) {
            map.erase(row.owner);
            if (there && decoded) map.emplace(row.owner, *decoded);
        };
        row.key == kProbeKey ? keep(probes_, decodeProbe(row.value)) : keep(echoes_, decodeEcho(row.value));
        return hostsChanged();
    }
    const auto key = parseOverlayKey(row.key);
    if (!key) return;
    const auto ignored = [&](const Error& error) {
        logWarn("msg=\"ignore row\" key={} owner={} error={}", logValue(row.key), row.owner.brief(),
                logValue(error.message));
    };
    const std::lock_guard lock(mutex_);
    if (key->endpoint) {
        std::optional<EndpointRow> endpoint;
        if (there) {
            const auto decoded = decodeEndpoint(row.value);
            if (!decoded) ignored(decoded.error());
            if (decoded) endpoint = *decoded;
        }
        setEndpoint(key->network, {row.owner, row.key}, endpoint);
    } else {
        std::optional<NetworkClaim> claim;
        if (there) {
            auto decoded = decodeClaim(row.value);
            if (!decoded) ignored(decoded.error());
            if (decoded) claim = *std::move(decoded);
        }
        setClaim(key->network, row.owner, std::move(claim));
    }
    changed_.notify_all();
}

void OverlayView::setClaim(const std::string& network, const kv::NodeId& owner, std::optional<NetworkClaim> claim) {
    auto& claims = claims_[network];
    // Who shares a VNI with it is to look as well.
    const auto markAll = [&](uint32_t vni) {
        for (const std::string& name : byVni_[vni]) marked_[name].all = true;
    };
    if (const auto known = claims.find(owner); known != claims.end()) {
        auto& names = byVni_[known->second.vni];
        markAll(known->second.vni);
        names.erase(names.find(network));
        if (names.empty()) byVni_.erase(known->second.vni);
        claims.erase(known);
    }
    if (claim) {
        byVni_[claim->vni].insert(network);
        markAll(claim->vni);
        claims.emplace(owner, *std::move(claim));
    }
    if (claims.empty()) claims_.erase(network);
    marked_[network].all = true;
}

void OverlayView::setEndpoint(const std::string& network, const Owned& owned, const std::optional<EndpointRow>& row) {
    Endpoints& endpoints = endpoints_[network];
    OverlayChanges& changes = marked_[network];
    const auto unindex = [](auto& index, const auto& value, const Owned* known) {
        for (auto [at, end] = index.equal_range(value); at != end; ++at) {
            if (at->second == known) return static_cast<void>(index.erase(at));
        }
    };
    if (const auto known = endpoints.rows.find(owned); known != endpoints.rows.end()) {
        changes.add(known->second);
        unindex(endpoints.byMac, known->second.mac, &known->first);
        for (const IpAddress& address : answeredAddresses(known->second)) {
            unindex(endpoints.byAddress, address, &known->first);
        }
        endpoints.rows.erase(known);
    }
    if (row) {
        changes.add(*row);
        const Owned* made = &endpoints.rows.emplace(owned, *row).first->first;
        endpoints.byMac.emplace(row->mac, made);
        for (const IpAddress& address : answeredAddresses(*row)) endpoints.byAddress.emplace(address, made);
    }
    if (endpoints.rows.empty()) endpoints_.erase(network);
}

void OverlayChanges::add(const EndpointRow& row) {
    macs.insert(row.mac);
    for (const IpAddress& address : answeredAddresses(row)) addresses.insert(address);
}

void OverlayView::onMember(const kv::Member& member) {
    const std::lock_guard lock(mutex_);
    Host& host = hosts_[member.id];
    const Host before = host;
    host.record = member.record;
    host.gone = member.gone();
    host.silent = member.state != kv::MemberState::Alive;
    host.answers = host.silent && before.answers;
    if (host == before) return;
    if (host.gone != before.gone) markNetworksOf(member.id);
    hostsChanged();
}

void OverlayView::remember(const kv::NodeId& id, const RememberedHost& remembered) {
    const std::lock_guard lock(mutex_);
    const auto [host, isNew] = hosts_.try_emplace(id);
    if (!isNew) return;
    host->second.record.name = remembered.name;
    host->second.record.address.ip = remembered.address;
    host->second.gone = host->second.silent = true;
    host->second.answers = true;  // until it was asked
    hostsChanged();
}

void OverlayView::forget(const kv::NodeId& id) {
    const std::lock_guard lock(mutex_);
    for (const std::string& network : namesOf(id)) {
        if (const auto claims = claims_.find(network); claims != claims_.end() && claims->second.contains(id)) {
            setClaim(network, id, {});
        }
        std::vector<std::string> keys;
        if (const auto endpoints = endpoints_.find(network); endpoints != endpoints_.end()) {
            const auto& rows = endpoints->second.rows;
            for (auto row = rows.lower_bound({id, {}}); row != rows.end() && row->first.first == id; ++row) {
                keys.push_back(row->first.second);
            }
        }
        for (const std::string& key : keys) setEndpoint(network, {id, key}, {});
    }
    hosts_.erase(id);
    probes_.erase(id);
    echoes_.erase(id);
    hostsChanged();
}

void OverlayView::markNetworksOf(const kv::NodeId& owner) {
    for (const std::string& network : namesOf(owner)) marked_[network].all = true;
}

Presence OverlayView::Host::presence() const {
    if (!gone) return Presence::Here;
    return answers ? Presence::DaemonAway : Presence::HostAway;
}

bool OverlayView::isAbsent(const kv::NodeId& owner) const {
    const auto host = hosts_.find(owner);
    return host != hosts_.end() && host->second.gone;
}

void OverlayView::hostsChanged() {
    ++generation_;
    changed_.notify_all();
}

std::set<IpAddress> OverlayView::addresses() const {
    const std::lock_guard lock(mutex_);
    std::set<IpAddress> all;
    for (const auto& [id, host] : hosts_) {
        if (host.presence() == Presence::HostAway || ledger_->strangers.contains(id)) continue;
        all.insert(host.record.address.ip);
    }
    return all;
}

std::set<IpAddress> OverlayView::awayAddresses() const {
    const std::lock_guard lock(mutex_);
    std::set<IpAddress> there;
    std::set<IpAddress> away;
    const auto of = [&](const kv::NodeId& owner) -> std::set<IpAddress>& {
        const auto host = hosts_.find(owner);
        return host != hosts_.end() && host->second.presence() == Presence::HostAway ? away : there;
    };
    for (const auto& [id, host] : hosts_) of(id).insert(host.record.address.ip);
    for (const auto& [id, row] : echoes_) of(id).insert(row.vtep);
    for (const auto& [network, claims] : claims_) {
        for (const auto& [owner, claim] : claims) of(owner).insert(claim.vtep);
    }
    for (const IpAddress& address : there) away.erase(address);
    return away;
}

std::map<kv::NodeId, OverlayView::Echo> OverlayView::echoes() const {
    const std::lock_guard lock(mutex_);
    std::map<kv::NodeId, Echo> all;
    for (const auto& [id, row] : echoes_) {
        const auto host = hosts_.find(id);
        if (host != hosts_.end() && !ledger_->strangers.contains(id)) all.emplace(id, Echo{row, host->second.silent});
    }
    return all;
}

std::optional<EchoRow> OverlayView::echo(const kv::NodeId& host) const {
    const std::lock_guard lock(mutex_);
    const auto found = echoes_.find(host);
    return found == echoes_.end() ? std::nullopt : std::optional(found->second);
}

void OverlayView::setAnswering(const std::set<kv::NodeId>& answering) {
    const std::lock_guard lock(mutex_);
    bool changed = false;
    for (auto& [id, host] : hosts_) {
        const bool answers = host.silent && answering.contains(id);
        if (std::exchange(host.answers, answers) == answers) continue;
        changed = true;
        if (host.gone) markNetworksOf(id);
    }
    if (changed) hostsChanged();
}

bool OverlayView::isAway(const kv::NodeId& id) const {
    const std::lock_guard lock(mutex_);
    const auto host = hosts_.find(id);
    return host != hosts_.end() && host->second.presence() == Presence::HostAway;
}

std::map<kv::NodeId, OverlayView::KnownHost> OverlayView::hosts() const {
    const std::lock_guard lock(mutex_);
    std::map<kv::NodeId, KnownHost> all;
    for (const auto& [id, host] : hosts_) {
        all.emplace(id, KnownHost{host.record.name, host.record.address.ip, host.presence()});
    }
    return all;
}

std::map<kv::NodeId, TunnelPlan::Peer> OverlayView::peers() const {
    const std::lock_guard lock(mutex_);
    std::map<kv::NodeId, TunnelPlan::Peer> all;
    for (const auto& [id, host] : hosts_) {
        if (host.gone || ledger_->strangers.contains(id)) continue;
        const kv::MemberRecord& record = host.record;
        TunnelPlan::Peer& peer = all[id];
        peer.host = record.name;
        peer.vtep = record.address.ip;
        const auto probe = probes_.find(id);
        if (probe == probes_.end() || probe->second.epoch != record.incarnation >> 32) continue;
        peer.vtep = probe->second.vtep;
        peer.mtu = probe->second.mtu;
    }
    return all;
}

bool OverlayView::awaitHosts(uint64_t& seen, std::chrono::nanoseconds patience) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [&] { return stopping_ || generation_ != seen; });
    seen = generation_;
    return !stopping_;
}

OverlayClaims OverlayView::claims() const {
    const std::lock_guard lock(mutex_);
    OverlayClaims all;
    for (const auto& [network, claims] : claims_) {
        for (const auto& [owner, claim] : claims) all[network].push_back({owner, claim, isAbsent(owner)});
    }
    return all;
}

OverlayClaims OverlayView::claimsAround(const std::string& network) const {
    const std::lock_guard lock(mutex_);
    std::set<std::string> names{network};
    if (const auto own = claims_.find(network); own != claims_.end()) {
        std::set<uint32_t> vnis;
        for (const auto& [owner, claim] : own->second) vnis.insert(claim.vni);
        for (const uint32_t vni : vnis) names.insert(byVni_.at(vni).begin(), byVni_.at(vni).end());
    }
    OverlayClaims around;
    for (const std::string& name : names) {
        const auto claims = claims_.find(name);
        if (claims == claims_.end()) continue;
        for (const auto& [owner, claim] : claims->second) around[name].push_back({owner, claim, isAbsent(owner)});
    }
    return around;
}

std::vector<OverlayEndpoint> OverlayView::endpoints(const std::string& network) const {
    const std::lock_guard lock(mutex_);
    std::vector<OverlayEndpoint> found;
    if (const auto entry = endpoints_.find(network); entry != endpoints_.end()) {
        found.reserve(entry->second.rows.size());
        for (const auto& [owned, row] : entry->second.rows) found.push_back({owned.first, row, isAbsent(owned.first)});
    }
    return found;
}

std::vector<OverlayEndpoint> OverlayView::endpointsAround(const std::string& network, OverlayChanges& changes) const {
    const std::lock_guard lock(mutex_);
    const auto entry = endpoints_.find(network);
    if (entry == endpoints_.end()) return {};
    const Endpoints& endpoints = entry->second;
    std::set<MacAddress> macs = changes.macs;
    for (const MacAddress& mac : changes.macs) {
        for (auto [at, end] = endpoints.byMac.equal_range(mac); at != end; ++at) {
            for (const IpAddress& address : answeredAddresses(endpoints.rows.at(*at->second))) {
                changes.addresses.insert(address);
            }
        }
    }
    for (const IpAddress& address : changes.addresses) {
        for (auto [at, end] = endpoints.byAddress.equal_range(address); at != end; ++at) {
            macs.insert(endpoints.rows.at(*at->second).mac);
        }
    }
    std::vector<OverlayEndpoint> found;
    for (const MacAddress& mac : macs) {
        for (auto [at, end] = endpoints.byMac.equal_range(mac); at != end; ++at) {
            found.push_back({at->second->first, endpoints.rows.at(*at->second), isAbsent(at->second->first)});
        }
    }
    return found;
}

std::vector<OverlayEndpoint> OverlayView::endpointsWith(const std::string& network, const IpAddress& address) const {
    const std::lock_guard lock(mutex_);
    std::vector<OverlayEndpoint> found;
    const auto entry = endpoints_.find(network);
    if (entry == endpoints_.end()) return found;
    for (auto [at, end] = entry->second.byAddress.equal_range(address); at != end; ++at) {
        found.push_back({at->second->first, entry->second.rows.at(*at->second), isAbsent(at->second->first)});
    }
    return found;
}

std::set<std::string> OverlayView::networksOf(const kv::NodeId& owner) const {
    const std::lock_guard lock(mutex_);
    return namesOf(owner);
}

std::set<std::string> OverlayView::namesOf(const kv::NodeId& owner) const {
    std::set<std::string> names;
    for (const auto& [name, claims] : claims_) {
        if (claims.contains(owner)) names.insert(name);
    }
    for (const auto& [name, endpoints] : endpoints_) {
        const auto first = endpoints.rows.lower_bound({owner, {}});
        if (first != endpoints.rows.end() && first->first.first == owner) names.insert(name);
    }
    return names;
}

void OverlayView::setLedger(std::shared_ptr<const LedgerFacts> facts) {
    const std::lock_guard lock(mutex_);
    if (facts == ledger_) return;
    ledger_ = std::move(facts);
    for (const auto& [name, claims] : claims_) marked_[name].all = true;
    hostsChanged();
}

std::shared_ptr<const LedgerFacts> OverlayView::ledger() const {
    const std::lock_guard lock(mutex_);
    return ledger_;
}

void OverlayView::mark(const std::string& network) {
    const std::lock_guard lock(mutex_);
    marked_[network].all = true;
    changed_.notify_all();
}

void OverlayView::mark(const std::string& network, const EndpointId& own) {
    const std::lock_guard lock(mutex_);
    marked_[network].own.insert(own);
    changed_.notify_all();
}

std::optional<std::map<std::string, OverlayChanges>> OverlayView::takeMarked(
    std::optional<std::chrono::nanoseconds> patience) {
    std::unique_lock lock(mutex_);
    const auto wakes = [this] { return stopping_ || !marked_.empty() || takenGeneration_ != generation_; };
    if (patience) {
        changed_.wait_for(lock, *patience, wakes);
    } else {
        changed_.wait(lock, wakes);
    }
    if (stopping_) return std::nullopt;
    takenGeneration_ = generation_;
    return std::exchange(marked_, {});
}

void OverlayView::stop() {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
}

}  // namespace weft
