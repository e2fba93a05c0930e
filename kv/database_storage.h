// DatabaseStorage: what the node remembers over a restart, in tables gossip_... of the daemon's Database. A thread of
// its own writes, so that the node never waits for a disk.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/database.h"
#include "kv/storage.h"

namespace weft::kv {

class DatabaseStorage final : public Storage {
public:
    static SchemaComponent schema();

    // Reads what is stored and raises the epoch, durably. Rows and members that do not read are left out with a
    // warning: the cluster has them.
    static Result<Persisted> beginEpoch(Database& database);

    // `deliver` runs a finished write's work on the node's thread; called from any thread.
    DatabaseStorage(Database& database, std::function<void(std::function<void()>)> deliver);
    ~DatabaseStorage() override;  // writes what is queued; its `done` is not called any more

    void save(const Row& row, Done done) override;
    void saveEpoch(uint32_t epoch) override;
    void saveMembers(std::vector<MemberRecord> members) override;

    // Small values of the service's own. Blocks on the disk.
    static Result<std::string> readSetting(Database& database, const char* name);
    static Result<void> writeSetting(Database& database, const char* name, const std::string& value);

    // Whether a higher epoch of this identity was heard: it runs twice, or its disk was put back.
    [[nodiscard]] bool epochWasOutdated() const;

private:
    struct Write {
        Row row;
        Done done;
    };
    void work();

    Database& database_;
    const std::function<void(std::function<void()>)> deliver_;
    mutable std::mutex mutex_;
    std::condition_variable more_;
    std::deque<Write> rows_;
    std::optional<uint32_t> epoch_;
    std::optional<std::vector<MemberRecord>> members_;
    bool outdated_ = false;
    bool ending_ = false;
    std::thread thread_;
};

}  // namespace weft::kv
