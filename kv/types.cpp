#include "kv/types.h"

#include <sodium.h>

namespace weft::kv {

namespace {

// Picks the fast implementations for this CPU; without it libsodium works, slowly. Safe to repeat, from any thread.
[[maybe_unused]] const int sodiumReady = sodium_init();

}  // namespace

NodeId NodeId::of(const PublicKey& key) {
    NodeId id;
    crypto_generichash(id.bytes.data(), id.bytes.size(), key.data(), key.size(), nullptr, 0);
    return id;
}

std::string NodeId::str() const {
    std::string text(bytes.size() * 2 + 1, '\0');
    sodium_bin2hex(text.data(), text.size(), bytes.data(), bytes.size());
    text.pop_back();
    return text;
}

std::string NodeId::brief() const {
    return str().substr(0, 8);
}

std::string Address::str() const {
    return (ip.isV6() ? "[" + ip.str() + "]" : ip.str()) + ":" + std::to_string(port);
}

}  // namespace weft::kv
