#include "driver/shared_networks.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "drivers/overlay/overlay_names.h"
#include "drivers/overlay/overlay_rows.h"

namespace weft::driver {
namespace {

using Json = nlohmann::json;

constexpr std::chrono::milliseconds kRegularly{60'000};
constexpr std::chrono::milliseconds kWhileRefused{10'000};
constexpr std::chrono::milliseconds kWhileAway{1'000};
// An engine tries a plugin for 30 s before it gives up.
constexpr std::chrono::seconds kDraftKept{35};
// The driver has a network before the engine lists it.
constexpr std::chrono::seconds kUnknownGrace{60};
// However often rows change, the engine is asked once in this time.
constexpr std::chrono::milliseconds kAtMostEvery{500};
constexpr size_t kMaxUsersNamed = 10;

Clock::Wall timeOf(uint64_t stamp) {
    return Clock::Wall(std::chrono::milliseconds(stamp));
}

std::chrono::milliseconds patienceAfter(HostState state) {
    switch (state) {
        case HostState::Waiting:
            return kWhileAway;
        case HostState::Failed:
        case HostState::InUse:
            return kWhileRefused;
        default:
            return kRegularly;
    }
}

HostState stateAfter(const Error& error) {
    switch (error.code) {
        case ErrorCode::Unavailable:
        case ErrorCode::Timeout:
            return HostState::Waiting;
        case ErrorCode::Busy:
            return HostState::InUse;
        default:
            return HostState::Failed;
    }
}

std::string keyOf(const std::string& name) {
    return std::string(kSharedNetworkPrefix) + name;
}

std::optional<uint64_t> stampOf(const Json& network) {
    const auto labels = network.find("Labels");
    if (labels == network.end() || !labels->is_object()) return std::nullopt;
    const std::string text = labels->value(kStampLabel, "");
    uint64_t stamp = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), stamp);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return stamp;
}

std::string listed(const std::vector<std::string>& names) {
    std::string text;
    for (size_t i = 0; i < std::min(names.size(), kMaxUsersNamed); ++i) text += (i == 0 ? "" : ", ") + names[i];
    if (names.size() > kMaxUsersNamed) text += fmt::format(" and {} more", names.size() - kMaxUsersNamed);
    return text;
}

}  // namespace

struct SharedNetworks::Known {
    kv::NodeId self;
    std::vector<kv::Member> members;
    Rows networks;

    [[nodiscard]] NetworkRow* own(const std::string& name) {
        const auto rows = networks.find(name);
        if (rows == networks.end()) return nullptr;
        const auto row = rows->second.find(self);
        return row == rows->second.end() ? nullptr : &row->second;
    }
    [[nodiscard]] std::optional<NetworkRow> truth(const std::string& name, Clock::Wall now) const {
        const auto found = networks.find(name);
        if (found == networks.end()) return std::nullopt;
        std::vector<NetworkRow> rows;
        for (const auto& [owner, row] : found->second) rows.push_back(row);
        const NetworkRow* best = truthOf(rows, now);
        return best == nullptr ? std::nullopt : std::optional(*best);
    }
    // Later than anything any host said of the network.
    [[nodiscard]] uint64_t nextStamp(const std::string& name, Clock::Wall now) const {
        auto stamp = static_cast<uint64_t>(
            std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count());
        const auto rows = networks.find(name);
        if (rows == networks.end()) return stamp;
        for (const auto& [owner, row] : rows->second) stamp = std::max(stamp, row.stamp + 1);
        return stamp;
    }
};

struct SharedNetworks::Engine {
    std::map<std::string, EngineNetwork> byName;
    std::set<NetworkId> ids;

    [[nodiscard]] std::optional<EngineNetwork> find(const std::string& name) const {
        const auto found = byName.find(name);
        return found == byName.end() ? std::nullopt : std::optional(found->second);
    }
};

SharedNetworks::SharedNetworks(SharedNetworksConfig config, kv::Runner& runner, const Clock& clock)
    : config_(std::move(config)), runner_(runner), clock_(clock), engine_(config_.engineSocket) {}

Result<std::unique_ptr<SharedNetworks>> SharedNetworks::start(SharedNetworksConfig config, kv::Runner& runner,
                                                              const Clock& clock) {
    std::unique_ptr<SharedNetworks> made(new SharedNetworks(std::move(config), runner, clock));
    const auto watch = std::make_shared<kv::WatchId>();
    WEFT_TRY(runner.call([watch, wakeup = made->wakeup_](kv::Node& node) {
        *watch = node.watch(std::string(kSharedNetworkPrefix), [wakeup](kv::RowEvent event, const kv::Row& row) {
            const std::string name = row.key.substr(kSharedNetworkPrefix.size());
            const bool there = event == kv::RowEvent::Put;
            auto parsed = there ? decodeNetworkRow(row.value) : makeError(ErrorCode::NotFound, "");
            const bool sound = parsed && (!parsed->spec || parsed->spec->name == name);
            if (there && !sound) logWarn("msg=\"ignore row\" key={} owner={}", logValue(row.key), row.owner.brief());
            const std::lock_guard lock(wakeup->mutex);
            if (sound) {
                wakeup->rows[name].insert_or_assign(row.owner, *std::move(parsed));
            } else if (const auto known = wakeup->rows.find(name); known != wakeup->rows.end()) {
                known->second.erase(row.owner);
                if (known->second.empty()) wakeup->rows.erase(known);
            }
            wakeup->changed = true;
            wakeup->cause.notify_one();
        });
    }));
    made->watch_ = *watch;
    made->thread_ = std::thread([networks = made.get()] { networks->work(); });
    return made;
}

SharedNetworks::~SharedNetworks() {
    {
        const std::lock_guard lock(wakeup_->mutex);
        wakeup_->stopping = true;
        wakeup_->cause.notify_one();
    }
    engine_.stop();
    if (thread_.joinable()) thread_.join();
    if (watch_ != 0) static_cast<void>(runner_.call([id = watch_](kv::Node& node) { node.unwatch(id); }));
}

void SharedNetworks::work() {
    std::chrono::milliseconds patience{0};
    for (;;) {
        {
            std::unique_lock lock(wakeup_->mutex);
            const auto stopping = [this] { return wakeup_->stopping; };
            if (wakeup_->cause.wait_for(lock, std::min(patience, kAtMostEvery), stopping)) return;
            wakeup_->cause.wait_for(lock, patience - std::min(patience, kAtMostEvery),
                                    [this] { return wakeup_->changed || wakeup_->stopping; });
            if (wakeup_->stopping) return;
            wakeup_->changed = false;
        }
        const auto settled = settle();
        if (!settled)
            logWarn("msg=\"networks of all hosts not looked at\" error={}", logValue(settled.error().message));
        patience = settled ? *settled : kWhileAway;
    }
}

Result<std::chrono::milliseconds> SharedNetworks::settle() {
    const std::lock_guard lock(engineUse_);
    WEFT_ASSIGN(Known known, read());
    auto patience = kRegularly;
    std::erase_if(unknownSince_,
                  [this](const auto& entry) { return clock_.now() - entry.second > 10 * kUnknownGrace; });
    if (known.networks.empty()) return patience;
    const auto engine = engineNetworks();
    for (const auto& [name, rows] : known.networks) {
        WEFT_ASSIGN(const auto again,
                    engine ? settle(name, known, *engine) : waitForEngine(name, known, engine.error()));
        patience = std::min(patience, again);
    }
    return patience;
}

Result<std::chrono::milliseconds> SharedNetworks::settle(const std::string& name, Known& known, const Engine& engine) {
    NetworkRow* own = known.own(name);
    const auto found = engine.find(name);
    const bool draft = own != nullptr && own->state == HostState::Draft;
    const bool made = draft && found && found->stamp == own->stamp;
    if (made) own->state = HostState::Ready;
    bool inDoubt = false;  // the driver has what the engine does not list
    if (own != nullptr && own->state != HostState::ByHand) {
        WEFT_TRY(config_.removeForgotten(name, [&](const NetworkId& id) {
            auto knows = engineKnows(id, engine);
            inDoubt = knows && *knows && !engine.ids.contains(id);
            return knows;
        }));
    }
    // A create that was cut off; the engine may still be at it.
    if (draft && !made && clock_.wall() < timeOf(own->stamp) + kDraftKept) return kWhileAway;
    const auto truth = known.truth(name, clock_.wall());
    if (!truth) {
        // What a cut off create left with the driver is looked for under the rows' names alone.
        if (inDoubt) return kWhileAway;
        WEFT_TRY(kv::erase(runner_, keyOf(name)));
        return kRegularly;
    }
    const NetworkRow next = bring(*truth, name, found);
    WEFT_TRY(say(name, next));
    return inDoubt ? std::min(patienceAfter(next.state), kWhileRefused) : patienceAfter(next.state);
}

Result<std::chrono::milliseconds> SharedNetworks::waitForEngine(const std::string& name, Known& known,
                                                                const Error& away) {
    const NetworkRow* own = known.own(name);
    const auto truth = known.truth(name, clock_.wall());
    const bool draft = own != nullptr && own->state == HostState::Draft;
    if (truth && !draft) WEFT_TRY(say(name, held(*truth, away)));
    return kWhileAway;
}

Result<SharedNetworks::Known> SharedNetworks::read() {
    // What runs on the store's thread owns what it touches: it may run after a timeout.
    const auto known = std::make_shared<Known>();
    WEFT_TRY(runner_.call([known, wakeup = wakeup_](kv::Node& node) {
        known->self = node.id();
        known->members = node.roster();
        const std::lock_guard lock(wakeup->mutex);
        known->networks = wakeup->rows;
    }));
    return std::move(*known);
}

NetworkRow SharedNetworks::held(NetworkRow truth, const Error& error) {
    truth.state = stateAfter(error);
    truth.detail = error.message;
    return truth;
}

NetworkRow SharedNetworks::bring(NetworkRow truth, const std::string& name, const std::optional<EngineNetwork>& found) {
    const auto [step, then] = plan(truth, config_.hostLabels, found);
    Result<void> done;
    if (step == NetworkStep::Remove || step == NetworkStep::Replace) done = removeFromEngine(found->id, truth.force);
    if (done && (step == NetworkStep::Make || step == NetworkStep::Replace)) {
        done = engine_.post("/networks/create", engineRequest(*truth.spec, truth.stamp));
    }
    if (!done) return held(std::move(truth), done.error());
    if (step != NetworkStep::None) logInfo("network of all hosts name={} state={}", name, toString(then));
    truth.state = then;
    truth.detail = then == HostState::ByHand ? "the engine has a network of that name that weftctl did not make" : "";
    return truth;
}

Result<void> SharedNetworks::removeFromEngine(const std::string& id, bool force) {
    const std::string path = "/networks/" + id;
    if (force) WEFT_TRY(takeOff(path));
    auto removed = engine_.remove(path);
    if (removed || removed.error().code == ErrorCode::NotFound) return {};
    if (removed.error().code != ErrorCode::Busy) return removed;
    WEFT_ASSIGN(const Json containers, containersOn(path));
    std::vector<std::string> users;
    for (const Json& container : containers) users.push_back(container.value("Name", ""));
    return makeError(ErrorCode::Busy, users.empty() ? removed.error().message : "by " + listed(users));
}

// By id.
Result<Json> SharedNetworks::containersOn(const std::string& path) {
    WEFT_ASSIGN(const Json network, engine_.get(path));
    const auto containers = network.find("Containers");
    return containers != network.end() && containers->is_object() ? *containers : Json::object();
}

Result<void> SharedNetworks::takeOff(const std::string& path) {
    WEFT_ASSIGN(const Json containers, containersOn(path));
    for (const auto& [container, endpoint] : containers.items()) {
        auto off = engine_.post(path + "/disconnect", {{"Container", container}, {"Force", true}});
        if (!off && off.error().code != ErrorCode::NotFound) return off;
    }
    return {};
}

Result<SharedNetworks::Engine> SharedNetworks::engineNetworks() {
    WEFT_ASSIGN(const Json all, engine_.get("/networks"));
    Engine engine;
    try {
        for (const Json& network : all) {
            EngineNetwork one{network.at("Id").get<std::string>(), stampOf(network)};
            engine.ids.emplace(one.id);
            // The engine may know several of one name; ours is the one to keep in order.
            EngineNetwork& shown = engine.byName[network.at("Name").get<std::string>()];
            if (shown.id.empty() || one.stamp) shown = std::move(one);
        }
    } catch (const Json::exception& error) {
        return makeError(ErrorCode::Internal, fmt::format("engine: /networks: {}", error.what()));
    }
    return engine;
}

// In doubt it does: what is made right now is not in `engine`, and is not told by the engine either.
Result<bool> SharedNetworks::engineKnows(const NetworkId& id, const Engine& engine) {
    if (engine.ids.contains(id)) {
        unknownSince_.erase(id);
        return true;
    }
    const auto since = unknownSince_.try_emplace(id, clock_.now()).first->second;
    if (clock_.now() - since < kUnknownGrace) return true;
    const auto network = engine_.get("/networks/" + id.str());
    if (!network && network.error().code != ErrorCode::NotFound) return network.error();
    unknownSince_.erase(id);
    return network.has_value();
}

Result<void> SharedNetworks::say(const std::string& name, const NetworkRow& row) {
    WEFT_ASSIGN(std::string value, encode(name, row));
    return kv::put(runner_, keyOf(name), std::move(value));
}

Result<void> SharedNetworks::create(const NetworkSpec& spec) {
    const std::lock_guard lock(engineUse_);
    WEFT_ASSIGN(Known known, read());
    if (const auto truth = known.truth(spec.name, clock_.wall()); truth && truth->spec) {
        return makeError(ErrorCode::AlreadyExists,
                         fmt::format("network {0} is there already: weftctl network inspect {0}", spec.name));
    }
    NetworkRow row;
    row.stamp = known.nextStamp(spec.name, clock_.wall());
    row.spec = spec;
    WEFT_TRY(encode(spec.name, row));
    row.state = plan(row, config_.hostLabels, {}).then;
    if (row.state == HostState::Elsewhere) return say(spec.name, row);

    WEFT_ASSIGN(const auto engine, engineNetworks());
    if (const auto found = engine.find(spec.name)) {
        const bool ours = found->stamp.has_value();
        const std::string why = ours ? "containers of this host are still on the {0} that was removed: docker network "
                                       "inspect {0}"
                                     : "the engine has a network {0} that was not made for all hosts: docker network "
                                       "rm {0}, or take another name";
        return makeError(ErrorCode::AlreadyExists, fmt::format(fmt::runtime(why), spec.name));
    }
    NetworkRow draft = row;
    draft.state = HostState::Draft;
    WEFT_TRY(say(spec.name, draft));
    auto made = engine_.post("/networks/create", engineRequest(spec, row.stamp));
    if (made) return say(spec.name, row);
    // Without an answer the worker finds out what came of it.
    if (stateAfter(made.error()) != HostState::Waiting) {
        const NetworkRow* before = known.own(spec.name);
        WEFT_TRY(before == nullptr ? kv::erase(runner_, keyOf(spec.name)) : say(spec.name, *before));
    }
    return made.error();
}

Result<void> SharedNetworks::remove(const std::string& name, bool force) {
    const std::lock_guard lock(engineUse_);
    WEFT_ASSIGN(const auto shown, list());
    if (std::none_of(shown.begin(), shown.end(), [&](const SharedNetwork& one) { return one.name == name; })) {
        return makeError(ErrorCode::NotFound,
                         fmt::format("no network {} was made by weftctl: weftctl network ls", name));
    }
    WEFT_ASSIGN(const Known known, read());
    if (!force) {
        WEFT_ASSIGN(const std::string users, usersOf(name, known.members));
        if (!users.empty()) {
            return makeError(ErrorCode::Busy, fmt::format("network {} is in use by {}: remove them, or take them off "
                                                          "with --force",
                                                          name, users));
        }
    }
    NetworkRow row;
    row.stamp = known.nextStamp(name, clock_.wall());
    row.force = force;
    row.state = HostState::Waiting;
    return say(name, row);
}

// "db on node2, 10.32.0.9 on node1"
Result<std::string> SharedNetworks::usersOf(const std::string& name, const std::vector<kv::Member>& members) {
    const auto rows = std::make_shared<std::pair<std::vector<kv::Row>, std::vector<kv::Row>>>();
    WEFT_TRY(runner_.call([rows, name](kv::Node& node) {
        rows->first = node.table().list(endpointKey(name, EndpointId()));
        rows->second = node.table().list(nameKey(name, EndpointId()));
    }));
    std::map<std::string, std::string> names;  // by the endpoint's part of the key
    const size_t namePrefix = nameKey(name, EndpointId()).size();
    for (const kv::Row& row : rows->second) {
        if (const auto told = decodeNames(row.value)) names[row.key.substr(namePrefix)] = told->names.front();
    }
    std::vector<std::string> users;
    const size_t endpointPrefix = endpointKey(name, EndpointId()).size();
    for (const kv::Row& row : rows->first) {
        const auto host = std::find_if(members.begin(), members.end(),
                                       [&row](const kv::Member& member) { return member.id == row.owner; });
        const std::string endpoint = row.key.substr(endpointPrefix);
        const auto called = names.find(endpoint);
        users.push_back((called == names.end() ? "endpoint " + EndpointId(endpoint).brief() : called->second) + " on " +
                        (host == members.end() ? row.owner.brief() : host->record.name));
    }
    return listed(users);
}

Result<std::vector<SharedNetwork>> SharedNetworks::list() {
    WEFT_ASSIGN(const Known known, read());
    std::vector<SharedNetwork> all;
    for (const auto& [name, rows] : known.networks) {
        const auto truth = known.truth(name, clock_.wall());
        if (!truth) continue;
        SharedNetwork network{name, truth->spec, {}};
        bool done = true;
        for (const kv::Member& member : known.members) {
            HostReport& host = network.hosts.emplace_back();
            host.host = member.record.name;
            host.away = member.gone();
            const auto row = rows.find(member.id);
            if (row != rows.end() && row->second.sameTruth(*truth)) {
                host.state = row->second.state;
                host.detail = row->second.detail;
            }
            done = done && (host.away || host.state == HostState::Removed);
        }
        if (!done || network.spec) all.push_back(std::move(network));
    }
    return all;
}

std::vector<std::string> SharedNetworks::warnings() {
    std::vector<std::string> texts;
    auto known = read();
    if (!known) return {known.error().message};
    for (const auto& [name, rows] : known->networks) {
        const NetworkRow* own = known->own(name);
        if (own == nullptr || own->detail.empty()) continue;
        texts.push_back(fmt::format("network {}: {}: {}", name, toString(own->state), own->detail));
    }
    return texts;
}

}  // namespace weft::driver
