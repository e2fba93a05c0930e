#include "ipam/local_ipam.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <random>
#include <set>

namespace weft::ipam {

namespace {

std::string describe(const Pool& pool) {
    std::string text = "pool " + pool.record.pool.str();
    if (pool.record.network.empty()) return text + ", which no weft network uses";
    return text + " of network " + pool.record.network.brief();
}

size_t endpointCount(const Pool& pool) {
    std::set<std::string_view> endpoints;
    for (const auto& [bits, lease] : pool.leases()) {
        if (!lease.endpoint.empty()) endpoints.insert(lease.endpoint.str());
    }
    return endpoints.size();
}

Error exhausted(const Pool& pool) {
    const std::string range = pool.record.subPool ? " (range " + pool.record.subPool->str() + ")" : "";
    return makeError(ErrorCode::Exhausted, "no free address in " + describe(pool) + range + ": " +
                                               std::to_string(pool.leases().size()) + " leases held, by " +
                                               std::to_string(endpointCount(pool)) + " endpoints");
}

Error unusable(const Pool& pool, const IpAddress& address) {
    if (pool.record.pool.contains(address)) {
        return makeError(ErrorCode::InvalidArgument,
                         address.str() + " is the network, broadcast or anycast address of " + describe(pool));
    }
    return makeError(ErrorCode::InvalidArgument, address.str() + " is not in " + describe(pool));
}

Error held(const Pool& pool, const IpAddress& address, const Lease& lease, std::chrono::seconds age) {
    std::string holder;
    if (lease.kind == LeaseKind::Gateway) {
        holder = "as the gateway";
    } else if (lease.kind == LeaseKind::Aux) {
        holder = "as an auxiliary address";
    } else if (!lease.endpoint.empty()) {
        holder = "by endpoint " + lease.endpoint.brief();
    } else {
        holder = "by a request " + std::to_string(age.count()) + " s ago";
    }
    return makeError(ErrorCode::Busy, address.str() + " is held " + holder + " in " + describe(pool));
}

Error notHeld(const Pool& pool, const IpAddress& address) {
    return makeError(ErrorCode::Unavailable, address.str() + " of " + describe(pool) + " is not this host's to give");
}

// "10.208.0.0/12 in /24s, ..."
std::string describe(std::span<const DefaultRange> ranges) {
    std::string text;
    for (const auto& range : ranges) {
        if (!text.empty()) text += ", ";
        text += range.base.str() + " in /" + std::to_string(range.length) + "s";
    }
    return text;
}

uint64_t systemRandom() {
    std::random_device device;
    return uint64_t{device()} << 32 | device();
}

// RFC 4193: fd00::/8 and 40 random bits.
IpPrefix makeSitePrefix(uint64_t random) {
    const Uint128 high = Uint128{0xfd} << 40 | (random & 0xffffffffffU);
    return {IpAddress(IpFamily::V6, high << 80), 48};
}

Result<void> checkPool(const IpPrefix& pool, const std::optional<IpPrefix>& subPool) {
    const auto invalid = [&](const std::string& why) {
        return makeError(ErrorCode::InvalidArgument, "subnet " + pool.str() + " " + why);
    };
    if (pool.length() == 0) return invalid("is the whole Internet");
    if (pool.first().isMulticast() || pool.first().isLoopback()) return invalid("is not for hosts");
    if (subPool && !pool.contains(*subPool)) return invalid("does not contain the IP range " + subPool->str());
    return {};
}

}  // namespace

LocalIpam::LocalIpam(LeaseStore& store, const Clock& clock, LocalIpamConfig config, LocalIpamHooks hooks)
    : store_(store), clock_(clock), config_(std::move(config)), hooks_(std::move(hooks)) {
    if (!hooks_.random) hooks_.random = systemRandom;
}

LocalIpam::~LocalIpam() = default;

Result<std::unique_ptr<LocalIpam>> LocalIpam::create(LeaseStore& store, const Clock& clock, LocalIpamConfig config,
                                                     LocalIpamHooks hooks) {
    for (const auto& range : config.defaultsV4) WEFT_TRY(checkRange(range, IpFamily::V4));
    for (const auto& range : config.defaultsV6) WEFT_TRY(checkRange(range, IpFamily::V6));
    std::unique_ptr<LocalIpam> ipam(new LocalIpam(store, clock, std::move(config), std::move(hooks)));
    WEFT_TRY(ipam->load());
    return ipam;
}

Result<void> LocalIpam::load() {
    WEFT_ASSIGN(StoredIpam stored, store_.load());
    for (auto& record : stored.pools) {
        WEFT_TRY(checkPool(record.pool, record.subPool).within("stored pool " + record.id.str()));
        auto pool = std::make_unique<Pool>(record, heldOf(record.pool));
        pool->bindingsKnown = pool->record.network.empty();
        const PoolId poolId = pool->record.id;
        byPrefix_[record.pool] = pool.get();
        pools_.emplace(poolId, std::move(pool));
    }
    for (const auto& lease : stored.leases) {
        const auto pool = pools_.find(lease.key.poolId);
        if (pool == pools_.end() || !pool->second->isUsable(lease.key.address)) {
            return makeError(ErrorCode::Corrupt,
                             "stored lease " + lease.key.address.str() + " fits no pool " + lease.key.poolId.str());
        }
        pool->second->take(lease.key.address, lease.kind, clock_.now());
    }
    for (const auto& [poolId, pool] : pools_) pool->moveCursorBehindLeases();

    if (config_.defaultsV4.empty()) config_.defaultsV4 = {{{IpAddress(IpFamily::V4, 0x0ad00000), 12}, 24}};
    if (config_.defaultsV6.empty() && !config_.onlyHeld) {
        if (!stored.sitePrefix) {
            stored.sitePrefix = makeSitePrefix(hooks_.random());
            IpamChange change;
            change.sitePrefix = stored.sitePrefix;
            WEFT_TRY(store_.apply(change));
        }
        config_.defaultsV6 = {{*stored.sitePrefix, 64}};
    }
    return {};
}

Pool* LocalIpam::settledPool(Lock& lock, const std::function<bool(const Pool&)>& matches) {
    while (true) {
        const auto found =
            std::find_if(pools_.begin(), pools_.end(), [&](const auto& e) { return matches(*e.second); });
        if (found == pools_.end()) return nullptr;
        if (!found->second->settling) return found->second.get();
        settled_.wait(lock);
    }
}

// Of prefixes that are disjoint and in order only the neighbours can overlap.
Pool* LocalIpam::settledOverlap(Lock& lock, const IpPrefix& prefix) {
    while (true) {
        auto found = byPrefix_.lower_bound(prefix);
        if (found == byPrefix_.end() || !found->first.overlaps(prefix)) {
            if (found == byPrefix_.begin() || !std::prev(found)->first.overlaps(prefix)) return nullptr;
            --found;
        }
        if (!found->second->settling) return found->second;
        settled_.wait(lock);
    }
}

Pool* LocalIpam::settledPool(Lock& lock, const PoolId& poolId) {
    while (true) {
        const auto found = pools_.find(poolId);
        if (found == pools_.end()) return nullptr;
        if (!found->second->settling) return found->second.get();
        settled_.wait(lock);
    }
}

Result<void> LocalIpam::commit(Lock& lock, const IpamChange& change) {
    lock.unlock();
    auto stored = store_.apply(change);
    lock.lock();
    return stored;
}

Result<void> LocalIpam::commitNewPool(Lock& lock, const PoolRecord& record) {
    IpamChange change;
    change.putPools = {record};
    const PoolId poolId = record.id;
    Pool& pool = *pools_.emplace(poolId, std::make_unique<Pool>(record, heldOf(record.pool))).first->second;
    byPrefix_[record.pool] = &pool;
    pool.settling = true;
    auto stored = commit(lock, change);
    settle(pool);
    if (!stored) erasePool(poolId);
    return stored;
}

Result<void> LocalIpam::commitNewLease(Lock& lock, Pool& pool, const IpAddress& address, LeaseKind kind) {
    Lease& lease = pool.take(address, kind, clock_.now());
    lease.settling = true;
    ++pool.settlingLeases;
    IpamChange change;
    change.putLeases = {{{pool.record.id, address}, kind}};
    auto stored = commit(lock, change);
    lease.settling = false;
    --pool.settlingLeases;
    if (!stored) pool.drop(address);
    settled_.notify_all();
    return stored;
}

void LocalIpam::unsettle(Lock& lock, Pool& pool) {
    pool.settling = true;
    settled_.wait(lock, [&] { return pool.settlingLeases == 0; });
}

void LocalIpam::settle(Pool& pool) {
    pool.settling = false;
    settled_.notify_all();
}

bool LocalIpam::isDead(Lock& lock, const EndpointId& endpointId) const {
    if (!hooks_.endpointIsAlive) return false;
    lock.unlock();
    const bool alive = hooks_.endpointIsAlive(endpointId);
    lock.lock();
    return !alive;
}

bool LocalIpam::mayBeDead(const Lease& lease) const {
    return age(lease) >= config_.retryWindow;
}

std::chrono::seconds LocalIpam::age(const Lease& lease) const {
    return std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - lease.since);
}

void LocalIpam::reportReleased(const EndpointId& endpointId, const IpAddress& address) const {
    if (hooks_.bindingReleased) hooks_.bindingReleased(endpointId, address);
}

PoolId LocalIpam::newPoolId() const {
    std::array<char, 17> text{};
    std::snprintf(text.data(), text.size(), "%016lx", static_cast<unsigned long>(hooks_.random()));
    return PoolId(text.data());
}

Result<std::vector<Occupied>> LocalIpam::occupiedPrefixes(const PoolRequest& request) const {
    if (request.onHostNetwork || !hooks_.occupied) return std::vector<Occupied>();
    auto occupied = hooks_.occupied();
    if (!occupied) return std::move(occupied).error().within("find the host's routes and resolvers");
    std::erase_if(*occupied, [](const Occupied& entry) { return entry.prefix.length() == 0; });
    return occupied;
}

Result<PoolReply> LocalIpam::requestPool(const PoolRequest& request) {
    if (request.addressSpace.empty()) return makeError(ErrorCode::InvalidArgument, "the address space is missing");
    if (request.subPool && !request.pool) {
        return makeError(ErrorCode::InvalidArgument, "an IP range needs a subnet that contains it");
    }
    WEFT_ASSIGN(const auto occupied, occupiedPrefixes(request));
    return request.pool ? requestGivenPool(request, occupied) : choosePool(request, occupied);
}

Result<PoolReply> LocalIpam::requestGivenPool(const PoolRequest& request, std::span<const Occupied> occupied) {
    PoolRecord record{{}, request.addressSpace, request.pool->network(), {}, {}, false};
    if (request.subPool) record.subPool = request.subPool->network();
    WEFT_TRY(checkPool(record.pool, record.subPool));

    Lock lock(mutex_);
    if (const Pool* other = settledOverlap(lock, record.pool)) {
        PoolRecord same = other->record;
        same.id = {};
        // The engine asks again if our answer got lost; a second user of the subnet looks different as soon as the
        // first one has its gateway.
        if (same == record && other->leases().empty()) return PoolReply{other->record.id, record.pool, {}};
        return makeError(ErrorCode::Busy, "subnet " + record.pool.str() + " overlaps " + describe(*other) +
                                              "; if Docker has no such network, see weftctl doctor");
    }
    for (const auto& entry : occupied) {
        if (!entry.prefix.overlaps(record.pool)) continue;
        return makeError(ErrorCode::Busy, "subnet " + record.pool.str() + " overlaps " + entry.prefix.str() +
                                              ", held by " + entry.holder);
    }
    record.id = newPoolId();
    PoolReply reply{record.id, record.pool, {}};
    WEFT_TRY(commitNewPool(lock, record));
    return reply;
}

Result<PoolReply> LocalIpam::choosePool(const PoolRequest& request, std::span<const Occupied> occupied) {
    const auto& ranges = request.v6 ? config_.defaultsV6 : config_.defaultsV4;
    std::vector<IpPrefix> blocked;
    for (const auto& entry : occupied) blocked.push_back(entry.prefix);

    Lock lock(mutex_);
    size_t pools = 0;
    for (const auto& [poolId, pool] : pools_) {
        const IpPrefix& prefix = blocked.emplace_back(pool->record.pool);
        pools += std::any_of(ranges.begin(), ranges.end(),
                             [&](const DefaultRange& range) { return range.base.overlaps(prefix); });
    }
    const auto subnet = chooseSubnet(ranges, blocked);
    if (!subnet) {
        return makeError(ErrorCode::Exhausted,
                         "no free subnet in " + describe(ranges) + ": " + std::to_string(pools) +
                             " pools held, the rest overlaps routes or resolvers of the host. Remove networks, give a "
                             "--subnet, or widen the default pools in weftd's configuration");
    }
    const PoolRecord record{newPoolId(), request.addressSpace, *subnet, {}, {}, false};
    PoolReply reply{record.id, record.pool, {}};
    WEFT_TRY(commitNewPool(lock, record));
    return reply;
}

Result<void> LocalIpam::releasePool(const PoolId& poolId) {
    Lock lock(mutex_);
    Pool* pool = settledPool(lock, poolId);
    if (pool == nullptr || pool->record.released) return {};
    unsettle(lock, *pool);
    IpamChange change;
    if (pool->record.network.empty()) {
        change.erasePools = {poolId};
    } else {
        change.putPools = {pool->record};
        change.putPools.front().released = true;
    }
    auto stored = commit(lock, change);
    settle(*pool);
    if (!stored) return stored;
    if (pool->record.network.empty()) {
        erasePool(poolId);
    } else {
        pool->record.released = true;
    }
    return {};
}

Result<IpPrefix> LocalIpam::requestAddress(const AddressRequest& request) {
    Lock lock(mutex_);
    const auto kind = request.gateway ? LeaseKind::Gateway : LeaseKind::Endpoint;
    EndpointId dead;
    while (true) {
        Pool* pool = settledPool(lock, request.poolId);
        if (pool == nullptr) return makeError(ErrorCode::NotFound, "no pool " + request.poolId.str());
        const uint8_t length = pool->record.pool.length();

        auto wanted = request.address;
        if (!wanted && request.gateway) wanted = pool->gateway();
        if (!wanted) {
            const auto chosen = request.gateway ? pool->chooseLowest(clock_.now()) : pool->chooseNext(clock_.now());
            if (!chosen) return exhausted(*pool);
            WEFT_TRY(commitNewLease(lock, *pool, *chosen, kind));
            return IpPrefix(*chosen, length);
        }

        const IpPrefix answer(*wanted, length);
        if (!pool->isUsable(*wanted)) return unusable(*pool, *wanted);
        Lease* lease = pool->find(*wanted);
        if (lease == nullptr) {
            if (!request.gateway && !pool->isHeld(*wanted)) return notHeld(*pool, *wanted);
            WEFT_TRY(commitNewLease(lock, *pool, *wanted, kind));
            return answer;
        }
        if (lease->settling) {
            settled_.wait(lock);
            continue;
        }
        if (request.gateway && lease->kind == LeaseKind::Gateway) return answer;
        if (request.gateway || lease->kind != LeaseKind::Endpoint) return held(*pool, *wanted, *lease, age(*lease));
        if (lease->endpoint.empty()) {
            // In a pool of another driver an unbound lease may be a running container's.
            const bool retry = !pool->record.network.empty() && age(*lease) < config_.retryWindow;
            if (!retry) return held(*pool, *wanted, *lease, age(*lease));
            lease->since = clock_.now();
            return answer;
        }
        if (!mayBeDead(*lease)) return held(*pool, *wanted, *lease, age(*lease));
        if (lease->endpoint != dead) {
            const EndpointId holder = lease->endpoint;
            const Error refusal = held(*pool, *wanted, *lease, age(*lease));
            if (!isDead(lock, holder)) return refusal;
            dead = holder;
            continue;  // anything may have happened while the mutex was released
        }
        lease->endpoint = {};
        lease->since = clock_.now();
        lock.unlock();
        reportReleased(dead, *wanted);
        return answer;
    }
}

Result<void> LocalIpam::releaseAddress(const PoolId& poolId, const IpAddress& address) {
    Lock lock(mutex_);
    EndpointId dead;
    while (true) {
        Pool* pool = settledPool(lock, poolId);
        Lease* lease = pool == nullptr ? nullptr : pool->find(address);
        if (lease == nullptr) return {};
        if (lease->settling) {
            settled_.wait(lock);
            continue;
        }
        if (lease->kind != LeaseKind::Endpoint && !pool->record.network.empty()) return {};
        if (!lease->endpoint.empty()) {
            if (!mayBeDead(*lease)) return {};
            if (lease->endpoint != dead) {
                dead = lease->endpoint;
                if (!isDead(lock, dead)) return {};
                continue;
            }
        }
        lease->settling = true;
        ++pool->settlingLeases;
        IpamChange change;
        change.eraseLeases = {{poolId, address}};
        auto stored = commit(lock, change);
        lease->settling = false;
        --pool->settlingLeases;
        const EndpointId loser = lease->endpoint;
        if (stored) pool->dropInto(address, clock_.now() + config_.quarantine);
        settled_.notify_all();
        lock.unlock();
        if (stored && !loser.empty()) reportReleased(loser, address);
        return stored;
    }
}

Result<bool> LocalIpam::attachPool(const NetworkId& networkId, const std::string& addressSpace, const IpPrefix& prefix,
                                   std::span<const IpAddress> reserved) {
    Lock lock(mutex_);
    Pool* pool = settledPool(lock, [&](const Pool& p) {
        return p.record.pool == prefix.network() && (addressSpace.empty() || p.record.addressSpace == addressSpace);
    });
    if (pool == nullptr) return false;
    if (!pool->record.network.empty() && pool->record.network != networkId) {
        return makeError(ErrorCode::Busy, prefix.network().str() + " is " + describe(*pool));
    }
    unsettle(lock, *pool);
    IpamChange change;
    PoolRecord record = pool->record;
    record.network = networkId;
    if (record != pool->record) change.putPools = {record};
    for (const auto& address : reserved) {
        const Lease* lease = pool->find(address);
        if (lease != nullptr ? lease->kind == LeaseKind::Endpoint && lease->endpoint.empty()
                             : pool->isUsable(address) && pool->isHeld(address)) {
            change.putLeases.push_back({{record.id, address}, LeaseKind::Aux});
        }
    }
    Result<void> stored;
    if (!change.putPools.empty() || !change.putLeases.empty()) stored = commit(lock, change);
    if (stored) {
        pool->record = std::move(record);
        pool->detached.reset();
        for (const auto& lease : change.putLeases) pool->take(lease.key.address, lease.kind, clock_.now());
    }
    settle(*pool);
    if (!stored) return std::move(stored).error();
    return true;
}

Result<void> LocalIpam::detachPools(const NetworkId& networkId) {
    Lock lock(mutex_);
    while (Pool* pool = settledPool(lock, [&](const Pool& p) { return p.record.network == networkId; })) {
        unsettle(lock, *pool);
        IpamChange change;
        PoolRecord record = pool->record;
        record.network = {};
        if (record.released) {
            change.erasePools = {record.id};
        } else {
            change.putPools = {record};
        }
        auto stored = commit(lock, change);
        settle(*pool);
        if (!stored) return stored;
        if (record.released) {
            erasePool(record.id);
            continue;
        }
        pool->record = std::move(record);
        pool->detached = clock_.now();
        pool->bindingsKnown = true;
        for (auto& [bits, lease] : pool->leases()) lease.endpoint = {};
    }
    return {};
}

Result<std::vector<NetworkId>> LocalIpam::detachForgotten(std::span<const NetworkId> known) {
    std::set<NetworkId> forgotten;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [poolId, pool] : pools_) {
            if (!pool->record.network.empty()) forgotten.insert(pool->record.network);
        }
    }
    for (const auto& networkId : known) forgotten.erase(networkId);
    for (const auto& networkId : forgotten) WEFT_TRY(detachPools(networkId));
    return std::vector<NetworkId>(forgotten.begin(), forgotten.end());
}

Result<void> LocalIpam::bindLease(const NetworkId& networkId, const IpAddress& address, const EndpointId& endpointId) {
    Lock lock(mutex_);
    EndpointId dead;
    while (true) {
        Pool* pool = settledPool(
            lock, [&](const Pool& p) { return p.record.network == networkId && p.record.pool.contains(address); });
        if (pool == nullptr) return {};
        if (!pool->isUsable(address)) return unusable(*pool, address);
        Lease* lease = pool->find(address);
        if (lease == nullptr) {
            if (!pool->isHeld(address)) return notHeld(*pool, address);
            WEFT_TRY(commitNewLease(lock, *pool, address, LeaseKind::Endpoint));
            continue;
        }
        if (lease->settling) {
            settled_.wait(lock);
            continue;
        }
        if (lease->endpoint == endpointId) return {};
        if (lease->kind != LeaseKind::Endpoint) return held(*pool, address, *lease, age(*lease));
        if (!lease->endpoint.empty()) {
            const Error refusal = held(*pool, address, *lease, age(*lease));
            if (!mayBeDead(*lease)) return refusal;
            if (lease->endpoint != dead) {
                dead = lease->endpoint;
                if (!isDead(lock, dead)) return refusal;
                continue;
            }
        }
        const EndpointId loser = std::exchange(lease->endpoint, endpointId);
        lease->since = clock_.now();
        lock.unlock();
        if (!loser.empty()) reportReleased(loser, address);
        return {};
    }
}

void LocalIpam::unbindLease(const NetworkId& networkId, const IpAddress& address, const EndpointId& endpointId) {
    const std::lock_guard lock(mutex_);
    for (const auto& [poolId, pool] : pools_) {
        if (pool->record.network != networkId) continue;
        Lease* lease = pool->find(address);
        if (lease == nullptr || lease->endpoint != endpointId) continue;
        lease->endpoint = {};
        lease->since = clock_.now();
    }
}

Result<void> LocalIpam::restoreBindings(const NetworkId& networkId,
                                        std::span<const std::pair<IpAddress, EndpointId>> bindings) {
    std::string clashes;
    for (const auto& [address, endpointId] : bindings) {
        if (auto bound = bindLease(networkId, address, endpointId); !bound) {
            clashes += (clashes.empty() ? "" : "; ") + bound.error().message;
        }
    }
    const std::lock_guard lock(mutex_);
    for (const auto& [poolId, pool] : pools_) {
        if (pool->record.network == networkId) pool->bindingsKnown = true;
    }
    if (clashes.empty()) return {};
    return makeError(ErrorCode::Busy, "restore bindings of network " + networkId.brief() + ": " + clashes);
}

// The engine forgets a network whether its ReleasePool got through or not.
Result<void> LocalIpam::collectPools(Lock& lock) {
    const auto isForgotten = [this](const Pool& pool) {
        return pool.detached && clock_.now() - *pool.detached >= config_.unboundGrace;
    };
    while (Pool* pool = settledPool(lock, isForgotten)) {
        unsettle(lock, *pool);
        const PoolId poolId = pool->record.id;
        IpamChange change;
        change.erasePools = {poolId};
        auto stored = commit(lock, change);
        settle(*pool);
        if (!stored) return stored;
        erasePool(poolId);
    }
    return {};
}

Result<std::vector<CollectedLease>> LocalIpam::collect() {
    Lock lock(mutex_);
    WEFT_TRY(collectPools(lock));
    // Calls visit(pool, bits, lease) for what is old enough and not in the middle of a change.
    const auto forEachCandidate = [&](const auto& visit) {
        for (const auto& [poolId, pool] : pools_) {
            if (pool->record.network.empty() || !pool->bindingsKnown || pool->settling) continue;
            for (auto& [bits, lease] : pool->leases()) {
                if (lease.kind != LeaseKind::Endpoint || lease.settling || age(lease) < config_.unboundGrace) continue;
                visit(*pool, bits, lease);
            }
        }
    };
    std::set<EndpointId> dead;
    if (hooks_.endpointIsAlive) {
        forEachCandidate([&](const Pool&, Uint128, const Lease& lease) {
            if (!lease.endpoint.empty()) dead.insert(lease.endpoint);
        });
        lock.unlock();
        std::erase_if(dead, hooks_.endpointIsAlive);
        lock.lock();
    }

    IpamChange change;
    std::vector<Pool*> pools;
    std::vector<CollectedLease> collected;
    forEachCandidate([&](Pool& pool, Uint128 bits, Lease& lease) {
        if (!lease.endpoint.empty() && !dead.contains(lease.endpoint)) return;
        lease.settling = true;
        ++pool.settlingLeases;
        pools.push_back(&pool);
        change.eraseLeases.push_back({pool.record.id, pool.address(bits)});
        collected.push_back({change.eraseLeases.back(), lease.endpoint});
    });
    if (collected.empty()) return collected;
    auto stored = commit(lock, change);
    for (size_t i = 0; i < collected.size(); ++i) {
        const IpAddress& address = collected[i].key.address;
        pools[i]->find(address)->settling = false;
        --pools[i]->settlingLeases;
        if (stored) pools[i]->dropInto(address, clock_.now() + config_.quarantine);
    }
    settled_.notify_all();
    if (!stored) return std::move(stored).error();
    lock.unlock();
    for (const auto& lease : collected) {
        if (!lease.endpoint.empty()) reportReleased(lease.endpoint, lease.key.address);
    }
    return collected;
}

Pool* LocalIpam::findPool(const IpPrefix& prefix) const {
    const auto found = byPrefix_.find(prefix);
    return found == byPrefix_.end() ? nullptr : found->second;
}

void LocalIpam::erasePool(const PoolId& poolId) {
    const auto pool = pools_.find(poolId);
    if (pool == pools_.end()) return;
    byPrefix_.erase(pool->second->record.pool);
    pools_.erase(pool);
}

const HeldRanges* LocalIpam::heldOf(const IpPrefix& prefix) {
    return config_.onlyHeld ? &held_[prefix] : nullptr;
}

void LocalIpam::hold(const IpPrefix& prefix, AddressRange range, std::span<const Uint128> holes) {
    const std::lock_guard lock(mutex_);
    HeldRanges& held = held_[prefix];
    held.erase(range);
    held.insert(range);
    for (const Uint128 hole : holes) held.erase({hole, hole});
}

std::optional<PoolRecord> LocalIpam::findRecord(const PoolId& poolId) const {
    const std::lock_guard lock(mutex_);
    const auto pool = pools_.find(poolId);
    return pool == pools_.end() ? std::nullopt : std::optional(pool->second->record);
}

bool LocalIpam::vacate(const IpPrefix& prefix, AddressRange range) {
    const std::lock_guard lock(mutex_);
    if (Pool* pool = findPool(prefix)) {
        const bool named = range.first == range.last;
        if (named ? pool->find(pool->address(range.first)) != nullptr : !pool->isVacant(range, clock_.now())) {
            return false;
        }
    }
    held_[prefix].erase(range);
    return true;
}

void LocalIpam::withhold(const IpPrefix& prefix, Uint128 address) {
    const std::lock_guard lock(mutex_);
    held_[prefix].erase({address, address});
}

std::vector<std::pair<IpPrefix, IpAddress>> LocalIpam::leasesNotHeld(size_t most) const {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<IpPrefix, IpAddress>> found;
    for (const auto& [id, pool] : pools_) {
        const auto held = held_.find(pool->record.pool);
        for (const auto& [bits, lease] : pool->leases()) {
            if (found.size() >= most) return found;
            if (lease.kind != LeaseKind::Endpoint || (held != held_.end() && held->second.contains(bits))) continue;
            found.emplace_back(pool->record.pool, pool->address(bits));
        }
    }
    return found;
}

void LocalIpam::withdraw(const IpPrefix& prefix) {
    const std::lock_guard lock(mutex_);
    held_[prefix] = {};
}

bool LocalIpam::isVacant(const IpPrefix& prefix, AddressRange range) {
    const std::lock_guard lock(mutex_);
    Pool* pool = findPool(prefix);
    return pool == nullptr || pool->isVacant(range, clock_.now());
}

std::optional<IpAddress> LocalIpam::vacateAny(const IpPrefix& prefix, AddressRange within) {
    const std::lock_guard lock(mutex_);
    HeldRanges& held = held_[prefix];
    std::optional<Uint128> bits;
    if (Pool* pool = findPool(prefix)) {
        bits = pool->findVacant(within, clock_.now());
    } else {
        for (const auto& [first, last] : held.ranges()) {
            if (last < within.first || first > within.last) continue;
            bits = std::max(first, within.first);
            break;
        }
    }
    if (!bits) return std::nullopt;
    held.erase({*bits, *bits});
    return IpAddress(prefix.family(), *bits);
}

bool LocalIpam::isFree(const IpPrefix& prefix, const IpPrefix& within) {
    const std::lock_guard lock(mutex_);
    Pool* pool = findPool(prefix);
    if (pool == nullptr) return false;
    const auto held = held_.find(prefix);
    if (held == held_.end()) return false;
    const Uint128 low = within.first().bits();
    const Uint128 high = within.last().bits();
    for (const auto& [first, last] : held->second.ranges()) {
        // A quarantined address is chosen when nothing else is left.
        const Uint128 from = std::max(first, low);
        const Uint128 to = std::min(last, high);
        if (from > to) continue;
        Uint128 expected = from;
        for (auto at = pool->leases().lower_bound(from); at != pool->leases().end() && at->first == expected; ++at) {
            if (expected == to) break;
            ++expected;
        }
        if (!pool->leases().contains(expected)) return true;
    }
    return false;
}

Uint128 LocalIpam::freeHeld(const IpPrefix& prefix) const {
    const std::lock_guard lock(mutex_);
    const auto held = held_.find(prefix);
    if (held == held_.end()) return 0;
    Uint128 leased = 0;
    if (const Pool* pool = findPool(prefix)) {
        for (const auto& [bits, lease] : pool->leases()) leased += held->second.contains(bits) ? 1 : 0;
    }
    return held->second.size() - leased;
}

bool LocalIpam::hasPool(const IpPrefix& prefix) const {
    const std::lock_guard lock(mutex_);
    return findPool(prefix) != nullptr;
}

std::vector<PoolInfo> LocalIpam::listPools() const {
    const std::lock_guard lock(mutex_);
    std::vector<PoolInfo> list;
    for (const auto& [poolId, pool] : pools_) {
        list.push_back({pool->record, pool->leases().size(), pool->freeCount(), endpointCount(*pool)});
    }
    return list;
}

std::vector<LeaseInfo> LocalIpam::listLeases(const PoolId& poolId) const {
    const std::lock_guard lock(mutex_);
    std::vector<LeaseInfo> list;
    for (const auto& [id, pool] : pools_) {
        if (!poolId.empty() && id != poolId) continue;
        for (const auto& [bits, lease] : pool->leases()) {
            list.push_back({{{id, pool->address(bits)}, lease.kind}, lease.endpoint, age(lease)});
        }
    }
    return list;
}

}  // namespace weft::ipam
