// Random schedules of hosts that share pools: partitions, crashes that lose what was not yet durable, restarts, hosts
// given up for ever, and containers with and without --ip. At no moment may an address be held twice, by hosts that
// were not given up; in the end, when everything is healed, every host can still allocate while there is something
// free.
//
// WEFT_SIM_SCHEDULES=N runs N schedules (spread over the shards), WEFT_SIM_SEED=N runs that one alone, with a log.
// WEFT_SIM_LOSSES=0 leaves out what is lost of disks and identities, and ballots that leap.
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <future>
#include <mutex>
#include <numeric>
#include <thread>

#include "ipam/block_allocator.h"
#include "ipam/cluster_ipam.h"
#include "kv/wire.h"
#include "tests/must.h"
#include "tests/unit/ipam/fake_store.h"
#include "tests/unit/kv/simulator.h"

namespace weft::ipam {
namespace {

using namespace std::chrono_literals;
using kv::sim::Cluster;
using kv::sim::SeededRandom;

constexpr uint64_t kShards = 10;

uint64_t fromEnvironment(const char* name, uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

class Lab {
public:
    Lab(uint64_t seed, kv::Config config)
        : verbose_(fromEnvironment("WEFT_SIM_SEED", 0) != 0),
          random_(seed ^ 0xb10c),
          cluster_(seed, std::move(config)) {}
    ~Lab() {
        for (auto& host : hosts_) stop(*host);
    }

    struct Host {
        size_t number = 0;
        FakeStore store;
        std::unique_ptr<LocalIpam> book;
        std::unique_ptr<BlockAllocator> blocks;
        std::map<IpPrefix, PoolId> pools;
        std::set<IpPrefix> known;  // by the cluster
        Clock::Monotonic lastTick;
        std::map<IpAddress, int> containers;
        bool givenUp = false;
        std::vector<std::pair<kv::sim::Cluster::Disk, FakeStore>> copies;  // of its disk, the oldest first
        int cluster = 0;                                                   // addresses are compared within one
        std::optional<std::vector<kv::Address>> join;                      // else the cluster's seeds
        std::shared_ptr<int> life;
    };

    size_t add() {
        hosts_.push_back(std::make_unique<Host>());
        hosts_.back()->number = cluster_.add();
        return hosts_.size() - 1;
    }

    void start(size_t number) {
        log("start " + std::to_string(number));
        cluster_.start(number);
        Host& host = *hosts_[number];
        host.life = std::make_shared<int>(0);
        host.known.clear();
        LocalIpamConfig local;
        local.onlyHeld = true;
        local.quarantine = 0s;
        LocalIpamHooks hooks;
        hooks.random = [this] { return random_.next(); };
        host.book = LocalIpam::create(host.store, clock(), local, std::move(hooks)).value();
        BlockConfig config;
        config.patience = 1500ms;
        config.answerTime = 250ms;
        config.aheadPause = 500ms;
        config.handBackAfter = 500ms;
        config.recoverQuiet = 500ms;
        config.firstContact = 400ms;
        config.evidence.prefix = "overlay/ep/";
        config.evidence.addresses = [](const kv::Row& row) {
            const auto address = IpAddress::parse(row.value);
            return address ? std::vector{*address} : std::vector<IpAddress>();
        };
        config.ledger.claimDelay = 300ms;
        config.ledger.self = kv::sim::hostAddress(number);
        config.ledger.seeds = [this, &host] { return host.join ? host.join : std::optional(cluster_.config().seeds); };
        config.ledger.random = [this] { return random_.next(); };
        config.ledger.alone = alone;
        host.blocks = std::make_unique<BlockAllocator>(cluster_.node(number), *host.book, clock(), config);
        // As the driver does, from its records.
        for (const auto& [address, count] : host.containers) tell(number, address);
        for (const kv::Row& row : cluster_.node(number).table().list(cluster_.id(number), "overlay/ep/")) {
            const auto address = IpAddress::parse(row.value);
            if (address && !host.containers.contains(*address)) untell(number, *address);
        }
        if (!verbose_) return;
        cluster_.node(number).watch("ipam/", [this, number](kv::RowEvent event, const kv::Row& row) {
            if (row.owner != cluster_.id(number) || event != kv::RowEvent::Put) return;
            std::string value;
            for (const char byte : row.value) {
                char digits[3];
                std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(byte));
                value += digits;
            }
            log("  " + std::to_string(number) + " writes " + row.key + " " + value);
        });
    }

    void crash(size_t number) {
        log("crash " + std::to_string(number));
        stop(*hosts_[number]);
        cluster_.crash(number);
    }

    // A copy of its disk, as it is now.
    void copy(size_t number) {
        Host& host = *hosts_[number];
        host.copies.emplace_back(cluster_.disk(number), host.store);
    }
    // Down. With the copy the host forgets containers made since: they are gone, for it was booted from it.
    void putBack(size_t number, kv::sim::Cluster::Disk disk, const FakeStore& store, bool noticed) {
        Host& host = *hosts_[number];
        cluster_.putDiskBack(number, std::move(disk), noticed);
        host.store = store;
        std::set<IpAddress> known;
        const StoredIpam stored = must(host.store.load());
        for (const LeaseRecord& lease : stored.leases) known.insert(lease.key.address);
        std::erase_if(host.containers, [&](const auto& container) { return !known.contains(container.first); });
        host.pools.clear();
        for (const PoolRecord& pool : stored.pools) host.pools[pool.pool] = pool.id;
        IpamChange ended;  // since the copy
        for (const LeaseRecord& lease : stored.leases) {
            if (!host.containers.contains(lease.key.address)) ended.eraseLeases.push_back(lease.key);
        }
        must(host.store.apply(ended));
    }
    // A new identity, with all that runs there. Down.
    void renew(size_t number, bool first = false) {
        cluster_.setIdentity(number, 1000 + ++renewed_);
        auto disk = cluster_.disk(number);
        disk.doubt = false;
        disk.origin = first ? kv::Origin::First : kv::Origin::Heir;
        cluster_.putDiskBack(number, disk, false);
    }

    void run(Clock::Monotonic::duration time) {
        const auto end = cluster_.now() + time;
        while (cluster_.now() < end) {
            for (auto& host : hosts_) {
                if (!host->blocks || (!host->blocks->busy() && cluster_.now() - host->lastTick < 500ms)) continue;
                host->blocks->tick();
                host->lastTick = cluster_.now();
            }
            cluster_.run(std::min<Clock::Monotonic::duration>(50ms, end - cluster_.now()));
        }
    }
    bool runUntil(const std::function<bool()>& done, Clock::Monotonic::duration limit) {
        const auto end = cluster_.now() + limit;
        while (!done()) {
            if (cluster_.now() >= end) return false;
            run(50ms);
        }
        return true;
    }

    // Its head says and its disk holds a promise of that ballot, as a liar's or an older weftd's may.
    void poison(size_t number, uint32_t epoch, const kv::NodeId& claimant) {
        const kv::Row* row = cluster_.node(number).table().find(cluster_.id(number), "ipam/head");
        if (row == nullptr || row->value.front() != 1) return;  // with numbers beyond 32 bits already
        log("host " + std::to_string(number) + " promises " + std::to_string(epoch) + " of " + claimant.brief());
        std::string value = row->value;
        kv::Reader in(kv::asBytes(value));
        in.u8();
        if (in.u32() >= epoch) return;  // no disk takes a promise back
        kv::Writer out;
        out.u32(epoch);
        out.id(claimant);
        std::copy(out.view().begin(), out.view().end(), value.begin() + 1);
        rewrite(number, {{"ipam/head", value}});
    }
    // Its rows, under a weftd that is down.
    void rewrite(size_t number, const std::vector<std::pair<std::string, std::string>>& rows) {
        stop(*hosts_[number]);
        size_t saved = 0;
        for (const auto& [key, value] : rows) {
            cluster_.node(number).put(key, value, [&](const Result<void>& put) { saved += put ? 1 : 0; });
        }
        cluster_.runUntil([&] { return saved == rows.size(); }, 5s);
        run(50ms);
        crash(number);
        start(number);
    }

    // What ClusterIpam::requestAddress does, without threads.
    using Answer = std::function<void(Result<IpPrefix>)>;
    void request(size_t number, const IpPrefix& prefix, std::optional<IpAddress> exact, const Answer& answer) {
        Host& host = *hosts_[number];
        auto& poolId = host.pools[prefix];
        if (poolId.empty()) {
            auto reply = host.book->requestPool({.addressSpace = "o", .pool = prefix, .subPool = {}, .options = {}});
            ASSERT_TRUE(reply) << reply.error().message;
            poolId = reply->poolId;
        }
        if (host.known.contains(prefix)) return attempt(number, prefix, poolId, exact, answer, cluster_.now() + 2s);
        host.blocks->needPool(prefix, {},
                              [this, number, prefix, exact, answer, id = poolId,
                               life = std::weak_ptr(host.life)](const Result<void>& known) {
                                  if (life.expired()) return;
                                  if (!known) return answer(known.error());
                                  hosts_[number]->known.insert(prefix);
                                  attempt(number, prefix, id, exact, answer, cluster_.now() + 2s);
                              });
    }

    // A container, if it gets an address.
    void create(size_t number, const IpPrefix& prefix, std::optional<IpAddress> exact = {}) {
        request(number, prefix, exact, [this, number, exact](const Result<IpPrefix>& answer) {
            if (answer) {
                ++made;
                log("host " + std::to_string(number) + " got " + answer->address().str());
            } else {
                log("host " + std::to_string(number) + " got no address: " + answer.error().message);
            }
        });
    }

    void release(size_t number, IpAddress address) {
        Host& host = *hosts_[number];
        log("host " + std::to_string(number) + " releases " + address.str());
        host.containers.erase(address);
        if (cluster_.up(number)) untell(number, address);
        for (const auto& [prefix, id] : host.pools) {
            if (prefix.contains(address)) static_cast<void>(host.book->releaseAddress(id, address));
        }
    }

    // The end of all networks of a pool on a host.
    void leavePool(size_t number, const IpPrefix& prefix) {
        Host& host = *hosts_[number];
        const auto pool = host.pools.find(prefix);
        if (pool == host.pools.end()) return;
        for (const auto& [address, count] : host.containers) {
            if (prefix.contains(address)) return;
        }
        ASSERT_TRUE(host.book->releasePool(pool->second));
        host.pools.erase(pool);
    }

    void fail(const std::string& what) {
        if (problem.empty()) problem = what;
        log("FAILED: " + what);
    }
    void log(const std::string& what) const {
        if (verbose_) {
            printf("%9.3f %s\n", std::chrono::duration<double>(cluster_.now().time_since_epoch()).count(),
                   what.c_str());
        }
    }

    Host& host(size_t number) { return *hosts_[number]; }
    Cluster& cluster() { return cluster_; }
    SeededRandom& random() { return random_; }
    [[nodiscard]] size_t size() const { return hosts_.size(); }
    std::string problem;
    size_t made = 0;
    bool alone = false;  // as without a cluster key

private:
    const Clock& clock() { return cluster_.clock(); }

    static void stop(Host& host) {
        host.life.reset();
        host.blocks.reset();
        host.book.reset();
    }

    void attempt(size_t number, const IpPrefix& prefix, const PoolId& id, std::optional<IpAddress> exact,
                 const Answer& answer, Clock::Monotonic deadline) {
        Host& host = *hosts_[number];
        auto got = host.book->requestAddress({.poolId = id, .address = exact, .mac = {}});
        if (got) {
            claim(number, got->address());
            return answer(got);
        }
        const bool wait = got.error().code == ErrorCode::Exhausted || got.error().code == ErrorCode::Unavailable;
        if (!wait || cluster_.now() >= deadline) return answer(got);
        host.blocks->needAddress(prefix, exact, {},
                                 [this, number, prefix, id, exact, answer, deadline,
                                  life = std::weak_ptr(host.life)](const Result<void>& result) {
                                     if (life.expired()) return;
                                     if (!result) return answer(result.error());
                                     attempt(number, prefix, id, exact, answer, deadline);
                                 });
    }

    // The invariant.
    void claim(size_t number, const IpAddress& address) {
        for (const auto& other : hosts_) {
            // Who was given up is taken to be gone with its containers, whatever it still does.
            if (hosts_[number]->givenUp || other->givenUp || !other->containers.contains(address)) continue;
            if (hosts_[number]->cluster != other->cluster) continue;
            fail("address " + address.str() + " given by host " + std::to_string(number) + " is held at host " +
                 std::to_string(other->number));
        }
        if (BlockPlan plan(prefixOf(number, address)); plan.usable.first == address.bits()) {
            fail("the gateway was given to a container");
        }
        ++hosts_[number]->containers[address];
        tell(number, address);
    }
    void tell(size_t number, const IpAddress& address) {
        cluster_.node(number).put("overlay/ep/" + address.str(), address.str(), [](const Result<void>&) {});
    }
    void untell(size_t number, const IpAddress& address) {
        cluster_.node(number).erase("overlay/ep/" + address.str(), [](const Result<void>&) {});
    }
    IpPrefix prefixOf(size_t number, const IpAddress& address) {
        for (const auto& [prefix, id] : hosts_[number]->pools) {
            if (prefix.contains(address)) return prefix;
        }
        return {};
    }

    bool verbose_;
    SeededRandom random_;
    Cluster cluster_;
    std::vector<std::unique_ptr<Host>> hosts_;
    uint64_t renewed_ = 0;
};

kv::Config labConfig(uint64_t seed) {
    kv::Config config = kv::sim::fastConfig();
    config.seeds = {kv::sim::hostAddress(0)};
    if (seed % 3 == 0) config.seeds.push_back(kv::sim::hostAddress(1));
    config.partitionLimit = 60s;
    config.tombstoneSlack = 30s;
    return config;
}

class Schedule {
public:
    // `losses`: of what disks remember, too.
    explicit Schedule(uint64_t seed, bool losses)
        : seed_(seed),
          losses_(losses),
          lab_(seed, labConfig(seed)),
          random_(lab_.random()),
          lossRandom_(seed ^ 0x105e) {}

    // Empty, or what went wrong.
    std::string run() {
        lab_.cluster().wire.loss = chance(0.6) ? 0 : 0.15 * random_.unit();
        lab_.cluster().wire.delayMax = chance(0.5) ? 1ms : 30ms;
        lab_.cluster().syncDelay = chance(0.3) ? 0ms : 20ms;
        const size_t hosts = 2 + random_.below(chance(0.2) ? 8 : 4);
        static const std::vector<std::string> kPools{"10.32.0.0/24", "10.33.0.0/28", "10.34.0.0/16",
                                                     "fd00:1::/64",  "10.35.0.0/29", "10.36.0.0/26"};
        pools_ = {prefix(kPools[random_.below(kPools.size())])};
        if (chance(0.3)) pools_.push_back(prefix(kPools[random_.below(kPools.size())]));
        for (size_t i = 0; i < hosts; ++i) {
            lab_.add();
            // 1970 or 2100; true is 2020.
            if (losses_ && lossRandom_.unit() < 0.2) {
                lab_.cluster().setClock(i, lossRandom_.unit() < 0.5 ? -24h * 365 * 50 : 24h * 365 * 80);
            }
        }
        for (size_t i = 0; i < hosts; ++i) {
            if (i == 0 || chance(0.8)) lab_.start(i);
        }
        if (chance(0.7)) lab_.run(500ms);
        const size_t steps = 8 + random_.below(12);
        for (size_t i = 0; i < steps && lab_.problem.empty(); ++i) {
            if (losses_ && lossRandom_.unit() < 0.25) lose(lossRandom_.below(lab_.size()));
            step();
            lab_.run(chance(0.8) ? 5ms + 1ms * random_.below(200) : 1ms * random_.below(2500));
        }
        if (lab_.problem.empty()) heal();
        return lab_.problem.empty() ? "" : "seed " + std::to_string(seed_) + ": " + lab_.problem;
    }

private:
    bool chance(double p) { return random_.unit() < p; }

    void step() {
        const size_t number = random_.below(lab_.size());
        Lab::Host& host = lab_.host(number);
        if (!host.blocks) {
            if (!host.givenUp && chance(0.5)) lab_.start(number);
            return;
        }
        const double dice = random_.unit();
        const IpPrefix& pool = pools_[random_.below(pools_.size())];
        if (dice < 0.50) {
            const size_t count = 1 + random_.below(chance(0.2) ? 12 : 3);
            for (size_t i = 0; i < count && host.blocks; ++i) {
                std::optional<IpAddress> exact;
                if (chance(0.3)) {
                    const Uint128 offset = 2 + random_.below(12);
                    exact = IpAddress(pool.family(),
                                      chance(0.5) ? pool.first().bits() + offset : pool.last().bits() - offset);
                }
                if (exact && !BlockPlan(pool).usable.contains(exact->bits())) exact.reset();
                lab_.create(number, pool, exact);
            }
            return;
        }
        if (dice < 0.62) {
            while (!host.containers.empty() && chance(0.7)) lab_.release(number, host.containers.begin()->first);
            if (chance(0.3)) lab_.leavePool(number, pool);
            return;
        }
        if (dice < 0.74) return lab_.crash(number);
        if (dice < 0.80) return forget(number, chance(0.2));
        if (losses_ && dice < 0.82) {
            static constexpr uint32_t kEpochs[] = {40, 300, 1'000'000, UINT32_MAX};
            const kv::NodeId claimant = chance(0.5) ? lab_.cluster().id(number) : kv::NodeId{{9}};
            return lab_.poison(number, kEpochs[random_.below(4)], claimant);
        }
        if (dice < 0.90) {
            lab_.log("heal");
            return lab_.cluster().part({});
        }
        std::vector<int> groups(lab_.size());
        for (int& group : groups) group = static_cast<int>(random_.below(2));
        lab_.log("part");
        lab_.cluster().part(groups);
    }

    // What a host remembers is lost, put back or given up.
    void lose(size_t number) {
        Lab::Host& host = lab_.host(number);
        if (host.givenUp) return;
        const double dice = lossRandom_.unit();
        if (dice < 0.4) return lab_.copy(number);
        const bool isUp = host.blocks != nullptr;
        const auto bePut = [&](const char* what, bool noticed, const auto& disk, const FakeStore& store) {
            if (host.blocks) lab_.crash(number);
            lab_.log(std::string(what) + " " + std::to_string(number));
            lab_.putBack(number, disk, store, noticed);
        };
        if (dice < 0.55) {  // of the state directory only the database
            if (host.copies.empty()) return;
            const auto& [disk, store] = host.copies[lossRandom_.below(host.copies.size())];
            bePut("database put back", true, disk, FakeStore(store));
        } else if (dice < 0.7) {
            bePut("database lost", true, kv::sim::Cluster::Disk{}, FakeStore());
        } else if (dice < 0.85) {
            renew(number);
        } else {  // all of the state directory, which only others can tell
            if (host.copies.empty() || !whole(number)) return;
            const auto& [disk, store] = host.copies[lossRandom_.below(host.copies.size())];
            bePut("everything put back", false, disk, FakeStore(store));
            lab_.start(number);
            lab_.run(500ms);
            return;
        }
        if (isUp && lossRandom_.unit() < 0.7) lab_.start(number);
    }

    // A new identity under the same containers: after a theft, or as the operator's way out.
    void renew(size_t number, bool first = false) {
        const kv::NodeId old = lab_.cluster().id(number);
        if (lab_.host(number).blocks) lab_.crash(number);
        lab_.log("renew " + std::to_string(number));
        lab_.renew(number, first);
        given_.push_back(old);
    }

    // Every other host is there and they hear each other well.
    bool whole(size_t but) {
        lab_.cluster().part({});
        lab_.cluster().wire.loss = 0;
        for (size_t i = 0; i < lab_.size(); ++i) {
            if (i == but || lab_.host(i).givenUp) continue;
            if (!lab_.host(i).blocks) lab_.start(i);
        }
        if (lab_.host(but).blocks) {
            lab_.run(1s);
            lab_.crash(but);
        }
        size_t known = 0;
        lab_.run(2s);
        for (size_t i = 0; i < lab_.size(); ++i) {
            known += i != but && !lab_.host(i).givenUp && lab_.cluster().node(i).member(lab_.cluster().id(but)) ? 1 : 0;
        }
        return known > 0;
    }

    // The operator's word is that the host is gone: it is stopped for ever, or cut off and its containers stopped, with
    // weftd still running there. He gives up a minority only, unless he forces it.
    void forget(size_t by, bool force) {
        std::vector<size_t> others;
        size_t known = 0;
        for (size_t i = 0; i < lab_.size(); ++i) {
            known += lab_.host(i).givenUp ? 0 : 1;
            if (i != by && !lab_.host(i).givenUp) others.push_back(i);
        }
        if (others.empty() || known <= 2) return;
        const size_t gone = others[random_.below(others.size())];
        Lab::Host& host = lab_.host(gone);
        const LedgerView& view = lab_.host(by).blocks->ledger().committed();
        if (!view.isMember(lab_.cluster().id(by)) || !view.isMember(lab_.cluster().id(gone))) return;
        if (host.blocks && chance(0.6)) lab_.crash(gone);
        if (host.blocks) {
            // With gifts of its on their way.
            for (size_t i = 0; i < lab_.size(); ++i) {
                for (int tries = 0; tries < 3 && lab_.host(i).blocks && chance(0.5); ++tries)
                    lab_.create(i, pools_.front());
            }
            lab_.run(1ms * random_.below(60));
            // Cut off, but running, with the hosts of its side if there is a partition: it may still give blocks away.
            std::vector<int> groups(lab_.size());
            for (int& group : groups) group = chance(0.3) ? 1 : 0;
            groups[gone] = 1;
            groups[by] = 0;
            lab_.cluster().part(groups);
        }
        host.givenUp = true;
        lab_.log("host " + std::to_string(by) + " gives up " + std::to_string(gone));
        lab_.runUntil([&] { return !lab_.host(by).blocks->ledger().alive(lab_.cluster().id(gone)); }, 3s);
        if (auto begun = lab_.host(by).blocks->forget(lab_.cluster().id(gone).str(), force); !begun) {
            lab_.log("  " + begun.error().message);
        }
        if (chance(0.5)) return;
        lab_.run(1ms * random_.below(2000));
        lab_.cluster().part({});  // and there it is again
        lab_.run(500ms);
    }

    void heal() {
        lab_.log("heal for good");
        lab_.cluster().part({});
        lab_.cluster().wire = {};
        for (size_t i = 0; i < lab_.size(); ++i) {
            if (lab_.host(i).givenUp && lab_.host(i).blocks) lab_.crash(i);
        }
        for (size_t i = 0; i < lab_.size(); ++i) {
            if (!lab_.host(i).givenUp && !lab_.host(i).blocks) lab_.start(i);
        }
        const auto living = [this] {
            std::vector<size_t> hosts;
            for (size_t i = 0; i < lab_.size(); ++i) {
                if (!lab_.host(i).givenUp) hosts.push_back(i);
            }
            return hosts;
        };
        lab_.runUntil([this] { return lab_.cluster().converged(); }, 30s);
        const auto remembers = [&] {
            return std::ranges::none_of(living(), [&](size_t i) { return lab_.host(i).blocks->fenced(); });
        };
        // Who lost its memory has it back from the others, or is renewed if these cannot tell, for another lost it,
        // too.
        const auto renewTheFenced = [&] {
            for (const size_t i : living()) {
                if (!lab_.host(i).blocks->fenced()) continue;
                lab_.log("fenced for good: " + why(i));
                renew(i);
                lab_.start(i);
            }
        };
        if (!lab_.runUntil(remembers, 10s)) renewTheFenced();
        // Where none of the ledger is left one begins anew.
        const auto member = [this](size_t i) {
            const Ledger& ledger = lab_.host(i).blocks->ledger();
            return !ledger.committed().members.empty() && ledger.accepted().isMember(lab_.cluster().id(i));
        };
        lab_.create(living().front(), pools_.front());
        lab_.runUntil([&] { return std::ranges::any_of(living(), member); }, 10s);
        if (std::ranges::none_of(living(), member)) {
            const size_t first = living().front();
            renew(first, true);
            lab_.host(first).join.emplace();
            for (const size_t i : living()) lab_.host(first).join->push_back(kv::sim::hostAddress(i));
            lab_.start(first);
            lab_.cluster().node(first).setSeeds(*lab_.host(first).join);
            lab_.create(first, pools_.front());
            lab_.runUntil([&] { return member(first); }, 10s);
            for (const size_t i : living()) {
                if (kinOf(lab_.cluster().node(first).table(), lab_.cluster().id(first), lab_.cluster().id(i)) !=
                    Kin::Other)
                    continue;
                renew(i);
                lab_.start(i);
            }
        }
        lab_.runUntil([this] { return lab_.cluster().converged(); }, 5s);
        // Whoever was given up is forgotten now, if the hosts that remain know it at all.
        size_t first = living().front();
        for (const size_t i : living()) {
            if (member(i)) first = i;
        }
        // --join names a host that is still there, and a member.
        if (lab_.host(0).givenUp || lab_.host(1).givenUp) {
            lab_.cluster().config().seeds = {kv::sim::hostAddress(first)};
            for (const size_t i : living()) lab_.cluster().node(i).setSeeds(lab_.cluster().config().seeds);
        }
        const auto patience = lab_.cluster().now() + 6s;
        const auto settled = [&] {
            bool done = true;
            for (size_t i = 0; i < lab_.size(); ++i) {
                if (!lab_.host(i).givenUp) continue;
                const kv::NodeId id = lab_.cluster().id(i);
                const bool known = std::ranges::any_of(
                    living(), [&](size_t other) { return lab_.host(other).blocks->findHost(id.str()).has_value(); });
                if (!known || lab_.host(first).blocks->ledger().committed().forgotten.contains(id)) continue;
                // By force only where there is no other way: half of the hosts are gone.
                const bool force = lab_.cluster().now() > patience;
                static_cast<void>(lab_.host(first).blocks->forget(id.str(), force));
                done = false;
            }
            if (lab_.cluster().now() > patience + 4s) renewTheFenced();
            for (const kv::NodeId& id : given_) {
                const LedgerView& view = lab_.host(first).blocks->ledger().committed();
                if (view.forgotten.contains(id) || !lab_.host(first).blocks->findHost(id.str())) continue;
                static_cast<void>(lab_.host(first).blocks->forget(id.str(), lab_.cluster().now() > patience));
                done = false;
            }
            for (const size_t i : living()) done = done && !lab_.host(i).blocks->ledger().frozen();
            return done;
        };
        // Nobody leads before somebody wants something.
        lab_.create(first, pools_.front());
        const bool done = lab_.runUntil(settled, 20s);
        if (!done) return lab_.fail("hosts given up were not forgotten: " + why());
        static_cast<void>(lab_.runUntil([this] { return lab_.cluster().converged(); }, 10s));
        if (!lab_.problem.empty()) return;
        for (const size_t i : living()) {
            if (!lab_.runUntil(settled, 20s)) return lab_.fail("hosts given up were not forgotten: " + why());
            progress(i);
        }
    }

    std::string why() {
        std::string all;
        for (size_t i = 0; i < lab_.size(); ++i) {
            if (lab_.host(i).blocks) all += "host " + std::to_string(i) + ": " + why(i);
        }
        return all;
    }
    std::string why(size_t number) { return lab_.host(number).blocks->describe(); }

    // While anything is free, a host gets it.
    void progress(size_t number) {
        for (const IpPrefix& pool : pools_) {
            std::optional<Result<IpPrefix>> result;
            const auto ask = [&] {
                result.reset();
                lab_.request(number, pool, {}, [&result](Result<IpPrefix> answer) { result = std::move(answer); });
                lab_.runUntil([&] { return result.has_value(); }, 8s);
                return result && *result;
            };
            bool got = ask();
            // What is between two hosts, or on its way back to whom it was carved from, is nobody's for a moment.
            for (int tries = 0; !got && tries < 5; ++tries) {
                lab_.run(300ms);
                got = ask();
            }
            if (got) {
                lab_.release(number, (*result)->address());
                continue;
            }
            Uint128 used = 0;
            for (size_t i = 0; i < lab_.size(); ++i) {
                if (lab_.host(i).givenUp) continue;
                for (const auto& [address, count] : lab_.host(i).containers) used += pool.contains(address) ? 1 : 0;
            }
            if (used + 1 < BlockPlan(pool).usable.size()) {
                lab_.fail("host " + std::to_string(number) + " gets no address of " + pool.str() + " though " +
                          std::to_string(static_cast<uint64_t>(BlockPlan(pool).usable.size() - 1 - used)) +
                          " are free: " + (result ? result->error().message : "no answer") + "\n" + why(number));
            }
        }
    }

    uint64_t seed_;
    bool losses_;
    Lab lab_;
    SeededRandom& random_;
    SeededRandom lossRandom_;
    std::vector<kv::NodeId> given_;  // identities that hosts had
    std::vector<IpPrefix> pools_;
};

// Two clusters that were begun apart and meet: both sides notice, neither harms the other.
class TwoClusters : public testing::TestWithParam<uint64_t> {};

TEST_P(TwoClusters, MeetAndGoOnEachForItself) {
    Lab lab(GetParam(), labConfig(1));
    SeededRandom& random = lab.random();
    const size_t hosts = 2 + random.below(4);
    const size_t split = 1 + random.below(hosts - 1);
    std::vector<int> groups;
    for (size_t i = 0; i < hosts; ++i) groups.push_back(i < split ? 0 : 1);
    lab.cluster().part(groups);
    const std::vector<IpPrefix> pools{prefix("10.32.0.0/24"), prefix("10.33.0.0/28")};
    for (size_t i = 0; i < hosts; ++i) {
        lab.cluster().config().seeds = {kv::sim::hostAddress(i < split ? 0 : split)};
        lab.add();
        lab.host(i).cluster = groups[i];
        lab.host(i).join = lab.cluster().config().seeds;
        lab.start(i);
        lab.run(1ms * random.below(800));
    }
    const auto use = [&](int steps) {
        for (int i = 0; i < steps; ++i) {
            const size_t host = random.below(hosts);
            lab.create(host, pools[random.below(2)]);
            if (random.unit() < 0.2) {
                lab.cluster().config().seeds = {kv::sim::hostAddress(host < split ? 0 : split)};
                lab.crash(host);
                lab.start(host);
            }
            lab.run(1ms * random.below(300));
        }
    };
    use(10);
    lab.run(3s);
    for (size_t i = 0; i < hosts; ++i) {
        ASSERT_TRUE(lab.host(i).blocks->ledger().isMember()) << i << lab.host(i).blocks->describe();
    }
    lab.cluster().part({});
    lab.cluster().node(random.below(split)).setSeeds({kv::sim::hostAddress(split)});
    use(10);
    lab.cluster().node(0).setSeeds({kv::sim::hostAddress(split)});  // a restart forgot it
    ASSERT_TRUE(lab.cluster().runUntil([&] { return lab.cluster().converged(); }, 60s));
    use(10);
    lab.run(5s);
    for (size_t i = 0; i < hosts; ++i) {
        const Ledger& ledger = lab.host(i).blocks->ledger();
        EXPECT_EQ(ledger.committed().members.size(), i < split ? split : hosts - split) << i;
        EXPECT_EQ(ledger.facts().strangers.size(), i < split ? hosts - split : split) << i;
        EXPECT_FALSE(ledger.facts().warnings.empty());
    }
    EXPECT_EQ(lab.problem, "");
}

INSTANTIATE_TEST_SUITE_P(Seeds, TwoClusters, testing::Range<uint64_t>(1, 41));

// --- the rules one by one ---

class Blocks : public testing::Test {
protected:
    void start(size_t hosts) {
        for (size_t i = 0; i < hosts; ++i) lab.add();
        for (size_t i = 0; i < hosts; ++i) lab.start(i);
        lab.run(1s);
    }
    Result<IpPrefix> request(size_t host, const IpPrefix& from, std::optional<IpAddress> exact = {}) {
        std::optional<Result<IpPrefix>> result;
        lab.request(host, from, exact, [&result](Result<IpPrefix> answer) { result = std::move(answer); });
        lab.runUntil([&] { return result.has_value(); }, 5s);
        return result ? *result : makeError(ErrorCode::Timeout, "no answer");
    }
    bool forgotten(size_t by, size_t host) { return lab.host(by).blocks->forgetting(lab.cluster().id(host)).empty(); }
    Result<void> forget(size_t by, size_t host, bool force = false) {
        lab.host(host).givenUp = true;
        lab.cluster().runUntil([&] { return !lab.host(by).blocks->ledger().alive(lab.cluster().id(host)); }, 20s);
        return lab.host(by).blocks->forget(lab.cluster().id(host).str(), force);
    }

    Lab lab{1, labConfig(1)};
    const IpPrefix pool = prefix("10.32.0.0/24");
};

TEST(BlockPlanTest, CutsBySize) {
    EXPECT_EQ(BlockPlan(prefix("10.0.0.0/16")).count, 256U);
    EXPECT_EQ(BlockPlan(prefix("10.0.0.0/16")).bits, 8U);
    EXPECT_EQ(BlockPlan(prefix("10.0.0.0/24")).count, 32U);
    EXPECT_EQ(BlockPlan(prefix("10.0.0.0/28")).bits, 0U);
    EXPECT_EQ(BlockPlan(prefix("10.0.0.0/32")).count, 1U);
    EXPECT_EQ(BlockPlan(prefix("fd00::/64")).count, 256U);
    const BlockPlan plan(prefix("10.0.0.0/24"));
    EXPECT_EQ(plan.blockOf(ip("10.0.0.9")), 1U);
    EXPECT_EQ(plan.range(0).first, ip("10.0.0.1").bits());
    EXPECT_EQ(plan.range(31).last, ip("10.0.0.254").bits());
}

TEST_F(Blocks, OneHostIsACluster) {
    start(1);
    EXPECT_EQ(request(0, pool).value().str(), "10.32.0.2/24");
    EXPECT_EQ(request(0, pool, ip("10.32.0.200")).value().str(), "10.32.0.200/24");
    EXPECT_EQ(request(0, pool, ip("10.32.0.200")).error().code, ErrorCode::Busy);
}

TEST_F(Blocks, TheSecondHostLivesOnItsOwnWhenTheFirstIsDown) {
    start(2);
    ASSERT_TRUE(request(0, pool));
    ASSERT_TRUE(request(1, pool));
    lab.crash(0);
    lab.run(10s);
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(request(1, pool)) << i;
    for (int i = 0; i < 20; ++i) static_cast<void>(request(1, pool));
    const auto refused = request(1, pool);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::Unavailable);
    EXPECT_NE(refused.error().message.find("away: host0"), std::string::npos) << refused.error().message;
    const auto made = request(1, prefix("10.40.0.0/24"));
    // Of two hosts the one that leads can go on alone, the other cannot.
    const bool leads = lab.host(1).blocks->describe().find("led by this host") != std::string::npos;
    EXPECT_EQ(static_cast<bool>(made), leads);
    if (!made) {
        EXPECT_NE(made.error().message.find("host0"), std::string::npos) << made.error().message;
    }
    lab.start(0);
    lab.run(3s);
    EXPECT_TRUE(request(1, pool));
    EXPECT_EQ(lab.problem, "");
}

TEST_F(Blocks, AFullPoolSaysWhoHoldsIt) {
    start(2);
    const IpPrefix small = prefix("10.33.0.0/29");
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(request(static_cast<size_t>(i % 2), small)) << i;
    const auto before = lab.cluster().now();
    const auto refused = request(1, small);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::Exhausted);
    EXPECT_NE(refused.error().message.find("host0 holds"), std::string::npos) << refused.error().message;
    EXPECT_LT(lab.cluster().now() - before, 1s);
    lab.release(0, lab.host(0).containers.begin()->first);
    EXPECT_TRUE(request(1, small));
    EXPECT_EQ(lab.problem, "");
}

// Asked for in a circle once, without end.
TEST_F(Blocks, AnAddressOfItsOwnBlocksThatAnothersContainerHasIsBusy) {
    start(2);
    ASSERT_TRUE(request(0, pool));
    lab.cluster().node(1).put("overlay/ep/10.32.0.9", "10.32.0.9", [](const Result<void>&) {});
    lab.run(1s);
    const auto taken = request(0, pool, ip("10.32.0.9"));
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::Busy);
    EXPECT_NE(taken.error().message.find("in use at host1"), std::string::npos) << taken.error().message;
    lab.cluster().node(1).erase("overlay/ep/10.32.0.9", [](const Result<void>&) {});
    lab.run(1s);
    EXPECT_TRUE(request(0, pool, ip("10.32.0.9")));
}

TEST_F(Blocks, AGivenAddressComesFromItsOwner) {
    start(2);
    ASSERT_EQ(request(0, pool).value().address(), ip("10.32.0.2"));
    EXPECT_EQ(request(1, pool, ip("10.32.0.3")).value().address(), ip("10.32.0.3"));
    const auto taken = request(1, pool, ip("10.32.0.2"));
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::Busy);
    EXPECT_NE(taken.error().message.find("host0"), std::string::npos) << taken.error().message;
    EXPECT_EQ(request(0, pool, ip("10.32.0.3")).error().code, ErrorCode::Busy);
    // Released, it goes back to the block's owner.
    lab.release(1, ip("10.32.0.3"));
    lab.run(3s);
    EXPECT_TRUE(request(0, pool, ip("10.32.0.3")));
    EXPECT_EQ(lab.problem, "");
}

TEST_F(Blocks, OnePoolHasOneGateway) {
    start(2);
    ASSERT_TRUE(request(0, pool));
    std::optional<Result<void>> result;
    lab.host(1).blocks->needPool(pool, ip("10.32.0.254"), [&](const Result<void>& r) { result = r; });
    lab.runUntil([&] { return result.has_value(); }, 5s);
    ASSERT_TRUE(result && !*result);
    EXPECT_NE(result->error().message.find("10.32.0.1"), std::string::npos);
    EXPECT_NE(result->error().message.find("10.32.0.254"), std::string::npos);
    result.reset();
    lab.host(1).blocks->needPool(prefix("10.32.0.0/16"), {}, [&](const Result<void>& r) { result = r; });
    lab.runUntil([&] { return result.has_value(); }, 5s);
    ASSERT_TRUE(result && !*result);
    EXPECT_NE(result->error().message.find("overlaps"), std::string::npos);
}

TEST_F(Blocks, EmptyBlocksGoHome) {
    start(2);
    ASSERT_TRUE(request(0, pool));
    const auto got = request(1, pool);
    ASSERT_TRUE(got);
    lab.run(1s);
    EXPECT_NE(lab.host(0).blocks->describe().find("host1 holds"), std::string::npos);
    lab.release(1, got->address());
    lab.leavePool(1, pool);
    lab.run(5s);
    EXPECT_EQ(lab.host(0).blocks->describe().find("host1 holds"), std::string::npos) << lab.host(0).blocks->describe();
}

TEST_F(Blocks, TheDeadHostsBlocksAreReturnedOnce) {
    start(3);
    ASSERT_TRUE(request(0, pool));
    ASSERT_TRUE(request(1, pool));
    ASSERT_TRUE(request(2, pool));
    EXPECT_EQ(lab.host(1).blocks->forget("host0", false).error().code, ErrorCode::Busy);  // it lives
    lab.crash(0);
    lab.run(500ms);
    ASSERT_TRUE(forget(1, 0));
    ASSERT_TRUE(forget(2, 0));
    ASSERT_TRUE(lab.runUntil([&] { return forgotten(1, 0) && forgotten(2, 0); }, 10s))
        << lab.host(1).blocks->forgetting(lab.cluster().id(0));
    lab.run(1s);
    EXPECT_EQ(lab.cluster().node(1).members().size(), 3U);
    EXPECT_EQ(lab.cluster().node(1).roster().size(), 2U);
    for (int i = 0; i < 300; ++i) {
        if (!request(1 + static_cast<size_t>(i % 2), pool)) break;
    }
    EXPECT_EQ(lab.host(1).containers.size() + lab.host(2).containers.size(), 253U);
    EXPECT_EQ(lab.problem, "");
    // Back again under the same identity, it gets and gives nothing.
    lab.start(0);
    lab.run(3s);
    EXPECT_EQ(lab.cluster().node(1).roster().size(), 3U);
    const auto refused = request(0, pool);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("forgotten"), std::string::npos) << refused.error().message;
}

TEST_F(Blocks, AMinorityForgetsNobodyAndNothingIsForgottenOverAnAbsentHost) {
    start(5);
    for (size_t i = 0; i < 5; ++i) ASSERT_TRUE(request(i, pool)) << i;
    lab.cluster().part({0, 0, 1, 1, 1});
    lab.run(20s);
    ASSERT_TRUE(forget(0, 3));
    lab.run(5s);
    EXPECT_FALSE(forgotten(0, 3));
    EXPECT_NE(lab.host(0).blocks->forgetting(lab.cluster().id(3)), "");
    lab.host(0).blocks->withdrawForget(lab.cluster().id(3));
    lab.host(3).givenUp = false;
    lab.cluster().part({});
    lab.run(5s);
    lab.crash(4);
    lab.crash(3);
    lab.run(10s);
    ASSERT_TRUE(forget(0, 4));
    lab.run(5s);
    EXPECT_NE(lab.host(0).blocks->forgetting(lab.cluster().id(4)).find("host3"), std::string::npos);
    EXPECT_TRUE(request(1, pool));  // nothing stands still meanwhile
    lab.start(3);
    EXPECT_TRUE(lab.runUntil([&] { return forgotten(0, 4); }, 20s));
    EXPECT_EQ(lab.problem, "");
}

TEST_F(Blocks, OfTwoHostsOneIsForgottenByForce) {
    start(2);
    ASSERT_TRUE(request(0, pool));
    ASSERT_TRUE(request(1, pool));
    const std::string leader = lab.host(0).blocks->describe().find("led by this host") != std::string::npos ? "0" : "1";
    const size_t dead = leader == "0" ? 0 : 1;
    lab.crash(dead);
    lab.run(10s);
    ASSERT_TRUE(forget(1 - dead, dead));
    lab.run(3s);
    EXPECT_FALSE(forgotten(1 - dead, dead));
    ASSERT_TRUE(forget(1 - dead, dead, true));
    EXPECT_TRUE(lab.runUntil([&] { return forgotten(1 - dead, dead); }, 10s));
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(request(1 - dead, pool)) << i;
}

TEST_F(Blocks, RestWhenNothingIsWanted) {
    start(3);
    for (size_t i = 0; i < 3; ++i) {
        ASSERT_TRUE(request(i, pool));
        lab.run(2s);
        for (size_t host = 0; host < 3; ++host) EXPECT_FALSE(lab.host(host).blocks->busy()) << host;
    }
    lab.crash(0);
    lab.run(10s);
    EXPECT_FALSE(lab.host(1).blocks->busy());
    ASSERT_TRUE(forget(1, 0));
    EXPECT_TRUE(lab.host(1).blocks->busy());
    ASSERT_TRUE(lab.runUntil([&] { return forgotten(1, 0); }, 10s));
    lab.run(1s);
    for (size_t host = 1; host < 3; ++host) EXPECT_FALSE(lab.host(host).blocks->busy()) << host;
}

TEST_F(Blocks, AForgottenHostGivesNothingFromItsOwnBlocks) {
    start(3);
    for (size_t i = 0; i < 3; ++i) ASSERT_TRUE(request(i, pool));
    lab.cluster().part({0, 0, 1});
    ASSERT_TRUE(forget(0, 2));
    ASSERT_TRUE(lab.runUntil([&] { return forgotten(0, 2); }, 10s));
    ASSERT_TRUE(request(2, pool));  // it cannot know
    lab.cluster().part({});
    lab.run(3s);
    const auto refused = request(2, pool);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("forgotten"), std::string::npos) << refused.error().message;
}

// --- what others may say ---

TEST(LedgerNumbers, CountInSteps) {
    constexpr uint64_t kTop = UINT32_MAX;
    EXPECT_TRUE(isStep(5, 6));
    EXPECT_TRUE(isStep(5, 3));
    EXPECT_TRUE(isStep(5, 69));
    EXPECT_FALSE(isStep(5, 70));
    EXPECT_FALSE(isStep(5, kTop));
    EXPECT_TRUE(isStep(5, kTop + 1));
    EXPECT_TRUE(isStep(kTop, kTop + 1));
    EXPECT_FALSE(isStep(5, 2 * (kTop + 1)));
    EXPECT_FALSE(isStep(5, UINT64_MAX));
    EXPECT_EQ(nextEpoch(5, 5), 6U);
    EXPECT_EQ(nextEpoch(5, 0), 6U);
    EXPECT_EQ(nextEpoch(kTop, kTop), kTop + 1);
    EXPECT_EQ(nextEpoch(kTop, 5), kTop + 1);
    EXPECT_EQ(nextEpoch(1'000'000, 5), kTop + 1);
    EXPECT_EQ(nextEpoch(UINT64_MAX, 5), UINT64_MAX);
}

class Liars : public Blocks {
protected:
    // ipam/head: version, promised, ballot, committed, adopted, digest of units, length, digest, salt.
    static std::string head(uint32_t epoch, const kv::NodeId& claimant, uint32_t numbers, uint64_t salt) {
        kv::Writer out;
        out.u8(1);
        for (int i = 0; i < 2; ++i) {
            out.u32(epoch);
            out.id(claimant);
        }
        for (int i = 0; i < 2; ++i) out.u32(numbers);
        out.u64(0);
        out.u32(numbers);
        out.u64(0);
        out.u64(salt);
        return {out.view().begin(), out.view().end()};
    }
    uint64_t salt() { return Ledger::saltOf(lab.cluster().node(0).table(), lab.cluster().id(0)).value(); }
    // A node with the key and without a ledger of its own.
    size_t addLiar() {
        const size_t liar = lab.cluster().add();
        lab.cluster().start(liar);
        return liar;
    }
    void say(size_t liar, const std::string& value) {
        lab.cluster().node(liar).put("ipam/head", value, [](const Result<void>&) {});
    }
    void expectPools(size_t hosts, unsigned from) {
        for (size_t i = 0; i < hosts; ++i) {
            const auto got = request(i, prefix("10." + std::to_string(from + i) + ".0.0/24"));
            EXPECT_TRUE(got) << i << ": " << got.error().message << "\n" << lab.host(i).blocks->describe();
        }
    }
};

TEST_F(Liars, BallotsOfNoMemberBlockNobody) {
    start(3);
    ASSERT_TRUE(request(0, pool));
    const size_t liar = addLiar();
    const kv::NodeId id = lab.cluster().id(liar);
    unsigned next = 40;
    for (const uint64_t salt : {uint64_t{0}, this->salt(), uint64_t{77}}) {
        for (const uint32_t numbers : {0U, 1U, UINT32_MAX}) {
            for (const uint32_t epoch : {30U, 100'000U, UINT32_MAX}) {
                say(liar, head(epoch, id, numbers, salt));
                lab.run(300ms);
            }
            expectPools(3, next);
            next += 3;
        }
    }
    const LedgerFacts facts = lab.host(0).blocks->ledger().facts();
    EXPECT_NE(std::ranges::find_if(facts.warnings, [](const auto& w) { return w.find("ballots refused") != w.npos; }),
              facts.warnings.end());
    lab.cluster().crash(liar);
    lab.run(10s);
    for (size_t i = 0; i < 3; ++i) {
        lab.crash(i);
        lab.start(i);
    }
    lab.run(1s);
    expectPools(3, 100);
    EXPECT_EQ(lab.problem, "");
}

// As a weftd before the bounds left it.
TEST_F(Liars, PoisonedDisksMoveOn) {
    start(3);
    for (size_t i = 0; i < 3; ++i) ASSERT_TRUE(request(i, pool));
    const kv::NodeId nobody{{9}};
    for (size_t i = 0; i < 3; ++i) lab.poison(i, UINT32_MAX, nobody);
    lab.run(3s);
    expectPools(3, 40);
    EXPECT_EQ(lab.problem, "");
    const size_t late = lab.add();
    lab.start(late);
    lab.run(3s);
    const auto got = request(late, pool);
    EXPECT_TRUE(got) << got.error().message;
}

class PoisonedDisk : public Liars, public testing::WithParamInterface<std::tuple<uint32_t, size_t>> {};

TEST_P(PoisonedDisk, CatchesUp) {
    const auto [epoch, host] = GetParam();
    start(3);
    for (size_t i = 0; i < 3; ++i) ASSERT_TRUE(request(i, pool));
    lab.poison(host, epoch, kv::NodeId{{9}});
    lab.run(5s);
    expectPools(3, 40);
    lab.run(1s);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(lab.host(i).blocks->ledger().committed().pools.size(), 4U) << i;
}

INSTANTIATE_TEST_SUITE_P(Which, PoisonedDisk,
                         testing::Combine(testing::Values(UINT32_MAX, 1'000'000U, 500U), testing::Range<size_t>(0, 3)));

TEST_F(Blocks, ClustersBegunApartBothSaySo) {
    lab.cluster().config().seeds = {};
    lab.add();
    lab.add();
    lab.cluster().part({0, 1});
    lab.start(0);
    lab.start(1);
    lab.run(1s);
    ASSERT_TRUE(request(0, pool));
    ASSERT_TRUE(request(1, pool));
    lab.cluster().part({});
    lab.cluster().node(1).setSeeds({kv::sim::hostAddress(0)});
    ASSERT_TRUE(lab.cluster().runUntil([&] { return lab.cluster().converged(); }, 20s));
    lab.run(2s);
    for (size_t i = 0; i < 2; ++i) {
        const LedgerFacts facts = lab.host(i).blocks->ledger().facts();
        EXPECT_EQ(facts.strangers, std::set{lab.cluster().id(1 - i)}) << i;
        ASSERT_EQ(facts.warnings.size(), 1U);
        EXPECT_NE(facts.warnings.front().find("host" + std::to_string(1 - i)), std::string::npos);
        EXPECT_EQ(kinOf(lab.cluster().node(i).table(), lab.cluster().id(0), lab.cluster().id(1)), Kin::Other);
        EXPECT_EQ(kinOf(lab.cluster().node(i).table(), lab.cluster().id(0), lab.cluster().id(0)), Kin::Same);
        EXPECT_TRUE(request(i, pool)) << i;  // each goes on for itself
    }
    // The one that starts anew is one of them.
    lab.crash(1);
    ASSERT_TRUE(lab.runUntil([&] { return !lab.host(0).blocks->ledger().alive(lab.cluster().id(1)); }, 20s));
    EXPECT_TRUE(lab.host(0).blocks->ledger().facts().warnings.empty());
}

// Three of five are gone for ever: by force, one after the other.
TEST_F(Blocks, AMajorityLostIsGivenUpByForce) {
    start(5);
    for (size_t i = 0; i < 5; ++i) ASSERT_TRUE(request(i, pool)) << i;
    for (const size_t gone : {0U, 1U, 4U}) lab.crash(gone);
    lab.run(10s);
    EXPECT_FALSE(request(2, prefix("10.40.0.0/24")));
    for (const size_t gone : {0U, 1U, 4U}) ASSERT_TRUE(forget(2, gone, true));
    for (const size_t gone : {0U, 1U, 4U}) {
        EXPECT_TRUE(lab.runUntil([&] { return forgotten(2, gone); }, 20s)) << lab.host(2).blocks->describe();
    }
    EXPECT_TRUE(request(2, prefix("10.40.0.0/24")));
    EXPECT_TRUE(request(3, prefix("10.41.0.0/24")));
    for (int i = 0; i < 60; ++i) ASSERT_TRUE(request(2 + static_cast<size_t>(i % 2), pool)) << i;
    EXPECT_EQ(lab.problem, "");
}

// --- what it costs ---

TEST_F(Blocks, APoolCostsTheSameHoweverManyThereAre) {
    start(2);
    std::vector<uint64_t> cost;
    const auto work = [&] { return lab.host(0).blocks->work() + lab.host(1).blocks->work(); };
    for (unsigned i = 0; i < 400; ++i) {
        const uint64_t before = work();
        const auto got =
            request(i % 2, prefix("10." + std::to_string(64 + i / 256) + "." + std::to_string(i % 256) + ".0/24"));
        ASSERT_TRUE(got) << i << ": " << got.error().message;
        cost.push_back(work() - before);
    }
    const uint64_t first = std::accumulate(cost.begin() + 80, cost.begin() + 130, uint64_t{0});
    const uint64_t last = std::accumulate(cost.end() - 50, cost.end(), uint64_t{0});
    EXPECT_LT(last, first * 3 / 2);
}

// WEFT_SIM_POOLS=5000 measures: milliseconds of both hosts a pool, all in all, and the longest turn of one.
TEST_F(Blocks, ManyPoolsMeasured) {
    const uint64_t count = fromEnvironment("WEFT_SIM_POOLS", 0);
    if (count == 0) GTEST_SKIP() << "set WEFT_SIM_POOLS";
    start(2);
    double hundred = 0;
    for (unsigned i = 0; i < count; ++i) {
        const auto before = std::chrono::steady_clock::now();
        const auto got =
            request(i % 2, prefix("10." + std::to_string(32 + i / 256) + "." + std::to_string(i % 256) + ".0/24"));
        ASSERT_TRUE(got) << i << ": " << got.error().message;
        hundred += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - before).count() / 100;
        if (i % 100 != 99) continue;
        if (i < 100 || (i + 1) % 1000 == 0) printf("pools %u: %.2f ms each\n", i + 1, hundred);
        hundred = 0;
    }
}

TEST_F(Blocks, WantsThatAreGoneAreNotRemembered) {
    start(2);
    ASSERT_TRUE(request(0, pool));
    for (unsigned i = 20; i < 60; ++i) {
        ASSERT_TRUE(request(1, pool, ip(("10.32.0." + std::to_string(i)).c_str()))) << i;
    }
    lab.run(5s);
    EXPECT_LT(lab.host(0).blocks->answered(), 4U);
}

TEST_F(Blocks, AHostThatLostItsDatabaseWaitsForEverybody) {
    start(3);
    for (int i = 0; i < 6; ++i) {
        for (size_t host = 0; host < 3; ++host) ASSERT_TRUE(request(host, pool));
    }
    lab.crash(2);
    lab.crash(0);  // the pool's home
    lab.putBack(0, {}, FakeStore(), true);
    lab.start(0);
    lab.run(5s);
    EXPECT_TRUE(lab.host(0).blocks->fenced());
    const auto refused = request(0, pool);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("host2 (away)"), std::string::npos) << refused.error().message;
    EXPECT_NE(lab.host(1).blocks->describe().find("host0 has lost its memory"), std::string::npos)
        << lab.host(1).blocks->describe();
    EXPECT_TRUE(request(1, pool));  // the others go on
    lab.crash(0);
    lab.start(0);
    lab.run(3s);
    EXPECT_TRUE(lab.host(0).blocks->fenced()) << "over a restart";
    lab.start(2);
    ASSERT_TRUE(lab.runUntil([&] { return !lab.host(0).blocks->fenced(); }, 10s)) << lab.host(0).blocks->describe();
    for (int i = 0; i < 10; ++i) {
        for (size_t host = 0; host < 3; ++host) EXPECT_TRUE(request(host, pool));
    }
    EXPECT_EQ(lab.problem, "");
}

TEST_F(Blocks, AHostWhoseStateWasPutBackKnowsAgainWhatItGave) {
    start(3);
    for (size_t host = 0; host < 3; ++host) ASSERT_TRUE(request(host, pool));
    lab.copy(0);
    for (int i = 0; i < 20; ++i) {
        for (size_t host = 1; host < 3; ++host) ASSERT_TRUE(request(host, pool));
    }
    for (const bool noticed : {true, false}) {
        lab.crash(0);
        const auto& [disk, store] = lab.host(0).copies.front();
        lab.putBack(0, disk, FakeStore(store), noticed);
        lab.start(0);
        ASSERT_TRUE(lab.runUntil([&] { return lab.host(0).blocks->fenced(); }, 5s)) << noticed;
        ASSERT_TRUE(lab.runUntil([&] { return !lab.host(0).blocks->fenced(); }, 10s)) << noticed;
    }
    for (int i = 0; i < 250; ++i) static_cast<void>(request(0, pool));
    EXPECT_EQ(lab.problem, "");
    size_t held = 0;
    for (size_t host = 0; host < 3; ++host) held += lab.host(host).containers.size();
    EXPECT_GT(held, 200U);
}

TEST_F(Blocks, AfterATheftRunningContainersKeepTheirAddresses) {
    start(3);
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(request(0, pool));
    for (size_t host = 1; host < 3; ++host) ASSERT_TRUE(request(host, pool));
    const kv::NodeId old = lab.cluster().id(0);
    lab.crash(0);
    lab.renew(0);
    lab.start(0);
    lab.run(2s);
    lab.cluster().config().seeds = {kv::sim::hostAddress(1)};
    lab.cluster().runUntil([&] { return !lab.host(1).blocks->ledger().alive(old); }, 20s);
    ASSERT_TRUE(lab.host(1).blocks->forget(old.str(), false));
    ASSERT_TRUE(lab.runUntil([&] { return lab.host(1).blocks->forgetting(old).empty(); }, 10s));
    for (int i = 0; i < 260; ++i) static_cast<void>(request(1 + static_cast<size_t>(i % 2), pool));
    EXPECT_EQ(lab.problem, "");
    // The new identity gets them back.
    EXPECT_TRUE(lab.runUntil([&] { return lab.host(0).book->leasesNotHeld(1).empty(); }, 20s));
    size_t held = 0;
    for (size_t host = 0; host < 3; ++host) held += lab.host(host).containers.size();
    EXPECT_EQ(held, 253U);
}

// Of two hosts one is renewed while the other is away: it would give out what the other has, if it began anew.
TEST_F(Blocks, AnHeirBeginsNoLedger) {
    start(2);
    ASSERT_TRUE(request(1, pool));
    lab.crash(1);
    lab.crash(0);
    lab.renew(0);
    lab.cluster().config().seeds = {kv::sim::hostAddress(0)};
    lab.start(0);
    const auto refused = request(0, pool);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::Unavailable);
    EXPECT_NE(refused.error().message.find("weftctl node renew --first"), std::string::npos) << refused.error().message;
    // Nor does a new host with its help.
    lab.add();
    lab.start(2);
    EXPECT_FALSE(request(2, pool));
    // All of them renewed and here, one by the operator's word the first: the others' containers keep what they have.
    lab.renew(1);
    lab.start(1);
    lab.run(1s);
    lab.crash(0);
    lab.renew(0, true);
    lab.start(0);
    lab.run(1s);
    for (int i = 0; i < 20; ++i) static_cast<void>(request(0, pool));
    const auto got = request(1, pool);
    EXPECT_TRUE(got) << got.error().message;
    EXPECT_EQ(lab.problem, "");
}

TEST_F(Blocks, AnHeirWithoutAClusterBeginsAnew) {
    lab.alone = true;
    start(1);
    ASSERT_TRUE(request(0, pool));
    lab.crash(0);
    lab.renew(0);
    lab.start(0);
    EXPECT_TRUE(request(0, pool));
    EXPECT_EQ(lab.problem, "");
}

TEST_F(Blocks, ALogWithAHoleIsRefused) {
    start(2);
    ASSERT_TRUE(request(0, pool));
    ASSERT_TRUE(request(1, pool));
    lab.crash(1);
    const auto whole = lab.cluster().disk(1);
    const auto damage = [&](const auto& change) {
        auto disk = whole;
        change(disk.rows);
        lab.cluster().putDiskBack(1, disk, false);
        lab.start(1);
        const std::string found = lab.host(1).blocks->damage();
        lab.crash(1);
        return found;
    };
    using Rows = std::map<std::string, kv::Row>;
    EXPECT_EQ(damage([](Rows&) {}), "");
    EXPECT_NE(damage([](Rows& rows) { rows.erase("ipam/log/0"); }), "");
    EXPECT_NE(damage([](Rows& rows) { rows.at("ipam/log/0").value.at(10) ^= 1; }), "");
    EXPECT_NE(damage([](Rows& rows) { rows.at("ipam/head").value.pop_back(); }), "");
    EXPECT_NE(damage([](Rows& rows) {
                  for (auto& [key, row] : rows) {
                      if (key.starts_with("ipam/unit/")) row.value.pop_back();
                  }
              }),
              "");
}

// Of a cluster that wants nothing and whose leader promised somebody else.
TEST_F(Blocks, AnAttemptThatFailedIsTakenInWhereNobodyLeads) {
    for (int i = 0; i < 2; ++i) lab.add();
    lab.start(0);
    lab.run(1s);
    ASSERT_TRUE(request(0, pool));
    lab.poison(0, 1'000'000, kv::NodeId{{9}});
    lab.cluster().part({0, 1});
    lab.start(1);
    lab.run(1s);
    const kv::NodeId id = lab.cluster().id(1);
    const auto text = [](const kv::Writer& out) { return std::string(out.view().begin(), out.view().end()); };
    kv::Writer join;
    join.u8(1);
    join.id(id);
    join.u64(7);  // its salt
    kv::Writer head;
    head.u8(1);
    for (int i = 0; i < 2; ++i) {  // promised and accepted
        head.u32(5);
        head.id(id);
    }
    head.u32(0);  // committed
    head.u32(0);
    head.u64(0);
    head.u32(1);  // length
    head.u64(kv::Table::hashKey(text(join)));
    head.u64(7);
    lab.rewrite(1, {{"ipam/log/0", '\1' + text(join)}, {"ipam/head", text(head)}});
    EXPECT_EQ(lab.host(1).blocks->damage(), "");
    lab.run(1s);
    lab.cluster().part({});
    ASSERT_TRUE(lab.runUntil([&] { return lab.host(1).blocks->ledger().isMember(); }, 10s))
        << lab.host(1).blocks->describe() << lab.host(0).blocks->describe();
    EXPECT_EQ(lab.host(0).blocks->ledger().committed().members.size(), 2U);
    EXPECT_TRUE(request(1, pool));
    EXPECT_EQ(lab.problem, "");
}

// Hosts for ClusterIpam: the simulated cluster on a thread of its own.
class Hosts {
public:
    explicit Hosts(size_t count) : cluster_(1, labConfig(1)) {
        for (size_t i = 0; i < count; ++i) {
            cluster_.start(cluster_.add());
            runners_.push_back(std::make_unique<HostRunner>(*this, i));
        }
        thread_ = std::jthread([this](const std::stop_token& stop) {
            while (!stop.stop_requested()) {
                std::unique_lock lock(mutex_);
                wake_.wait_for(lock, 1ms, [&] { return !work_.empty(); });
                for (auto& next : std::exchange(work_, {})) {
                    lock.unlock();
                    next();
                    lock.lock();
                }
                lock.unlock();
                cluster_.run(4ms);
            }
        });
    }

    kv::Runner& runner(size_t host) { return *runners_[host]; }
    void crash(size_t host) {
        std::promise<void> crashed;
        post([&] {
            cluster_.crash(host);
            crashed.set_value();
        });
        crashed.get_future().wait();
    }

private:
    class HostRunner final : public kv::Runner {
    public:
        HostRunner(Hosts& hosts, size_t host) : hosts_(hosts), host_(host) {}
        void post(std::function<void(kv::Node&)> work) override {
            hosts_.post([this, work = std::move(work)] {
                if (hosts_.cluster_.up(host_)) work(hosts_.cluster_.node(host_));
            });
        }
        Result<void> call(std::function<void(kv::Node&)> work, std::chrono::milliseconds) override {
            auto done = std::make_shared<std::promise<void>>();
            auto future = done->get_future();
            post([work = std::move(work), end = std::move(done)](kv::Node& node) {
                work(node);
                end->set_value();
            });
            try {
                future.get();
            } catch (const std::future_error&) {
                return makeError(ErrorCode::Unavailable, "the node has ended");
            }
            return {};
        }

    private:
        Hosts& hosts_;
        size_t host_;
    };

    void post(std::function<void()> work) {
        const std::lock_guard lock(mutex_);
        work_.push_back(std::move(work));
        wake_.notify_all();
    }

    Cluster cluster_;
    std::vector<std::unique_ptr<HostRunner>> runners_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::function<void()>> work_;
    std::jthread thread_;
};

class ClusterIpamTest : public testing::Test {
protected:
    std::unique_ptr<ClusterIpam> make(size_t host) {
        ClusterIpamConfig config;
        config.seeds = [] { return std::vector<kv::Address>{kv::sim::hostAddress(0)}; };
        return ClusterIpam::create(hosts->runner(host), stores[host], clock, config).value();
    }
    static PoolId requestPool(ClusterIpam& ipam, const char* subnet) {
        PoolRequest request;
        request.addressSpace = kOverlayLocalAddressSpace;
        request.pool = prefix(subnet);
        return ipam.requestPool(request).value().poolId;
    }
    static Result<IpPrefix> request(ClusterIpam& ipam, const PoolId& pool, std::optional<IpAddress> address = {}) {
        return ipam.requestAddress({.poolId = pool, .address = address, .mac = {}});
    }

    std::optional<Hosts> hosts;
    FakeStore stores[2];
    const SystemClock clock{};
};

TEST_F(ClusterIpamTest, ServesManyThreads) {
    hosts.emplace(1);
    auto ipam = make(0);
    EXPECT_EQ(ipam->requestPool({.addressSpace = kOverlayLocalAddressSpace, .pool = {}, .subPool = {}, .options = {}})
                  .error()
                  .code,
              ErrorCode::InvalidArgument);  // needs a subnet
    const PoolId pool = requestPool(*ipam, "10.32.0.0/24");
    AddressRequest gateway{.poolId = pool, .address = {}, .gateway = true, .mac = {}};
    EXPECT_EQ(ipam->requestAddress(gateway).value().str(), "10.32.0.1/24");
    EXPECT_EQ(ipam->requestAddress(gateway).value().str(), "10.32.0.1/24");
    gateway.address = ip("10.32.0.9");
    EXPECT_FALSE(ipam->requestAddress(gateway));
    std::mutex mutex;
    std::set<IpAddress> got;
    {
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < 8; ++thread) {
            threads.emplace_back([&] {
                for (int i = 0; i < 20; ++i) {
                    auto address = request(*ipam, pool);
                    const std::lock_guard lock(mutex);
                    EXPECT_TRUE(address && got.insert(address->address()).second);
                }
            });
        }
    }
    EXPECT_EQ(got.size(), 160U);
    EXPECT_EQ(request(*ipam, pool, ip("10.32.0.1")).error().code, ErrorCode::Busy);
    EXPECT_TRUE(ipam->releaseAddress(pool, *got.begin()));
    EXPECT_EQ(request(*ipam, pool, *got.begin()).value().address(), *got.begin());
    // After a restart the leases stand.
    ipam.reset();
    ipam = make(0);
    EXPECT_EQ(request(*ipam, pool, *got.begin()).error().code, ErrorCode::Busy);
    EXPECT_TRUE(request(*ipam, pool));
}

TEST_F(ClusterIpamTest, TwoHostsShareAPool) {
    hosts.emplace(2);
    auto one = make(0);
    auto two = make(1);
    const PoolId here = requestPool(*one, "10.32.0.0/24");
    const PoolId there = requestPool(*two, "10.32.0.0/24");
    std::set<IpAddress> got;
    for (int i = 0; i < 100; ++i) {
        for (const auto& [ipam, pool] : {std::pair(one.get(), here), std::pair(two.get(), there)}) {
            const auto address = request(*ipam, pool);
            ASSERT_TRUE(address) << address.error().message;
            EXPECT_TRUE(got.insert(address->address()).second) << address->str();
        }
    }
    const auto refused = request(*two, there, *got.begin());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::Busy);
    EXPECT_NE(refused.error().message.find("host0"), std::string::npos) << refused.error().message;

    const auto pools = two->sharedPools();
    ASSERT_TRUE(pools && pools->size() == 1);
    EXPECT_EQ(pools->front().gateway, ip("10.32.0.1"));
    size_t blocks = 0;
    for (const auto& holder : pools->front().holders) {
        EXPECT_TRUE(holder.alive) << holder.host;
        blocks += holder.blocks;
    }
    EXPECT_EQ(blocks, 32U);
}

TEST_F(ClusterIpamTest, KeepsTheBookOfNetworks) {
    hosts.emplace(1);
    auto ipam = make(0);
    const PoolId pool = requestPool(*ipam, "10.32.0.0/24");
    const IpAddress address = request(*ipam, pool).value().address();
    const NetworkId network("net");
    const EndpointId endpoint("endpoint");
    const std::vector<IpAddress> reserved{ip("10.32.0.1"), ip("10.32.0.7")};
    PoolBook& book = *ipam;
    EXPECT_FALSE(book.attachPool(network, "LocalDefault", prefix("10.32.0.0/24"), reserved).value());
    EXPECT_TRUE(book.attachPool(network, kOverlayLocalAddressSpace, prefix("10.32.0.0/24"), reserved).value());
    EXPECT_TRUE(book.bindLease(network, address, endpoint));
    EXPECT_TRUE(ipam->releaseAddress(pool, address));  // a stray one: the endpoint lives
    EXPECT_EQ(request(*ipam, pool, address).error().code, ErrorCode::Busy);
    EXPECT_EQ(request(*ipam, pool, ip("10.32.0.7")).error().code, ErrorCode::Busy);

    ipam.reset();
    ipam = make(0);
    EXPECT_TRUE(ipam->restoreBindings(network, std::vector{std::pair(address, endpoint)}));
    EXPECT_TRUE(ipam->releaseAddress(pool, address));
    EXPECT_EQ(request(*ipam, pool, address).error().code, ErrorCode::Busy);
    ipam->unbindLease(network, address, endpoint);
    EXPECT_TRUE(ipam->releaseAddress(pool, address));
    EXPECT_EQ(request(*ipam, pool, address).value().address(), address);
    EXPECT_TRUE(ipam->releasePool(pool));
    EXPECT_EQ(ipam->detachForgotten({}).value(), std::vector{network});
    EXPECT_TRUE(ipam->listPools().empty());
}

TEST_F(ClusterIpamTest, ForgetsADeadHostOnce) {
    hosts.emplace(2);
    auto one = make(0);
    auto two = make(1);
    const PoolId here = requestPool(*one, "10.33.0.0/29");
    const PoolId there = requestPool(*two, "10.33.0.0/29");
    ASSERT_TRUE(request(*one, here));
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(request(*two, there));
    EXPECT_EQ(one->forgetNode("host1", true).error().code, ErrorCode::Busy);
    EXPECT_EQ(one->forgetNode("nobody", true).error().code, ErrorCode::NotFound);
    two.reset();
    hosts->crash(1);
    Result<std::string> done = makeError(ErrorCode::Busy, "");
    // Until the cluster has noticed.
    while (!done && done.error().code == ErrorCode::Busy) done = one->forgetNode("host1", true);
    ASSERT_TRUE(done) << done.error().message;
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(request(*one, here)) << i;
    EXPECT_TRUE(one->forgetNode("host1", false));
    const auto refused = request(*one, here);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::Exhausted);
    EXPECT_NE(refused.error().message.find("host0 holds 6 blocks"), std::string::npos) << refused.error().message;
}

// Found failing once. 5, 307: restarted, the claimant of the first ballot had forgotten whom it had met and was the
// first on its own. 6780: a forced Forget went by half of the others while the rest had agreed on another leader.
// 11208: a leader had counted a forgotten host's blocks and crashed before it could say so; its heir waited for ever.
// 3244, 5199, 541, 2607: a host that is given up, joining hosts and entries that wait for each other for ever.
// 1322: an attempt to be the first met a cluster without a leader, which wanted nothing and so never elected one.
// 4971: an address of its own blocks that another's container had was asked for in a circle.
TEST(PastBlockSchedules, StayFixed) {
    for (const uint64_t seed : {5, 307, 541, 1121, 1322, 2607, 3244, 4971, 5199, 6780, 8903, 11208, 11954}) {
        EXPECT_EQ(Schedule(seed, false).run(), "");
    }
}

// 556, 1084, 3055, 5144, 6151, 7963: a renewed host without the others in sight began a ledger of its own. 9566: a host
// that lost its database was told by one that had no ledger, and began one with it. 2818: two claims, which a host
// without memory could not decide, kept it from ever hearing all others out. 3295, 6540: a ballot that leapt, of a host
// that led or saw no majority. 2099, 6914: nobody was left of a ledger, and who was to begin anew waited for the gone.
TEST(PastBlockSchedules, WithLossesStayFixed) {
    for (const uint64_t seed : {556, 1084, 2099, 2818, 2983, 3055, 3295, 5144, 6151, 6540, 6914, 7963, 9382, 9566}) {
        EXPECT_EQ(Schedule(seed, true).run(), "");
    }
}

class BlockSchedules : public testing::TestWithParam<uint64_t> {};

TEST_P(BlockSchedules, NoAddressTwiceAndProgress) {
    const bool losses = fromEnvironment("WEFT_SIM_LOSSES", 1) != 0;
    if (const uint64_t seed = fromEnvironment("WEFT_SIM_SEED", 0)) {
        if (GetParam() != 0) return;
        ASSERT_EQ(Schedule(seed, losses).run(), "");
        return;
    }
    const uint64_t count = fromEnvironment("WEFT_SIM_SCHEDULES", 10'000) / kShards;
    for (uint64_t i = 0; i < count; ++i) {
        const uint64_t seed = 1 + GetParam() + kShards * i;
        EXPECT_EQ(Schedule(seed, losses).run(), "");
    }
}

INSTANTIATE_TEST_SUITE_P(Shard, BlockSchedules, testing::Range<uint64_t>(0, kShards));

}  // namespace
}  // namespace weft::ipam
