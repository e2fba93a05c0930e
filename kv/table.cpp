#include "kv/table.h"

#include <sodium.h>

#include <algorithm>

#include "kv/wire.h"

namespace weft::kv {

namespace {

// Only ever compared between nodes of one cluster, never relied on against an attacker: rows are signed.
uint64_t hash64(BytesView bytes) {
    static constexpr std::array<uint8_t, crypto_shorthash_KEYBYTES> kHashKey{'w', 'e', 'f', 't'};
    std::array<uint8_t, crypto_shorthash_BYTES> hash;
    crypto_shorthash(hash.data(), bytes.data(), bytes.size(), kHashKey.data());
    uint64_t value = 0;
    for (const uint8_t byte : hash) value = value << 8 | byte;
    return value;
}

uint64_t hashRow(const Row& row) {
    Writer out;
    out.text8(row.key);
    out.u64(row.version);
    out.u8(row.deleted ? 1 : 0);
    out.text16(row.value);
    out.bytes(row.signature);
    return hash64(out.view());
}

}  // namespace

Table::KeyHash Table::hashKey(std::string_view key) {
    return hash64(asBytes(key));
}

uint32_t Table::check(const Row& row) {
    return static_cast<uint32_t>(hashRow(row));
}

const Row* Table::find(const NodeId& owner, const std::string& key) const {
    const auto rows = owners_.find(owner);
    if (rows == owners_.end()) return nullptr;
    const auto entry = rows->second.rows.find({hashKey(key), key});
    return entry == rows->second.rows.end() ? nullptr : &entry->second.row;
}

std::optional<Row> Table::get(const NodeId& owner, const std::string& key) const {
    const Row* row = find(owner, key);
    if (row == nullptr || row->deleted || owners_.at(owner).suspended) return std::nullopt;
    return *row;
}

bool Table::ByKey::before(const At& a, const At& b) {
    if (a.first != b.first) return a.first < b.first;
    if (a.second == nullptr || b.second == nullptr) return a.second == nullptr && b.second != nullptr;
    return *a.second < *b.second;
}

std::optional<Table::Place> Table::scan(std::string_view prefix, const std::optional<Place>& after, size_t limit,
                                        const std::function<void(const Row&)>& visit) const {
    auto at =
        after ? live_.upper_bound(ByKey::At(after->key, &after->owner)) : live_.lower_bound(ByKey::At(prefix, nullptr));
    for (size_t seen = 0; at != live_.end() && (*at)->key.starts_with(prefix); ++at, ++seen) {
        if (seen == limit) return Place{(*std::prev(at))->key, (*std::prev(at))->owner};
        if (!owners_.at((*at)->owner).suspended) visit(**at);
    }
    return std::nullopt;
}

std::vector<Row> Table::list(const std::string& prefix) const {
    std::vector<Row> found;
    scan(prefix, {}, SIZE_MAX, [&found](const Row& row) { found.push_back(row); });
    return found;
}

std::vector<Row> Table::list(const NodeId& owner, const std::string& prefix) const {
    std::vector<Row> found;
    const auto rows = owners_.find(owner);
    if (rows == owners_.end()) return found;
    for (const auto& [at, entry] : rows->second.rows) {
        if (!entry.row.deleted && entry.row.key.starts_with(prefix)) found.push_back(entry.row);
    }
    return found;
}

size_t Table::size() const {
    size_t count = 0;
    for (const auto& [id, owner] : owners_) count += owner.rows.size();
    return count;
}

WatchId Table::watch(std::string prefix, const Callback& callback) {
    const auto present = list(prefix);
    const WatchId id = ++lastWatch_;
    watches_.push_back({id, std::move(prefix), callback});
    for (const Row& row : present) callback(RowEvent::Put, row);
    return id;
}

void Table::unwatch(WatchId id) {
    std::erase_if(watches_, [id](const Watch& watch) { return watch.id == id; });
}

void Table::notify(RowEvent event, const Row& row) {
    if (watches_.empty()) return;
    // A callback may watch, unwatch or write: walk a copy of who was there, with a copy of the row.
    const Row copy = row;
    std::vector<WatchId> ids;
    for (const Watch& watch : watches_) {
        if (copy.key.starts_with(watch.prefix)) ids.push_back(watch.id);
    }
    for (const WatchId id : ids) {
        const auto watch = std::ranges::find(watches_, id, &Watch::id);
        if (watch == watches_.end()) continue;
        const Callback callback = watch->callback;
        callback(event, copy);
    }
}

bool Table::wants(const Row& row) const {
    if (const Row* held = find(row.owner, row.key)) return supersedes(row, *held);
    return !row.deleted || std::chrono::seconds(row.ageSeconds) < retireAge();
}

bool Table::apply(Row row) {
    Owner& owner = owners_[row.owner];
    const auto [at, fresh] = owner.rows.try_emplace({hashKey(row.key), row.key});
    Entry& entry = at->second;
    const auto deletedAt = clock_.now() - std::chrono::seconds(row.ageSeconds);
    if (!fresh && !supersedes(row, entry.row)) {
        // The other half of merge(): equal copies keep the greater age.
        if (entry.row.deleted && !supersedes(entry.row, row)) entry.deletedAt = std::min(entry.deletedAt, deletedAt);
        return false;
    }
    if (fresh && row.deleted && std::chrono::seconds(row.ageSeconds) >= retireAge()) {
        owner.rows.erase(at);
        return false;
    }
    const bool wasThere = !fresh && !entry.row.deleted;
    const bool mayBeKnown = fresh || wasThere;  // to a watch that remembers an earlier life
    if (!fresh) unindex(owner, at);
    if (!fresh && !entry.retired) owner.digest ^= entry.hash;
    entry.hash = hashRow(row);
    entry.deletedAt = deletedAt;
    entry.retired = false;
    entry.row = std::move(row);
    owner.digest ^= entry.hash;
    index(owner, at);
    const Row applied = entry.row;
    const auto lost = keepToQuotas(owner, applied.owner != quotas_.exempt);
    const bool kept = std::ranges::find(lost, applied.key, &Row::key) == lost.end();
    if (!applied.deleted && kept) notify(owner.suspended ? RowEvent::Suspended : RowEvent::Put, applied);
    if (applied.deleted && mayBeKnown) notify(RowEvent::Deleted, applied);
    for (const Row& gone : lost) {
        if (gone.key != applied.key || wasThere) notify(RowEvent::Deleted, gone);
    }
    return true;
}

void Table::index(Owner& owner, Rows::iterator at) {
    (at->second.row.deleted ? owner.tombstones : owner.live).insert(at);
    if (at->second.row.deleted) return;
    owner.bytes += bytesOf(at->second.row);
    live_.insert(&at->second.row);
}

void Table::unindex(Owner& owner, Rows::iterator at) {
    (at->second.row.deleted ? owner.tombstones : owner.live).erase(at);
    if (at->second.row.deleted) return;
    owner.bytes -= bytesOf(at->second.row);
    live_.erase(&at->second.row);
}

Table::Rows::iterator Table::drop(Owner& owner, Rows::iterator at) {
    unindex(owner, at);
    if (!at->second.retired) owner.digest ^= at->second.hash;
    return owner.rows.erase(at);
}

std::vector<Row> Table::keepToQuotas(Owner& owner, bool bounded) {
    std::vector<Row> lost;
    while (owner.tombstones.size() > quotas_.tombstones) drop(owner, *owner.tombstones.begin());
    while (bounded && (owner.live.size() > quotas_.rows || owner.bytes > quotas_.bytes)) {
        const auto last = *owner.live.rbegin();
        lost.push_back(last->second.row);
        drop(owner, last);
        ++owner.lost;
    }
    return lost;
}

Table::Usage Table::usage(const NodeId& id) const {
    const auto owner = owners_.find(id);
    if (owner == owners_.end()) return {};
    const Owner& of = owner->second;
    return {of.live.size(), of.bytes, of.tombstones.size(), of.lost};
}

bool Table::isBeyondQuota(const Row& row) const {
    const auto found = owners_.find(row.owner);
    if (found == owners_.end() || find(row.owner, row.key) != nullptr) return false;
    const Owner& owner = found->second;
    if (row.deleted) {
        return owner.tombstones.size() >= quotas_.tombstones &&
               row.version < (*owner.tombstones.begin())->second.row.version;
    }
    if (row.owner == quotas_.exempt) return false;
    const bool full = owner.live.size() >= quotas_.rows || owner.bytes + bytesOf(row) > quotas_.bytes;
    return full && !owner.live.empty() && row.version > (*owner.live.rbegin())->second.row.version;
}

void Table::suspend(const NodeId& id) {
    Owner& owner = owners_[id];
    if (std::exchange(owner.suspended, true)) return;
    std::vector<Row> hidden;
    for (const auto& [at, entry] : owner.rows) {
        if (!entry.row.deleted) hidden.push_back(entry.row);
    }
    for (const Row& row : hidden) notify(RowEvent::Suspended, row);
}

void Table::resume(const NodeId& id) {
    const auto found = owners_.find(id);
    if (found == owners_.end() || !std::exchange(found->second.suspended, false)) return;
    std::vector<Row> shown;
    for (const auto& [at, entry] : found->second.rows) {
        if (!entry.row.deleted) shown.push_back(entry.row);
    }
    for (const Row& row : shown) notify(RowEvent::Put, row);
}

void Table::forget(const NodeId& id) {
    auto owner = owners_.extract(id);
    if (owner.empty()) return;
    for (const auto& at : owner.mapped().live) live_.erase(&at->second.row);
    for (const auto& [at, entry] : owner.mapped().rows) {
        if (!entry.row.deleted) notify(RowEvent::Forgotten, entry.row);
    }
}

void Table::collectTombstones() {
    for (auto& [id, owner] : owners_) {
        for (auto at = owner.rows.begin(); at != owner.rows.end();) {
            Entry& entry = at->second;
            const auto age = clock_.now() - entry.deletedAt;
            if (entry.row.deleted && age >= retireAge() && !std::exchange(entry.retired, true)) {
                owner.digest ^= entry.hash;
            }
            at = entry.row.deleted && age >= tombstoneTtl_ ? drop(owner, at) : std::next(at);
        }
    }
}

uint64_t Table::digest(const NodeId& owner) const {
    const auto found = owners_.find(owner);
    return found == owners_.end() ? 0 : found->second.digest;
}

std::vector<Table::Summary> Table::summaries(const NodeId& owner, KeyHash from, size_t limit) const {
    std::vector<Summary> found;
    const auto rows = owners_.find(owner);
    if (rows == owners_.end()) return found;
    for (auto at = rows->second.rows.lower_bound({from, {}}); at != rows->second.rows.end(); ++at) {
        if (at->second.retired) continue;
        // Rows of one key hash stay together: the next batch starts at the next hash.
        if (found.size() >= limit && at->first.first != found.back().key) break;
        found.push_back({at->first.first, at->second.row.version, static_cast<uint32_t>(at->second.hash)});
    }
    return found;
}

std::vector<Row> Table::rowsAt(const NodeId& owner, KeyHash key) const {
    std::vector<Row> found;
    const auto rows = owners_.find(owner);
    if (rows == owners_.end()) return found;
    for (auto at = rows->second.rows.lower_bound({key, {}}); at != rows->second.rows.end() && at->first.first == key;
         ++at) {
        found.push_back(at->second.row);
        if (at->second.row.deleted) {
            const auto age = std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - at->second.deletedAt);
            found.back().ageSeconds = static_cast<uint32_t>(age.count());
        }
    }
    return found;
}

}  // namespace weft::kv
