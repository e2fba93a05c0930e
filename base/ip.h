// IP addresses, prefixes and MAC addresses as values.
//
// An IpAddress holds 128 bits whichever the family; an IPv4 address uses the low 32. Arithmetic is on that
// integer, so a pool of any size needs no array.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace weft {

enum class IpFamily : uint8_t { V4, V6 };

constexpr unsigned addressBits(IpFamily family) {
    return family == IpFamily::V4 ? 32 : 128;
}
constexpr std::string_view toString(IpFamily family) {
    return family == IpFamily::V4 ? "IPv4" : "IPv6";
}

using Uint128 = unsigned __int128;

class IpAddress {
public:
    constexpr IpAddress() = default;  // 0.0.0.0
    constexpr IpAddress(IpFamily family, Uint128 bits) : bits_(bits), family_(family) {}

    static Result<IpAddress> parse(std::string_view text);
    static IpAddress any(IpFamily family) { return {family, 0}; }
    // Network byte order; `bytes` has 4 or 16 of them by family.
    static IpAddress fromBytes(IpFamily family, const uint8_t* bytes);

    [[nodiscard]] IpFamily family() const { return family_; }
    [[nodiscard]] bool isV4() const { return family_ == IpFamily::V4; }
    [[nodiscard]] bool isV6() const { return family_ == IpFamily::V6; }
    [[nodiscard]] Uint128 bits() const { return bits_; }
    [[nodiscard]] bool isAny() const { return bits_ == 0; }
    [[nodiscard]] bool isLoopback() const;   // 127.0.0.0/8 or ::1
    [[nodiscard]] bool isLinkLocal() const;  // 169.254.0.0/16 or fe80::/10
    [[nodiscard]] bool isMulticast() const;  // 224.0.0.0/4 or ff00::/8

    // Network byte order; only the first 4 are used for IPv4.
    [[nodiscard]] std::array<uint8_t, 16> bytes() const;
    [[nodiscard]] size_t size() const { return isV4() ? 4 : 16; }
    [[nodiscard]] std::string str() const;

    auto operator<=>(const IpAddress& other) const {
        if (auto order = family_ <=> other.family_; std::is_neq(order)) return order;
        return bits_ <=> other.bits_;
    }
    bool operator==(const IpAddress&) const = default;

private:
    Uint128 bits_ = 0;
    IpFamily family_ = IpFamily::V4;
};

// An address with a prefix length. Host bits are kept ("10.0.0.1/24" is the gateway on its subnet); network()
// clears them.
class IpPrefix {
public:
    constexpr IpPrefix() = default;
    constexpr IpPrefix(IpAddress address, uint8_t length) : address_(address), length_(length) {}

    // "10.0.0.1/24", "fd00::/64". A missing length is an error.
    static Result<IpPrefix> parse(std::string_view text);

    [[nodiscard]] const IpAddress& address() const { return address_; }
    [[nodiscard]] uint8_t length() const { return length_; }
    [[nodiscard]] IpFamily family() const { return address_.family(); }

    [[nodiscard]] IpPrefix network() const;  // host bits cleared
    [[nodiscard]] IpAddress first() const;   // network address
    [[nodiscard]] IpAddress last() const;    // broadcast address for IPv4
    [[nodiscard]] bool contains(const IpAddress& address) const;
    [[nodiscard]] bool contains(const IpPrefix& other) const;
    [[nodiscard]] bool overlaps(const IpPrefix& other) const;
    [[nodiscard]] std::string str() const;

    auto operator<=>(const IpPrefix&) const = default;

private:
    IpAddress address_;
    uint8_t length_ = 0;
};

class MacAddress {
public:
    constexpr MacAddress() = default;
    constexpr explicit MacAddress(std::array<uint8_t, 6> bytes) : bytes_(bytes) {}

    static Result<MacAddress> parse(std::string_view text);  // "02:42:0a:00:00:02"

    [[nodiscard]] const std::array<uint8_t, 6>& bytes() const { return bytes_; }
    [[nodiscard]] bool isMulticast() const { return (bytes_[0] & 1) != 0; }
    [[nodiscard]] bool isZero() const { return bytes_ == std::array<uint8_t, 6>{}; }
    [[nodiscard]] std::string str() const;

    auto operator<=>(const MacAddress&) const = default;

private:
    std::array<uint8_t, 6> bytes_{};
};

// A locally administered unicast MAC derived from a text key: the same key gives the same MAC, and two keys
// collide with chance 2^-46.
MacAddress macFromKey(std::string_view key);

// The IPv6 address that a link of this MAC gives itself by default: fe80:: and the modified EUI-64 (RFC 4291, A).
IpAddress linkLocalOf(const MacAddress& mac);

}  // namespace weft
