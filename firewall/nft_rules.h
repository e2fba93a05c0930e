// The table `inet weft` that an intent means, as a value that can be written, read back and compared.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "firewall/state.h"

namespace weft::firewall::nft {

inline constexpr const char* kTable = "inet weft";

// A datagram to port 53 of loopback with this mark, which only an administrator can give it, says that the resolver
// answers: on its way out it puts the port into set `answering` for a second. So this changes no rule set, and nobody
// who watches the rules wakes up. It is dropped there.
inline constexpr uint32_t kVouchMark = 0x77656674;
inline constexpr const char* kAnswering = "answering";

// Elements by set; key to value, which is empty in a set that is no map. Spelt with numbers, as nft --numeric lists
// them.
using Elements = std::map<std::string, std::map<std::string, std::string>>;

struct Table {
    std::map<std::string, std::string> sets;                 // name to its declaration
    std::map<std::string, std::vector<std::string>> chains;  // name to its rules; a base chain's first line is its hook
    Elements elements;
};

// A network's part without its endpoints.
Elements networkElements(const Network& network);

// An endpoint's part: only elements, so that publishing costs the same whatever else is published. Empty for one of an
// unknown or internal network.
Elements endpointElements(const State& state, const Endpoint& endpoint);

Elements tunnelElements(const State& state);

// The resolver's port, and the networks whose queries go there.
Elements resolverElements(const State& state);

// What a network changes beside its own part: the two above, and the engine's bridges, towards which it is narrowed.
Elements sharedElements(const State& state);

Table tableOf(const State& state);

// The table that NftContext::list() printed, without elements.
Table parseListing(const std::string& listing);

// One line for each difference that a person should know of.
std::vector<std::string> differences(const Table& wanted, const Table& found);

// Whether two tables have sets and chains of the same names, and as many rules.
bool sameShape(const Table& one, const Table& other);

// The elements of `all` that `others` lacks or maps to another value.
Elements without(const Elements& all, const Elements& others);

// Commands that put `table` in the place of whatever stands under its name.
std::string replaceCommands(const Table& table);
// Commands that take elements out and then put elements in; empty if there are none.
std::string changeCommands(const Elements& gone, const Elements& come);

}  // namespace weft::firewall::nft
