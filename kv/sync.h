// SyncSession: one anti-entropy exchange over one stream. Both ends run the same code; the initiator begins.
//
//     initiator                                   responder
//     Root(digest)            ------------------>
//                             <------------------  Root(digest)            equal: both are done
//                             <------------------  Owners(ranges)          33 bytes a member
//     Members, Want           ------------------>                          records the other lacks / I lack
//     Rows(ranges)            ------------------>                          20 bytes a row, owners that differ only
//     Fence                   ------------------>
//                             <------------------  Members, Data, Pull     what was wanted; rows newer or unknown there
//                             <------------------  Fence
//     Data, Done              ------------------>                          what was pulled; end
//
// Lists are cut into ranges that say what they cover, [from, to], so that each frame stands alone: what is missing in
// a range is missing at the sender. Nothing is gathered across frames, so a peer cannot make this node hold more than
// one frame. A row that turns out older than what the receiver holds is answered with the newer one at any time.
#pragma once

#include <functional>

#include "kv/context.h"
#include "kv/membership.h"
#include "kv/table.h"
#include "kv/wire.h"

namespace weft::kv {

class SyncSession {
public:
    struct Hooks {
        std::function<void(BytesView)> send;  // one frame
        std::function<uint64_t()> root;
        // Merges a row from the peer: verifies, applies, tells others. False when the held one is newer.
        std::function<bool(Row)> applyRow;
    };

    // `peer` is who sits at the other end, `address` where. `announce`: what is learned goes out by gossip too.
    SyncSession(Context& context, Membership& membership, const Table& table, const NodeId& peer,
                const IpAddress& address, bool announce, Hooks hooks);

    void begin();  // the initiator, once the stream stands

    enum class Progress { Going, Finished, Malformed };
    Progress onFrame(BytesView frame);

private:
    void sendOwners();
    void onOwners(Reader& in);
    void onMembers(Reader& in);
    void onWant(Reader& in);
    void onRows(Reader& in);
    void onPull(Reader& in);
    void onData(Reader& in);

    void sendMember(const Member& member);
    void sendRowSummaries(const NodeId& owner);
    void sendWholeOwner(const NodeId& owner);
    void queueRow(const Row& row);
    void flushRows();
    void flushMembers();
    void sendEmpty(uint8_t type) const;

    Context& context_;
    Membership& membership_;
    const Table& table_;
    NodeId peer_;
    IpAddress address_;
    bool announce_;
    Hooks hooks_;
    bool initiator_ = false;
    Writer rows_;     // a Data frame being filled
    Writer members_;  // a Members frame being filled
};

}  // namespace weft::kv
