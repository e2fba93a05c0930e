#include "ipam/ledger.h"

#include <algorithm>
#include <memory>
#include <span>

#include "base/log.h"
#include "kv/wire.h"

namespace weft::ipam {

namespace {

using kv::NodeId;

constexpr size_t kChunkEntries = 12;  // at most 75 bytes each: a chunk fits a row
constexpr uint8_t kVersion = 1;
constexpr uint8_t kWideVersion = 2;  // of a head: ballots of 64 bits
constexpr uint64_t kBallotStep = 64;

// Heads stay as a weftd before 64 bits reads them as long as they can.
bool isWide(const Ballot& ballot) {
    return ballot.epoch >> 32 != 0;
}

void writeBallot(kv::Writer& out, const Ballot& ballot, bool wide) {
    if (wide) {
        out.u64(ballot.epoch);
    } else {
        out.u32(static_cast<uint32_t>(ballot.epoch));
    }
    out.id(ballot.claimant);
}

Ballot readBallot(kv::Reader& in, bool wide) {
    const uint64_t epoch = wide ? in.u64() : in.u32();
    return {epoch, in.id()};
}

void writeIp(kv::Writer& out, const IpAddress& address) {
    out.address({address, 0});
}

void writeEntry(kv::Writer& out, const LedgerEntry& entry) {
    out.u8(static_cast<uint8_t>(entry.kind));
    out.id(entry.node);
    out.u64(entry.salt);
    if (entry.kind != LedgerEntry::Kind::Pool) return;
    writeIp(out, entry.pool.address());
    out.u8(entry.pool.length());
    writeIp(out, entry.gateway);
}

LedgerEntry readEntry(kv::Reader& in) {
    LedgerEntry entry;
    const uint8_t kind = in.u8();
    if (kind < 1 || kind > 3) in.fail();
    entry.kind = static_cast<LedgerEntry::Kind>(kind);
    entry.node = in.id();
    entry.salt = in.u64();
    if (entry.kind != LedgerEntry::Kind::Pool) return entry;
    const IpAddress first = in.address().ip;
    const uint8_t length = in.u8();
    if (length > addressBits(first.family())) in.fail();
    entry.pool = IpPrefix(first, length);
    entry.gateway = in.address().ip;
    return entry;
}

std::string text(const kv::Writer& out) {
    return {out.view().begin(), out.view().end()};
}

// As LedgerView::lastForget.
uint32_t lastForget(const LedgerLog& log) {
    for (size_t length = log.size(); length > 0; --length) {
        if (log[length - 1].kind == LedgerEntry::Kind::Forget) return static_cast<uint32_t>(length);
    }
    return 0;
}

bool sameChunk(const LedgerLog& one, const LedgerLog& other, size_t chunk) {
    const auto part = [&](const LedgerLog& log) {
        const size_t from = std::min(log.size(), chunk * kChunkEntries);
        return std::span(log.entries()).subspan(from, std::min(kChunkEntries, log.size() - from));
    };
    return std::ranges::equal(part(one), part(other));
}

}  // namespace

bool isStep(uint64_t known, uint64_t epoch) {
    if (epoch <= known || epoch - known <= kBallotStep) return true;
    return epoch >> 32 == (known >> 32) + 1 && static_cast<uint32_t>(epoch) <= kBallotStep;
}

uint64_t nextEpoch(uint64_t epoch, uint64_t known) {
    if (epoch == UINT64_MAX) return epoch;
    return isStep(known, epoch + 1) ? epoch + 1 : ((epoch >> 32) + 1) << 32;
}

// --- what a log says ---

void LedgerView::apply(const LedgerEntry& entry, uint32_t number) {
    switch (entry.kind) {
        case LedgerEntry::Kind::Join:
            if (forgotten.contains(entry.node) || !memberSet_.insert(entry.node).second) return;
            members.push_back(entry.node);
            return;
        case LedgerEntry::Kind::Forget:
            std::erase(members, entry.node);
            memberSet_.erase(entry.node);
            forgotten.insert(entry.node);
            lastForget = number;
            return;
        case LedgerEntry::Kind::Pool:
            pools.push_back({number, entry.pool, entry.gateway, entry.node});
            byPrefix_[entry.pool] = number;
            return;
    }
}

const PoolEntry* LedgerView::findPool(uint32_t number) const {
    const auto found = std::ranges::lower_bound(pools, number, {}, &PoolEntry::number);
    return found == pools.end() || found->number != number ? nullptr : &*found;
}

const PoolEntry* LedgerView::findPool(const IpPrefix& prefix) const {
    const auto found = byPrefix_.find(prefix);
    return found == byPrefix_.end() ? nullptr : findPool(found->second);
}

// Of prefixes that are disjoint and in order only the neighbours can overlap.
const PoolEntry* LedgerView::findOverlap(const IpPrefix& prefix) const {
    const auto next = byPrefix_.lower_bound(prefix);
    if (next != byPrefix_.end() && next->first.overlaps(prefix)) return findPool(next->second);
    if (next != byPrefix_.begin() && std::prev(next)->first.overlaps(prefix)) return findPool(std::prev(next)->second);
    return nullptr;
}

LedgerView Ledger::view(const LedgerLog& log) {
    LedgerView view;
    for (size_t i = 0; i < log.size(); ++i) view.apply(log[i], static_cast<uint32_t>(i + 1));
    return view;
}

std::shared_ptr<const LedgerLog::Content> LedgerLog::none() {
    static const auto kNone = std::make_shared<const Content>(Content{{}, {}, kv::Table::hashKey("")});
    return kNone;
}

LedgerLog::LedgerLog(std::vector<LedgerEntry> entries, const LedgerLog& known) {
    auto content = std::make_shared<Content>();
    kv::Writer out;
    size_t from = 0;
    if (std::ranges::equal(known.entries(), std::span(entries).first(std::min(known.size(), entries.size())))) {
        content->text = known.content_->text;
        from = known.size();
    }
    for (size_t i = from; i < entries.size(); ++i) writeEntry(out, entries[i]);
    content->text += weft::ipam::text(out);
    content->entries = std::move(entries);
    content->digest = kv::Table::hashKey(content->text);
    content_ = std::move(content);
}

LedgerLog LedgerLog::with(const LedgerEntry& entry) const {
    std::vector<LedgerEntry> longer;
    longer.reserve(size() + 1);
    longer = entries();
    longer.push_back(entry);
    return {std::move(longer), *this};
}

bool LedgerLog::beginsLike(const LedgerLog& other, size_t length) const {
    if (length > size() || length > other.size()) return false;
    if (content_ == other.content_) return true;
    return std::ranges::equal(std::span(entries()).first(length), std::span(other.entries()).first(length));
}

// --- rows ---

std::string Ledger::encodeHead(const State& state) {
    kv::Writer out;
    const bool wide = isWide(state.promised) || isWide(state.ballot);
    out.u8(wide ? kWideVersion : kVersion);
    writeBallot(out, state.promised, wide);
    writeBallot(out, state.ballot, wide);
    out.u32(state.committed);
    out.u32(state.adopted);
    out.u64(state.unitsDigest);
    out.u32(static_cast<uint32_t>(state.log.size()));
    out.u64(state.log.digest());
    out.u64(state.log.empty() ? 0 : state.log.front().salt);
    return text(out);
}

std::optional<Ledger::Head> Ledger::decodeHead(const std::string& value) {
    kv::Reader in(kv::asBytes(value));
    const uint8_t version = in.u8();
    if (version != kVersion && version != kWideVersion) return std::nullopt;
    Head head;
    head.state.promised = readBallot(in, version == kWideVersion);
    head.state.ballot = readBallot(in, version == kWideVersion);
    head.state.committed = in.u32();
    head.state.adopted = in.u32();
    head.state.unitsDigest = in.u64();
    head.length = in.u32();
    head.digest = in.u64();
    head.salt = in.u64();
    return in.done() ? std::optional(head) : std::nullopt;
}

std::string Ledger::encodeChunk(const LedgerLog& log, size_t chunk) {
    kv::Writer out;
    out.u8(kVersion);
    for (size_t i = chunk * kChunkEntries; i < log.size() && i < (chunk + 1) * kChunkEntries; ++i) {
        writeEntry(out, log[i]);
    }
    return text(out);
}

std::optional<LedgerLog> Ledger::logOf(const NodeId& id, const Head& head) const {
    std::vector<LedgerEntry> entries;
    const auto chunks = chunks_.find(id);
    if (chunks == chunks_.end() || chunks->second.size() * kChunkEntries < head.length) return std::nullopt;
    entries.reserve(chunks->second.size() * kChunkEntries);
    for (const auto& [number, part] : chunks->second) {
        if (entries.size() >= head.length) break;
        if (entries.size() != number * kChunkEntries) return std::nullopt;
        entries.insert(entries.end(), part.begin(), part.end());
    }
    if (entries.size() < head.length) return std::nullopt;
    entries.resize(head.length);
    LedgerLog log(std::move(entries), state_.log);
    if (log.digest() != head.digest) return std::nullopt;
    return log;
}

void Ledger::onRow(kv::RowEvent event, const kv::Row& row) {
    const bool there = event == kv::RowEvent::Put && row.version >= hooks_.voidBelow(row.owner);
    if (row.key == "ipam/head") {
        ++factsVersion_;
        const auto head = there ? decodeHead(row.value) : std::nullopt;
        if (head) {
            heads_[row.owner] = *head;
        } else {
            heads_.erase(row.owner);
            refused_.erase(row.owner);
            strangers_.erase(row.owner);
        }
    } else if (row.key.starts_with("ipam/log/")) {
        const auto chunk = static_cast<uint32_t>(std::strtoul(row.key.c_str() + 9, nullptr, 10));
        kv::Reader in(kv::asBytes(row.value));
        std::vector<LedgerEntry> entries;
        if (there && in.u8() == kVersion) {
            while (in.ok() && in.left() > 0) entries.push_back(readEntry(in));
        }
        if (there && in.ok()) {
            chunks_[row.owner][chunk] = std::move(entries);
        } else {
            chunks_[row.owner].erase(chunk);
        }
    } else if (row.key.starts_with("ipam/ask/")) {
        kv::Reader in(kv::asBytes(row.value));
        Ask ask;
        if (there && in.u8() == kVersion) {
            ask.entry = readEntry(in);
            ask.force = in.flag();
        }
        if (there && in.done()) {
            asks_[row.owner][row.key] = ask;
        } else {
            asks_[row.owner].erase(row.key);
        }
    }
}

// --- the state and its rows ---

Ledger::Ledger(kv::Node& node, const Clock& clock, LedgerConfig config, Hooks hooks)
    : node_(node), clock_(clock), config_(std::move(config)), hooks_(std::move(hooks)) {
    damage_ = load();
}

Ledger::~Ledger() = default;

std::string Ledger::load() {
    const auto& table = node_.table();
    const kv::Row* row = table.find(node_.id(), "ipam/head");
    if (row == nullptr || row->deleted) return "";
    const auto head = decodeHead(row->value);
    if (!head) return "ipam/head does not read";
    bool newer = false;
    std::vector<LedgerEntry> log;
    for (uint32_t chunk = 0; chunk * kChunkEntries < head->length; ++chunk) {
        const kv::Row* part = table.find(node_.id(), "ipam/log/" + std::to_string(chunk));
        if (part == nullptr || part->deleted) break;
        newer = newer || part->version > row->version;
        onRow(kv::RowEvent::Put, *part);
        const auto& entries = chunks_[node_.id()][chunk];
        log.insert(log.end(), entries.begin(), entries.end());
        if (entries.size() < kChunkEntries) break;
    }
    if (log.size() > head->length) log.resize(head->length);
    State state = head->state;
    state.log = LedgerLog(std::move(log), {});
    // A chunk is newer than the head when a crash came between: then it is of a later ballot, whose log holds
    // everything committed in this one.
    const bool whole = state.log.size() == head->length && state.log.digest() == head->digest;
    if ((!whole && !newer) || state.committed > state.log.size()) {
        chunks_.erase(node_.id());
        state_.promised = state.promised;
        return "ipam/log is not what ipam/head says";
    }
    setState(std::move(state));
    return "";
}

void Ledger::drop(const NodeId& id) {
    heads_.erase(id);
    chunks_.erase(id);
}

// The highest of everything. A committed entry is in some log of these, and so is each ballot that this host may have
// promised or led, for they were seen on the claimant's or its followers' disks before they counted.
Ledger::State Ledger::merged(std::string& why) const {
    State best = state_;
    std::optional<uint64_t> salt;
    for (const auto& [id, head] : heads_) {
        if (id == node_.id() || head.salt == 0) continue;
        if (salt && *salt != head.salt) why = "hosts of two clusters that began apart are in sight";
        salt = head.salt;
    }
    if (!best.log.empty() && salt && best.log.front().salt != *salt) {
        if (best.committed > 0) {
            why = "this host and the others began separate clusters";
        } else {
            best = {};
        }
    }
    for (const auto& [id, head] : heads_) {
        if (head.salt == 0 || (salt && head.salt != *salt)) continue;
        auto log = logOf(id, head);
        if (!log) {
            if (id != node_.id()) why = "the ledger of others is on its way";
            continue;
        }
        if (std::pair(head.state.ballot, log->size()) > std::pair(best.ballot, best.log.size())) {
            best.ballot = head.state.ballot;
            best.log = std::move(*log);
        }
    }
    const LedgerView roster = view(best.log);
    for (const auto& [id, head] : heads_) {
        const bool own = id == node_.id();
        if (!own && (!roster.isMember(id) || head.salt != salt)) continue;
        best.promised = std::max({best.promised, best.ballot, head.state.promised});
        if (own && salt && head.salt != *salt) continue;
        best.committed = std::max(best.committed, head.state.committed);
        best.adopted = std::max(best.adopted, head.state.adopted);
    }
    best.committed = std::min(best.committed, static_cast<uint32_t>(best.log.size()));
    // They may know less than this host did.
    if (best.log.empty() && why.empty())
        why = "none of the hosts in sight is of a ledger; if this one had none: weftctl node renew --first";
    return best;
}

LedgerView Ledger::recovered(std::string& why) const {
    const State state = merged(why);
    return view(state.log);
}

void Ledger::restore(std::function<void(bool)> done) {
    std::string why;
    State state = merged(why);
    if (writing_ || !why.empty()) return done(false);
    restored_ = std::move(done);
    chunksOnDisk_ = false;
    persist(std::move(state));
}

// Views are made anew only where the log does not simply go on: they grow with all that was ever agreed on.
void Ledger::setState(State next) {
    ++factsVersion_;
    const auto extend = [&](LedgerView& view, size_t from, size_t to) {
        if (from > to || !next.log.beginsLike(state_.log, from)) {
            view = {};
            from = 0;
        }
        for (size_t i = from; i < to; ++i) view.apply(next.log[i], static_cast<uint32_t>(i + 1));
    };
    extend(committed_, state_.committed, next.committed);
    extend(accepted_, state_.log.size(), next.log.size());
    state_ = std::move(next);
}

// Chunks first: a head never speaks of a log that is not there.
void Ledger::persist(State next) {
    const bool freezes = lastForget(next.log) > next.adopted;
    if (accepted_.lastForget > next.adopted || freezes) {
        next.unitsDigest = hooks_.unitsDigest(node_.id());
    } else {
        next.unitsDigest = 0;
    }
    writing_ = true;
    freezing_ = freezes;
    const auto waiting = std::make_shared<size_t>(1);
    const auto failed = std::make_shared<bool>(false);
    const auto state = std::make_shared<State>(std::move(next));
    const auto fail = [this] {
        writing_ = freezing_ = false;
        retryAt_ = clock_.now() + std::chrono::milliseconds(100);
        chunksOnDisk_ = false;
        if (const auto done = std::exchange(restored_, {})) done(false);
    };
    const auto written = [this, fail, waiting, failed, state, life = std::weak_ptr(life_)](const Result<void>& result) {
        if (life.expired()) return;
        if (!result) *failed = true;
        if (--*waiting > 0) return;
        if (*failed) {
            return fail();
        }
        node_.put("ipam/head", encodeHead(*state), [this, fail, state, life](const Result<void>& put) {
            if (life.expired()) return;
            if (!put) return fail();
            writing_ = freezing_ = false;
            setState(*state);
            chunksOnDisk_ = true;
            if (const auto done = std::exchange(restored_, {})) done(true);
            hooks_.changed();
            process();
        });
    };
    for (size_t chunk = 0; chunk * kChunkEntries < state->log.size(); ++chunk) {
        if (chunksOnDisk_ && sameChunk(state->log, state_.log, chunk)) continue;
        std::string value = encodeChunk(state->log, chunk);
        ++*waiting;
        node_.put("ipam/log/" + std::to_string(chunk), std::move(value), written);
    }
    written({});
}

// --- the protocol ---

void Ledger::process() {
    if (busy_) {
        again_ = true;
        return;
    }
    busy_ = true;
    do {
        again_ = false;
        while (!writing_ && step()) {
        }
    } while (again_ && !writing_);
    busy_ = false;
}

bool Ledger::step() {
    if (hooks_.fenced()) return false;
    if (clock_.now() < retryAt_) return false;
    const auto own = heads_.find(node_.id());
    if (own == heads_.end()) {  // tells the others that there is somebody to join
        persist(state_);
        return true;
    }
    return promise() || accept() || lead() || commit() || adopt() || append() || claim();
}

bool Ledger::alive(const NodeId& id) const {
    if (id == node_.id()) return true;
    const auto member = node_.member(id);
    return member && !member->gone();
}

// What more than half of the members have promised at least; where fewer are in sight, all of these; before there are
// members, of all hosts.
uint64_t Ledger::majorityEpoch() const {
    const bool all = accepted_.members.empty();
    std::vector<uint64_t> epochs;
    for (const auto& [id, head] : heads_) {
        if (id != node_.id() && (all || accepted_.isMember(id))) epochs.push_back(head.state.promised.epoch);
    }
    if (all || accepted_.isMember(node_.id())) epochs.push_back(state_.promised.epoch);
    if (epochs.empty()) return state_.promised.epoch;
    const size_t majority = std::min((all ? epochs.size() : accepted_.members.size()) / 2, epochs.size() - 1);
    std::ranges::nth_element(epochs, epochs.begin() + static_cast<std::ptrdiff_t>(majority), std::greater<>());
    return epochs[majority];
}

bool Ledger::isStranger(const Head& head) const {
    return state_.committed > 0 && head.state.committed > 0 && head.salt != state_.log.front().salt;
}

std::vector<NodeId> Ledger::strangers() const {
    std::vector<NodeId> found;
    for (const auto& [id, head] : heads_) {
        if (isStranger(head) && !accepted_.forgotten.contains(id)) found.push_back(id);
    }
    return found;
}

bool Ledger::mayFollow(const NodeId& id, const Head& head, const Ballot& ballot) {
    if (accepted_.forgotten.contains(id)) return false;
    const auto refuse = [&](const char* why) {
        Refusal& refusal = refused_[id];
        ++factsVersion_;
        if (refusal.times == 0) logWarn("ipam: the ballot of {} does not count: {}", nameOf(id), why);
        if (refusal.ballot != ballot) ++refusal.times;
        refusal.ballot = ballot;
        refusal.digest = head.digest;
        refusal.committed = state_.committed;
        return false;
    };
    if (!isStep(std::max(state_.promised.epoch, majorityEpoch()), ballot.epoch)) return refuse("it leaps");
    if (state_.committed == 0 || accepted_.isMember(id)) return true;
    // No member here, but perhaps of a longer log than this host has.
    const auto known = refused_.find(id);
    if (known != refused_.end() && known->second.ballot == ballot && known->second.digest == head.digest &&
        known->second.committed == state_.committed) {
        return false;
    }
    if (head.salt != state_.log.front().salt || head.length < state_.committed) return refuse("it is no member");
    const auto log = logOf(id, head);
    if (!log) return false;  // its rows are on their way
    if (!log->beginsLike(state_.log, state_.committed) || !view(*log).isMember(id)) {
        return refuse("it is no member");
    }
    return true;
}

bool Ledger::promise() {
    const Head* best = nullptr;
    for (const auto& [id, head] : heads_) {
        const Ballot& ballot = head.state.promised;
        if (id == node_.id()) continue;
        if (isStranger(head)) {
            if (strangers_.insert(id).second) {
                logWarn("ipam: {} belongs to a cluster that began apart from this one", nameOf(id));
            }
            continue;
        }
        if (ballot.claimant != id || ballot <= state_.promised) continue;
        if (best != nullptr && ballot <= best->state.promised) continue;
        if (isAside(head)) continue;
        if (mayFollow(id, head, ballot)) best = &head;
    }
    if (best == nullptr) return false;
    State next = state_;
    next.promised = best->state.promised;
    persist(std::move(next));
    return true;
}

bool Ledger::accept() {
    for (const auto& [id, head] : heads_) {
        const Ballot& ballot = head.state.ballot;
        if (id == node_.id() || ballot.claimant != id || head.state.promised != ballot || head.length == 0) continue;
        // An attempt to be the first that came to nothing gives way to a cluster that exists, whatever it promised.
        const bool surrender = state_.committed == 0 && head.state.committed > 0 &&
                               (state_.log.empty() || head.salt != state_.log.front().salt || ballot >= state_.ballot);
        if (!surrender && (ballot < state_.promised || ballot < state_.ballot)) continue;
        if (accepted_.forgotten.contains(id) || isAside(head)) continue;
        const bool newer = surrender || ballot > state_.ballot || head.length > state_.log.size();
        const bool further =
            ballot == state_.ballot && (std::min<size_t>(head.state.committed, state_.log.size()) > state_.committed ||
                                        std::min<size_t>(head.state.adopted, state_.log.size()) > state_.adopted);
        if (!newer && !further) continue;
        if (state_.committed > 0 && head.salt != state_.log.front().salt) continue;
        if (!surrender && ballot > state_.promised && !mayFollow(id, head, ballot)) continue;
        State next = state_;
        if (newer) {
            auto log = logOf(id, head);
            if (!log) continue;
            if (lastForget(*log) > std::max(state_.adopted, head.state.adopted) && !hooks_.unitsSettled()) continue;
            next.promised = next.ballot = ballot;
            next.log = std::move(*log);
        }
        const auto length = static_cast<uint32_t>(next.log.size());
        next.committed = std::max(next.committed, std::min(head.state.committed, length));
        next.adopted = std::max(next.adopted, std::min(head.state.adopted, length));
        persist(std::move(next));
        return true;
    }
    return false;
}

bool Ledger::strictMajority(const LedgerView& of, const std::function<bool(const NodeId&)>& has) const {
    size_t with = 0;
    bool all = true;
    bool forced = false;
    for (const NodeId& id : of.members) {
        if (has(id)) {
            ++with;
        } else if (given_.contains(id)) {
            forced = true;
        } else {
            all = false;
        }
    }
    return 2 * with > of.members.size() || (forced && all);
}

// The claim of this host may have its majority.
bool Ledger::lead() {
    const Ballot mine = state_.promised;
    if (mine.claimant != node_.id() || state_.ballot == mine || forgotten()) return false;
    const auto promised = [&](const NodeId& id) {
        const auto head = heads_.find(id);
        return id == node_.id() || (head != heads_.end() && head->second.state.promised == mine);
    };
    Ballot bestBallot = state_.ballot;
    LedgerLog best = state_.log;
    uint32_t committed = state_.committed;
    uint32_t adopted = state_.adopted;
    LedgerView roster = accepted_;
    // A member's log may name further members, whose logs count then, too; nobody else's does.
    std::set<NodeId> counted;
    for (bool more = true; more;) {
        more = false;
        for (const auto& [id, head] : heads_) {
            if (id == node_.id() || !promised(id) || (state_.committed > 0 && !roster.isMember(id))) continue;
            if (!counted.insert(id).second) continue;
            more = true;
            if (head.length > 0 &&
                std::pair(head.state.ballot, size_t{head.length}) > std::pair(bestBallot, best.size())) {
                auto log = logOf(id, head);
                if (!log) return false;  // its rows are on their way
                best = std::move(*log);
                bestBallot = head.state.ballot;
                roster = view(best);
            }
            committed = std::max(committed, head.state.committed);
            adopted = std::max(adopted, head.state.adopted);
        }
    }
    State next = state_;
    if (best.empty()) {
        if (joinsOnly() || !(beginsAlone() ? metEverybody() : allHave(promised))) return false;
        best = best.with({LedgerEntry::Kind::Join, node_.id(), config_.random() | 1, {}, {}});
    } else if (!roster.isMember(node_.id()) || !strictMajority(roster, promised)) {
        return false;
    }
    if (roster.lastForget > adopted && !hooks_.unitsSettled()) return false;
    next.ballot = mine;
    next.log = std::move(best);
    next.committed = std::min(committed, static_cast<uint32_t>(next.log.size()));
    next.adopted = std::min(adopted, static_cast<uint32_t>(next.log.size()));
    persist(std::move(next));
    return true;
}

bool Ledger::acked(const NodeId& id, size_t length) const {
    if (id == node_.id()) return state_.log.size() >= length;
    const auto head = heads_.find(id);
    return head != heads_.end() && head->second.state.ballot == state_.ballot && head->second.length >= length;
}

bool Ledger::commit() {
    if (!leading() || state_.committed >= state_.log.size()) return false;
    const size_t number = state_.committed + 1;
    const LedgerEntry& entry = state_.log[state_.committed];
    const LedgerView& before = committed_;
    if (before.members.empty()) {
        // A restart may have forgotten whom the claim had met.
        if (!beginsAlone() && !allHave([&](const NodeId& id) { return acked(id, number); })) return false;
    } else {
        // Whom the operator gave up by force counts no more, even in what comes before that entry; instead everybody
        // else has to agree.
        std::set<NodeId> forced;
        for (const LedgerEntry& later : std::span(state_.log.entries()).subspan(state_.committed)) {
            if (later.kind == LedgerEntry::Kind::Forget && later.salt != 0) forced.insert(later.node);
        }
        const bool open = std::ranges::any_of(before.members, [&](const NodeId& id) { return forced.contains(id); });
        const bool all = open || entry.kind == LedgerEntry::Kind::Forget;
        size_t with = 0;
        for (const NodeId& id : before.members) {
            if (acked(id, number)) {
                ++with;
            } else if (all && !accepted_.forgotten.contains(id)) {
                return false;
            }
        }
        // Half of the members as they were, for a Forget too: else a minority could give up the others one by one.
        if (!open && 2 * with < before.members.size()) return false;
    }
    State next = state_;
    next.committed = static_cast<uint32_t>(number);
    persist(std::move(next));
    return true;
}

bool Ledger::adopt() {
    if (!leading() || adopting_ || state_.committed < accepted_.lastForget || !frozen()) return false;
    if (!hooks_.unitsSettled()) return false;
    // An earlier leader may have done it and crashed before it could say so.
    const bool done = std::ranges::any_of(accepted_.members, [this](const NodeId& id) {
        const auto head = heads_.find(id);
        return head != heads_.end() && head->second.state.adopted >= accepted_.lastForget;
    });
    if (done) {
        State next = state_;
        next.adopted = accepted_.lastForget;
        persist(std::move(next));
        return true;
    }
    for (const NodeId& id : accepted_.members) {
        if (!acked(id, accepted_.lastForget)) return false;
        const auto head = heads_.find(id);
        if (head == heads_.end()) return false;
        if (id != node_.id() && head->second.state.unitsDigest != hooks_.unitsDigest(id))
            return false;  // its rows are on their way
    }
    adopting_ = true;
    const uint32_t number = accepted_.lastForget;
    hooks_.adopt([this, number, life = std::weak_ptr(life_)] {
        if (life.expired()) return;
        adopting_ = false;
        if (!leading() || accepted_.lastForget != number || writing_) return process();
        State next = state_;
        next.adopted = number;
        persist(std::move(next));
    });
    return true;
}

std::optional<LedgerEntry> Ledger::nextEntry() const {
    // One at a time, but Forgets may follow each other: the first may wait for whom the second gives up.
    const bool open = state_.committed < state_.log.size();
    for (const auto& [id, head] : heads_) {
        if (open || accepted_.isMember(id) || accepted_.forgotten.contains(id) || !alive(id)) continue;
        if (head.length > 0 && head.salt != state_.log.front().salt) continue;
        return LedgerEntry{LedgerEntry::Kind::Join, id, 0, {}, {}};
    }
    for (const auto& [asker, asks] : asks_) {
        if (!accepted_.isMember(asker)) continue;
        for (const auto& [key, ask] : asks) {
            const LedgerEntry& entry = ask.entry;
            if (entry.kind == LedgerEntry::Kind::Pool) {
                if (open) continue;
                if (accepted_.findOverlap(entry.pool) != nullptr) continue;
                LedgerEntry made = entry;
                made.node = asker;
                return made;
            }
            if (entry.kind != LedgerEntry::Kind::Forget) continue;
            if (accepted_.forgotten.contains(entry.node)) {
                // Force may come later, when the entry turns out to need it.
                const bool given =
                    std::ranges::count(std::span(state_.log.entries()).subspan(state_.committed), entry) > 0;
                if (!ask.force || given || committed_.forgotten.contains(entry.node)) continue;
            }
            if (entry.node == node_.id()) continue;
            const size_t members = accepted_.members.size();
            if (!ask.force && accepted_.isMember(entry.node) && 2 * (members - 1) < members) continue;
            // All that remain must accept it, or blocks stop changing hands: not begun without them. Others that are
            // to be forgotten need not be there.
            const auto missed = [&](const NodeId& id) { return id != entry.node && !isReady(id); };
            if (std::ranges::any_of(accepted_.members, [&](const NodeId& id) {
                    if (!missed(id)) return false;
                    return !toForget(id);
                })) {
                continue;
            }
            return entry;
        }
    }
    return std::nullopt;
}

bool Ledger::append() {
    if (!leading() || adopting_) return false;
    auto entry = nextEntry();
    if (!entry) return false;
    if (entry->kind == LedgerEntry::Kind::Forget && !hooks_.unitsSettled()) return false;
    State next = state_;
    next.log = next.log.with(*entry);
    persist(std::move(next));
    return true;
}

bool Ledger::toForget(const NodeId& id) const {
    return std::ranges::any_of(asks_, [&](const auto& asks) {
        return std::ranges::any_of(asks.second, [&](const auto& ask) {
            return ask.second.entry.kind == LedgerEntry::Kind::Forget && ask.second.entry.node == id;
        });
    });
}

// By the first claim.
bool Ledger::awaited(const kv::Member& member) const {
    return member.state != kv::MemberState::Left && !(member.gone() && (beginsAlone() || toForget(member.id)));
}

// Everybody this host knows of is there, and every seed is one of them.
bool Ledger::metEverybody() const {
    std::set<kv::Address> met{config_.self};
    for (const kv::Member& member : node_.members()) {
        if (!awaited(member)) continue;
        if (member.gone() || (member.id != node_.id() && !heads_.contains(member.id))) return false;
        met.insert(member.record.address);
    }
    if (!config_.seeds) return true;
    const auto seeds = config_.seeds();
    return seeds && std::ranges::all_of(*seeds, [&](const kv::Address& seed) { return met.contains(seed); });
}

bool Ledger::allHave(const std::function<bool(const NodeId&)>& has) const {
    return metEverybody() && std::ranges::none_of(node_.members(), [&](const kv::Member& member) {
               return awaited(member) && !has(member.id);
           });
}

// Its own ballot is so far ahead that nobody may follow, and it follows nobody, until it has claimed once more.
bool Ledger::leaps() const {
    return isMember() && !isStep(majorityEpoch(), state_.promised.epoch);
}

bool Ledger::wanted() const {
    for (const auto& [asker, asks] : asks_) {
        for (const auto& [key, ask] : asks) {
            if (ask.entry.kind == LedgerEntry::Kind::Pool ? accepted_.findPool(ask.entry.pool) == nullptr
                                                          : !accepted_.forgotten.contains(ask.entry.node)) {
                return true;
            }
        }
    }
    if (state_.log.empty()) return false;
    if (frozen() || state_.committed < state_.log.size()) return true;
    if (leaps()) return true;
    // Who has nothing committed joins, but follows only a host that leads.
    return std::ranges::any_of(heads_, [&](const auto& head) {
        return !accepted_.isMember(head.first) && !accepted_.forgotten.contains(head.first) && alive(head.first) &&
               (head.second.state.committed == 0 || head.second.salt == state_.log.front().salt);
    });
}

bool Ledger::busy() const {
    return !forgotten() && !hooks_.fenced() && (wanted() || claimAt_ || clock_.now() < retryAt_);
}

bool Ledger::claim() {
    const auto idle = [this] {
        claimAt_.reset();
        return false;
    };
    const uint64_t known = std::max(state_.promised.epoch, majorityEpoch());
    // Of members also what leaps, for only a claim in the next 2^32 gets them back; that is one a claimDelay at most.
    const auto counts = [&](const auto& head) {
        const uint64_t epoch = head.second.state.promised.epoch;
        return (state_.committed == 0 || accepted_.isMember(head.first)) && !accepted_.forgotten.contains(head.first) &&
               (isStep(known, epoch) || epoch >> 32 == known >> 32) && !isStranger(head.second);
    };
    // A promise of somebody who may not lead, like a host that tried to be the first: outbid, or it will never listen.
    const auto outbids = [&](const auto& head) {
        return head.second.state.promised > state_.promised && alive(head.first) && counts(head);
    };
    const bool outbid = leading() && !forgotten() && std::ranges::any_of(heads_, outbids);
    if (!outbid && ((leading() && !leaps()) || forgotten() || !wanted())) return idle();
    if (outbid) {
    } else if (state_.log.empty()) {
        if (joinsOnly() || !metEverybody()) return idle();
        // Not to somebody who begins anew: a ledger whose members are all away.
        const auto begun = [this](const auto& entry) {
            const auto& [id, head] = entry;
            if (head.state.committed == 0 || !beginsAlone()) return head.state.committed > 0;
            const auto log = logOf(id, head);
            return alive(id) && (!log || view(*log).isMember(id));
        };
        if (std::ranges::any_of(heads_, begun)) return idle();
    } else {
        if (!accepted_.isMember(node_.id())) return idle();
        const Ballot& current = state_.promised;
        const auto leader = heads_.find(current.claimant);
        const bool led = leader != heads_.end() && leader->second.state.ballot == current &&
                         leader->second.state.promised == current && accepted_.isMember(current.claimant) &&
                         alive(current.claimant);
        if (led && current.claimant != node_.id()) return idle();
        // Ballots without end would keep who recovers from ever hearing all others out.
        if (!strictMajority(accepted_, [this](const NodeId& id) { return isReady(id); })) return idle();
    }
    if (!claimAt_ && outbid) {
        claimAt_ = std::max(clock_.now(), nextOutbid_);
        nextOutbid_ = *claimAt_ + config_.claimDelay;
    }
    if (!claimAt_ && node_.members().size() == 1) claimAt_ = clock_.now();
    if (!claimAt_) {
        const auto delay = config_.claimDelay;
        const bool first = std::ranges::none_of(heads_, [&](const auto& head) {
            return head.first < node_.id() && alive(head.first) &&
                   (state_.log.empty() || accepted_.isMember(head.first));
        });
        const auto jitter = std::chrono::milliseconds(config_.random() % static_cast<uint64_t>(delay.count()));
        // The first in order goes at once, so that two seldom compete; after that everybody waits for a turn.
        claimAt_ = clock_.now() + (first && state_.promised.claimant != node_.id() ? delay / 4 : delay + jitter);
    }
    if (clock_.now() < *claimAt_) return false;
    claimAt_.reset();
    uint64_t epoch = state_.promised.epoch;
    for (const auto& head : heads_) {
        if (counts(head)) epoch = std::max(epoch, head.second.state.promised.epoch);
    }
    epoch = nextEpoch(epoch, majorityEpoch());
    if (epoch <= state_.promised.epoch) return idle();
    State next = state_;
    next.promised = {epoch, node_.id()};
    persist(std::move(next));
    return true;
}

// --- asking ---

void Ledger::put(std::string key, std::string value) {
    node_.put(std::move(key), std::move(value), [life = std::weak_ptr(life_), this](const Result<void>&) {
        if (!life.expired()) process();
    });
}

void Ledger::askPool(const IpPrefix& prefix, const IpAddress& gateway) {
    kv::Writer out;
    out.u8(kVersion);
    writeEntry(out, {LedgerEntry::Kind::Pool, node_.id(), 0, prefix, gateway});
    out.u8(0);
    put("ipam/ask/" + prefix.str(), text(out));
}

void Ledger::withdrawPool(const IpPrefix& prefix) {
    node_.erase("ipam/ask/" + prefix.str(), [](const Result<void>&) {});
}

void Ledger::askForget(const NodeId& id, bool force) {
    if (force) given_.insert(id);
    kv::Writer out;
    out.u8(kVersion);
    writeEntry(out, {LedgerEntry::Kind::Forget, id, force ? 1U : 0U, {}, {}});
    out.u8(force ? 1 : 0);
    put("ipam/ask/" + id.str(), text(out));
}

void Ledger::withdrawForget(const NodeId& id) {
    given_.erase(id);
    node_.erase("ipam/ask/" + id.str(), [](const Result<void>&) {});
}

std::string Ledger::obstacle() const {
    if (forgotten())
        return "this host was forgotten; its containers' addresses may be in use elsewhere. Remove its "
               "state and identity to join anew";
    std::string away;
    const auto add = [&](const std::string& name) { away += (away.empty() ? "" : ", ") + name; };
    if (state_.log.empty()) {
        for (const kv::Member& member : node_.members()) {
            if (awaited(member) && (member.gone() || !(heads_.contains(member.id) || member.id == node_.id()))) {
                add(member.record.name);
            }
        }
        if (joinsOnly()) {
            return "this host has a new identity and joins those that knew the old one; none of them leads in its "
                   "sight" +
                   (away.empty() ? "" : ", and these are away: " + away) +
                   ". If none is left, or all are renewed: weftctl node renew --first, on one of them";
        }
        if (!away.empty()) return "no host leads yet, and these are away or not ready: " + away;
        if (!metEverybody()) return "not every host of --join has answered yet";
        return "";
    }
    const NodeId& leader = state_.promised.claimant;
    if (alive(leader)) return "";
    for (const NodeId& id : accepted_.members) {
        if (!isReady(id)) add(nameOf(id) + (alive(id) ? " (has lost its memory)" : ""));
    }
    if (strictMajority(accepted_, [this](const NodeId& id) { return isReady(id); })) return "";
    return "more than half of the hosts have to be there, and these are away: " + away;
}

std::string Ledger::nameOf(const NodeId& id) const {
    const auto member = node_.member(id);
    return member ? member->record.name : id.brief();
}

std::vector<std::string> Ledger::warnings() const {
    std::vector<std::string> list;
    for (const NodeId& id : strangers()) {
        list.push_back("host " + nameOf(id) +
                       " belongs to a cluster that began apart from this one: they share no pools and no overlays, and "
                       "the same address may be in use in both. Decide which one stays; on each host of the other stop "
                       "weftd and the containers, empty the state directory, and start it with --join to the one that "
                       "stays");
    }
    for (const auto& [id, refusal] : refused_) {
        list.push_back("host " + nameOf(id) + " wants to lead the cluster's ledger and may not (" +
                       std::to_string(refusal.times) +
                       " ballots refused): it is no member, or its numbers leap. If it is none of yours, the cluster "
                       "key is known to others: rotate it");
    }
    return list;
}

LedgerFacts Ledger::facts() const {
    LedgerFacts facts;
    for (const NodeId& id : committed_.members) facts.joined.emplace(id, facts.joined.size());
    for (const NodeId& id : strangers()) facts.strangers.insert(id);
    facts.warnings = warnings();
    return facts;
}

std::string Ledger::describe() const {
    std::string out = "ledger: " + std::to_string(state_.committed) + " entries, led by " +
                      (leading() ? "this host" : state_.ballot.claimant.brief());
    if (frozen()) out += "; waits for all hosts to count a forgotten host's blocks";
    if (const std::string why = obstacle(); !why.empty()) out += "; " + why;
    for (const std::string& warning : warnings()) out += "\n" + warning;
    return out;
}

Kin kinOf(const kv::Table& table, const NodeId& one, const NodeId& other) {
    const auto first = Ledger::saltOf(table, one);
    const auto second = Ledger::saltOf(table, other);
    if (!first || !second) return Kin::Unknown;
    return *first == *second ? Kin::Same : Kin::Other;
}

std::optional<uint64_t> Ledger::saltOf(const kv::Table& table, const NodeId& id) {
    const auto row = table.get(id, "ipam/head");
    const auto head = row ? decodeHead(row->value) : std::nullopt;
    return head && head->state.committed > 0 ? std::optional(head->salt) : std::nullopt;
}

}  // namespace weft::ipam
