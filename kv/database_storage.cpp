#include "kv/database_storage.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <memory>
#include <utility>

#include "base/log.h"
#include "kv/message.h"

namespace weft::kv {

namespace {

constexpr std::array kMigrations = {
    Migration{1,
              "CREATE TABLE gossip_rows(key TEXT PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID;"
              "CREATE TABLE gossip_members(id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;"
              "CREATE TABLE gossip_settings(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"},
    // `seconds`: wall clock.
    Migration{2,
              "CREATE TABLE gossip_tombstones(key TEXT PRIMARY KEY, row TEXT NOT NULL, seconds INTEGER NOT NULL)"
              " WITHOUT ROWID;"},
};
constexpr const char* kEpoch = "epoch";
constexpr const char* kDatabase = "database";
constexpr const char* kNode = "node";
constexpr const char* kDoubt = "doubt";
constexpr const char* kOrigin = "origin";
constexpr const char* kHeirText = "heir";
constexpr const char* kFirstText = "first";
constexpr int64_t kTombstonesFor = int64_t{26} * 3600;  // longer than other hosts keep what was deleted

std::string text(Origin origin) {
    return origin == Origin::Heir ? kHeirText : origin == Origin::First ? kFirstText : "";
}

// Bytes as in the wire's messages, in hex: text is what the database binds.
std::string toHex(const Bytes& bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    text.reserve(2 * bytes.size());
    for (const uint8_t byte : bytes) {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

// Empty unless all of it is hex as above.
Bytes fromHex(const std::string& text) {
    Bytes bytes;
    if (text.size() % 2 != 0 || text.find_first_not_of("0123456789abcdef") != std::string::npos) return bytes;
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    bytes.reserve(text.size() / 2);
    for (size_t i = 0; i < text.size(); i += 2) {
        bytes.push_back(static_cast<uint8_t>(digit(text[i]) << 4 | digit(text[i + 1])));
    }
    return bytes;
}

template <typename T>
std::optional<T> decodeStored(const std::string& text) {
    const Bytes bytes = fromHex(text);
    Reader in(bytes);
    Message message;
    if (decodeNext(in, message) != Decoded::Ok || !std::holds_alternative<T>(message) || in.left() > 0) return {};
    return std::get<T>(std::move(message));
}

Error damaged(const std::string& what) {
    return makeError(ErrorCode::Corrupt, what + DatabaseStorage::kDamageAdvice);
}

Result<void> readRows(Transaction& transaction, std::string_view sql, std::vector<Row>& all) {
    WEFT_ASSIGN(auto rows, transaction.prepare(sql));
    for (;;) {
        WEFT_ASSIGN(const bool more, rows.next());
        if (!more) return {};
        auto row = decodeStored<Row>(rows.text(1));
        if (!row || row->key != rows.text(0)) return damaged("row " + rows.text(0) + " does not read");
        all.push_back(*std::move(row));
    }
}

Result<void> readMembers(Transaction& transaction, std::vector<MemberRecord>& all) {
    WEFT_ASSIGN(auto rows, transaction.prepare("SELECT id, record FROM gossip_members"));
    for (;;) {
        WEFT_ASSIGN(const bool more, rows.next());
        if (!more) return {};
        if (auto record = decodeStored<MemberRecord>(rows.text(1))) {
            all.push_back(*std::move(record));
        } else {
            logWarn("msg=\"stored gossip member does not read, left out\" id={}", logValue(rows.text(0)));
        }
    }
}

Result<void> putSetting(Transaction& transaction, std::string_view name, const std::string& value) {
    WEFT_ASSIGN(auto put, transaction.prepare("INSERT OR REPLACE INTO gossip_settings VALUES(?, ?)"));
    return put.bind(name).bind(value).run();
}

Result<std::string> getSetting(Transaction& transaction, std::string_view name) {
    WEFT_ASSIGN(auto get, transaction.prepare("SELECT value FROM gossip_settings WHERE name = ?"));
    get.bind(name);
    WEFT_ASSIGN(const bool found, get.next());
    return found ? get.text(0) : std::string();
}

Result<void> writeMembers(Transaction& transaction, const std::vector<MemberRecord>& members) {
    WEFT_ASSIGN(auto clear, transaction.prepare("DELETE FROM gossip_members"));
    WEFT_TRY(clear.run());
    for (const MemberRecord& member : members) {
        WEFT_ASSIGN(auto put, transaction.prepare("INSERT OR REPLACE INTO gossip_members VALUES(?, ?)"));
        WEFT_TRY(put.bind(NodeId::of(member.publicKey).str()).bind(toHex(encode(member))).run());
    }
    return {};
}

}  // namespace

const char* const DatabaseStorage::kDamageAdvice =
    ": the state file is damaged. Put it back from a copy of this host, which then learns from the other hosts what it "
    "promised since; or stop its containers, move the state file and node.key away (both), start it as a new host, and "
    "let the others forget the old one: weftctl node forget";

SchemaComponent DatabaseStorage::schema() {
    return {"gossip", kMigrations};
}

Result<DatabaseStorage::Binding> DatabaseStorage::readBinding(Database& database) {
    Binding binding;
    WEFT_TRY(database.write([&](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(const std::string epoch, getSetting(transaction, kEpoch));
        binding.epoch = static_cast<uint32_t>(std::strtoul(epoch.c_str(), nullptr, 10));
        WEFT_ASSIGN(binding.database, getSetting(transaction, kDatabase));
        WEFT_ASSIGN(binding.node, getSetting(transaction, kNode));
        return {};
    }));
    return binding;
}

Result<Persisted> DatabaseStorage::beginEpoch(Database& database, const Binding& binding, bool doubt,
                                              std::optional<Origin> origin) {
    Persisted persisted;
    WEFT_TRY(database
                 .write([&](Transaction& transaction) -> Result<void> {
                     WEFT_ASSIGN(auto expire, transaction.prepare("DELETE FROM gossip_tombstones WHERE seconds < ?"));
                     WEFT_TRY(expire.bind(std::time(nullptr) - kTombstonesFor).run());
                     WEFT_TRY(readRows(transaction, "SELECT key, row FROM gossip_rows", persisted.rows));
                     WEFT_TRY(readRows(transaction, "SELECT key, row FROM gossip_tombstones", persisted.rows));
                     WEFT_TRY(readMembers(transaction, persisted.members));
                     WEFT_ASSIGN(const std::string epoch, getSetting(transaction, kEpoch));
                     const auto last = static_cast<uint32_t>(std::strtoul(epoch.c_str(), nullptr, 10));
                     persisted.epoch = 1 + std::max(last, binding.epoch);
                     WEFT_ASSIGN(const std::string doubted, getSetting(transaction, kDoubt));
                     persisted.doubt = doubt || doubted == "1";
                     WEFT_TRY(putSetting(transaction, kDoubt, persisted.doubt ? "1" : "0"));
                     WEFT_ASSIGN(const std::string before, getSetting(transaction, kOrigin));
                     persisted.origin = origin                 ? *origin
                                        : before == kHeirText  ? Origin::Heir
                                        : before == kFirstText ? Origin::First
                                                               : Origin::New;
                     WEFT_TRY(putSetting(transaction, kOrigin, text(persisted.origin)));
                     WEFT_TRY(putSetting(transaction, kDatabase, binding.database));
                     WEFT_TRY(putSetting(transaction, kNode, binding.node));
                     return putSetting(transaction, kEpoch, std::to_string(persisted.epoch));
                 })
                 .within("gossip state"));
    return persisted;
}

Result<void> DatabaseStorage::dropRows(Database& database, const std::vector<std::string>& keys) {
    return database.write([&](Transaction& transaction) -> Result<void> {
        for (const std::string& key : keys) {
            for (const char* sql :
                 {"DELETE FROM gossip_rows WHERE key = ?", "DELETE FROM gossip_tombstones WHERE key = ?"}) {
                WEFT_ASSIGN(auto erase, transaction.prepare(sql));
                WEFT_TRY(erase.bind(key).run());
            }
        }
        return putSetting(transaction, kDoubt, "0");
    });
}

Result<void> DatabaseStorage::writeRow(Transaction& transaction, const Row& row) const {
    WEFT_ASSIGN(auto live, transaction.prepare(row.deleted ? "DELETE FROM gossip_rows WHERE key = ?"
                                                           : "INSERT OR REPLACE INTO gossip_rows VALUES(?, ?)"));
    live.bind(row.key);
    if (!row.deleted) live.bind(toHex(encode(row)));
    WEFT_TRY(live.run());
    if (std::ranges::none_of(kept_, [&](const std::string& prefix) { return row.key.starts_with(prefix); })) return {};
    if (!row.deleted) {
        WEFT_ASSIGN(auto erase, transaction.prepare("DELETE FROM gossip_tombstones WHERE key = ?"));
        return erase.bind(row.key).run();
    }
    WEFT_ASSIGN(auto dead, transaction.prepare("INSERT OR REPLACE INTO gossip_tombstones VALUES(?, ?, ?)"));
    return dead.bind(row.key).bind(toHex(encode(row))).bind(int64_t{std::time(nullptr)}).run();
}

Result<std::string> DatabaseStorage::readSetting(Database& database, const char* name) {
    std::string value;
    WEFT_TRY(database.write([&](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(value, getSetting(transaction, name));
        return {};
    }));
    return value;
}

Result<void> DatabaseStorage::writeSetting(Database& database, const char* name, const std::string& value) {
    return database.write([&](Transaction& transaction) { return putSetting(transaction, name, value); });
}

DatabaseStorage::DatabaseStorage(Database& database, std::vector<std::string> kept,
                                 std::function<void(std::function<void()>)> deliver,
                                 std::function<void(uint32_t)> epochSaved)
    : database_(database),
      kept_(std::move(kept)),
      deliver_(std::move(deliver)),
      epochSaved_(std::move(epochSaved)),
      thread_([this] { work(); }) {}

DatabaseStorage::~DatabaseStorage() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
    }
    more_.notify_one();
    thread_.join();
}

void DatabaseStorage::save(const Row& row, Done done) {
    {
        const std::lock_guard lock(mutex_);
        rows_.push_back({row, std::move(done)});
    }
    more_.notify_one();
}

void DatabaseStorage::saveEpoch(uint32_t epoch) {
    {
        const std::lock_guard lock(mutex_);
        epoch_ = epoch;
    }
    more_.notify_one();
}

void DatabaseStorage::saveDoubt(bool doubt, Done done) {
    {
        const std::lock_guard lock(mutex_);
        if (!doubt_) doubt_ = Doubt{doubt, {}};
        doubt_->doubt = doubt;
        doubt_->done.push_back(std::move(done));
    }
    more_.notify_one();
}

void DatabaseStorage::saveMembers(std::vector<MemberRecord> members) {
    {
        const std::lock_guard lock(mutex_);
        members_ = std::move(members);
    }
    more_.notify_one();
}

void DatabaseStorage::work() {
    std::optional<uint32_t> epoch;  // not written yet, with what was tried last
    std::optional<bool> doubted;
    std::unique_lock lock(mutex_);
    for (;;) {
        more_.wait(lock, [this] { return ending_ || !rows_.empty() || epoch_ || doubt_ || members_; });
        if (rows_.empty() && !epoch_ && !doubt_ && !members_) return;
        const auto rows = std::make_shared<std::deque<Write>>(std::exchange(rows_, {}));
        if (epoch_) epoch = std::exchange(epoch_, {});
        const auto doubt = std::make_shared<std::optional<Doubt>>(std::exchange(doubt_, {}));
        if (*doubt) doubted = (*doubt)->doubt;
        const auto members = std::exchange(members_, {});
        lock.unlock();
        auto written = database_.write([&](Transaction& transaction) -> Result<void> {
            if (epoch) WEFT_TRY(putSetting(transaction, kEpoch, std::to_string(*epoch)));
            if (doubted) WEFT_TRY(putSetting(transaction, kDoubt, *doubted ? "1" : "0"));
            for (const Write& write : *rows) WEFT_TRY(writeRow(transaction, write.row));
            if (members) WEFT_TRY(writeMembers(transaction, *members));
            return {};
        });
        if (!written) logError("gossip state not written: {}", written.error().message);
        if (written && epoch && epochSaved_) epochSaved_(*epoch);
        if (written) {
            epoch.reset();
            doubted.reset();
        }
        if (!rows->empty() || *doubt) {
            deliver_([rows, doubt, written] {
                for (const Write& write : *rows) write.done(written);
                if (!*doubt) return;
                for (const Done& done : (*doubt)->done) done(written);
            });
        }
        lock.lock();
    }
}

}  // namespace weft::kv
