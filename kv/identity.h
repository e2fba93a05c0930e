// A node's key pair, which is its identity, and the check of others' signatures.
#pragma once

#include "base/result.h"
#include "kv/types.h"

namespace weft::kv {

// Behind an interface so that simulations of a thousand nodes need not spend 50 us a signature.
class Signer {
public:
    virtual ~Signer() = default;
    [[nodiscard]] virtual const PublicKey& publicKey() const = 0;
    [[nodiscard]] virtual Signature sign(BytesView message) const = 0;
    [[nodiscard]] virtual bool verify(const PublicKey& key, BytesView message, const Signature& signature) const = 0;
};

// Ed25519 by libsodium. The secret never leaves the object; it is wiped at the end.
class Ed25519Signer final : public Signer {
public:
    static constexpr size_t kSeedBytes = 32;
    using Seed = std::array<uint8_t, kSeedBytes>;  // what is stored, in a file only root reads

    static Seed generateSeed();
    explicit Ed25519Signer(const Seed& seed);
    ~Ed25519Signer() override;
    Ed25519Signer(const Ed25519Signer&) = delete;
    Ed25519Signer& operator=(const Ed25519Signer&) = delete;

    [[nodiscard]] const PublicKey& publicKey() const override { return publicKey_; }
    [[nodiscard]] Signature sign(BytesView message) const override;
    [[nodiscard]] bool verify(const PublicKey& key, BytesView message, const Signature& signature) const override;

private:
    PublicKey publicKey_{};
    std::array<uint8_t, 64> secretKey_{};
};

}  // namespace weft::kv
