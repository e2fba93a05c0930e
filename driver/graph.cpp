#include "driver/graph.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "drivers/overlay/overlay_names.h"
#include "drivers/overlay/overlay_rows.h"

namespace weft::driver {
namespace {

using nlohmann::json;

struct Heard {
    std::vector<kv::Member> members;
    Clock::Monotonic now;
    std::vector<kv::Row> rows;   // under kOverlayPrefix
    std::vector<kv::Row> names;  // under kNamesPrefix
};

// Keys of both kinds of row end with NETWORK/ENDPOINT.
using RowOfEndpoint = std::pair<kv::NodeId, std::string>;

json hostsOf(const Heard& heard, const kv::NodeId& self, const TunnelReport& tunnels) {
    json list = json::array();
    std::map<kv::NodeId, const TunnelHealth*> ways;
    for (const TunnelHealth& tunnel : tunnels.tunnels) ways[tunnel.id] = &tunnel;
    for (const kv::Member& member : heard.members) {
        const auto since = std::chrono::duration_cast<std::chrono::seconds>(heard.now - member.since);
        const auto way = ways.find(member.id);
        list.push_back({{"name", member.record.name},
                        {"address", member.record.address.ip.str()},
                        {"state", kv::toString(member.state)},
                        {"self", member.id == self},
                        {"sinceSeconds", since.count()},
                        {"tunnel", way == ways.end() ? "" : toString(way->second->state)},
                        {"tunnelFound", way == ways.end() ? "" : way->second->detail}});
    }
    return list;
}

json addressesOf(const EndpointRow& row) {
    json list = json::array();
    if (row.v4) list.push_back(row.v4->str());
    if (row.v6) list.push_back(row.v6->str());
    return list;
}

json subnetsOf(const NetworkClaim& claim) {
    json list = json::array();
    for (const IpPrefix& gateway : claim.gateways) list.push_back(gateway.network().str());
    return list;
}

}  // namespace

Result<json> clusterGraph(kv::Service& gossip, const std::vector<OverlayStatus>& overlay, const TunnelReport& tunnels) {
    // What runs there owns what it touches: it may run after a timeout.
    const auto heard = std::make_shared<Heard>();
    WEFT_TRY(gossip.call([heard](kv::Node& node) {
        heard->members = node.roster();
        heard->now = node.now();
        heard->rows = node.table().list(std::string(kOverlayPrefix));
        heard->names = node.table().list(std::string(kNamesPrefix));
    }));
    std::sort(heard->members.begin(), heard->members.end(),
              [](const kv::Member& a, const kv::Member& b) { return a.record.name < b.record.name; });
    std::map<kv::NodeId, std::string> hostNames;
    for (const kv::Member& member : heard->members) hostNames[member.id] = member.record.name;
    std::map<RowOfEndpoint, std::string> names;
    for (const kv::Row& row : heard->names) {
        const auto told = decodeNames(row.value);
        if (told && !told->names.empty()) names[{row.owner, row.key.substr(kNamesPrefix.size())}] = told->names.front();
    }

    std::map<std::string, json> networks;
    const auto networkOf = [&networks](const std::string& name) -> json& {
        json& network = networks[name];
        if (network.is_null()) {
            network = {{"name", name}, {"vni", 0}, {"subnets", json::array()}, {"conflict", ""}};
            network["endpoints"] = json::array();
        }
        return network;
    };
    for (const kv::Row& row : heard->rows) {
        const auto key = parseOverlayKey(row.key);
        if (!key) continue;
        json& network = networkOf(key->network);
        if (!key->endpoint) {
            const auto claim = decodeClaim(row.value);
            if (!claim) continue;
            network["vni"] = claim->vni;
            network["subnets"] = subnetsOf(*claim);
            continue;
        }
        const auto endpoint = decodeEndpoint(row.value);
        if (!endpoint) continue;
        const auto name = names.find({row.owner, key->network + "/" + key->endpoint->str()});
        network["endpoints"].push_back({{"host", hostNames[row.owner]},
                                        {"name", name == names.end() ? key->endpoint->brief() : name->second},
                                        {"addresses", addressesOf(*endpoint)}});
    }
    for (const OverlayStatus& status : overlay) {
        json& network = networkOf(status.name);
        network["vni"] = status.vni;
        network["conflict"] = status.conflict;
    }

    json list = json::array();
    for (auto& [name, network] : networks) {
        json& endpoints = network["endpoints"];
        std::sort(endpoints.begin(), endpoints.end(), [](const json& a, const json& b) {
            return std::pair(a.at("host"), a.at("name")) < std::pair(b.at("host"), b.at("name"));
        });
        list.push_back(std::move(network));
    }
    return json{
        {"cluster", gossip.cluster()}, {"hosts", hostsOf(*heard, gossip.id(), tunnels)}, {"networks", std::move(list)}};
}

}  // namespace weft::driver
