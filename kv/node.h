// Node: one member of the gossip store. It joins membership (SWIM with Lifeguard), the replicated table and
// anti-entropy to a transport, and owns nothing of the operating system.
//
// Threads: one thread makes every call, and every callback runs on it. Nothing blocks. Callbacks may call back into
// the node except into its destructor.
// Time: the owner calls tick() at nextDeadline() or earlier; all time comes from the Clock.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "kv/config.h"
#include "kv/counters.h"
#include "kv/identity.h"
#include "kv/keyring.h"
#include "kv/member.h"
#include "kv/random.h"
#include "kv/row.h"
#include "kv/storage.h"
#include "kv/table.h"
#include "kv/transport.h"

namespace weft::kv {

class Node {
public:
    using Done = Storage::Done;
    using MemberCallback = std::function<void(const Member&)>;

    // The references must outlive the node. An empty keyring makes a cluster of one: nothing is sent or accepted.
    Node(Config config, Persisted persisted, Keyring& keyring, const Signer& signer, const Clock& clock, Random& random,
         Transport& transport, Storage& storage);
    ~Node();
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    // Begins to probe, gossip and join. Before it the node only answers.
    void start();
    // Says goodbye: the others mark this node as left and suspend its rows without suspecting it first. Calls `done`
    // when the word has gone out as often as gossip asks, or after five seconds. The node answers until destroyed.
    void leave(std::function<void()> done);

    // --- the transport's events ---
    void onPacket(const Address& from, BytesView bytes);
    void onStreamAccepted(StreamId stream, const Address& from);
    void onStreamData(StreamId stream, BytesView bytes);
    void onStreamClosed(StreamId stream);

    // Runs what is due.
    void tick();
    [[nodiscard]] Clock::Monotonic nextDeadline() const;

    // --- the table ---
    // Sets a row of this node. Visible to watches and sent to the others once durable, which is when done(success)
    // comes. InvalidArgument when over the limits of row.h; storage errors as they are. Equal value: success, no write.
    void put(std::string key, std::string value, Done done);
    // Deletes a row of this node. Absent: success.
    void erase(std::string key, Done done);

    // Writes a row of this node again as it is, with a new version. Absent: success.
    void reissue(const std::string& key, Done done);

    [[nodiscard]] const Table& table() const;
    // Calls back with Put for every visible row that is there, then with each change. No callback after unwatch.
    WatchId watch(std::string prefix, const Table::Callback& callback);
    void unwatch(WatchId id);

    // --- membership ---
    [[nodiscard]] const NodeId& id() const;
    [[nodiscard]] std::vector<Member> members() const;  // this node included; dead ones until forgotten
    [[nodiscard]] std::optional<Member> member(const NodeId& id) const;
    // The operator gave the member up for ever; until it is forgotten, roster() is without it while it is gone.
    void giveUp(const NodeId& id);
    // After each, and now for those that were given up before.
    void onGivenUp(std::function<void(const NodeId&)> callback);
    [[nodiscard]] std::vector<Member> roster() const;  // members() as people are shown them
    [[nodiscard]] uint32_t epoch() const;
    // --- doubt: this node's memory is not what others heard of it ---
    // Its database was lost or put back, or its identity runs twice. Survives restarts until settleDoubt(). Rows under
    // Config::keptPrefixes are taken over from the others meanwhile.
    [[nodiscard]] bool inDoubt() const;
    // Since the last sign of it.
    [[nodiscard]] Clock::Monotonic doubtedAt() const;
    // Whoever raised its epoch above another life's again and again is answered by that life: it runs now, elsewhere.
    // Until this node restarts.
    [[nodiscard]] bool hasTwin() const;
    // What was promised is known again. No effect with a twin.
    void settleDoubt(Done done);
    void onDoubt(std::function<void()> callback);
    [[nodiscard]] Origin origin() const;
    // After every change of a member's state, address or name.
    void onMember(MemberCallback callback);
    // Replaces the seeds (a DNS name that resolves anew).
    void setSeeds(std::vector<Address> seeds);

    // Calls back once, from tick(), unless the node is destroyed before.
    void after(Clock::Monotonic::duration delay, std::function<void()> run);
    [[nodiscard]] Clock::Monotonic now() const;  // what Member::since and heard count in
    [[nodiscard]] const Counters& counters() const;
    // When a packet or stream last came from there that did not open: of another key or cluster. Kept for a limited
    // number of hosts.
    [[nodiscard]] std::optional<Clock::Monotonic> unopenedFrom(const IpAddress& host) const;

    // --- which wire is spoken (docs/gossip.md) ---
    // Whether every listed member speaks wire 2: then wire 1 is refused, and forms that weft up to c52709e does not
    // know may be used. True for a node that is alone.
    [[nodiscard]] bool allNew() const;
    [[nodiscard]] std::vector<NodeId> speakersOfWire1() const;  // who keeps it from that
    // Hosts that knew the key and were refused for their wire in the last ten minutes.
    [[nodiscard]] std::vector<IpAddress> refusedForTheirWire() const;

    // --- who costs too much (Config's quotas) ---
    [[nodiscard]] std::vector<NodeId> beyondQuota() const;  // owners that said more rows than are taken of one
    [[nodiscard]] const MemberExcess& membersExcess() const;

    // --- clocks ---
    // What most clocks among this node's and the present members' show (clocks.h); members of wire 1 tell none.
    [[nodiscard]] Clock::Wall medianClock() const;
    struct ClockOffset {
        NodeId id;
        std::chrono::seconds ahead;  // of the median
    };
    [[nodiscard]] std::vector<ClockOffset> clocks() const;  // of this node and of each present member that told

    [[nodiscard]] int healthScore() const;  // 0 is well; see awareness.h
    // Equal on two nodes when members and rows are, suspicion apart.
    [[nodiscard]] uint64_t digest() const;

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace weft::kv
