// RecordStore: the networks and endpoints of all modes, in memory and on disk.
//
// The engine never replays a call after a restart, so a record is all that is left of one. Records are values: a
// reader gets the state of one moment, and only the holder of a network's lock replaces them.
//
// Writing: put and erase change memory at once and queue the disk; the returned PendingWrite tells when it is there.
// So a handler starts its write, does its kernel work meanwhile, and waits for both before it answers. One thread
// writes the queue in order, everything queued in one transaction; where that fails, each for itself. Who gets an error
// from wait() puts the former record back; but what is erased stays so in memory, and is erased on disk when that can
// be written again.
//
// Urgency::Soon is for what the kernel can tell again or what is void after a crash anyway: it costs no disk wait of
// its own and is there within kSoon.
//
// Any thread. lock() waits for at most kLockPatience, and within a call (CallDeadline) for what is left of it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/database.h"
#include "base/deadline.h"
#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"
#include "drivers/network_driver.h"
#include "firewall/firewall.h"

namespace weft {

struct NetworkRecord {
    CreateNetworkRequest request;  // as accepted; the mode derives the rest from it
    std::string mode;              // "bridge", "host", "none", "overlay"
    std::string link;              // bridge or parent NIC; empty: none
    uint32_t mtu = 0;              // chosen at creation; 0: not applicable
    std::string notes;             // the mode's own
    Clock::Wall created{};

    bool operator==(const NetworkRecord&) const = default;
};

enum class EndpointPhase : uint8_t {
    Created = 0,
    Joined = 1,
    Left = 2,
};
std::string_view toString(EndpointPhase phase);

struct EndpointRecord {
    NetworkId networkId;
    EndpointId endpointId;
    std::optional<IpPrefix> address;
    std::optional<IpPrefix> addressV6;
    std::optional<MacAddress> mac;
    bool macGiven = false;  // by the request, so that replies leave it out
    std::string link;       // the end that stays in the host's namespace, or the link handed over; empty: none
    EndpointPhase phase = EndpointPhase::Created;
    std::string sandboxKey;  // while joined
    PortOptions ports;       // wanted, as last told
    std::vector<firewall::PublishedPort> published;
    std::string instance;  // KernelInstance::str() it was made in: another's links are gone
    std::string notes;     // the mode's own
    Clock::Wall created{};
    Clock::Wall changed{};  // of phase

    bool operator==(const EndpointRecord&) const = default;
};

enum class Urgency : uint8_t { Now, Soon };

using NetworkPtr = std::shared_ptr<const NetworkRecord>;
using EndpointPtr = std::shared_ptr<const EndpointRecord>;

// A write on its way to the disk.
class PendingWrite {
public:
    // Blocks until it is there, or until the call has to end (CallDeadline): then Timeout, and the write goes on. Call
    // it once at most; not calling it is allowed.
    Result<void> wait() {
        if (const auto left = CallDeadline::left(); left && done_.wait_for(*left) != std::future_status::ready) {
            return makeError(ErrorCode::Timeout, "the disk does not write in time");
        }
        return done_.get();
    }

private:
    friend class RecordStore;
    explicit PendingWrite(std::future<Result<void>> done) : done_(std::move(done)) {}

    std::future<Result<void>> done_;
};

// Held by whoever works on one network; released on destruction.
class NetworkLock {
public:
    NetworkLock(NetworkLock&&) = default;

private:
    friend class RecordStore;
    NetworkLock(std::shared_ptr<std::timed_mutex> mutex, std::unique_lock<std::timed_mutex> lock)
        : mutex_(std::move(mutex)), lock_(std::move(lock)) {}

    std::shared_ptr<std::timed_mutex> mutex_;  // outlives the lock below
    std::unique_lock<std::timed_mutex> lock_;
};

class RecordStore {
public:
    // For all locks of a call together: half of what a handler has. The other half is the firewall's, which waits up to
    // 4 s for the xtables lock.
    static constexpr std::chrono::milliseconds kLockPatience{5000};

    static constexpr std::chrono::milliseconds kSoon{20};
    // What could not be erased is tried again with the next write, and after this time.
    static constexpr std::chrono::milliseconds kRepeatAfter{1000};

    // Give it to Database::open.
    static SchemaComponent schema();

    // Loads all records. Corrupt when one of them does not parse. `database` must outlive the store.
    static Result<std::unique_ptr<RecordStore>> open(Database& database);
    ~RecordStore();  // writes what is queued
    RecordStore(const RecordStore&) = delete;
    RecordStore& operator=(const RecordStore&) = delete;

    // Serialises work on one network, known or not. Busy after `patience`, or when the call has to end.
    Result<NetworkLock> lock(const NetworkId& networkId, std::chrono::milliseconds patience = kLockPatience);

    // Null when absent.
    [[nodiscard]] NetworkPtr network(const NetworkId& networkId) const;
    [[nodiscard]] EndpointPtr endpoint(const NetworkId& networkId, const EndpointId& endpointId) const;
    [[nodiscard]] EndpointPtr endpoint(const EndpointId& endpointId) const;
    // Within one network, in constant time whatever their number; null: free.
    [[nodiscard]] EndpointPtr endpointWith(const NetworkId& networkId, const IpAddress& address) const;
    [[nodiscard]] EndpointPtr endpointWith(const NetworkId& networkId, const MacAddress& mac) const;

    // Empty mode: of all. In order of ID.
    [[nodiscard]] std::vector<NetworkPtr> networks(std::string_view mode = {}) const;
    [[nodiscard]] std::vector<EndpointPtr> endpoints(const NetworkId& networkId) const;
    [[nodiscard]] size_t endpointCount(const NetworkId& networkId) const;

    // With the network's lock held. Erasing a network takes its endpoints along.
    PendingWrite put(NetworkRecord record);
    PendingWrite put(EndpointRecord record, Urgency urgency = Urgency::Now);
    PendingWrite erase(const NetworkId& networkId);
    PendingWrite erase(const NetworkId& networkId, const EndpointId& endpointId);

    // What weft changed on the host outside of its own links ("net/ipv4/ip_forward" was "0"), for the uninstaller.
    Result<void> noteHostChange(const std::string& setting, const std::string& before);

private:
    explicit RecordStore(Database& database);

    using Job = std::function<Result<void>(Transaction&)>;
    struct Owed {
        Job job;
        std::string subject;  // id of the network or endpoint
    };
    struct Queued {
        Job job;
        std::string subject;
        std::promise<Result<void>> done;
        bool repeated;  // until it is done, whoever was told that it failed
    };
    struct NetworkEntry {
        NetworkPtr record;
        std::map<EndpointId, EndpointPtr> endpoints;
        std::map<IpAddress, EndpointId> byAddress;
        std::map<MacAddress, EndpointId> byMac;
    };

    Result<void> load();
    PendingWrite queue(Job job, std::string subject, Urgency urgency = Urgency::Now, bool repeated = false);
    void writeLoop();
    void writeEach(std::vector<Owed>& owed, std::deque<Queued>& batch);
    static void unindex(NetworkEntry& entry, const EndpointRecord& record);
    void remember(const EndpointPtr& record);  // with mutex_ held

    Database& database_;

    mutable std::shared_mutex mutex_;  // the index
    std::map<NetworkId, NetworkEntry> networks_;
    std::unordered_map<EndpointId, EndpointPtr> endpoints_;
    std::map<NetworkId, std::shared_ptr<std::timed_mutex>> locks_;

    std::mutex queueMutex_;
    std::condition_variable queued_;
    std::deque<Queued> queue_;
    bool urgent_ = false;
    bool stopping_ = false;
    std::thread writer_;
};

}  // namespace weft
