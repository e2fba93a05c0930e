#include "driver/graph.h"

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "drivers/overlay/overlay_names.h"
#include "drivers/overlay/overlay_rows.h"

namespace weft::driver {
namespace {

using nlohmann::json;

// Copied in one turn of the store's thread: well under a millisecond.
constexpr size_t kRowsAtOnce = 500;

struct Shown {
    std::string host;
    std::string name;
    std::optional<IpAddress> v4;
    std::optional<IpAddress> v6;
};

struct ShownNetwork {
    uint32_t vni = 0;
    std::vector<IpPrefix> subnets{};
    std::vector<Shown> endpoints{};
};

// Keys of both kinds of row end with NETWORK/ENDPOINT.
using RowOfEndpoint = std::pair<kv::NodeId, std::string>;

std::string quoted(const std::string& text) {
    return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string listed(const auto& values) {
    std::string text = "[";
    for (const auto& value : values) text += (text.size() == 1 ? "" : ",") + quoted(value.str());
    return text + "]";
}

Result<void> eachRow(kv::Service& gossip, std::string_view prefix, const std::function<void(const kv::Row&)>& visit) {
    // What runs there owns what it touches: it may run after a timeout.
    struct Piece {
        std::optional<kv::Table::Place> place;
        std::vector<kv::Row> rows;
    };
    std::optional<kv::Table::Place> place;
    do {
        const auto piece = std::make_shared<Piece>();
        piece->place = std::move(place);
        WEFT_TRY(gossip.call([piece, prefix](kv::Node& node) {
            piece->place = node.table().scan(prefix, piece->place, kRowsAtOnce, [&piece](const kv::Row& row) {
                piece->rows.push_back({.owner = row.owner, .key = row.key, .value = row.value});
            });
        }));
        for (const kv::Row& row : piece->rows) visit(row);
        place = std::move(piece->place);
    } while (place);
    return {};
}

}  // namespace

struct ClusterGraph::Picture {
    std::vector<kv::Member> members;  // by name
    Clock::Monotonic now;
    std::map<std::string, ShownNetwork> networks;
};

namespace {

json hostsOf(const std::vector<kv::Member>& members, Clock::Monotonic now, const kv::NodeId& self,
             const TunnelReport& tunnels, const std::map<kv::NodeId, OverlayView::KnownHost>& known) {
    json list = json::array();
    std::map<kv::NodeId, const TunnelHealth*> ways;
    for (const TunnelHealth& tunnel : tunnels.tunnels) ways[tunnel.id] = &tunnel;
    for (const kv::Member& member : members) {
        const auto since = std::chrono::duration_cast<std::chrono::seconds>(now - member.since);
        const auto way = ways.find(member.id);
        list.push_back({{"name", member.record.name},
                        {"address", member.record.address.ip.str()},
                        {"state", kv::toString(member.state)},
                        {"presence", presenceOf(member, known)},
                        {"self", member.id == self},
                        {"sinceSeconds", since.count()},
                        {"tunnel", way == ways.end() ? "" : toString(way->second->state)},
                        {"tunnelFound", way == ways.end() ? "" : way->second->detail}});
    }
    return list;
}

void appendEndpoint(std::string& text, const Shown& endpoint) {
    text += R"({"host":)" + quoted(endpoint.host) + R"(,"name":)" + quoted(endpoint.name) + R"(,"addresses":[)";
    if (endpoint.v4) text += '"' + endpoint.v4->str() + '"';
    if (endpoint.v4 && endpoint.v6) text += ',';
    if (endpoint.v6) text += '"' + endpoint.v6->str() + '"';
    text += "]}";
}

}  // namespace

std::string_view presenceOf(const kv::Member& member, const std::map<kv::NodeId, OverlayView::KnownHost>& known) {
    if (!member.gone()) return toString(Presence::Here);
    const auto host = known.find(member.id);
    return toString(host == known.end() ? Presence::HostAway : host->second.presence);
}

ClusterGraph::ClusterGraph(kv::Service& gossip) : gossip_(gossip) {}
ClusterGraph::~ClusterGraph() = default;

Result<std::shared_ptr<const ClusterGraph::Picture>> ClusterGraph::picture() {
    const std::lock_guard lock(mutex_);
    if (last_ && std::chrono::steady_clock::now() - looked_ < kFresh) return last_;
    last_.reset();
    const auto made = std::make_shared<Picture>();
    WEFT_TRY(gossip_.call([made](kv::Node& node) {
        made->members = node.roster();
        made->now = node.now();
    }));
    std::sort(made->members.begin(), made->members.end(),
              [](const kv::Member& a, const kv::Member& b) { return a.record.name < b.record.name; });
    std::map<kv::NodeId, std::string> hosts;
    for (const kv::Member& member : made->members) hosts[member.id] = member.record.name;
    std::map<RowOfEndpoint, std::string> names;
    WEFT_TRY(eachRow(gossip_, kNamesPrefix, [&names](const kv::Row& row) {
        const auto told = decodeNames(row.value);
        if (told && !told->names.empty()) names[{row.owner, row.key.substr(kNamesPrefix.size())}] = told->names.front();
    }));
    WEFT_TRY(eachRow(gossip_, kOverlayPrefix, [&](const kv::Row& row) {
        const auto key = parseOverlayKey(row.key);
        if (!key) return;
        ShownNetwork& network = made->networks[key->network];
        if (!key->endpoint) {
            const auto claim = decodeClaim(row.value);
            if (!claim) return;
            network.vni = claim->vni;
            network.subnets.clear();
            for (const IpPrefix& gateway : claim->gateways) network.subnets.push_back(gateway.network());
            return;
        }
        const auto endpoint = decodeEndpoint(row.value);
        if (!endpoint) return;
        const auto name = names.find({row.owner, key->network + "/" + key->endpoint->str()});
        const auto host = hosts.find(row.owner);
        network.endpoints.push_back({host == hosts.end() ? "" : host->second,
                                     name == names.end() ? key->endpoint->brief() : name->second, endpoint->v4,
                                     endpoint->v6});
    }));
    for (auto& [name, network] : made->networks) {
        std::sort(network.endpoints.begin(), network.endpoints.end(),
                  [](const Shown& a, const Shown& b) { return std::tie(a.host, a.name) < std::tie(b.host, b.name); });
    }
    looked_ = std::chrono::steady_clock::now();
    last_ = made;
    return last_;
}

Result<std::string> ClusterGraph::text(const std::vector<OverlayStatus>& overlay, const TunnelReport& tunnels,
                                       const std::map<kv::NodeId, OverlayView::KnownHost>& known, size_t most) {
    WEFT_ASSIGN(const auto seen, picture());
    std::map<std::string, const OverlayStatus*> own;
    std::set<std::string> names;
    for (const auto& [name, network] : seen->networks) names.insert(name);
    for (const OverlayStatus& status : overlay) {
        own[status.name] = &status;
        names.insert(status.name);
    }
    static const ShownNetwork kNothing;
    std::string networks;
    for (const std::string& name : names) {
        const auto heard = seen->networks.find(name);
        const ShownNetwork& network = heard == seen->networks.end() ? kNothing : heard->second;
        const auto status = own.find(name);
        if (!networks.empty()) networks += ',';
        networks += R"({"name":)" + quoted(name) + R"(,"vni":)" +
                    std::to_string(status == own.end() ? network.vni : status->second->vni) + R"(,"subnets":)" +
                    listed(network.subnets) + R"(,"conflict":)" +
                    quoted(status == own.end() ? "" : status->second->conflict) + R"(,"containers":)" +
                    std::to_string(network.endpoints.size()) + R"(,"endpoints":[)";
        const size_t count = std::min(most, network.endpoints.size());
        for (size_t i = 0; i < count; ++i) {
            if (i != 0) networks += ',';
            appendEndpoint(networks, network.endpoints[i]);
        }
        networks += "]}";
    }
    const json hosts = hostsOf(seen->members, seen->now, gossip_.id(), tunnels, known);
    return R"({"cluster":)" + quoted(gossip_.cluster()) + R"(,"hosts":)" +
           hosts.dump(-1, ' ', false, json::error_handler_t::replace) + R"(,"networks":[)" + networks + "]}";
}

}  // namespace weft::driver
