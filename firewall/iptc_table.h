// Makes the WEFT- chains of one legacy table equal to a description, in one commit.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "firewall/iptc_rule.h"

namespace weft::firewall::iptc {

inline constexpr const char* kChainPrefix = "WEFT-";  // every chain so named is weft's

struct Chain {
    std::string name;  // kChainPrefix and at most 23 characters
    std::vector<Rule> rules;
};

// The one rule in a built-in chain that leads to a certain chain of ours.
struct Hook {
    std::string builtin;
    // At the top, in FORWARD right behind DOCKER-USER, ahead of other hooks; else where it stands, new ones last.
    bool first = false;
    Rule rule;
};

// What a table should hold of ours; empty: nothing.
struct TableContent {
    std::vector<Chain> chains;
    std::vector<Hook> hooks;

    [[nodiscard]] bool empty() const { return chains.empty() && hooks.empty(); }
};

// Compares and repairs `table` ("mangle", "raw", "nat", "filter") of the calling thread's namespace. Adds a line to
// `repairs` for each difference. A table that is right is not committed: a commit resets nothing, but costs O(rules) in
// the kernel. Rules outside our chains are never touched, but for jumps into them. The caller holds the XtablesLock.
// Errors: Unsupported without legacy tables, Busy when others kept changing the table without the lock.
Result<void> reconcile(IpFamily family, const char* table, const TableContent& wanted, bool dryRun,
                       std::vector<std::string>& repairs);

// The bridges of the engine: the links that its chains name as output, in table `filter`; none without that table. The
// caller holds the XtablesLock.
Result<std::set<std::string>> engineBridges(IpFamily family);

// Whether the engine has chains in table `filter`. The caller holds the XtablesLock.
Result<bool> hasEngineChains(IpFamily family);

// A rule as the kernel has it.
struct RawRule {
    std::vector<uint8_t> entry;  // struct ipt_entry or ip6t_entry, with matches and target
    std::string target;          // libiptc's name for it: ACCEPT, a chain, an extension; empty: none
};
struct RawChain {
    std::string name;
    std::string policy;  // ACCEPT or DROP; empty: not built in
    std::vector<RawRule> rules;
};

// Every chain of a table; none without that table. The caller holds the XtablesLock.
Result<std::vector<RawChain>> readTable(IpFamily family, const char* table);

// Whether the calling thread's namespace has the table. Asking libiptc for an absent one would make it.
bool tableExists(IpFamily family, const char* table);

}  // namespace weft::firewall::iptc
