// The passage: weft's traffic through the filter tables of the engine, which drop what the engine does not know.
//
// Whatever the back end, packets cross the iptables rules of both worlds (nf_tables and legacy), and one drop is
// enough. So in every filter table there is, FORWARD gets a jump to WEFT-FORWARD, behind DOCKER-USER (whose rules keep
// their say) and ahead of the engine's own chains:
//     -o D -j RETURN          for each bridge D of the engine: what enters it stays the engine's to decide
//     -o B -j ACCEPT          for each bridge B of weft: weft's own rules have decided
//     -i B -j ACCEPT
// The engine's bridges are the links its chains name as output. No table is made where there is none.
//
// Each call reads the tables, compares and repairs in one transaction a table, adding a line to `repairs` for each
// difference; with dryRun it only adds the lines. No bridges: the passage is removed. Any thread, in the namespace
// of the calling one; a caller keeps two of its calls from running at once.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace weft::firewall {

// Tables `ip filter` and `ip6 filter` of nf_tables, as iptables-nft makes them; it can still list and save them.
Result<void> reconcileNftPassage(const std::set<std::string>& bridges, bool dryRun, std::vector<std::string>& repairs);

// The engine's bridges that each world's tables know of, without `ours`; none where there are no such tables. Engines
// before 28 open a published port at the container's own address to everybody, so back ends drop what a bridge of weft
// sends to one of these unless it was DNATed. The legacy one takes the xtables lock.
Result<std::set<std::string>> nftEngineBridges(const std::set<std::string>& ours);
Result<std::set<std::string>> legacyEngineBridges(const std::set<std::string>& ours);

// A name that the engine gives its bridges by itself.
bool isEngineBridgeName(std::string_view link);
// The bridges there are with such names: what can be known of them with "iptables": false, where no table names them.
Result<std::set<std::string>> namedEngineBridges();

// The legacy tables, for a back end that has no rules of its own there: removes other WEFT- chains from `filter`.
Result<void> reconcileLegacyPassage(const std::set<std::string>& bridges, bool dryRun,
                                    std::vector<std::string>& repairs);

}  // namespace weft::firewall
