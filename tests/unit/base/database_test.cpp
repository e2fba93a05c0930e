#include "base/database.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

namespace weft {
namespace {

using ::testing::HasSubstr;

constexpr Migration kNotes[] = {{1, "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT)"}};
constexpr Migration kNotesLater[] = {{1, "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT)"},
                                     {2, "ALTER TABLE notes ADD COLUMN author TEXT DEFAULT 'nobody'"}};
constexpr Migration kOthers[] = {{1, "CREATE TABLE others(id INTEGER PRIMARY KEY)"}};

constexpr SchemaComponent kComponents[] = {{"notes", kNotes}};
constexpr SchemaComponent kLater[] = {{"notes", kNotesLater}};
constexpr SchemaComponent kBoth[] = {{"notes", kNotes}, {"others", kOthers}};

std::string slurp(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

void spill(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

Result<void> add(Database& database, const std::string& text) {
    return database.write([&](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(auto insert, transaction.prepare("INSERT INTO notes(text) VALUES(?)"));
        return insert.bind(text).run();
    });
}

std::vector<std::string> all(Database& database, std::string_view column = "text") {
    std::vector<std::string> texts;
    const auto read = database.write([&](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(auto select, transaction.prepare(column == "text" ? "SELECT text FROM notes ORDER BY id"
                                                                      : "SELECT author FROM notes ORDER BY id"));
        while (true) {
            WEFT_ASSIGN(const bool more, select.next());
            if (!more) return {};
            texts.push_back(select.text(0));
        }
    });
    EXPECT_TRUE(read) << read.error().message;
    return texts;
}

class DatabaseTest : public ::testing::Test {
protected:
    void SetUp() override {
        std::string name = std::filesystem::temp_directory_path() / "weft-database-XXXXXX";
        directory_ = ::mkdtemp(name.data());
        path_ = directory_ + "/weft.db";
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    std::unique_ptr<Database> open(std::span<const SchemaComponent> components = kComponents) {
        auto database = Database::open(path_, components);
        EXPECT_TRUE(database) << database.error().message;
        return database ? std::move(database).value() : nullptr;
    }

    // Expects a refusal that leaves every byte in place.
    Error refused(std::span<const SchemaComponent> components = kComponents) {
        const std::string before = slurp(path_);
        const std::string logBefore = slurp(path_ + "-wal");
        const auto database = Database::open(path_, components);
        EXPECT_FALSE(database);
        EXPECT_EQ(slurp(path_), before);
        EXPECT_EQ(slurp(path_ + "-wal"), logBefore);
        return database ? Error{} : database.error();
    }

    std::string directory_;
    std::string path_;
};

TEST_F(DatabaseTest, KeepsWhatWasWrittenAcrossOpens) {
    ASSERT_TRUE(add(*open(), "one"));
    ASSERT_TRUE(add(*open(), "two"));
    EXPECT_EQ(all(*open()), (std::vector<std::string>{"one", "two"}));
}

TEST_F(DatabaseTest, FilesAreForTheOwnerOnly) {
    const mode_t before = ::umask(0);
    const auto database = open();
    ::umask(before);
    ASSERT_TRUE(add(*database, "secret"));
    for (const char* suffix : {"", "-wal", ".lock"}) {
        struct stat info {};
        ASSERT_EQ(::stat((path_ + suffix).c_str(), &info), 0) << suffix;
        EXPECT_EQ(info.st_mode & 0777, 0600U) << suffix;
    }
}

TEST_F(DatabaseTest, MissingDirectoryIsAnError) {
    const auto database = Database::open(directory_ + "/none/weft.db", kComponents);
    ASSERT_FALSE(database);
    EXPECT_EQ(database.error().code, ErrorCode::NotFound);
}

TEST_F(DatabaseTest, BindsTextNumbersAndNull) {
    const auto database = open();
    const std::string odd("a\0b'\"", 5);
    const auto result = database->write([&](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(auto select, transaction.prepare("SELECT ?, ?, ?, ?"));
        select.bind(odd).bind(int64_t{-5}).bindNull().bind(std::string_view{});
        WEFT_ASSIGN(const bool row, select.next());
        EXPECT_TRUE(row);
        EXPECT_EQ(select.text(0), odd);
        EXPECT_EQ(select.number(1), -5);
        EXPECT_TRUE(select.isNull(2));
        EXPECT_FALSE(select.isNull(3));
        EXPECT_EQ(select.text(3), "");
        return {};
    });
    EXPECT_TRUE(result);
}

TEST_F(DatabaseTest, OneStatementTwiceAtOnceIsTwoCursors) {
    const auto database = open();
    ASSERT_TRUE(add(*database, "a"));
    ASSERT_TRUE(add(*database, "b"));
    std::string pairs;
    const auto result = database->write([&](Transaction& transaction) -> Result<void> {
        constexpr std::string_view kSql = "SELECT text FROM notes ORDER BY id";
        WEFT_ASSIGN(auto outer, transaction.prepare(kSql));
        while (outer.next().value_or(false)) {
            WEFT_ASSIGN(auto inner, transaction.prepare(kSql));
            while (inner.next().value_or(false)) pairs += outer.text(0) + inner.text(0) + " ";
        }
        return {};
    });
    ASSERT_TRUE(result);
    EXPECT_EQ(pairs, "aa ab ba bb ");
}

TEST_F(DatabaseTest, TooManyParametersAreAnError) {
    const auto database = open();
    const auto result = database->write([&](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(auto insert, transaction.prepare("INSERT INTO notes(text) VALUES(?)"));
        return insert.bind("a").bind("b").run();
    });
    EXPECT_FALSE(result);
    EXPECT_TRUE(all(*database).empty());
}

TEST_F(DatabaseTest, FailedWriteLeavesNothing) {
    const auto database = open();
    const auto result = database->write([&](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(auto insert, transaction.prepare("INSERT INTO notes(text) VALUES(?)"));
        WEFT_TRY(insert.bind("half").run());
        return makeError(ErrorCode::Busy, "changed my mind");
    });
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::Busy);
    EXPECT_TRUE(all(*database).empty());
}

TEST_F(DatabaseTest, ExceptionInAWriteIsItsErrorOnly) {
    const auto database = open();
    const auto result = database->write([](Transaction&) -> Result<void> { throw std::runtime_error("oops"); });
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, HasSubstr("oops"));
    EXPECT_TRUE(add(*database, "after"));
}

// The writer that fails must not take those that share its commit along, nor the other way round.
TEST_F(DatabaseTest, WritersThatWaitShareOneCommitButNotTheirFailures) {
    const auto database = open();
    constexpr int kWriters = 16;
    std::atomic<int> started = 0;
    std::vector<std::thread> threads;
    std::vector<Result<void>> results(kWriters);
    const auto before = database->counters();
    // The first write holds the transaction open until all others have queued behind it.
    std::thread first([&] {
        EXPECT_TRUE(database->write([&](Transaction&) -> Result<void> {
            while (database->counters().writes < before.writes + 1 + kWriters) std::this_thread::yield();
            return {};
        }));
    });
    while (database->counters().writes == before.writes) std::this_thread::yield();
    for (int i = 0; i < kWriters; ++i) {
        threads.emplace_back([&, i] {
            ++started;
            results[static_cast<size_t>(i)] = database->write([&](Transaction& transaction) -> Result<void> {
                WEFT_ASSIGN(auto insert, transaction.prepare("INSERT INTO notes(id, text) VALUES(?, 'x')"));
                WEFT_TRY(insert.bind(int64_t{i} + 1).run());
                if (i % 4 == 0) return makeError(ErrorCode::Busy, "no");
                return {};
            });
        });
    }
    first.join();
    for (auto& thread : threads) thread.join();
    const auto after = database->counters();
    EXPECT_EQ(after.writes - before.writes, 1U + kWriters);
    EXPECT_EQ(after.commits - before.commits, 2U);
    for (int i = 0; i < kWriters; ++i) EXPECT_EQ(results[static_cast<size_t>(i)].has_value(), i % 4 != 0) << i;
    EXPECT_EQ(all(*database).size(), 12U);
}

TEST_F(DatabaseTest, AnsweredWritesSurviveAKill) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        auto database = Database::open(path_, kComponents);
        if (!database) ::_exit(1);
        for (int i = 0; i < 100; ++i) {
            if (!add(**database, std::to_string(i)) || ::write(pipe[1], "x", 1) != 1) ::_exit(1);
        }
        ::kill(::getpid(), SIGKILL);
    }
    ::close(pipe[1]);
    int answered = 0;
    char byte;
    while (::read(pipe[0], &byte, 1) == 1) ++answered;
    ::close(pipe[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(answered, 100);
    EXPECT_EQ(all(*open()).size(), 100U);
}

TEST_F(DatabaseTest, SecondOpenIsRefusedWithTheOwner) {
    const auto database = open();
    const Error error = refused();
    EXPECT_EQ(error.code, ErrorCode::Busy);
    EXPECT_THAT(error.message, HasSubstr("process " + std::to_string(::getpid())));
    EXPECT_TRUE(add(*database, "still works"));
}

TEST_F(DatabaseTest, EveryMigrationRunsOnce) {
    ASSERT_TRUE(add(*open(), "old"));
    ASSERT_TRUE(add(*open(kLater), "new"));
    EXPECT_EQ(all(*open(kLater), "author"), (std::vector<std::string>{"nobody", "nobody"}));
}

TEST_F(DatabaseTest, ComponentsHaveVersionsOfTheirOwn) {
    ASSERT_TRUE(add(*open(), "kept"));
    EXPECT_EQ(all(*open(kBoth)), std::vector<std::string>{"kept"});
}

TEST_F(DatabaseTest, FailedMigrationLeavesTheVersionBefore) {
    ASSERT_TRUE(add(*open(), "kept"));
    static constexpr Migration kBroken[] = {kNotes[0],
                                            {2, "CREATE TABLE extra(id); INSERT INTO no_such_table VALUES(1)"}};
    const SchemaComponent kBrokenComponent[] = {{"notes", kBroken}};
    EXPECT_FALSE(Database::open(path_, kBrokenComponent));
    EXPECT_EQ(all(*open()), std::vector<std::string>{"kept"});
    EXPECT_EQ(all(*open(kLater)), std::vector<std::string>{"kept"});
}

TEST_F(DatabaseTest, NewerSchemaIsRefused) {
    ASSERT_TRUE(add(*open(kLater), "new"));
    const Error error = refused(kComponents);
    EXPECT_EQ(error.code, ErrorCode::Unsupported);
    EXPECT_THAT(error.message, HasSubstr("notes schema 2, this one knows 1"));
    EXPECT_THAT(error.message, HasSubstr("Install"));
    EXPECT_EQ(all(*open(kLater)), std::vector<std::string>{"new"});
}

TEST_F(DatabaseTest, UnknownComponentIsRefusedAsNewer) {
    open(kBoth);
    EXPECT_EQ(refused(kComponents).code, ErrorCode::Unsupported);
}

TEST_F(DatabaseTest, NewerLayoutIsRefused) {
    open();
    std::string bytes = slurp(path_);
    bytes[63] = 2;  // user_version
    spill(path_, bytes);
    EXPECT_EQ(refused().code, ErrorCode::Unsupported);
}

TEST_F(DatabaseTest, ForeignAndBrokenFilesAreRefused) {
    spill(path_, "");
    EXPECT_THAT(refused().message, HasSubstr("is empty"));
    spill(path_, "#!/bin/sh\n");
    EXPECT_EQ(refused().code, ErrorCode::Corrupt);
    spill(path_, std::string(8192, '\xff'));
    EXPECT_EQ(refused().code, ErrorCode::Corrupt);
    std::filesystem::remove(path_);

    sqlite3* foreign = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &foreign), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(foreign, "CREATE TABLE t(a)", nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(foreign);
    const Error error = refused();
    EXPECT_EQ(error.code, ErrorCode::Corrupt);
    EXPECT_THAT(error.message, HasSubstr("some other program's"));
    EXPECT_THAT(error.message, HasSubstr("move " + path_));
}

TEST_F(DatabaseTest, DamagedPagesAreRefused) {
    {
        const auto database = open();
        for (int i = 0; i < 200; ++i) ASSERT_TRUE(add(*database, std::string(300, 'x')));
    }
    const std::string good = slurp(path_);
    int damaged = 0;
    for (size_t page = 1; page < good.size() / 4096; ++page) {
        std::string bad = good;
        for (size_t i = 0; i < 64; ++i) bad[page * 4096 + i] = '\x5a';
        spill(path_, bad);
        if (refused().code == ErrorCode::Corrupt) ++damaged;
    }
    EXPECT_EQ(damaged, static_cast<int>(good.size() / 4096) - 1);
    spill(path_, good.substr(0, good.size() / 2));
    EXPECT_EQ(refused().code, ErrorCode::Corrupt);
    spill(path_, good);
    EXPECT_EQ(all(*open()).size(), 200U);
}

TEST_F(DatabaseTest, LogWithoutItsFileIsRefused) {
    open();
    std::filesystem::remove(path_);
    spill(path_ + "-wal", std::string(4096, 'w'));
    EXPECT_EQ(refused().code, ErrorCode::Corrupt);
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(DatabaseTest, LeftoversOfAKilledCreationDoNotMatter) {
    spill(path_ + ".new", "half");
    spill(path_ + ".new-wal", "half");
    ASSERT_TRUE(add(*open(), "fresh"));
    EXPECT_EQ(all(*open()), std::vector<std::string>{"fresh"});
}

TEST_F(DatabaseTest, TheLogStaysSmall) {
    const auto database = open();
    for (int i = 0; i < 500; ++i) ASSERT_TRUE(add(*database, "row"));
    EXPECT_LT(std::filesystem::file_size(path_ + "-wal"), 1024U * 1024U);
}

// A disk that fills up: RLIMIT_FSIZE plays it in a child, where SIGXFSZ is ignored so that write() fails.
TEST_F(DatabaseTest, FullDiskFailsTheWriteAndKeepsTheRest) {
    ASSERT_TRUE(add(*open(), "before"));
    const pid_t child = ::fork();
    if (child == 0) {
        ::signal(SIGXFSZ, SIG_IGN);
        auto database = Database::open(path_, kComponents);
        if (!database) ::_exit(1);
        const rlimit limit{64 * 1024, 64 * 1024};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        const auto big = add(**database, std::string(200 * 1024, 'b'));
        if (big || big.error().code != ErrorCode::Kernel) ::_exit(2);
        if (!add(**database, "after")) ::_exit(3);
        ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_EQ(all(*open()), (std::vector<std::string>{"before", "after"}));
}

}  // namespace
}  // namespace weft
