#include "firewall/iptc.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "base/unique_fd.h"
#include "firewall/iptc_lock.h"
#include "firewall/iptc_rules.h"
#include "firewall/iptc_table.h"
#include "firewall/passage.h"

namespace weft::firewall {

namespace {

using namespace iptc;

constexpr auto kLockPatience = std::chrono::seconds(4);

using Families = std::set<IpFamily>;
const Families kBothFamilies = {IpFamily::V4, IpFamily::V6};

// Opening commits guards before mappings, closing the other way round: no packet finds a mapping without its guard.
enum class Order : uint8_t { Opening, Closing };

constexpr std::array kTables = {"mangle", "raw", "filter", "nat"};
constexpr std::span<const char* const> kTablesOfEndpoints = std::span(kTables).subspan<1>();

struct Scope {
    Families families;
    std::span<const char* const> tables;
};
const Scope kEverything{kBothFamilies, kTables};

std::set<std::string> bridgesOf(const State& state) {
    std::set<std::string> bridges;
    for (const auto& [id, network] : state.networks) bridges.insert(network.bridge);
    return bridges;
}

TableContent contentOf(std::string_view table, const State& state, IpFamily family) {
    if (table == "mangle") return mangleTable(state, family);
    if (table == "raw") return rawTable(state, family);
    if (table == "nat") return natTable(state, family);
    return filterTable(state, family);
}

// Exchanges map[key] with `value`, where nothing stands for an absent entry.
template <typename Map>
void exchange(Map& map, const typename Map::key_type& key, std::optional<typename Map::mapped_type>& value) {
    std::optional<typename Map::mapped_type> old;
    if (const auto found = map.find(key); found != map.end()) {
        old = std::move(found->second);
        map.erase(found);
    }
    if (value) map.emplace(key, *std::move(value));
    value = std::move(old);
}

class IptcFirewall final : public Firewall {
public:
    [[nodiscard]] Backend backend() const override { return Backend::Iptc; }

    Result<void> setNetwork(const Network& network) override {
        return changeNetwork(network.id, network, Order::Opening).within("firewall network " + network.id.brief());
    }
    Result<void> removeNetwork(const NetworkId& id) override {
        return changeNetwork(id, std::nullopt, Order::Closing).within("firewall network " + id.brief());
    }
    Result<void> setEndpoint(const Endpoint& endpoint) override {
        return changeEndpoint(endpoint.id, endpoint, Order::Opening).within("firewall endpoint " + endpoint.id.brief());
    }
    Result<void> removeEndpoint(const EndpointId& id) override {
        return changeEndpoint(id, std::nullopt, Order::Closing).within("firewall endpoint " + id.brief());
    }

    Result<void> setTunnel(const Tunnel& tunnel) override {
        WEFT_ASSIGN(const auto lock, XtablesLock::take(kLockPatience));
        Tunnel previous = std::exchange(state_.tunnel, tunnel);
        if (!written_) return {};
        std::vector<std::string> repairs;
        auto applied = apply(state_, kEverything, Order::Opening, false, repairs);
        if (!applied) state_.tunnel = std::move(previous);
        return std::move(applied).within("firewall tunnel");
    }

    Result<void> setResolver(uint16_t port) override {
        WEFT_ASSIGN(const auto lock, XtablesLock::take(kLockPatience));
        const uint16_t previous = std::exchange(state_.resolver, port);
        if (!written_) return {};
        std::vector<std::string> repairs;
        auto applied = apply(state_, kEverything, Order::Opening, false, repairs);
        if (!applied) state_.resolver = previous;
        return std::move(applied).within("firewall resolver");
    }

    void vouch() override {
        const std::string list = std::string("/proc/thread-self/net/xt_recent/") + kAnswering;
        for (const std::string_view any : {"+0.0.0.0\n", "+::\n"}) {
            const UniqueFd fd(::open(list.c_str(), O_WRONLY | O_CLOEXEC));  // which takes one line
            if (!fd) return;
            [[maybe_unused]] const ssize_t size = ::write(fd.get(), any.data(), any.size());
        }
    }

    Result<SyncReport> sync(const Intent& intent, bool dryRun) override {
        WEFT_ASSIGN(State wanted, stateOf(intent));
        WEFT_ASSIGN(const auto lock, XtablesLock::take(kLockPatience));
        wanted.tunnel = state_.tunnel;
        wanted.resolver = state_.resolver;
        SyncReport report;
        WEFT_TRY(findEngineBridges(wanted).within("firewall sync"));
        WEFT_TRY(apply(wanted, kEverything, Order::Opening, dryRun, report.repairs).within("firewall sync"));
        WEFT_TRY(reconcileNftPassage(bridgesOf(wanted), dryRun, report.repairs).within("firewall sync"));
        if (!dryRun) {
            state_ = std::move(wanted);
            written_ = true;
        }
        return report;
    }

    Result<void> clear() override {
        WEFT_ASSIGN(const auto lock, XtablesLock::take(kLockPatience));
        std::vector<std::string> removed;
        WEFT_TRY(reconcileNftPassage({}, false, removed).within("firewall clear"));
        WEFT_TRY(apply({}, kEverything, Order::Closing, false, removed).within("firewall clear"));
        state_ = {};
        written_ = false;
        return {};
    }

private:
    // What a change is about: the guards of the host's ports name every bridge, in both families.
    static void addScope(Scope& scope, const Network&) { scope = {kBothFamilies, kTables}; }
    static void addScope(Scope& scope, const Endpoint& endpoint) {
        for (const auto& port : endpoint.ports) scope.families.insert(port.containerIp.family());
    }

    Result<void> changeNetwork(const NetworkId& id, const std::optional<Network>& network, Order order) {
        if (network) WEFT_TRY(validate(*network));
        WEFT_ASSIGN(const auto lock, XtablesLock::take(kLockPatience));
        WEFT_TRY(findEngineBridges(state_));
        WEFT_TRY(change(&State::networks, id, network, order));
        written_ = true;
        std::vector<std::string> repairs;
        return reconcileNftPassage(bridgesOf(state_), false, repairs);
    }
    Result<void> changeEndpoint(const EndpointId& id, const std::optional<Endpoint>& endpoint, Order order) {
        if (endpoint) WEFT_TRY(validate(*endpoint));
        WEFT_ASSIGN(const auto lock, XtablesLock::take(kLockPatience));
        return change(&State::endpoints, id, endpoint, order);
    }

    // As of the last change of networks or sync(): reading them takes as long as a publish.
    static Result<void> findEngineBridges(State& state) {
        const auto ours = bridgesOf(state);
        WEFT_ASSIGN(auto found, nftEngineBridges(ours));
        for (const auto family : kBothFamilies) {
            WEFT_ASSIGN(auto engines, engineBridges(family));
            found.merge(engines);
        }
        for (const auto& own : ours) found.erase(own);
        state.engines = std::move(found);
        WEFT_ASSIGN(state.named, namedEngineBridges());
        return {};
    }

    template <typename Map>
    Result<void> change(Map State::*member, const typename Map::key_type& id,
                        std::optional<typename Map::mapped_type> value, Order order) {
        auto& map = state_.*member;
        Scope scope{{}, kTablesOfEndpoints};
        if (value) addScope(scope, *value);
        exchange(map, id, value);
        if (value) addScope(scope, *value);

        std::vector<std::string> repairs;
        auto result = apply(state_, scope, order, false, repairs);
        if (!result) {
            exchange(map, id, value);
            const Order back = order == Order::Opening ? Order::Closing : Order::Opening;
            (void)apply(state_, scope, back, false, repairs);  // what fails here too, the next sync() finds
        }
        return result;
    }

    // Every family's tables are read, and those that differ committed.
    Result<void> apply(const State& state, const Scope& scope, Order order, bool dryRun,
                       std::vector<std::string>& repairs) {
        const auto tables = scope.tables;
        for (const auto family : scope.families) {
            for (size_t i = 0; i < tables.size(); ++i) {
                const char* table = tables[order == Order::Opening ? i : tables.size() - 1 - i];
                WEFT_TRY(reconcile(family, table, contentOf(table, state, family), dryRun, repairs));
            }
        }
        return {};
    }

    // Under the XtablesLock.
    State state_;
    bool written_ = false;  // the kernel has what state_ says
};

}  // namespace

std::unique_ptr<Firewall> makeIptcFirewall() {
    return std::make_unique<IptcFirewall>();
}

}  // namespace weft::firewall
