#include "kv/keyring_row.h"

#include <algorithm>

#include "kv/wire.h"

namespace weft::kv {

bool KeyringRow::supersedes(const KeyringRow& other) const {
    if (generation != other.generation) return generation > other.generation;
    return generation != 0 && text() > other.text();
}

std::string KeyringRow::text() const {
    std::string all;
    for (const Key& key : keys) all += key.base64() + "\n";
    return all;
}

bool KeyringRow::has(KeyId id) const {
    return std::ranges::any_of(keys, [id](const Key& key) { return key.id() == id; });
}

std::string KeyringRow::encode() const {
    Writer out;
    out.u8(1);
    out.u64(generation);
    out.u8(static_cast<uint8_t>(keys.size()));
    for (const Key& key : keys) out.bytes(key.bytes);
    return {out.view().begin(), out.view().end()};
}

std::optional<KeyringRow> KeyringRow::decode(const std::string& value) {
    Reader in(asBytes(value));
    KeyringRow row;
    if (in.u8() != 1) return {};
    row.generation = in.u64();
    const size_t count = in.u8();
    if (count == 0 || count > Keyring::kMaxKeys) return {};
    for (size_t i = 0; i < count; ++i) row.keys.push_back(Key{in.array<32>()});
    if (!in.done()) return {};
    return row;
}

bool isBelievable(const KeyringRow& row, uint64_t own, uint64_t clock,
                  const std::vector<std::optional<KeyringRow>>& others) {
    if (row.generation <= std::max(own, clock) + KeyringRow::kSlack) return true;
    if (row.generation > KeyringRow::kLast) return false;
    const auto same = std::ranges::count_if(others, [&row](const auto& other) {
        return other && other->generation == row.generation && other->keys == row.keys;
    });
    return 2 * static_cast<size_t>(same) > others.size();
}

}  // namespace weft::kv
