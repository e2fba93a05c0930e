#include "firewall/passage.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <sstream>
#include <string_view>

#include "firewall/nft_context.h"
#include "net/netlink.h"

namespace weft::firewall {

namespace {

constexpr int kAttempts = 5;  // others may change the table between our listing and our change
constexpr std::string_view kChain = "WEFT-FORWARD";
constexpr std::string_view kHook = "FORWARD";
constexpr std::string_view kUsers = "DOCKER-USER";
constexpr std::string_view kEngine = "DOCKER";
constexpr std::string_view kJump = "counter jump WEFT-FORWARD";

struct Rule {
    std::string text;
    std::string handle;
};

struct Chain {
    bool forwards = false;  // hooked at forward
    std::vector<Rule> rules;
};

using Chains = std::map<std::string, Chain>;

std::string_view trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The listing of a table that iptables-nft made: it holds chains only.
Chains parse(const std::string& listing) {
    constexpr std::string_view kHandle = " # handle ";
    Chains chains;
    Chain* chain = nullptr;
    std::istringstream lines(listing);
    for (std::string line; std::getline(lines, line);) {
        const std::string_view text = trimmed(line);
        const auto end = text.rfind(kHandle);
        if (text.starts_with("chain ")) {
            chain = &chains[std::string(text.substr(6, text.find(" {") - 6))];
        } else if (chain != nullptr && text.starts_with("type ")) {
            chain->forwards = text.find(" hook forward ") != std::string_view::npos;
        } else if (chain != nullptr && end != std::string_view::npos) {
            chain->rules.push_back(
                {std::string(trimmed(text.substr(0, end))), std::string(text.substr(end + kHandle.size()))});
        }
    }
    return chains;
}

// The chain a rule leads to; empty if none.
std::string_view targetOf(std::string_view rule) {
    for (const std::string_view word : {" jump ", " goto "}) {
        const auto at = rule.rfind(word);
        if (at != std::string_view::npos) return rule.substr(at + word.size());
    }
    return {};
}

bool isEngines(std::string_view chain) {
    return chain.starts_with(kEngine) && chain != kUsers;
}

// The link a rule names as output or input; empty if none, or any but one.
std::string outputOf(std::string_view rule) {
    constexpr std::string_view kOutput = "oifname \"";
    const auto at = rule.find(kOutput);
    if (at == std::string_view::npos) return {};
    const auto name = rule.substr(at + kOutput.size(), rule.find('"', at + kOutput.size()) - at - kOutput.size());
    return name.ends_with('*') ? std::string{} : std::string(name);
}

std::set<std::string> engineBridges(const Chains& chains, const std::set<std::string>& ours) {
    std::set<std::string> bridges;
    for (const auto& [name, chain] : chains) {
        for (const auto& rule : chain.rules) {
            if (!isEngines(name) && !(name == kHook && isEngines(targetOf(rule.text)))) continue;
            const auto link = outputOf(rule.text);
            if (!link.empty() && !ours.contains(link)) bridges.insert(link);
        }
    }
    return bridges;
}

std::vector<std::string> passageRules(const std::set<std::string>& engines, const std::set<std::string>& ours) {
    std::vector<std::string> rules;
    for (const auto& bridge : engines) rules.push_back("oifname \"" + bridge + "\" counter return");
    for (const auto& bridge : ours) rules.push_back("oifname \"" + bridge + "\" counter accept");
    for (const auto& bridge : ours) rules.push_back("iifname \"" + bridge + "\" counter accept");
    return rules;
}

// One table's change: the commands, and what they mend in words.
struct Plan {
    std::string table;
    std::string commands;
    std::vector<std::string> repairs;

    void add(const std::string& command) { commands += command + "\n"; }
    void report(const std::string& difference) { repairs.push_back(table + ": " + difference); }
    [[nodiscard]] std::string place(std::string_view chain) const { return table + " " + std::string(chain); }
};

void planRules(const Chains& chains, const std::vector<std::string>& wanted, Plan& plan) {
    const std::string place = plan.place(kChain);
    const auto found = chains.find(std::string(kChain));
    if (found == chains.end()) {
        plan.report("chain " + std::string(kChain) + " missing");
        plan.add("add chain " + place);
    } else {
        const auto same = [](const Rule& rule, const std::string& text) { return rule.text == text; };
        const auto& rules = found->second.rules;
        if (std::equal(rules.begin(), rules.end(), wanted.begin(), wanted.end(), same)) return;
        plan.report("chain " + std::string(kChain) + " has other rules");
        plan.add("flush chain " + place);
    }
    for (const auto& rule : wanted) plan.add("add rule " + place + " " + rule);
}

// The jump stands right when it is the only one, behind the users' chain and ahead of all that is the engine's; right
// behind the users' chain if the engine has rules ahead of that. Rules that a user put in front of it stay there.
void planJump(const std::vector<Rule>& forward, const std::set<std::string>& engines, Plan& plan) {
    const std::string place = plan.place(kHook);
    std::vector<size_t> ours;
    std::optional<size_t> users;
    size_t engineBegin = forward.size();
    for (size_t i = 0; i < forward.size(); ++i) {
        const auto target = targetOf(forward[i].text);
        if (target == kChain) {
            ours.push_back(i);
        } else if (target == kUsers) {
            users = i;
        } else if (isEngines(target) || engines.contains(outputOf(forward[i].text))) {
            engineBegin = std::min(engineBegin, i);
        }
    }
    if (ours.size() == 1 && forward[ours[0]].text == kJump) {
        const size_t jump = ours[0];
        if (users && jump == *users + 1) return;
        if ((!users || *users < jump) && jump < engineBegin) return;
    }
    plan.report(std::string("chain FORWARD: jump to WEFT-FORWARD ") + (ours.empty() ? "missing" : "out of place"));
    for (const size_t i : ours) plan.add("delete rule " + place + " handle " + forward[i].handle);
    if (users) {
        plan.add("add rule " + place + " handle " + forward[*users].handle + " " + std::string(kJump));
    } else {
        plan.add("insert rule " + place + " " + std::string(kJump));
    }
}

void planRemoval(const Chains& chains, Plan& plan) {
    bool held = false;  // by a jump that somebody else made: then an empty chain has to stay
    for (const auto& [name, chain] : chains) {
        for (const auto& rule : chain.rules) {
            if (targetOf(rule.text) != kChain) continue;
            if (name != kHook) {
                held = true;
                continue;
            }
            plan.report("chain FORWARD: jump to WEFT-FORWARD left over");
            plan.add("delete rule " + plan.place(kHook) + " handle " + rule.handle);
        }
    }
    const auto found = chains.find(std::string(kChain));
    if (found == chains.end() || (held && found->second.rules.empty())) return;
    plan.report("chain WEFT-FORWARD left over");
    plan.add("flush chain " + plan.place(kChain));
    if (!held) plan.add("delete chain " + plan.place(kChain));
}

Plan planFor(const std::string& table, const Chains& chains, const std::set<std::string>& bridges) {
    Plan plan{table, {}, {}};
    const auto forward = chains.find(std::string(kHook));
    if (forward == chains.end() || !forward->second.forwards) return plan;  // not a table that iptables-nft made
    if (bridges.empty()) {
        planRemoval(chains, plan);
    } else {
        const auto engines = engineBridges(chains, bridges);
        planRules(chains, passageRules(engines, bridges), plan);
        planJump(forward->second.rules, engines, plan);
    }
    return plan;
}

constexpr std::array kTables = {"ip filter", "ip6 filter"};

}  // namespace

bool isEngineBridgeName(std::string_view link) {
    const auto isHex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    return link == "docker0" || link == "docker_gwbridge" ||
           (link.size() == 15 && link.starts_with("br-") && std::all_of(link.begin() + 3, link.end(), isHex));
}

Result<std::set<std::string>> namedEngineBridges() {
    WEFT_ASSIGN(const auto netlink, net::Netlink::open());
    WEFT_ASSIGN(const auto links, netlink->listLinks({.kind = "bridge"}));
    std::set<std::string> bridges;
    for (const net::Link& link : links) {
        if (isEngineBridgeName(link.name)) bridges.insert(link.name);
    }
    return bridges;
}

Result<std::set<std::string>> nftEngineBridges(const std::set<std::string>& ours) {
    std::set<std::string> bridges;
    auto context = NftContext::open();
    if (!context) {
        if (context.error().code == ErrorCode::Unsupported) return bridges;
        return context.error();
    }
    for (const char* table : kTables) {
        const auto listing = context->list(table);
        if (!listing && listing.error().code == ErrorCode::NotFound) continue;
        if (!listing) return listing.error();
        bridges.merge(engineBridges(parse(*listing), ours));
    }
    return bridges;
}

Result<void> reconcileNftPassage(const std::set<std::string>& bridges, bool dryRun, std::vector<std::string>& repairs) {
    auto context = NftContext::open();
    if (!context) {
        if (context.error().code == ErrorCode::Unsupported) return {};
        return context.error();
    }
    for (const char* table : kTables) {
        for (int attempt = 1;; ++attempt) {
            const auto listing = context->list(table);
            if (!listing && listing.error().code == ErrorCode::NotFound) break;
            if (!listing) return listing.error();
            const Plan plan = planFor(table, parse(*listing), bridges);
            auto done = dryRun || plan.commands.empty() ? Result<std::string>("") : context->run(plan.commands);
            if (done) {
                repairs.insert(repairs.end(), plan.repairs.begin(), plan.repairs.end());
                break;
            }
            if (attempt == kAttempts) return done.error().within(std::string("passage through ") + table);
        }
    }
    return {};
}

}  // namespace weft::firewall
