#include "ipam/recovery.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "base/log.h"
#include "kv/wire.h"

namespace weft::ipam {

namespace {

using kv::NodeId;

constexpr uint8_t kVersion = 1;
constexpr const char* kRecoverKey = "ipam/recover";
constexpr std::string_view kHeardPrefix = "ipam/heard/";

// What promises are made of.
bool promises(const std::string& key) {
    return key == "ipam/head" || key.starts_with("ipam/log/") || key.starts_with("ipam/unit/");
}

uint32_t epochOf(uint64_t version) {
    return static_cast<uint32_t>(version >> 32);
}

std::optional<NodeId> parseId(std::string_view digits) {
    NodeId id;
    if (digits.size() != 2 * id.bytes.size()) return std::nullopt;
    for (size_t i = 0; i < id.bytes.size(); ++i) {
        const char* at = digits.data() + 2 * i;
        if (std::from_chars(at, at + 2, id.bytes[i], 16).ptr != at + 2) return std::nullopt;
    }
    return id;
}

std::string text(const kv::Writer& out) {
    return {out.view().begin(), out.view().end()};
}

}  // namespace

Recovery::Recovery(kv::Node& node, bool alone, std::chrono::milliseconds quiet, Hooks hooks)
    : node_(node), alone_(alone), quiet_(quiet), hooks_(std::move(hooks)) {
    // Before any row of others is looked at.
    for (const kv::Row& row : node_.table().list(std::string(kHeardPrefix))) {
        if (row.owner == node_.id()) onRow(kv::RowEvent::Put, row);
    }
}

std::string Recovery::encode(const Heard& heard) {
    kv::Writer out;
    out.u8(kVersion);
    out.u32(heard.epoch);
    out.u64(heard.own);
    out.u64(heard.copy);
    return text(out);
}

std::optional<Recovery::Heard> Recovery::decode(const std::string& value) {
    kv::Reader in(kv::asBytes(value));
    if (in.u8() != kVersion) return std::nullopt;
    Heard heard;
    heard.epoch = in.u32();
    heard.own = in.u64();
    heard.copy = in.u64();
    return in.done() ? std::optional(heard) : std::nullopt;
}

uint64_t Recovery::voidBelow(const NodeId& id) const {
    const auto promised = void_.find(id);
    return promised == void_.end() ? 0 : uint64_t{promised->second} << 32;
}

void Recovery::onRow(kv::RowEvent event, const kv::Row& row) {
    const bool there = event == kv::RowEvent::Put;
    const bool own = row.owner == node_.id();
    if (promises(row.key)) {
        dirty_ = dirty_ || fenced() || !asking_.empty();
    } else if (row.key == kRecoverKey && !own) {
        dirty_ = true;
        kv::Reader in(kv::asBytes(row.value));
        if (!there || in.u8() != kVersion) {
            asking_.erase(row.owner);
            return;
        }
        const uint32_t epoch = in.u32();
        // What it says in a later epoch than the row's own is not its word.
        if (!in.done() || epoch == 0 || epoch > epochOf(row.version)) return;
        asking_[row.owner] = epoch;
        uint32_t& before = void_[row.owner];
        if (epoch <= before) return;
        before = epoch;
        hooks_.voided(row.owner);
    } else if (row.key.starts_with(kHeardPrefix)) {
        dirty_ = dirty_ || !own;
        const auto heard = there ? decode(row.value) : std::nullopt;
        const auto id = parseId(std::string_view(row.key).substr(kHeardPrefix.size()));
        if (!id) return;
        if (own && heard) void_[*id] = std::max(void_[*id], heard->epoch);
        if (*id != node_.id()) return;
        if (heard) {
            heard_[row.owner] = *heard;
        } else {
            heard_.erase(row.owner);
        }
    }
}

std::map<NodeId, uint64_t> Recovery::digests() const {
    std::map<NodeId, kv::Writer> lists;
    for (const kv::Row& row : node_.table().list("ipam/")) {
        if (!promises(row.key)) continue;
        kv::Writer& out = lists[row.owner];
        out.text8(row.key);
        out.u64(row.version);
    }
    std::map<NodeId, uint64_t> all;
    for (const auto& [id, out] : lists) all[id] = kv::Table::hashKey(text(out));
    return all;
}

void Recovery::process() {
    ask();
    if (!std::exchange(dirty_, false)) {
        restore();
        return;
    }
    answer();
    restore();
}

bool Recovery::busy() const {
    return dirty_ || restoring_ || (fenced() && node_.now() < node_.doubtedAt() + quiet_);
}

void Recovery::ask() {
    const kv::Row* row = node_.table().find(node_.id(), kRecoverKey);
    const bool there = row != nullptr && !row->deleted;
    if (!fenced()) {
        if (there || asked_ != 0) node_.erase(kRecoverKey, [](const Result<void>&) {});
        asked_ = 0;
        return;
    }
    if (asked_ == node_.epoch()) return;
    asked_ = node_.epoch();
    kv::Writer out;
    out.u8(kVersion);
    out.u32(asked_);
    node_.put(kRecoverKey, text(out), [this, life = std::weak_ptr(life_)](const Result<void>& saved) {
        if (life.expired()) return;
        if (!saved) asked_ = 0;
        dirty_ = true;
    });
}

void Recovery::answer() {
    if (fenced() || asking_.empty()) return;
    if (!hooks_.settled()) {
        dirty_ = true;
        return;
    }
    const auto digest = digests();
    const auto of = [&](const NodeId& id) {
        const auto found = digest.find(id);
        return found == digest.end() ? 0 : found->second;
    };
    for (const auto& [id, epoch] : asking_) {
        const Heard heard{epoch, of(node_.id()), of(id)};
        const auto [said, isNew] = answers_.try_emplace(id, heard);
        if (!isNew && said->second == heard) continue;
        said->second = heard;
        node_.put(std::string(kHeardPrefix) + id.str(), encode(heard),
                  [this, asker = id, life = std::weak_ptr(life_)](const Result<void>& saved) {
                      if (life.expired() || saved) return;
                      answers_.erase(asker);
                      dirty_ = true;
                  });
    }
}

std::string Recovery::missing() const {
    if (node_.hasTwin())
        return "another host uses this host's identity now; on the one that is the clone: weftctl node renew";
    std::string why;
    const std::set<NodeId> others = hooks_.others(why);
    if (!why.empty()) return why;
    if (others.empty()) return "no other host is known that could tell; if none exists: weftctl node renew --first";
    const auto digest = digests();
    const auto of = [&](const NodeId& id) {
        const auto found = digest.find(id);
        return found == digest.end() ? 0 : found->second;
    };
    std::string names;
    for (const NodeId& id : others) {
        const auto heard = heard_.find(id);
        if (heard != heard_.end() && heard->second == Heard{asked_, of(id), of(node_.id())}) continue;
        names += (names.empty() ? "" : ", ") + nameOf(id);
    }
    return names.empty() ? "" : "waits to hear what it promised from " + names;
}

void Recovery::restore() {
    if (!fenced() || restoring_ || asked_ != node_.epoch() || node_.hasTwin()) return;
    if (node_.now() < node_.doubtedAt() + quiet_ || !hooks_.settled() || !missing().empty()) return;
    restoring_ = true;
    const uint32_t epoch = asked_;
    const auto end = [this, life = std::weak_ptr(life_)](const std::string& failure) {
        if (life.expired()) return;
        restoring_ = false;
        dirty_ = true;
        if (failure.empty()) {
            logInfo("ipam: this host knows again what it promised");
        } else {
            logWarn("ipam: {}", failure);
        }
    };
    hooks_.restore([this, epoch, end, life = std::weak_ptr(life_)](bool restored) {
        if (life.expired()) return;
        if (!restored || asked_ != epoch) return end("what was promised could not be written");
        reissue([this, end, life](bool said) {
            if (life.expired()) return;
            if (!said) return end("what was promised could not be said again");
            node_.settleDoubt([this, end, life](const Result<void>& settled) {
                if (life.expired()) return;
                end(settled ? "" : settled.error().message);
                process();
            });
        });
    });
}

// The head comes last: it never speaks of a log that is not there.
void Recovery::reissue(std::function<void(bool)> done) {
    std::vector<std::string> keys;
    for (const kv::Row& row : node_.table().list("ipam/")) {
        const bool promise = promises(row.key) || row.key.starts_with(kHeardPrefix);
        if (row.owner == node_.id() && promise && epochOf(row.version) < asked_) keys.push_back(row.key);
    }
    std::ranges::stable_sort(
        keys, [](const std::string& a, const std::string& b) { return (a == "ipam/head") < (b == "ipam/head"); });
    const auto waiting = std::make_shared<size_t>(1);
    const auto failed = std::make_shared<bool>(false);
    const auto written = [waiting, failed, done = std::move(done)](const Result<void>& saved) {
        if (!saved) *failed = true;
        if (--*waiting == 0) done(!*failed);
    };
    for (const std::string& key : keys) {
        ++*waiting;
        node_.reissue(key, written);
    }
    written({});
}

std::string Recovery::obstacle() const {
    if (!fenced()) return "";
    const std::string why = missing();
    return "this host's memory is not what the others heard of it (its state was lost or put back, or runs twice)" +
           (why.empty() ? std::string() : "; " + why);
}

std::set<NodeId> Recovery::askers() const {
    std::set<NodeId> all;
    for (const auto& [id, epoch] : asking_) all.insert(id);
    return all;
}

std::string Recovery::nameOf(const NodeId& id) const {
    const auto member = node_.member(id);
    if (!member) return id.brief();
    return member->record.name + (member->gone() ? " (away)" : "");
}

}  // namespace weft::ipam
