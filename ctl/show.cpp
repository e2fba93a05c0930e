#include "ctl/show.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "ctl/table.h"

namespace weft::ctl {
namespace {

using Json = nlohmann::json;

constexpr size_t kBrief = 12;  // of an id, as `docker ps` shows it

std::string text(const Json& object, const char* key) {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return "";
    return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string named(const std::map<std::string, std::string>& names, const std::string& id) {
    const auto found = names.find(id);
    return found == names.end() ? id.substr(0, kBrief) : found->second;
}

// Without a port: one of a routed network, open at the container itself.
std::string hostPort(const std::string& address, const std::string& port) {
    if (port == "0") return "";
    return address.find(':') == std::string::npos ? address + ":" + port : fmt::format("[{}]:{}", address, port);
}

std::string duration(const Json& value) {
    const auto seconds = value.get<int64_t>();
    if (seconds < 60) return fmt::format("{}s", seconds);
    if (seconds < 3600) return fmt::format("{}m{}s", seconds / 60, seconds % 60);
    if (seconds < 86400) return fmt::format("{}h{}m", seconds / 3600, seconds % 3600 / 60);
    return fmt::format("{}d{}h", seconds / 86400, seconds % 86400 / 3600);
}

// IPv6 pools hold more than anybody reads.
std::string amount(const Json& value) {
    const auto count = value.get<uint64_t>();
    return count >= 1'000'000'000 ? "> 1e9" : fmt::format("{}", count);
}

std::string joined(const Json& array) {
    std::string out;
    for (const Json& element : array) {
        if (!out.empty()) out += ", ";
        out += element.get<std::string>();
    }
    return out;
}

std::string rendered(const Table& table, std::string_view none, bool colour) {
    return table.empty() ? fmt::format("{}\n", none) : table.render(colour);
}

std::string showStatus(const Json& json, const Names& /*names*/, bool colour) {
    std::string out =
        fmt::format("weftd {} {}, pid {}, up {}\nfirewall   {}\nplugins    {}\nstate      {}\nlog level  {}\n\n",
                    text(json, "version"), toned("running", Tone::Good, colour), text(json, "pid"),
                    duration(json.at("uptimeSeconds")), text(json, "firewall"),
                    text(json, "pluginDir").empty() ? "one, managed by the engine" : text(json, "pluginDir"),
                    text(json, "stateDir"), text(json, "logLevel"));
    const std::string address = text(json, "address");
    std::string away;
    for (const auto& [key, what] : {std::pair("daemonsAway", "daemon away"), std::pair("hostsAway", "host away")}) {
        if (const int count = json.value(key, 0); count > 0) away += fmt::format(", {} {}", count, what);
    }
    out.insert(out.size() - 1,
               fmt::format("node       {}, {}\n", harmless(text(json, "node")),
                           address.empty() ? "a cluster of one"
                                           : fmt::format("cluster {}, at {}, {} of {} members alive{}",
                                                         harmless(text(json, "cluster")), address,
                                                         text(json, "membersAlive"), text(json, "members"), away)));
    for (const Json& warning : json.at("warnings")) {
        out.insert(out.size() - 1, fmt::format("{}    {}\n", toned("warning", Tone::Warning, colour),
                                               harmless(warning.get<std::string>())));
    }
    Table table({"DRIVER", ">NETWORKS", ">ENDPOINTS", ">PORTS"});
    for (const Json& mode : json.at("modes")) {
        table.add({text(mode, "driver"), text(mode, "networks"), text(mode, "endpoints"), text(mode, "ports")});
    }
    return out + table.render(colour);
}

std::string showNetworks(const Json& json, const Names& names, bool colour) {
    Table table({"NETWORK", "DRIVER", "LINK", "SUBNETS", ">MTU", ">ENDPOINTS", "INTERNAL", "SPOOF"});
    for (const Json& network : json.at("networks")) {
        table.add({named(names.networks, text(network, "id")), text(network, "driver"), text(network, "link"),
                   joined(network.at("subnets")), network.at("mtu") == 0 ? "" : text(network, "mtu"),
                   text(network, "endpoints"), std::string(network.at("internal").get<bool>() ? "yes" : "no"),
                   text(network, "spoof")});
    }
    return rendered(table, "no networks; make one with: docker network create -d weft-bridge NAME", colour);
}

std::string showEndpoints(const Json& json, const Names& names, bool colour) {
    Table table({"CONTAINER", "NETWORK", "ADDRESS", "ADDRESS V6", "MAC", "LINK", ">PORTS", ">DROPPED"});
    for (const Json& endpoint : json.at("endpoints")) {
        table.add({named(names.containers, text(endpoint, "id")), named(names.networks, text(endpoint, "network")),
                   text(endpoint, "address"), text(endpoint, "addressV6"), text(endpoint, "mac"),
                   text(endpoint, "link"), fmt::format("{}", endpoint.at("ports").size()), text(endpoint, "dropped")});
    }
    return rendered(table, "no endpoints", colour);
}

std::string showPorts(const Json& json, const Names& names, bool colour) {
    Table table({"HOST", "TARGET", "PROTOCOL", "CONTAINER", "NETWORK"});
    for (const Json& port : json.at("ports")) {
        table.add({hostPort(text(port, "hostIp"), text(port, "hostPort")),
                   hostPort(text(port, "containerIp"), text(port, "containerPort")), text(port, "protocol"),
                   named(names.containers, text(port, "endpoint")), named(names.networks, text(port, "network"))});
    }
    return rendered(table, "no published ports", colour);
}

std::string showPools(const Json& json, const Names& names, bool colour) {
    Table table({"POOL", "SUB-POOL", "NETWORK", ">USED", ">FREE", ">ENDPOINTS", "SPACE"});
    for (const Json& pool : json.at("pools")) {
        table.add({text(pool, "pool"), text(pool, "subPool"), named(names.networks, text(pool, "network")),
                   amount(pool.at("used")), amount(pool.at("free")), amount(pool.at("endpoints")),
                   text(pool, "addressSpace")});
    }
    return rendered(table, "no pools", colour);
}

std::string showLeases(const Json& json, const Names& names, bool colour) {
    Table table({"ADDRESS", "KIND", "CONTAINER", ">AGE", "POOL"});
    for (const Json& lease : json.at("leases")) {
        table.add({text(lease, "address"), text(lease, "kind"), named(names.containers, text(lease, "endpoint")),
                   duration(lease.at("ageSeconds")), text(lease, "pool")});
    }
    return rendered(table, "no leases", colour);
}

std::string showReconcile(const Json& json, const Names& /*names*/, bool colour) {
    Table table({"KIND", "OBJECT", "ACTION", "ERROR"});
    for (const Json& repair : json.at("repairs")) {
        const std::string error = text(repair, "error");
        table.add({text(repair, "kind"), text(repair, "object"), text(repair, "action"),
                   Cell(error, error.empty() ? Tone::Faint : Tone::Bad)});
    }
    const std::string out = rendered(table, "nothing to repair: the kernel is as weft's records say", colour);
    return out + (json.at("dryRun").get<bool>() && !table.empty() ? "nothing was changed\n" : "");
}

// Lines, not a table: a fix is there to be copied.
std::string showDoctor(const Json& json, const Names& /*names*/, bool colour) {
    std::string out;
    for (const Json& check : json.at("checks")) {
        const std::string health = text(check, "health");
        const bool good = health == "good";
        const bool bad = health == "bad";
        out += fmt::format("{} {}: {}\n",
                           toned(good  ? "ok  "
                                 : bad ? "fail"
                                       : "warn",
                                 good  ? Tone::Good
                                 : bad ? Tone::Bad
                                       : Tone::Warning,
                                 colour),
                           harmless(text(check, "name")), harmless(text(check, "found")));
        if (const std::string fix = text(check, "fix"); !fix.empty()) out += "     fix: " + harmless(fix) + "\n";
    }
    return out;
}

std::string showTrace(const Json& json, const Names& /*names*/, bool colour) {
    std::string out;
    int number = 0;
    for (const Json& step : json.at("steps")) {
        const std::string health = text(step, "health");
        const auto [word, tone] = health == "good"  ? std::pair("ok", Tone::Good)
                                  : health == "bad" ? std::pair("stop", Tone::Bad)
                                                    : std::pair("may", Tone::Warning);
        out += fmt::format("{:2} {} {}: {}\n", ++number, toned(fmt::format("{:4}", word), tone, colour),
                           harmless(text(step, "name")), harmless(text(step, "found")));
        if (const std::string fix = text(step, "fix"); !fix.empty()) out += "        fix: " + harmless(fix) + "\n";
    }
    return out;
}

std::string showLogLevel(const Json& json, const Names& /*names*/, bool /*colour*/) {
    return text(json, "level") + "\n";
}

std::string showVersion(const Json& json, const Names& /*names*/, bool /*colour*/) {
    return fmt::format("weftctl " WEFT_VERSION "\nweftd {}\n", text(json, "version"));
}

std::string showMembers(const Json& json, const Names& /*names*/, bool colour) {
    Table table({"NAME", "ADDRESS", "STATE", ">SINCE", "ID"});
    for (const Json& member : json.at("members")) {
        std::string state = text(member, "state");
        const std::string presence = member.value("presence", "");
        if (state == "dead" && !presence.empty()) state = presence;
        const Json& since = member.at("sinceSeconds");
        table.add({text(member, "name") + (member.at("self").get<bool>() ? " (here)" : ""), text(member, "address"),
                   Cell(state, state == "alive"                               ? Tone::Good
                               : state == "suspect" || state == "daemon away" ? Tone::Warning
                                                                              : Tone::Bad),
                   since.is_null() ? "long" : duration(since), text(member, "id").substr(0, 8)});
    }
    std::string out = fmt::format("cluster {}\n", harmless(text(json, "cluster")));
    if (json.at("alone").get<bool>()) out = "a cluster of one: weftd has no --key-file, so no host can join\n";
    return out + table.render(colour);
}

std::string showOverlay(const Json& json, const Names& names, bool colour) {
    Table table({"OVERLAY", "NETWORK", ">VNI", "OTHER HOSTS", ">HERE", ">REMOTE", "FAST PATH", ">DRIFT", "CONFLICT"});
    for (const Json& network : json.at("overlay")) {
        const std::string conflict = text(network, "conflict");
        table.add({text(network, "name"), named(names.networks, text(network, "id")), text(network, "vni"),
                   joined(network.at("hosts")), text(network, "localEndpoints"), text(network, "remoteEndpoints"),
                   std::string(network.at("fastPath").get<bool>() ? "yes" : "no"), text(network, "drift"),
                   Cell(conflict, Tone::Bad)});
    }
    const std::string blocks = text(json, "blocks");
    return rendered(table,
                    "no overlay networks; make one with: docker network create -d weft-overlay --ipam-driver "
                    "weft-overlay --subnet 10.32.0.0/16 -o weft.network=NAME NAME",
                    colour) +
           (blocks.empty() ? "" : "\n" + blocks + (blocks.ends_with('\n') ? "" : "\n"));
}

std::string showTunnels(const Json& json, const Names& /*names*/, bool colour) {
    Table table({"TUNNEL TO", "ADDRESS", "STATE", ">EXAMINED", "OFFLOAD", "FOUND"});
    for (const Json& tunnel : json.at("tunnels")) {
        const std::string state = text(tunnel, "state");
        const Json& examined = tunnel.at("examinedSecondsAgo");
        const bool offload = tunnel.at("checksumOffload").get<bool>();
        const bool well = state == "good" || state == "healed";
        table.add({text(tunnel, "host"), text(tunnel, "address"),
                   Cell(state, well                 ? Tone::Good
                               : state == "unknown" ? Tone::Plain
                                                    : Tone::Bad),
                   examined.is_null() ? "never" : duration(examined) + " ago",
                   Cell(offload ? "on" : "off", offload ? Tone::Plain : Tone::Warning), text(tunnel, "found")});
    }
    return rendered(table, "no other hosts", colour);
}

std::string showKeys(const Json& json, const Names& /*names*/, bool colour) {
    Table table({"KEY", "USE"});
    for (const Json& key : json.at("keys")) {
        table.add({text(key, "id"), std::string(key.at("primary").get<bool>() ? "seals and opens" : "opens")});
    }
    return rendered(table, "no keys: a cluster of one", colour);
}

std::string showRows(const Json& json, const Names& /*names*/, bool colour) {
    Table table({"KEY", "OWNER", "VALUE"});
    for (const Json& row : json.at("kv")) table.add({text(row, "key"), text(row, "owner"), text(row, "value")});
    return rendered(table, "no rows", colour);
}

std::string showPing(const Json& json, const Names& /*names*/, bool /*colour*/) {
    std::string out;
    for (const char* path : {"gossip", "underlay"}) {
        const Json& trips = json.at(path);
        out += fmt::format("{:9} {} {}: ", path, text(trips, "protocol"), text(trips, "address"));
        if (const std::string error = text(trips, "error"); !error.empty()) {
            out += error + "\n";
            continue;
        }
        out += fmt::format("{}/{} answered", text(trips, "answered"), text(trips, "sent"));
        if (trips.at("answered") != 0) {
            out += fmt::format(", {:.2f}/{:.2f}/{:.2f} ms (min/avg/max)", trips.at("minMs").get<double>(),
                               trips.at("avgMs").get<double>(), trips.at("maxMs").get<double>());
        }
        out += "\n";
    }
    if (json.contains("mtu")) {
        out += fmt::format("MTU       {}, so overlay networks carry {}\n", text(json, "mtu"), text(json, "overlayMtu"));
    }
    return out;
}

std::string showForgotten(const Json& json, const Names& /*names*/, bool /*colour*/) {
    return harmless(text(json, "done")) + "\n";
}

Tone toneOf(const std::string& hostState) {
    if (hostState == "ready" || hostState == "removed") return Tone::Good;
    if (hostState == "elsewhere" || hostState == "away") return Tone::Faint;
    return hostState == "waiting" ? Tone::Warning : Tone::Bad;
}

// "2 of 3 hosts, 1 away"
std::string hostsOf(const Json& network) {
    size_t ready = 0;
    size_t away = 0;
    size_t meant = 0;
    for (const Json& host : network.at("hosts")) {
        const std::string state = text(host, "state");
        if (state == "ready") ++ready;
        if (state == "away") ++away;
        if (state != "elsewhere") ++meant;
    }
    return fmt::format("{} of {}", ready, meant) + (away == 0 ? "" : fmt::format(", {} away", away));
}

std::string showSharedNetworks(const Json& json, const Names& /*names*/, bool colour) {
    Table table({"NETWORK", "SUBNETS", "READY ON", "ONLY HOSTS", "STATE"});
    for (const Json& network : json.at("network")) {
        const Json& spec = network.at("spec");
        const bool removed = spec.is_null();
        std::string state = removed ? "being removed" : "";
        for (const Json& host : network.at("hosts")) {
            if (toneOf(text(host, "state")) == Tone::Bad) {
                state += fmt::format("{}{} on {}", state.empty() ? "" : ", ", text(host, "state"), text(host, "host"));
            }
        }
        table.add({text(network, "name"), removed ? "" : joined(spec.at("subnets")), hostsOf(network),
                   removed ? "" : text(spec, "hosts"), Cell(state, Tone::Bad)});
    }
    return rendered(table, "no networks of all hosts; make one with: weftctl network create NAME --subnet 10.32.0.0/16",
                    colour);
}

std::string showSharedNetwork(const Json& json, const Names& /*names*/, bool colour) {
    std::string out = text(json, "name") + "\n";
    if (const auto spec = json.find("spec"); spec != json.end() && !spec->is_null()) {
        for (const auto& [field, value] : spec->items()) {
            if (field == "name") continue;
            const std::string shown = value.is_array() ? joined(value) : text(*spec, field.c_str());
            out += fmt::format("{:14} {}\n", field, harmless(shown));
        }
    }
    Table table({"HOST", "STATE", "DETAIL"});
    for (const Json& host : json.value("hosts", Json::array())) {
        const std::string state = text(host, "state");
        table.add({text(host, "host"), Cell(state, toneOf(state)), text(host, "detail")});
    }
    return out + rendered(table, "gone from every host", colour);
}

struct View {
    std::string_view what;
    std::string (*show)(const Json&, const Names&, bool);
};
constexpr View kViews[] = {
    {"status", showStatus},
    {"networks", showNetworks},
    {"endpoints", showEndpoints},
    {"ports", showPorts},
    {"pools", showPools},
    {"leases", showLeases},
    {"doctor", showDoctor},
    {"reconcile", showReconcile},
    {"members", showMembers},
    {"overlay", showOverlay},
    {"tunnels", showTunnels},
    {"keys", showKeys},
    {"kv", showRows},
    {"forget", showForgotten},
    {"renew", showForgotten},
    {"ping", showPing},
    {"log-level", showLogLevel},
    {"version", showVersion},
    {"network", showSharedNetworks},
    {"network-inspect", showSharedNetwork},
    {"network-change", showSharedNetwork},
    {"trace", showTrace},
};

}  // namespace

Names namesFromEngine(std::string_view networks, std::string_view containers) {
    Names names;
    try {
        for (const Json& network : Json::parse(networks)) {
            names.networks[network.at("Id").get<std::string>()] = network.at("Name").get<std::string>();
        }
        for (const Json& container : Json::parse(containers)) {
            std::string name = container.at("Names").at(0).get<std::string>();
            if (name.starts_with('/')) name.erase(0, 1);
            for (const Json& endpoint : container.at("NetworkSettings").at("Networks")) {
                names.containers[text(endpoint, "EndpointID")] = name;
            }
        }
    } catch (const Json::exception&) {
        // Ids will do.
    }
    names.containers.erase("");
    return names;
}

Result<std::string> show(std::string_view what, std::string_view json, const Names& names, bool colour) {
    const auto* view = std::find_if(std::begin(kViews), std::end(kViews),
                                    [what](const View& candidate) { return candidate.what == what; });
    if (view == std::end(kViews)) return makeError(ErrorCode::Internal, fmt::format("no view of {}", what));
    try {
        return view->show(Json::parse(json), names, colour);
    } catch (const Json::exception& error) {
        return makeError(ErrorCode::Corrupt,
                         fmt::format("weftd's answer is not what this weftctl knows: {}", error.what()));
    }
}

Result<std::string> listOf(std::string_view what, std::string_view json) {
    const std::string key(what == "doctor" ? "checks" : what);
    const Json parsed = Json::parse(json, nullptr, false);
    if (parsed.is_object() && parsed.contains(key)) {
        return parsed[key].dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    return makeError(ErrorCode::Corrupt, fmt::format("weftd's answer has no list of {}", key));
}

Result<std::map<RowName, std::string>> rowsOf(std::string_view json) {
    std::map<RowName, std::string> rows;
    try {
        for (const Json& row : Json::parse(json).at("kv")) {
            rows[{text(row, "key"), text(row, "owner")}] = text(row, "value");
        }
    } catch (const Json::exception& error) {
        return makeError(ErrorCode::Corrupt, fmt::format("weftd's answer has no rows: {}", error.what()));
    }
    return rows;
}

Result<kv::Address> addressOf(std::string_view members, const std::string& host) {
    std::string names;
    const Json parsed = Json::parse(members, nullptr, false);
    const auto list = parsed.is_object() ? parsed.find("members") : parsed.end();
    if (list == parsed.end()) return makeError(ErrorCode::Corrupt, "weftd's answer has no members");
    for (const Json& member : *list) {
        const std::string address = text(member, "address");
        const size_t colon = address.rfind(':');
        std::string ip = address.substr(0, colon);
        if (ip.starts_with('[')) ip = ip.substr(1, ip.size() - 2);
        const bool isIt = text(member, "name") == host || ip == host || address == host ||
                          (host.size() >= 4 && text(member, "id").starts_with(host));
        names += (names.empty() ? "" : ", ") + text(member, "name");
        if (!isIt) continue;
        WEFT_ASSIGN(const IpAddress parsedIp, IpAddress::parse(ip));
        return kv::Address{parsedIp, static_cast<uint16_t>(std::stoul(address.substr(colon + 1)))};
    }
    return makeError(ErrorCode::NotFound, fmt::format("no member {}; there are: {}", host, names));
}

std::vector<std::string> pluginSockets(std::string_view status) {
    std::vector<std::string> paths;
    const Json parsed = Json::parse(status, nullptr, false);
    if (!parsed.is_object() || !parsed.contains("modes") || text(parsed, "pluginDir").empty()) return paths;
    for (const Json& mode : parsed["modes"]) {
        paths.push_back(fmt::format("{}/{}.sock", text(parsed, "pluginDir"), text(mode, "driver")));
    }
    return paths;
}

bool foundTrouble(std::string_view what, std::string_view json) {
    const Json parsed = Json::parse(json, nullptr, false);
    const auto any = [&parsed](const char* list, auto is) {
        const auto found = parsed.find(list);
        return found != parsed.end() && std::any_of(found->begin(), found->end(), is);
    };
    if (what == "doctor") return any("checks", [](const Json& check) { return text(check, "health") == "bad"; });
    if (what == "network-change") {
        return any("hosts", [](const Json& host) { return toneOf(text(host, "state")) == Tone::Bad; });
    }
    if (what == "trace") return any("steps", [](const Json& step) { return text(step, "health") == "bad"; });
    return what == "reconcile" && any("repairs", [](const Json& repair) { return !text(repair, "error").empty(); });
}

std::string errorText(std::string_view json) {
    const Json parsed = Json::parse(json, nullptr, false);
    if (parsed.is_object() && parsed.contains("error") && parsed["error"].is_string()) return parsed["error"];
    return std::string(json);
}

}  // namespace weft::ctl
