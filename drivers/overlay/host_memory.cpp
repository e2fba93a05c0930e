#include "drivers/overlay/host_memory.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/log.h"

namespace weft {

namespace {

constexpr size_t kBatch = 1000;        // rows a transaction
constexpr size_t kHurry = 4 * kBatch;  // unwritten rows

constexpr std::array kMigrations = {
    Migration{1,
              "CREATE TABLE overlay_hosts(id TEXT PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL) WITHOUT "
              "ROWID;"
              "CREATE TABLE overlay_rows(owner TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY(owner, key)) WITHOUT "
              "ROWID;"},
};

std::string toHex(std::string_view bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    text.reserve(2 * bytes.size());
    for (const char byte : bytes) {
        text += kDigits[static_cast<uint8_t>(byte) >> 4];
        text += kDigits[static_cast<uint8_t>(byte) & 15];
    }
    return text;
}

std::string fromHex(std::string_view text) {
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    std::string bytes;
    for (size_t i = 0; i + 1 < text.size(); i += 2) {
        bytes += static_cast<char>(digit(text[i]) << 4 | digit(text[i + 1]));
    }
    return bytes;
}

std::optional<kv::NodeId> parseId(const std::string& hex) {
    const std::string bytes = fromHex(hex);
    kv::NodeId id;
    if (bytes.size() != id.bytes.size()) return std::nullopt;
    std::copy(bytes.begin(), bytes.end(), id.bytes.begin());
    return id;
}

}  // namespace

SchemaComponent HostMemory::schema() {
    return {"overlay", kMigrations};
}

Result<std::shared_ptr<HostMemory>> HostMemory::open(Database& database, const Clock& clock) {
    std::shared_ptr<HostMemory> memory(new HostMemory(database, clock));
    WEFT_TRY(memory->load());
    return memory;
}

void HostMemory::start() {
    thread_ = std::thread([this] { work(); });
}

HostMemory::~HostMemory() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

Result<void> HostMemory::load() {
    return database_.write([this](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(auto hosts, transaction.prepare("SELECT id, name, address FROM overlay_hosts"));
        for (;;) {
            WEFT_ASSIGN(const bool more, hosts.next());
            if (!more) break;
            const auto id = parseId(hosts.text(0));
            const auto address = IpAddress::parse(hosts.text(2));
            if (!id || !address) continue;
            hosts_.emplace(*id, RememberedHost{hosts.text(1), *address});
            away_.emplace(*id, clock_.now());
        }
        WEFT_ASSIGN(auto rows, transaction.prepare("SELECT owner, key, value FROM overlay_rows"));
        for (;;) {
            WEFT_ASSIGN(const bool more, rows.next());
            if (!more) return {};
            const auto owner = parseId(rows.text(0));
            if (owner && hosts_.contains(*owner)) unconfirmed_[*owner].emplace(rows.text(1), fromHex(rows.text(2)));
        }
    });
}

void HostMemory::attach(Listener given) {
    const auto listener = std::make_shared<const Listener>(std::move(given));
    std::map<kv::NodeId, RememberedHost> hosts;
    std::map<kv::NodeId, std::map<std::string, std::string>> rows;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [id, since] : away_) {
            if (const auto host = hosts_.find(id); host != hosts_.end()) hosts.insert(*host);
        }
        rows = unconfirmed_;
        listeners_.push_back(listener);
    }
    for (const auto& [id, host] : hosts) listener->host(id, host);
    for (const auto& [owner, keys] : rows) {
        for (const auto& [key, value] : keys) {
            if (!value.empty()) listener->row(kv::RowEvent::Suspended, {.owner = owner, .key = key, .value = value});
        }
    }
}

void HostMemory::tell(const std::function<void(const Listener&)>& what) {
    std::vector<std::shared_ptr<const Listener>> listeners;
    {
        const std::lock_guard lock(mutex_);
        listeners = listeners_;
    }
    for (const auto& listener : listeners) what(*listener);
}

void HostMemory::apply(kv::RowEvent event, const kv::Row& row) {
    if (event == kv::RowEvent::Forgotten) return;
    const std::lock_guard lock(mutex_);
    if (event == kv::RowEvent::Suspended) {
        unconfirmed_[row.owner][row.key].clear();
    } else if (const auto rows = unconfirmed_.find(row.owner); rows != unconfirmed_.end()) {
        rows->second.erase(row.key);
        if (rows->second.empty()) unconfirmed_.erase(rows);
    }
    const bool there = event != kv::RowEvent::Deleted;
    unwrittenRows_[{row.owner, row.key}] = there ? std::optional(row.value) : std::nullopt;
    if (unwrittenRows_.size() == kHurry) changed_.notify_all();
}

void HostMemory::onMember(const kv::Member& member) {
    std::optional<kv::NodeId> tooMany;
    {
        const std::lock_guard lock(mutex_);
        RememberedHost host{member.record.name, member.record.address.ip};
        const auto [known, isNew] = hosts_.try_emplace(member.id, host);
        if (isNew || known->second != host) {
            known->second = std::move(host);
            unwrittenHosts_.insert(member.id);
        }
        if (member.gone()) {
            there_.erase(member.id);
            away_.try_emplace(member.id, clock_.now());
            if (away_.size() > kMostAway) {
                tooMany = std::min_element(away_.begin(), away_.end(), [](const auto& a, const auto& b) {
                              return a.second < b.second;
                          })->first;
            }
        } else {
            away_.erase(member.id);
            there_.try_emplace(member.id, clock_.now());
        }
    }
    if (tooMany) forget(*tooMany);
}

void HostMemory::drop(const kv::NodeId& host) {
    hosts_.erase(host);
    away_.erase(host);
    there_.erase(host);
    unconfirmed_.erase(host);
    std::erase_if(unwrittenRows_, [&](const auto& row) { return row.first.first == host; });
    unwrittenHosts_.insert(host);
}

void HostMemory::forget(const kv::NodeId& host) {
    {
        const std::lock_guard lock(mutex_);
        drop(host);
    }
    tell([&](const Listener& listener) { listener.forget(host); });
}

void HostMemory::settle() {
    std::vector<kv::Row> stale;
    {
        const std::lock_guard lock(mutex_);
        for (auto host = there_.begin(); host != there_.end();) {
            if (clock_.now() - host->second < kSettle) {
                ++host;
                continue;
            }
            if (auto rows = unconfirmed_.extract(host->first)) {
                for (const auto& [key, value] : rows.mapped()) {
                    stale.push_back({.owner = host->first, .key = key});
                    unwrittenRows_[{host->first, key}] = std::nullopt;
                }
            }
            host = there_.erase(host);
        }
    }
    for (const kv::Row& row : stale) {
        tell([&](const Listener& listener) { listener.row(kv::RowEvent::Deleted, row); });
    }
}

Result<void> HostMemory::write() {
    for (;;) {
        std::vector<std::pair<kv::NodeId, std::optional<RememberedHost>>> hosts;
        std::vector<std::pair<Owned, std::optional<std::string>>> rows;
        {
            const std::lock_guard lock(mutex_);
            for (const kv::NodeId& id : std::exchange(unwrittenHosts_, {})) {
                const auto host = hosts_.find(id);
                hosts.emplace_back(id, host == hosts_.end() ? std::nullopt : std::optional(host->second));
            }
            while (!unwrittenRows_.empty() && rows.size() < kBatch) {
                auto row = unwrittenRows_.extract(unwrittenRows_.begin());
                rows.emplace_back(std::move(row.key()), std::move(row.mapped()));
            }
        }
        if (hosts.empty() && rows.empty()) return {};
        auto written = database_.write([&](Transaction& transaction) -> Result<void> {
            for (const auto& [id, host] : hosts) {
                if (host) {
                    WEFT_ASSIGN(auto put, transaction.prepare("INSERT OR REPLACE INTO overlay_hosts VALUES(?, ?, ?)"));
                    WEFT_TRY(put.bind(id.str()).bind(host->name).bind(host->address.str()).run());
                    continue;
                }
                for (const char* from :
                     {"DELETE FROM overlay_hosts WHERE id = ?", "DELETE FROM overlay_rows WHERE owner = ?"}) {
                    WEFT_ASSIGN(auto erase, transaction.prepare(from));
                    WEFT_TRY(erase.bind(id.str()).run());
                }
            }
            for (const auto& [owned, value] : rows) {
                if (value) {
                    WEFT_ASSIGN(auto put, transaction.prepare("INSERT OR REPLACE INTO overlay_rows VALUES(?, ?, ?)"));
                    WEFT_TRY(put.bind(owned.first.str()).bind(owned.second).bind(toHex(*value)).run());
                } else {
                    WEFT_ASSIGN(auto erase,
                                transaction.prepare("DELETE FROM overlay_rows WHERE owner = ? AND key = ?"));
                    WEFT_TRY(erase.bind(owned.first.str()).bind(owned.second).run());
                }
            }
            return {};
        });
        if (written) continue;
        // Once more the next time, unless there is newer.
        const std::lock_guard lock(mutex_);
        for (auto& [id, host] : hosts) unwrittenHosts_.insert(id);
        for (auto& [owned, value] : rows) unwrittenRows_.try_emplace(owned, std::move(value));
        return written;
    }
}

void HostMemory::work() {
    bool failing = false;
    for (bool last = false; !last;) {
        {
            std::unique_lock lock(mutex_);
            changed_.wait_for(lock, kWriteEvery, [this] { return stopping_ || unwrittenRows_.size() >= kHurry; });
            last = stopping_;
        }
        settle();
        const auto written = write();
        if (!written && !failing) {
            logWarn("msg=\"what other hosts said is not on disk, trying on\" error={}",
                    logValue(written.error().message));
        }
        failing = !written;
        if (failing && !last) {
            std::unique_lock lock(mutex_);
            changed_.wait_for(lock, kWriteEvery, [this] { return stopping_; });
        }
    }
}

}  // namespace weft
