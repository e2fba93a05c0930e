// weftctl's half of the doctor: what weftd cannot look at itself. weftd never asks the engine, for it would wait for a
// lock that the engine holds while it waits for weftd.
#pragma once

#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

namespace weft::ctl {

// `COMMAND -S FORWARD` of one of the host's iptables.
struct ForwardChain {
    std::string command;  // "iptables-nft"
    std::string rules;
};

// How the engine was started, as far as can be seen.
struct EngineSettings {
    std::vector<std::string> arguments;  // dockerd's; empty: not known
    std::string path = "/etc/docker/daemon.json";
    std::string text;  // of that file; empty: there is none
};

// Answers are JSON texts as they came; an empty one was not to be had.
struct HostView {
    std::string weftError;  // why weftd does not answer; empty: it does
    std::string status, networks, endpoints, pools, checks;
    std::vector<std::string> deafSockets;  // modes whose plugin socket did not answer, with why
    std::string engineSocket;
    std::string engineNetworks;    // GET /networks
    std::string engineContainers;  // GET /containers/json
    std::string engineVersion;     // GET /version
    EngineSettings engineSettings;
    std::vector<std::string> nameServers;  // of the host
    std::vector<ForwardChain> forward;
};

// weftd's own checks and ours: plugin sockets, Docker's view of networks and containers against weft's, FORWARD chains,
// and whether the engine lets weftd see queries for names.
// Pure: JSON in, {"checks": [...]} out, each check as weftd's own are.
std::string examine(const HostView& host);

// The FORWARD chains there are. Lists the legacy one only where it is in use: listing would bring it into being, and
// two worlds of rules are harder to keep right than one.
std::vector<ForwardChain> readForwardChains();

EngineSettings readEngineSettings();

// The addresses in a resolv.conf(5) that containers can ask, too: no loopback ones.
std::vector<std::string> nameServersIn(std::istream& resolvConf);
std::vector<std::string> readNameServers();

}  // namespace weft::ctl
