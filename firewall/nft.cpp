#include "firewall/nft.h"

#include <malloc.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/unique_fd.h"
#include "firewall/nft_context.h"
#include "firewall/nft_elements.h"
#include "firewall/nft_rules.h"
#include "firewall/passage.h"

namespace weft::firewall {

namespace {

using nft::Elements;
using nft::Table;

void append(Elements& all, Elements&& more) {
    for (auto& [set, elements] : more) all[set].merge(elements);
}

class NftFirewall final : public Firewall {
public:
    explicit NftFirewall(NftContext context) : context_(std::move(context)) {}

    [[nodiscard]] Backend backend() const override { return Backend::Nft; }

    Result<void> setNetwork(const Network& network) override {
        WEFT_TRY(validate(network));
        const std::scoped_lock lock(mutex_);
        return changeNetwork(network.id, network).within("firewall network " + network.id.brief());
    }

    Result<void> removeNetwork(const NetworkId& id) override {
        const std::scoped_lock lock(mutex_);
        if (!state_.networks.contains(id)) return {};
        return changeNetwork(id, std::nullopt).within("firewall network " + id.brief());
    }

    Result<void> setEndpoint(const Endpoint& endpoint) override {
        WEFT_TRY(validate(endpoint));
        const std::scoped_lock lock(mutex_);
        return changeEndpoint(endpoint.id, endpoint).within("firewall endpoint " + endpoint.id.brief());
    }

    Result<void> removeEndpoint(const EndpointId& id) override {
        const std::scoped_lock lock(mutex_);
        return changeEndpoint(id, std::nullopt).within("firewall endpoint " + id.brief());
    }

    Result<void> setTunnel(const Tunnel& tunnel) override {
        const std::scoped_lock lock(mutex_);
        const Elements from = nft::tunnelElements(state_);
        Tunnel previous = std::exchange(state_.tunnel, tunnel);
        if (!written_) return {};
        const Elements to = nft::tunnelElements(state_);
        auto applied = apply(nft::without(from, to), nft::without(to, from));
        if (!applied) state_.tunnel = std::move(previous);
        return std::move(applied).within("firewall tunnel");
    }

    Result<void> setResolver(uint16_t port) override {
        const std::scoped_lock lock(mutex_);
        const Elements from = nft::resolverElements(state_);
        const uint16_t previous = std::exchange(state_.resolver, port);
        if (!written_) return {};
        const Elements to = nft::resolverElements(state_);
        auto applied = apply(nft::without(from, to), nft::without(to, from));
        if (!applied) state_.resolver = previous;
        return std::move(applied).within("firewall resolver");
    }

    void vouch() override {
        const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        const uint32_t mark = nft::kVouchMark;
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(53);
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) return;
        // "Not permitted": the rule took and dropped it.
        static_cast<void>(::sendto(fd.get(), "", 0, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to));
    }

    Result<SyncReport> sync(const Intent& intent, bool dryRun) override {
        WEFT_ASSIGN(State wanted, stateOf(intent));
        const std::scoped_lock lock(mutex_);
        wanted.tunnel = state_.tunnel;
        wanted.resolver = state_.resolver;
        // Read before the rules are: what changes meanwhile has a higher one.
        const auto generation = nft::readGeneration();
        const bool sameRules = generation && verified_ == *generation;
        if (sameRules) {
            WEFT_ASSIGN(wanted.engines, legacyEngineBridges(bridgesOf(wanted)));
            wanted.engines.insert(nftEngines_.begin(), nftEngines_.end());
        } else {
            WEFT_ASSIGN(wanted.engines, findEngines(wanted));
        }
        WEFT_ASSIGN(wanted.named, namedEngineBridges());
        const bool unchanged = sameRules && wanted == state_;
        if (unchanged && !dryRun) {
            SyncReport legacy;
            WEFT_TRY(reconcileLegacyPassage(bridgesOf(state_), false, legacy.repairs).within("firewall sync"));
            return legacy;
        }
        verified_.reset();
        WEFT_ASSIGN(SyncReport report, compare(wanted));
        if (!dryRun) {
            if (!report.repairs.empty()) WEFT_TRY(replace(wanted).within("firewall sync"));
            adopt(wanted);
        }
        WEFT_TRY(reconcilePassage(bridgesOf(wanted), dryRun, report.repairs).within("firewall sync"));
        if (!dryRun && generation && report.repairs.empty()) verified_ = *generation;
        // A comparison of thousands of elements leaves as much freed heap behind as the rest of the daemon uses.
        malloc_trim(0);
        return report;
    }

    Result<void> clear() override {
        const std::scoped_lock lock(mutex_);
        std::vector<std::string> removed;
        WEFT_TRY(reconcilePassage({}, false, removed).within("firewall clear"));
        WEFT_TRY(replace({}).within("firewall clear"));
        adopt({});
        return {};
    }

private:
    static std::set<std::string> bridgesOf(const State& state) {
        std::set<std::string> bridges;
        for (const auto& [id, network] : state.networks) bridges.insert(network.bridge);
        return bridges;
    }

    static Result<void> reconcilePassage(const std::set<std::string>& bridges, bool dryRun,
                                         std::vector<std::string>& repairs) {
        WEFT_TRY(reconcileNftPassage(bridges, dryRun, repairs));
        return reconcileLegacyPassage(bridges, dryRun, repairs);
    }

    // The engine's bridges in both worlds.
    Result<std::set<std::string>> findEngines(const State& state) {
        const auto ours = bridgesOf(state);
        WEFT_ASSIGN(nftEngines_, nftEngineBridges(ours));
        WEFT_ASSIGN(auto engines, legacyEngineBridges(ours));
        engines.insert(nftEngines_.begin(), nftEngines_.end());
        return engines;
    }

    Result<SyncReport> compare(const State& wanted) {
        SyncReport report;
        // A context keeps what it listed until the next change: this one shall not outlive the comparison.
        WEFT_ASSIGN(NftContext context, NftContext::open());
        const auto listing = context.list(nft::kTable);
        const bool exists = listing.has_value();
        if (!exists && listing.error().code != ErrorCode::NotFound) return listing.error().within("firewall sync");
        if (wanted.empty()) {
            if (exists) report.repairs.push_back(std::string("table ") + nft::kTable + " left over");
        } else if (!exists) {
            report.repairs.push_back(std::string("table ") + nft::kTable + " missing");
        } else {
            Table table = nft::tableOf(wanted);
            Table found = nft::parseListing(*listing);
            auto sets = table.sets;
            sets.erase(nft::kAnswering);
            WEFT_ASSIGN(found.elements, nft::readElements(sets));
            if (spelling_) {
                table.sets = spelling_->sets;
                table.chains = spelling_->chains;
            }
            report.repairs = nft::differences(table, found);
        }
        return report;
    }

    Result<void> run(const std::string& commands) {
        if (commands.empty()) return {};
        auto output = context_.run(commands);
        if (!output) return output.error();
        return {};
    }

    // Puts the whole table of `state` in place of what is there.
    Result<void> replace(const State& state) {
        if (!state.empty()) {
            const Table table = nft::tableOf(state);
            WEFT_TRY(run(nft::replaceCommands(table)));
            return learnSpelling(table);
        }
        const std::string name = nft::kTable;
        return run("add table " + name + "\ndelete table " + name + "\n");
    }

    // Another version of libnftables may spell the same rules in another way: they are compared with what was listed
    // right after they were written.
    Result<void> learnSpelling(const Table& written) {
        WEFT_ASSIGN(NftContext context, NftContext::open());
        WEFT_ASSIGN(const std::string listing, context.list(nft::kTable));
        Table listed = nft::parseListing(listing);
        if (nft::sameShape(written, listed)) spelling_ = std::move(listed);
        return {};
    }

    // Takes elements out of the kernel's table and others in, which leads to the table of state_. Where the table is
    // not as it was left, replaces all of it.
    Result<void> apply(const Elements& gone, const Elements& come) {
        if (state_.empty() && !written_) return {};
        if (written_ && !state_.empty() && run(nft::changeCommands(gone, come))) return {};
        WEFT_TRY(replace(state_));
        written_ = !state_.empty();
        return {};
    }

    Result<void> changeNetwork(const NetworkId& id, const std::optional<Network>& network) {
        Elements from = ofNetwork(id);
        append(from, nft::sharedElements(state_));
        auto previous = exchange(state_.networks, id, network);
        auto engines = findEngines(state_);
        if (!engines) {
            exchange(state_.networks, id, std::move(previous));
            return engines.error();
        }
        std::swap(state_.engines, *engines);
        Elements to = ofNetwork(id);
        append(to, nft::sharedElements(state_));
        if (auto applied = apply(nft::without(from, to), nft::without(to, from)); !applied) {
            exchange(state_.networks, id, std::move(previous));
            state_.engines = *std::move(engines);
            return applied;
        }
        countHolders();
        std::vector<std::string> repairs;
        return reconcilePassage(bridgesOf(state_), false, repairs);
    }

    Result<void> changeEndpoint(const EndpointId& id, const std::optional<Endpoint>& endpoint) {
        Elements from;
        Elements to;
        if (const auto old = state_.endpoints.find(id); old != state_.endpoints.end()) {
            from = nft::endpointElements(state_, old->second);
        }
        if (endpoint) to = nft::endpointElements(state_, *endpoint);
        WEFT_TRY(refuseTakenPorts(from, to));
        auto previous = exchange(state_.endpoints, id, endpoint);
        count(from, -1);
        // What another endpoint holds as well is there already, and stays.
        if (auto applied = apply(unheld(nft::without(from, to)), unheld(nft::without(to, from))); !applied) {
            exchange(state_.endpoints, id, std::move(previous));
            count(from, 1);
            return applied;
        }
        count(to, 1);
        return {};
    }

    // Sets map[key] to `value`, where nothing stands for an absent entry, and returns what was there.
    template <typename Map, typename Value = typename Map::mapped_type>
    static std::optional<Value> exchange(Map& map, const typename Map::key_type& key, std::optional<Value> value) {
        std::optional<Value> old;
        if (const auto found = map.find(key); found != map.end()) {
            old = std::move(found->second);
            map.erase(found);
        }
        if (value) map.emplace(key, *std::move(value));
        return old;
    }

    // A network's elements and those of its endpoints.
    Elements ofNetwork(const NetworkId& id) const {
        Elements elements;
        const auto network = state_.networks.find(id);
        if (network == state_.networks.end()) return elements;
        elements = nft::networkElements(network->second);
        for (const auto& [endpointId, endpoint] : state_.endpoints) {
            if (endpoint.networkId == id) append(elements, nft::endpointElements(state_, endpoint));
        }
        return elements;
    }

    // How many endpoints want an element. Two may open the same port of an address for a moment, when it moves from one
    // to the other.
    static std::string holding(const std::string& set, const std::string& key) { return set + ' ' + key; }
    int holders(const std::string& set, const std::string& key) const {
        const auto found = holders_.find(holding(set, key));
        return found == holders_.end() ? 0 : found->second;
    }

    Elements unheld(const Elements& elements) const {
        Elements free;
        for (const auto& [set, keys] : elements) {
            for (const auto& [key, value] : keys) {
                if (holders(set, key) == 0) free[set].emplace(key, value);
            }
        }
        return free;
    }

    Result<void> refuseTakenPorts(const Elements& from, const Elements& to) const {
        for (const auto& [set, keys] : to) {
            if (!set.starts_with("published")) continue;
            const auto held = from.find(set);
            for (const auto& [key, value] : keys) {
                const bool isMine = held != from.end() && held->second.contains(key);
                if (!isMine && holders(set, key) > 0) {
                    return makeError(ErrorCode::Busy, "host port " + key + " is published by another endpoint");
                }
            }
        }
        return {};
    }

    void count(const Elements& elements, int by) {
        for (const auto& [set, keys] : elements) {
            for (const auto& [key, value] : keys) {
                const auto holder = holders_.try_emplace(holding(set, key), 0).first;
                holder->second += by;
                if (holder->second <= 0) holders_.erase(holder);
            }
        }
    }

    // The kernel's table is that of `state`.
    void adopt(State state) {
        state_ = std::move(state);
        written_ = !state_.empty();
        countHolders();
    }

    void countHolders() {
        holders_.clear();
        for (const auto& [id, endpoint] : state_.endpoints) count(nft::endpointElements(state_, endpoint), 1);
    }

    std::mutex mutex_;
    NftContext context_;
    State state_;
    std::set<std::string> nftEngines_;  // as of verified_, or later
    std::unordered_map<std::string, int> holders_;
    std::optional<Table> spelling_;  // without elements
    // The generation in which the kernel had the rules of state_ and the passage. A change by anybody, us included,
    // makes another one, so as long as it stays there is nothing to compare.
    std::optional<uint32_t> verified_;
    bool written_ = false;  // the kernel has a table, made from state_ by us
};

}  // namespace

Result<std::unique_ptr<Firewall>> makeNftFirewall() {
    WEFT_ASSIGN(NftContext context, NftContext::open());
    return std::unique_ptr<Firewall>(std::make_unique<NftFirewall>(std::move(context)));
}

}  // namespace weft::firewall
