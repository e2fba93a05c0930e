// Keyring: the cluster's shared keys. Everything sent is sealed with the primary one; everything received may be
// sealed with any of them. Rotation without a gap: add the new key on every node, then use it on every node, then
// remove the old one.
//
// A sealed box (docs/gossip.md): wire u8 | key id u32 | nonce 24 | XChaCha20-Poly1305 ciphertext | tag 16.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kv/random.h"
#include "kv/types.h"

namespace weft::kv {

// The first byte of a box: which wire its sender speaks (docs/gossip.md). 1 is that of weft up to c52709e.
enum class Wire : uint8_t { One = 1, Two = 2 };

using KeyId = uint32_t;  // the first four bytes of BLAKE2b over the key: public, says nothing about it

struct Key {
    std::array<uint8_t, 32> bytes{};

    static Key generate();
    static Result<Key> parse(std::string_view base64);
    [[nodiscard]] std::string base64() const;
    [[nodiscard]] KeyId id() const;

    bool operator==(const Key&) const = default;
};

// Loop thread only. Holds secrets: wiped at the end.
class Keyring {
public:
    static constexpr size_t kMaxKeys = 8;
    static constexpr size_t kHeaderBytes = 1 + 4 + 24;
    static constexpr size_t kOverhead = kHeaderBytes + 16;

    // One base64 key a line, the first is primary; '#' starts a comment. InvalidArgument names the line.
    static Result<Keyring> parse(std::string_view text);

    Keyring() = default;
    ~Keyring();
    Keyring(Keyring&&) noexcept = default;
    Keyring& operator=(Keyring&&) noexcept = default;

    // The first key becomes primary. A key already there: success. Exhausted beyond kMaxKeys, AlreadyExists when
    // another key has the same id.
    Result<void> add(const Key& key);
    Result<void> use(KeyId id);     // NotFound
    Result<void> remove(KeyId id);  // Busy when primary; absent: success

    [[nodiscard]] bool empty() const { return entries_.empty(); }
    [[nodiscard]] std::optional<KeyId> primary() const;
    [[nodiscard]] std::vector<Key> keys() const;  // the primary first
    [[nodiscard]] const Key* find(KeyId id) const;

    // Appends the sealed box of `plain` to `out`. `context` is authenticated and not sent. The ring must not be empty.
    void seal(Wire wire, Random& random, BytesView context, BytesView plain, Bytes& out) const;
    // The same with a key of the caller's choice.
    static void sealWith(const Key& key, KeyId id, Wire wire, Random& random, BytesView context, BytesView plain,
                         Bytes& out);

    // Which wire a box is of, before it is opened.
    static std::optional<Wire> wireOf(BytesView box);

    enum class Opened { Ok, UnknownKey, Forged };
    // Costs one try at most: the key id picks the key. On Ok `plain` holds the content, and `key` the key's id.
    Opened open(BytesView box, BytesView context, Bytes& plain, KeyId* key = nullptr) const;

private:
    struct Entry {
        KeyId id;
        Key key;
    };
    std::vector<Entry> entries_;  // the primary first
};

}  // namespace weft::kv
