#include "kv/keyring.h"

#include <sodium.h>

#include <algorithm>

namespace weft::kv {

namespace {

constexpr size_t kNonceAt = 1 + 4;
constexpr size_t kTagBytes = crypto_aead_xchacha20poly1305_ietf_ABYTES;
static_assert(Keyring::kOverhead == Keyring::kHeaderBytes + kTagBytes);
static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == Keyring::kHeaderBytes - kNonceAt);

void putKeyId(uint8_t* out, KeyId id) {
    for (int i = 0; i < 4; ++i) out[i] = static_cast<uint8_t>(id >> (24 - 8 * i));
}

KeyId getKeyId(const uint8_t* in) {
    return KeyId{in[0]} << 24 | KeyId{in[1]} << 16 | KeyId{in[2]} << 8 | in[3];
}

// The box's version and key id come first, so they cannot be changed either.
Bytes associatedData(const uint8_t* box, BytesView context) {
    Bytes data(kNonceAt + context.size());
    std::copy_n(box, kNonceAt, data.begin());
    std::ranges::copy(context, data.begin() + kNonceAt);
    return data;
}

}  // namespace

Key Key::generate() {
    Key key;
    randombytes_buf(key.bytes.data(), key.bytes.size());
    return key;
}

Result<Key> Key::parse(std::string_view base64) {
    Key key;
    size_t length = 0;
    const int failed = sodium_base642bin(key.bytes.data(), key.bytes.size(), base64.data(), base64.size(), nullptr,
                                         &length, nullptr, sodium_base64_VARIANT_ORIGINAL);
    if (failed != 0 || length != key.bytes.size()) {
        return makeError(ErrorCode::InvalidArgument, "a cluster key is 32 bytes in base64");
    }
    return key;
}

std::string Key::base64() const {
    std::string text(sodium_base64_ENCODED_LEN(sizeof(Key::bytes), sodium_base64_VARIANT_ORIGINAL), '\0');
    sodium_bin2base64(text.data(), text.size(), bytes.data(), bytes.size(), sodium_base64_VARIANT_ORIGINAL);
    text.pop_back();
    return text;
}

KeyId Key::id() const {
    std::array<uint8_t, crypto_generichash_BYTES_MIN> hash;
    constexpr std::string_view kDomain = "weft key id";
    crypto_generichash(hash.data(), hash.size(), asBytes(kDomain).data(), kDomain.size(), bytes.data(), bytes.size());
    return getKeyId(hash.data());
}

Result<Keyring> Keyring::parse(std::string_view text) {
    Keyring ring;
    for (int line = 1; !text.empty(); ++line) {
        std::string_view entry = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(entry.size() + 1, text.size()));
        entry = entry.substr(0, entry.find('#'));
        const auto first = entry.find_first_not_of(" \t\r");
        if (first == std::string_view::npos) continue;
        entry = entry.substr(first, entry.find_last_not_of(" \t\r") - first + 1);
        const std::string where = "line " + std::to_string(line);
        WEFT_ASSIGN(const Key key, Key::parse(entry).within(where));
        WEFT_TRY(ring.add(key).within(where));
    }
    return ring;
}

Keyring::~Keyring() {
    if (!entries_.empty()) sodium_memzero(entries_.data(), entries_.size() * sizeof(Entry));
}

Result<void> Keyring::add(const Key& key) {
    if (const Key* held = find(key.id())) {
        if (*held == key) return {};
        return makeError(ErrorCode::AlreadyExists, "another key has the same id; generate a new one");
    }
    if (entries_.size() == kMaxKeys) {
        return makeError(ErrorCode::Exhausted, "the ring holds " + std::to_string(kMaxKeys) + " keys; remove one");
    }
    entries_.reserve(kMaxKeys);  // never moved by growth: no copy is left behind in freed memory
    entries_.push_back({key.id(), key});
    return {};
}

Result<void> Keyring::use(KeyId id) {
    const auto found = std::ranges::find(entries_, id, &Entry::id);
    if (found == entries_.end()) return makeError(ErrorCode::NotFound, "no such key in the ring");
    std::rotate(entries_.begin(), found, found + 1);
    return {};
}

Result<void> Keyring::remove(KeyId id) {
    const auto found = std::ranges::find(entries_, id, &Entry::id);
    if (found == entries_.end()) return {};
    if (found == entries_.begin()) return makeError(ErrorCode::Busy, "the primary key; use another one first");
    std::rotate(found, found + 1, entries_.end());
    sodium_memzero(&entries_.back(), sizeof(Entry));
    entries_.pop_back();
    return {};
}

std::optional<KeyId> Keyring::primary() const {
    if (entries_.empty()) return std::nullopt;
    return entries_.front().id;
}

std::vector<Key> Keyring::keys() const {
    std::vector<Key> keys;
    for (const Entry& entry : entries_) keys.push_back(entry.key);
    return keys;
}

const Key* Keyring::find(KeyId id) const {
    const auto found = std::ranges::find(entries_, id, &Entry::id);
    return found == entries_.end() ? nullptr : &found->key;
}

void Keyring::seal(Wire wire, Random& random, BytesView context, BytesView plain, Bytes& out) const {
    sealWith(entries_.front().key, entries_.front().id, wire, random, context, plain, out);
}

void Keyring::sealWith(const Key& key, KeyId id, Wire wire, Random& random, BytesView context, BytesView plain,
                       Bytes& out) {
    const size_t start = out.size();
    out.resize(start + kOverhead + plain.size());
    uint8_t* box = out.data() + start;
    box[0] = static_cast<uint8_t>(wire);
    putKeyId(box + 1, id);
    random.fill({box + kNonceAt, kHeaderBytes - kNonceAt});
    const Bytes data = associatedData(box, context);
    crypto_aead_xchacha20poly1305_ietf_encrypt(box + kHeaderBytes, nullptr, plain.data(), plain.size(), data.data(),
                                               data.size(), nullptr, box + kNonceAt, key.bytes.data());
}

std::optional<Wire> Keyring::wireOf(BytesView box) {
    if (box.size() < kOverhead || (box[0] != 1 && box[0] != 2)) return std::nullopt;
    return static_cast<Wire>(box[0]);
}

Keyring::Opened Keyring::open(BytesView box, BytesView context, Bytes& plain, KeyId* keyId) const {
    if (!wireOf(box)) return Opened::UnknownKey;
    const KeyId id = getKeyId(box.data() + 1);
    const Key* key = find(id);
    if (key == nullptr) return Opened::UnknownKey;
    const Bytes data = associatedData(box.data(), context);
    plain.resize(box.size() - kOverhead);
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain.data(), nullptr, nullptr, box.data() + kHeaderBytes,
                                                   box.size() - kHeaderBytes, data.data(), data.size(),
                                                   box.data() + kNonceAt, key->bytes.data()) != 0) {
        return Opened::Forged;
    }
    if (keyId != nullptr) *keyId = id;
    return Opened::Ok;
}

}  // namespace weft::kv
