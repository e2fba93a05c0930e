// OwnRows: what one part of the daemon says to the cluster. The owner says which rows there are to be; they are
// written, and written again after a failure, until the disk has each as it is wanted. The store tells others what the
// disk has.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "kv/runner.h"

namespace weft::kv {

// Any thread, never from the node's with a lock held that a watch takes; nothing waits. No two may write one key.
class OwnRows {
public:
    // `runner` must outlive it.
    explicit OwnRows(Runner& runner);
    ~OwnRows();  // what is not written yet may not be any more
    OwnRows(const OwnRows&) = delete;
    OwnRows& operator=(const OwnRows&) = delete;

    void put(const std::string& key, const std::string& value);
    void erase(const std::string& key);
    // These are all there are to be with keys that begin with `prefix`. Compares with what the store has, so that rows
    // of an earlier process go.
    void replace(const std::string& prefix, const std::map<std::string, std::string>& rows);

    // Why some are not written yet.
    [[nodiscard]] Result<void> trouble() const;

private:
    struct State;

    static void work(const std::shared_ptr<State>& state, Node& node);
    static void write(const std::shared_ptr<State>& state, Node& node, const std::string& key);
    void post(bool due);

    Runner& runner_;
    std::shared_ptr<State> state_;
};

}  // namespace weft::kv
