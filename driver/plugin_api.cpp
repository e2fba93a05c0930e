#include "driver/plugin_api.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/log.h"

namespace weft::driver {
namespace {

constexpr const char* kPluginType = "application/vnd.docker.plugins.v1.2+json";
// The engine waits for each call with a network's lock held: slower ones than this deserve a warning.
constexpr std::chrono::seconds kSlowCall{1};

}  // namespace

std::string pluginErrorBody(int /*status*/, std::string_view text) {
    return encodeError(text);
}

// What a method learned about its call, for the log line.
struct PluginApi::Call {
    std::string_view body;
    NetworkId networkId;
    EndpointId endpointId;
    std::string detail;  // further " key=value" pairs

    void about(const NetworkId& network) { networkId = network; }
    void about(const NetworkId& network, const EndpointId& endpoint) {
        networkId = network;
        endpointId = endpoint;
    }
    void with(std::string_view key, std::string_view value) {
        fmt::format_to(std::back_inserter(detail), " {}={}", key, logValue(value));
    }
};

namespace {

using Reply = Result<std::string>;  // the body of a success

std::string errnoName(int number) {
    const char* name = ::strerrorname_np(number);
    return name != nullptr ? name : fmt::format("{}", number);
}

Reply empty(Result<void> result) {
    if (!result) return std::move(result).error();
    return std::string("{}");
}

}  // namespace

struct PluginApi::Methods {
    using Call = PluginApi::Call;

    static Reply activate(PluginApi&, Call&) { return std::string(R"({"Implements":["NetworkDriver","IpamDriver"]})"); }

    static Reply getCapabilities(PluginApi& api, Call&) {
        const char* scope = api.traits_.global ? "global" : "local";
        return fmt::format(R"({{"Scope":"{}","ConnectivityScope":"{}"}})", scope, scope);
    }

    // Not asked for unless GwAllocChecker is among the capabilities.
    static Reply gwAllocCheck(PluginApi&, Call&) { return std::string(R"({"SkipIPv4":false,"SkipIPv6":false})"); }

    static Result<SwarmAllocation*> allocation(PluginApi& api) {
        if (api.allocation_ != nullptr && api.traits_.global) return api.allocation_;
        return makeError(
            ErrorCode::Unsupported,
            fmt::format("{} networks are of scope local: a swarm manager cannot allocate them", api.name_));
    }

    static Reply allocateNetwork(PluginApi& api, Call& call) {
        WEFT_ASSIGN(SwarmAllocation* const allocation, Methods::allocation(api));
        WEFT_ASSIGN(const AllocateNetworkRequest request, decodeAllocateNetwork(call.body));
        call.about(request.networkId);
        WEFT_ASSIGN(const auto options, allocation->allocateNetwork(request));
        return encodeOptions(options);
    }

    static Reply freeNetwork(PluginApi& api, Call& call) {
        WEFT_ASSIGN(SwarmAllocation* const allocation, Methods::allocation(api));
        WEFT_ASSIGN(const NetworkId networkId, decodeNetworkId(call.body));
        call.about(networkId);
        return empty(allocation->freeNetwork(networkId));
    }

    static Reply discovery(PluginApi& api, Call& call, bool isThere) {
        WEFT_ASSIGN(const auto node, decodeDiscovery(call.body));
        if (!node) return std::string("{}");
        call.with("node", node->address.str());
        if (api.traits_.discovered) api.traits_.discovered(*node, isThere);
        return std::string("{}");
    }
    static Reply discoverNew(PluginApi& api, Call& call) { return discovery(api, call, true); }
    static Reply discoverDelete(PluginApi& api, Call& call) { return discovery(api, call, false); }

    static Reply createNetwork(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const CreateNetworkRequest request, decodeCreateNetwork(call.body));
        call.about(request.networkId);
        return empty(api.driver_.createNetwork(request));
    }

    static Reply deleteNetwork(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const NetworkId networkId, decodeNetworkId(call.body));
        call.about(networkId);
        return empty(api.driver_.deleteNetwork(networkId));
    }

    static Reply createEndpoint(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const CreateEndpointRequest request, decodeCreateEndpoint(call.body));
        call.about(request.networkId, request.endpointId);
        WEFT_ASSIGN(const CreateEndpointReply reply, api.driver_.createEndpoint(request));
        return encode(reply);
    }

    static Reply deleteEndpoint(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const EndpointKey key, decodeEndpointKey(call.body));
        call.about(key.networkId, key.endpointId);
        return empty(api.driver_.deleteEndpoint(key.networkId, key.endpointId));
    }

    // The engine throws away what it cannot decode to its own Go types: all there could be (libnetwork#2451).
    static Reply endpointOperInfo(PluginApi&, Call& call) {
        WEFT_ASSIGN(const EndpointKey key, decodeEndpointKey(call.body));
        call.about(key.networkId, key.endpointId);
        return std::string(R"({"Value":{}})");
    }

    static Reply join(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const JoinRequest request, decodeJoin(call.body));
        call.about(request.networkId, request.endpointId);
        WEFT_ASSIGN(const JoinReply reply, api.driver_.join(request));
        return encode(reply);
    }

    static Reply leave(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const EndpointKey key, decodeEndpointKey(call.body));
        call.about(key.networkId, key.endpointId);
        return empty(api.driver_.leave(key.networkId, key.endpointId));
    }

    static Reply programExternalConnectivity(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const ProgramExternalConnectivityRequest request, decodeProgramExternalConnectivity(call.body));
        call.about(request.networkId, request.endpointId);
        if (!request.ports.bindings.empty()) call.with("ports", fmt::format("{}", request.ports.bindings.size()));
        return empty(api.ports_->programExternalConnectivity(request));
    }

    static Reply revokeExternalConnectivity(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const EndpointKey key, decodeEndpointKey(call.body));
        call.about(key.networkId, key.endpointId);
        return empty(api.ports_->revokeExternalConnectivity(key.networkId, key.endpointId));
    }

    // No replay: weft keeps its leases itself, and no MAC is needed to choose an address.
    static Reply ipamCapabilities(PluginApi&, Call&) {
        return std::string(R"({"RequiresMACAddress":false,"RequiresRequestReplay":false})");
    }

    static Reply defaultAddressSpaces(PluginApi& api, Call&) {
        const auto spaces = api.addresses_.addressSpaces();
        return fmt::format(R"({{"LocalDefaultAddressSpace":"{}","GlobalDefaultAddressSpace":"{}"}})", spaces.local,
                           spaces.global);
    }

    static Reply requestPool(PluginApi& api, Call& call) {
        WEFT_ASSIGN(ipam::PoolRequest request, decodePoolRequest(call.body));
        request.onHostNetwork = api.traits_.onHostNetwork;
        WEFT_ASSIGN(const ipam::PoolReply reply, api.addresses_.requestPool(request));
        call.with("pool", reply.pool.str());
        return encode(reply);
    }

    static Reply releasePool(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const ipam::PoolId poolId, decodePoolId(call.body));
        call.with("pool", poolId.str());
        return empty(api.addresses_.releasePool(poolId));
    }

    static Reply requestAddress(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const ipam::AddressRequest request, decodeAddressRequest(call.body));
        call.with("pool", request.poolId.str());
        WEFT_ASSIGN(const IpPrefix address, api.addresses_.requestAddress(request));
        call.with("address", address.address().str());
        return encodeAddress(address);
    }

    static Reply releaseAddress(PluginApi& api, Call& call) {
        WEFT_ASSIGN(const ReleaseAddressRequest request, decodeReleaseAddress(call.body));
        call.with("pool", request.poolId.str());
        call.with("address", request.address.str());
        return empty(api.addresses_.releaseAddress(request.poolId, request.address));
    }

    struct Method {
        std::string_view name;
        Reply (*run)(PluginApi&, Call&);
        bool publishesPorts = false;
    };
    static const std::array<Method, 22> kAll;

    static const Method* find(const PluginApi& api, std::string_view name) {
        for (const Method& method : kAll) {
            if (method.name == name) return method.publishesPorts && api.ports_ == nullptr ? nullptr : &method;
        }
        return nullptr;
    }
};

const std::array<PluginApi::Methods::Method, 22> PluginApi::Methods::kAll{{
    {"Plugin.Activate", activate},
    {"NetworkDriver.GetCapabilities", getCapabilities},
    {"NetworkDriver.GwAllocCheck", gwAllocCheck},
    {"NetworkDriver.AllocateNetwork", allocateNetwork},
    {"NetworkDriver.FreeNetwork", freeNetwork},
    {"NetworkDriver.CreateNetwork", createNetwork},
    {"NetworkDriver.DeleteNetwork", deleteNetwork},
    {"NetworkDriver.CreateEndpoint", createEndpoint},
    {"NetworkDriver.DeleteEndpoint", deleteEndpoint},
    {"NetworkDriver.EndpointOperInfo", endpointOperInfo},
    {"NetworkDriver.Join", join},
    {"NetworkDriver.Leave", leave},
    {"NetworkDriver.ProgramExternalConnectivity", programExternalConnectivity, true},
    {"NetworkDriver.RevokeExternalConnectivity", revokeExternalConnectivity, true},
    {"NetworkDriver.DiscoverNew", discoverNew},
    {"NetworkDriver.DiscoverDelete", discoverDelete},
    {"IpamDriver.GetCapabilities", ipamCapabilities},
    {"IpamDriver.GetDefaultAddressSpaces", defaultAddressSpaces},
    {"IpamDriver.RequestPool", requestPool},
    {"IpamDriver.ReleasePool", releasePool},
    {"IpamDriver.RequestAddress", requestAddress},
    {"IpamDriver.ReleaseAddress", releaseAddress},
}};

PluginApi::PluginApi(std::string name, NetworkDriver& driver, ipam::AddressManager& addresses, Metrics& metrics,
                     const Clock& clock, PluginTraits traits)
    : name_(std::move(name)),
      driver_(driver),
      ports_(dynamic_cast<ExternalConnectivity*>(&driver)),
      allocation_(dynamic_cast<SwarmAllocation*>(&driver)),
      addresses_(addresses),
      metrics_(metrics),
      clock_(clock),
      traits_(std::move(traits)) {}

HttpResponse PluginApi::handle(const HttpRequest& request) {
    const std::string_view path = request.path;
    const std::string_view name = path.substr(path.starts_with('/') ? 1 : 0);
    const Methods::Method* method = request.method == "POST" ? Methods::find(*this, name) : nullptr;
    if (method == nullptr) {
        // A 404 is what tells the engine that a driver cannot publish ports; never a 500 here.
        logDebug("call driver={} method={} result=unknown", name_, logValue(name));
        metrics_.counter("weft_unknown_calls_total", "Requests for methods weft does not have.", {{"driver", name_}})
            .add();
        return {404, encodeError(fmt::format("{}: unknown method {} {}", name_, request.method, path)), kPluginType};
    }

    Call call;
    call.body = request.body;
    const auto start = clock_.now();
    const Reply reply = method->run(*this, call);
    const auto took = clock_.now() - start;
    const double seconds = std::chrono::duration<double>(took).count();
    const std::string_view result = reply ? "ok" : toString(reply.error().code);

    metrics_
        .counter("weft_calls_total", "Plugin calls by driver, method and result.",
                 {{"driver", name_}, {"method", std::string(name)}, {"result", std::string(result)}})
        .add();
    metrics_
        .histogram("weft_call_duration_seconds", "Time weft took for plugin calls.",
                   {{"driver", name_}, {"method", std::string(name)}})
        .observe(seconds);
    if (!reply && reply.error().sysErrno != 0) {
        metrics_
            .counter("weft_kernel_errors_total", "Plugin calls that the kernel refused, by errno.",
                     {{"errno", errnoName(reply.error().sysErrno)}})
            .add();
    }

    const LogLevel level = took >= kSlowCall || !reply ? LogLevel::Warn : LogLevel::Info;
    if (logEnabled(level)) {
        std::string line = fmt::format("call driver={} method={}", name_, name);
        const auto out = std::back_inserter(line);
        if (!call.networkId.empty()) fmt::format_to(out, " network={}", logValue(call.networkId.brief()));
        if (!call.endpointId.empty()) fmt::format_to(out, " endpoint={}", logValue(call.endpointId.brief()));
        fmt::format_to(out, "{} duration_ms={:.2f} result={}", call.detail, seconds * 1e3, result);
        if (!reply) fmt::format_to(out, " err={}", logValue(reply.error().message));
        if (took >= kSlowCall) line += " slow=true";
        logLine(level, line);
    }
    if (!reply) return {500, encodeError(reply.error().message), kPluginType};
    return {200, *reply, kPluginType};
}

}  // namespace weft::driver
