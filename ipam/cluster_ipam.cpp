#include "ipam/cluster_ipam.h"

#include <algorithm>
#include <condition_variable>
#include <future>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "base/deadline.h"
#include "ipam/block_allocator.h"
#include "kv/database_storage.h"

namespace weft::ipam {

namespace {

constexpr std::chrono::milliseconds kTick{100};
constexpr std::chrono::seconds kIdleTick{10};
constexpr std::chrono::seconds kSlack{1};

uint64_t systemRandom() {
    std::random_device device;
    return uint64_t{device()} << 32 | device();
}

}  // namespace

namespace {

// How often the allocator gets its turn: often while it waits for something, else hardly ever; the next one when the
// last has ended.
struct Pace {
    void quicken() {
        const std::lock_guard lock(mutex);
        busy = true;
        changed.notify_all();
    }
    void touch(const IpPrefix& pool) {
        const std::lock_guard lock(mutex);
        busy = true;
        touched.insert(pool);
        changed.notify_all();
    }

    std::mutex mutex;
    std::condition_variable_any changed;
    bool busy = false;
    bool posted = false;  // a turn that has not ended
    std::set<IpPrefix> touched;
};

// Ends a turn also when the node goes without having run it.
struct Turn {
    explicit Turn(std::shared_ptr<Pace> of) : pace(std::move(of)) {}
    ~Turn() {
        const std::lock_guard lock(pace->mutex);
        pace->posted = false;
        pace->changed.notify_all();
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    std::shared_ptr<Pace> pace;
};

// The ledger as last told from the node's thread.
struct FactsBoard {
    std::mutex mutex;
    std::shared_ptr<const LedgerFacts> facts = std::make_shared<const LedgerFacts>();
};

}  // namespace

struct ClusterIpam::State {
    State(kv::Runner& theRunner, const Clock& theClock, ClusterIpamConfig theConfig)
        : runner(theRunner), clock(theClock), config(std::move(theConfig)) {}

    // Starts something on the node's thread and waits for its callback.
    Result<void> await(std::function<void(BlockAllocator&, BlockAllocator::Done)> begin) {
        auto promise = std::make_shared<std::promise<Result<void>>>();
        auto future = promise->get_future();
        runner.post([weak = std::weak_ptr(blocks), promise, begin = std::move(begin)](kv::Node&) {
            const auto held = weak.lock();
            if (!held || !*held) return promise->set_value(makeError(ErrorCode::Unavailable, "weftd is ending"));
            begin(**held, [promise](Result<void> result) { promise->set_value(std::move(result)); });
        });
        promise.reset();
        if (future.wait_for(withinCall(config.patience + kSlack)) != std::future_status::ready) {
            return makeError(ErrorCode::Timeout, "the gossip store did not answer in time");
        }
        try {
            return future.get();
        } catch (const std::future_error&) {
            return makeError(ErrorCode::Unavailable, "the gossip store has ended");
        }
    }

    kv::Runner& runner;
    const Clock& clock;
    ClusterIpamConfig config;
    std::unique_ptr<LocalIpam> leases;
    // Made, used and destroyed on the node's thread.
    std::shared_ptr<std::unique_ptr<BlockAllocator>> blocks = std::make_shared<std::unique_ptr<BlockAllocator>>();
    std::shared_ptr<Pace> pace = std::make_shared<Pace>();
    std::shared_ptr<FactsBoard> board = std::make_shared<FactsBoard>();
    std::mutex mutex;
    std::map<IpPrefix, IpAddress> gateways;  // of pools that the cluster knows: they never change
    std::jthread ticker;
};

ClusterIpam::ClusterIpam(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<ClusterIpam>> ClusterIpam::create(kv::Runner& runner, LeaseStore& store, const Clock& clock,
                                                         ClusterIpamConfig config, LocalIpamHooks hooks) {
    LocalIpamConfig local;
    local.onlyHeld = true;
    local.quarantine = config.quarantine;
    auto state = std::make_unique<State>(runner, clock, std::move(config));
    WEFT_ASSIGN(state->leases, LocalIpam::create(store, clock, std::move(local), std::move(hooks)));
    BlockConfig blockConfig;
    blockConfig.patience = state->config.patience;
    blockConfig.ledger.seeds = state->config.seeds;
    blockConfig.ledger.random = systemRandom;
    blockConfig.onBusy = [pace = state->pace] { pace->quicken(); };
    blockConfig.onFacts = [board = state->board](std::shared_ptr<const LedgerFacts> facts) {
        const std::lock_guard lock(board->mutex);
        board->facts = std::move(facts);
    };
    blockConfig.ledger.alone = state->config.alone;
    blockConfig.evidence = state->config.evidence;
    const auto damage = std::make_shared<std::string>();
    WEFT_TRY(runner.call(
        [holder = state->blocks, &book = *state->leases, &clock, blockConfig, damage](kv::Node& node) mutable {
            if (const auto self = node.member(node.id())) blockConfig.ledger.self = self->record.address;
            *holder = std::make_unique<BlockAllocator>(node, book, clock, blockConfig);
            *damage = (*holder)->damage();
            if (!damage->empty()) holder->reset();
        }));
    if (!damage->empty()) {
        return makeError(ErrorCode::Corrupt, *damage + kv::DatabaseStorage::kDamageAdvice);
    }
    state->ticker =
        std::jthread([&runner, weak = std::weak_ptr(state->blocks), pace = state->pace](const std::stop_token& stop) {
            while (!stop.stop_requested()) {
                {
                    const std::lock_guard lock(pace->mutex);
                    pace->posted = true;
                }
                runner.post([weak, turn = std::make_shared<Turn>(pace)](kv::Node&) {
                    const auto held = weak.lock();
                    if (!held || !*held) return;
                    std::unique_lock lock(turn->pace->mutex);
                    const auto touched = std::exchange(turn->pace->touched, {});
                    lock.unlock();
                    for (const IpPrefix& pool : touched) (*held)->touch(pool);
                    (*held)->tick();
                    lock.lock();
                    turn->pace->busy = (*held)->busy();
                });
                std::unique_lock lock(pace->mutex);
                pace->changed.wait_for(lock, stop, kTick, [] { return false; });
                pace->changed.wait(lock, stop, [&] { return !pace->posted; });
                pace->changed.wait_for(lock, stop, kIdleTick, [&] { return pace->busy; });
            }
        });
    return std::unique_ptr<ClusterIpam>(new ClusterIpam(std::move(state)));
}

ClusterIpam::~ClusterIpam() {
    state_->ticker.request_stop();
    state_->ticker.join();
    // A node that does not answer may still use what it was given: the process is ending, let it.
    if (!state_->runner.call([holder = state_->blocks](kv::Node&) { holder->reset(); })) {
        static_cast<void>(state_.release());
    }
}

Result<PoolReply> ClusterIpam::requestPool(const PoolRequest& request) {
    if (!request.pool) {
        return makeError(ErrorCode::InvalidArgument,
                         "an overlay network needs a --subnet: it is how the hosts know that they share a pool");
    }
    return state_->leases->requestPool(request);
}

Result<void> ClusterIpam::releasePool(const PoolId& poolId) {
    return state_->leases->releasePool(poolId);
}

// From any host's point of view a pool's gateway, once known, never changes; this host's blocks are asked for only
// when it has nothing to give.
Result<IpAddress> ClusterIpam::gatewayOf(const IpPrefix& prefix, std::optional<IpAddress> given) {
    {
        const std::lock_guard lock(state_->mutex);
        const auto known = state_->gateways.find(prefix);
        if (known != state_->gateways.end() && given.value_or(known->second) == known->second) return known->second;
    }
    const auto gateway = std::make_shared<std::optional<IpAddress>>();
    WEFT_TRY(state_->await([=](BlockAllocator& blocks, const BlockAllocator::Done& done) {
        blocks.needPool(prefix, given, [=, &blocks](const Result<void>& result) {
            if (result) *gateway = blocks.gateway(prefix);
            done(result);
        });
    }));
    const std::lock_guard lock(state_->mutex);
    return state_->gateways[prefix] = gateway->value();
}

Result<IpPrefix> ClusterIpam::requestAddress(const AddressRequest& request) {
    const auto record = state_->leases->findRecord(request.poolId);
    if (!record) return makeError(ErrorCode::NotFound, "no pool " + request.poolId.str());
    const auto deadline = state_->clock.now() + withinCall(state_->config.patience);
    const IpPrefix prefix = record->pool;
    WEFT_ASSIGN(const IpAddress gateway, gatewayOf(prefix, request.gateway ? request.address : std::nullopt));
    if (request.gateway) {
        AddressRequest same = request;
        same.address = gateway;
        return state_->leases->requestAddress(same);
    }
    if (request.address == gateway) {
        return makeError(ErrorCode::Busy, gateway.str() + " is the gateway of pool " + prefix.str());
    }
    while (true) {
        auto answer = state_->leases->requestAddress(request);
        if (answer) state_->pace->touch(prefix);
        if (answer || (answer.error().code != ErrorCode::Exhausted && answer.error().code != ErrorCode::Unavailable)) {
            return answer;
        }
        if (state_->clock.now() >= deadline) return answer;
        WEFT_TRY(state_->await([=](BlockAllocator& blocks, BlockAllocator::Done done) {
            blocks.needAddress(prefix, request.address, record->subPool, std::move(done));
        }));
    }
}

Result<void> ClusterIpam::releaseAddress(const PoolId& poolId, const IpAddress& address) {
    return state_->leases->releaseAddress(poolId, address);
}

Result<bool> ClusterIpam::attachPool(const NetworkId& networkId, const std::string& addressSpace, const IpPrefix& pool,
                                     std::span<const IpAddress> reserved) {
    return state_->leases->attachPool(networkId, addressSpace, pool, reserved);
}

Result<void> ClusterIpam::detachPools(const NetworkId& networkId) {
    return state_->leases->detachPools(networkId);
}

Result<std::vector<NetworkId>> ClusterIpam::detachForgotten(std::span<const NetworkId> known) {
    return state_->leases->detachForgotten(known);
}

Result<void> ClusterIpam::bindLease(const NetworkId& networkId, const IpAddress& address,
                                    const EndpointId& endpointId) {
    return state_->leases->bindLease(networkId, address, endpointId);
}

void ClusterIpam::unbindLease(const NetworkId& networkId, const IpAddress& address, const EndpointId& endpointId) {
    state_->leases->unbindLease(networkId, address, endpointId);
}

Result<void> ClusterIpam::restoreBindings(const NetworkId& networkId,
                                          std::span<const std::pair<IpAddress, EndpointId>> bindings) {
    return state_->leases->restoreBindings(networkId, bindings);
}

Result<std::vector<CollectedLease>> ClusterIpam::collect() {
    return state_->leases->collect();
}

std::vector<PoolInfo> ClusterIpam::listPools() const {
    return state_->leases->listPools();
}

std::vector<LeaseInfo> ClusterIpam::listLeases(const PoolId& poolId) const {
    return state_->leases->listLeases(poolId);
}

std::string ClusterIpam::forgetRisk(const std::string& host) {
    return "The addresses of " + host +
           " go to other hosts. weft cannot see whether its containers still run: if they do, cut off or not, "
           "addresses "
           "will be held twice. Its identity never comes back: to return it starts with an empty state.";
}

Result<std::string> ClusterIpam::forgetNode(const std::string& host, bool force) {
    const auto id = std::make_shared<kv::NodeId>();
    WEFT_TRY(state_->await([=](BlockAllocator& blocks, const BlockAllocator::Done& done) {
        auto begun = blocks.forget(host, force);
        if (begun) {
            if (const auto found = blocks.findHost(host)) *id = *found;
        }
        done(std::move(begun));
    }));
    const auto deadline = state_->clock.now() + state_->config.patience;
    const auto why = std::make_shared<std::string>();
    while (true) {
        WEFT_TRY(state_->await([=](BlockAllocator& blocks, const BlockAllocator::Done& done) {
            *why = blocks.forgetting(*id);
            if (why->empty()) blocks.withdrawForget(*id);
            done({});
        }));
        if (why->empty()) return "forgot " + host + "; its addresses are free";
        if (state_->clock.now() >= deadline) {
            return makeError(ErrorCode::Unavailable, "forget " + host + ": not done yet, and goes on: " + *why);
        }
        std::this_thread::sleep_for(kTick);
    }
}

// A page a turn: with thousands of pools the node has other things to do in between.
Result<std::vector<SharedPool>> ClusterIpam::sharedPools() const {
    std::vector<SharedPool> pools;
    const auto after = std::make_shared<uint32_t>(0);
    while (true) {
        const auto page = std::make_shared<std::vector<SharedPool>>();
        WEFT_TRY(state_->await([=](BlockAllocator& blocks, const BlockAllocator::Done& done) {
            *page = blocks.pools(*after);
            done({});
        }));
        if (page->empty()) return pools;
        std::ranges::move(*page, std::back_inserter(pools));
    }
}

Result<std::string> ClusterIpam::describe() const {
    const auto text = std::make_shared<std::string>();
    WEFT_TRY(state_->await([=](BlockAllocator& blocks, const BlockAllocator::Done& done) {
        *text = blocks.ledger().describe() + "\n";
        done({});
    }));
    WEFT_ASSIGN(const auto pools, sharedPools());
    return *text + ipam::describe(pools);
}

std::shared_ptr<const LedgerFacts> ClusterIpam::facts() const {
    const std::lock_guard lock(state_->board->mutex);
    return state_->board->facts;
}

}  // namespace weft::ipam
