// Reads the listing of nf_tables for firewall/packet_walk.h.
#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>

#include "base/protocol.h"
#include "firewall/nft_rules.h"
#include "firewall/packet_walk.h"

namespace weft::firewall {

namespace {

using Words = std::vector<std::string>;

// Of conntrack.
constexpr uint64_t kNew = 0x8;
constexpr uint64_t kDnat = 0x20;

// By blanks, but for those in quotes, which stay around their word.
Words wordsOf(std::string_view text) {
    Words words;
    bool quoted = false;
    bool begun = false;
    for (const char c : text) {
        if (!quoted && (c == ' ' || c == '\t' || c == '\n')) {
            begun = false;
            continue;
        }
        if (c == '"') quoted = !quoted;
        if (!begun) words.emplace_back();
        begun = true;
        words.back() += c;
    }
    return words;
}

std::optional<uint64_t> number(std::string_view text) {
    const bool hex = text.starts_with("0x");
    if (hex) text.remove_prefix(2);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, hex ? 16 : 10);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

Applies matched(bool does) {
    return does ? Applies::Yes : Applies::No;
}

Applies sameNumber(std::string_view value, uint64_t actual) {
    if (const auto single = number(value)) return matched(*single == actual);
    const size_t dash = value.find('-');
    const auto low = number(value.substr(0, dash));
    const auto high = dash == std::string_view::npos ? std::nullopt : number(value.substr(dash + 1));
    if (!low || !high) return Applies::Maybe;
    return matched(*low <= actual && actual <= *high);
}

Applies sameAddress(std::string_view value, const IpAddress& actual) {
    if (const auto prefix = IpPrefix::parse(value)) return matched(prefix->contains(actual));
    if (const auto single = IpAddress::parse(value)) return matched(*single == actual);
    const size_t dash = value.find('-');
    if (dash == std::string_view::npos) return Applies::Maybe;
    const auto low = IpAddress::parse(value.substr(0, dash));
    const auto high = IpAddress::parse(value.substr(dash + 1));
    if (!low || !high) return Applies::Maybe;
    return matched(*low <= actual && actual <= *high);
}

Applies sameLink(std::string_view value, std::string_view actual) {
    if (value.size() < 2 || value.front() != '"') return Applies::Maybe;
    value = value.substr(1, value.size() - 2);
    if (value.ends_with('*')) return matched(actual.starts_with(value.substr(0, value.size() - 1)));
    return matched(value == actual);
}

// "0x2,0x4": one of them.
Applies sameBits(std::string_view value, uint64_t actual) {
    uint64_t mask = 0;
    for (size_t begin = 0; begin <= value.size();) {
        const size_t end = std::min(value.find(',', begin), value.size());
        const auto bit = number(value.substr(begin, end - begin));
        if (!bit) return Applies::Maybe;
        mask |= *bit;
        begin = end + 1;
    }
    return matched((mask & actual) != 0);
}

bool isIn(std::string_view word, std::initializer_list<std::string_view> those) {
    return std::find(those.begin(), those.end(), word) != those.end();
}

// One rule against one packet. The listing is in numbers, as nft_rules.cpp says.
class Reader {
public:
    Reader(Words words, const Packet& packet) : words_(std::move(words)), packet_(packet) {}

    WalkedRule read() {
        readVerdict();
        while (at_ < words_.size() && understands()) {
        }
        return std::move(rule_);
    }

private:
    // It is last, but for a reject's reason and the comment.
    void readVerdict() {
        const auto comment = std::find(words_.begin(), words_.end(), "comment");
        words_.erase(comment, words_.end());
        const auto reject = std::find(words_.begin(), words_.end(), "reject");
        if (reject != words_.end()) {
            rule_.action = Action::Drop;
            words_.erase(reject, words_.end());
            return;
        }
        if (std::any_of(words_.begin(), words_.end(), [](const std::string& word) {
                return isIn(word, {"vmap", "queue"});
            })) {
            rule_.action = Action::Unknown;
            return;
        }
        if (words_.empty()) return;
        const std::string last = words_.back();
        if (last == "accept") rule_.action = Action::Accept;
        if (last == "drop") rule_.action = Action::Drop;
        if (last == "return") rule_.action = Action::Return;
        if (rule_.action != Action::Continue) {
            words_.pop_back();
        } else if (words_.size() >= 2 && isIn(words_[words_.size() - 2], {"jump", "goto"})) {
            rule_.action = words_[words_.size() - 2] == "jump" ? Action::Jump : Action::Goto;
            rule_.target = last;
            words_.resize(words_.size() - 2);
        }
    }

    std::string take() { return at_ < words_.size() ? words_[at_++] : std::string(); }

    bool giveUp() {
        rule_.match = std::min(rule_.match, Applies::Maybe);
        return false;
    }

    bool fails() {
        rule_.match = Applies::No;
        return false;
    }

    // The next condition or statement. False: nothing behind it can change what is known.
    bool understands() {
        std::string word = take();
        if (word == "counter" || word == "log") return skipStatement();
        if (word == "meta") word = take();
        if (isIn(word, {"iifname", "iif"})) return compare([&](auto value) { return sameLink(value, packet_.in); });
        if (isIn(word, {"oifname", "oif"})) return compare([&](auto value) { return sameLink(value, packet_.out); });
        if (word == "nfproto") {
            return compare([&](auto value) { return sameNumber(value, packet_.destination.isV4() ? 2 : 10); });
        }
        if (word == "l4proto") return compare([&](auto value) { return sameNumber(value, packet_.protocol); });
        if (isIn(word, {"ip", "ip6"})) return header(word);
        if (isIn(word, {"tcp", "udp", "sctp", "th"})) return transport(word);
        if (isIn(word, {"icmp", "icmpv6"})) return icmp(word);
        if (word == "ct") return conntrack();
        if (word == "fib" && take() == "daddr" && take() == "type") {
            return compare([&](auto value) { return fibType(value); });
        }
        return giveUp();
    }

    bool skipStatement() {
        while (at_ < words_.size() && isIn(words_[at_], {"packets", "bytes", "prefix", "level", "flags", "group",
                                                         "snaplen", "queue-threshold"})) {
            at_ += 2;
        }
        return true;
    }

    bool header(const std::string& protocol) {
        // In a table of both families the condition is also one on the family.
        if (packet_.destination.isV4() != (protocol == "ip")) return fails();
        const std::string field = take();
        if (field == "saddr") return compare([&](auto value) { return sameAddress(value, packet_.source); });
        if (field == "daddr") return compare([&](auto value) { return sameAddress(value, packet_.destination); });
        if (isIn(field, {"protocol", "nexthdr"})) {
            return compare([&](auto value) { return sameNumber(value, packet_.protocol); });
        }
        return giveUp();
    }

    bool transport(const std::string& protocol) {
        if (protocol != "th" && protocol != protocolName(packet_.protocol)) return fails();
        if (take() != "dport") return giveUp();
        return compare([&](auto value) { return sameNumber(value, packet_.port); });
    }

    bool icmp(const std::string& protocol) {
        if (packet_.protocol != (protocol == "icmp" ? 1 : 58)) return fails();
        if (take() != "type") return giveUp();
        return compare([&](auto value) { return sameNumber(value, protocol == "icmp" ? 8 : 128); });
    }

    bool conntrack() {
        const std::string field = take();
        if (field == "state") return compare([](auto value) { return sameBits(value, kNew); });
        if (field == "status") return compare([&](auto value) { return sameBits(value, packet_.dnat ? kDnat : 0); });
        return giveUp();
    }

    Applies fibType(std::string_view value) const {
        constexpr uint64_t kLocal = 2;
        const auto type = number(value);
        if (!type) return Applies::Maybe;
        if (*type == kLocal) return matched(packet_.toLocal);
        return packet_.toLocal ? Applies::No : Applies::Maybe;
    }

    // [!=] VALUE or [!=] { VALUE, ... }
    template <typename Compare>
    bool compare(Compare same) {
        std::string word = take();
        const bool inverted = word == "!=" || word == "!";
        if (inverted) word = take();
        if (word.empty() || isIn(word, {".", "set", "and", "or", "&", "<", ">", "<=", ">="})) return giveUp();
        Applies match = Applies::No;
        if (word == "{") {
            for (word = take(); !word.empty() && word != "}"; word = take()) {
                if (word.back() == ',') word.pop_back();
                match = std::max(match, same(word));
            }
        } else {
            match = same(word);
        }
        if (inverted && match != Applies::Maybe) match = matched(match == Applies::No);
        rule_.match = std::min(rule_.match, match);
        return match != Applies::No;
    }

    Words words_;
    const Packet& packet_;
    size_t at_ = 0;
    WalkedRule rule_;
};

// "type filter hook forward priority 0; policy drop;"
void readHook(const Words& words, WalkedChain& chain) {
    for (size_t i = 0; i + 1 < words.size(); ++i) {
        if (words[i] == "type") chain.nat = words[i + 1] == "nat";
        if (words[i] == "hook") chain.hook = words[i + 1];
        if (words[i] == "policy") chain.drops = words[i + 1] == "drop;";
    }
}

WalkedRule readRule(std::string_view line, const Packet& packet) {
    Words words = wordsOf(line);
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
    WalkedRule rule = Reader(std::move(words), packet).read();
    rule.text = std::move(text);
    return rule;
}

std::string policyFix(const std::string& chain, const Packet& packet) {
    std::string fix = "nft insert rule " + chain;
    if (!packet.in.empty()) fix += " iifname " + packet.in;
    if (!packet.out.empty()) fix += " oifname " + packet.out;
    return fix + " accept";
}

}  // namespace

std::vector<WalkedTable> parseRuleset(const std::string& listing, std::string_view family, const Packet& packet) {
    constexpr std::string_view kHandle = " # handle ";
    std::vector<WalkedTable> tables;
    std::string table;  // "ip filter"; empty: one of no concern
    std::string chainName;
    WalkedChain* chain = nullptr;
    std::string pending;  // of a rule that goes over several lines
    std::istringstream lines(listing);
    for (std::string line; std::getline(lines, line);) {
        const Words words = wordsOf(line);
        if (words.empty()) continue;
        if (words[0] == "table" && words.size() > 2) {
            const bool concerns = words[1] == family || (words[1] == "inet" && family != "bridge");
            table = concerns ? words[1] + " " + words[2] : std::string();
            if (table == nft::kTable) table.clear();
            if (!table.empty()) tables.push_back({"nft " + table, {}});
            chain = nullptr;
        } else if (words[0] == "chain" && words.size() > 2 && !table.empty()) {
            chainName = words[1];
            chain = &tables.back().chains[chainName];
            chain->policyFix = policyFix(table + " " + chainName, packet);
        } else if (words[0] == "}" && pending.empty()) {
            chain = nullptr;
        } else if (chain == nullptr || words[0] == "comment") {
            continue;
        } else if (words[0] == "type" && pending.empty()) {
            readHook(words, *chain);
        } else {
            pending += line;
            const size_t end = pending.rfind(kHandle);
            if (end == std::string::npos) continue;
            WalkedRule rule = readRule(std::string_view(pending).substr(0, end), packet);
            rule.fix = "nft delete rule " + table + " " + chainName + " handle " + pending.substr(end + kHandle.size());
            chain->rules.push_back(std::move(rule));
            pending.clear();
        }
    }
    return tables;
}

}  // namespace weft::firewall
