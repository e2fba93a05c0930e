#include "driver/network_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "drivers/bridge/bridge_options.h"
#include "kv/row.h"

namespace weft::driver {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::pair<HostState, std::string_view>, 8> kStates{{{HostState::Draft, "draft"},
                                                                         {HostState::Ready, "ready"},
                                                                         {HostState::Elsewhere, "elsewhere"},
                                                                         {HostState::Waiting, "waiting"},
                                                                         {HostState::Failed, "failed"},
                                                                         {HostState::ByHand, "by hand"},
                                                                         {HostState::InUse, "in use"},
                                                                         {HostState::Removed, "removed"}}};
// Room in a row for what a host says of itself.
constexpr size_t kMaxDetail = 160;

Error invalid(std::string message) {
    return makeError(ErrorCode::InvalidArgument, std::move(message));
}

template <typename T>
std::vector<std::string> texts(const std::vector<T>& values) {
    std::vector<std::string> out;
    for (const T& value : values) out.push_back(value.str());
    return out;
}

template <typename T>
Result<std::vector<T>> parseAll(const Json& json, const char* field) {
    std::vector<T> values;
    for (const auto& text : json.value(field, std::vector<std::string>())) {
        auto value = T::parse(text);
        if (!value) return value.error().within(field);
        values.push_back(*value);
    }
    return values;
}

// As Docker's: a letter or digit, then these; a slash would end up in another row.
Result<void> checkName(const std::string& name) {
    const auto plain = [](unsigned char c) { return std::isalnum(c) != 0; };
    const bool good = name.size() >= 2 && plain(static_cast<unsigned char>(name[0])) &&
                      std::all_of(name.begin(), name.end(),
                                  [&](unsigned char c) { return plain(c) || c == '_' || c == '.' || c == '-'; });
    if (good) return {};
    return invalid(fmt::format("\"{}\": a network's name is two or more letters, digits, _ . or -", name));
}

// What belongs to each subnet, as the drivers take it.
Result<IpamData> ipamOf(const NetworkSpec& spec, const IpPrefix& subnet) {
    IpamData data;
    data.pool = subnet;
    for (const IpAddress& gateway : spec.gateways) {
        if (!subnet.contains(gateway)) continue;
        if (data.gateway) return invalid(fmt::format("subnet {} has two gateways", subnet.str()));
        data.gateway = IpPrefix(gateway, subnet.length());
    }
    for (const auto& [name, address] : spec.auxAddresses) {
        if (subnet.contains(address)) data.auxAddresses.emplace(name, IpPrefix(address, subnet.length()));
    }
    return data;
}

// What the overlay driver would refuse on every host is better said before any has begun.
Result<void> check(const NetworkSpec& spec) {
    WEFT_TRY(checkName(spec.name));
    if (spec.subnets.empty()) return invalid("a network for all hosts needs its subnet: --subnet 10.32.0.0/16");
    const auto inside = [&spec](const auto& what) {
        return std::any_of(spec.subnets.begin(), spec.subnets.end(),
                           [&what](const IpPrefix& subnet) { return subnet.contains(what); });
    };
    const auto outside = [](const auto& what) { return invalid(what.str() + " is in none of the subnets"); };
    for (const IpAddress& gateway : spec.gateways) {
        if (!inside(gateway)) return outside(gateway);
    }
    for (const IpPrefix& range : spec.ranges) {
        if (!inside(range)) return outside(range);
    }
    for (const auto& [name, address] : spec.auxAddresses) {
        if (!inside(address)) return outside(address);
    }

    CreateNetworkRequest request;
    request.options = spec.options;
    if (!request.options.emplace("weft.network", spec.name).second) {
        return invalid("weft.network is the network's own name; leave that option out");
    }
    request.internal = spec.internal;
    request.enableIpv6 = spec.ipv6;
    request.enableIpv4 = false;
    for (const IpPrefix& subnet : spec.subnets) {
        if (subnet.network() != subnet) {
            return invalid(fmt::format("subnet {}: host bits are set; write {}", subnet.str(), subnet.network().str()));
        }
        WEFT_ASSIGN(IpamData data, ipamOf(spec, subnet));
        const bool v4 = subnet.family() == IpFamily::V4;
        if (v4) request.enableIpv4 = true;
        if (!v4 && !spec.ipv6) return invalid(fmt::format("subnet {} needs --ipv6", subnet.str()));
        (v4 ? request.ipv4 : request.ipv6).push_back(std::move(data));
    }
    if (!request.enableIpv4) return invalid("engines need an IPv4 subnet too: --subnet 10.32.0.0/16");
    if (spec.ipv6 && request.ipv6.empty()) return invalid("--ipv6 needs its subnet: --subnet fd32::/64");
    WEFT_TRY(bridgeSubnets(request));
    WEFT_TRY(parseBridgeOptions(request, true));
    return {};
}

Result<NetworkSpec> readSpec(const Json& json) {
    NetworkSpec spec;
    spec.name = json.at("name").get<std::string>();
    WEFT_ASSIGN(spec.subnets, parseAll<IpPrefix>(json, "subnets"));
    WEFT_ASSIGN(spec.ranges, parseAll<IpPrefix>(json, "ranges"));
    WEFT_ASSIGN(spec.gateways, parseAll<IpAddress>(json, "gateways"));
    for (const auto& [name, text] : json.value("auxAddresses", std::map<std::string, std::string>())) {
        WEFT_ASSIGN(const IpAddress address, IpAddress::parse(text));
        spec.auxAddresses.emplace(name, address);
    }
    spec.ipv6 = json.value("ipv6", false);
    spec.internal = json.value("internal", false);
    spec.options = json.value("options", spec.options);
    spec.labels = json.value("labels", spec.labels);
    spec.hosts = json.value("hosts", "");
    WEFT_TRY(check(spec));
    return spec;
}

Json rowJson(const NetworkRow& row) {
    Json json{{"stamp", row.stamp}, {"state", toString(row.state)}};
    if (row.spec) json["spec"] = toJson(*row.spec);
    if (row.force) json["force"] = true;
    if (!row.detail.empty()) json["detail"] = row.detail;
    return json;
}

}  // namespace

std::string_view toString(HostState state) {
    const auto* found =
        std::find_if(kStates.begin(), kStates.end(), [state](const auto& entry) { return entry.first == state; });
    return found->second;
}

Json toJson(const NetworkSpec& spec) {
    Json json{{"name", spec.name}, {"subnets", texts(spec.subnets)}};
    const auto add = [&json](const char* field, auto value) {
        if (!value.empty()) json[field] = std::move(value);
    };
    add("ranges", texts(spec.ranges));
    add("gateways", texts(spec.gateways));
    for (const auto& [name, address] : spec.auxAddresses) json["auxAddresses"][name] = address.str();
    if (spec.ipv6) json["ipv6"] = true;
    if (spec.internal) json["internal"] = true;
    add("options", spec.options);
    add("labels", spec.labels);
    add("hosts", spec.hosts);
    return json;
}

Result<NetworkSpec> parseNetworkSpec(const Json& json) {
    try {
        return readSpec(json);
    } catch (const Json::exception& error) {
        return invalid(fmt::format("a network's description: {}", error.what()));
    }
}

Json engineRequest(const NetworkSpec& spec, uint64_t stamp) {
    Json config = Json::array();
    for (const IpPrefix& subnet : spec.subnets) {
        Json entry{{"Subnet", subnet.str()}};
        for (const IpPrefix& range : spec.ranges) {
            if (subnet.contains(range)) entry["IPRange"] = range.str();
        }
        for (const IpAddress& gateway : spec.gateways) {
            if (subnet.contains(gateway)) entry["Gateway"] = gateway.str();
        }
        for (const auto& [name, address] : spec.auxAddresses) {
            if (subnet.contains(address)) entry["AuxiliaryAddresses"][name] = address.str();
        }
        config.push_back(std::move(entry));
    }
    auto options = spec.options;
    options.emplace("weft.network", spec.name);
    auto labels = spec.labels;
    labels[kStampLabel] = std::to_string(stamp);
    return {{"Name", spec.name},
            {"CheckDuplicate", true},
            {"Driver", "weft-overlay"},
            {"Internal", spec.internal},
            {"EnableIPv6", spec.ipv6},
            {"IPAM", {{"Driver", "weft-overlay"}, {"Options", Json::object()}, {"Config", std::move(config)}}},
            {"Options", std::move(options)},
            {"Labels", std::move(labels)}};
}

Result<std::string> encode(const std::string& name, NetworkRow row) {
    if (row.detail.size() > kMaxDetail) row.detail = row.detail.substr(0, kMaxDetail - 3) + "...";
    const std::string key = std::string(kSharedNetworkPrefix) + name;
    std::string value = rowJson(row).dump(-1, ' ', false, Json::error_handler_t::replace);
    const size_t spare = kMaxDetail - row.detail.size();
    if (kv::withinLimits(key, value + std::string(spare, ' '))) return value;
    return invalid(
        fmt::format("network {} has too many subnets, options or labels: they take {} bytes, and {} are "
                    "the most",
                    name, value.size(), kv::kMaxRowBytes - key.size() - spare));
}

Result<NetworkRow> decodeNetworkRow(std::string_view value) {
    const auto corrupt = [](const std::string& why) {
        return makeError(ErrorCode::Corrupt, "malformed row of a network: " + why);
    };
    try {
        const Json json = Json::parse(value);
        NetworkRow row;
        const auto stamp = json.at("stamp").get<int64_t>();
        if (stamp < 0) return corrupt("stamp");
        row.stamp = static_cast<uint64_t>(stamp);
        if (json.contains("spec")) {
            auto spec = parseNetworkSpec(json["spec"]);
            if (!spec) return corrupt(spec.error().message);
            row.spec = *std::move(spec);
        }
        row.force = json.value("force", false);
        const auto state = json.at("state").get<std::string>();
        const auto* known =
            std::find_if(kStates.begin(), kStates.end(), [&](const auto& entry) { return entry.second == state; });
        if (known == kStates.end()) return corrupt("state " + state);
        row.state = known->first;
        row.detail = json.value("detail", "");
        return row;
    } catch (const Json::exception& error) {
        return corrupt(error.what());
    }
}

const NetworkRow* truthOf(const std::vector<NetworkRow>& rows, Clock::Wall now) {
    // The spec decides between two of one millisecond, only so that all hosts agree.
    const auto rank = [](const NetworkRow& row) {
        return std::tuple(row.stamp, row.force, row.spec ? toJson(*row.spec).dump() : std::string());
    };
    const auto oldest = std::chrono::duration_cast<std::chrono::milliseconds>((now - kRemovalKept).time_since_epoch());
    const NetworkRow* best = nullptr;
    bool obeyed = true;
    for (const NetworkRow& row : rows) {
        if (row.state == HostState::Draft) continue;
        if (best == nullptr || rank(*best) < rank(row)) best = &row;
        const auto pending = {HostState::Waiting, HostState::Failed, HostState::InUse};
        obeyed = obeyed && !row.spec && std::find(pending.begin(), pending.end(), row.state) == pending.end();
    }
    // A removal is not forgotten by its stamp alone: it may be from a host whose clock is behind.
    return obeyed && best != nullptr && std::cmp_less(best->stamp, oldest.count()) ? nullptr : best;
}

NetworkPlan plan(const NetworkRow& truth, const std::vector<std::string>& hostLabels,
                 const std::optional<EngineNetwork>& found) {
    const bool meant = truth.spec && (truth.spec->hosts.empty() || std::find(hostLabels.begin(), hostLabels.end(),
                                                                             truth.spec->hosts) != hostLabels.end());
    if (!meant) {
        const HostState then = truth.spec ? HostState::Elsewhere : HostState::Removed;
        return {found && found->stamp ? NetworkStep::Remove : NetworkStep::None, then};
    }
    if (!found) return {NetworkStep::Make, HostState::Ready};
    if (!found->stamp) return {NetworkStep::None, HostState::ByHand};
    return {found->stamp == truth.stamp ? NetworkStep::None : NetworkStep::Replace, HostState::Ready};
}

}  // namespace weft::driver
