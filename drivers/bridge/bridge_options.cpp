#include "drivers/bridge/bridge_options.h"

#include <algorithm>
#include <cctype>

#include "drivers/names.h"
#include "drivers/options.h"
#include "net/sysctl.h"

namespace weft {

namespace {

constexpr std::string_view kName = "com.docker.network.bridge.name";
constexpr std::string_view kIcc = "com.docker.network.bridge.enable_icc";
constexpr std::string_view kMasquerade = "com.docker.network.bridge.enable_ip_masquerade";
constexpr std::string_view kHostBinding = "com.docker.network.bridge.host_binding_ipv4";
constexpr std::string_view kModeV4 = "com.docker.network.bridge.gateway_mode_ipv4";
constexpr std::string_view kModeV6 = "com.docker.network.bridge.gateway_mode_ipv6";
constexpr std::string_view kInhibitV4 = "com.docker.network.bridge.inhibit_ipv4";
constexpr std::string_view kMtu = "com.docker.network.driver.mtu";
constexpr std::string_view kPrefix = "com.docker.network.container_iface_prefix";
constexpr std::string_view kHostV4 = "com.docker.network.host_ipv4";
constexpr std::string_view kHostV6 = "com.docker.network.host_ipv6";
constexpr std::string_view kEnableV4 = "com.docker.network.enable_ipv4";
constexpr std::string_view kEnableV6 = "com.docker.network.enable_ipv6";
constexpr std::string_view kAdvertiseCount = "com.docker.network.advertise_addr_nmsgs";
constexpr std::string_view kAdvertiseInterval = "com.docker.network.advertise_addr_ms";

constexpr KnownOption kKnown[] = {
    {kName, ""},
    {kIcc, ""},
    {kMasquerade, ""},
    {kHostBinding, ""},
    {kModeV4, ""},
    {kModeV6, ""},
    {kInhibitV4, ""},
    {kMtu, ""},
    {kPrefix, ""},
    {kSpoofOption, ""},
    {kHostV4, ""},
    {kHostV6, ""},
    {kEnableV4, ""},
    {kEnableV6, ""},
    {kAdvertiseCount, ""},     // the engine itself does what these two say
    {kAdvertiseInterval, ""},  //
    {"com.docker.network.bridge.default_bridge", "only the engine's own bridge can be the default one"},
    {"com.docker.network.bridge.trusted_host_interfaces", "publish the ports that other links shall reach"},
};

constexpr std::string_view kOverlayBroadcast = "weft.broadcast";
constexpr std::string_view kOverlayFastPath = "weft.fastpath";

constexpr KnownOption kKnownOfOverlay[] = {
    {kOverlayNameOption, ""},
    {kOverlayVniOption, ""},
    {kOverlayBroadcast, ""},
    {kOverlayFastPath, ""},
    {kSpoofOption, ""},
    {kMasquerade, ""},
    {kHostBinding, ""},
    {kMtu, ""},
    {kPrefix, ""},
    {kHostV4, ""},
    {kHostV6, ""},
    {kEnableV4, ""},
    {kEnableV6, ""},
    {kAdvertiseCount, ""},
    {kAdvertiseInterval, ""},
    {kName, "weft names the bridge, which is the same network on every host"},
    {kIcc, "the containers of an overlay network reach each other; use a network for each group"},
    {kModeV4, "an overlay's addresses are hidden outside, for no host alone could route them"},
    {kModeV6, "an overlay's addresses are hidden outside, for no host alone could route them"},
    {kInhibitV4, "the bridge is the containers' gateway on every host"},
};

constexpr uint32_t kLeastVni = 1;
constexpr uint32_t kMostVni = (1U << 24) - 1;
constexpr size_t kMaxOverlayName = 63;

constexpr std::string_view kMode = "weft-bridge";

Error contradiction(std::string_view a, std::string_view b, std::string_view why) {
    return makeError(ErrorCode::InvalidArgument, std::string(kMode) + ": options \"" + std::string(a) + "\" and \"" +
                                                     std::string(b) + "\" contradict: " + std::string(why));
}

Result<firewall::GatewayMode> gatewayMode(const OptionReader& reader, std::string_view name) {
    const std::string* value = reader.text(name);
    if (value == nullptr || *value == "nat") return firewall::GatewayMode::Nat;
    if (*value == "routed") return firewall::GatewayMode::Routed;
    const auto unsupported = [&](const char* instead) {
        return makeError(ErrorCode::Unsupported, std::string(kMode) + ": gateway mode \"" + *value +
                                                     "\" is not supported (nat and routed are): " + instead);
    };
    if (*value == "nat-unprotected") return unsupported("publish the ports that shall be reachable");
    if (*value == "isolated") return unsupported("use --internal");
    return reader.invalid(name, "must be nat or routed");
}

Result<std::optional<bool>> spoofOf(const OptionReader& reader) {
    const std::string* value = reader.text(kSpoofOption);
    if (value == nullptr) return std::optional<bool>();
    if (*value == "allow") return std::optional(true);
    if (*value == "deny") return std::optional(false);
    return reader.invalid(kSpoofOption, "must be allow or deny");
}

Result<std::optional<IpAddress>> addressOf(const OptionReader& reader, std::string_view name, IpFamily family) {
    WEFT_ASSIGN(const auto address, reader.address(name));
    if (address && address->family() != family) {
        return reader.invalid(name, "must be an " + std::string(toString(family)) + " address");
    }
    return address;
}

}  // namespace

Result<BridgeOptions> parseBridgeOptions(const CreateNetworkRequest& request, bool overlay) {
    const OptionReader reader(overlay ? "weft-overlay" : kMode, request.options,
                              overlay ? std::span<const KnownOption>(kKnownOfOverlay) : kKnown);
    WEFT_TRY(reader.check());
    BridgeOptions options;

    if (overlay) {
        const std::string* name = reader.text(kOverlayNameOption);
        if (name == nullptr) return reader.invalid(kOverlayNameOption, "is missing: it names the network on all hosts");
        const auto fits = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; };
        if (name->size() > kMaxOverlayName || !std::all_of(name->begin(), name->end(), fits)) {
            return reader.invalid(kOverlayNameOption, "must be 1 to 63 letters, digits or - _ .");
        }
        options.overlay = *name;
        if (reader.text(kOverlayVniOption) != nullptr) {
            WEFT_ASSIGN(options.vni, reader.number(kOverlayVniOption, kLeastVni, kMostVni, 0));
        }
        WEFT_ASSIGN(options.broadcast, reader.flag(kOverlayBroadcast, true));
        WEFT_ASSIGN(options.fastPath, reader.flag(kOverlayFastPath, true));
    }

    if (const std::string* name = reader.text(kName)) {
        if (auto valid = checkLinkName(*name); !valid) return reader.invalid(kName, valid.error().message);
        options.name = *name;
    }
    WEFT_ASSIGN(options.icc, reader.flag(kIcc, true));
    WEFT_ASSIGN(const auto spoof, spoofOf(reader));
    options.spoofAllowed = spoof.value_or(false);
    WEFT_ASSIGN(options.masquerade, reader.flag(kMasquerade, true));
    WEFT_ASSIGN(options.inhibitV4, reader.flag(kInhibitV4, false));
    WEFT_ASSIGN(options.hostBinding, reader.address(kHostBinding));
    WEFT_ASSIGN(options.modeV4, gatewayMode(reader, kModeV4));
    WEFT_ASSIGN(options.modeV6, gatewayMode(reader, kModeV6));
    WEFT_ASSIGN(options.hostV4, addressOf(reader, kHostV4, IpFamily::V4));
    WEFT_ASSIGN(options.hostV6, addressOf(reader, kHostV6, IpFamily::V6));
    // IPv4 works from 68 octets (RFC 791), IPv6 from 1280 (RFC 8200); 0 means the default, as with Docker.
    WEFT_ASSIGN(options.mtu, reader.number(kMtu, 0, 65535, 0));
    if (const uint32_t least = request.enableIpv6 ? 1280 : 68; options.mtu != 0 && options.mtu < least) {
        return reader.invalid(kMtu, "must be at least " + std::to_string(least));
    }
    if (const std::string* prefix = reader.text(kPrefix)) {
        // The engine adds a number of up to three digits.
        if (!checkLinkName(*prefix) || prefix->size() > 12 ||
            std::isdigit(static_cast<unsigned char>(prefix->back()))) {
            return reader.invalid(kPrefix, "must be 1 to 12 characters of a link name, the last one no digit");
        }
        options.interfacePrefix = *prefix;
    }
    WEFT_ASSIGN(const uint32_t messages, reader.number(kAdvertiseCount, 0, 3, 3));
    WEFT_ASSIGN(const uint32_t interval, reader.number(kAdvertiseInterval, 100, 2000, 1000));
    static_cast<void>(messages);
    static_cast<void>(interval);

    WEFT_ASSIGN(const bool labelV4, reader.flag(kEnableV4, request.enableIpv4));
    if (labelV4 != request.enableIpv4) return reader.invalid(kEnableV4, "the network's own setting differs");
    WEFT_ASSIGN(const bool labelV6, reader.flag(kEnableV6, request.enableIpv6));
    if (labelV6 != request.enableIpv6) return reader.invalid(kEnableV6, "the network's own setting differs");

    const bool masqueradeAsked = reader.text(kMasquerade) != nullptr && options.masquerade;
    const auto routed = [](firewall::GatewayMode mode) { return mode == firewall::GatewayMode::Routed; };
    if (masqueradeAsked && routed(options.modeV4) && (routed(options.modeV6) || !request.enableIpv6)) {
        return contradiction(kMasquerade, kModeV4, "a routed network hides no addresses");
    }
    for (const auto& [address, name, mode, modeName] : {std::tuple(options.hostV4, kHostV4, options.modeV4, kModeV4),
                                                        std::tuple(options.hostV6, kHostV6, options.modeV6, kModeV6)}) {
        if (!address) continue;
        if (!options.masquerade) return contradiction(name, kMasquerade, "nothing would use the address");
        if (routed(mode)) return contradiction(name, modeName, "a routed network hides no addresses");
    }
    return options;
}

Result<std::optional<bool>> parseEndpointSpoof(std::string_view mode,
                                               const std::map<std::string, std::string>& options) {
    constexpr KnownOption kKnownOfEndpoint[] = {{kSpoofOption, ""}};
    const OptionReader reader(mode, options, kKnownOfEndpoint);
    WEFT_TRY(reader.check());
    return spoofOf(reader);
}

Result<std::vector<IpamData>> bridgeSubnets(const CreateNetworkRequest& request) {
    std::vector<IpamData> subnets;
    const auto add = [&](bool enabled, const std::vector<IpamData>& data, IpFamily family) -> Result<void> {
        if (!enabled) return {};
        const auto refuse = [](const std::string& why) { return makeError(ErrorCode::InvalidArgument, why); };
        const std::string familyName(toString(family));
        if (data.empty()) return refuse(familyName + " is on, but IPAM gave no subnet for it");
        for (const IpamData& subnet : data) {
            const std::string pool = subnet.pool.str();
            if (subnet.pool.family() != family) return refuse("subnet " + pool + " is not " + familyName);
            if (subnet.pool.length() == 0) return refuse("a bridge needs a subnet (--ipam-driver null gives none)");
            if (subnet.pool.length() + 1U > addressBits(family)) return refuse("subnet " + pool + " has one address");
            if (subnet.gateway && !subnet.pool.contains(subnet.gateway->address())) {
                return refuse("gateway " + subnet.gateway->address().str() + " is outside of subnet " + pool);
            }
            for (const IpamData& other : subnets) {
                if (other.pool.overlaps(subnet.pool))
                    return refuse("subnets " + other.pool.str() + " and " + pool + " overlap");
            }
            subnets.push_back(subnet);
        }
        return {};
    };
    WEFT_TRY(add(request.enableIpv4, request.ipv4, IpFamily::V4));
    WEFT_TRY(add(request.enableIpv6, request.ipv6, IpFamily::V6));
    if (subnets.empty()) return makeError(ErrorCode::InvalidArgument, "neither IPv4 nor IPv6 is on");
    return subnets;
}

IpPrefix gatewayAddress(const IpamData& subnet) {
    const IpAddress address =
        subnet.gateway ? subnet.gateway->address() : IpAddress(subnet.pool.family(), subnet.pool.first().bits() + 1);
    return {address, subnet.pool.length()};
}

std::vector<std::pair<std::string, std::string>> bridgeSysctls(const std::string& bridge,
                                                               const CreateNetworkRequest& request,
                                                               const BridgeOptions& options) {
    std::vector<std::pair<std::string, std::string>> sysctls;
    const auto set = [&](IpFamily family, std::string_view setting, bool on) {
        sysctls.emplace_back(net::linkSysctl(family, bridge, setting), on ? "1" : "0");
    };
    const bool forwards = !request.internal;
    if (request.enableIpv4) {
        set(IpFamily::V4, "forwarding", forwards);
        // A port published on 127.0.0.1: the host's packets go into the bridge with a loopback source. The firewall
        // drops what comes out of the bridge for 127.0.0.0/8.
        set(IpFamily::V4, "route_localnet", forwards && options.modeV4 == firewall::GatewayMode::Nat);
    }
    // Off first: the bridge of an IPv4 network shall not be on the containers' IPv6 link.
    set(IpFamily::V6, "disable_ipv6", !request.enableIpv6);
    if (request.enableIpv6) {
        // A bridge without ports has no carrier, and duplicate detection would wait for one.
        set(IpFamily::V6, "accept_dad", false);
        set(IpFamily::V6, "accept_ra", false);
        set(IpFamily::V6, "forwarding", forwards);
    }
    return sysctls;
}

}  // namespace weft
