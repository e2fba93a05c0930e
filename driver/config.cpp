#include "driver/config.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "base/printable.h"
#include "driver/socket.h"
#include "drivers/options.h"
#include "ipam/subnets.h"

namespace weft::driver {
namespace {

std::string nearestName(std::string_view typed, const std::vector<std::string>& names) {
    const auto nearest = std::min_element(names.begin(), names.end(), [typed](const auto& a, const auto& b) {
        return editDistance(typed, a) < editDistance(typed, b);
    });
    return nearest == names.end() ? "" : *nearest;
}

// CLI11's TOML reader, but a key it does not know is an error that says which one was meant.
class StrictToml final : public CLI::ConfigTOML {
public:
    explicit StrictToml(std::vector<std::string> names) : names_(std::move(names)) {}

    [[nodiscard]] std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
        auto settings = CLI::ConfigTOML::from_config(input);
        for (const CLI::ConfigItem& item : settings) {
            // "++" opens a section.
            if (!item.parents.empty()) {
                throw CLI::ConfigError(fmt::format("section [{}]: there are no sections", item.parents.front()),
                                       CLI::ExitCodes::ConfigError);
            }
            const std::string& key = item.name;
            if (std::find(names_.begin(), names_.end(), key) == names_.end()) {
                throw CLI::ConfigError(
                    fmt::format("unknown key \"{}\"; did you mean \"{}\"?", key, nearestName(key, names_)),
                    CLI::ExitCodes::ConfigError);
            }
        }
        return settings;
    }

private:
    std::vector<std::string> names_;
};

// "WEFT_LOG_LEVEL" of "log-level".
std::string variableOf(const std::string& flag) {
    std::string name = "WEFT_" + flag;
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(c == '-' ? '_' : std::toupper(c)); });
    return name;
}

// A check in CLI11's way: "" is good.
template <typename Parse>
CLI::Validator checkedBy(Parse parse, const char* shape) {
    return CLI::Validator(
        [parse](std::string& text) {
            const auto parsed = parse(text);
            return parsed ? std::string() : parsed.error().message;
        },
        shape);
}

Result<void> checkClusterName(const std::string& text) {
    if (!text.empty() && text.size() <= 64) return {};
    return makeError(ErrorCode::InvalidArgument, "a cluster's name has 1 to 64 characters");
}

Result<void> checkPrintable(const std::string& text) {
    if (isPrintable(text)) return {};
    return makeError(ErrorCode::InvalidArgument, "control characters and marks of direction are not taken");
}

Result<void> checkDomain(const std::string& text) {
    const bool named = std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    });
    const bool dotted = text.starts_with('.') || text.ends_with('.') || text.find("..") != std::string::npos;
    if (named && !dotted && !text.empty() && text.size() <= 128) return {};
    return makeError(ErrorCode::InvalidArgument, "\"" + text + "\": expected a domain in lower case, such as weft");
}

}  // namespace

Result<ipam::DefaultRange> parseAddressPool(std::string_view text) {
    const auto error = [text](std::string_view what) {
        return makeError(ErrorCode::InvalidArgument, fmt::format("\"{}\": {}", text, what));
    };
    const size_t slash = text.rfind('/');
    const auto base = IpPrefix::parse(text.substr(0, slash));
    if (slash == std::string_view::npos || !base) return error("expected PREFIX/SIZE, such as 10.208.0.0/12/24");
    const std::string_view digits = text.substr(slash + 1);
    ipam::DefaultRange range{*base, 0};
    const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), range.length);
    if (failed != std::errc() || end != digits.data() + digits.size()) {
        return error("expected PREFIX/SIZE, such as 10.208.0.0/12/24");
    }
    if (base->network() != *base) return error(fmt::format("host bits are set; write {}", base->network().str()));
    WEFT_TRY(ipam::checkRange(range, base->family()));
    return range;
}

std::variant<Config, Exit> parseCommandLine(int argc, const char* const* argv) {
    Config config;
    std::string level(toString(config.logLevel));
    std::vector<std::string> pools;

    CLI::App app("weftd: bridge, overlay, host and none networks for Docker, as a network and IPAM plugin", "weftd");
    app.set_version_flag("--version", "weftd " WEFT_VERSION);
    app.option_defaults()->always_capture_default();
    app.add_option("--plugin-dir", config.pluginDir, "where the engine looks for plugin sockets")->type_name("DIR");
    app.add_option("--state-dir", config.stateDir, "networks, endpoints and leases")->type_name("DIR");
    app.add_option("--run-dir", config.runDir, "control socket and lock; weftctl takes the same flag")
        ->type_name("DIR");
    app.add_option("--firewall", config.firewall, "how rules are written; auto: where Docker's own are")
        ->check(CLI::IsMember({"auto", "iptc", "nft"}))
        ->type_name("WHICH");
    app.add_option("--log-level", level, "trace, debug, info, warn, error or off")
        ->check(checkedBy(parseLogLevel, "LEVEL"))
        ->type_name("LEVEL");
    app.add_option("--metrics", config.metrics, "serve GET /metrics on this loopback address too")
        ->check(checkedBy(checkLoopback, "ADDR:PORT"))
        ->type_name("ADDR:PORT");
    app.add_option("--web", config.web, "serve a page that shows the cluster, live, on this loopback address")
        ->check(checkedBy(checkLoopback, "ADDR:PORT"))
        ->type_name("ADDR:PORT");
    app.add_option("--address-pool", pools, "default subnets, such as 10.208.0.0/12/24; repeat for more")
        ->check(checkedBy(parseAddressPool, "PREFIX/SIZE"))
        ->type_name("PREFIX/SIZE");
    const auto address =
        checkedBy([](const std::string& text) { return kv::checkEndpointText(text, false); }, "ADDR[:PORT]");
    const auto seed =
        checkedBy([](const std::string& text) { return kv::checkEndpointText(text, true); }, "HOST[:PORT]");
    app.add_option("--node-name", config.gossip.nodeName, "this host's name in the cluster; default: the host's name")
        ->check(checkedBy(checkPrintable, "NAME"))
        ->type_name("NAME");
    app.add_option("--cluster", config.gossip.cluster, "hosts of other clusters are not heard, even with the same key")
        ->check(checkedBy(checkClusterName, "NAME"))
        ->type_name("NAME");
    app.add_option("--key-file", config.gossip.keyFile,
                   "the cluster's key, made by weftctl key generate; without it this host is a cluster of one")
        ->type_name("FILE");
    app.add_option("--join", config.gossip.join, "a host of the cluster, asked for ever; repeat for more")
        ->check(seed)
        ->delimiter(',')
        ->type_name("HOST[:PORT]");
    app.add_option("--bind", config.gossip.bind, "where gossip listens, UDP and TCP; default: the advertised address")
        ->check(address)
        ->type_name("ADDR[:PORT]");
    app.add_option("--advertise", config.gossip.advertise,
                   "where the other hosts send gossip and frames; default: by the route to them")
        ->check(address)
        ->type_name("ADDR[:PORT]");
    app.add_option("--vxlan-port", config.vxlanPort, "UDP port of overlay frames, the same on every host")
        ->check(CLI::Range(1, 65535))
        ->type_name("PORT");
    app.add_option("--dns-port", config.dnsPort,
                   "where DNS queries of overlay containers are answered, UDP and TCP; 0: no names across hosts")
        ->check(CLI::Range(0, 65535))
        ->type_name("PORT");
    app.add_option("--domain", config.domain, "containers' names may end with it, as in db.weft")
        ->check(checkedBy(checkDomain, "NAME"))
        ->type_name("NAME");
    app.add_option("--docker-socket", config.dockerSocket,
                   "the engine's API: tells the names of containers, makes the networks of weftctl network create")
        ->type_name("PATH");
    app.add_option("--label", config.labels, "of this host, for weftctl network create --hosts; repeat for more")
        ->check(checkedBy(checkPrintable, "LABEL"))
        ->type_name("LABEL");
    app.add_flag("--strict", config.gossip.strict,
                 "refuse hosts that speak the wire of an older weft at once, not only when all are upgraded");
    app.add_flag("--swarm", config.swarm,
                 "serve the one driver weft, for a swarm's networks; it must run as a managed plugin (make plugin)");
    std::vector<std::string> keys;
    for (CLI::Option* option : app.get_options()) {
        for (const std::string& name : option->get_lnames()) {
            if (name == "help" || name == "version") continue;
            keys.push_back(name);
            // Only of those that are set, or --help would name them all.
            if (std::getenv(variableOf(name).c_str()) != nullptr) option->envname(variableOf(name));
        }
    }
    bool checkOnly = false;
    app.add_flag("--check-config", checkOnly, "say whether flags and file are good, and end")->configurable(false);
    app.set_config("--config", kConfigFile, "settings; its keys are the flags above, without the dashes")
        ->type_name("FILE");
    app.config_formatter(std::make_shared<StrictToml>(keys));
    app.allow_extras();
    app.footer(
        "Signals: TERM stops (networks stay as they are), HUP reads the log level again.\n"
        "See weftd(8) and weftd.toml(5).");

    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& asked) {
        std::ostringstream text;
        app.exit(asked, text, text);
        return Exit{0, text.str()};
    } catch (const CLI::ConfigError& error) {
        return Exit{2, fmt::format("weftd: {}: {}\n", app["--config"]->as<std::string>(), error.what())};
    } catch (const CLI::Error& error) {
        return Exit{2, fmt::format("weftd: {}\nTry weftd --help.\n", error.what())};
    } catch (const std::exception& error) {  // CLI11's reader on text that is hardly TOML
        return Exit{2, fmt::format("weftd: {}: {}\n", app["--config"]->as<std::string>(), error.what())};
    }
    if (const auto extras = app.remaining(); !extras.empty()) {
        std::vector<std::string> flags;
        for (const CLI::Option* option : app.get_options()) {
            for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
        }
        const std::string typed = extras.front().substr(0, extras.front().find('='));
        return Exit{
            2, fmt::format("weftd: unknown argument \"{}\"; did you mean {}?\n", typed, nearestName(typed, flags))};
    }

    config.logLevel = *parseLogLevel(level);
    for (const std::string& pool : pools) config.addressPools.push_back(*parseAddressPool(pool));
    config.gossip.stateDir = config.stateDir;
    if (const char* key = std::getenv("WEFT_KEY")) config.gossip.key = key;
    if (checkOnly) return Exit{0, "weftd: configuration is good\n"};
    return config;
}

}  // namespace weft::driver
