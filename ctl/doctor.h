// weftctl's half of the doctor: what weftd cannot look at itself. weftd never asks the engine, for it would wait for a
// lock that the engine holds while it waits for weftd.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace weft::ctl {

// `COMMAND -S FORWARD` of one of the host's iptables.
struct ForwardChain {
    std::string command;  // "iptables-nft"
    std::string rules;
};

// Answers are JSON texts as they came; an empty one was not to be had.
struct HostView {
    std::string weftError;  // why weftd does not answer; empty: it does
    std::string status, networks, endpoints, checks;
    std::vector<std::string> deafSockets;  // modes whose plugin socket did not answer, with why
    std::string engineSocket;
    std::string engineNetworks;    // GET /networks
    std::string engineContainers;  // GET /containers/json
    std::vector<ForwardChain> forward;
};

// weftd's own checks and ours: plugin sockets, Docker's view of networks and containers against weft's, FORWARD chains.
// Pure: JSON in, {"checks": [...]} out, each check as weftd's own are.
std::string examine(const HostView& host);

// The FORWARD chains there are. Lists the legacy one only where it is in use: listing would bring it into being, and
// two worlds of rules are harder to keep right than one.
std::vector<ForwardChain> readForwardChains();

}  // namespace weft::ctl
