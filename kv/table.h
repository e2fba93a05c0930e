// Table: the rows of every known owner, their digests, and watches. Knows nothing of the network.
//
// A row is visible while its owner is. Rows of a gone owner are suspended: kept, compared and passed on, but hidden.
// Tombstones stay for `tombstoneTtl`; in the last eighth of it they are retired: still refuse older rows, but are no
// longer told to others, so that they do not wander between nodes that forget at different moments.
//
// An owner has quotas. Beyond that of live rows the ones with the lowest versions are kept, beyond that of tombstones
// the ones with the highest: all nodes that heard the same keep the same. The own rows are exempt: Node refuses to make
// more.
//
// Callbacks run inside the call that caused them, after the table has changed.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "kv/row.h"

namespace weft::kv {

using WatchId = uint64_t;

enum class RowEvent : uint8_t {
    Put,        // new, changed, or visible again
    Deleted,    // by its owner
    Suspended,  // the owner is gone for now; again with each change of the row that is heard of meanwhile
    Forgotten,  // with its owner, who has been away too long
};

class Table {
public:
    using Callback = std::function<void(RowEvent, const Row&)>;
    using KeyHash = uint64_t;

    struct Summary {
        KeyHash key;
        uint64_t version;
        uint32_t check;  // of the whole row
    };

    struct Quotas {
        size_t rows = SIZE_MAX;  // live ones
        size_t bytes = SIZE_MAX;
        size_t tombstones = SIZE_MAX;
        NodeId exempt{};  // its live rows are not bounded
    };
    struct Usage {
        size_t rows = 0;   // live
        size_t bytes = 0;  // of them: key, value, signature
        size_t tombstones = 0;
        uint64_t lost = 0;  // live rows dropped for the quota so far
    };

    Table(const Clock& clock, std::chrono::seconds tombstoneTtl) : Table(clock, tombstoneTtl, Quotas{}) {}
    Table(const Clock& clock, std::chrono::seconds tombstoneTtl, const Quotas& quotas)
        : clock_(clock), tombstoneTtl_(tombstoneTtl), quotas_(quotas) {}

    // --- reading ---
    [[nodiscard]] const Row* find(const NodeId& owner, const std::string& key) const;  // visible or not, or tombstone
    [[nodiscard]] std::optional<Row> get(const NodeId& owner, const std::string& key) const;  // visible only
    [[nodiscard]] std::vector<Row> list(const std::string& prefix) const;  // visible only, by key then owner
    // The same without copies and a piece at a time: looks at the `limit` (> 0) rows behind `after`, hidden ones
    // included, and returns the last one's place; nothing when there are no more.
    struct Place {
        std::string key;
        NodeId owner;
    };
    std::optional<Place> scan(std::string_view prefix, const std::optional<Place>& after, size_t limit,
                              const std::function<void(const Row&)>& visit) const;
    [[nodiscard]] std::vector<Row> list(const NodeId& owner, const std::string& prefix) const;  // visible or not
    [[nodiscard]] size_t size() const;  // every row and tombstone held

    [[nodiscard]] Usage usage(const NodeId& owner) const;
    static size_t bytesOf(const Row& row) { return row.key.size() + row.value.size() + row.signature.size(); }

    WatchId watch(std::string prefix, const Callback& callback);
    void unwatch(WatchId id);

    // --- writing ---
    // Merges a row whose signature was checked. True when it replaced what was held.
    bool apply(Row row);
    // Whether apply() would: lets the caller skip the signature of what is stale.
    [[nodiscard]] bool wants(const Row& row) const;
    // Whether a new row would be dropped at once: its owner has used up its quota, and the row is later than all.
    [[nodiscard]] bool isBeyondQuota(const Row& row) const;
    void suspend(const NodeId& owner);
    void resume(const NodeId& owner);
    void forget(const NodeId& owner);
    void collectTombstones();

    // --- for anti-entropy ---
    [[nodiscard]] uint64_t digest(const NodeId& owner) const;  // zero when it has no rows
    // Summaries of one owner's rows (retired tombstones apart) in key hash order, from `from`, at most `limit`.
    [[nodiscard]] std::vector<Summary> summaries(const NodeId& owner, KeyHash from, size_t limit) const;
    // Rows whose key hash is `key`; more than one only if two keys collide. Tombstones with their present age.
    [[nodiscard]] std::vector<Row> rowsAt(const NodeId& owner, KeyHash key) const;
    static uint32_t check(const Row& row);  // Summary::check
    static KeyHash hashKey(std::string_view key);

private:
    struct Entry {
        Row row;
        uint64_t hash = 0;
        Clock::Monotonic deletedAt;
        bool retired = false;
    };
    using Rows = std::map<std::pair<KeyHash, std::string>, Entry>;
    struct ByVersion {
        bool operator()(Rows::const_iterator a, Rows::const_iterator b) const {
            return std::tie(a->second.row.version, a->first) < std::tie(b->second.row.version, b->first);
        }
    };
    struct Owner {
        Rows rows;
        std::set<Rows::iterator, ByVersion> live, tombstones;
        size_t bytes = 0;  // of the live ones
        uint64_t lost = 0;
        uint64_t digest = 0;
        bool suspended = false;
    };
    struct ByKey {
        using is_transparent = void;
        using At = std::pair<std::string_view, const NodeId*>;  // null: before all owners
        bool operator()(const Row* a, const Row* b) const { return before(placeOf(*a), placeOf(*b)); }
        bool operator()(const Row* a, const At& b) const { return before(placeOf(*a), b); }
        bool operator()(const At& a, const Row* b) const { return before(a, placeOf(*b)); }
        static At placeOf(const Row& row) { return {row.key, &row.owner}; }
        static bool before(const At& a, const At& b);
    };
    struct Watch {
        WatchId id;
        std::string prefix;
        Callback callback;
    };

    void index(Owner& owner, Rows::iterator at);
    void unindex(Owner& owner, Rows::iterator at);
    Rows::iterator drop(Owner& owner, Rows::iterator at);
    // Drops what is beyond the quotas. What was live and is gone.
    std::vector<Row> keepToQuotas(Owner& owner, bool bounded);
    void notify(RowEvent event, const Row& row);
    [[nodiscard]] std::chrono::seconds retireAge() const { return tombstoneTtl_ - tombstoneTtl_ / 8; }

    const Clock& clock_;
    std::chrono::seconds tombstoneTtl_;
    Quotas quotas_;
    std::map<NodeId, Owner> owners_;
    std::set<const Row*, ByKey> live_;  // what is in owners_ and no tombstone
    std::vector<Watch> watches_;
    WatchId lastWatch_ = 0;
};

}  // namespace weft::kv
