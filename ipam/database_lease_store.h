// The LeaseStores of the daemon: tables ipam_... (LocalIpam) and ipam_cluster_... (ClusterIpam) of its Database.
#pragma once

#include <span>
#include <string>
#include <utility>

#include "base/database.h"
#include "ipam/lease_store.h"

namespace weft::ipam {

// Give it to Database::open.
SchemaComponent schemaComponent();

class DatabaseLeaseStore final : public LeaseStore {
public:
    explicit DatabaseLeaseStore(Database& database, std::string tables = "ipam")
        : database_(database), tables_(std::move(tables)) {}

    Result<StoredIpam> load() override;
    Result<void> apply(const IpamChange& change) override;

private:
    Database& database_;
    std::string tables_;
};

}  // namespace weft::ipam
