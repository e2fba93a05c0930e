#include "base/database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <filesystem>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/unique_fd.h"

namespace weft {

namespace {

constexpr uint32_t kApplicationId = 0x77656674;  // "weft"
// user_version: how versions are recorded (table schema_versions), not what the components store.
constexpr int kLayoutVersion = 1;

// Enough for the B-trees of a thousand endpoints; weft keeps its working state in memory.
constexpr const char* kConnectionSettings =
    "PRAGMA locking_mode=EXCLUSIVE;"  // with WAL: the index in our heap instead of a shared file
    "PRAGMA cache_size=-256;"
    "PRAGMA trusted_schema=OFF;"
    "PRAGMA cell_size_check=ON;"
    "PRAGMA temp_store=MEMORY;"
    "PRAGMA secure_delete=OFF;";  // on by default in Debian; it rewrites pages for nothing here

constexpr const char* kWalSettings =
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"
    // Small and often: a checkpoint of 128 pages is one write burst and one sync, within one group commit.
    "PRAGMA wal_autocheckpoint=128;";

constexpr const char* kCreateLayout =
    "PRAGMA journal_mode=WAL;"
    "BEGIN;"
    "CREATE TABLE schema_versions(component TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;"
    "COMMIT;";

struct CloseConnection {
    void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
};
using Connection = std::unique_ptr<sqlite3, CloseConnection>;

Error sqliteError(sqlite3* connection, int code, std::string_view what) {
    auto kind = ErrorCode::Kernel;
    switch (code & 0xff) {
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            kind = ErrorCode::Corrupt;
            break;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            kind = ErrorCode::Busy;
            break;
        case SQLITE_CONSTRAINT:
        case SQLITE_ERROR:
        case SQLITE_MISMATCH:
        case SQLITE_MISUSE:
        case SQLITE_RANGE:
            kind = ErrorCode::Internal;
            break;
        default:
            break;
    }
    std::string message(what);
    message += ": ";
    message += connection != nullptr ? sqlite3_errmsg(connection) : sqlite3_errstr(code);
    return Error{kind, std::move(message), connection != nullptr ? sqlite3_system_errno(connection) : 0};
}

Result<void> execute(sqlite3* connection, const char* sql, std::string_view what) {
    const int code = sqlite3_exec(connection, sql, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) return sqliteError(connection, code, what);
    return {};
}

// The first column of the first row; empty if there is no row.
Result<std::string> queryText(sqlite3* connection, const char* sql) {
    sqlite3_stmt* statement = nullptr;
    int code = sqlite3_prepare_v2(connection, sql, -1, &statement, nullptr);
    if (code != SQLITE_OK) return sqliteError(connection, code, sql);
    const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> owner(statement, sqlite3_finalize);
    code = sqlite3_step(statement);
    if (code == SQLITE_DONE) return std::string();
    if (code != SQLITE_ROW) return sqliteError(connection, code, sql);
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
    return std::string(text != nullptr ? text : "");
}

Result<Connection> openConnection(const std::string& path) {
    sqlite3* raw = nullptr;
    const int code = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
    Connection connection(raw);
    if (code != SQLITE_OK) return sqliteError(raw, code, "open");
    sqlite3_extended_result_codes(raw, 1);
    sqlite3_busy_timeout(raw, 2000);
    sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    WEFT_TRY(execute(raw, kConnectionSettings, "set up the connection"));
    return connection;
}

// What the user can do about a file that weft refuses.
Error refuse(ErrorCode code, const std::string& path, const std::string& why) {
    std::string message = "state file " + path + " " + why + ". weft has left it as it is. ";
    if (code == ErrorCode::Unsupported) {
        message += "Install that version of weft or a newer one";
    } else {
        message += "Restore it from a backup of this host";
    }
    // Without it the host must not go on under its identity: others hold it to what the file said.
    const auto key = std::filesystem::path(path).parent_path() / "node.key";
    message +=
        " (the host then learns from the others what it promised since); or begin anew as another host: stop its "
        "containers, move " +
        path + ", " + path + "-wal and " + key.string() +
        " away (all of them), make weft's networks anew, and on another host: weftctl node forget";
    return makeError(code, std::move(message));
}

Result<UniqueFd> lock(const std::string& path) {
    const std::string lockPath = path + ".lock";
    UniqueFd fd(::open(lockPath.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) return errnoError(errno, "open " + lockPath);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return errnoError(errno, "lock " + lockPath);
        std::array<char, 32> owner{};
        const ssize_t length = ::pread(fd.get(), owner.data(), owner.size(), 0);
        return makeError(ErrorCode::Busy,
                         "state file " + path + " is in use by another weftd (process " +
                             (length > 0 ? std::string(owner.data(), static_cast<size_t>(length)) : "unknown") +
                             "). Stop that one, or give this one its own --state-dir");
    }
    const std::string self = std::to_string(::getpid());
    if (::ftruncate(fd.get(), 0) != 0 || ::pwrite(fd.get(), self.data(), self.size(), 0) < 0) {
        return errnoError(errno, "write " + lockPath);
    }
    return fd;
}

Result<void> syncDirectory(const std::string& path) {
    const auto directory = std::filesystem::path(path).parent_path();
    const UniqueFd fd(::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd || ::fsync(fd.get()) != 0) return errnoError(errno, "sync directory of " + path);
    return {};
}

// Built aside and renamed, so that a file of the right name is always a whole one.
Result<void> createFile(const std::string& path) {
    struct stat info {};
    if (::stat((path + "-wal").c_str(), &info) == 0 && info.st_size > 0) {
        return refuse(ErrorCode::Corrupt, path, "is missing but its log " + path + "-wal is there");
    }
    const std::string draft = path + ".new";
    for (const char* suffix : {"", "-wal", "-journal"}) ::unlink((draft + suffix).c_str());
    {
        const UniqueFd fd(::open(draft.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
        if (!fd) return errnoError(errno, "create " + draft);
    }
    {
        WEFT_ASSIGN(auto connection, openConnection(draft));
        const std::string marks = "PRAGMA application_id=" + std::to_string(kApplicationId) +
                                  ";PRAGMA user_version=" + std::to_string(kLayoutVersion) + ";";
        WEFT_TRY(execute(connection.get(), marks.c_str(), "create " + draft));
        WEFT_TRY(execute(connection.get(), kCreateLayout, "create " + draft));
    }  // closing moves the log into the file and syncs it
    if (::rename(draft.c_str(), path.c_str()) != 0) return errnoError(errno, "rename " + draft);
    return syncDirectory(path);
}

uint32_t bigEndian32(const uint8_t* bytes) {
    return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | uint32_t{bytes[3]};
}

// Read by hand before SQLite sees the file: SQLite would take an empty file for a new database and roll back a
// stranger's journal. https://www.sqlite.org/fileformat.html#the_database_header
Result<void> checkHeader(const std::string& path, int fd) {
    std::array<uint8_t, 100> header{};
    const ssize_t length = ::pread(fd, header.data(), header.size(), 0);
    if (length < 0) return errnoError(errno, "read " + path);
    if (length == 0) return refuse(ErrorCode::Corrupt, path, "is empty");
    if (static_cast<size_t>(length) < header.size() || std::memcmp(header.data(), "SQLite format 3", 16) != 0) {
        return refuse(ErrorCode::Corrupt, path, "is damaged or not weft's: it has no SQLite header");
    }
    if (bigEndian32(&header[68]) != kApplicationId) {
        return refuse(ErrorCode::Corrupt, path, "is some other program's SQLite database");
    }
    if (const auto layout = static_cast<int32_t>(bigEndian32(&header[60])); layout > kLayoutVersion) {
        return refuse(ErrorCode::Unsupported, path,
                      "was written by a newer weft (layout " + std::to_string(layout) + ", this one knows " +
                          std::to_string(kLayoutVersion) + ")");
    }
    // Every file of ours is in WAL mode (bytes 18 and 19); another one might come with a rollback journal.
    if (header[18] != 2 || header[19] != 2 || bigEndian32(&header[60]) != kLayoutVersion) {
        return refuse(ErrorCode::Corrupt, path, "is damaged: its header is not one that weft writes");
    }
    return {};
}

// SQLite calls a schema that it cannot make sense of corrupt or a plain error.
bool tellsOfDamage(const Error& error) {
    return error.code == ErrorCode::Corrupt || error.code == ErrorCode::Internal;
}

Result<void> checkIntegrity(const std::string& path, sqlite3* connection) {
    const auto verdict = queryText(connection, "PRAGMA quick_check(1)");
    if (verdict && *verdict == "ok") return {};
    if (!verdict && !tellsOfDamage(verdict.error())) return verdict.error();
    return refuse(ErrorCode::Corrupt, path, "is damaged (" + (verdict ? *verdict : verdict.error().message) + ")");
}

using Versions = std::unordered_map<std::string, int>;

Result<Versions> readVersions(sqlite3* connection) {
    sqlite3_stmt* statement = nullptr;
    int code =
        sqlite3_prepare_v2(connection, "SELECT component, version FROM schema_versions", -1, &statement, nullptr);
    if (code != SQLITE_OK) return sqliteError(connection, code, "read schema_versions");
    const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> owner(statement, sqlite3_finalize);
    Versions versions;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        const auto* name = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
        versions[name != nullptr ? name : ""] = sqlite3_column_int(statement, 1);
    }
    if (code != SQLITE_DONE) return sqliteError(connection, code, "read schema_versions");
    return versions;
}

int newestVersion(const SchemaComponent& component) {
    return component.migrations.empty() ? 0 : component.migrations.back().version;
}

Result<Versions> checkVersions(const std::string& path, sqlite3* connection,
                               std::span<const SchemaComponent> components) {
    auto versions = readVersions(connection);
    if (!versions && !tellsOfDamage(versions.error())) return versions;
    if (!versions) return refuse(ErrorCode::Corrupt, path, "is damaged (" + versions.error().message + ")");
    for (const auto& [name, version] : *versions) {
        int known = 0;
        for (const auto& component : components) {
            if (name == component.name) known = newestVersion(component);
        }
        if (version > known) {
            return refuse(ErrorCode::Unsupported, path,
                          "was written by a newer weft (" + name + " schema " + std::to_string(version) +
                              ", this one knows " + std::to_string(known) + ")");
        }
    }
    return versions;
}

Result<void> migrate(sqlite3* connection, const SchemaComponent& component, int from) {
    for (const auto& migration : component.migrations) {
        if (migration.version <= from) continue;
        const std::string what =
            std::string("bring ") + component.name + " to schema " + std::to_string(migration.version);
        WEFT_TRY(execute(connection, "BEGIN IMMEDIATE", what));
        auto step = execute(connection, migration.sql, what);
        if (step) {
            const std::string record = std::string("INSERT OR REPLACE INTO schema_versions VALUES('") + component.name +
                                       "'," + std::to_string(migration.version) + ")";
            step = execute(connection, record.c_str(), what);
        }
        if (step) step = execute(connection, "COMMIT", what);
        if (!step) {
            if (sqlite3_get_autocommit(connection) == 0) (void)execute(connection, "ROLLBACK", what);
            return step;
        }
    }
    return {};
}

}  // namespace

struct Database::Impl {
    struct Write {
        const std::function<Result<void>(Transaction&)>& fn;
        Result<void> result;
        bool done = false;
    };

    ~Impl() {
        for (const auto& [sql, statement] : statements) sqlite3_finalize(statement);
    }

    // One transaction for all of them. Only the leader runs it, so the connection has one user at a time.
    void commit(Database& database, std::span<Write* const> batch) const;
    Result<void> runOne(Database& database, Write& write) const;

    UniqueFd lockFile;  // declared first: released after the connection is closed
    Connection connection;
    std::unordered_map<std::string_view, sqlite3_stmt*> statements;  // keys: sqlite3_sql() of each

    std::mutex mutex;
    std::condition_variable committed;
    std::vector<Write*> queue;
    bool committing = false;  // some caller is the leader
    Counters counters;
};

Result<void> Database::Impl::runOne(Database& database, Write& write) const {
    WEFT_TRY(execute(connection.get(), "SAVEPOINT one", "begin write"));
    Transaction transaction(database);
    Result<void> result;
    try {
        result = write.fn(transaction);
    } catch (const std::exception& error) {
        // Unwinding into a leader would leave its followers waiting for ever.
        result = makeError(ErrorCode::Internal, std::string("exception in a write: ") + error.what());
    }
    if (sqlite3_get_autocommit(connection.get()) != 0) {
        return result ? makeError(ErrorCode::Kernel, "the transaction was rolled back by SQLite") : result;
    }
    if (!result) WEFT_TRY(execute(connection.get(), "ROLLBACK TO one", "undo write"));
    WEFT_TRY(execute(connection.get(), "RELEASE one", "end write"));
    return result;
}

void Database::Impl::commit(Database& database, std::span<Write* const> batch) const {
    Result<void> whole = execute(connection.get(), "BEGIN IMMEDIATE", "begin commit");
    for (auto* write : batch) {
        if (!whole) break;
        write->result = runOne(database, *write);
        // A full disk or an I/O error may take the transaction, and with it the earlier writes of this batch.
        if (sqlite3_get_autocommit(connection.get()) != 0) whole = write->result;
    }
    if (whole) whole = execute(connection.get(), "COMMIT", "commit");
    if (whole) return;
    if (sqlite3_get_autocommit(connection.get()) == 0) (void)execute(connection.get(), "ROLLBACK", "roll back");
    for (auto* write : batch) {
        if (write->result) write->result = whole.error();
    }
}

Database::Database() : impl_(std::make_unique<Impl>()) {}
Database::~Database() = default;

Result<std::unique_ptr<Database>> Database::open(const std::string& path, std::span<const SchemaComponent> components) {
    WEFT_ASSIGN(UniqueFd lockFile, lock(path));

    UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file && errno == ENOENT) {
        WEFT_TRY(createFile(path));
        file.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    }
    if (!file) return errnoError(errno, "open " + path);
    WEFT_TRY(checkHeader(path, file.get()));
    if (::fchmod(file.get(), 0600) != 0) return errnoError(errno, "chmod " + path);
    // Before SQLite opens it: closing any descriptor of a file drops all of the process's POSIX locks on it.
    file.reset();

    auto opened = openConnection(path);
    if (!opened && tellsOfDamage(opened.error())) {
        return refuse(ErrorCode::Corrupt, path, "is damaged (" + opened.error().message + ")");
    }
    if (!opened) return std::move(opened).error().within(path);
    Connection connection = std::move(opened).value();
    // Until everything is found good, closing must not move the log into a file that we refuse.
    sqlite3_db_config(connection.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    WEFT_TRY(checkIntegrity(path, connection.get()));
    WEFT_ASSIGN(Versions versions, checkVersions(path, connection.get(), components));
    WEFT_TRY(execute(connection.get(), kWalSettings, path));
    for (const auto& component : components) {
        WEFT_TRY(migrate(connection.get(), component, versions[component.name]).within(path));
    }
    sqlite3_db_config(connection.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, nullptr);

    std::unique_ptr<Database> database(new Database);
    database->impl_->lockFile = std::move(lockFile);
    database->impl_->connection = std::move(connection);
    return database;
}

Result<void> Database::write(const std::function<Result<void>(Transaction&)>& fn) {
    Impl::Write self{fn, {}};
    std::unique_lock guard(impl_->mutex);
    ++impl_->counters.writes;
    impl_->queue.push_back(&self);
    impl_->committed.wait(guard, [&] { return self.done || !impl_->committing; });
    if (!self.done) {
        impl_->committing = true;
        const auto batch = std::exchange(impl_->queue, {});
        guard.unlock();
        impl_->commit(*this, batch);
        guard.lock();
        for (auto* write : batch) write->done = true;
        ++impl_->counters.commits;
        impl_->committing = false;
        impl_->committed.notify_all();
    }
    return std::move(self.result);
}

Database::Counters Database::counters() const {
    const std::lock_guard guard(impl_->mutex);
    return impl_->counters;
}

Result<Statement> Transaction::prepare(std::string_view sql) {
    auto& impl = *database_.impl_;
    if (const auto cached = impl.statements.find(sql); cached != impl.statements.end()) {
        sqlite3_stmt* statement = cached->second;
        impl.statements.erase(cached);  // out of the cache while in use: a second user gets its own
        return Statement(database_, statement);
    }
    sqlite3_stmt* statement = nullptr;
    const int code = sqlite3_prepare_v3(impl.connection.get(), sql.data(), static_cast<int>(sql.size()),
                                        SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    if (code != SQLITE_OK) return sqliteError(impl.connection.get(), code, sql);
    return Statement(database_, statement);
}

Statement::Statement(Statement&& other) noexcept
    : database_(other.database_),
      statement_(std::exchange(other.statement_, nullptr)),
      parameter_(other.parameter_),
      bindError_(other.bindError_) {}

Statement::~Statement() {
    if (statement_ == nullptr) return;
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
    if (!database_.impl_->statements.emplace(sqlite3_sql(statement_), statement_).second) sqlite3_finalize(statement_);
}

Statement& Statement::bind(std::string_view text) {
    const int code = sqlite3_bind_text64(statement_, ++parameter_, text.data() != nullptr ? text.data() : "",
                                         text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
    if (bindError_ == SQLITE_OK) bindError_ = code;
    return *this;
}

Statement& Statement::bind(int64_t number) {
    const int code = sqlite3_bind_int64(statement_, ++parameter_, number);
    if (bindError_ == SQLITE_OK) bindError_ = code;
    return *this;
}

Statement& Statement::bindNull() {
    const int code = sqlite3_bind_null(statement_, ++parameter_);
    if (bindError_ == SQLITE_OK) bindError_ = code;
    return *this;
}

Result<bool> Statement::next() {
    if (bindError_ != SQLITE_OK) return sqliteError(nullptr, bindError_, sqlite3_sql(statement_));
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return sqliteError(database_.impl_->connection.get(), code, sqlite3_sql(statement_));
}

Result<void> Statement::run() {
    WEFT_ASSIGN(const bool row, next());
    if (row) return makeError(ErrorCode::Internal, "unexpected row from: " + std::string(sqlite3_sql(statement_)));
    return {};
}

std::string Statement::text(int column) const {
    const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return data != nullptr ? std::string(data, static_cast<size_t>(sqlite3_column_bytes(statement_, column)))
                           : std::string();
}

int64_t Statement::number(int column) const {
    return sqlite3_column_int64(statement_, column);
}

bool Statement::isNull(int column) const {
    return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

}  // namespace weft
