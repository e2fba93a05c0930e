// The rows of overlay mode in the gossip store: what a host says of its networks and endpoints. Pure.
//
// Values: a version byte, then the fields in the order below, big-endian, addresses as a family byte and 4 or 16 bytes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"

namespace weft {

inline constexpr std::string_view kOverlayPrefix = "overlay/";
inline constexpr uint64_t kLastStamp = uint64_t{1} << 43;  // of a row: in the year 2248

// overlay/net/NAME: this host has the network.
struct NetworkClaim {
    uint64_t stamp = 0;  // wall clock, ms: the earliest claim is the network's truth
    uint32_t vni = 0;
    uint32_t mtu = 0;  // of the containers
    bool internal = false;
    IpAddress vtep;
    uint16_t port = 0;               // UDP
    std::vector<IpPrefix> gateways;  // gateway address with the subnet's length, a subnet each, sorted

    bool operator==(const NetworkClaim&) const = default;
};

// overlay/ep/NAME/ENDPOINT: this host has the container.
struct EndpointRow {
    uint64_t stamp = 0;  // as above: of two that have one address the later is right
    MacAddress mac;
    std::optional<IpAddress> v4;
    std::optional<IpAddress> v6;

    bool operator==(const EndpointRow&) const = default;
};

// overlay/probe: this host answers tunnel probes (probe_link.h).
struct ProbeRow {
    uint32_t epoch = 0;  // of the node, which each start raises: an older weftd leaves its successor's row as it is
    uint32_t mtu = 0;    // of the probe's link
    IpAddress vtep;

    bool operator==(const ProbeRow&) const = default;
};
inline constexpr std::string_view kProbeKey = "overlay/probe";

// overlay/echo: this host's kernel answers questions, also without its weftd (host_watch.h).
struct EchoRow {
    std::array<uint8_t, 16> key{};  // by which its answers are known
    IpAddress vtep;

    bool operator==(const EchoRow&) const = default;
};
inline constexpr std::string_view kEchoKey = "overlay/echo";

std::string networkKey(const std::string& name);
std::string endpointKey(const std::string& name, const EndpointId& id);

struct OverlayKey {
    std::string network;
    std::optional<EndpointId> endpoint;  // none: the network's own row
};
std::optional<OverlayKey> parseOverlayKey(std::string_view key);

std::string encode(const NetworkClaim& claim);
std::string encode(const EndpointRow& row);
std::string encode(const ProbeRow& row);
std::string encode(const EchoRow& row);
// Corrupt unless all of it is as encode() writes it.
Result<NetworkClaim> decodeClaim(std::string_view value);
Result<EndpointRow> decodeEndpoint(std::string_view value);
Result<ProbeRow> decodeProbe(std::string_view value);
Result<EchoRow> decodeEcho(std::string_view value);

}  // namespace weft
