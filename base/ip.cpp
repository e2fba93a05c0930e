#include "base/ip.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstdio>

namespace weft {

namespace {

Uint128 hostMask(IpFamily family, unsigned length) {
    const unsigned hostBits = addressBits(family) - length;
    if (hostBits == 128) return ~Uint128{0};
    return (Uint128{1} << hostBits) - 1;
}

uint64_t fnv1a(std::string_view text) {
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (const char c : text) {
        hash ^= static_cast<uint8_t>(c);
        hash *= 0x100000001b3ULL;
    }
    // FNV leaves its high bits poorly mixed for short keys; finish as splitmix64 does.
    hash ^= hash >> 30;
    hash *= 0xbf58476d1ce4e5b9ULL;
    hash ^= hash >> 27;
    hash *= 0x94d049bb133111ebULL;
    return hash ^ (hash >> 31);
}

}  // namespace

Result<IpAddress> IpAddress::parse(std::string_view text) {
    const std::string copy(text);
    std::array<uint8_t, 16> bytes{};
    if (copy.find('\0') == std::string::npos) {
        if (inet_pton(AF_INET, copy.c_str(), bytes.data()) == 1) return fromBytes(IpFamily::V4, bytes.data());
        if (inet_pton(AF_INET6, copy.c_str(), bytes.data()) == 1) return fromBytes(IpFamily::V6, bytes.data());
    }
    return makeError(ErrorCode::InvalidArgument, "'" + copy + "' is not an IP address");
}

IpAddress IpAddress::fromBytes(IpFamily family, const uint8_t* bytes) {
    Uint128 bits = 0;
    for (size_t i = 0; i < (family == IpFamily::V4 ? 4U : 16U); ++i) bits = (bits << 8) | bytes[i];
    return {family, bits};
}

bool IpAddress::isLoopback() const {
    return isV4() ? (bits_ >> 24) == 127 : bits_ == 1;
}

bool IpAddress::isLinkLocal() const {
    return isV4() ? (bits_ >> 16) == 0xa9fe : (bits_ >> 118) == (0xfe80U >> 6);
}

bool IpAddress::isMulticast() const {
    return isV4() ? (bits_ >> 28) == 0xe : (bits_ >> 120) == 0xff;
}

std::array<uint8_t, 16> IpAddress::bytes() const {
    std::array<uint8_t, 16> out{};
    const size_t count = size();
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(bits_ >> (8 * (count - 1 - i)));
    return out;
}

std::string IpAddress::str() const {
    std::array<char, INET6_ADDRSTRLEN> text{};
    inet_ntop(isV4() ? AF_INET : AF_INET6, bytes().data(), text.data(), text.size());
    return text.data();
}

Result<IpPrefix> IpPrefix::parse(std::string_view text) {
    const auto invalid = [&](const std::string& why) {
        return makeError(ErrorCode::InvalidArgument,
                         "'" + std::string(text) + "' is not an address with a prefix: " + why);
    };
    const size_t slash = text.find('/');
    if (slash == std::string_view::npos) return invalid("the /LENGTH is missing");
    auto address = IpAddress::parse(text.substr(0, slash));
    if (!address) return invalid(address.error().message);
    const std::string_view digits = text.substr(slash + 1);
    unsigned length = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
    if (error != std::errc{} || end != digits.data() + digits.size() || length > addressBits(address->family())) {
        return invalid("the length must be 0 to " + std::to_string(addressBits(address->family())));
    }
    return IpPrefix(*address, static_cast<uint8_t>(length));
}

IpPrefix IpPrefix::network() const {
    return {first(), length_};
}

IpAddress IpPrefix::first() const {
    return {family(), address_.bits() & ~hostMask(family(), length_)};
}

IpAddress IpPrefix::last() const {
    return {family(), address_.bits() | hostMask(family(), length_)};
}

bool IpPrefix::contains(const IpAddress& address) const {
    return address.family() == family() && first() <= address && address <= last();
}

bool IpPrefix::contains(const IpPrefix& other) const {
    return contains(other.first()) && contains(other.last());
}

bool IpPrefix::overlaps(const IpPrefix& other) const {
    return contains(other.first()) || other.contains(first());
}

std::string IpPrefix::str() const {
    return address_.str() + "/" + std::to_string(length_);
}

Result<MacAddress> MacAddress::parse(std::string_view text) {
    std::array<uint8_t, 6> bytes{};
    bool valid = text.size() == 17;
    for (size_t i = 0; valid && i < 6; ++i) {
        const char* group = text.data() + 3 * i;
        const auto [end, error] = std::from_chars(group, group + 2, bytes[i], 16);
        valid = error == std::errc{} && end == group + 2 && (i == 5 || group[2] == ':');
    }
    if (!valid) return makeError(ErrorCode::InvalidArgument, "'" + std::string(text) + "' is not a MAC address");
    return MacAddress(bytes);
}

std::string MacAddress::str() const {
    std::array<char, 18> text{};
    std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", bytes_[0], bytes_[1], bytes_[2], bytes_[3],
                  bytes_[4], bytes_[5]);
    return text.data();
}

MacAddress macFromKey(std::string_view key) {
    const uint64_t hash = fnv1a(key);
    std::array<uint8_t, 6> bytes{};
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(hash >> (8 * i));
    bytes[0] = static_cast<uint8_t>((bytes[0] & 0xfcU) | 0x02U);
    return MacAddress(bytes);
}

IpAddress linkLocalOf(const MacAddress& mac) {
    const auto& m = mac.bytes();
    const std::array<uint8_t, 16> bytes{0xfe, 0x80, 0,    0,    0,    0,    0,   0, static_cast<uint8_t>(m[0] ^ 2U),
                                        m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};
    return IpAddress::fromBytes(IpFamily::V6, bytes.data());
}

}  // namespace weft
