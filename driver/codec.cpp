#include "driver/codec.h"

#include <fmt/format.h>

#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

namespace weft::driver {
namespace {

using Json = nlohmann::json;

// Labels the engine puts in Options, beside what the user gave (libnetwork/netlabel).
constexpr const char* kGeneric = "com.docker.network.generic";
constexpr const char* kInternal = "com.docker.network.internal";
constexpr const char* kEnableIpv4 = "com.docker.network.enable_ipv4";
constexpr const char* kEnableIpv6 = "com.docker.network.enable_ipv6";
constexpr const char* kPortMap = "com.docker.network.portmap";
constexpr const char* kExposedPorts = "com.docker.network.endpoint.exposedports";
constexpr const char* kMacAddress = "com.docker.network.endpoint.macaddress";
constexpr const char* kOwnOptions = "weft.";
constexpr const char* kLinkName = "com.docker.network.endpoint.ifname";

std::string dump(const Json& json) {
    // Messages may quote what a client sent: never throw for bytes that are not UTF-8.
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A value shown in an error, short whatever it was.
std::string shown(const Json& value) {
    if (value.is_object()) return "an object";
    if (value.is_array()) return "an array";
    std::string text = dump(value);
    if (text.size() > 80) text.replace(77, std::string::npos, "...");
    return text;
}

Error expected(std::string_view field, std::string_view what, const Json& value) {
    return makeError(ErrorCode::InvalidArgument, fmt::format("{}: expected {}, got {}", field, what, shown(value)));
}

// A JSON object and the way to it, for messages.
class Fields {
public:
    static Result<Fields> parse(std::string_view body) {
        if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) {
            // Also what an engine's retry looks like: it does not rewind the body it had begun to send.
            return makeError(ErrorCode::InvalidArgument, "empty request body: expected a JSON object");
        }
        Json json = Json::parse(body, nullptr, false);
        if (json.is_discarded()) {
            return makeError(ErrorCode::InvalidArgument, "request body is not valid JSON");
        }
        if (!json.is_object()) return expected("request body", "a JSON object", json);
        return Fields(std::make_shared<const Json>(std::move(json)), "");
    }

    [[nodiscard]] const Json& json() const { return *json_; }

    [[nodiscard]] std::string path(std::string_view key) const {
        return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
    }

    // Null when absent or null.
    [[nodiscard]] const Json* find(const char* key) const {
        const auto found = json_->find(key);
        return found == json_->end() || found->is_null() ? nullptr : &*found;
    }

    // "" when absent.
    [[nodiscard]] Result<std::string> text(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return std::string();
        if (!value->is_string()) return expected(path(key), "a string", *value);
        return value->get<std::string>();
    }

    [[nodiscard]] Result<std::string> id(const char* key) const {
        WEFT_ASSIGN(std::string value, text(key));
        if (value.empty()) return makeError(ErrorCode::InvalidArgument, fmt::format("{}: missing", path(key)));
        return value;
    }

    [[nodiscard]] Result<bool> flag(const char* key, bool absent) const {
        const Json* value = find(key);
        if (value == nullptr) return absent;
        if (!value->is_boolean()) return expected(path(key), "true or false", *value);
        return value->get<bool>();
    }

    [[nodiscard]] Result<uint16_t> port(const char* key, unsigned least) const {
        const Json* value = find(key);
        if (value == nullptr && least == 0) return uint16_t{0};
        if (value == nullptr) return makeError(ErrorCode::InvalidArgument, fmt::format("{}: missing", path(key)));
        if (!value->is_number_unsigned() || value->get<uint64_t>() > 65535 || value->get<uint64_t>() < least) {
            return expected(path(key), fmt::format("a port from {} to 65535", least), *value);
        }
        return value->get<uint16_t>();
    }

    // An empty object when absent.
    [[nodiscard]] Result<Fields> object(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return Fields(std::make_shared<const Json>(Json::object()), path(key));
        if (!value->is_object()) return expected(path(key), "an object", *value);
        return part(*value, path(key));
    }

    [[nodiscard]] Result<std::vector<Fields>> objects(const char* key) const {
        std::vector<Fields> list;
        const Json* value = find(key);
        if (value == nullptr) return list;
        if (!value->is_array()) return expected(path(key), "an array", *value);
        for (size_t i = 0; i < value->size(); ++i) {
            std::string at = fmt::format("{}[{}]", path(key), i);
            if (!(*value)[i].is_object()) return expected(at, "an object", (*value)[i]);
            list.push_back(part((*value)[i], std::move(at)));
        }
        return list;
    }

    [[nodiscard]] Result<std::map<std::string, std::string>> texts(const char* key) const {
        WEFT_ASSIGN(const Fields fields, object(key));
        std::map<std::string, std::string> map;
        for (const auto& [name, value] : fields.json().items()) {
            if (!value.is_string()) return expected(fields.path(name), "a string", value);
            map[name] = value.get<std::string>();
        }
        return map;
    }

    // None when absent or "".
    [[nodiscard]] Result<std::optional<IpPrefix>> prefix(const char* key) const {
        WEFT_ASSIGN(const std::string value, text(key));
        if (value.empty()) return std::optional<IpPrefix>();
        return parsePrefix(path(key), value);
    }

    [[nodiscard]] Result<std::optional<IpPrefix>> prefix(const char* key, IpFamily family) const {
        WEFT_ASSIGN(std::optional<IpPrefix> value, prefix(key));
        if (value && value->family() != family) {
            return expected(path(key), fmt::format("an {} prefix", toString(family)), *find(key));
        }
        return value;
    }

    [[nodiscard]] Result<std::optional<IpAddress>> address(const char* key) const {
        WEFT_ASSIGN(const std::string value, text(key));
        if (value.empty()) return std::optional<IpAddress>();
        auto parsed = IpAddress::parse(value);
        if (!parsed) return expected(path(key), "an address such as 10.0.0.2", Json(value));
        return std::optional<IpAddress>(*parsed);
    }

    static Result<std::optional<IpPrefix>> parsePrefix(const std::string& at, const std::string& value) {
        auto parsed = IpPrefix::parse(value);
        if (!parsed) return expected(at, "a prefix such as 10.0.0.0/24", Json(value));
        return std::optional<IpPrefix>(*parsed);
    }

private:
    Fields(std::shared_ptr<const Json> json, std::string path) : json_(std::move(json)), path_(std::move(path)) {}

    [[nodiscard]] Fields part(const Json& value, std::string path) const {
        return {std::shared_ptr<const Json>(json_, &value), std::move(path)};
    }

    std::shared_ptr<const Json> json_;  // keeps the whole request
    std::string path_;
};

Result<IpProtocol> protocol(const Fields& fields) {
    const Json* value = fields.find("Proto");
    if (value == nullptr) return makeError(ErrorCode::InvalidArgument, fields.path("Proto") + ": missing");
    if (value->is_number_unsigned()) {
        switch (value->get<uint64_t>()) {
            case 1:
                return IpProtocol::Icmp;
            case 6:
                return IpProtocol::Tcp;
            case 17:
                return IpProtocol::Udp;
            case 132:
                return IpProtocol::Sctp;
            default:
                break;
        }
    }
    return expected(fields.path("Proto"), "6 (tcp), 17 (udp), 132 (sctp) or 1 (icmp)", *value);
}

Result<PortBinding> portBinding(const Fields& fields) {
    PortBinding binding;
    WEFT_ASSIGN(binding.protocol, protocol(fields));
    WEFT_ASSIGN(binding.containerPort, fields.port("Port", 1));
    WEFT_ASSIGN(binding.hostIp, fields.address("HostIP"));
    WEFT_ASSIGN(binding.hostPort, fields.port("HostPort", 0));
    WEFT_ASSIGN(const uint16_t end, fields.port("HostPortEnd", 0));
    if (end != 0 && end < binding.hostPort) {
        return expected(fields.path("HostPortEnd"), fmt::format("0 or at least HostPort {}", binding.hostPort),
                        Json(end));
    }
    // The engine sends a single port as a range of one.
    binding.hostPortEnd = end == binding.hostPort ? uint16_t{0} : end;
    return binding;
}

Result<PortOptions> portOptions(const Fields& options) {
    PortOptions ports;
    WEFT_ASSIGN(const std::vector<Fields> bindings, options.objects(kPortMap));
    for (const Fields& fields : bindings) {
        WEFT_ASSIGN(PortBinding binding, portBinding(fields));
        ports.bindings.push_back(binding);
    }
    WEFT_ASSIGN(const std::vector<Fields> exposed, options.objects(kExposedPorts));
    for (const Fields& fields : exposed) {
        ExposedPort port;
        WEFT_ASSIGN(port.protocol, protocol(fields));
        WEFT_ASSIGN(port.port, fields.port("Port", 0));
        ports.exposed.push_back(port);
    }
    return ports;
}

Result<IpamData> ipamData(const Fields& fields, IpFamily family) {
    IpamData data;
    WEFT_ASSIGN(data.addressSpace, fields.text("AddressSpace"));
    WEFT_ASSIGN(const std::optional<IpPrefix> pool, fields.prefix("Pool", family));
    if (!pool) return makeError(ErrorCode::InvalidArgument, fields.path("Pool") + ": missing");
    data.pool = *pool;
    WEFT_ASSIGN(data.gateway, fields.prefix("Gateway", family));
    WEFT_ASSIGN(const auto auxAddresses, fields.texts("AuxAddresses"));
    for (const auto& [name, text] : auxAddresses) {
        WEFT_ASSIGN(const auto address, Fields::parsePrefix(fields.path("AuxAddresses." + name), text));
        data.auxAddresses[name] = *address;
    }
    return data;
}

Result<std::vector<IpamData>> ipamDataList(const Fields& request, const char* key, IpFamily family) {
    std::vector<IpamData> list;
    WEFT_ASSIGN(const std::vector<Fields> elements, request.objects(key));
    for (const Fields& element : elements) {
        WEFT_ASSIGN(IpamData data, ipamData(element, family));
        list.push_back(std::move(data));
    }
    return list;
}

// Six raw bytes in base64: what Go's net.HardwareAddr becomes in JSON.
std::optional<MacAddress> macFromBase64(std::string_view text) {
    if (text.size() != 8) return std::nullopt;
    uint64_t bits = 0;
    for (const char c : text) {
        unsigned digit = 0;
        if (c >= 'A' && c <= 'Z') {
            digit = static_cast<unsigned>(c - 'A');
        } else if (c >= 'a' && c <= 'z') {
            digit = static_cast<unsigned>(c - 'a') + 26;
        } else if (c >= '0' && c <= '9') {
            digit = static_cast<unsigned>(c - '0') + 52;
        } else if (c == '+' || c == '/') {
            digit = c == '+' ? 62 : 63;
        } else {
            return std::nullopt;
        }
        bits = bits << 6 | digit;
    }
    std::array<uint8_t, 6> bytes{};
    for (size_t i = 0; i < bytes.size(); ++i) bytes.at(i) = static_cast<uint8_t>(bits >> (40 - 8 * i));
    return MacAddress(bytes);
}

Result<std::optional<MacAddress>> endpointMac(const Fields& interface, const Fields& options) {
    WEFT_ASSIGN(const std::string text, interface.text("MacAddress"));
    if (!text.empty()) {
        auto mac = MacAddress::parse(text);
        if (!mac) return expected(interface.path("MacAddress"), "a MAC such as 02:42:0a:00:00:02", Json(text));
        return std::optional<MacAddress>(*mac);
    }
    WEFT_ASSIGN(const std::string raw, options.text(kMacAddress));
    if (raw.empty()) return std::optional<MacAddress>();
    auto mac = macFromBase64(raw);
    if (!mac) return expected(options.path(kMacAddress), "six bytes in base64", Json(raw));
    return mac;
}

Result<EndpointKey> endpointKey(const Fields& request) {
    WEFT_ASSIGN(std::string networkId, request.id("NetworkID"));
    WEFT_ASSIGN(std::string endpointId, request.id("EndpointID"));
    return EndpointKey{NetworkId(std::move(networkId)), EndpointId(std::move(endpointId))};
}

Result<PortOptions> sandboxPorts(const Fields& request) {
    WEFT_ASSIGN(const Fields options, request.object("Options"));
    return portOptions(options);
}

}  // namespace

Result<CreateNetworkRequest> decodeCreateNetwork(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    CreateNetworkRequest request;
    WEFT_ASSIGN(std::string networkId, fields.id("NetworkID"));
    request.networkId = NetworkId(std::move(networkId));
    WEFT_ASSIGN(const Fields options, fields.object("Options"));
    WEFT_ASSIGN(request.options, options.texts(kGeneric));
    WEFT_ASSIGN(request.internal, options.flag(kInternal, false));
    WEFT_ASSIGN(request.enableIpv4, options.flag(kEnableIpv4, true));
    WEFT_ASSIGN(request.enableIpv6, options.flag(kEnableIpv6, false));
    WEFT_ASSIGN(request.ipv4, ipamDataList(fields, "IPv4Data", IpFamily::V4));
    WEFT_ASSIGN(request.ipv6, ipamDataList(fields, "IPv6Data", IpFamily::V6));
    return request;
}

// Unlike CreateNetwork's, Options are the user's own, without the engine's around them.
Result<AllocateNetworkRequest> decodeAllocateNetwork(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    AllocateNetworkRequest request;
    WEFT_ASSIGN(std::string networkId, fields.id("NetworkID"));
    request.networkId = NetworkId(std::move(networkId));
    WEFT_ASSIGN(request.options, fields.texts("Options"));
    WEFT_ASSIGN(request.ipv4, ipamDataList(fields, "IPv4Data", IpFamily::V4));
    return request;
}

Result<std::optional<DiscoveredNode>> decodeDiscovery(std::string_view body) {
    constexpr int kNode = 1;  // libnetwork's discoverapi.NodeDiscovery
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    const Json* type = fields.find("DiscoveryType");
    if (type == nullptr || *type != kNode) return std::optional<DiscoveredNode>();
    WEFT_ASSIGN(const Fields data, fields.object("DiscoveryData"));
    WEFT_ASSIGN(const auto address, data.address("Address"));
    if (!address) return makeError(ErrorCode::InvalidArgument, data.path("Address") + ": missing");
    DiscoveredNode node{*address};
    WEFT_ASSIGN(node.self, data.flag("Self", false));
    return std::optional(node);
}

Result<NetworkId> decodeNetworkId(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    WEFT_ASSIGN(std::string networkId, fields.id("NetworkID"));
    return NetworkId(std::move(networkId));
}

Result<CreateEndpointRequest> decodeCreateEndpoint(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    CreateEndpointRequest request;
    WEFT_ASSIGN(EndpointKey key, endpointKey(fields));
    request.networkId = std::move(key.networkId);
    request.endpointId = std::move(key.endpointId);
    WEFT_ASSIGN(const Fields interface, fields.object("Interface"));
    WEFT_ASSIGN(request.address, interface.prefix("Address", IpFamily::V4));
    WEFT_ASSIGN(request.addressV6, interface.prefix("AddressIPv6", IpFamily::V6));
    WEFT_ASSIGN(const Fields options, fields.object("Options"));
    WEFT_ASSIGN(request.mac, endpointMac(interface, options));
    WEFT_ASSIGN(request.ports, portOptions(options));
    for (const auto& [name, value] : options.json().items()) {
        if (!name.starts_with(kOwnOptions)) continue;
        if (!value.is_string()) return expected(options.path(name), "a string", value);
        request.options[name] = value.get<std::string>();
    }
    WEFT_ASSIGN(const std::string linkName, options.text(kLinkName));
    if (!linkName.empty()) {
        // Engines 28 and 29 let their own drivers name the link; of a plugin they take a prefix and add a number.
        return makeError(
            ErrorCode::Unsupported,
            fmt::format("{} (interface_name in Compose): the engine numbers a plugin's links itself; leave "
                        "it out, or create the network with -o com.docker.network.container_iface_prefix=…",
                        options.path(kLinkName)));
    }
    return request;
}

Result<EndpointKey> decodeEndpointKey(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    return endpointKey(fields);
}

Result<JoinRequest> decodeJoin(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    JoinRequest request;
    WEFT_ASSIGN(EndpointKey key, endpointKey(fields));
    request.networkId = std::move(key.networkId);
    request.endpointId = std::move(key.endpointId);
    WEFT_ASSIGN(request.sandboxKey, fields.text("SandboxKey"));
    WEFT_ASSIGN(request.ports, sandboxPorts(fields));
    return request;
}

Result<ProgramExternalConnectivityRequest> decodeProgramExternalConnectivity(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    ProgramExternalConnectivityRequest request;
    WEFT_ASSIGN(EndpointKey key, endpointKey(fields));
    request.networkId = std::move(key.networkId);
    request.endpointId = std::move(key.endpointId);
    WEFT_ASSIGN(request.ports, sandboxPorts(fields));
    return request;
}

Result<ipam::PoolRequest> decodePoolRequest(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    ipam::PoolRequest request;
    WEFT_ASSIGN(request.addressSpace, fields.text("AddressSpace"));
    WEFT_ASSIGN(request.pool, fields.prefix("Pool"));
    WEFT_ASSIGN(request.subPool, fields.prefix("SubPool"));
    WEFT_ASSIGN(request.options, fields.texts("Options"));
    WEFT_ASSIGN(request.v6, fields.flag("V6", false));
    return request;
}

Result<ipam::PoolId> decodePoolId(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    WEFT_ASSIGN(std::string poolId, fields.id("PoolID"));
    return ipam::PoolId(std::move(poolId));
}

Result<ipam::AddressRequest> decodeAddressRequest(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    ipam::AddressRequest request;
    WEFT_ASSIGN(std::string poolId, fields.id("PoolID"));
    request.poolId = ipam::PoolId(std::move(poolId));
    WEFT_ASSIGN(request.address, fields.address("Address"));
    WEFT_ASSIGN(const Fields options, fields.object("Options"));
    WEFT_ASSIGN(const std::string type, options.text("RequestAddressType"));
    request.gateway = type == "com.docker.network.gateway";
    // Colon text here, unlike in CreateEndpoint.
    WEFT_ASSIGN(const std::string mac, options.text(kMacAddress));
    if (!mac.empty()) {
        auto parsed = MacAddress::parse(mac);
        if (!parsed) return expected(options.path(kMacAddress), "a MAC such as 02:42:0a:00:00:02", Json(mac));
        request.mac = *parsed;
    }
    return request;
}

Result<ReleaseAddressRequest> decodeReleaseAddress(std::string_view body) {
    WEFT_ASSIGN(const Fields fields, Fields::parse(body));
    WEFT_ASSIGN(std::string poolId, fields.id("PoolID"));
    WEFT_ASSIGN(const std::optional<IpAddress> address, fields.address("Address"));
    if (!address) return makeError(ErrorCode::InvalidArgument, "Address: missing");
    return ReleaseAddressRequest{ipam::PoolId(std::move(poolId)), *address};
}

std::string encode(const CreateEndpointReply& reply) {
    Json interface = Json::object();
    if (reply.address) interface["Address"] = reply.address->str();
    if (reply.addressV6) interface["AddressIPv6"] = reply.addressV6->str();
    if (reply.mac) interface["MacAddress"] = reply.mac->str();
    return dump(Json{{"Interface", std::move(interface)}});
}

std::string encode(const JoinReply& reply) {
    Json json = Json::object();
    if (!reply.sourceName.empty()) {
        json["InterfaceName"] = {{"SrcName", reply.sourceName}, {"DstPrefix", reply.destinationPrefix}};
    }
    if (reply.gateway) json["Gateway"] = reply.gateway->str();
    if (reply.gatewayV6) json["GatewayIPv6"] = reply.gatewayV6->str();
    for (const StaticRoute& route : reply.routes) {
        Json element{{"Destination", route.destination.str()}, {"RouteType", route.nextHop ? 0 : 1}};
        if (route.nextHop) element["NextHop"] = route.nextHop->str();
        json["StaticRoutes"].push_back(std::move(element));
    }
    json["DisableGatewayService"] = reply.disableGatewayService;
    return dump(json);
}

std::string encodeOptions(const std::map<std::string, std::string>& options) {
    return dump({{"Options", options}});
}

std::string encode(const ipam::PoolReply& reply) {
    return dump(Json{{"PoolID", reply.poolId.str()}, {"Pool", reply.pool.str()}, {"Data", reply.data}});
}

std::string encodeAddress(const IpPrefix& address) {
    return dump(Json{{"Address", address.str()}, {"Data", Json::object()}});
}

std::string encodeError(std::string_view text) {
    return dump(Json{{"Err", text}, {"Error", text}});
}

}  // namespace weft::driver
