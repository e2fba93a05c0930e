// Database: one SQLite file with group commit. The only door to SQLite in weft.
//
// Writes: write(fn) runs fn inside a transaction and returns once that transaction is on disk (WAL,
// synchronous=FULL). Callers that arrive while a commit is under way share the next one: the first of them runs
// everybody's fn, each within its own savepoint, and commits once. An fn that returns an error rolls back its own
// savepoint only.
// Reads go through write() too when they must see a consistent picture; weft keeps its working state in memory and
// reads the file only at start.
//
// Thread safety: any thread may call write(). An fn may run on another caller's thread while its own caller waits, so
// it must take no lock that a caller of write() may hold, and must not call write(). A Statement lives inside one fn.
// Errors: Corrupt when the file is damaged or not weft's, Unsupported when its schema is newer than this program, Busy
// when another process has it open (each message says what to do; the file is left untouched), Kernel for I/O.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct sqlite3_stmt;

namespace weft {

class Database;

// A prepared statement with its parameters bound in order. Text is copied. A bind that fails shows at next() or run().
// Columns count from 0 and are valid after next() said true.
class Statement {
public:
    Statement(Statement&& other) noexcept;
    Statement& operator=(Statement&&) = delete;
    ~Statement();  // resets it and hands it back to the connection's cache

    Statement& bind(std::string_view text);
    Statement& bind(int64_t number);
    Statement& bindNull();

    // Steps to the next row; false when there is none.
    Result<bool> next();
    // Runs a statement that yields no rows.
    Result<void> run();

    [[nodiscard]] std::string text(int column) const;
    [[nodiscard]] int64_t number(int column) const;
    [[nodiscard]] bool isNull(int column) const;

private:
    friend class Transaction;
    Statement(Database& database, sqlite3_stmt* statement) : database_(database), statement_(statement) {}

    Database& database_;
    sqlite3_stmt* statement_;
    int parameter_ = 0;
    int bindError_ = 0;
};

class Transaction {
public:
    // One statement, kept for the next who asks for the same text.
    Result<Statement> prepare(std::string_view sql);

private:
    friend class Database;
    explicit Transaction(Database& database) : database_(database) {}
    Database& database_;
};

// One step of a component's schema: applied in order, each once, in a transaction that also records the version
// reached. Never change one that was released: add the next.
struct Migration {
    int version;  // 1, 2, 3, ...
    const char* sql;
};

// A module with tables of its own; it names them COMPONENT_... and no other module touches them. Each has its own row
// in table schema_versions, so modules need not know each other's migrations.
struct SchemaComponent {
    const char* name;
    std::span<const Migration> migrations;
};

class Database {
public:
    // Opens or creates `path` (mode 0600, in an existing directory) and brings every component up to its last
    // migration. Holds `path`.lock until destroyed. A component in the file that is not in the list means that a newer
    // weft wrote it: name all of them at each open.
    static Result<std::unique_ptr<Database>> open(const std::string& path, std::span<const SchemaComponent> components);
    ~Database();
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;

    // Ok: what fn did is on disk. Error of fn: nothing of it is. Other errors: nothing of it is, but after a failed
    // sync or a crash it may turn up at the next open, as with any database.
    Result<void> write(const std::function<Result<void>(Transaction&)>& fn);

    struct Counters {
        uint64_t writes = 0;   // calls of write()
        uint64_t commits = 0;  // transactions made for them
    };
    [[nodiscard]] Counters counters() const;

private:
    friend class Statement;
    friend class Transaction;
    Database();

    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace weft
