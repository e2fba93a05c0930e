// BlockAllocator: which host may give out which part of a shared pool.
//
// A pool is cut into blocks. Each has one owner at a time, and only the owner says who is next: the row
//     ipam/unit/POOL/BLOCK  ->  generation, holder
// of the present owner, who writes generation + 1 and another holder when the block goes away. The receiver answers
// with a row of its own of that generation, and from then on only it may write a higher one: a token, no agreement
// needed. Rows are durable before they are visible, and stay, so that an old one seen late has too low a generation to
// count. A pool's home (ledger.h) owns what no row speaks of. A single address can be carved out of a block and goes
// the same way; its generation is the block's << 24 and up.
//
// Hosts ask with rows, too: ipam/want/... names whom it asks; ipam/no/... is the refusal.
//
// On the node's thread. LocalIpam keeps the leases within what this host holds, and its mutex decides between a lease
// and a donation.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ipam/evidence.h"
#include "ipam/ledger.h"
#include "ipam/local_ipam.h"
#include "ipam/recovery.h"
#include "ipam/shared_pool.h"

namespace weft::ipam {

struct BlockConfig {
    LedgerConfig ledger;
    std::chrono::milliseconds patience{4500};    // of one need
    std::chrono::milliseconds answerTime{700};   // of one host that was asked
    std::chrono::milliseconds aheadPause{5000};  // between tries to have a spare block
    std::chrono::milliseconds handBackAfter{60'000};
    std::function<void()> onBusy;  // busy() became true
    std::function<void(std::shared_ptr<const LedgerFacts>)> onFacts;
    Evidence evidence;
    // A host that starts says and gives nothing before it has talked to another one, at most this long: that one may
    // know that this host's memory is not what it was.
    std::chrono::milliseconds firstContact{2000};
    std::chrono::milliseconds recoverQuiet{5000};  // as in Recovery
};

// How a pool is cut: 2^bits addresses a block.
struct BlockPlan {
    explicit BlockPlan(const IpPrefix& pool);

    [[nodiscard]] uint32_t blockOf(const IpAddress& address) const;
    [[nodiscard]] AddressRange range(uint32_t block) const;  // clipped to what may be given out

    IpPrefix prefix;
    unsigned bits = 0;
    uint32_t count = 0;  // at most 256
    AddressRange usable;
};

class BlockAllocator {
public:
    using Done = std::function<void(Result<void>)>;

    // All must outlive it. Holds this host's blocks in `book` when it returns.
    BlockAllocator(kv::Node& node, LocalIpam& book, const Clock& clock, BlockConfig config);
    ~BlockAllocator();
    BlockAllocator(const BlockAllocator&) = delete;
    BlockAllocator& operator=(const BlockAllocator&) = delete;

    // Call every 100 ms or so while busy(), else every few seconds. Looks at a bounded number of pools each time.
    void tick();
    // An address of the pool was given out here: it may be time to ask ahead.
    void touch(const IpPrefix& prefix);
    [[nodiscard]] bool busy() const;

    // Calls back once the cluster knows the pool. Busy: another gateway, or a pool that overlaps; Unavailable: with
    // why. Without gateway: the pool's, or of a new one the first address.
    void needPool(const IpPrefix& prefix, std::optional<IpAddress> given, Done done);
    // Calls back when trying LocalIpam again may help. `exact`: that address; else any of `within`. Exhausted and Busy
    // say who holds what, Unavailable who is away.
    void needAddress(const IpPrefix& prefix, std::optional<IpAddress> exact, std::optional<IpPrefix> within, Done done);
    // Progress is looked at with forgetting().
    Result<void> forget(const std::string& host, bool force);
    // Empty: done. Else what it waits for.
    [[nodiscard]] std::string forgetting(const kv::NodeId& id) const;
    void withdrawForget(const kv::NodeId& id) { ledger_.withdrawForget(id); }
    [[nodiscard]] std::optional<kv::NodeId> findHost(const std::string& nameOrId) const;

    // Once the cluster knows the pool.
    [[nodiscard]] std::optional<IpAddress> gateway(const IpPrefix& prefix) const {
        const PoolEntry* known = poolOf(prefix);
        return known == nullptr ? std::nullopt : std::optional(known->gateway);
    }

    [[nodiscard]] const Ledger& ledger() const { return ledger_; }
    // Those after pool number `after`, as many as fit into one turn; `after` becomes the last one's. Empty: the end.
    [[nodiscard]] std::vector<SharedPool> pools(uint32_t& after) const;
    [[nodiscard]] std::string describe() const;  // all of it: for a few pools
    // Rows, blocks and pools looked at since the start: what it costs, without a clock.
    [[nodiscard]] uint64_t work() const { return work_; }
    [[nodiscard]] size_t answered() const { return answered_.size(); }  // wants of others that are remembered
    // Own rows that are not what this host wrote: it must not go on. Empty: all are.
    [[nodiscard]] std::string damage() const;
    [[nodiscard]] bool fenced() const { return recovery_.fenced(); }
    // What a person should know, in lines.
    [[nodiscard]] std::vector<std::string> warnings() const;

private:
    struct UnitKey {
        uint32_t pool = 0;
        bool single = false;
        Uint128 number = 0;  // of the block, or the address

        auto operator<=>(const UnitKey&) const = default;
    };
    struct Unit {
        uint64_t generation = 0;
        kv::NodeId holder;

        bool operator==(const Unit&) const = default;
    };
    enum class WantKind : uint8_t { Any = 1, Ahead = 2, Exact = 3 };
    struct Want {
        uint32_t pool = 0;
        WantKind kind = WantKind::Any;
        uint64_t serial = 0;
        kv::NodeId target;
        IpAddress address;
        IpPrefix within;
    };
    // What this host needs and whom it asked.
    struct Demand {
        Want want;
        std::set<kv::NodeId> asked;
        std::set<kv::NodeId> silent;  // of them
        Clock::Monotonic askedAt;
        Clock::Monotonic deadline;
        std::vector<Done> waiting;
    };
    struct PoolDemand {
        IpAddress gateway;
        Clock::Monotonic deadline;
        std::vector<Done> waiting;
        bool asked = false;
    };

    static std::string encode(const Unit& unit);
    static std::string encode(const Want& want);
    static std::string keyOf(const UnitKey& key);
    static std::optional<UnitKey> parseKey(const std::string& key);

    // True: there may be something to do now.
    bool onRow(kv::RowEvent event, const kv::Row& row);
    void process();
    void run();
    void sync();
    // What is to be put into the book.
    struct Fresh {
        const PoolEntry* pool;
        AddressRange range;
        std::vector<Uint128> holes;
    };
    void syncPool(const PoolEntry& pool, std::vector<Fresh>& fresh);
    void acceptUnits();
    void putRow(const kv::NodeId& owner, const UnitKey& key, const Unit& unit);
    void eraseRow(const kv::NodeId& owner, const UnitKey& key);
    void tellFacts();
    void answer();
    [[nodiscard]] bool onTheWay(uint32_t pool, const kv::NodeId& to) const;
    bool give(const PoolEntry& pool, const BlockPlan& plan, const kv::NodeId& asker, const Want& want);
    bool giveBlock(const PoolEntry& pool, const BlockPlan& plan, uint32_t block, const kv::NodeId& to);
    bool giveSingle(const PoolEntry& pool, const BlockPlan& plan, const IpAddress& address, const kv::NodeId& to,
                    bool vacated);
    void pursue();
    void pursuePools();
    void ask(const std::string& key, Demand& demand);
    void finish(const std::string& key, const Result<void>& result);
    void askAhead(const PoolEntry& pool);
    void handBack(const PoolEntry& pool);
    void adopt(std::function<void()> done);
    void fence();
    // Nothing is given, taken or promised.
    [[nodiscard]] bool silent() const { return hesitating_ || recovery_.fenced(); }
    void hesitate();
    void reclaim();
    void onEvidence(kv::RowEvent event, const kv::Row& row);
    std::vector<UnitKey> claim(const kv::Row& row);
    void findClaims();
    [[nodiscard]] const PoolEntry* poolAt(const IpAddress& address);
    void unclaim(const std::pair<kv::NodeId, std::string>& at);
    void restore(std::function<void(bool)> done);
    void drop(const kv::NodeId& id);
    [[nodiscard]] std::set<kv::NodeId> witnesses(std::string& why) const;
    // Why nothing new can be had now; empty: it can.
    [[nodiscard]] std::string obstacle() const;
    void putUnit(const UnitKey& key, Unit unit, std::function<void()> then = {});
    void retryUnits();
    [[nodiscard]] uint64_t digest(const kv::NodeId& id) const;

    [[nodiscard]] const PoolEntry* pool(uint32_t number) const { return ledger_.committed().findPool(number); }
    [[nodiscard]] const PoolEntry* poolOf(const IpPrefix& prefix) const { return ledger_.committed().findPool(prefix); }
    [[nodiscard]] const Unit* find(const kv::NodeId& owner, const UnitKey& key) const;
    // This host's own say, without what is on its way to the disk.
    [[nodiscard]] std::optional<uint64_t> ownBlock(const PoolEntry& pool, uint32_t block) const;
    [[nodiscard]] bool ownSingle(const PoolEntry& pool, const BlockPlan& plan, const UnitKey& key) const;
    [[nodiscard]] bool carved(const PoolEntry& pool, const BlockPlan& plan, uint32_t block) const;
    // By the rows of all members in sight.
    [[nodiscard]] kv::NodeId holder(const PoolEntry& pool, uint32_t block) const;
    [[nodiscard]] kv::NodeId holderOf(const PoolEntry& pool, const BlockPlan& plan, const IpAddress& address) const;
    [[nodiscard]] kv::NodeId home(const PoolEntry& pool) const;  // where spare blocks go
    [[nodiscard]] std::map<kv::NodeId, size_t> holders(const PoolEntry& pool) const;
    [[nodiscard]] bool mayGive(const kv::NodeId& to) const;
    [[nodiscard]] std::string nameOf(const kv::NodeId& id) const;
    [[nodiscard]] SharedPool sharedPool(const PoolEntry& pool) const;
    [[nodiscard]] std::string describeHolders(const PoolEntry& pool) const;
    [[nodiscard]] bool held(const UnitKey& key) const { return held_.contains(key); }

    kv::Node& node_;
    LocalIpam& book_;
    const Clock& clock_;
    BlockConfig config_;
    std::map<kv::NodeId, std::map<UnitKey, Unit>> units_;
    std::map<UnitKey, std::map<kv::NodeId, Unit>> owners_;  // the same, by unit
    std::set<std::pair<UnitKey, kv::NodeId>> gifts_;        // rows of others that name this host, until taken
    std::set<uint32_t> changed_;                            // pools that sync() has to look at
    uint32_t known_ = 0;                                    // pools up to this number have been looked at once
    uint32_t looked_ = 0;                                   // tick() goes on behind this pool
    std::set<uint32_t> touched_;
    mutable uint64_t work_ = 0;
    uint64_t factsVersion_ = 0;
    std::map<std::pair<kv::NodeId, std::string>, Want> wants_;         // of others, asking this host
    std::map<std::pair<kv::NodeId, std::string>, uint64_t> answered_;  // serial
    std::map<std::string, uint64_t> refusals_;                         // to this host: key and refuser -> serial
    std::map<UnitKey, Unit> saving_;                                   // on their way to the disk
    std::map<UnitKey, std::function<void()>> failed_;
    std::set<UnitKey> held_;    // in the book
    std::set<UnitKey> carved_;  // not in the book though their block is
    std::map<std::string, Demand> demands_;
    std::map<IpPrefix, PoolDemand> poolDemands_;
    std::map<uint32_t, Clock::Monotonic> nextAhead_;
    std::map<UnitKey, Clock::Monotonic> idleSince_;
    uint64_t serial_;
    bool busy_ = false;
    bool again_ = false;
    bool wasBusy_ = false;
    bool wasFenced_ = false;
    bool hesitating_ = false;
    Clock::Monotonic hesitatesUntil_{};
    Clock::Monotonic nextReclaim_{};
    // Rows of others with addresses within what this host holds, and these addresses.
    std::map<std::pair<kv::NodeId, std::string>, std::vector<UnitKey>> claimRows_;
    std::map<UnitKey, std::set<kv::NodeId>> claimed_;
    std::map<kv::NodeId, size_t> claimCount_;
    std::set<kv::NodeId> overClaims_;  // whose rows hold more than is believed
    size_t believed_ = 0;              // hosts forgotten when that was looked at
    std::vector<std::string> told_;    // warnings(), as in the facts
    std::map<IpPrefix, uint32_t> poolsByPrefix_;
    std::string unreadable_;  // an own row
    std::shared_ptr<bool> life_ = std::make_shared<bool>(true);
    Recovery recovery_;
    Ledger ledger_;
    kv::WatchId watch_ = 0;
    kv::WatchId evidenceWatch_ = 0;
};

}  // namespace weft::ipam
