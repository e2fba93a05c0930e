// weftd's settings, from the command line and /etc/weft/weftd.toml. The command line wins.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "ipam/local_ipam.h"
#include "kv/service.h"

namespace weft::driver {

inline constexpr const char* kConfigFile = "/etc/weft/weftd.toml";

struct Config {
    std::string pluginDir = "/run/docker/plugins";
    std::string stateDir = "/var/lib/weft";
    std::string runDir = "/run/weft";
    std::string firewall = "auto";  // auto, iptc, nft
    LogLevel logLevel = LogLevel::Info;
    std::string metrics;                           // ADDRESS:PORT on loopback; empty: only on the control socket
    std::string web;                               // ADDRESS:PORT on loopback of the web page; empty: none
    std::vector<ipam::DefaultRange> addressPools;  // empty: ipam's own
    kv::ServiceConfig gossip;                      // its stateDir is the one above
    uint16_t vxlanPort = 4789;
    uint16_t dnsPort = 7953;                        // UDP and TCP; 0: no names across hosts
    std::string domain = "weft";                    // names may end with it; lower case, without dots around it
    std::string dockerSocket = "/run/docker.sock";  // the engine's API
    std::vector<std::string> labels;                // of this host, for networks that are meant for some hosts only
    bool swarm = false;                             // serves Swarm's engine alone, as a managed plugin
};

// "10.208.0.0/12/24": subnets of 24 bits out of 10.208.0.0/12. InvalidArgument.
Result<ipam::DefaultRange> parseAddressPool(std::string_view text);

// Asked for --help, --version or --check-config, or made a mistake: print and end.
struct Exit {
    int status = 0;
    std::string text;
};

// Every flag is a key of the same name in the file and a variable of the environment: WEFT_LOG_LEVEL is --log-level.
// Flags win over the file, the file over the environment; an empty variable counts as absent. Messages name the flag or
// key at fault and, for an unknown one, the nearest there is. Called again on SIGHUP with the same arguments, for the
// log level.
std::variant<Config, Exit> parseCommandLine(int argc, const char* const* argv);

}  // namespace weft::driver
