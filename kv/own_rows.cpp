#include "kv/own_rows.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "base/log.h"

namespace weft::kv {

namespace {

constexpr std::chrono::milliseconds kFirstRetry{200};
constexpr std::chrono::milliseconds kLastRetry{10'000};

}  // namespace

struct OwnRows::State {
    std::mutex mutex;
    std::map<std::string, std::optional<std::string>> rows;  // none: to be erased, kept until that is done
    std::set<std::string> due;                               // keys
    std::set<std::string> prefixes;                          // to compare with what the store has
    std::set<std::string> failed;                            // keys, due again with the timer
    std::string why;                                         // the last failure
    bool posted = false;
    bool ended = false;

    // Of the node's thread.
    std::set<std::string> writing;
    std::chrono::milliseconds retry = kFirstRetry;
    bool waiting = false;  // for the timer

    // Whether the row is to be another than it is now.
    bool want(const std::string& key, std::optional<std::string> value) {
        const auto known = rows.find(key);
        if (known != rows.end() && known->second == value) return false;
        rows.insert_or_assign(key, std::move(value));
        due.insert(key);
        return true;
    }
};

OwnRows::OwnRows(Runner& runner) : runner_(runner), state_(std::make_shared<State>()) {}

OwnRows::~OwnRows() {
    const std::lock_guard lock(state_->mutex);
    state_->ended = true;
}

void OwnRows::put(const std::string& key, const std::string& value) {
    std::unique_lock lock(state_->mutex);
    const bool due = state_->want(key, value);
    lock.unlock();
    post(due);
}

void OwnRows::erase(const std::string& key) {
    std::unique_lock lock(state_->mutex);
    const bool due = state_->want(key, std::nullopt);
    lock.unlock();
    post(due);
}

void OwnRows::replace(const std::string& prefix, const std::map<std::string, std::string>& rows) {
    {
        const std::lock_guard lock(state_->mutex);
        auto& known = state_->rows;
        for (auto row = known.lower_bound(prefix); row != known.end() && row->first.starts_with(prefix); ++row) {
            if (!rows.contains(row->first)) state_->want(row->first, std::nullopt);
        }
        for (const auto& [key, value] : rows) state_->want(key, value);
        state_->prefixes.insert(prefix);
    }
    post(true);
}

void OwnRows::post(bool due) {
    if (!due) return;
    {
        const std::lock_guard lock(state_->mutex);
        if (std::exchange(state_->posted, true)) return;
    }
    runner_.post([state = state_](Node& node) { work(state, node); });
}

void OwnRows::work(const std::shared_ptr<State>& state, Node& node) {
    std::set<std::string> due;
    {
        const std::lock_guard lock(state->mutex);
        if (state->ended) return;
        state->posted = false;
        due = std::exchange(state->due, {});
        for (const std::string& prefix : std::exchange(state->prefixes, {})) {
            auto& rows = state->rows;
            for (const Row& row : node.table().list(node.id(), prefix)) rows.try_emplace(row.key);
            for (auto row = rows.lower_bound(prefix); row != rows.end() && row->first.starts_with(prefix); ++row) {
                due.insert(row->first);
            }
        }
    }
    for (const std::string& key : due) write(state, node, key);
}

void OwnRows::write(const std::shared_ptr<State>& state, Node& node, const std::string& key) {
    if (!state->writing.insert(key).second) return;  // looked at again when that is done
    std::optional<std::string> value;
    {
        const std::lock_guard lock(state->mutex);
        const auto row = state->rows.find(key);
        if (row != state->rows.end()) value = row->second;
    }
    const auto done = [state, &node, key, value](const Result<void>& written) {
        state->writing.erase(key);
        std::unique_lock lock(state->mutex);
        if (state->ended) return;
        if (!written) {
            if (state->failed.empty()) {
                logWarn("msg=\"rows not written, tried again\" key={} error={}", logValue(key),
                        logValue(written.error().message));
            }
            state->failed.insert(key);
            state->why = written.error().message;
            if (std::exchange(state->waiting, true)) return;
            node.after(state->retry, [state, &node] {
                state->waiting = false;
                {
                    const std::lock_guard again(state->mutex);
                    state->due.insert(state->failed.begin(), state->failed.end());
                }
                work(state, node);
            });
            state->retry = std::min(2 * state->retry, kLastRetry);
            return;
        }
        if (state->failed.erase(key) != 0 && state->failed.empty()) {
            state->retry = kFirstRetry;
            logInfo("msg=\"rows are written again\" key={}", logValue(key));
        }
        const auto row = state->rows.find(key);
        const bool changed = row == state->rows.end() ? value.has_value() : row->second != value;
        if (!changed && !value && row != state->rows.end()) state->rows.erase(row);
        lock.unlock();
        if (changed) write(state, node, key);
    };
    if (value) {
        node.put(key, *value, done);
    } else {
        node.erase(key, done);
    }
}

Result<void> OwnRows::trouble() const {
    const std::lock_guard lock(state_->mutex);
    if (state_->failed.empty()) return {};
    return makeError(ErrorCode::Unavailable,
                     std::to_string(state_->failed.size()) +
                         " rows are not written yet, the other hosts do not know of them: " + state_->why);
}

}  // namespace weft::kv
