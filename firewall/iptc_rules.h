// The rules an intent means in the legacy tables.
#pragma once

#include <set>
#include <string>

#include "firewall/iptc_table.h"
#include "firewall/state.h"

namespace weft::firewall::iptc {

// The list of match `recent` that says whether the resolver answers (/proc/net/xt_recent/).
inline constexpr const char* kAnswering = "weft-dns";

// Endpoints of unknown or internal networks have no rules. A family without subnets has empty tables.
TableContent mangleTable(const State& state, IpFamily family);  // the tunnel's guard: nobody else accepts packets here
TableContent rawTable(const State& state, IpFamily family);
TableContent natTable(const State& state, IpFamily family);
// What enters one of state.engines stays the engine's to decide, but for what a network sends there past the host's
// address.
TableContent filterTable(const State& state, IpFamily family);

// The passage alone (firewall/passage.h), for a back end with no rules of its own here.
TableContent passageTable(const std::set<std::string>& bridges, const std::set<std::string>& engineBridges);

}  // namespace weft::firewall::iptc
