#include "ctl/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "ctl/table.h"

namespace weft::ctl {
namespace {

using Json = nlohmann::json;
using Pairs = std::map<std::string, std::string>;

Pairs split(const std::vector<std::string>& words) {
    Pairs pairs;
    for (const std::string& word : words) {
        const size_t equals = word.find('=');
        pairs[word.substr(0, equals)] = equals == std::string::npos ? "" : word.substr(equals + 1);
    }
    return pairs;
}

}  // namespace

Result<std::string> networkBody(const NetworkFlags& flags) {
    Json body{{"name", flags.name}, {"subnets", flags.subnets}, {"ranges", flags.ranges}, {"gateways", flags.gateways}};
    for (const std::string& word : flags.auxAddresses) {
        if (word.find('=') != std::string::npos) continue;
        return makeError(ErrorCode::InvalidArgument,
                         fmt::format("--aux-address {0}: expected NAME=ADDRESS, such as printer={0}", word));
    }
    body["auxAddresses"] = split(flags.auxAddresses);
    body["options"] = split(flags.options);
    if (flags.mtu != 0) body["options"]["com.docker.network.driver.mtu"] = std::to_string(flags.mtu);
    body["labels"] = split(flags.labels);
    body["ipv6"] = flags.ipv6;
    body["internal"] = flags.internal;
    body["hosts"] = flags.hosts;
    return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::string> networkIn(std::string_view answer, const std::string& name) {
    const Json parsed = Json::parse(answer, nullptr, false);
    if (!parsed.is_object() || !parsed.contains("network")) {
        return makeError(ErrorCode::Corrupt, "weftd's answer has no networks");
    }
    for (const Json& network : parsed["network"]) {
        if (network.value("name", "") == name) return network.dump();
    }
    return makeError(ErrorCode::NotFound, fmt::format("no network {} was made by weftctl: weftctl network ls", name));
}

bool isSettled(std::string_view network) {
    const Json hosts = Json::parse(network).at("hosts");
    // One that waits says for what, once it has looked.
    return std::none_of(hosts.begin(), hosts.end(), [](const Json& host) {
        return host.at("state") == "waiting" && host.at("detail").get<std::string>().empty();
    });
}

Result<std::string> exported(std::string_view network) {
    const Json spec = Json::parse(network).at("spec");
    if (spec.is_null()) return makeError(ErrorCode::NotFound, "the network was removed");
    const auto name = spec.at("name").get<std::string>();
    std::string line = "docker network create -d weft-overlay --ipam-driver weft-overlay";
    const auto add = [&line](const std::string& flag, const std::string& value) {
        line += " " + flag + " " + shellWord(value);
    };
    const auto addAll = [&](const char* field, const char* flag) {
        for (const auto& value : spec.value(field, std::vector<std::string>())) add(flag, value);
    };
    const auto addPairs = [&](const char* field, const char* flag) {
        for (const auto& [key, value] : spec.value(field, Pairs())) add(flag, key + "=" + value);
    };
    addAll("subnets", "--subnet");
    addAll("ranges", "--ip-range");
    addAll("gateways", "--gateway");
    addPairs("auxAddresses", "--aux-address");
    if (spec.value("ipv6", false)) line += " --ipv6";
    if (spec.value("internal", false)) line += " --internal";
    add("-o", "weft.network=" + name);
    addPairs("options", "-o");
    addPairs("labels", "--label");
    return line + " " + name + "\n";
}

}  // namespace weft::ctl
