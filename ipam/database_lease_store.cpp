#include "ipam/database_lease_store.h"

#include <array>
#include <optional>
#include <string>

namespace weft::ipam {

namespace {

// Addresses are text: a state file is read by people when something is wrong.
constexpr std::array kMigrations = {
    Migration{1,
              "CREATE TABLE ipam_site(id INTEGER PRIMARY KEY CHECK(id = 1), prefix TEXT NOT NULL);"
              "CREATE TABLE ipam_pools(id TEXT PRIMARY KEY, address_space TEXT NOT NULL, pool TEXT NOT NULL,"
              "  sub_pool TEXT, network TEXT NOT NULL, released INTEGER NOT NULL) WITHOUT ROWID;"
              "CREATE TABLE ipam_leases(pool TEXT NOT NULL, address TEXT NOT NULL, kind INTEGER NOT NULL,"
              "  PRIMARY KEY(pool, address)) WITHOUT ROWID;"},
    Migration{2,
              "CREATE TABLE ipam_cluster_site(id INTEGER PRIMARY KEY CHECK(id = 1), prefix TEXT NOT NULL);"
              "CREATE TABLE ipam_cluster_pools(id TEXT PRIMARY KEY, address_space TEXT NOT NULL, pool TEXT NOT NULL,"
              "  sub_pool TEXT, network TEXT NOT NULL, released INTEGER NOT NULL) WITHOUT ROWID;"
              "CREATE TABLE ipam_cluster_leases(pool TEXT NOT NULL, address TEXT NOT NULL, kind INTEGER NOT NULL,"
              "  PRIMARY KEY(pool, address)) WITHOUT ROWID;"},
};

Result<PoolRecord> readPool(const Statement& row) {
    PoolRecord record;
    record.id = PoolId(row.text(0));
    record.addressSpace = row.text(1);
    WEFT_ASSIGN(record.pool, IpPrefix::parse(row.text(2)));
    if (!row.isNull(3)) {
        WEFT_ASSIGN(record.subPool, IpPrefix::parse(row.text(3)));
    }
    record.network = NetworkId(row.text(4));
    record.released = row.number(5) != 0;
    return record;
}

Result<LeaseRecord> readLease(const Statement& row) {
    LeaseRecord record;
    record.key.poolId = PoolId(row.text(0));
    WEFT_ASSIGN(record.key.address, IpAddress::parse(row.text(1)));
    const int64_t kind = row.number(2);
    if (kind < 0 || kind > static_cast<int64_t>(LeaseKind::Aux)) {
        return makeError(ErrorCode::Corrupt, "lease of an unknown kind: " + std::to_string(kind));
    }
    record.kind = static_cast<LeaseKind>(kind);
    return record;
}

Result<void> loadAll(Transaction& transaction, const std::string& tables, StoredIpam& stored) {
    WEFT_ASSIGN(auto sites, transaction.prepare("SELECT prefix FROM " + tables + "_site"));
    WEFT_ASSIGN(const bool hasSite, sites.next());
    if (hasSite) {
        WEFT_ASSIGN(stored.sitePrefix, IpPrefix::parse(sites.text(0)));
    }
    WEFT_ASSIGN(auto pools, transaction.prepare("SELECT id, address_space, pool, sub_pool, network, released FROM " +
                                                tables + "_pools"));
    while (true) {
        WEFT_ASSIGN(const bool more, pools.next());
        if (!more) break;
        WEFT_ASSIGN(auto record, readPool(pools));
        stored.pools.push_back(std::move(record));
    }
    WEFT_ASSIGN(auto leases, transaction.prepare("SELECT pool, address, kind FROM " + tables + "_leases"));
    while (true) {
        WEFT_ASSIGN(const bool more, leases.next());
        if (!more) break;
        WEFT_ASSIGN(auto record, readLease(leases));
        stored.leases.push_back(std::move(record));
    }
    return {};
}

Result<void> applyAll(Transaction& transaction, const std::string& tables, const IpamChange& change) {
    if (change.sitePrefix) {
        WEFT_ASSIGN(auto put, transaction.prepare("INSERT OR REPLACE INTO " + tables + "_site VALUES(1, ?)"));
        WEFT_TRY(put.bind(change.sitePrefix->str()).run());
    }
    for (const auto& pool : change.putPools) {
        WEFT_ASSIGN(auto put,
                    transaction.prepare("INSERT OR REPLACE INTO " + tables + "_pools VALUES(?, ?, ?, ?, ?, ?)"));
        put.bind(pool.id.str()).bind(pool.addressSpace).bind(pool.pool.str());
        pool.subPool ? put.bind(pool.subPool->str()) : put.bindNull();
        WEFT_TRY(put.bind(pool.network.str()).bind(int64_t{pool.released}).run());
    }
    for (const auto& poolId : change.erasePools) {
        WEFT_ASSIGN(auto eraseLeases, transaction.prepare("DELETE FROM " + tables + "_leases WHERE pool = ?"));
        WEFT_TRY(eraseLeases.bind(poolId.str()).run());
        WEFT_ASSIGN(auto erasePool, transaction.prepare("DELETE FROM " + tables + "_pools WHERE id = ?"));
        WEFT_TRY(erasePool.bind(poolId.str()).run());
    }
    for (const auto& lease : change.putLeases) {
        WEFT_ASSIGN(auto put, transaction.prepare("INSERT OR REPLACE INTO " + tables + "_leases VALUES(?, ?, ?)"));
        put.bind(lease.key.poolId.str()).bind(lease.key.address.str()).bind(static_cast<int64_t>(lease.kind));
        WEFT_TRY(put.run());
    }
    for (const auto& lease : change.eraseLeases) {
        WEFT_ASSIGN(auto erase,
                    transaction.prepare("DELETE FROM " + tables + "_leases WHERE pool = ? AND address = ?"));
        WEFT_TRY(erase.bind(lease.poolId.str()).bind(lease.address.str()).run());
    }
    return {};
}

}  // namespace

SchemaComponent schemaComponent() {
    return {"ipam", kMigrations};
}

Result<StoredIpam> DatabaseLeaseStore::load() {
    StoredIpam stored;
    auto read = database_.write([&](Transaction& transaction) { return loadAll(transaction, tables_, stored); });
    if (!read) return std::move(read).error().within("load leases");
    return stored;
}

Result<void> DatabaseLeaseStore::apply(const IpamChange& change) {
    return database_.write([&](Transaction& transaction) { return applyAll(transaction, tables_, change); })
        .within("store leases");
}

}  // namespace weft::ipam
