// HostMemory: the last that other hosts said of overlay networks and names, on disk. A host whose weftd has gone keeps
// its containers; those who reach them must know where they are for as long as it takes, longer than the gossip store
// keeps its rows, and over restarts of their own.
//
// Rows reach the disk within some seconds. What was read at the start, or belongs to a host that went, counts until
// the store has it otherwise; of a host that is there again it is dropped a minute later if the host did not say it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/database.h"
#include "base/ip.h"
#include "base/result.h"
#include "kv/member.h"
#include "kv/table.h"

namespace weft {

struct RememberedHost {
    std::string name;
    IpAddress address;

    bool operator==(const RememberedHost&) const = default;
};

class HostMemory {
public:
    static constexpr size_t kMostAway = 256;  // hosts; then the one that went first is forgotten
    static constexpr std::chrono::seconds kSettle{60};
    static constexpr std::chrono::seconds kWriteEvery{5};

    // Called without a lock held, on the store's thread or the memory's own.
    struct Listener {
        std::function<void(const kv::NodeId&, const RememberedHost&)> host;  // of an earlier life, not there yet
        std::function<void(kv::RowEvent, const kv::Row&)> row;               // Suspended or Deleted
        std::function<void(const kv::NodeId&)> forget;                       // the host and all of its rows
    };

    static SchemaComponent schema();

    // Both must outlive it. Nothing is written until start(), but by write().
    static Result<std::shared_ptr<HostMemory>> open(Database& database, const Clock& clock);
    ~HostMemory();  // after the last write
    void start();   // settles and writes from now on, on a thread of its own

    // Tells it what was read at the start, then what is dropped. For the memory's life.
    void attach(Listener listener);

    // The store's thread. Rows of other hosts under kOverlayPrefix and kNamesPrefix.
    void apply(kv::RowEvent event, const kv::Row& row);
    void onMember(const kv::Member& member);
    void forget(const kv::NodeId& host);  // for good

    // What start()'s thread does from time to time.
    void settle();
    Result<void> write();

private:
    using Owned = std::pair<kv::NodeId, std::string>;  // owner, key

    HostMemory(Database& database, const Clock& clock) : database_(database), clock_(clock) {}
    Result<void> load();
    void work();
    void drop(const kv::NodeId& host);  // with the lock held
    void tell(const std::function<void(const Listener&)>& what);

    Database& database_;
    const Clock& clock_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::shared_ptr<const Listener>> listeners_;
    std::map<kv::NodeId, RememberedHost> hosts_;
    std::map<kv::NodeId, Clock::Monotonic> away_;   // since
    std::map<kv::NodeId, Clock::Monotonic> there_;  // since, of those with unconfirmed rows
    // Not said by a living host in this process. Values only of those read at the start.
    std::map<kv::NodeId, std::map<std::string, std::string>> unconfirmed_;
    std::map<Owned, std::optional<std::string>> unwrittenRows_;  // none: deleted
    std::set<kv::NodeId> unwrittenHosts_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace weft
