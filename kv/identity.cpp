#include "kv/identity.h"

#include <sodium.h>

namespace weft::kv {

Ed25519Signer::Seed Ed25519Signer::generateSeed() {
    Seed seed;
    randombytes_buf(seed.data(), seed.size());
    return seed;
}

Ed25519Signer::Ed25519Signer(const Seed& seed) {
    static_assert(crypto_sign_SEEDBYTES == kSeedBytes && crypto_sign_SECRETKEYBYTES == sizeof secretKey_);
    crypto_sign_seed_keypair(publicKey_.data(), secretKey_.data(), seed.data());
}

Ed25519Signer::~Ed25519Signer() {
    sodium_memzero(secretKey_.data(), secretKey_.size());
}

Signature Ed25519Signer::sign(BytesView message) const {
    Signature signature;
    crypto_sign_detached(signature.data(), nullptr, message.data(), message.size(), secretKey_.data());
    return signature;
}

bool Ed25519Signer::verify(const PublicKey& key, BytesView message, const Signature& signature) const {
    return crypto_sign_verify_detached(signature.data(), message.data(), message.size(), key.data()) == 0;
}

}  // namespace weft::kv
