// The values that every part of the store shares.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/ip.h"

namespace weft::kv {

using Bytes = std::vector<uint8_t>;
using BytesView = std::span<const uint8_t>;

using PublicKey = std::array<uint8_t, 32>;  // Ed25519
using Signature = std::array<uint8_t, 64>;

// A node is its key pair: the first 16 bytes of BLAKE2b over the public key. Names and addresses may change.
struct NodeId {
    std::array<uint8_t, 16> bytes{};

    static NodeId of(const PublicKey& key);
    [[nodiscard]] std::string str() const;    // 32 hex digits
    [[nodiscard]] std::string brief() const;  // the first 8 of them, for logs

    auto operator<=>(const NodeId&) const = default;
};

struct Address {
    IpAddress ip;
    uint16_t port = 0;

    [[nodiscard]] std::string str() const;  // "192.0.2.1:7950", "[2001:db8::1]:7950"

    auto operator<=>(const Address&) const = default;
    bool operator==(const Address&) const = default;
};

inline BytesView asBytes(std::string_view text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace weft::kv

template <>
struct std::hash<weft::kv::NodeId> {
    size_t operator()(const weft::kv::NodeId& id) const noexcept {
        size_t value = 0;  // the id is itself a hash
        std::memcpy(&value, id.bytes.data(), sizeof value);
        return value;
    }
};
