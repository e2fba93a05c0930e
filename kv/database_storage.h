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
    // What to do about rows that are not as they were written.
    static const char* const kDamageAdvice;

    // What says that a database is the memory of an identity. The key file has a copy.
    struct Binding {
        std::string database;  // a random name; empty: of a weft before there was one, or new
        std::string node;      // whose memory it is; likewise
        uint32_t epoch = 0;    // of the last start; 0: new
    };
    static Result<Binding> readBinding(Database& database);

    // Reads what is stored, raises the epoch and binds the database to `node`, durably; `doubt` is kept with it.
    // Corrupt when a row does not read: it is a promise to others, and to go on without it would break it. Members that
    // do not read are left out with a warning: the cluster has them.
    // `origin`: given when the identity is another one than at the last start.
    static Result<Persisted> beginEpoch(Database& database, const Binding& binding, bool doubt,
                                        std::optional<Origin> origin = {});
    // Promises of an identity that this node has no more.
    static Result<void> dropRows(Database& database, const std::vector<std::string>& keys);

    // `deliver` runs a finished write's work on the node's thread, and `epochSaved` when the epoch has changed; both
    // are called from any thread. `kept`: Config::keptPrefixes.
    DatabaseStorage(Database& database, std::vector<std::string> kept,
                    std::function<void(std::function<void()>)> deliver, std::function<void(uint32_t)> epochSaved = {});
    ~DatabaseStorage() override;  // writes what is queued; its `done` is not called any more

    void save(const Row& row, Done done) override;
    void saveEpoch(uint32_t epoch) override;
    void saveDoubt(bool doubt, Done done) override;
    void saveMembers(std::vector<MemberRecord> members) override;

    // Small values of the service's own. Blocks on the disk.
    static Result<std::string> readSetting(Database& database, const char* name);
    static Result<void> writeSetting(Database& database, const char* name, const std::string& value);

private:
    struct Write {
        Row row;
        Done done;
    };
    struct Doubt {
        bool doubt;
        std::vector<Done> done;
    };
    Result<void> writeRow(Transaction& transaction, const Row& row) const;
    void work();

    Database& database_;
    const std::vector<std::string> kept_;
    const std::function<void(std::function<void()>)> deliver_;
    const std::function<void(uint32_t)> epochSaved_;
    std::mutex mutex_;
    std::condition_variable more_;
    std::deque<Write> rows_;
    std::optional<uint32_t> epoch_;
    std::optional<Doubt> doubt_;
    std::optional<std::vector<MemberRecord>> members_;
    bool ending_ = false;
    std::thread thread_;
};

}  // namespace weft::kv
