#include "ipam/block_allocator.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/log.h"
#include "kv/wire.h"

namespace weft::ipam {

namespace {

using kv::NodeId;

constexpr uint8_t kVersion = 1;
constexpr unsigned kSingleBits = 24;
constexpr size_t kLooks = 64;            // pools a tick
constexpr size_t kShownUnits = 20000;    // rows a page of pools()
constexpr size_t kClaimsPerHost = 4096;  // addresses of one's blocks that another's rows keep from being given out
constexpr size_t kReclaimAtOnce = 16;
constexpr std::string_view kUnitPrefix = "ipam/unit/";
constexpr std::string_view kWantPrefix = "ipam/want/";
constexpr std::string_view kNoPrefix = "ipam/no/";

std::string text(const kv::Writer& out) {
    return {out.view().begin(), out.view().end()};
}

uint64_t base(uint64_t singleGeneration) {
    return singleGeneration >> kSingleBits;
}

std::string hex(Uint128 value) {
    static constexpr std::string_view kDigits = "0123456789abcdef";
    std::string out;
    do {
        out.insert(out.begin(), kDigits[static_cast<size_t>(value & 15)]);
        value >>= 4;
    } while (value != 0);
    return out;
}

std::optional<Uint128> parseHex(std::string_view digits) {
    if (digits.empty() || digits.size() > 32) return std::nullopt;
    Uint128 value = 0;
    for (const char digit : digits) {
        unsigned nibble = 0;
        if (std::from_chars(&digit, &digit + 1, nibble, 16).ec != std::errc()) return std::nullopt;
        value = value << 4 | nibble;
    }
    return value;
}

}  // namespace

std::string describeHolders(const SharedPool& pool) {
    std::string out;
    for (const auto& holder : pool.holders) {
        out += (out.empty() ? "" : ", ") + holder.host + " holds " + std::to_string(holder.blocks) + " blocks";
        if (!holder.alive) out += " (away)";
    }
    return out;
}

std::string describe(std::span<const SharedPool> pools) {
    std::string out;
    for (const SharedPool& pool : pools) {
        out += "pool " + pool.prefix.str() + ", gateway " + pool.gateway.str() + ", " + std::to_string(pool.blocks) +
               " blocks of /" + std::to_string(pool.blockLength) + ": " + describeHolders(pool) + "\n";
    }
    return out;
}

BlockPlan::BlockPlan(const IpPrefix& pool) : prefix(pool), usable(usableRange(pool)) {
    const unsigned host = addressBits(pool.family()) - pool.length();
    // 32 blocks of a /24, 256 of a /16 and of anything larger; single addresses in a /27 and smaller.
    const unsigned countBits = host <= 5 ? host : host <= 8 ? 5 : std::min(8U, 5 + (host - 8) * 3 / 8);
    bits = host - countBits;
    count = 1U << countBits;
}

uint32_t BlockPlan::blockOf(const IpAddress& address) const {
    return static_cast<uint32_t>((address.bits() - prefix.first().bits()) >> bits);
}

AddressRange BlockPlan::range(uint32_t block) const {
    const Uint128 first = prefix.first().bits() + (Uint128{block} << bits);
    const Uint128 last = first + ((Uint128{1} << bits) - 1);
    return {std::max(first, usable.first), std::min(last, usable.last)};
}

// --- rows ---

std::string BlockAllocator::encode(const Unit& unit) {
    kv::Writer out;
    out.u8(kVersion);
    out.u64(unit.generation);
    out.id(unit.holder);
    return text(out);
}

std::string BlockAllocator::encode(const Want& want) {
    kv::Writer out;
    out.u8(kVersion);
    out.u32(want.pool);
    out.u8(static_cast<uint8_t>(want.kind));
    out.u64(want.serial);
    out.id(want.target);
    out.address({want.address, 0});
    out.address({want.within.address(), 0});
    out.u8(want.within.length());
    return text(out);
}

std::string BlockAllocator::keyOf(const UnitKey& key) {
    return std::string(kUnitPrefix) + std::to_string(key.pool) + (key.single ? "/a" : "/b") + hex(key.number);
}

std::optional<BlockAllocator::UnitKey> BlockAllocator::parseKey(const std::string& key) {
    UnitKey unit;
    const char* end = key.data() + key.size();
    const auto [at, error] = std::from_chars(key.data() + kUnitPrefix.size(), end, unit.pool);
    if (error != std::errc() || end - at < 3 || at[0] != '/' || (at[1] != 'a' && at[1] != 'b')) return std::nullopt;
    unit.single = at[1] == 'a';
    const auto number = parseHex(std::string_view(at + 2, static_cast<size_t>(end - at - 2)));
    if (!number) return std::nullopt;
    unit.number = *number;
    return unit;
}

// Rows of a host that is away for now count on: who owns what does not depend on who is there.
bool BlockAllocator::onRow(kv::RowEvent event, const kv::Row& row) {
    recovery_.onRow(event, row);
    const bool there = event == kv::RowEvent::Put && row.version >= recovery_.voidBelow(row.owner);
    kv::Reader in(kv::asBytes(row.value));
    if (row.key.starts_with(kUnitPrefix)) {
        const auto key = parseKey(row.key);
        if (!key && row.owner == node_.id()) unreadable_ = row.key;
        if (!key || event == kv::RowEvent::Suspended) return false;
        if (!there) {
            eraseRow(row.owner, *key);
            return false;
        }
        Unit unit;
        if (in.u8() == kVersion) {
            unit.generation = in.u64();
            unit.holder = in.id();
        }
        if (!in.done()) {
            if (row.owner == node_.id()) unreadable_ = row.key;
            return false;
        }
        putRow(row.owner, *key, unit);
        // What others give each other matters when somebody counts, and to demands at the next tick.
        return row.owner == node_.id() || unit.holder == node_.id() || ledger_.frozen() || recovery_.busy();
    } else if (row.key.starts_with(kWantPrefix)) {
        const std::pair at(row.owner, row.key.substr(kWantPrefix.size()));
        Want want;
        bool sound = there && row.owner != node_.id() && in.u8() == kVersion;
        if (sound) {
            want.pool = in.u32();
            const uint8_t kind = in.u8();
            sound = kind >= 1 && kind <= 3;
            want.kind = static_cast<WantKind>(kind);
            want.serial = in.u64();
            want.target = in.id();
            want.address = in.address().ip;
            const IpAddress first = in.address().ip;
            want.within = IpPrefix(first, in.u8());
            sound =
                sound && in.done() && want.target == node_.id() && want.within.length() <= addressBits(first.family());
        }
        if (sound) {
            wants_[at] = want;
        } else {
            wants_.erase(at);
            if (event != kv::RowEvent::Suspended && !there) answered_.erase(at);
            // Refusals go with what they refused.
            if (row.owner != node_.id() && event != kv::RowEvent::Suspended) {
                node_.erase(std::string(kNoPrefix) + row.owner.str() + "/" + at.second, [](const Result<void>&) {});
            }
        }
    } else if (row.key.starts_with(kNoPrefix)) {
        const std::string mine = std::string(kNoPrefix) + node_.id().str() + "/";
        if (!row.key.starts_with(mine)) return false;
        const std::string key = row.key.substr(mine.size()) + "@" + row.owner.str();
        if (there && in.u8() == kVersion) {
            refusals_[key] = in.u64();
        } else {
            refusals_.erase(key);
        }
    } else {
        ledger_.onRow(event, row);
    }
    return true;
}

void BlockAllocator::putRow(const NodeId& owner, const UnitKey& key, const Unit& unit) {
    ++work_;
    units_[owner][key] = unit;
    owners_[key][owner] = unit;
    if (owner == node_.id()) {
        changed_.insert(key.pool);
    } else if (unit.holder == node_.id()) {
        gifts_.insert({key, owner});
    } else {
        gifts_.erase({key, owner});
    }
}

void BlockAllocator::eraseRow(const NodeId& owner, const UnitKey& key) {
    ++work_;
    if (const auto units = units_.find(owner); units != units_.end()) {
        units->second.erase(key);
        if (units->second.empty()) units_.erase(units);
    }
    if (const auto owners = owners_.find(key); owners != owners_.end()) {
        owners->second.erase(owner);
        if (owners->second.empty()) owners_.erase(owners);
    }
    gifts_.erase({key, owner});
    if (owner == node_.id()) changed_.insert(key.pool);
}

// --- life ---

BlockAllocator::BlockAllocator(kv::Node& node, LocalIpam& book, const Clock& clock, BlockConfig config)
    : node_(node),
      book_(book),
      clock_(clock),
      config_(std::move(config)),
      serial_(config_.ledger.random()),
      recovery_(node, config_.ledger.alone, config_.recoverQuiet,
                {.settled = [this] { return saving_.empty() && !ledger_.writing(); },
                 .others = [this](std::string& why) { return witnesses(why); },
                 .voided = [this](const NodeId& id) { drop(id); },
                 .restore = [this](std::function<void(bool)> done) { restore(std::move(done)); }}),
      ledger_(node, clock, config_.ledger,
              {.unitsSettled = [this] { return saving_.empty(); },
               .unitsDigest = [this](const NodeId& id) { return digest(id); },
               .adopt = [this](std::function<void()> done) { adopt(std::move(done)); },
               .changed = [this] { process(); },
               .fenced = [this] { return silent(); },
               .recovering = [this](const NodeId& id) { return recovery_.recovering(id); },
               .voidBelow = [this](const NodeId& id) { return recovery_.voidBelow(id); }}) {
    hesitating_ = !config_.ledger.alone && config_.firstContact.count() > 0;
    hesitatesUntil_ = node_.now() + config_.firstContact;
    busy_ = true;
    watch_ = node_.watch("ipam/", [this](kv::RowEvent event, const kv::Row& row) {
        if (onRow(event, row)) process();
    });
    if (!config_.evidence.prefix.empty()) {
        evidenceWatch_ = node_.watch(config_.evidence.prefix,
                                     [this](kv::RowEvent event, const kv::Row& row) { onEvidence(event, row); });
    }
    busy_ = false;
    // Wants of an earlier life have nobody waiting.
    for (const kv::Row& row : node_.table().list("ipam/")) {
        if (row.owner != node_.id()) continue;
        if (row.key.starts_with(kWantPrefix) || row.key.starts_with("ipam/ask/")) {
            node_.erase(row.key, [](const Result<void>&) {});
        }
    }
    node_.onDoubt([this, life = std::weak_ptr(life_)] {
        if (!life.expired()) process();
    });
    process();
}

BlockAllocator::~BlockAllocator() {
    node_.unwatch(watch_);
    if (evidenceWatch_ != 0) node_.unwatch(evidenceWatch_);
    life_.reset();
    for (auto& [key, demand] : std::exchange(demands_, {})) {
        for (auto& done : demand.waiting) done(makeError(ErrorCode::Unavailable, "weftd is ending"));
    }
    for (auto& [prefix, demand] : std::exchange(poolDemands_, {})) {
        for (auto& done : demand.waiting) done(makeError(ErrorCode::Unavailable, "weftd is ending"));
    }
}

void BlockAllocator::tick() {
    retryUnits();
    const auto& pools = ledger_.committed().pools;
    if (!silent() && !ledger_.frozen() && !ledger_.forgotten()) {
        const auto look = [&](const PoolEntry& of) {
            ++work_;
            if (ledger_.isMember()) askAhead(of);
            handBack(of);
        };
        for (const uint32_t number : std::exchange(touched_, {})) {
            if (const PoolEntry* of = pool(number); of != nullptr && ledger_.isMember()) askAhead(*of);
        }
        auto at = std::ranges::upper_bound(pools, looked_, {}, &PoolEntry::number);
        for (size_t i = 0; i < std::min(kLooks, pools.size()); ++i, ++at) {
            if (at == pools.end()) at = pools.begin();
            look(*at);
            looked_ = at->number;
        }
    }
    reclaim();
    if (auto lines = warnings(); lines != told_) {
        told_ = std::move(lines);
        factsVersion_ = 0;
    }
    process();
    for (const NodeId& id : ledger_.committed().forgotten) node_.giveUp(id);
}

void BlockAllocator::touch(const IpPrefix& prefix) {
    const PoolEntry* of = poolOf(prefix);
    if (of == nullptr || !touched_.insert(of->number).second) return;
    nextAhead_.erase(of->number);
}

void BlockAllocator::tellFacts() {
    if (!config_.onFacts || factsVersion_ == ledger_.factsVersion()) return;
    factsVersion_ = ledger_.factsVersion();
    LedgerFacts facts = ledger_.facts();
    facts.warnings.insert(facts.warnings.end(), told_.begin(), told_.end());
    config_.onFacts(std::make_shared<const LedgerFacts>(std::move(facts)));
}

void BlockAllocator::process() {
    if (busy_) {
        again_ = true;
        return;
    }
    busy_ = true;
    do {
        again_ = false;
        run();
    } while (again_);
    busy_ = false;
    tellFacts();
    const bool before = std::exchange(wasBusy_, busy());
    if (wasBusy_ && !before && config_.onBusy) config_.onBusy();
}

bool BlockAllocator::busy() const {
    return !demands_.empty() || !poolDemands_.empty() || !failed_.empty() || ledger_.busy() || recovery_.busy() ||
           hesitating_;
}

void BlockAllocator::run() {
    hesitate();
    if (believed_ != ledger_.accepted().forgotten.size()) {
        believed_ = ledger_.accepted().forgotten.size();
        std::vector<std::pair<NodeId, std::string>> gone;
        for (const auto& [at, keys] : claimRows_) {
            if (ledger_.accepted().forgotten.contains(at.first)) gone.push_back(at);
        }
        for (const auto& at : gone) unclaim(at);
    }
    recovery_.process();
    if (std::exchange(wasFenced_, recovery_.fenced()) != recovery_.fenced()) fence();
    ledger_.process();
    acceptUnits();
    sync();
    answer();
    pursuePools();
    pursue();
}

// --- who owns what ---

const BlockAllocator::Unit* BlockAllocator::find(const NodeId& owner, const UnitKey& key) const {
    const auto units = units_.find(owner);
    if (units == units_.end()) return nullptr;
    const auto unit = units->second.find(key);
    return unit == units->second.end() ? nullptr : &unit->second;
}

std::optional<uint64_t> BlockAllocator::ownBlock(const PoolEntry& pool, uint32_t block) const {
    const UnitKey key{pool.number, false, block};
    const Unit* own = find(node_.id(), key);
    if (own == nullptr && pool.home != node_.id()) return std::nullopt;
    if (own != nullptr && own->holder != node_.id()) return std::nullopt;
    const uint64_t generation = own == nullptr ? 0 : own->generation;
    // Another one that had it later had it from this host, whatever this host remembers.
    const auto owners = owners_.find(key);
    if (owners == owners_.end()) return generation;
    for (const auto& [id, unit] : owners->second) {
        if (unit.generation > generation && ledger_.accepted().isMember(id)) return std::nullopt;
    }
    return generation;
}

// Not if the block went through this host's hands since: then the address went along.
bool BlockAllocator::ownSingle(const PoolEntry& pool, const BlockPlan& plan, const UnitKey& key) const {
    const Unit* own = find(node_.id(), key);
    if (own == nullptr || own->holder != node_.id()) return false;
    const Unit* block = find(node_.id(), {pool.number, false, plan.blockOf({pool.prefix.family(), key.number})});
    return block == nullptr || block->generation <= base(own->generation);
}

// Whether addresses of a block of this host are with others.
bool BlockAllocator::carved(const PoolEntry& pool, const BlockPlan& plan, uint32_t block) const {
    const uint64_t generation = ownBlock(pool, block).value_or(0);
    const AddressRange range = plan.range(block);
    const auto outside = [&](const auto& entries) {
        for (auto at = entries.lower_bound({pool.number, true, range.first}); at != entries.end(); ++at) {
            const UnitKey& key = at->first;
            if (key.pool != pool.number || !key.single || key.number > range.last) break;
            if (at->second.holder != node_.id() && base(at->second.generation) >= generation) return true;
        }
        return false;
    };
    const auto own = units_.find(node_.id());
    return (own != units_.end() && outside(own->second)) || outside(saving_);
}

NodeId BlockAllocator::holder(const PoolEntry& pool, uint32_t block) const {
    Unit best{0, pool.home};
    if (const auto owners = owners_.find({pool.number, false, block}); owners != owners_.end()) {
        for (const auto& [id, unit] : owners->second) {
            ++work_;
            if (unit.generation > best.generation && ledger_.accepted().isMember(id)) best = unit;
        }
    }
    return best.holder;
}

NodeId BlockAllocator::holderOf(const PoolEntry& pool, const BlockPlan& plan, const IpAddress& address) const {
    const uint32_t block = plan.blockOf(address);
    uint64_t blockGeneration = 0;
    Unit best;
    if (const auto owners = owners_.find({pool.number, false, block}); owners != owners_.end()) {
        for (const auto& [id, unit] : owners->second) {
            if (ledger_.accepted().isMember(id)) blockGeneration = std::max(blockGeneration, unit.generation);
        }
    }
    if (const auto owners = owners_.find({pool.number, true, address.bits()}); owners != owners_.end()) {
        for (const auto& [id, unit] : owners->second) {
            if (unit.generation > best.generation && ledger_.accepted().isMember(id)) best = unit;
        }
    }
    if (best.generation != 0 && base(best.generation) >= blockGeneration) return best.holder;
    return holder(pool, block);
}

NodeId BlockAllocator::home(const PoolEntry& pool) const {
    const LedgerView& view = ledger_.accepted();
    return view.isMember(pool.home) || view.members.empty() ? pool.home : view.members.front();
}

// What no row speaks of is its first owner's: the cost follows the rows.
std::map<NodeId, size_t> BlockAllocator::holders(const PoolEntry& pool) const {
    std::map<NodeId, size_t> count;
    const BlockPlan plan(pool.prefix);
    const auto usable = [&](uint32_t block) {
        const AddressRange range = plan.range(block);
        return range.first <= range.last;
    };
    size_t atHome = plan.count;
    if (!usable(0)) --atHome;
    if (plan.count > 1 && !usable(plan.count - 1)) --atHome;
    for (auto at = owners_.lower_bound({pool.number, false, 0}); at != owners_.end(); ++at) {
        const UnitKey& key = at->first;
        if (key.pool != pool.number) break;
        ++work_;
        if (key.single) {
            for (const auto& [id, unit] : at->second) {
                if (unit.holder == id && ledger_.accepted().isMember(id)) count.try_emplace(id, 0);
            }
            continue;
        }
        if (key.number >= plan.count || !usable(static_cast<uint32_t>(key.number))) continue;
        --atHome;
        ++count[holder(pool, static_cast<uint32_t>(key.number))];
    }
    if (atHome > 0) count[pool.home] += atHome;
    return count;
}

uint64_t BlockAllocator::digest(const NodeId& id) const {
    kv::Writer out;
    out.id(id);
    if (const auto units = units_.find(id); units != units_.end()) {
        for (const auto& [key, unit] : units->second) {
            out.text8(keyOf(key));
            out.u64(unit.generation);
            out.id(unit.holder);
        }
    }
    return kv::Table::hashKey(text(out));
}

bool BlockAllocator::mayGive(const NodeId& to) const {
    return to != node_.id() && !silent() && !recovery_.recovering(to) && !ledger_.frozen() && !ledger_.forgotten() &&
           ledger_.isMember() && ledger_.committed().isMember(to) && ledger_.accepted().isMember(to);
}

// --- the book follows the rows ---

void BlockAllocator::putUnit(const UnitKey& key, Unit unit, std::function<void()> then) {
    saving_[key] = unit;
    node_.put(keyOf(key), encode(unit),
              [this, key, then = std::move(then), life = std::weak_ptr(life_)](const Result<void>& saved) {
                  if (life.expired()) return;
                  if (!saved) {  // it may be on the disk all the same: only the same again is safe
                      failed_[key] = then;
                      return;
                  }
                  saving_.erase(key);
                  changed_.insert(key.pool);
                  if (then) then();
                  process();
              });
}

void BlockAllocator::retryUnits() {
    for (auto& [key, then] : std::exchange(failed_, {})) putUnit(key, saving_.at(key), then);
}

void BlockAllocator::acceptUnits() {
    if (silent() || ledger_.frozen() || ledger_.forgotten() || !ledger_.isMember()) return;
    std::vector<std::pair<UnitKey, Unit>> mine;
    for (auto at = gifts_.begin(); at != gifts_.end();) {
        ++work_;
        const auto& [key, giver] = *at;
        const Unit* unit = find(giver, key);
        const Unit* own = find(node_.id(), key);
        if (unit == nullptr || (own != nullptr && own->generation >= unit->generation)) {
            at = gifts_.erase(at);  // for good: this host's generation only grows
            continue;
        }
        if (!saving_.contains(key) && pool(key.pool) != nullptr && ledger_.accepted().isMember(giver) &&
            ledger_.committed().isMember(giver)) {
            mine.emplace_back(key, *unit);
        }
        ++at;
    }
    for (const auto& [key, unit] : mine) {
        if (!saving_.contains(key)) putUnit(key, unit);
    }
}

void BlockAllocator::sync() {
    if (silent()) return;
    if (ledger_.forgotten()) {
        if (held_.empty()) return;
        for (const PoolEntry& pool : ledger_.committed().pools) book_.withdraw(pool.prefix);
        held_.clear();
        carved_.clear();
        return;
    }
    const auto& pools = ledger_.committed().pools;
    for (auto at = std::ranges::upper_bound(pools, known_, {}, &PoolEntry::number); at != pools.end(); ++at) {
        changed_.insert(at->number);
        known_ = at->number;
    }
    std::vector<Fresh> fresh;
    for (const uint32_t number : std::exchange(changed_, {})) {
        if (const PoolEntry* of = pool(number)) syncPool(*of, fresh);
    }
    // Into the book goes what is this host's and no container of another's.
    if (fresh.empty()) return;
    findClaims();
    for (Fresh& one : fresh) {
        const UnitKey start{one.pool->number, true, one.range.first};
        for (auto at = claimed_.lower_bound(start); at != claimed_.end(); ++at) {
            if (at->first.pool != one.pool->number || at->first.number > one.range.last) break;
            one.holes.push_back(at->first.number);
        }
        book_.hold(one.pool->prefix, one.range, one.holes);
    }
}

void BlockAllocator::syncPool(const PoolEntry& pool, std::vector<Fresh>& fresh) {
    const BlockPlan plan(pool.prefix);
    auto& units = units_[node_.id()];
    const auto first = units.lower_bound({pool.number, false, 0});
    const auto end = units.lower_bound({pool.number + 1, false, 0});
    const auto take = [&](uint32_t block) {
        ++work_;
        const UnitKey key{pool.number, false, block};
        const AddressRange range = plan.range(block);
        const auto generation = ownBlock(pool, block);
        if (held(key) || saving_.contains(key) || range.first > range.last || !generation) return;
        held_.insert(key);
        held_.erase(held_.lower_bound({pool.number, true, range.first}),
                    held_.upper_bound({pool.number, true, range.last}));
        // The gateway is every host's and never an endpoint's.
        std::vector<Uint128> holes{pool.gateway.bits()};
        for (auto at = units.lower_bound({pool.number, true, range.first}); at != end; ++at) {
            const auto& [single, unit] = *at;
            if (single.number > range.last) break;
            if (unit.holder == node_.id() || base(unit.generation) < *generation) continue;
            carved_.insert(single);
            holes.push_back(single.number);
        }
        fresh.push_back({&pool, range, std::move(holes)});
    };
    if (pool.home == node_.id()) {
        for (uint32_t block = 0; block < plan.count; ++block) take(block);
    } else {
        for (auto at = first; at != end && !at->first.single; ++at) {
            if (at->first.number < plan.count) take(static_cast<uint32_t>(at->first.number));
        }
    }
    for (auto at = units.lower_bound({pool.number, true, 0}); at != end; ++at) {
        ++work_;
        const auto& [key, unit] = *at;
        if (saving_.contains(key)) continue;
        const UnitKey block{key.pool, false, plan.blockOf({pool.prefix.family(), key.number})};
        const AddressRange only{key.number, key.number};
        const bool mine = unit.holder == node_.id();
        if (held(block)) {
            if (mine && carved_.erase(key) != 0) fresh.push_back({&pool, only, {}});
        } else if (mine && !held(key) && !saving_.contains(block) && ownSingle(pool, plan, key)) {
            held_.insert(key);
            fresh.push_back({&pool, only, {}});
        }
    }
}

// --- giving ---

bool BlockAllocator::giveBlock(const PoolEntry& pool, const BlockPlan& plan, uint32_t block, const NodeId& to) {
    const UnitKey key{pool.number, false, block};
    if (!held(key) || saving_.contains(key) || !mayGive(to) || carved(pool, plan, block)) return false;
    const auto generation = ownBlock(pool, block);
    if (!generation || !book_.vacate(pool.prefix, plan.range(block))) return false;
    held_.erase(key);
    idleSince_.erase(key);
    const AddressRange range = plan.range(block);
    carved_.erase(carved_.lower_bound({pool.number, true, range.first}),
                  carved_.upper_bound({pool.number, true, range.last}));
    claimed_.erase(claimed_.lower_bound({pool.number, true, range.first}),
                   claimed_.upper_bound({pool.number, true, range.last}));
    putUnit(key, {*generation + 1, to});
    return true;
}

bool BlockAllocator::giveSingle(const PoolEntry& pool, const BlockPlan& plan, const IpAddress& address,
                                const NodeId& to, bool vacated) {
    const UnitKey key{pool.number, true, address.bits()};
    const uint32_t block = plan.blockOf(address);
    const UnitKey blockKey{pool.number, false, block};
    const auto claim = claimed_.find(key);
    if (claim != claimed_.end() && !claim->second.contains(to)) return false;
    if (plan.bits == 0) return giveBlock(pool, plan, block, to);
    if (saving_.contains(key) || saving_.contains(blockKey) || !mayGive(to) || address == pool.gateway) return false;
    const Unit* own = find(node_.id(), key);
    uint64_t generation = own == nullptr ? 0 : own->generation;
    if (held(blockKey)) {
        if (carved_.contains(key)) return false;
        generation = std::max(generation, *ownBlock(pool, block) << kSingleBits);
    } else if (!held(key)) {
        return false;
    }
    const AddressRange only{address.bits(), address.bits()};
    if (!vacated && !book_.vacate(pool.prefix, only)) return false;
    if (held(blockKey)) carved_.insert(key);
    claimed_.erase(key);
    held_.erase(key);
    idleSince_.erase(key);
    putUnit(key, {generation + 1, to});
    return true;
}

void BlockAllocator::answer() {
    if (silent() || ledger_.frozen() || ledger_.forgotten()) return;
    for (const auto& [at, want] : wants_) {
        uint64_t& last = answered_[at];
        const PoolEntry* of = pool(want.pool);
        if (last == want.serial || of == nullptr || !mayGive(at.first)) continue;
        last = want.serial;
        const BlockPlan plan(of->prefix);
        if (give(*of, plan, at.first, want) || onTheWay(want.pool, at.first)) continue;
        kv::Writer out;
        out.u8(kVersion);
        out.u64(want.serial);
        node_.put(std::string(kNoPrefix) + at.first.str() + "/" + at.second, text(out), [](const Result<void>&) {});
        again_ = true;  // the maps may have changed
        return;
    }
}

// Something of the pool was given to it that it has not seen yet: it will, and needs no refusal.
bool BlockAllocator::onTheWay(uint32_t pool, const NodeId& to) const {
    const auto own = units_.find(node_.id());
    if (own == units_.end()) return false;
    for (auto at = own->second.lower_bound({pool, false, 0}); at != own->second.end(); ++at) {
        const auto& [key, unit] = *at;
        if (key.pool != pool) break;
        ++work_;
        if (unit.holder != to) continue;
        const Unit* theirs = find(to, key);
        if (theirs == nullptr || theirs->generation < unit.generation) return true;
    }
    return false;
}

bool BlockAllocator::give(const PoolEntry& pool, const BlockPlan& plan, const NodeId& asker, const Want& want) {
    if (want.kind == WantKind::Exact) {
        return pool.prefix.contains(want.address) && giveSingle(pool, plan, want.address, asker, false);
    }
    AddressRange within = plan.usable;
    if (pool.prefix.contains(want.within)) {
        within.first = std::max(within.first, want.within.first().bits());
        within.last = std::min(within.last, want.within.last().bits());
    }
    std::vector<uint32_t> empty;
    std::vector<Uint128> singles;
    for (auto at = held_.lower_bound({pool.number, false, 0}); at != held_.end(); ++at) {
        const UnitKey& key = *at;
        if (key.pool != pool.number) break;
        ++work_;
        if (key.single) {
            if (within.contains(key.number)) singles.push_back(key.number);
            continue;
        }
        const auto block = static_cast<uint32_t>(key.number);
        const AddressRange range = plan.range(block);
        if (range.last < within.first || range.first > within.last) continue;
        if (range.first == range.last && range.first == pool.gateway.bits()) continue;
        if (!saving_.contains(key) && !carved(pool, plan, block) && book_.isVacant(pool.prefix, range)) {
            empty.push_back(block);
        }
    }
    // Whoever asks ahead gets what is to spare.
    if (want.kind == WantKind::Ahead && empty.size() < 2) return false;
    if (!empty.empty() && giveBlock(pool, plan, empty.back(), asker)) return true;
    if (want.kind == WantKind::Ahead || plan.bits == 0) return false;
    for (const Uint128 bits : singles) {
        if (book_.isVacant(pool.prefix, {bits, bits}) &&
            giveSingle(pool, plan, {pool.prefix.family(), bits}, asker, false))
            return true;
    }
    if (const auto address = book_.vacateAny(pool.prefix, within)) {
        if (giveSingle(pool, plan, *address, asker, true)) return true;
        book_.hold(pool.prefix, {address->bits(), address->bits()});
    }
    return false;
}

// --- wanting ---

void BlockAllocator::needPool(const IpPrefix& prefix, std::optional<IpAddress> given, Done done) {
    const PoolEntry* known = poolOf(prefix);
    const IpAddress gateway = given              ? *given
                              : known != nullptr ? known->gateway
                                                 : IpAddress(prefix.family(), usableRange(prefix).first);
    PoolDemand& demand = poolDemands_[prefix];
    if (demand.waiting.empty()) demand = {gateway, clock_.now() + config_.patience, {}, false};
    if (demand.gateway != gateway) {
        return done(makeError(ErrorCode::Busy, "pool " + prefix.str() + " is being made with gateway " +
                                                   demand.gateway.str() + ", not " + gateway.str()));
    }
    demand.waiting.push_back(std::move(done));
    process();
}

void BlockAllocator::pursuePools() {
    for (auto at = poolDemands_.begin(); at != poolDemands_.end();) {
        const IpPrefix prefix = at->first;
        std::optional<Result<void>> result;
        if (const std::string why = obstacle(); ledger_.forgotten() || recovery_.fenced()) {
            result = makeError(ErrorCode::Unavailable, "make pool " + prefix.str() + ": " + why);
        } else if (const PoolEntry* known = poolOf(prefix); known != nullptr && ledger_.isMember()) {
            result = Result<void>();
            if (known->gateway != at->second.gateway) {
                result = makeError(ErrorCode::Busy, "pool " + prefix.str() + " has gateway " + known->gateway.str() +
                                                        " on all hosts, not " + at->second.gateway.str());
            }
        } else if (known == nullptr) {
            if (const PoolEntry* other = ledger_.committed().findOverlap(prefix)) {
                result = makeError(ErrorCode::Busy,
                                   "subnet " + prefix.str() + " overlaps the cluster's pool " + other->prefix.str());
            }
        }
        if (!result && clock_.now() >= at->second.deadline) {
            std::string why = obstacle();
            if (why.empty()) why = "the other hosts did not agree in time";
            result = makeError(ErrorCode::Unavailable, "make pool " + prefix.str() + ": " + why);
        }
        if (!result) {
            if (!std::exchange(at->second.asked, true)) ledger_.askPool(prefix, at->second.gateway);
            ++at;
            continue;
        }
        auto waiting = std::move(at->second.waiting);
        at = poolDemands_.erase(at);
        ledger_.withdrawPool(prefix);
        for (auto& done : waiting) done(*result);
        again_ = true;
        return;
    }
}

void BlockAllocator::needAddress(const IpPrefix& prefix, std::optional<IpAddress> exact, std::optional<IpPrefix> within,
                                 Done done) {
    const PoolEntry* of = poolOf(prefix);
    if (of == nullptr || !ledger_.isMember() || ledger_.forgotten() || recovery_.fenced()) {
        const std::string why = obstacle();
        return done(makeError(ErrorCode::Unavailable, "pool " + prefix.str() + ": " +
                                                          (why.empty() ? "the cluster does not know it yet" : why)));
    }
    if (exact == of->gateway) {
        return done(makeError(ErrorCode::Busy, exact->str() + " is the gateway of pool " + prefix.str()));
    }
    const std::string key = std::to_string(of->number) + "/" + (exact ? exact->str() : within ? within->str() : "any");
    Demand& demand = demands_[key];
    if (demand.waiting.empty()) {
        demand.want = {of->number,
                       exact ? WantKind::Exact : WantKind::Any,
                       ++serial_,
                       {},
                       exact.value_or(IpAddress()),
                       within.value_or(prefix)};
        demand.asked.clear();
        demand.silent.clear();
        demand.askedAt = {};
        demand.deadline = clock_.now() + config_.patience;
    }
    demand.waiting.push_back(std::move(done));
    process();
}

void BlockAllocator::finish(const std::string& key, const Result<void>& result) {
    auto node = demands_.extract(key);
    node_.erase(std::string(kWantPrefix) + key, [](const Result<void>&) {});
    if (node.empty()) return;
    for (auto& done : node.mapped().waiting) done(result);
}

void BlockAllocator::ask(const std::string& key, Demand& demand) {
    demand.want.serial = ++serial_;
    demand.asked.insert(demand.want.target);
    demand.askedAt = clock_.now();
    node_.put(std::string(kWantPrefix) + key, encode(demand.want), [](const Result<void>&) {});
}

void BlockAllocator::pursue() {
    for (auto& [key, demand] : demands_) {
        const PoolEntry* of = pool(demand.want.pool);
        if (of == nullptr) continue;
        const bool exact = demand.want.kind == WantKind::Exact;
        const BlockPlan plan(of->prefix);
        const auto settle = [&, name = key](const Result<void>& result) {
            finish(name, result);
            again_ = true;
        };
        bool got = false;
        if (exact) {
            const UnitKey block{of->number, false, plan.blockOf(demand.want.address)};
            const UnitKey single{of->number, true, demand.want.address.bits()};
            got = held(single) || (held(block) && !carved_.contains(single));
            if (const auto claim = claimed_.find(single); got && claim != claimed_.end()) {
                return settle(makeError(ErrorCode::Busy, demand.want.address.str() + " of pool " + of->prefix.str() +
                                                             " is in use at " + nameOf(*claim->second.begin())));
            }
        } else if (demand.want.kind == WantKind::Any) {
            got = book_.isFree(of->prefix, demand.want.within);
        } else {
            got = demand.want.target != NodeId{} && clock_.now() >= demand.askedAt + config_.answerTime;
        }
        if (got) return settle({});
        const bool late = clock_.now() >= demand.deadline;
        const bool pending = demand.want.target != NodeId{} && clock_.now() < demand.askedAt + config_.answerTime &&
                             ledger_.alive(demand.want.target);
        const auto refusal = refusals_.find(key + "@" + demand.want.target.str());
        const bool refused = refusal != refusals_.end() && refusal->second == demand.want.serial;
        if (!late && pending && !refused) continue;
        if ((ledger_.frozen() || hesitating_) && !late) continue;
        if (demand.want.target != NodeId{} && !refused) demand.silent.insert(demand.want.target);
        if (refused) {
            demand.silent.erase(demand.want.target);
            if (demand.want.kind == WantKind::Ahead) nextAhead_[of->number] = clock_.now() + 12 * config_.aheadPause;
        }

        std::string away;
        std::vector<std::pair<size_t, NodeId>> targets;
        if (exact) {
            const NodeId at = holderOf(*of, plan, demand.want.address);
            if (!ledger_.alive(at)) away = nameOf(at);
            if (ledger_.alive(at) && at != node_.id() && !demand.asked.contains(at)) targets.emplace_back(1, at);
            if (targets.empty() && away.empty() && !demand.silent.contains(at)) {
                if (refused || late || at == node_.id()) {
                    return settle(makeError(ErrorCode::Busy, demand.want.address.str() + " of pool " +
                                                                 of->prefix.str() + " is in use at " + nameOf(at)));
                }
                demand.asked.clear();
                continue;
            }
        } else {
            for (const auto& [id, count] : holders(*of)) {
                if (id == node_.id()) continue;
                if (!ledger_.alive(id)) {
                    away += (away.empty() ? "" : ", ") + nameOf(id);
                } else if (!demand.asked.contains(id)) {
                    targets.emplace_back(count, id);
                }
            }
        }
        if (!late && !targets.empty()) {
            demand.want.target = std::ranges::max(targets).second;
            ask(key, demand);
            again_ = true;
            continue;
        }
        std::string mute;
        for (const NodeId& id : demand.silent) {
            if (ledger_.alive(id)) mute += (mute.empty() ? "" : ", ") + nameOf(id);
        }
        if (!late && !mute.empty()) {  // once more round
            for (const NodeId& id : demand.silent) demand.asked.erase(id);
            demand.silent.clear();
            demand.want.target = {};
            again_ = true;
            continue;
        }
        if (ledger_.frozen()) {
            return settle(makeError(ErrorCode::Unavailable, "pool " + of->prefix.str() + ": " + ledger_.describe()));
        }
        if (!mute.empty()) {
            return settle(makeError(ErrorCode::Unavailable,
                                    "pool " + of->prefix.str() + ": no answer from " + mute + " in time"));
        }
        if (!away.empty()) {
            return settle(makeError(ErrorCode::Unavailable, "no free address of pool " + of->prefix.str() +
                                                                " in reach; away: " + away + "; " +
                                                                describeHolders(*of)));
        }
        return settle(makeError(ErrorCode::Exhausted,
                                "no free address in pool " + of->prefix.str() + ": " + describeHolders(*of)));
    }
}

void BlockAllocator::askAhead(const PoolEntry& of) {
    auto& next = nextAhead_[of.number];
    if (clock_.now() < next) return;
    next = clock_.now() + config_.aheadPause;
    const BlockPlan plan(of.prefix);
    const std::string key = std::to_string(of.number) + "/ahead";
    if (!book_.hasPool(of.prefix) || demands_.contains(key)) return;
    if (book_.freeHeld(of.prefix) > (Uint128{1} << plan.bits) / 4) return;
    std::vector<std::pair<size_t, NodeId>> targets;
    for (const auto& [id, count] : holders(of)) {
        if (id != node_.id() && ledger_.isReady(id)) targets.emplace_back(count, id);
    }
    if (targets.empty()) return;
    Demand& demand = demands_[key];
    demand.want = {of.number, WantKind::Ahead, 0, std::ranges::max(targets).second, {}, of.prefix};
    demand.deadline = clock_.now() + config_.patience;
    ask(key, demand);
}

// Blocks beyond one spare go home after a while, and all of them when this host has no network of the pool.
void BlockAllocator::handBack(const PoolEntry& of) {
    const auto first = held_.lower_bound({of.number, false, 0});
    const auto end = held_.lower_bound({of.number + 1, false, 0});
    if (first == end) return;
    const NodeId to = home(of);
    const bool atHome = to == node_.id();
    std::vector<UnitKey> units(atHome ? held_.lower_bound({of.number, true, 0}) : first, end);
    if (units.empty()) return;
    const BlockPlan plan(of.prefix);
    const bool used = book_.hasPool(of.prefix);
    size_t spare = 0;
    for (const UnitKey& key : units) {
        ++work_;
        const AddressRange range =
            key.single ? AddressRange{key.number, key.number} : plan.range(static_cast<uint32_t>(key.number));
        if (!book_.isVacant(of.prefix, range)) {
            idleSince_.erase(key);
            continue;
        }
        if (!key.single && used && spare++ == 0) continue;
        const auto since = idleSince_.try_emplace(key, clock_.now()).first->second;
        if (clock_.now() - since < config_.handBackAfter) continue;
        if (key.single) {
            const IpAddress address(of.prefix.family(), key.number);
            const NodeId owner = holder(of, plan.blockOf(address));
            if (ledger_.alive(owner)) giveSingle(of, plan, address, owner, false);
        } else if (ledger_.alive(to)) {
            giveBlock(of, plan, static_cast<uint32_t>(key.number), to);
        }
    }
}

// --- forgetting ---

// Everything that no remaining member holds, by the rows each had when it promised to take nothing more from the
// forgotten one.
void BlockAllocator::adopt(std::function<void()> done) {
    const LedgerView& view = ledger_.accepted();
    std::vector<std::pair<UnitKey, Unit>> orphans;
    for (const PoolEntry& of : view.pools) {
        const BlockPlan plan(of.prefix);
        std::map<uint32_t, uint64_t> adopted;
        std::map<uint32_t, uint64_t> generations;
        std::map<Uint128, Unit> singles;
        for (uint32_t block = 0; block < plan.count; ++block) {
            Unit best{0, of.home};
            for (const NodeId& id : view.members) {
                const Unit* unit = find(id, {of.number, false, block});
                if (unit != nullptr && unit->generation > best.generation) best = *unit;
            }
            generations[block] = best.generation;
            if (view.isMember(best.holder)) continue;
            adopted[block] = best.generation + 1;
            orphans.push_back({{of.number, false, block}, {best.generation + 1, node_.id()}});
        }
        for (const NodeId& id : view.members) {
            const auto units = units_.find(id);
            if (units == units_.end()) continue;
            for (const auto& [key, unit] : units->second) {
                if (key.pool != of.number || !key.single) continue;
                Unit& best = singles[key.number];
                if (unit.generation > best.generation) best = unit;
            }
        }
        for (const auto& [number, unit] : singles) {
            const uint32_t block = plan.blockOf({of.prefix.family(), number});
            const UnitKey key{of.number, true, number};
            const Unit* at = find(unit.holder, {of.number, false, block});
            const bool out = view.isMember(unit.holder) && (at == nullptr || at->generation <= base(unit.generation));
            if (adopted.contains(block)) {
                // What another keeps of an adopted block stays out of it, under the block's new generation.
                if (out) orphans.push_back({key, {adopted[block] << kSingleBits, unit.holder}});
            } else if (!view.isMember(unit.holder) && base(unit.generation) >= generations[block]) {
                orphans.push_back({key, {unit.generation + 1, node_.id()}});
            }
        }
    }
    const auto waiting = std::make_shared<size_t>(1);
    const auto written = [waiting, done = std::move(done)] {
        if (--*waiting == 0) done();
    };
    // Singles first: a block that is adopted is never seen without its holes.
    std::ranges::stable_sort(orphans, [](const auto& a, const auto& b) { return a.first.single > b.first.single; });
    for (const auto& [key, unit] : orphans) {
        ++*waiting;
        putUnit(key, unit, written);
    }
    written();
}

// --- recovery ---

std::string BlockAllocator::obstacle() const {
    const std::string fenced = recovery_.obstacle();
    return fenced.empty() ? ledger_.obstacle() : fenced;
}

std::string BlockAllocator::damage() const {
    if (node_.inDoubt()) return "";  // the others know better
    return unreadable_.empty() ? ledger_.damage() : "row " + unreadable_ + " does not read";
}

std::vector<std::string> BlockAllocator::warnings() const {
    std::vector<std::string> lines;
    if (const std::string why = recovery_.obstacle(); !why.empty()) {
        lines.push_back("no addresses are given out here: " + why);
    }
    for (const NodeId& id : recovery_.askers()) {
        lines.push_back("host " + nameOf(id) +
                        " has lost its memory and gives no addresses out until all hosts have answered it");
    }
    for (const auto& [id, count] : claimCount_) {
        if (count == 0) continue;
        lines.push_back("containers of host " + nameOf(id) + " have " + std::to_string(count) +
                        (overClaims_.contains(id) ? " or more" : "") +
                        " addresses of this host's blocks; they are given to nobody else" +
                        (overClaims_.contains(id) ? ", and more of them are not believed" : ""));
    }
    return lines;
}

void BlockAllocator::hesitate() {
    if (!hesitating_) return;
    const kv::Counters& counters = node_.counters();
    const auto seeds = config_.ledger.seeds ? config_.ledger.seeds() : std::vector<kv::Address>();
    const bool others = node_.members().size() > 1 || !seeds ||
                        std::ranges::any_of(*seeds, [this](const auto& at) { return at != config_.ledger.self; });
    hesitating_ = others && counters.syncsFinished + counters.syncsEqual == 0 && node_.now() < hesitatesUntil_;
}

// What this host's containers have and another one holds: after a new identity, its old one's.
void BlockAllocator::reclaim() {
    if (silent() || ledger_.frozen() || ledger_.forgotten() || !ledger_.isMember()) return;
    if (clock_.now() < nextReclaim_) return;
    nextReclaim_ = clock_.now() + config_.aheadPause;
    for (const auto& [prefix, address] : book_.leasesNotHeld(kReclaimAtOnce)) {
        if (poolOf(prefix) != nullptr) needAddress(prefix, address, std::nullopt, [](const Result<void>&) {});
    }
}

// --- evidence ---

const PoolEntry* BlockAllocator::poolAt(const IpAddress& address) {
    const auto& pools = ledger_.committed().pools;
    if (poolsByPrefix_.size() != pools.size()) {
        poolsByPrefix_.clear();
        for (const PoolEntry& of : pools) poolsByPrefix_[of.prefix] = of.number;
    }
    auto after = poolsByPrefix_.upper_bound(IpPrefix(address, static_cast<uint8_t>(addressBits(address.family()))));
    if (after == poolsByPrefix_.begin() || !std::prev(after)->first.contains(address)) return nullptr;
    return pool(std::prev(after)->second);
}

// What the row claims of this host's units, of which each is withheld.
std::vector<BlockAllocator::UnitKey> BlockAllocator::claim(const kv::Row& row) {
    std::vector<UnitKey> keys;
    if (row.owner == node_.id() || ledger_.accepted().forgotten.contains(row.owner)) return keys;
    for (const IpAddress& address : config_.evidence.addresses(row)) {
        const PoolEntry* of = poolAt(address);
        if (of == nullptr) continue;
        const UnitKey single{of->number, true, address.bits()};
        const bool here = held(single) || held({of->number, false, BlockPlan(of->prefix).blockOf(address)});
        if (!here || carved_.contains(single)) continue;
        size_t& count = claimCount_[row.owner];
        if (count >= kClaimsPerHost) {
            overClaims_.insert(row.owner);
            continue;
        }
        ++count;
        keys.push_back(single);
        claimed_[single].insert(row.owner);
    }
    if (!keys.empty()) claimRows_[{row.owner, row.key}] = keys;
    return keys;
}

void BlockAllocator::findClaims() {
    claimRows_.clear();
    claimed_.clear();
    claimCount_.clear();
    overClaims_.clear();
    if (config_.evidence.prefix.empty()) return;
    for (const kv::Member& member : node_.members()) {  // of those that are away, too
        for (const kv::Row& row : node_.table().list(member.id, config_.evidence.prefix)) claim(row);
    }
}

void BlockAllocator::unclaim(const std::pair<NodeId, std::string>& at) {
    const auto claims = claimRows_.extract(at);
    if (claims.empty()) return;
    for (const UnitKey& key : claims.mapped()) {
        --claimCount_[at.first];
        const auto claim = claimed_.find(key);
        if (claim == claimed_.end()) continue;
        claim->second.erase(at.first);
        if (!claim->second.empty()) continue;
        claimed_.erase(claim);
        const PoolEntry* of = pool(key.pool);
        if (of == nullptr || carved_.contains(key)) continue;
        const IpAddress address(of->prefix.family(), key.number);
        if (address == of->gateway) continue;
        if (held(key) || held({key.pool, false, BlockPlan(of->prefix).blockOf(address)})) {
            book_.hold(of->prefix, {key.number, key.number});
        }
    }
}

void BlockAllocator::onEvidence(kv::RowEvent event, const kv::Row& row) {
    if (event == kv::RowEvent::Suspended) return;  // its containers may run
    unclaim({row.owner, row.key});
    if (event != kv::RowEvent::Put) return;
    for (const UnitKey& key : claim(row)) book_.withhold(pool(key.pool)->prefix, key.number);
}

void BlockAllocator::fence() {
    if (!recovery_.fenced()) return;
    claimed_.clear();
    claimRows_.clear();
    claimCount_.clear();
    for (const PoolEntry& pool : ledger_.accepted().pools) {
        book_.withdraw(pool.prefix);
        changed_.insert(pool.number);  // for the fence's end
    }
    held_.clear();
    carved_.clear();
    idleSince_.clear();
    const auto refused = makeError(ErrorCode::Unavailable, recovery_.obstacle());
    for (auto at = demands_.begin(); at != demands_.end(); at = demands_.begin()) finish(at->first, refused);
}

void BlockAllocator::drop(const NodeId& id) {
    std::vector<UnitKey> keys;
    if (const auto units = units_.find(id); units != units_.end()) {
        for (const auto& [key, unit] : units->second) keys.push_back(key);
    }
    for (const UnitKey& key : keys) eraseRow(id, key);
    ledger_.drop(id);
}

// Whom this host may have promised something to: the members by the best log in sight, and whoever else is known but
// that this log does not tell of.
std::set<NodeId> BlockAllocator::witnesses(std::string& why) const {
    const LedgerView view = ledger_.recovered(why);
    std::set<NodeId> all(view.members.begin(), view.members.end());
    for (const kv::Member& member : node_.members()) {
        if (member.state != kv::MemberState::Left) all.insert(member.id);
    }
    for (const NodeId& id : view.forgotten) all.erase(id);
    all.erase(node_.id());
    return all;
}

// The highest generation of each unit that this host may have had or given is its own say, too.
void BlockAllocator::restore(std::function<void(bool)> done) {
    std::string why;
    const LedgerView view = ledger_.recovered(why);
    if (!why.empty()) return done(false);
    std::map<uint32_t, NodeId> homes;
    for (const PoolEntry& of : view.pools) homes[of.number] = of.home;
    std::map<UnitKey, Unit> highest;
    for (const NodeId& id : view.members) {
        const auto units = units_.find(id);
        if (id == node_.id() || units == units_.end()) continue;
        for (const auto& [key, unit] : units->second) {
            Unit& best = highest[key];
            if (unit.generation > best.generation) best = unit;
        }
    }
    // Of a pool that nobody knows; its number may yet be another's.
    std::vector<UnitKey> strange;
    for (const auto& [key, unit] : units_[node_.id()]) {
        if (!homes.contains(key.pool)) strange.push_back(key);
    }
    for (const UnitKey& key : strange) node_.erase(keyOf(key), [](const Result<void>&) {});
    const auto waiting = std::make_shared<size_t>(1);
    const auto written = [this, waiting, done = std::move(done)] {
        if (--*waiting == 0) ledger_.restore(done);
    };
    for (const auto& [key, unit] : highest) {
        const auto home = homes.find(key.pool);
        if (home == homes.end()) continue;
        const Unit* own = find(node_.id(), key);
        if (own == nullptr && !key.single && home->second != node_.id() && unit.holder != node_.id()) continue;
        if (own != nullptr && (own->generation > unit.generation || *own == unit)) continue;
        ++*waiting;
        putUnit(key, unit, written);
    }
    written();
}

// A host that came back with an empty state shares its name with its dead predecessor, which is the one to forget.
std::optional<NodeId> BlockAllocator::findHost(const std::string& nameOrId) const {
    enum Rank { Forgotten, Alive, Gone };
    std::optional<std::pair<Rank, NodeId>> best;
    for (const kv::Member& member : node_.members()) {
        if (member.record.name != nameOrId && member.id.str() != nameOrId) continue;
        const bool forgotten = ledger_.committed().forgotten.contains(member.id);
        const Rank rank = !member.gone() ? Alive : forgotten ? Forgotten : Gone;
        if (!best || best->first < rank) best = {rank, member.id};
    }
    if (best) return best->second;
    for (const NodeId& id : ledger_.accepted().members) {
        if (id.str() == nameOrId || id.brief() == nameOrId) return id;
    }
    return std::nullopt;
}

Result<void> BlockAllocator::forget(const std::string& host, bool force) {
    const auto id = findHost(host);
    if (!id) return makeError(ErrorCode::NotFound, "no host " + host + " is known");
    if (*id == node_.id()) return makeError(ErrorCode::InvalidArgument, "a host cannot forget itself");
    if (ledger_.committed().forgotten.contains(*id)) return {};
    if (ledger_.alive(*id)) {
        return makeError(ErrorCode::Busy, host + " is alive; stop its weftd and its containers first");
    }
    ledger_.askForget(*id, force);
    process();
    return {};
}

std::string BlockAllocator::forgetting(const NodeId& id) const {
    if (ledger_.committed().forgotten.contains(id) && !ledger_.frozen()) return "";
    if (std::string why = obstacle(); !why.empty()) return why;
    std::string away;
    for (const NodeId& member : ledger_.accepted().members) {
        if (member != id && !ledger_.alive(member)) away += (away.empty() ? "" : ", ") + nameOf(member);
    }
    if (away.empty()) return "the other hosts have not all answered yet";
    return "every other host must promise to take nothing from it, and these are away: " + away +
           ". Bring them back, or forget them too";
}

// --- words ---

std::string BlockAllocator::nameOf(const NodeId& id) const {
    const auto member = node_.member(id);
    return member ? member->record.name : id.brief();
}

SharedPool BlockAllocator::sharedPool(const PoolEntry& pool) const {
    const BlockPlan plan(pool.prefix);
    SharedPool shared{pool.prefix, pool.gateway, plan.count, addressBits(pool.prefix.family()) - plan.bits, {}, 0};
    for (const auto& [id, count] : holders(pool)) shared.holders.push_back({nameOf(id), ledger_.alive(id), count});
    shared.freeHere = book_.freeHeld(pool.prefix);
    return shared;
}

std::string BlockAllocator::describeHolders(const PoolEntry& pool) const {
    return weft::ipam::describeHolders(sharedPool(pool));
}

std::vector<SharedPool> BlockAllocator::pools(uint32_t& after) const {
    std::vector<SharedPool> list;
    const auto& pools = ledger_.committed().pools;
    const uint64_t limit = work_ + kShownUnits;
    for (auto at = std::ranges::upper_bound(pools, after, {}, &PoolEntry::number); at != pools.end() && work_ < limit;
         ++at) {
        work_ += 20;
        list.push_back(sharedPool(*at));
        after = at->number;
    }
    return list;
}

std::string BlockAllocator::describe() const {
    std::string out = ledger_.describe() + "\n";
    for (const std::string& line : warnings()) out += line + "\n";
    uint32_t after = 0;
    for (auto page = pools(after); !page.empty(); page = pools(after)) out += weft::ipam::describe(page);
    return out;
}

}  // namespace weft::ipam
