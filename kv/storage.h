// What a node must remember over a restart, behind an interface: SQLite in the daemon, memory in tests.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/result.h"
#include "kv/member.h"
#include "kv/row.h"

namespace weft::kv {

// Of an identity. An heir took the place of an earlier one of its host, whose promises are lost; so did a first, but by
// the operator's word no other host is left that knew that one.
enum class Origin : uint8_t { New, Heir, First };

// Handed to the Node when it starts. `epoch` must be greater than at every earlier start of this identity and durable
// before the Node is made: versions, incarnations and packet numbers all build on it.
struct Persisted {
    uint32_t epoch = 1;
    std::vector<Row> rows;  // the node's own rows; tombstones of Config::keptPrefixes among them
    bool doubt = false;     // as of saveDoubt()
    Origin origin = Origin::New;
    std::vector<MemberRecord> members;  // last known; believed until probes fail. May be stale or empty
};

class Storage {
public:
    using Done = std::function<void(Result<void>)>;
    virtual ~Storage() = default;

    // Stores an own row, or removes it when it is a tombstone; calls done on the node's thread once that is durable
    // (from within save() or later). Rows of one key must become durable in call order. Nothing leaves the node before
    // done(success): a crash forgets only what nobody was told.
    virtual void save(const Row& row, Done done) = 0;
    // Durable as soon as can be: only after a disk was rolled back does the epoch jump while running.
    virtual void saveEpoch(uint32_t epoch) = 0;
    // Whether this node's memory is in doubt (node.h). Durable no later than what is saved after it.
    virtual void saveDoubt(bool doubt, Done done) = 0;
    // Best effort, now and then.
    virtual void saveMembers(std::vector<MemberRecord> members) = 0;
};

}  // namespace weft::kv
