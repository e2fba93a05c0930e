#include "kv/database_storage.h"

#include <array>
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
};
constexpr const char* kEpoch = "epoch";

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

Bytes fromHex(const std::string& text) {
    const auto digit = [](char c) { return static_cast<uint8_t>(c <= '9' ? c - '0' : c - 'a' + 10); };
    Bytes bytes;
    bytes.reserve(text.size() / 2);
    for (size_t i = 0; i + 1 < text.size(); i += 2) {
        bytes.push_back(static_cast<uint8_t>(digit(text[i]) << 4 | digit(text[i + 1])));
    }
    return bytes;
}

template <typename T>
Result<void> readAll(Transaction& transaction, std::string_view sql, std::vector<T>& all) {
    WEFT_ASSIGN(auto rows, transaction.prepare(sql));
    for (;;) {
        WEFT_ASSIGN(const bool more, rows.next());
        if (!more) return {};
        const Bytes bytes = fromHex(rows.text(1));
        Reader in(bytes);
        Message message;
        if (decodeNext(in, message) == Decoded::Ok && std::holds_alternative<T>(message)) {
            all.push_back(std::get<T>(std::move(message)));
        } else {
            logWarn("msg=\"stored gossip entry does not read, left out\" key={}", logValue(rows.text(0)));
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

Result<void> writeRow(Transaction& transaction, const Row& row) {
    if (row.deleted) {
        WEFT_ASSIGN(auto erase, transaction.prepare("DELETE FROM gossip_rows WHERE key = ?"));
        return erase.bind(row.key).run();
    }
    WEFT_ASSIGN(auto put, transaction.prepare("INSERT OR REPLACE INTO gossip_rows VALUES(?, ?)"));
    return put.bind(row.key).bind(toHex(encode(row))).run();
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

SchemaComponent DatabaseStorage::schema() {
    return {"gossip", kMigrations};
}

Result<Persisted> DatabaseStorage::beginEpoch(Database& database) {
    Persisted persisted;
    WEFT_TRY(database
                 .write([&](Transaction& transaction) -> Result<void> {
                     WEFT_TRY(readAll(transaction, "SELECT key, row FROM gossip_rows", persisted.rows));
                     WEFT_TRY(readAll(transaction, "SELECT id, record FROM gossip_members", persisted.members));
                     WEFT_ASSIGN(const std::string epoch, getSetting(transaction, kEpoch));
                     persisted.epoch = 1 + static_cast<uint32_t>(std::strtoul(epoch.c_str(), nullptr, 10));
                     return putSetting(transaction, kEpoch, std::to_string(persisted.epoch));
                 })
                 .within("gossip state"));
    return persisted;
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

DatabaseStorage::DatabaseStorage(Database& database, std::function<void(std::function<void()>)> deliver)
    : database_(database), deliver_(std::move(deliver)), thread_([this] { work(); }) {}

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
        if (!std::exchange(outdated_, true)) {
            logWarn("this node's identity runs elsewhere too, or its state was put back from a copy epoch={}", epoch);
        }
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

bool DatabaseStorage::epochWasOutdated() const {
    const std::lock_guard lock(mutex_);
    return outdated_;
}

void DatabaseStorage::work() {
    std::unique_lock lock(mutex_);
    for (;;) {
        more_.wait(lock, [this] { return ending_ || !rows_.empty() || epoch_ || members_; });
        if (rows_.empty() && !epoch_ && !members_) return;
        const auto rows = std::make_shared<std::deque<Write>>(std::exchange(rows_, {}));
        const auto epoch = std::exchange(epoch_, {});
        const auto members = std::exchange(members_, {});
        lock.unlock();
        auto written = database_.write([&](Transaction& transaction) -> Result<void> {
            if (epoch) WEFT_TRY(putSetting(transaction, kEpoch, std::to_string(*epoch)));
            for (const Write& write : *rows) WEFT_TRY(writeRow(transaction, write.row));
            if (members) WEFT_TRY(writeMembers(transaction, *members));
            return {};
        });
        if (!written) logError("gossip state not written: {}", written.error().message);
        if (!rows->empty()) {
            deliver_([rows, written] {
                for (const Write& write : *rows) write.done(written);
            });
        }
        lock.lock();
    }
}

}  // namespace weft::kv
