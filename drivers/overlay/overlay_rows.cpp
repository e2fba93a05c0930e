#include "drivers/overlay/overlay_rows.h"

#include "kv/wire.h"

namespace weft {

namespace {

constexpr uint8_t kVersion = 1;
constexpr std::string_view kNetworks = "overlay/net/";
constexpr std::string_view kEndpoints = "overlay/ep/";
// Leaves a claim well below the store's limit of a row.
constexpr size_t kMaxSubnets = 32;
constexpr uint32_t kLeastMtu = 68;

void put(kv::Writer& out, const IpAddress& address) {
    out.u8(address.isV4() ? 4 : 6);
    const auto bytes = address.bytes();
    out.bytes(kv::BytesView(bytes.data(), address.size()));
}

IpAddress takeAddress(kv::Reader& in) {
    const uint8_t family = in.u8();
    if (family != 4 && family != 6) {
        in.fail();
        return {};
    }
    const kv::BytesView bytes = in.bytes(family == 4 ? 4 : 16);
    return in.ok() ? IpAddress::fromBytes(family == 4 ? IpFamily::V4 : IpFamily::V6, bytes.data()) : IpAddress();
}

std::string text(const kv::Writer& out) {
    return {out.view().begin(), out.view().end()};
}

Error corrupt(const char* what) {
    return makeError(ErrorCode::Corrupt, std::string("malformed row of an overlay ") + what);
}

// What other hosts can send to.
bool isOfOneHost(const IpAddress& address) {
    return !address.isAny() && !address.isMulticast() && !address.isLoopback();
}

}  // namespace

std::string networkKey(const std::string& name) {
    return std::string(kNetworks) + name;
}

std::string endpointKey(const std::string& name, const EndpointId& id) {
    return std::string(kEndpoints) + name + "/" + id.str();
}

std::optional<OverlayKey> parseOverlayKey(std::string_view key) {
    if (key.starts_with(kNetworks)) {
        const std::string_view name = key.substr(kNetworks.size());
        if (name.empty() || name.find('/') != std::string_view::npos) return std::nullopt;
        return OverlayKey{std::string(name), {}};
    }
    if (!key.starts_with(kEndpoints)) return std::nullopt;
    key.remove_prefix(kEndpoints.size());
    const size_t slash = key.find('/');
    if (slash == 0 || slash == std::string_view::npos || slash + 1 == key.size()) return std::nullopt;
    return OverlayKey{std::string(key.substr(0, slash)), EndpointId(std::string(key.substr(slash + 1)))};
}

std::string encode(const NetworkClaim& claim) {
    kv::Writer out;
    out.u8(kVersion);
    out.u64(claim.stamp);
    out.u32(claim.vni);
    out.u32(claim.mtu);
    out.u8(claim.internal ? 1 : 0);
    put(out, claim.vtep);
    out.u16(claim.port);
    out.u8(static_cast<uint8_t>(claim.gateways.size()));
    for (const IpPrefix& gateway : claim.gateways) {
        put(out, gateway.address());
        out.u8(gateway.length());
    }
    return text(out);
}

Result<NetworkClaim> decodeClaim(std::string_view value) {
    kv::Reader in(kv::asBytes(value));
    NetworkClaim claim;
    if (in.u8() != kVersion) return corrupt("network");
    claim.stamp = in.u64();
    claim.vni = in.u32();
    claim.mtu = in.u32();
    claim.internal = in.flag();
    claim.vtep = takeAddress(in);
    claim.port = in.u16();
    const size_t count = in.u8();
    if (count > kMaxSubnets) return corrupt("network");
    for (size_t i = 0; i < count && in.ok(); ++i) {
        const IpAddress address = takeAddress(in);
        const uint8_t length = in.u8();
        if (length > addressBits(address.family())) in.fail();
        claim.gateways.emplace_back(address, length);
    }
    const bool sane = claim.stamp <= kLastStamp && claim.mtu >= kLeastMtu && claim.mtu <= UINT16_MAX &&
                      claim.vni != 0 && claim.vni < (1U << 24) && claim.port != 0 && isOfOneHost(claim.vtep);
    if (!in.done() || !sane) return corrupt("network");
    return claim;
}

std::string encode(const EndpointRow& row) {
    kv::Writer out;
    out.u8(kVersion);
    out.u64(row.stamp);
    out.bytes(row.mac.bytes());
    out.u8(static_cast<uint8_t>((row.v4 ? 1 : 0) | (row.v6 ? 2 : 0)));
    if (row.v4) put(out, *row.v4);
    if (row.v6) put(out, *row.v6);
    return text(out);
}

Result<EndpointRow> decodeEndpoint(std::string_view value) {
    kv::Reader in(kv::asBytes(value));
    EndpointRow row;
    if (in.u8() != kVersion) return corrupt("endpoint");
    row.stamp = in.u64();
    row.mac = MacAddress(in.array<6>());
    const uint8_t families = in.u8();
    if ((families & 1) != 0) row.v4 = takeAddress(in);
    if ((families & 2) != 0) row.v6 = takeAddress(in);
    const bool sane = row.stamp <= kLastStamp && families != 0 && families < 4 && !row.mac.isZero() &&
                      !row.mac.isMulticast() && (!row.v4 || row.v4->isV4()) && (!row.v6 || row.v6->isV6());
    if (!in.done() || !sane) return corrupt("endpoint");
    return row;
}

std::string encode(const ProbeRow& row) {
    kv::Writer out;
    out.u8(kVersion);
    out.u32(row.epoch);
    out.u32(row.mtu);
    put(out, row.vtep);
    return text(out);
}

Result<ProbeRow> decodeProbe(std::string_view value) {
    kv::Reader in(kv::asBytes(value));
    ProbeRow row;
    if (in.u8() != kVersion) return corrupt("probe");
    row.epoch = in.u32();
    row.mtu = in.u32();
    row.vtep = takeAddress(in);
    if (!in.done() || row.mtu < kLeastMtu || row.mtu > UINT16_MAX || !isOfOneHost(row.vtep)) return corrupt("probe");
    return row;
}

std::string encode(const EchoRow& row) {
    kv::Writer out;
    out.u8(kVersion);
    out.bytes(row.key);
    put(out, row.vtep);
    return text(out);
}

Result<EchoRow> decodeEcho(std::string_view value) {
    kv::Reader in(kv::asBytes(value));
    EchoRow row;
    if (in.u8() != kVersion) return corrupt("echo");
    row.key = in.array<16>();
    row.vtep = takeAddress(in);
    if (!in.done() || !isOfOneHost(row.vtep)) return corrupt("echo");
    return row;
}

}  // namespace weft
