// Recovery: how a host whose memory is in doubt (kv::Node::inDoubt) comes to know again what it promised.
//
// Its database was lost or put back, so it may have given blocks away, accepted entries of the ledger and promised
// ballots of which it knows nothing. Until it does it is fenced: it gives out no address, gives no block away, promises
// and accepts nothing. With rows, each durable before it is seen:
//     ipam/recover      by that host: its epoch. Whatever it said in an earlier one and does not say again is void
//     ipam/heard/ID     by every other: it takes nothing any more that ID said before this epoch; and two digests, of
//                       its own rows and of its copy of ID's
// When all others have answered, and ID sees what these digests are of, then nobody holds anything from it, and nobody
// will, that it does not know: by the others' rows or by their copies of its own. It makes its own rows the highest
// of all, says them again in this epoch, and the fence falls. One that is away may be the only one that saw the last
// promise, so it waits for all of them.
//
// On the node's thread.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "kv/node.h"

namespace weft::ipam {

class Recovery {
public:
    struct Hooks {
        // No row of ours is on its way to the disk.
        std::function<bool()> settled;
        // Who has to answer, by everything heard so far; empty: not known. `why` says what is missing then.
        std::function<std::set<kv::NodeId>(std::string& why)> others;
        // What rows of the host said counts no more: forget it.
        std::function<void(const kv::NodeId& id)> voided;
        // All others have answered: makes this host's rows the highest of all. Calls back when they are durable.
        std::function<void(std::function<void(bool)> done)> restore;
    };

    // `quiet`: a twin that runs now would have been heard within that time.
    Recovery(kv::Node& node, bool alone, std::chrono::milliseconds quiet, Hooks hooks);

    [[nodiscard]] bool fenced() const { return !alone_ && node_.inDoubt(); }
    // Rows of it with a version below count no more.
    [[nodiscard]] uint64_t voidBelow(const kv::NodeId& id) const;
    [[nodiscard]] bool recovering(const kv::NodeId& id) const { return asking_.contains(id); }

    void onRow(kv::RowEvent event, const kv::Row& row);  // of any ipam/ row
    void process();
    [[nodiscard]] bool busy() const;  // waits for something by the clock
    // Why this host is fenced; empty: it is not.
    [[nodiscard]] std::string obstacle() const;
    [[nodiscard]] std::set<kv::NodeId> askers() const;

private:
    struct Heard {
        uint32_t epoch = 0;
        uint64_t own = 0;   // digest of the writer's rows
        uint64_t copy = 0;  // of its copy of the asker's

        bool operator==(const Heard&) const = default;
    };

    static std::string encode(const Heard& heard);
    static std::optional<Heard> decode(const std::string& value);
    [[nodiscard]] std::map<kv::NodeId, uint64_t> digests() const;
    void ask();
    void answer();
    void restore();
    // Empty: every other host has answered, and this one sees what they spoke of.
    [[nodiscard]] std::string missing() const;
    void reissue(std::function<void(bool)> done);
    [[nodiscard]] std::string nameOf(const kv::NodeId& id) const;

    kv::Node& node_;
    const bool alone_;
    const std::chrono::milliseconds quiet_;
    Hooks hooks_;
    std::map<kv::NodeId, uint32_t> asking_;  // others in recovery: their epoch
    std::map<kv::NodeId, uint32_t> void_;    // this host has promised: what was said before that epoch
    std::map<kv::NodeId, Heard> answers_;    // this host's, on their way or on the disk
    std::map<kv::NodeId, Heard> heard_;      // the others' answers to this host
    uint32_t asked_ = 0;                     // the epoch of this host's ipam/recover, durable or not
    bool dirty_ = true;
    bool restoring_ = false;
    std::shared_ptr<bool> life_ = std::make_shared<bool>(true);
};

}  // namespace weft::ipam
