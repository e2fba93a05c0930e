// Addresses a second: the bookkeeping alone (writes that cost nothing), and on the disk with callers that share
// commits.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/database.h"
#include "ipam/database_lease_store.h"
#include "ipam/local_ipam.h"

namespace {

using namespace weft;
using namespace weft::ipam;

class NoStore final : public LeaseStore {
public:
    Result<StoredIpam> load() override { return StoredIpam(); }
    Result<void> apply(const IpamChange&) override { return {}; }
};

PoolId makePool(LocalIpam& ipam, const char* cidr) {
    PoolRequest request;
    request.addressSpace = kLocalAddressSpace;
    request.pool = IpPrefix::parse(cidr).value();
    return ipam.requestPool(request)->poolId;
}

// Time for one address when the pool holds that many leases already: flat up to the last one of a /16.
void requestInFilledPool(benchmark::State& state) {
    NoStore store;
    const SystemClock clock;
    auto ipam = LocalIpam::create(store, clock).value();
    const PoolId pool = makePool(*ipam, "10.1.0.0/16");
    for (int64_t i = 0; i < state.range(0); ++i) (void)ipam->requestAddress({pool, {}, false, {}});
    for (auto _ : state) {
        const auto address = ipam->requestAddress({pool, {}, false, {}});
        if (!address) return state.SkipWithError("exhausted");
        (void)ipam->releaseAddress(pool, address->address());
    }
}
BENCHMARK(requestInFilledPool)->Arg(0)->Arg(1000)->Arg(32000)->Arg(65533);

// The same with every second address free, so that the free space is in 32,767 pieces.
void requestInFragmentedPool(benchmark::State& state) {
    NoStore store;
    const SystemClock clock;
    LocalIpamConfig config;
    config.quarantine = std::chrono::seconds(0);
    auto ipam = LocalIpam::create(store, clock, config).value();
    const PoolId pool = makePool(*ipam, "10.1.0.0/16");
    std::vector<IpAddress> all;
    while (const auto address = ipam->requestAddress({pool, {}, false, {}})) all.push_back(address->address());
    for (size_t i = 0; i < all.size(); i += 2) (void)ipam->releaseAddress(pool, all[i]);
    for (auto _ : state) {
        const auto address = ipam->requestAddress({pool, {}, false, {}});
        (void)ipam->releaseAddress(pool, address->address());
    }
}
BENCHMARK(requestInFragmentedPool);

void requestInIpv6Pool(benchmark::State& state) {
    NoStore store;
    const SystemClock clock;
    auto ipam = LocalIpam::create(store, clock).value();
    const PoolId pool = makePool(*ipam, "fd00::/16");
    for (auto _ : state) {
        const auto address = ipam->requestAddress({pool, {}, false, {}});
        (void)ipam->releaseAddress(pool, address->address());
    }
}
BENCHMARK(requestInIpv6Pool);

// One request on the disk (WEFT_BENCH_DIR, else the current directory: a tmpfs would tell nothing), then its release.
struct OnDisk {
    OnDisk() {
        const char* chosen = std::getenv("WEFT_BENCH_DIR");
        directory =
            std::filesystem::path(chosen != nullptr ? chosen : ".") / ("ipam-bench-" + std::to_string(::getpid()));
        std::filesystem::create_directory(directory);
        const SchemaComponent components[] = {schemaComponent()};
        database = Database::open(directory / "weft.db", components).value();
        store = std::make_unique<DatabaseLeaseStore>(*database);
        ipam = LocalIpam::create(*store, clock).value();
        pool = makePool(*ipam, "10.1.0.0/16");
    }
    ~OnDisk() {
        ipam.reset();
        database.reset();
        std::filesystem::remove_all(directory);
    }

    SystemClock clock;
    std::filesystem::path directory;
    std::unique_ptr<Database> database;
    std::unique_ptr<DatabaseLeaseStore> store;
    std::unique_ptr<LocalIpam> ipam;
    PoolId pool;
};

void requestAndReleaseOnDisk(benchmark::State& state) {
    static std::unique_ptr<OnDisk> disk;
    if (state.thread_index() == 0) disk = std::make_unique<OnDisk>();
    for (auto _ : state) {
        const auto address = disk->ipam->requestAddress({disk->pool, {}, false, {}});
        if (!address) return state.SkipWithError("exhausted");
        (void)disk->ipam->releaseAddress(disk->pool, address->address());
    }
    if (state.thread_index() == 0) {
        const auto counters = disk->database->counters();
        state.counters["writes_per_commit"] =
            static_cast<double>(counters.writes) / static_cast<double>(counters.commits);
        disk.reset();
    }
}
BENCHMARK(requestAndReleaseOnDisk)->UseRealTime()->Threads(1)->Threads(4)->Threads(16);

}  // namespace
