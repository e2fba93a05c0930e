// Ledger: the few things all hosts of a cluster must agree on, in one order: who may hold addresses, who was forgotten,
// which pools there are. Everything else about addresses goes without agreement (block_allocator.h).
//
// It is Paxos over the gossip table, with rows in the place of messages and the whole (short) log as the value. Each
// host writes only rows of its own, and each is durable before anybody sees it:
//     ipam/head      promised ballot, ballot and length of the log it accepted, how much is committed, ...
//     ipam/log/N     its copy of the log, in chunks
//     ipam/ask/...   what it wants the ledger to say
// A ballot names its claimant. A claim takes a strict majority of the members; then the claimant leads: it copies the
// longest log it saw into its own ballot and appends. Join and Pool are committed by half of the members, Forget by
// every member that remains. A committed entry therefore is in some log of every later claim. Members change one at a
// time, but for Forget, which all that remain have accepted.
//
// The first claim of all, with an empty log, takes everybody this host knows and every seed answered. An heir
// (kv::Origin) was there when a ledger began: it goes by one that has something committed, begins none and promises
// nobody who begins one. A first begins one alone, whoever else was heard of and is away.
//
// Numbers of others count only if they are members (of this host's log, or of one shown that contains it) and only in
// small steps; what else there is, is counted and told.
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
#include <vector>

#include "base/clock.h"
#include "ipam/ledger_facts.h"
#include "kv/node.h"

namespace weft::ipam {

struct Ballot {
    uint64_t epoch = 0;
    kv::NodeId claimant;

    auto operator<=>(const Ballot&) const = default;
};

// Numbers of others count only in steps: a little further than what is known, or into the next 2^32. One far jump thus
// leaves room above it, and is itself refused.
[[nodiscard]] bool isStep(uint64_t known, uint64_t epoch);
// The next to claim with: above `epoch`, and a step from `known` as well.
[[nodiscard]] uint64_t nextEpoch(uint64_t epoch, uint64_t known);

// Whether two hosts go by one ledger. Unknown: one of them has none yet.
enum class Kin : uint8_t { Unknown, Same, Other };
// By their visible rows. On the node's thread.
[[nodiscard]] Kin kinOf(const kv::Table& table, const kv::NodeId& one, const kv::NodeId& other);

struct LedgerEntry {
    enum class Kind : uint8_t { Join = 1, Forget = 2, Pool = 3 };
    Kind kind = Kind::Join;
    kv::NodeId node;    // who joins or is forgotten; the first owner of all blocks of a pool
    uint64_t salt = 0;  // of the first entry: tells clusters apart that began separately. Of a Forget: 1 by force
    IpPrefix pool;
    IpAddress gateway;

    bool operator==(const LedgerEntry&) const = default;
};

// The entries in order. Copies share them; going on from a log costs what is added and a copy.
class LedgerLog {
public:
    LedgerLog() = default;
    // `known`: a log that this one may go on from.
    LedgerLog(std::vector<LedgerEntry> entries, const LedgerLog& known);

    [[nodiscard]] const std::vector<LedgerEntry>& entries() const { return content_->entries; }
    [[nodiscard]] size_t size() const { return entries().size(); }
    [[nodiscard]] bool empty() const { return entries().empty(); }
    [[nodiscard]] const LedgerEntry& front() const { return entries().front(); }
    [[nodiscard]] const LedgerEntry& operator[](size_t at) const { return entries()[at]; }
    [[nodiscard]] uint64_t digest() const { return content_->digest; }
    // Whether the first `length` entries are those of `other`.
    [[nodiscard]] bool beginsLike(const LedgerLog& other, size_t length) const;
    [[nodiscard]] LedgerLog with(const LedgerEntry& entry) const;

    bool operator==(const LedgerLog& other) const { return size() == other.size() && beginsLike(other, size()); }

private:
    struct Content {
        std::vector<LedgerEntry> entries;
        std::string text;  // of all entries: what the digest is of
        uint64_t digest = 0;
    };
    static std::shared_ptr<const Content> none();

    std::shared_ptr<const Content> content_ = none();
};

struct PoolEntry {
    uint32_t number = 0;  // of its ledger entry: names the pool for ever
    IpPrefix prefix;
    IpAddress gateway;
    kv::NodeId home;  // owned all blocks in the beginning
};

// What a log says.
struct LedgerView {
    std::vector<kv::NodeId> members;  // in the order of joining
    std::set<kv::NodeId> forgotten;
    std::vector<PoolEntry> pools;  // by number
    uint32_t lastForget = 0;       // its number; entries count from 1

    void apply(const LedgerEntry& entry, uint32_t number);
    [[nodiscard]] bool isMember(const kv::NodeId& id) const { return memberSet_.contains(id); }
    [[nodiscard]] const PoolEntry* findPool(uint32_t number) const;
    [[nodiscard]] const PoolEntry* findPool(const IpPrefix& prefix) const;
    [[nodiscard]] const PoolEntry* findOverlap(const IpPrefix& prefix) const;

private:
    std::set<kv::NodeId> memberSet_;
    std::map<IpPrefix, uint32_t> byPrefix_;  // disjoint
};

struct LedgerConfig {
    // As in ClusterIpamConfig.
    std::function<std::optional<std::vector<kv::Address>>()> seeds;
    kv::Address self;
    // Without a living leader, something to do, and a majority in sight: claim after this long, one to two times.
    std::chrono::milliseconds claimDelay{1000};
    std::function<uint64_t()> random;
    bool alone = false;  // there are no other hosts
};

class Ledger {
public:
    struct Hooks {
        // No block row is on its way to the disk.
        std::function<bool()> unitsSettled;
        std::function<uint64_t(const kv::NodeId&)> unitsDigest;  // over the block rows of a host as this one sees them
        // This host leads, a Forget is committed, and what every remaining member held when it accepted it is in
        // sight: take what nobody holds. Calls back when that is durable.
        std::function<void(std::function<void()> done)> adopt;
        std::function<void()> changed;  // anything below
        std::function<bool()> fenced;   // this host does not know what it promised (recovery.h): it does nothing
        std::function<bool(const kv::NodeId&)> recovering;  // that host does not know what it promised
        // Rows of the host with a version below count no more.
        std::function<uint64_t(const kv::NodeId&)> voidBelow;
    };

    Ledger(kv::Node& node, const Clock& clock, LedgerConfig config, Hooks hooks);
    ~Ledger();

    void onRow(kv::RowEvent event, const kv::Row& row);  // of "ipam/head", "ipam/log/", "ipam/ask/"
    void process();                                      // after any event, and every 100 ms or so while busy()

    [[nodiscard]] const LedgerView& committed() const { return committed_; }
    // With what may still be replaced. Whoever is forgotten here gets nothing and is trusted with nothing.
    [[nodiscard]] const LedgerView& accepted() const { return accepted_; }
    // A Forget was accepted and its blocks are not counted yet: no block changes hands.
    [[nodiscard]] bool frozen() const { return freezing_ || accepted_.lastForget > state_.adopted; }
    [[nodiscard]] bool forgotten() const { return accepted_.forgotten.contains(node_.id()); }
    [[nodiscard]] bool isMember() const { return committed_.isMember(node_.id()); }
    [[nodiscard]] bool alive(const kv::NodeId& id) const;
    // Alive, and knows what it promised.
    [[nodiscard]] bool isReady(const kv::NodeId& id) const { return alive(id) && !hooks_.recovering(id); }
    // Hosts in sight whose ledger began apart from this one.
    [[nodiscard]] std::vector<kv::NodeId> strangers() const;
    [[nodiscard]] LedgerFacts facts() const;
    [[nodiscard]] uint64_t factsVersion() const { return factsVersion_; }  // another one: they may have changed
    // Of the ledger that the host goes by, if it has one.
    static std::optional<uint64_t> saltOf(const kv::Table& table, const kv::NodeId& id);
    [[nodiscard]] std::string describe() const;
    // Why the own rows are not what this host wrote; empty: they are.
    [[nodiscard]] const std::string& damage() const { return damage_; }
    // A host that does not know what it promised: what everybody in sight says, its own rows among them. `why`: what is
    // missing for it; and makes it this host's state. Calls back when that is durable.
    [[nodiscard]] LedgerView recovered(std::string& why) const;
    void restore(std::function<void(bool)> done);
    // Forgets rows of the host that count no more.
    void drop(const kv::NodeId& id);
    [[nodiscard]] bool writing() const { return writing_; }
    // Waits for something by the clock: call process() often.
    [[nodiscard]] bool busy() const;
    // Why nothing new can be agreed on now; empty: it can.
    [[nodiscard]] std::string obstacle() const;

    // Kept until the ledger says so, or withdrawn. Repeating: no effect.
    void askPool(const IpPrefix& prefix, const IpAddress& gateway);
    void withdrawPool(const IpPrefix& prefix);
    void askForget(const kv::NodeId& id, bool force);
    void withdrawForget(const kv::NodeId& id);

private:
    struct State {
        Ballot promised;
        Ballot ballot;  // under which the log was accepted
        uint32_t committed = 0;
        uint32_t adopted = 0;
        uint64_t unitsDigest = 0;  // when a Forget was accepted that is not adopted yet
        LedgerLog log;

        bool operator==(const State&) const = default;
    };
    struct Head {
        State state;  // but for the log
        uint32_t length = 0;
        uint64_t digest = 0;
        uint64_t salt = 0;
    };
    struct Refusal {
        Ballot ballot;
        uint64_t digest = 0;
        uint32_t committed = 0;  // here
        uint64_t times = 0;
    };
    struct Ask {
        LedgerEntry entry;
        bool force = false;
    };

    static std::string encodeHead(const State& state);
    static std::optional<Head> decodeHead(const std::string& value);
    static std::string encodeChunk(const LedgerLog& log, size_t chunk);
    [[nodiscard]] std::optional<LedgerLog> logOf(const kv::NodeId& id, const Head& head) const;
    static LedgerView view(const LedgerLog& log);

    std::string load();
    [[nodiscard]] State merged(std::string& why) const;
    bool step();  // true: something was begun
    bool promise();
    bool accept();
    bool lead();
    bool commit();
    bool append();
    bool adopt();
    bool claim();
    bool wanted() const;
    [[nodiscard]] bool leaps() const;
    [[nodiscard]] bool joinsOnly() const { return node_.origin() == kv::Origin::Heir && !config_.alone; }
    [[nodiscard]] bool beginsAlone() const { return node_.origin() == kv::Origin::First; }
    // The head is of a ledger that is being begun, in which this host has no part.
    [[nodiscard]] bool isAside(const Head& head) const {
        return state_.committed == 0 && head.state.committed == 0 && (joinsOnly() || beginsAlone());
    }
    [[nodiscard]] bool toForget(const kv::NodeId& id) const;
    [[nodiscard]] bool awaited(const kv::Member& member) const;
    [[nodiscard]] bool metEverybody() const;
    // They are all met and have it.
    [[nodiscard]] bool allHave(const std::function<bool(const kv::NodeId&)>& has) const;
    [[nodiscard]] std::optional<LedgerEntry> nextEntry() const;
    [[nodiscard]] bool leading() const {
        return state_.ballot == state_.promised && state_.ballot.claimant == node_.id();
    }
    [[nodiscard]] bool acked(const kv::NodeId& id, size_t length) const;
    [[nodiscard]] std::string nameOf(const kv::NodeId& id) const;
    [[nodiscard]] std::vector<std::string> warnings() const;
    [[nodiscard]] uint64_t majorityEpoch() const;
    [[nodiscard]] bool isStranger(const Head& head) const;
    // Whether a claim or log of that host may be followed, by who it is and how far its ballot goes.
    [[nodiscard]] bool mayFollow(const kv::NodeId& id, const Head& head, const Ballot& ballot);
    [[nodiscard]] bool strictMajority(const LedgerView& of, const std::function<bool(const kv::NodeId&)>& has) const;
    void persist(State next);
    void setState(State next);
    void put(std::string key, std::string value);

    kv::Node& node_;
    const Clock& clock_;
    LedgerConfig config_;
    Hooks hooks_;
    State state_;
    LedgerView committed_;
    LedgerView accepted_;
    std::map<kv::NodeId, Head> heads_;
    std::map<kv::NodeId, std::map<uint32_t, std::vector<LedgerEntry>>> chunks_;
    std::map<kv::NodeId, std::map<std::string, Ask>> asks_;
    std::set<kv::NodeId> given_;  // up by the operator by force: not counted in this host's claims
    std::string damage_;
    std::function<void(bool)> restored_;
    bool writing_ = false;
    bool chunksOnDisk_ = false;   // as state_ has them
    bool freezing_ = false;       // a Forget is on its way to the disk
    Clock::Monotonic retryAt_{};  // after a failed write
    bool adopting_ = false;
    bool busy_ = false;
    bool again_ = false;
    uint64_t factsVersion_ = 1;
    std::map<kv::NodeId, Refusal> refused_;  // of hosts with a head
    std::set<kv::NodeId> strangers_;         // logged
    std::optional<Clock::Monotonic> claimAt_;
    Clock::Monotonic nextOutbid_{};
    std::shared_ptr<bool> life_ = std::make_shared<bool>(true);
};

}  // namespace weft::ipam
