#include "firewall/packet_walk.h"

#include <algorithm>
#include <array>

#include "firewall/iptc_walk.h"
#include "firewall/nft_context.h"

namespace weft::firewall {

namespace {

constexpr std::array<std::string_view, 5> kHooks{"prerouting", "input", "forward", "output", "postrouting"};
constexpr int kMaxDepth = 32;  // the kernel refuses loops, a listing cut short does not

// One way through a table.
class Walk {
public:
    explicit Walk(const WalkedTable& table) : table_(table) {}

    std::vector<Obstacle> from(const std::string& name, const WalkedChain& chain) {
        if (follow(name, chain, true, 0) == Action::Continue && chain.drops) {
            report(name, "policy drop", chain.policyFix, true);
        }
        return std::move(found_);
    }

private:
    // Continue: what called it goes on behind the jump.
    Action follow(const std::string& name, const WalkedChain& chain, bool sure, int depth) {
        for (const WalkedRule& rule : chain.rules) {
            if (rule.match == Applies::No || rule.action == Action::Continue) continue;
            const bool matches = rule.match == Applies::Yes;
            const Action verdict = act(name, rule, sure && matches, depth);
            if (matches && verdict != Action::Continue) return verdict == Action::Return ? Action::Continue : verdict;
            if (matches && rule.action == Action::Goto) return Action::Continue;
            // Perhaps the packet is not here any more.
            if (verdict == Action::Return || rule.action == Action::Goto) sure = false;
            if (verdict == Action::Accept) mayHavePassed_ = true;
        }
        return Action::Continue;
    }

    Action act(const std::string& name, const WalkedRule& rule, bool sure, int depth) {
        switch (rule.action) {
            case Action::Drop:
                report(name, rule.text, rule.fix, sure);
                return Action::Drop;
            case Action::Unknown:
                report(name, rule.text, rule.fix, false);
                mayHavePassed_ = true;
                return Action::Continue;
            case Action::Jump:
            case Action::Goto: {
                const auto next = table_.chains.find(rule.target);
                if (next == table_.chains.end() || depth == kMaxDepth) return Action::Continue;
                return follow(next->first, next->second, sure, depth + 1);
            }
            default:
                return rule.action;
        }
    }

    void report(const std::string& chain, const std::string& rule, const std::string& fix, bool sure) {
        found_.push_back({table_.place + " " + chain, rule, fix, sure && !mayHavePassed_});
    }

    const WalkedTable& table_;
    std::vector<Obstacle> found_;
    bool mayHavePassed_ = false;
};

Result<void> addNft(std::string_view family, std::string_view hook, const Packet& packet,
                    std::vector<Obstacle>& found) {
    auto context = NftContext::open();
    if (!context) {
        if (context.error().code == ErrorCode::Unsupported) return {};
        return context.error();
    }
    WEFT_ASSIGN(const std::string listing, context->run("list ruleset"));
    for (const WalkedTable& table : parseRuleset(listing, family, packet)) {
        for (Obstacle& obstacle : walk(table, hook)) found.push_back(std::move(obstacle));
    }
    return {};
}

void certainFirst(std::vector<Obstacle>& found) {
    std::stable_partition(found.begin(), found.end(), [](const Obstacle& obstacle) { return obstacle.certain; });
}

}  // namespace

std::vector<Obstacle> walk(const WalkedTable& table, std::string_view hook) {
    std::vector<Obstacle> found;
    for (const auto& [name, chain] : table.chains) {
        if (chain.hook != hook || chain.nat) continue;
        for (Obstacle& obstacle : Walk(table).from(name, chain)) found.push_back(std::move(obstacle));
    }
    return found;
}

Result<std::vector<Obstacle>> findObstacles(Hook hook, const Packet& packet) {
    std::vector<Obstacle> found;
    const std::string_view name = kHooks.at(static_cast<size_t>(hook));
    WEFT_TRY(addNft(packet.destination.isV4() ? "ip" : "ip6", name, packet, found));
    WEFT_ASSIGN(const auto tables, iptc::readTables(packet));
    for (const WalkedTable& table : tables) {
        for (Obstacle& obstacle : walk(table, name)) found.push_back(std::move(obstacle));
    }
    certainFirst(found);
    return found;
}

Result<std::vector<Obstacle>> findBridgeObstacles(const Packet& packet) {
    std::vector<Obstacle> found;
    WEFT_TRY(addNft("bridge", "forward", packet, found));
    certainFirst(found);
    return found;
}

}  // namespace weft::firewall
