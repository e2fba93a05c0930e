#include "drivers/overlay/overlay_view.h"

#include "base/log.h"

namespace weft {

void OverlayView::apply(kv::RowEvent event, const kv::Row& row) {
    if (row.key == kProbeKey) {
        const auto decoded = event == kv::RowEvent::Put ? decodeProbe(row.value) : makeError(ErrorCode::NotFound, "");
        const std::lock_guard lock(mutex_);
        probes_.erase(row.owner);
        if (decoded) probes_.emplace(row.owner, *decoded);
        return hostsChanged();
    }
    const auto key = parseOverlayKey(row.key);
    if (!key) return;
    const Owned owned{row.owner, row.key};
    const std::lock_guard lock(mutex_);
    rows_.erase(owned);
    if (key->endpoint) {
        endpoints_[key->network].erase(owned);
    } else {
        claims_[key->network].erase(row.owner);
    }
    if (event == kv::RowEvent::Put) {
        rows_.emplace(owned, row.value);
        if (key->endpoint) {
            if (auto decoded = decodeEndpoint(row.value)) {
                endpoints_[key->network].emplace(owned, *decoded);
            } else {
                logWarn("msg=\"ignore row\" key={} owner={} error={}", row.key, row.owner.brief(),
                        logValue(decoded.error().message));
            }
        } else if (auto decoded = decodeClaim(row.value)) {
            claims_[key->network].emplace(row.owner, *std::move(decoded));
        } else {
            logWarn("msg=\"ignore row\" key={} owner={} error={}", row.key, row.owner.brief(),
                    logValue(decoded.error().message));
        }
    }
    if (const auto found = claims_.find(key->network); found != claims_.end() && found->second.empty()) {
        claims_.erase(found);
    }
    if (const auto found = endpoints_.find(key->network); found != endpoints_.end() && found->second.empty()) {
        endpoints_.erase(found);
    }
    marked_.insert(key->network);
    changed_.notify_all();
}

void OverlayView::onMember(const kv::Member& member) {
    const std::lock_guard lock(mutex_);
    if (member.gone()) {
        if (hosts_.erase(member.id) == 0) return;
    } else {
        kv::MemberRecord& known = hosts_[member.id];
        if (known == member.record) return;
        known = member.record;
    }
    hostsChanged();
}

void OverlayView::hostsChanged() {
    ++generation_;
    changed_.notify_all();
}

std::set<IpAddress> OverlayView::addresses() const {
    const std::lock_guard lock(mutex_);
    std::set<IpAddress> all;
    for (const auto& [id, record] : hosts_) all.insert(record.address.ip);
    return all;
}

std::map<kv::NodeId, TunnelPlan::Peer> OverlayView::peers() const {
    const std::lock_guard lock(mutex_);
    std::map<kv::NodeId, TunnelPlan::Peer> all;
    for (const auto& [id, record] : hosts_) {
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

std::vector<OverlayView::Claim> OverlayView::claims(const std::string& network) const {
    const std::lock_guard lock(mutex_);
    std::vector<Claim> found;
    if (const auto entry = claims_.find(network); entry != claims_.end()) {
        for (const auto& [owner, claim] : entry->second) found.push_back({owner, claim});
    }
    return found;
}

std::map<std::string, std::vector<OverlayView::Claim>> OverlayView::claims() const {
    const std::lock_guard lock(mutex_);
    std::map<std::string, std::vector<Claim>> all;
    for (const auto& [network, claims] : claims_) {
        for (const auto& [owner, claim] : claims) all[network].push_back({owner, claim});
    }
    return all;
}

std::vector<OverlayView::Endpoint> OverlayView::endpoints(const std::string& network) const {
    const std::lock_guard lock(mutex_);
    std::vector<Endpoint> found;
    if (const auto entry = endpoints_.find(network); entry != endpoints_.end()) {
        for (const auto& [owned, row] : entry->second) found.push_back({owned.first, row});
    }
    return found;
}

std::map<std::string, std::string> OverlayView::rowsOf(const kv::NodeId& owner) const {
    const std::lock_guard lock(mutex_);
    std::map<std::string, std::string> rows;
    for (auto row = rows_.lower_bound({owner, {}}); row != rows_.end() && row->first.first == owner; ++row) {
        rows.emplace(row->first.second, row->second);
    }
    return rows;
}

void OverlayView::mark(const std::string& network) {
    const std::lock_guard lock(mutex_);
    marked_.insert(network);
    changed_.notify_all();
}

std::optional<std::set<std::string>> OverlayView::takeMarked(std::optional<std::chrono::nanoseconds> patience) {
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
