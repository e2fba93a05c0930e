// KeyringRow: what a node says in row weft/keyring about the cluster's keys, and which such word counts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kv/keyring.h"

namespace weft::kv {

struct KeyringRow {
    // A generation this far beyond the members' clocks, or beyond the last one, is not one member's to say.
    static constexpr uint64_t kSlack = uint64_t{24} * 3600 * 1000;
    static constexpr uint64_t kLast = uint64_t{1} << 62;  // nor is one beyond this anybody's

    uint64_t generation = 0;  // milliseconds of the wall clock, or one more than the last
    std::vector<Key> keys;    // the primary first

    // Which of two rings is the cluster's: the later one, and of equally late ones the same everywhere.
    [[nodiscard]] bool supersedes(const KeyringRow& other) const;
    [[nodiscard]] std::string text() const;  // as in the key file
    // As a setting: which generation the file's text belongs to.
    [[nodiscard]] std::string setting() const { return std::to_string(generation) + " " + text(); }
    [[nodiscard]] bool has(KeyId id) const;

    [[nodiscard]] std::string encode() const;
    static std::optional<KeyringRow> decode(const std::string& value);
};

// Whether a later row is to be taken over by a node whose own is of generation `own`. `clock`: what most members'
// clocks show, as a generation. `others`: the rows of the other present members, empty where there is none. One
// member's word for a far generation would end all rotation; but what most of the others have is the cluster's,
// whatever the clocks here say: a host that starts in 1970 is not cut off.
bool isBelievable(const KeyringRow& row, uint64_t own, uint64_t clock,
                  const std::vector<std::optional<KeyringRow>>& others);

}  // namespace weft::kv
