#include "drivers/record_store.h"

#include <algorithm>
#include <utility>

#include "drivers/record_codec.h"

namespace weft {

namespace {

constexpr Migration kMigrations[] = {
    {1, R"(
CREATE TABLE drivers_networks (
    id      TEXT PRIMARY KEY,
    mode    TEXT NOT NULL,
    request TEXT NOT NULL,
    link    TEXT NOT NULL,
    mtu     INTEGER NOT NULL,
    notes   TEXT NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE drivers_endpoints (
    id         TEXT PRIMARY KEY,
    network    TEXT NOT NULL,
    address    TEXT NOT NULL,
    address6   TEXT NOT NULL,
    mac        TEXT NOT NULL,
    mac_given  INTEGER NOT NULL,
    link       TEXT NOT NULL,
    phase      INTEGER NOT NULL,
    sandbox    TEXT NOT NULL,
    ports      TEXT NOT NULL,
    published  TEXT NOT NULL,
    instance   TEXT NOT NULL,
    notes      TEXT NOT NULL,
    created    INTEGER NOT NULL,
    changed    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX drivers_endpoints_network ON drivers_endpoints (network);
CREATE TABLE drivers_host_changes (
    setting TEXT PRIMARY KEY,
    before  TEXT NOT NULL
) WITHOUT ROWID;
)"},
};

int64_t toNumber(Clock::Wall time) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

Clock::Wall toTime(int64_t milliseconds) {
    return Clock::Wall(std::chrono::duration_cast<Clock::Wall::duration>(std::chrono::milliseconds(milliseconds)));
}

template <typename T>
std::string textOf(const std::optional<T>& value) {
    return value ? value->str() : std::string();
}

template <typename T>
Result<std::optional<T>> parseOptional(const std::string& text) {
    if (text.empty()) return std::optional<T>();
    WEFT_ASSIGN(T value, T::parse(text));
    return std::optional<T>(value);
}

Result<NetworkRecord> readNetwork(const Statement& row) {
    NetworkRecord record;
    const std::string id = row.text(0);
    record.mode = row.text(1);
    auto request = decodeNetwork(row.text(2));
    if (!request) return request.error().within("network " + id);
    record.request = std::move(*request);
    if (record.request.networkId.str() != id) {
        return makeError(ErrorCode::Corrupt, "network " + id + " holds another's request");
    }
    record.link = row.text(3);
    record.mtu = static_cast<uint32_t>(row.number(4));
    record.notes = row.text(5);
    record.created = toTime(row.number(6));
    return record;
}

Result<EndpointRecord> readEndpoint(const Statement& row) {
    EndpointRecord record;
    record.endpointId = EndpointId(row.text(0));
    record.networkId = NetworkId(row.text(1));
    WEFT_ASSIGN(record.address, parseOptional<IpPrefix>(row.text(2)));
    WEFT_ASSIGN(record.addressV6, parseOptional<IpPrefix>(row.text(3)));
    WEFT_ASSIGN(record.mac, parseOptional<MacAddress>(row.text(4)));
    record.macGiven = row.number(5) != 0;
    record.link = row.text(6);
    const int64_t phase = row.number(7);
    if (phase < 0 || phase > static_cast<int64_t>(EndpointPhase::Left)) {
        return makeError(ErrorCode::Corrupt, "unknown phase " + std::to_string(phase));
    }
    record.phase = static_cast<EndpointPhase>(phase);
    record.sandboxKey = row.text(8);
    WEFT_ASSIGN(record.ports, decodePorts(row.text(9)));
    WEFT_ASSIGN(record.published, decodePublished(row.text(10)));
    record.instance = row.text(11);
    record.notes = row.text(12);
    record.created = toTime(row.number(13));
    record.changed = toTime(row.number(14));
    return record;
}

}  // namespace

std::string_view toString(EndpointPhase phase) {
    switch (phase) {
        case EndpointPhase::Created:
            return "created";
        case EndpointPhase::Joined:
            return "joined";
        case EndpointPhase::Left:
            return "left";
    }
    return "unknown";
}

SchemaComponent RecordStore::schema() {
    return {"drivers", kMigrations};
}

RecordStore::RecordStore(Database& database) : database_(database), writer_([this] { writeLoop(); }) {}

RecordStore::~RecordStore() {
    {
        const std::lock_guard lock(queueMutex_);
        stopping_ = true;
    }
    queued_.notify_one();
    writer_.join();
}

Result<std::unique_ptr<RecordStore>> RecordStore::open(Database& database) {
    std::unique_ptr<RecordStore> store(new RecordStore(database));
    WEFT_TRY(store->load().within("load records"));
    return store;
}

Result<void> RecordStore::load() {
    return database_.write([this](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(Statement networks, transaction.prepare("SELECT id, mode, request, link, mtu, notes, created "
                                                            "FROM drivers_networks"));
        for (;;) {
            WEFT_ASSIGN(const bool more, networks.next());
            if (!more) break;
            WEFT_ASSIGN(NetworkRecord record, readNetwork(networks));
            const NetworkId id = record.request.networkId;
            networks_[id].record = std::make_shared<const NetworkRecord>(std::move(record));
        }
        WEFT_ASSIGN(Statement endpoints,
                    transaction.prepare("SELECT id, network, address, address6, mac, mac_given, link, phase, sandbox, "
                                        "ports, published, instance, notes, created, changed FROM drivers_endpoints"));
        for (;;) {
            WEFT_ASSIGN(const bool more, endpoints.next());
            if (!more) break;
            auto record = readEndpoint(endpoints);
            if (!record) return record.error().within("endpoint " + endpoints.text(0));
            if (!networks_.contains(record->networkId)) {
                return makeError(ErrorCode::Corrupt, "endpoint " + record->endpointId.str() + " has no network");
            }
            remember(std::make_shared<const EndpointRecord>(std::move(*record)));
        }
        return {};
    });
}

Result<NetworkLock> RecordStore::lock(const NetworkId& networkId, std::chrono::milliseconds patience) {
    std::shared_ptr<std::timed_mutex> mutex;
    {
        const std::lock_guard index(mutex_);
        if (locks_.size() > 2 * networks_.size() + 64) {
            std::erase_if(locks_, [](const auto& entry) { return entry.second.use_count() == 1; });
        }
        auto& slot = locks_[networkId];
        if (!slot) slot = std::make_shared<std::timed_mutex>();
        mutex = slot;
    }
    std::unique_lock lock(*mutex, std::defer_lock);
    if (!lock.try_lock_for(withinCall(patience))) {
        return makeError(ErrorCode::Busy, "network " + networkId.brief() + " is busy with another call");
    }
    return NetworkLock(std::move(mutex), std::move(lock));
}

NetworkPtr RecordStore::network(const NetworkId& networkId) const {
    const std::shared_lock lock(mutex_);
    const auto found = networks_.find(networkId);
    return found == networks_.end() ? nullptr : found->second.record;
}

EndpointPtr RecordStore::endpoint(const EndpointId& endpointId) const {
    const std::shared_lock lock(mutex_);
    const auto found = endpoints_.find(endpointId);
    return found == endpoints_.end() ? nullptr : found->second;
}

EndpointPtr RecordStore::endpoint(const NetworkId& networkId, const EndpointId& endpointId) const {
    EndpointPtr found = endpoint(endpointId);
    return found && found->networkId == networkId ? found : nullptr;
}

EndpointPtr RecordStore::endpointWith(const NetworkId& networkId, const IpAddress& address) const {
    const std::shared_lock lock(mutex_);
    const auto network = networks_.find(networkId);
    if (network == networks_.end()) return nullptr;
    const auto found = network->second.byAddress.find(address);
    return found == network->second.byAddress.end() ? nullptr : endpoints_.at(found->second);
}

EndpointPtr RecordStore::endpointWith(const NetworkId& networkId, const MacAddress& mac) const {
    const std::shared_lock lock(mutex_);
    const auto network = networks_.find(networkId);
    if (network == networks_.end()) return nullptr;
    const auto found = network->second.byMac.find(mac);
    return found == network->second.byMac.end() ? nullptr : endpoints_.at(found->second);
}

std::vector<NetworkPtr> RecordStore::networks(std::string_view mode) const {
    const std::shared_lock lock(mutex_);
    std::vector<NetworkPtr> all;
    for (const auto& [id, entry] : networks_) {
        if (mode.empty() || entry.record->mode == mode) all.push_back(entry.record);
    }
    return all;
}

std::vector<EndpointPtr> RecordStore::endpoints(const NetworkId& networkId) const {
    const std::shared_lock lock(mutex_);
    std::vector<EndpointPtr> all;
    if (const auto found = networks_.find(networkId); found != networks_.end()) {
        all.reserve(found->second.endpoints.size());
        for (const auto& [id, record] : found->second.endpoints) all.push_back(record);
    }
    return all;
}

size_t RecordStore::endpointCount(const NetworkId& networkId) const {
    const std::shared_lock lock(mutex_);
    const auto found = networks_.find(networkId);
    return found == networks_.end() ? 0 : found->second.endpoints.size();
}

void RecordStore::unindex(NetworkEntry& entry, const EndpointRecord& record) {
    const auto drop = [&](auto& index, const auto& key) {
        const auto found = index.find(key);
        if (found != index.end() && found->second == record.endpointId) index.erase(found);
    };
    if (record.address) drop(entry.byAddress, record.address->address());
    if (record.addressV6) drop(entry.byAddress, record.addressV6->address());
    if (record.mac) drop(entry.byMac, *record.mac);
}

void RecordStore::remember(const EndpointPtr& record) {
    NetworkEntry& entry = networks_.at(record->networkId);
    EndpointPtr& slot = entry.endpoints[record->endpointId];
    if (slot) unindex(entry, *slot);
    slot = record;
    endpoints_[record->endpointId] = record;
    if (record->address) entry.byAddress[record->address->address()] = record->endpointId;
    if (record->addressV6) entry.byAddress[record->addressV6->address()] = record->endpointId;
    if (record->mac) entry.byMac[*record->mac] = record->endpointId;
}

PendingWrite RecordStore::put(NetworkRecord record) {
    auto shared = std::make_shared<const NetworkRecord>(std::move(record));
    {
        const std::lock_guard lock(mutex_);
        networks_[shared->request.networkId].record = shared;
    }
    return queue(
        [shared](Transaction& transaction) -> Result<void> {
            WEFT_ASSIGN(Statement insert, transaction.prepare("INSERT OR REPLACE INTO drivers_networks "
                                                              "VALUES (?, ?, ?, ?, ?, ?, ?)"));
            insert.bind(shared->request.networkId.str()).bind(shared->mode).bind(encodeNetwork(shared->request));
            insert.bind(shared->link).bind(int64_t{shared->mtu}).bind(shared->notes).bind(toNumber(shared->created));
            return insert.run();
        },
        shared->request.networkId.str());
}

PendingWrite RecordStore::put(EndpointRecord record, Urgency urgency) {
    auto shared = std::make_shared<const EndpointRecord>(std::move(record));
    {
        const std::lock_guard lock(mutex_);
        remember(shared);
    }
    return queue(
        [shared](Transaction& transaction) -> Result<void> {
            WEFT_ASSIGN(Statement insert, transaction.prepare("INSERT OR REPLACE INTO drivers_endpoints VALUES "
                                                              "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
            insert.bind(shared->endpointId.str()).bind(shared->networkId.str());
            insert.bind(textOf(shared->address)).bind(textOf(shared->addressV6)).bind(textOf(shared->mac));
            insert.bind(int64_t{shared->macGiven}).bind(shared->link).bind(static_cast<int64_t>(shared->phase));
            insert.bind(shared->sandboxKey).bind(encodePorts(shared->ports)).bind(encodePublished(shared->published));
            insert.bind(shared->instance).bind(shared->notes);
            insert.bind(toNumber(shared->created)).bind(toNumber(shared->changed));
            return insert.run();
        },
        shared->endpointId.str(), urgency);
}

PendingWrite RecordStore::erase(const NetworkId& networkId) {
    {
        const std::lock_guard lock(mutex_);
        if (const auto found = networks_.find(networkId); found != networks_.end()) {
            for (const auto& [id, record] : found->second.endpoints) endpoints_.erase(id);
            networks_.erase(found);
        }
    }
    return queue(
        [networkId](Transaction& transaction) -> Result<void> {
            WEFT_ASSIGN(Statement endpoints, transaction.prepare("DELETE FROM drivers_endpoints WHERE network = ?"));
            endpoints.bind(networkId.str());
            WEFT_TRY(endpoints.run());
            WEFT_ASSIGN(Statement network, transaction.prepare("DELETE FROM drivers_networks WHERE id = ?"));
            network.bind(networkId.str());
            return network.run();
        },
        networkId.str(), Urgency::Now, true);
}

PendingWrite RecordStore::erase(const NetworkId& networkId, const EndpointId& endpointId) {
    {
        const std::lock_guard lock(mutex_);
        const auto network = networks_.find(networkId);
        if (network != networks_.end()) {
            if (const auto found = network->second.endpoints.find(endpointId);
                found != network->second.endpoints.end()) {
                unindex(network->second, *found->second);
                network->second.endpoints.erase(found);
                endpoints_.erase(endpointId);
            }
        }
    }
    return queue(
        [endpointId](Transaction& transaction) -> Result<void> {
            WEFT_ASSIGN(Statement statement, transaction.prepare("DELETE FROM drivers_endpoints WHERE id = ?"));
            statement.bind(endpointId.str());
            return statement.run();
        },
        endpointId.str(), Urgency::Now, true);
}

Result<void> RecordStore::noteHostChange(const std::string& setting, const std::string& before) {
    return queue(
               [setting, before](Transaction& transaction) -> Result<void> {
                   WEFT_ASSIGN(Statement insert,
                               transaction.prepare("INSERT OR IGNORE INTO drivers_host_changes VALUES (?, ?)"));
                   insert.bind(setting).bind(before);
                   return insert.run();
               },
               setting)
        .wait();
}

PendingWrite RecordStore::queue(Job job, std::string subject, Urgency urgency, bool repeated) {
    std::promise<Result<void>> promise;
    PendingWrite pending(promise.get_future());
    {
        const std::lock_guard lock(queueMutex_);
        queue_.push_back({std::move(job), std::move(subject), std::move(promise), repeated});
        urgent_ |= urgency == Urgency::Now;
    }
    queued_.notify_one();
    return pending;
}

// One that the database refuses fails alone.
void RecordStore::writeEach(std::vector<Owed>& owed, std::deque<Queued>& batch) {
    std::erase_if(owed, [this](const Owed& erase) { return database_.write(erase.job).has_value(); });
    for (Queued& queued : batch) {
        const Result<void> written = database_.write(queued.job);
        if (!written && queued.repeated) {
            owed.push_back({std::move(queued.job), std::move(queued.subject)});
        } else if (written) {
            // It is there again: an older erase must not take it away later.
            std::erase_if(owed, [&queued](const Owed& erase) { return erase.subject == queued.subject; });
        }
        queued.done.set_value(written);
    }
}

void RecordStore::writeLoop() {
    std::vector<Owed> owed;  // failed, and to be done before what comes next
    std::unique_lock lock(queueMutex_);
    for (;;) {
        const auto due = [this] { return stopping_ || !queue_.empty(); };
        owed.empty() ? queued_.wait(lock, due) : static_cast<void>(queued_.wait_for(lock, kRepeatAfter, due));
        if (!urgent_ && !stopping_ && !queue_.empty()) {
            queued_.wait_for(lock, kSoon, [this] { return stopping_ || urgent_; });
        }
        const bool last = stopping_ && queue_.empty();
        if (last && owed.empty()) return;
        std::deque<Queued> batch = std::exchange(queue_, {});
        urgent_ = false;
        lock.unlock();
        const Result<void> written = database_.write([&](Transaction& transaction) -> Result<void> {
            for (const Owed& erase : owed) WEFT_TRY(erase.job(transaction));
            for (const Queued& queued : batch) WEFT_TRY(queued.job(transaction));
            return {};
        });
        if (written) {
            owed.clear();
            for (Queued& queued : batch) queued.done.set_value(written);
        } else {
            writeEach(owed, batch);
        }
        if (last) return;
        lock.lock();
    }
}

}  // namespace weft
