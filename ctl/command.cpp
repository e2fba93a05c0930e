#include "ctl/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <istream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <ostream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "ctl/client.h"
#include "ctl/doctor.h"
#include "ctl/graph.h"
#include "ctl/network.h"
#include "ctl/ping.h"
#include "ctl/show.h"
#include "ctl/table.h"
#include "ctl/trace.h"
#include "kv/keyring.h"

namespace weft::ctl {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::string_view, 11> kLists{"networks", "endpoints", "ports", "pools", "leases", "members",
                                                  "overlay",  "tunnels",   "keys",  "kv",    "network"};
constexpr std::chrono::seconds kEngineTimeout{2};
constexpr std::chrono::seconds kWatchEvery{1};
// For all hosts to make or remove a network.
constexpr std::chrono::seconds kSettlePatience{10};
constexpr std::chrono::milliseconds kSettleEvery{100};

struct Options {
    std::string runDir = "/run/weft";
    std::string engineSocket;
    bool json = false;
    bool dryRun = false;
    bool first = false;
    std::string level;
    std::string prefix;  // of rows
    std::string verb;    // what to do with a key or row
    std::string key;     // a key, or its id
    std::string host;
    std::string container;
    std::string destination;
    bool force = false;
    bool dot = false;
    bool svg = false;
    int count = 5;
    NetworkFlags network;
};

bool isList(std::string_view what) {
    return std::find(kLists.begin(), kLists.end(), what) != kLists.end();
}

std::string usualEngineSocket() {
    constexpr std::string_view kScheme = "unix://";
    const char* host = std::getenv("DOCKER_HOST");
    const std::string_view text = host == nullptr ? "" : host;
    return std::string(text.starts_with(kScheme) ? text.substr(kScheme.size()) : "/run/docker.sock");
}

std::string_view hintFor(ErrorCode code) {
    switch (code) {
        case ErrorCode::PermissionDenied:
            return "\nThe control socket is root's. Try: sudo weftctl ...";
        case ErrorCode::Unavailable:
            return "\nIs weftd running? Start it: systemctl start weftd.socket weftd.service"
                   "\nIf it runs with another --run-dir, name that: weftctl --run-dir DIR ...";
        case ErrorCode::Timeout:
            return "\nIs weftd stuck? See: journalctl -u weftd";
        default:
            return "";
    }
}

void complain(std::ostream& err, const Error& error) {
    err << "weftctl: " << harmless(error.message) << hintFor(error.code) << '\n';
}

// weftd's answer, or an error without a hint.
Result<std::string> ask(const Options& options, const std::string& method, const std::string& path,
                        const std::string& body = "") {
    WEFT_ASSIGN(const Reply reply, request(options.runDir + "/weft.sock", method, path, body));
    if (reply.status != 200) return makeError(ErrorCode::Internal, "weftd: " + errorText(reply.body));
    return reply.body;
}

// Empty when the engine does not answer soon.
std::string askEngine(const Options& options, const std::string& path) {
    const auto reply = request(options.engineSocket, "GET", path, "", kEngineTimeout);
    return reply && reply->status == 200 ? reply->body : "";
}

// Bytes that are no UTF-8 do not stop it.
std::string harmlessDump(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// {"name":"value", ..., "flag":true}
std::string object(std::initializer_list<std::pair<std::string, std::string>> fields, const std::string& flag = "") {
    auto json = Json::object();
    for (const auto& [name, value] : fields) json[name] = value;
    if (!flag.empty()) json[flag] = true;
    return harmlessDump(json);
}

// Asks each plugin socket what the engine asks first.
std::vector<std::string> deafSockets(std::string_view status) {
    std::vector<std::string> deaf;
    for (const std::string& path : pluginSockets(status)) {
        const auto reply = request(path, "POST", "/Plugin.Activate", "", kEngineTimeout);
        if (!reply) {
            deaf.push_back(reply.error().message);
        } else if (reply->status != 200 || reply->body.find("NetworkDriver") == std::string::npos) {
            deaf.push_back(path + ": no network driver answers");
        }
    }
    return deaf;
}

Result<std::string> doctor(const Options& options) {
    HostView host;
    const std::pair<const char*, std::string HostView::*> questions[] = {{"/v1/status", &HostView::status},
                                                                         {"/v1/networks", &HostView::networks},
                                                                         {"/v1/endpoints", &HostView::endpoints},
                                                                         {"/v1/pools", &HostView::pools},
                                                                         {"/v1/doctor", &HostView::checks}};
    for (const auto& [path, part] : questions) {
        auto answer = ask(options, "GET", path);
        if (!answer) {
            if (answer.error().code == ErrorCode::PermissionDenied) return std::move(answer).error();
            host.weftError = answer.error().message;
            break;
        }
        host.*part = *std::move(answer);
    }
    if (host.weftError.empty()) host.deafSockets = deafSockets(host.status);
    host.engineSocket = options.engineSocket;
    host.engineNetworks = askEngine(options, "/networks");
    host.engineContainers = askEngine(options, "/containers/json");
    host.engineVersion = askEngine(options, "/version");
    host.engineSettings = readEngineSettings();
    host.nameServers = readNameServers();
    host.forward = readForwardChains();
    return examine(host);
}

// What changed since the last look, a line each, until weftd does not answer any more.
Result<void> watchRows(const Options& options, std::ostream& out) {
    const auto tell = [&](char sign, const RowName& row, const std::string& value) {
        if (options.json) {
            Json line{{"key", row.first}, {"owner", row.second}};
            line["value"] = sign == '+' ? Json(value) : Json();
            out << harmlessJson(harmlessDump(line)) << '\n';
        } else {
            out << fmt::format("{} {} of {} {}\n", sign, harmless(row.first), harmless(row.second), harmless(value));
        }
    };
    std::map<RowName, std::string> known;
    for (;;) {
        WEFT_ASSIGN(const std::string answer, ask(options, "GET", "/v1/kv?" + options.prefix));
        WEFT_ASSIGN(auto rows, rowsOf(answer));
        for (const auto& [row, value] : known) {
            if (!rows.contains(row)) tell('-', row, value);
        }
        for (const auto& [row, value] : rows) {
            const auto before = known.find(row);
            if (before == known.end() || before->second != value) tell('+', row, value);
        }
        out.flush();
        known = std::move(rows);
        std::this_thread::sleep_for(kWatchEvery);
    }
}

Json tripsJson(const char* protocol, const std::string& address, const Result<RoundTrips>& trips) {
    Json json{{"protocol", protocol}, {"address", address}};
    if (!trips) {
        json["error"] = trips.error().message;
        return json;
    }
    json["sent"] = trips->sent;
    json["answered"] = trips->times.size();
    if (trips->times.empty()) return json;
    const auto ms = [](std::chrono::microseconds time) { return static_cast<double>(time.count()) / 1000; };
    const auto [least, most] = std::minmax_element(trips->times.begin(), trips->times.end());
    const auto sum = std::accumulate(trips->times.begin(), trips->times.end(), std::chrono::microseconds(0));
    json["minMs"] = ms(*least);
    json["avgMs"] = ms(sum) / static_cast<double>(trips->times.size());
    json["maxMs"] = ms(*most);
    return json;
}

Result<std::string> pingHost(const Options& options) {
    WEFT_ASSIGN(const std::string members, ask(options, "GET", "/v1/members"));
    WEFT_ASSIGN(const kv::Address address, addressOf(members, options.host));
    Json answer{{"gossip", tripsJson("tcp", address.str(), pingGossip(address, options.count))}};
    const auto frames = pingUnderlay(address.ip, options.count, 0);
    answer["underlay"] = tripsJson("icmp", address.ip.str(), frames);
    if (frames && !frames->times.empty()) {
        WEFT_ASSIGN(const size_t mtu, findMtu(address.ip));
        answer["mtu"] = mtu;
        answer["overlayMtu"] = mtu - (address.ip.isV4() ? 50 : 70);
    }
    return answer.dump();
}

Result<std::string> networkOfAllHosts(const Options& options) {
    WEFT_ASSIGN(const std::string all, ask(options, "GET", "/v1/network"));
    return networkIn(all, options.network.name);
}

// Asks for it, then waits until the hosts have followed.
Result<std::string> changeNetwork(const Options& options) {
    const bool create = options.verb == "create";
    if (create) {
        WEFT_ASSIGN(const std::string body, networkBody(options.network));
        WEFT_TRY(ask(options, "POST", "/v1/network", body));
    } else {
        const std::string body = object({{"name", options.network.name}}, options.force ? "force" : "");
        WEFT_TRY(ask(options, "POST", "/v1/network/remove", body));
    }
    const auto limit = std::chrono::steady_clock::now() + kSettlePatience;
    for (;;) {
        auto network = networkOfAllHosts(options);
        const bool gone = !network && network.error().code == ErrorCode::NotFound;
        if (!create && gone) return object({{"name", options.network.name}});
        if (!network || isSettled(*network) || std::chrono::steady_clock::now() > limit) return network;
        std::this_thread::sleep_for(kSettleEvery);
    }
}

Result<std::string> trace(const Options& options) {
    WEFT_ASSIGN(const std::string question,
                traceQuestion(options.container, options.destination, askEngine(options, "/containers/json")));
    return ask(options, "POST", "/v1/trace", question);
}

Result<std::string> answerTo(const Options& options, const std::string& what) {
    if (what == "network-change") return changeNetwork(options);
    if (what == "network-inspect" || what == "network-export") return networkOfAllHosts(options);
    if (what == "doctor") return doctor(options);
    if (what == "ping") return pingHost(options);
    if (what == "trace") return trace(options);
    if (what == "metrics") return ask(options, "GET", "/metrics");
    if (what == "kv") return ask(options, "GET", "/v1/kv?" + options.prefix);
    if (what == "keys" && options.verb != "list") {
        return ask(options, "POST", "/v1/keys", object({{options.verb, options.key}}));
    }
    if (what == "forget") {
        return ask(options, "POST", "/v1/forget", object({{"node", options.host}}, options.force ? "force" : ""));
    }
    if (what == "renew") return ask(options, "POST", "/v1/renew", options.first ? R"({"first":true})" : "{}");
    const std::string path = "/v1/" + what;
    if (what == "reconcile") return ask(options, "POST", path, options.dryRun ? R"({"dryRun":true})" : "{}");
    if (what == "log-level" && !options.level.empty()) {
        return ask(options, "PUT", path, fmt::format(R"({{"level":"{}"}})", options.level));
    }
    return ask(options, "GET", path);
}

// An answer with no text in it that could steer a terminal. Everything that is shown to people passes here; `blocks` of
// overlay is a text of many lines.
std::string harmlessAnswer(const std::string& answer) {
    const std::function<void(Json&, Lines)> mend = [&mend](Json& json, Lines lines) {
        if (json.is_string()) {
            json = harmless(json.get<std::string>(), lines);
        } else if (json.is_array()) {
            for (Json& item : json) mend(item, Lines::One);
        } else if (json.is_object()) {
            Json mended = Json::object();
            for (auto& [key, value] : json.items()) {
                mend(value, key == "blocks" ? Lines::Many : Lines::One);
                mended[harmless(key)] = std::move(value);
            }
            json = std::move(mended);
        }
    };
    Json json = Json::parse(answer, nullptr, false);
    if (json.is_discarded()) return harmless(answer, Lines::Many);
    mend(json, Lines::One);
    return harmlessDump(json);
}

Result<std::string> textFor(const Options& options, const std::string& what, const std::string& answered, bool colour) {
    if (what == "metrics") return harmless(answered, Lines::Many);
    const std::string answer = options.json ? harmlessJson(answered) : harmlessAnswer(answered);
    if (what == "network-export") return exported(answer);
    if (what == "graph" && options.dot) return drawDot(answer);
    if (what == "graph" && options.svg) return drawSvg(answer);
    if (options.json) {
        if (!isList(what) && what != "doctor") return answer + "\n";
        WEFT_ASSIGN(const std::string list, listOf(what, answer));
        return list + "\n";
    }
    if (what == "graph") return drawTree(answer, speaksUnicode(), colour);
    Names names;
    if (isList(what))
        names = namesFromEngine(harmlessAnswer(askEngine(options, "/networks")),
                                harmlessAnswer(askEngine(options, "/containers/json")));
    return show(what, answer, names, colour);
}

void addNetworkCommands(CLI::App& app, Options& options) {
    CLI::App* network = app.add_subcommand("network", "overlay networks made once for all hosts");
    network->require_subcommand(1);
    NetworkFlags& flags = options.network;
    const auto named = [&](const char* verb, const char* help) {
        CLI::App* command = network->add_subcommand(verb, help);
        command->add_option("NAME", flags.name, "of the network")->required();
        return command;
    };
    CLI::App* create = named("create", "make it on every host, also on those that join later");
    const auto many = [create](const char* flag, std::vector<std::string>& values, const char* help, const char* type) {
        create->add_option(flag, values, help)->type_name(type)->expected(1)->take_all();
    };
    many("--subnet", flags.subnets, "one for each family, the same on every host", "PREFIX");
    many("--ip-range", flags.ranges, "of a subnet: addresses are given from it", "PREFIX");
    many("--gateway", flags.gateways, "of a subnet; default: its first address", "ADDR");
    many("--aux-address", flags.auxAddresses, "of a subnet, given to no container", "NAME=ADDR");
    create->add_flag("--ipv6", flags.ipv6, "IPv6 as well");
    create->add_flag("--internal", flags.internal, "no way out of the network, and none in");
    create->add_option("--mtu", flags.mtu, "default: what the underlay carries")
        ->check(CLI::Range(68, 65535))
        ->type_name("BYTES");
    many("-o,--opt", flags.options, "of the driver, as docker network create takes them", "NAME=VALUE");
    many("--label", flags.labels, "of Docker's network", "NAME=VALUE");
    create->add_option("--hosts", flags.hosts, "only on hosts whose weftd has this --label")->type_name("LABEL");
    named("rm", "remove it from every host")->add_flag("--force", options.force, "take containers off it first");
    network->add_subcommand("ls", "all of them");
    named("inspect", "one of them, and how far each host is");
    named("export", "the docker command that makes the same by hand");
}

}  // namespace

ExitStatus runCommand(int argc, const char* const* argv, bool colour, std::ostream& out, std::ostream& err,
                      std::istream& in) {
    Options options;
    options.engineSocket = usualEngineSocket();
    CLI::App app("weftctl: look into weftd", "weftctl");
    app.require_subcommand(0, 1);
    app.fallthrough();
    app.set_version_flag("--version", "weftctl " WEFT_VERSION);
    app.add_option("--run-dir", options.runDir, "the daemon's --run-dir")->type_name("DIR")->capture_default_str();
    app.add_option("--docker-socket", options.engineSocket, "the engine's API socket, for names and doctor")
        ->type_name("PATH")
        ->capture_default_str();
    app.add_flag("--json", options.json, "the answer as JSON, for programs");
    app.add_subcommand("status", "the daemon and what it serves");
    app.add_subcommand("networks", "networks with their links and subnets");
    app.add_subcommand("endpoints", "containers' addresses and links");
    app.add_subcommand("ports", "published ports, which `docker ps` does not show for plugin networks");
    app.add_subcommand("pools", "subnets: addresses used and free");
    app.add_subcommand("leases", "every address that is taken");
    CLI::App* reconcile = app.add_subcommand("reconcile", "compare records with the kernel, and repair");
    reconcile->add_flag("--dry-run", options.dryRun, "only tell");
    app.add_subcommand("doctor", "look for what keeps networks from working, and how to mend it");
    CLI::App* level = app.add_subcommand("log-level", "show the daemon's log level, or set it");
    level->add_option("LEVEL", options.level, "until the daemon restarts")
        ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}));
    app.add_subcommand("metrics", "counters and histograms, in Prometheus' text format");
    app.add_subcommand("members", "hosts of the cluster, as this one sees them");
    app.add_subcommand("overlay", "overlay networks: VNI, hosts, who holds which addresses");
    app.add_subcommand("tunnels", "what passes to each other host, as probes found it");
    CLI::App* ping = app.add_subcommand("ping", "round trip, loss and MTU to another host of the cluster");
    ping->add_option("HOST", options.host, "name, id or address as in weftctl members")->required();
    ping->add_option("--count", options.count, "of packets")->check(CLI::Range(1, 1000))->capture_default_str();
    CLI::App* graph = app.add_subcommand("graph", "the cluster as a picture: hosts, networks, containers");
    CLI::Option* dot = graph->add_flag("--dot", options.dot, "in Graphviz' language");
    graph->add_flag("--svg", options.svg, "as an SVG picture")->excludes(dot);
    CLI::App* way = app.add_subcommand("trace", "what happens to a packet of a container, and where it would stop");
    way->add_option("CONTAINER", options.container, "its name or id, or an endpoint's id or address")->required();
    way->add_option("DEST", options.destination, "ADDRESS or NAME, with :PORT or :PORT/udp; without a port a ping")
        ->required();
    CLI::App* rows = app.add_subcommand("kv", "rows of the gossip store");
    rows->require_subcommand(1);
    for (const auto& [verb, help] :
         {std::pair("get", "show them"), std::pair("watch", "show changes, until stopped")}) {
        rows->add_subcommand(verb, help)->add_option("PREFIX", options.prefix, "of their keys");
    }
    addNetworkCommands(app, options);
    CLI::App* key = app.add_subcommand("key", "the cluster's keys");
    key->require_subcommand(1);
    key->add_subcommand("generate", "print a new one, for --key-file; no weftd is needed");
    key->add_subcommand("list", "ids of the keys in use; the primary one seals");
    key->add_subcommand("add", "let every host accept one more")
        ->add_option("SOURCE", options.key, "-: the key, as printed by generate, comes by standard input")
        ->required();
    key->add_subcommand("use", "let every host seal with it")->add_option("ID", options.key)->required();
    key->add_subcommand("remove", "let no host accept it any more")->add_option("ID", options.key)->required();
    CLI::App* node = app.add_subcommand("node", "hosts of the cluster");
    node->require_subcommand(1);
    CLI::App* forget = node->add_subcommand("forget", "give up a dead host for ever: its addresses go to the others");
    forget->add_option("NAME", options.host, "as in weftctl members")->required();
    forget->add_flag("--force", options.force, "without a majority of the hosts that decide");
    node->add_subcommand("renew", "give this host a new identity at weftd's next start; its containers keep theirs")
        ->add_flag("--first", options.first,
                   "of a new cluster: no other host of the old one is left, or all are renewed");
    app.add_subcommand("version", "of weftctl and of the daemon");
    app.footer(
        "Exit status: 0 done, 1 weftd does not answer or reports an error, 2 mistake in the command line,\n"
        "3 doctor found something bad, a repair failed or a traced packet stops. See weftctl(8).");

    app.allow_extras();

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error, out, err) == 0 ? kDone : kMistake;
    }
    if (const auto extras = app.remaining(true); !extras.empty()) {
        err << fmt::format("weftctl: what is \"{}\"? Try weftctl --help.\n", extras.front());
        return kMistake;
    }
    if (app.get_subcommands().empty()) {
        err << "weftctl: which command? Try weftctl --help.\n";
        return kMistake;
    }
    const CLI::App* command = app.get_subcommands().front();
    std::string what = command->get_name();
    if (!command->get_subcommands().empty()) options.verb = command->get_subcommands().front()->get_name();
    if (what == "key") what = "keys";
    if (what == "node") what = options.verb;
    if (what == "network" && options.verb != "ls") {
        const bool changes = options.verb == "create" || options.verb == "rm";
        what += changes ? "-change" : "-" + options.verb;
    }
    if (options.verb == "generate") {
        out << kv::Key::generate().base64() << '\n';
        return kDone;
    }
    if (options.verb == "add") {
        if (options.key != "-") {
            err << "weftctl: a key in the command line is in everybody's list of processes and in the shell's "
                   "history.\n"
                   "Give it by standard input: weftctl key add - < FILE\n";
            return kMistake;
        }
        options.key.clear();
        in >> options.key;
    }
    if (options.verb == "watch") {
        const auto ended = watchRows(options, out);
        complain(err, ended.error());
        return kFailed;
    }
    const auto answer = answerTo(options, what);
    const auto text = answer ? textFor(options, what, *answer, colour) : answer;
    if (!text) {
        if (what == "version" && !options.json) out << "weftctl " WEFT_VERSION "\n";
        complain(err, text.error());
        return kFailed;
    }
    out << *text;
    return foundTrouble(what, *answer) ? kTrouble : kDone;
}

}  // namespace weft::ctl
