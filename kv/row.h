// Row: one entry of the replicated table, and the rule by which two copies become one.
#pragma once

#include <string>

#include "kv/types.h"

namespace weft::kv {

// A row must fit one packet on the smallest IPv6 path (MTU 1280) with its signature.
constexpr size_t kMaxKeyBytes = 255;
constexpr size_t kMaxRowBytes = 1024;  // key + value

// Owned by one node, which alone numbers and signs its versions. Another node's row of the same key is another row.
struct Row {
    NodeId owner;
    std::string key{};
    uint64_t version = 0;  // grows with every change of any row of the owner: epoch << 32 | counter
    bool deleted = false;  // a tombstone; value is empty
    std::string value{};
    Signature signature{};    // by the owner over cluster, key, version, deleted, value
    uint32_t ageSeconds = 0;  // of a tombstone when it was sent; not signed, it only ages

    bool operator==(const Row&) const = default;
};

// The copy of (owner, key) to keep: the greater by version, then tombstone over value, then value, signature and age
// (equal versions with different content need a broken or stolen owner key; the order only has to be the same
// everywhere). A maximum over a total order: commutative, associative, idempotent.
const Row& merge(const Row& a, const Row& b);

// Whether `row` would replace `held`, age apart.
bool supersedes(const Row& row, const Row& held);

// What the owner signs.
Bytes signedBytes(const Row& row, const std::string& cluster);

// Whether key and value keep to the limits above; an empty key does not.
bool withinLimits(std::string_view key, std::string_view value);

}  // namespace weft::kv
