// What the filter rules of both worlds, whoever's they are, do with one packet: read from the kernel and followed from
// chain to chain, without sending it. For weftctl trace.
//
// Conditions on links, addresses, protocol, port, conntrack state and destination type are understood. A rule with any
// other one matches perhaps, and so does one that looks into a named set; what it would drop is an Obstacle that is not
// certain. Tables of the back end nft (`inet weft`) are left out: they are maps, which its State tells better.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace weft::firewall {

enum class Hook : uint8_t { Prerouting, Input, Forward, Output, Postrouting };

// The first one of a flow. An ICMP packet is an echo request.
struct Packet {
    std::string in = {};  // link names; empty: none
    std::string out = {};
    IpAddress source = {};
    IpAddress destination = {};
    uint8_t protocol = 1;
    uint16_t port = 0;     // the destination's
    bool toLocal = false;  // the destination is the host's own address
    bool dnat = false;     // it was another before
};

// A rule or policy that stops the packet.
struct Obstacle {
    std::string place;  // "nft ip filter FORWARD", "iptables-legacy filter FORWARD"
    std::string rule;   // as the world's tool lists it, or "policy drop"
    std::string fix;    // what to type to have it gone
    bool certain = true;

    bool operator==(const Obstacle&) const = default;
};

// All there are at the hook, by the rules of the calling thread's namespace; certain ones first. Takes the xtables lock
// while it reads legacy tables.
Result<std::vector<Obstacle>> findObstacles(Hook hook, const Packet& packet);

// The same for a frame between two ports of a bridge, whose names are packet.in and .out.
Result<std::vector<Obstacle>> findBridgeObstacles(const Packet& packet);

// --- the parts, exposed for tests ---

enum class Applies : uint8_t { No, Maybe, Yes };
enum class Action : uint8_t { Continue, Accept, Drop, Return, Jump, Goto, Unknown };

// A rule as one packet sees it.
struct WalkedRule {
    std::string text = {};
    std::string fix = {};
    Applies match = Applies::Yes;
    Action action = Action::Continue;
    std::string target = {};  // of Jump and Goto
};
struct WalkedChain {
    std::string hook;    // "forward"; empty: only jumped to
    bool nat = false;    // its verdicts translate addresses and drop nothing
    bool drops = false;  // policy
    std::string policyFix;
    std::vector<WalkedRule> rules;
};
struct WalkedTable {
    std::string place;  // "nft ip filter"
    std::map<std::string, WalkedChain> chains;
};

// The obstacles on the way that begins at each chain of that hook.
std::vector<Obstacle> walk(const WalkedTable& table, std::string_view hook);

// The tables of a listing of `nft -n -a -t list ruleset`, of the packet's family or the named one.
std::vector<WalkedTable> parseRuleset(const std::string& listing, std::string_view family, const Packet& packet);

}  // namespace weft::firewall
