#include "kv/sync.h"

#include <algorithm>
#include <limits>
#include <set>

#include "kv/message.h"
#include "kv/secure_stream.h"

namespace weft::kv {

namespace {

enum Frame : uint8_t {
    kRoot = 1,
    kOwners = 2,
    kMembers = 3,
    kWant = 4,
    kRows = 5,
    kPull = 6,
    kData = 7,
    kFence = 8,
    kDone = 9,
};

constexpr size_t kSoftFrameBytes = size_t{32} * 1024;  // a frame is sent once it has grown beyond this
constexpr size_t kMaxOwners = 900;                     // in one frame: 33 bytes each
constexpr size_t kMaxSummaries = 1500;                 // in one frame: 20 bytes each
constexpr size_t kMaxPulls = 3000;                     // in one frame: 8 bytes each
constexpr auto kLastHash = std::numeric_limits<Table::KeyHash>::max();

NodeId lastId() {
    NodeId id;
    id.bytes.fill(0xff);
    return id;
}

NodeId successor(NodeId id) {
    for (auto byte = id.bytes.rbegin(); byte != id.bytes.rend() && ++*byte == 0; ++byte) {
    }
    return id;
}

}  // namespace

SyncSession::SyncSession(Context& context, Membership& membership, const Table& table, const NodeId& peer,
                         const IpAddress& address, bool announce, Hooks hooks)
    : context_(context),
      membership_(membership),
      table_(table),
      peer_(peer),
      address_(address),
      announce_(announce),
      hooks_(std::move(hooks)) {}

void SyncSession::sendEmpty(uint8_t type) const {
    hooks_.send({&type, 1});
}

void SyncSession::begin() {
    initiator_ = true;
    Writer out;
    out.u8(kRoot);
    out.u64(hooks_.root());
    hooks_.send(out.view());
}

SyncSession::Progress SyncSession::onFrame(BytesView frame) {
    Reader in(frame);
    switch (in.u8()) {
        case kRoot: {
            const uint64_t theirs = in.u64();
            if (!in.done()) return Progress::Malformed;
            const uint64_t ours = hooks_.root();
            if (initiator_) {
                if (theirs != ours) return Progress::Going;
                ++context_.counters.syncsEqual;
                return Progress::Finished;
            }
            Writer out;
            out.u8(kRoot);
            out.u64(ours);
            hooks_.send(out.view());
            // When equal the initiator closes.
            if (theirs != ours) sendOwners();
            break;
        }
        case kOwners:
            onOwners(in);
            break;
        case kMembers:
            onMembers(in);
            break;
        case kWant:
            onWant(in);
            break;
        case kRows:
            onRows(in);
            break;
        case kPull:
            onPull(in);
            break;
        case kData:
            onData(in);
            break;
        case kFence:
            if (initiator_) {
                flushRows();
                sendEmpty(kDone);
                ++context_.counters.syncsFinished;
                return in.done() ? Progress::Finished : Progress::Malformed;
            }
            sendEmpty(kFence);
            break;
        case kDone:
            return in.done() ? Progress::Finished : Progress::Malformed;
        default:
            return Progress::Malformed;
    }
    flushMembers();
    flushRows();
    return in.done() ? Progress::Going : Progress::Malformed;
}

void SyncSession::sendOwners() {
    auto member = membership_.members().begin();
    const auto end = membership_.members().end();
    NodeId from;
    for (bool last = false; !last;) {
        std::vector<const Member*> batch;
        for (; member != end && batch.size() < kMaxOwners; ++member) {
            if (membership_.advertised(member->second)) batch.push_back(&member->second);
        }
        last = member == end;
        const NodeId to = last ? lastId() : batch.back()->id;
        Writer out;
        out.u8(kOwners);
        out.id(from);
        out.id(to);
        out.u8(last ? 1 : 0);
        for (const Member* entry : batch) {
            out.id(entry->id);
            out.u64(entry->record.incarnation);
            out.u8(static_cast<uint8_t>(entry->state));
            out.u64(table_.digest(entry->id));
        }
        hooks_.send(out.view());
        from = successor(to);
    }
}

void SyncSession::onOwners(Reader& in) {
    const NodeId from = in.id();
    const NodeId to = in.id();
    const bool last = in.flag();
    if (!initiator_ || to < from || in.left() % 33 != 0) return in.fail();
    std::set<NodeId> listed;
    std::vector<NodeId> differ;
    Writer want;
    want.u8(kWant);
    while (in.left() > 0) {
        const NodeId id = in.id();
        const uint64_t incarnation = in.u64();
        const uint8_t rawState = in.u8();
        const uint64_t digest = in.u64();
        if (id < from || to < id || rawState > static_cast<uint8_t>(MemberState::Left)) return in.fail();
        const auto state = static_cast<MemberState>(rawState);
        listed.insert(id);
        const Member* known = membership_.find(id);
        if (known == nullptr || known->record.incarnation < incarnation) {
            want.id(id);
        } else if (known->record.incarnation > incarnation || known->state > state) {
            sendMember(*known);
        } else if (state == MemberState::Dead) {
            membership_.applySuspect({id, incarnation, peer_});
        }
        if (digest != table_.digest(id)) differ.push_back(id);
    }
    // What the peer did not list it does not have.
    for (auto at = membership_.members().lower_bound(from); at != membership_.members().end() && at->first <= to;
         ++at) {
        if (listed.contains(at->first) || !membership_.advertised(at->second)) continue;
        sendMember(at->second);
        differ.push_back(at->first);
    }
    flushMembers();
    if (want.size() > 1) hooks_.send(want.view());
    for (const NodeId& owner : differ) {
        if (listed.contains(owner)) {
            sendRowSummaries(owner);
        } else {
            sendWholeOwner(owner);
        }
    }
    flushRows();
    if (last) sendEmpty(kFence);
}

void SyncSession::sendMember(const Member& member) {
    if (members_.size() == 0) members_.u8(kMembers);
    members_.u8(static_cast<uint8_t>(member.state));
    members_.u32(static_cast<uint32_t>(membership_.age(member).count()));
    writeBody(members_, member.record);
    if (members_.size() > kSoftFrameBytes) flushMembers();
}

void SyncSession::flushMembers() {
    if (members_.size() == 0) return;
    hooks_.send(members_.view());
    members_ = {};
}

void SyncSession::onMembers(Reader& in) {
    while (in.left() > 0) {
        const uint8_t state = in.u8();
        const std::chrono::seconds age(in.u32());
        const MemberRecord record = readRecord(in);
        if (!in.ok() || state > static_cast<uint8_t>(MemberState::Left)) return in.fail();
        membership_.applyRemote(record, static_cast<MemberState>(state), age, peer_, announce_, &address_);
    }
}

void SyncSession::onWant(Reader& in) {
    if (in.left() % 16 != 0) return in.fail();
    while (in.left() > 0) {
        if (const Member* member = membership_.find(in.id())) sendMember(*member);
    }
    flushMembers();  // before any row of theirs
}

void SyncSession::sendRowSummaries(const NodeId& owner) {
    Table::KeyHash from = 0;
    for (bool last = false; !last;) {
        const auto batch = table_.summaries(owner, from, kMaxSummaries);
        last = batch.size() < kMaxSummaries || batch.back().key == kLastHash;
        const Table::KeyHash to = last ? kLastHash : batch.back().key;
        Writer out;
        out.u8(kRows);
        out.id(owner);
        out.u64(from);
        out.u64(to);
        for (const auto& summary : batch) {
            out.u64(summary.key);
            out.u64(summary.version);
            out.u32(summary.check);
        }
        hooks_.send(out.view());
        from = to + 1;
    }
}

void SyncSession::sendWholeOwner(const NodeId& owner) {
    for (const auto& summary : table_.summaries(owner, 0, std::numeric_limits<size_t>::max())) {
        for (const Row& row : table_.rowsAt(owner, summary.key)) queueRow(row);
    }
}

void SyncSession::onRows(Reader& in) {
    const NodeId owner = in.id();
    const Table::KeyHash from = in.u64();
    const Table::KeyHash to = in.u64();
    if (to < from || in.left() % 20 != 0) return in.fail();
    Writer pull;
    const auto flushPull = [&] {
        if (pull.size() > 0) hooks_.send(pull.view());
        pull = {};
    };
    std::set<Table::KeyHash> listed;
    while (in.left() > 0) {
        const Table::Summary theirs{in.u64(), in.u64(), in.u32()};
        if (theirs.key < from || to < theirs.key) return in.fail();
        listed.insert(theirs.key);
        bool pulled = true;
        for (const Row& row : table_.rowsAt(owner, theirs.key)) {
            const uint32_t check = Table::check(row);
            if (check == theirs.check && row.version == theirs.version) pulled = false;
            if (row.version > theirs.version) queueRow(row), pulled = false;
            if (row.version == theirs.version && check != theirs.check) queueRow(row);
        }
        if (!pulled) continue;
        if (pull.size() == 0) {
            pull.u8(kPull);
            pull.id(owner);
        }
        pull.u64(theirs.key);
        if (pull.size() > 8 * kMaxPulls) flushPull();
    }
    flushPull();
    for (const auto& summary : table_.summaries(owner, from, std::numeric_limits<size_t>::max())) {
        if (summary.key > to) break;
        if (listed.contains(summary.key)) continue;
        for (const Row& row : table_.rowsAt(owner, summary.key)) queueRow(row);
    }
}

void SyncSession::onPull(Reader& in) {
    const NodeId owner = in.id();
    if (in.left() % 8 != 0) return in.fail();
    while (in.left() > 0) {
        for (const Row& row : table_.rowsAt(owner, in.u64())) queueRow(row);
    }
}

void SyncSession::queueRow(const Row& row) {
    if (rows_.size() == 0) rows_.u8(kData);
    writeBody(rows_, row);
    if (rows_.size() > kSoftFrameBytes) flushRows();
}

void SyncSession::flushRows() {
    if (rows_.size() == 0) return;
    hooks_.send(rows_.view());
    rows_ = {};
}

void SyncSession::onData(Reader& in) {
    while (in.left() > 0) {
        const Row row = readRow(in);
        if (!in.ok()) return;
        if (hooks_.applyRow(row)) continue;
        const Row* held = table_.find(row.owner, row.key);
        if (held != nullptr && supersedes(*held, row)) {
            for (const Row& newer : table_.rowsAt(row.owner, Table::hashKey(row.key))) queueRow(newer);
        }
    }
}

}  // namespace weft::kv
