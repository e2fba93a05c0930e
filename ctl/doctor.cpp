#include "ctl/doctor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <utility>

#include "base/ip.h"
#include "ctl/table.h"

namespace weft::ctl {
namespace {

using Json = nlohmann::json;

constexpr const char* kDockersView = "docker's view";
constexpr size_t kBrief = 12;  // of an id, as `docker ps` shows it

void add(Json& checks, std::string_view name, std::string_view health, std::string found, std::string fix = "") {
    checks.push_back({{"name", name}, {"health", health}, {"found", std::move(found)}, {"fix", std::move(fix)}});
}

// A null, number or absent field as "".
std::string text(const Json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string brief(const std::string& id) {
    return id.substr(0, kBrief);
}

void checkSockets(Json& checks, const HostView& host, const Json& status) {
    const std::string dir = text(status, "pluginDir");
    constexpr std::array<std::string_view, 3> kSearched{"/run/docker/plugins", "/etc/docker/plugins",
                                                        "/usr/lib/docker/plugins"};
    if (dir.empty()) return;  // a managed plugin's is the engine's
    for (const std::string& deaf : host.deafSockets) {
        add(checks, "plugin sockets", "bad", deaf, "systemctl restart weftd.socket weftd.service");
    }
    if (std::find(kSearched.begin(), kSearched.end(), dir) == kSearched.end()) {
        add(checks, "plugin sockets", "warning", fmt::format("in {}, where Docker does not look", dir),
            "start weftd with --plugin-dir /run/docker/plugins");
    } else if (host.deafSockets.empty()) {
        add(checks, "plugin sockets", "good", "in " + dir + ", and all answer");
    }
}

// True when both sides name the same networks.
bool compareNetworks(Json& checks, const Json& ours, const Json& engines) {
    std::map<std::string, std::string> onlyOurs;  // id -> driver
    for (const Json& network : ours) onlyOurs[text(network, "id")] = text(network, "driver");
    bool same = true;
    for (const Json& network : engines) {
        if (onlyOurs.erase(text(network, "Id")) == 1 || !text(network, "Driver").starts_with("weft-")) continue;
        const std::string name = text(network, "Name");
        add(checks, kDockersView, "bad", fmt::format("Docker has network {}, weft does not", name),
            fmt::format("docker network rm {}, then create it again", name));
        same = false;
    }
    for (const auto& [id, driver] : onlyOurs) {
        add(checks, kDockersView, "warning", fmt::format("weft has network {}, Docker does not", brief(id)),
            fmt::format("curl --unix-socket /run/docker/plugins/{}.sock -d '{{\"NetworkID\":\"{}\"}}' "
                        "http://weft/NetworkDriver.DeleteNetwork",
                        driver, id));
        same = false;
    }
    return same;
}

// True when a network of the engine uses each of weft's pools; those of other drivers' networks are known by their
// subnet alone.
bool comparePools(Json& checks, const Json& pools, const Json& engines) {
    std::set<IpPrefix> used;
    for (const Json& network : engines) {
        const auto ipam = network.find("IPAM");
        const auto config = ipam == network.end() || !ipam->is_object() ? Json() : ipam->value("Config", Json());
        for (const Json& subnet : config) {
            if (const auto prefix = IpPrefix::parse(text(subnet, "Subnet"))) used.insert(prefix->network());
        }
    }
    bool same = true;
    for (const Json& pool : pools) {
        const auto prefix = IpPrefix::parse(text(pool, "pool"));
        if (!text(pool, "network").empty() || !prefix || used.contains(prefix->network())) continue;
        const bool shared = text(pool, "addressSpace").starts_with("weft-overlay-");
        add(checks, kDockersView, "warning",
            fmt::format("weft keeps subnet {} for a network that Docker does not have", prefix->str()),
            fmt::format("curl --unix-socket /run/docker/plugins/weft-{}.sock -d '{{\"PoolID\":\"{}\"}}' "
                        "http://weft/IpamDriver.ReleasePool",
                        shared ? "overlay" : "bridge", text(pool, "id")));
        same = false;
    }
    return same;
}

// True when the engine's running containers have the endpoints that weft has, in weft's networks.
bool compareEndpoints(Json& checks, const Json& networks, const Json& ours, const Json& containers) {
    std::set<std::string> weftNetworks;
    for (const Json& network : networks) weftNetworks.insert(text(network, "id"));
    std::map<std::string, std::string> onlyOurs;  // id -> its network
    for (const Json& endpoint : ours) onlyOurs[text(endpoint, "id")] = text(endpoint, "network");
    bool same = true;
    for (const Json& container : containers) {
        for (const auto& [network, endpoint] : container.at("NetworkSettings").at("Networks").items()) {
            const std::string id = text(endpoint, "EndpointID");
            if (id.empty() || !weftNetworks.contains(text(endpoint, "NetworkID")) || onlyOurs.erase(id) == 1) continue;
            const std::string name = brief(text(container, "Id"));
            add(checks, kDockersView, "bad",
                fmt::format("container {} is on network {} for Docker, not for weft", name, network),
                fmt::format("docker network disconnect -f {0} {1}; docker network connect {0} {1}", network, name));
            same = false;
        }
    }
    for (const auto& [id, network] : onlyOurs) {
        // Usual for a moment: the engine makes an endpoint before it lists the container as running.
        add(checks, kDockersView, "warning",
            fmt::format("weft has endpoint {} on network {}, no running container does", brief(id), brief(network)),
            "weftctl reconcile");
        same = false;
    }
    return same;
}

void checkForward(Json& checks, const HostView& host, const Json& status, const Json& networks) {
    const auto has = [&networks](bool wantV6) {
        return std::any_of(networks.begin(), networks.end(), [wantV6](const Json& network) {
            if (text(network, "driver") != "weft-bridge") return false;
            const Json& subnets = network.at("subnets");
            return std::any_of(subnets.begin(), subnets.end(), [wantV6](const Json& subnet) {
                return (subnet.get<std::string>().find(':') != std::string::npos) == wantV6;
            });
        });
    };
    for (const ForwardChain& chain : host.forward) {
        const bool drops = chain.rules.find("-P FORWARD DROP") != std::string::npos;
        const bool passage = chain.rules.find("-j WEFT-FORWARD") != std::string::npos;
        const std::string name = "FORWARD of " + chain.command;
        if (drops && !passage && has(chain.command.starts_with("ip6"))) {
            const bool mine = text(status, "firewall").starts_with("nft") == chain.command.ends_with("nft");
            add(checks, name, "bad", "policy DROP, and no rule lets weft's traffic pass",
                mine ? "weftctl reconcile"
                     : "set firewall = \"auto\" in /etc/weft/weftd.toml, then: systemctl restart weftd");
        } else {
            add(checks, name, "good",
                fmt::format("policy {}{}", drops ? "DROP" : "ACCEPT",
                            passage ? "; weft's traffic passes by WEFT-FORWARD" : ""));
        }
    }
}

bool setsNameServers(const EngineSettings& engine, const Json& settings) {
    const bool asked = std::any_of(engine.arguments.begin(), engine.arguments.end(), [](const std::string& argument) {
        return argument == "--dns" || argument.starts_with("--dns=");
    });
    const auto set = settings.find("dns");
    return asked || (set != settings.end() && set->is_array() && !set->empty());
}

// Engines from 28 on (moby/moby#48290) ask servers of the host's resolv.conf from the host, past weftd; those that were
// set for containers are asked from the container by all engines.
void checkNameServers(Json& checks, const HostView& host, const Json& networks) {
    constexpr const char* kName = "containers' name servers";
    constexpr int kAsksFromTheHost = 28;
    const auto isOverlay = [](const Json& network) { return text(network, "driver") == "weft-overlay"; };
    const auto isOfNames = [](const Json& check) { return text(check, "name") == "names"; };
    if (std::none_of(networks.begin(), networks.end(), isOverlay)) return;
    if (std::none_of(checks.begin(), checks.end(), isOfNames)) return;  // weftd answers none
    const Json told = Json::parse(host.engineVersion, nullptr, false);
    const std::string version = told.is_object() ? text(told, "Version") : "";
    if (std::atoi(version.c_str()) < kAsksFromTheHost) return;

    const EngineSettings& engine = host.engineSettings;
    Json settings = Json::parse(engine.text.empty() ? "{}" : engine.text, nullptr, false);
    if (!settings.is_object()) return add(checks, kName, "warning", engine.path + " is not understood");
    if (setsNameServers(engine, settings)) return add(checks, kName, "good", "set for the engine");
    settings["dns"] = host.nameServers.empty() ? std::vector<std::string>{"ADDRESS"} : host.nameServers;
    add(checks, kName, "warning",
        fmt::format(
            "none set; engine {} asks the host's from the host, and containers without --dns do not find those of "
            "other hosts",
            version),
        fmt::format("printf '%s\\n' {} > {}; systemctl restart docker",
                    shellWord(settings.dump(-1, ' ', false, Json::error_handler_t::replace)), shellWord(engine.path)));
}

Json parsed(const std::string& text, const char* list) {
    Json json = Json::parse(text, nullptr, false);
    return json.is_object() && json.contains(list) ? json[list] : Json::array();
}

std::string outputOf(const std::string& command) {
    std::FILE* pipe = ::popen((command + " 2>/dev/null").c_str(), "r");
    if (pipe == nullptr) return "";
    std::string out;
    std::array<char, 4096> chunk{};
    while (const size_t count = std::fread(chunk.data(), 1, chunk.size(), pipe)) out.append(chunk.data(), count);
    return ::pclose(pipe) == 0 ? out : "";
}

bool legacyFilterInUse(const char* tables) {
    std::ifstream file(tables);
    for (std::string table; std::getline(file, table);) {
        if (table == "filter") return true;
    }
    return false;
}

}  // namespace

std::string examine(const HostView& host) {
    Json checks = Json::array();
    const Json status = Json::parse(host.status, nullptr, false);
    const Json networks = parsed(host.networks, "networks");
    const Json endpoints = parsed(host.endpoints, "endpoints");
    if (host.weftError.empty()) {
        add(checks, "weftd", "good", "answers");
    } else {
        add(checks, "weftd", "bad", host.weftError, "systemctl start weftd.socket weftd.service; journalctl -u weftd");
    }
    for (const Json& check : parsed(host.checks, "checks")) checks.push_back(check);
    try {
        if (status.is_object()) checkSockets(checks, host, status);
        checkForward(checks, host, status, networks);
        checkNameServers(checks, host, networks);
        const Json engineNetworks = Json::parse(host.engineNetworks, nullptr, false);
        const Json engineContainers = Json::parse(host.engineContainers, nullptr, false);
        if (!engineNetworks.is_array() || !engineContainers.is_array()) {
            add(checks, kDockersView, "warning", fmt::format("no engine answers at {}", host.engineSocket),
                "systemctl start docker; or name its socket: weftctl --docker-socket PATH doctor");
        } else if (host.weftError.empty()) {
            const bool sameNetworks = compareNetworks(checks, networks, engineNetworks);
            const bool samePools = comparePools(checks, parsed(host.pools, "pools"), engineNetworks);
            const bool sameEndpoints = compareEndpoints(checks, networks, endpoints, engineContainers);
            if (sameNetworks && samePools && sameEndpoints) {
                add(checks, kDockersView, "good",
                    fmt::format("the same as weft's: {} networks, {} endpoints", networks.size(), endpoints.size()));
            }
        }
    } catch (const Json::exception& error) {
        add(checks, kDockersView, "warning", std::string("not understood: ") + error.what());
    }
    return Json{{"checks", std::move(checks)}}.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<ForwardChain> readForwardChains() {
    std::vector<std::string> commands{"iptables-nft", "ip6tables-nft"};
    if (legacyFilterInUse("/proc/self/net/ip_tables_names")) commands.emplace_back("iptables-legacy");
    if (legacyFilterInUse("/proc/self/net/ip6_tables_names")) commands.emplace_back("ip6tables-legacy");
    std::vector<ForwardChain> chains;
    for (const std::string& command : commands) {
        std::string rules = outputOf(command + " -S FORWARD");
        if (!rules.empty()) chains.push_back({command, std::move(rules)});
    }
    return chains;
}

EngineSettings readEngineSettings() {
    EngineSettings engine;
    std::string pid;
    std::ifstream("/run/docker.pid") >> pid;
    std::ifstream commandLine("/proc/" + pid + "/cmdline");
    for (std::string word; std::getline(commandLine, word, '\0');) engine.arguments.push_back(word);
    for (size_t i = 0; i < engine.arguments.size(); ++i) {
        constexpr std::string_view kOption = "--config-file";
        const std::string& argument = engine.arguments[i];
        if (argument == kOption && i + 1 < engine.arguments.size()) engine.path = engine.arguments[i + 1];
        if (argument.starts_with(std::string(kOption) + "=")) engine.path = argument.substr(kOption.size() + 1);
    }
    std::ifstream file(engine.path);
    engine.text.assign(std::istreambuf_iterator<char>(file), {});
    return engine;
}

std::vector<std::string> nameServersIn(std::istream& resolvConf) {
    std::vector<std::string> found;
    for (std::string line; std::getline(resolvConf, line);) {
        std::istringstream words(line);
        std::string what;
        std::string text;
        if (!(words >> what >> text) || what != "nameserver") continue;
        const auto address = IpAddress::parse(text);
        if (address && !address->isLoopback()) found.push_back(text);
    }
    return found;
}

std::vector<std::string> readNameServers() {
    // systemd-resolved keeps those that it asks itself in the second.
    for (const char* path : {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}) {
        std::ifstream file(path);
        if (auto found = nameServersIn(file); !found.empty()) return found;
    }
    return {};
}

}  // namespace weft::ctl
