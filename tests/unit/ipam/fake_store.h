// FakeStore: a LeaseStore in memory whose "disk" outlives the LocalIpam above it, with failures at chosen writes.
#pragma once

#include <functional>
#include <map>
#include <mutex>

#include "ipam/lease_store.h"

namespace weft::ipam {

class FakeStore final : public LeaseStore {
public:
    enum class Fault {
        None,
        Fail,         // this write fails and leaves nothing; later ones work
        CrashBefore,  // the process dies before the write reaches the disk
        CrashAfter,   // ... after it, but before anybody hears of it
    };

    FakeStore() = default;
    // What is on the disk.
    FakeStore(const FakeStore& other) { *this = other; }
    FakeStore& operator=(const FakeStore& other) {
        sitePrefix_ = other.sitePrefix_;
        pools_ = other.pools_;
        leases_ = other.leases_;
        return *this;
    }

    // The `countdown`-th write from now (1: the next) meets `fault`.
    void arm(Fault fault, int countdown) {
        fault_ = fault;
        countdown_ = countdown;
    }
    // A new process on the same disk.
    void restart() {
        crashed_ = false;
        fault_ = Fault::None;
    }
    [[nodiscard]] bool crashed() const { return crashed_; }
    [[nodiscard]] int writes() const { return writes_; }

    // Runs within apply(), without locks: what happens while a write is under way.
    std::function<void()> duringWrite;

    Result<StoredIpam> load() override {
        const std::lock_guard guard(mutex_);
        StoredIpam stored;
        stored.sitePrefix = sitePrefix_;
        for (const auto& [id, pool] : pools_) stored.pools.push_back(pool);
        for (const auto& [key, kind] : leases_) stored.leases.push_back({key, kind});
        return stored;
    }

    Result<void> apply(const IpamChange& change) override {
        if (duringWrite) std::exchange(duringWrite, nullptr)();
        const std::lock_guard guard(mutex_);
        ++writes_;
        Fault now = Fault::None;
        if (fault_ != Fault::None && --countdown_ == 0) now = std::exchange(fault_, Fault::None);
        if (now == Fault::CrashBefore) crashed_ = true;
        if (crashed_ || now == Fault::Fail) return makeError(ErrorCode::Kernel, "no disk");
        write(change);
        if (now == Fault::CrashAfter) {
            crashed_ = true;
            return makeError(ErrorCode::Kernel, "no disk");
        }
        return {};
    }

private:
    void write(const IpamChange& change) {
        if (change.sitePrefix) sitePrefix_ = change.sitePrefix;
        for (const auto& pool : change.putPools) pools_[pool.id] = pool;
        for (const auto& id : change.erasePools) {
            pools_.erase(id);
            std::erase_if(leases_, [&](const auto& lease) { return lease.first.poolId == id; });
        }
        for (const auto& lease : change.putLeases) leases_[lease.key] = lease.kind;
        for (const auto& key : change.eraseLeases) leases_.erase(key);
    }

    std::mutex mutex_;  // not copied
    Fault fault_ = Fault::None;
    int countdown_ = 0;
    bool crashed_ = false;
    int writes_ = 0;
    std::optional<IpPrefix> sitePrefix_;
    std::map<PoolId, PoolRecord> pools_;
    std::map<LeaseKey, LeaseKind> leases_;
};

inline IpAddress ip(std::string_view text) {
    return IpAddress::parse(text).value();
}
inline IpPrefix prefix(std::string_view text) {
    return IpPrefix::parse(text).value();
}

}  // namespace weft::ipam
