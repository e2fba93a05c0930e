#include "firewall/iptc_table.h"

#include <fcntl.h>
extern "C" {
#include <libiptc/libip6tc.h>  // does not say so itself
}
#include <libiptc/libiptc.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>

namespace weft::firewall::iptc {

namespace {

constexpr int kCommitAttempts = 10;
constexpr const char* kUsersChain = "DOCKER-USER";
constexpr std::string_view kEnginePrefix = "DOCKER";

struct V4 {
    using Entry = ipt_entry;
    static constexpr IpFamily kFamily = IpFamily::V4;
    static constexpr const char* kTablesFile = "/proc/thread-self/net/ip_tables_names";
    static constexpr const char* kWord = "ip";
    static constexpr const char* kModule = "iptable";
    static constexpr auto init = iptc_init;
    static constexpr auto free = iptc_free;
    static constexpr auto commit = iptc_commit;
    static const char* strerror(int reason) { return iptc_ops.strerror(reason); }
    static constexpr auto isBuiltin = iptc_builtin;
    static constexpr auto policy = iptc_get_policy;
    static constexpr auto firstChain = iptc_first_chain;
    static constexpr auto nextChain = iptc_next_chain;
    static constexpr auto createChain = iptc_create_chain;
    static constexpr auto flushChain = iptc_flush_entries;
    static constexpr auto deleteChain = iptc_delete_chain;
    static constexpr auto firstRule = iptc_first_rule;
    static constexpr auto nextRule = iptc_next_rule;
    static constexpr auto target = iptc_get_target;
    static constexpr auto insertRule = iptc_insert_entry;
    static constexpr auto appendRule = iptc_append_entry;
    static constexpr auto deleteRule = iptc_delete_num_entry;
};

struct V6 {
    using Entry = ip6t_entry;
    static constexpr IpFamily kFamily = IpFamily::V6;
    static constexpr const char* kTablesFile = "/proc/thread-self/net/ip6_tables_names";
    static constexpr const char* kWord = "ip6";
    static constexpr const char* kModule = "ip6table";
    static constexpr auto init = ip6tc_init;
    static constexpr auto free = ip6tc_free;
    static constexpr auto commit = ip6tc_commit;
    static const char* strerror(int reason) { return ip6tc_ops.strerror(reason); }
    static constexpr auto isBuiltin = ip6tc_builtin;
    static constexpr auto policy = ip6tc_get_policy;
    static constexpr auto firstChain = ip6tc_first_chain;
    static constexpr auto nextChain = ip6tc_next_chain;
    static constexpr auto createChain = ip6tc_create_chain;
    static constexpr auto flushChain = ip6tc_flush_entries;
    static constexpr auto deleteChain = ip6tc_delete_chain;
    static constexpr auto firstRule = ip6tc_first_rule;
    static constexpr auto nextRule = ip6tc_next_rule;
    static constexpr auto target = ip6tc_get_target;
    static constexpr auto insertRule = ip6tc_insert_entry;
    static constexpr auto appendRule = ip6tc_append_entry;
    static constexpr auto deleteRule = ip6tc_delete_num_entry;
};

// libiptc wants a char[32], whatever the name's length.
struct Label {
    explicit Label(std::string_view name) {
        assert(name.size() < XT_EXTENSION_MAXNAMELEN);
        std::copy(name.begin(), name.end(), text);
    }
    xt_chainlabel text{};
};

bool isOurs(std::string_view chain) {
    return chain.starts_with(kChainPrefix);
}
bool isEngines(std::string_view chain) {
    return chain.starts_with(kEnginePrefix) && chain != kUsersChain;
}

const char* outputOf(const ipt_entry& entry) {
    return (entry.ip.invflags & IPT_INV_VIA_OUT) == 0 ? entry.ip.outiface : "";
}
const char* outputOf(const ip6t_entry& entry) {
    return (entry.ipv6.invflags & IP6T_INV_VIA_OUT) == 0 ? entry.ipv6.outiface : "";
}

// A namespace gets a legacy table when it is first asked for; until then there is nothing in it to read.
template <typename F>
bool tableExistsAs(std::string_view table) {
    std::ifstream names(F::kTablesFile);
    for (std::string name; names >> name;) {
        if (name == table) return true;
    }
    return false;
}

// One table between iptc_init and iptc_commit. The first libiptc call that fails is kept and ends the work.
template <typename F>
class Editor {
public:
    Editor(xtc_handle* handle, const char* table, std::vector<std::string>& repairs)
        : handle_(handle), table_(table), repairs_(repairs) {}

    Result<void> edit(const TableContent& wanted) {
        std::set<std::string> doomed;
        for (const char* name = F::firstChain(handle_); name != nullptr; name = F::nextChain(handle_)) {
            if (isOurs(name)) doomed.insert(name);
            if (F::isBuiltin(name, handle_) != 0) builtins_.emplace_back(name);
        }
        for (const auto& chain : wanted.chains) {
            if (doomed.erase(chain.name) != 0) continue;
            report("chain " + chain.name + " missing");
            check(F::createChain(Label(chain.name).text, handle_), "create chain " + chain.name);
        }
        for (const auto& chain : wanted.chains) WEFT_TRY(editRules(chain));
        for (const auto& builtin : builtins_) {
            WEFT_TRY(removeHooks(builtin, wanted.hooks));
            for (const auto& hook : wanted.hooks) {
                if (hook.builtin == builtin) WEFT_TRY(editHook(hook));
            }
        }
        for (const auto& name : doomed) check(F::flushChain(Label(name).text, handle_), "flush chain " + name);
        for (const auto& name : doomed) {
            // A rule of somebody else's may still lead here: then an empty chain has to stay.
            if (F::deleteChain(Label(name).text, handle_) != 0) {
                report("chain " + name + " left over");
            } else if (errno != EMLINK) {
                check(0, "delete chain " + name);
            }
        }
        return std::move(outcome_);
    }

    [[nodiscard]] bool changed() const { return changed_; }

private:
    std::vector<const typename F::Entry*> rulesOf(const std::string& chain) {
        std::vector<const typename F::Entry*> rules;
        for (const auto* rule = F::firstRule(chain.c_str(), handle_); rule != nullptr;
             rule = F::nextRule(rule, handle_)) {
            rules.push_back(rule);
        }
        return rules;
    }

    bool same(const typename F::Entry* actual, const Rule& rule) {
        encode(rule, F::kFamily, scratch_);
        return sameRule(F::kFamily, actual, F::target(actual, handle_), scratch_);
    }

    // Keeps what is right at either end, with its counters, and replaces the rules between.
    Result<void> editRules(const Chain& chain) {
        const auto actual = rulesOf(chain.name);
        const auto& wanted = chain.rules;
        const size_t shorter = std::min(actual.size(), wanted.size());
        size_t head = 0;
        while (head < shorter && same(actual[head], wanted[head])) ++head;
        size_t tail = 0;
        while (tail < shorter - head && same(actual[actual.size() - 1 - tail], wanted[wanted.size() - 1 - tail])) {
            ++tail;
        }

        reportRules(chain, actual, head, tail);
        const Label label(chain.name);
        for (size_t i = actual.size() - tail; i > head; --i) {
            check(F::deleteRule(label.text, static_cast<unsigned>(head), handle_), "delete rule in " + chain.name);
        }
        for (size_t i = head; i < wanted.size() - tail; ++i) {
            encode(wanted[i], F::kFamily, scratch_);
            const auto* entry = reinterpret_cast<const typename F::Entry*>(scratch_.data());
            check(tail == 0 ? F::appendRule(label.text, entry, handle_)
                            : F::insertRule(label.text, entry, static_cast<unsigned>(i), handle_),
                  "add rule " + wanted[i].str());
        }
        return outcome_;
    }

    void reportRules(const Chain& chain, const std::vector<const typename F::Entry*>& actual, size_t head,
                     size_t tail) {
        std::vector<const typename F::Entry*> foreign(actual.begin() + static_cast<ptrdiff_t>(head),
                                                      actual.end() - static_cast<ptrdiff_t>(tail));
        const bool differs = !foreign.empty() || head + tail < chain.rules.size();
        const size_t before = repairs_.size();
        for (size_t i = head; i < chain.rules.size() - tail; ++i) {
            const auto found = std::find_if(foreign.begin(), foreign.end(),
                                            [&](const auto* entry) { return same(entry, chain.rules[i]); });
            if (found == foreign.end()) {
                report("chain " + chain.name + ": rule missing: " + chain.rules[i].str());
            } else {
                foreign.erase(found);
            }
        }
        if (!foreign.empty()) {
            report("chain " + chain.name + ": " + std::to_string(foreign.size()) + " rule(s) not ours");
        }
        if (differs && repairs_.size() == before) report("chain " + chain.name + ": rules out of order");
    }

    // Removes the jumps into our chains that no hook of `builtin` is about.
    Result<void> removeHooks(const std::string& builtin, const std::vector<Hook>& hooks) {
        const auto rules = rulesOf(builtin);
        for (size_t i = rules.size(); i > 0; --i) {
            const std::string target = F::target(rules[i - 1], handle_);
            const bool wanted = std::any_of(hooks.begin(), hooks.end(), [&](const Hook& hook) {
                return hook.builtin == builtin && hook.rule.target == target;
            });
            if (wanted || !isOurs(target)) continue;
            report("chain " + builtin + ": jump to " + target + " left over");
            check(F::deleteRule(Label(builtin).text, static_cast<unsigned>(i - 1), handle_),
                  "delete jump in " + builtin);
        }
        return outcome_;
    }

    // A hook stands right when it is the only jump into its chain and, if it has to come first, is ahead of the
    // engine's chains and of others of ours and behind the users'; right behind the users' if the engine has rules
    // ahead of that. Rules that a user put in front of it stay there.
    Result<void> editHook(const Hook& hook) {
        const std::string& builtin = hook.builtin;
        const auto rules = rulesOf(builtin);
        std::vector<size_t> ours;
        size_t usersEnd = 0;
        size_t othersBegin = rules.size();
        bool right = false;
        for (size_t i = 0; i < rules.size(); ++i) {
            const std::string_view target = F::target(rules[i], handle_);
            if (target == hook.rule.target) {
                ours.push_back(i);
                right = same(rules[i], hook.rule);
            } else if (target == kUsersChain) {
                usersEnd = i + 1;
            } else if (isEngines(target) || isOurs(target)) {
                othersBegin = std::min(othersBegin, i);
            }
        }
        if (ours.size() == 1 && right) {
            const size_t at = ours[0];
            if (!hook.first || at == usersEnd || (at > usersEnd && at < othersBegin)) return {};
        }

        const Label label(builtin);
        for (auto i = ours.rbegin(); i != ours.rend(); ++i) {
            check(F::deleteRule(label.text, static_cast<unsigned>(*i), handle_), "delete jump in " + builtin);
        }
        report("chain " + builtin + ": jump to " + hook.rule.target + (ours.empty() ? " missing" : " out of place"));
        size_t position = rules.size() - ours.size();
        if (hook.first) {
            position = usersEnd - static_cast<size_t>(
                                      std::count_if(ours.begin(), ours.end(), [&](size_t i) { return i < usersEnd; }));
        }
        encode(hook.rule, F::kFamily, scratch_);
        check(F::insertRule(label.text, reinterpret_cast<const typename F::Entry*>(scratch_.data()),
                            static_cast<unsigned>(position), handle_),
              "add jump to " + builtin);
        return outcome_;
    }

    void report(const std::string& difference) {
        changed_ = true;
        repairs_.push_back(std::string(F::kWord) + " " + table_ + ": " + difference);
    }

    // For libiptc's calls: 0 is failure, with the reason in errno.
    void check(int ok, const std::string& what) {
        const int reason = errno;
        if (ok != 0 || !outcome_) return;
        outcome_ = Error{ErrorCode::Kernel, what + ": " + F::strerror(reason), reason};
    }

    xtc_handle* handle_;
    const char* table_;
    std::vector<std::string>& repairs_;
    std::vector<std::string> builtins_;
    std::vector<uint8_t> scratch_;
    Result<void> outcome_;
    bool changed_ = false;
};

template <typename F>
Error tableError(int reason, const char* table) {
    const std::string where = std::string(F::kWord) + " table " + table;
    if (reason == ENOENT || reason == ENOPROTOOPT || reason == EPROTONOSUPPORT) {
        return Error{ErrorCode::Unsupported,
                     where + ": this kernel has no legacy tables (yet): modprobe " + F::kModule + "_" + table +
                         ", or start weftd with --firewall nft",
                     reason};
    }
    const auto code = reason == EPERM ? ErrorCode::PermissionDenied : ErrorCode::Kernel;
    return Error{code, where + ": " + F::strerror(reason), reason};
}

template <typename F>
Result<void> reconcileAs(const char* table, const TableContent& wanted, bool dryRun,
                         std::vector<std::string>& repairs) {
    if (wanted.empty() && !tableExistsAs<F>(table)) return {};
    const size_t known = repairs.size();
    for (int attempt = 0; attempt < kCommitAttempts; ++attempt) {
        repairs.resize(known);
        const std::unique_ptr<xtc_handle, decltype(F::free)> handle(F::init(table), F::free);
        if (handle == nullptr) {
            const int reason = errno;
            if (reason == EAGAIN) continue;  // the table grew between asking for its size and for its rules
            return tableError<F>(reason, table);
        }
        Editor<F> editor(handle.get(), table, repairs);
        WEFT_TRY(editor.edit(wanted));
        if (dryRun || !editor.changed()) return {};
        if (F::commit(handle.get()) != 0) return {};
        const int reason = errno;
        if (reason != EAGAIN) return tableError<F>(reason, table).within("commit");
    }
    return makeError(ErrorCode::Busy, std::string(F::kWord) + " table " + table +
                                          ": another program keeps changing it without the xtables lock");
}

template <typename F>
using Handle = std::unique_ptr<xtc_handle, decltype(F::free)>;

// For reading; null without the table.
template <typename F>
Result<Handle<F>> open(const char* table) {
    Handle<F> handle(nullptr, F::free);
    if (!tableExistsAs<F>(table)) return handle;
    for (int attempt = 0; handle == nullptr; ++attempt) {
        handle.reset(F::init(table));
        const int reason = errno;
        if (handle == nullptr && (reason != EAGAIN || attempt == kCommitAttempts)) return tableError<F>(reason, table);
    }
    return handle;
}

template <typename F>
Result<bool> hasEngineChainsAs() {
    WEFT_ASSIGN(const auto handle, open<F>("filter"));
    if (handle == nullptr) return false;
    for (const char* chain = F::firstChain(handle.get()); chain != nullptr; chain = F::nextChain(handle.get())) {
        if (isEngines(chain)) return true;
    }
    return false;
}

template <typename F>
Result<std::set<std::string>> engineBridgesAs() {
    std::set<std::string> bridges;
    WEFT_ASSIGN(const auto handle, open<F>("filter"));
    if (handle == nullptr) return bridges;
    for (const char* chain = F::firstChain(handle.get()); chain != nullptr; chain = F::nextChain(handle.get())) {
        const bool forward = std::string_view(chain) == "FORWARD";
        if (!forward && !isEngines(chain)) continue;
        for (const auto* rule = F::firstRule(chain, handle.get()); rule != nullptr;
             rule = F::nextRule(rule, handle.get())) {
            const std::string link = outputOf(*rule);
            if (link.empty() || link.back() == '+') continue;
            if (!forward || isEngines(F::target(rule, handle.get()))) bridges.insert(link);
        }
    }
    return bridges;
}

template <typename F>
Result<std::vector<RawChain>> readTableAs(const char* table) {
    std::vector<RawChain> chains;
    WEFT_ASSIGN(const auto handle, open<F>(table));
    if (handle == nullptr) return chains;
    for (const char* name = F::firstChain(handle.get()); name != nullptr; name = F::nextChain(handle.get())) {
        RawChain& chain = chains.emplace_back();
        chain.name = name;
        if (F::isBuiltin(name, handle.get()) != 0) {
            xt_counters counters{};
            chain.policy = F::policy(name, &counters, handle.get());
        }
        for (const auto* rule = F::firstRule(name, handle.get()); rule != nullptr;
             rule = F::nextRule(rule, handle.get())) {
            const auto* bytes = reinterpret_cast<const uint8_t*>(rule);
            chain.rules.push_back({{bytes, bytes + rule->next_offset}, F::target(rule, handle.get())});
        }
    }
    return chains;
}

}  // namespace

Result<std::vector<RawChain>> readTable(IpFamily family, const char* table) {
    return family == IpFamily::V4 ? readTableAs<V4>(table) : readTableAs<V6>(table);
}

Result<std::set<std::string>> engineBridges(IpFamily family) {
    return family == IpFamily::V4 ? engineBridgesAs<V4>() : engineBridgesAs<V6>();
}

Result<bool> hasEngineChains(IpFamily family) {
    return family == IpFamily::V4 ? hasEngineChainsAs<V4>() : hasEngineChainsAs<V6>();
}

bool tableExists(IpFamily family, const char* table) {
    return family == IpFamily::V4 ? tableExistsAs<V4>(table) : tableExistsAs<V6>(table);
}

Result<void> reconcile(IpFamily family, const char* table, const TableContent& wanted, bool dryRun,
                       std::vector<std::string>& repairs) {
    return family == IpFamily::V4 ? reconcileAs<V4>(table, wanted, dryRun, repairs)
                                  : reconcileAs<V6>(table, wanted, dryRun, repairs);
}

}  // namespace weft::firewall::iptc
