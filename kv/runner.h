// Runner: the way from any thread to the Node, which lives on one.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "base/result.h"
#include "kv/node.h"

namespace weft::kv {

class Runner {
public:
    virtual ~Runner() = default;

    // Runs `work` on the node's thread, in the order of the calls. Returns at once; dropped once the node has ended.
    virtual void post(std::function<void(Node&)> work) = 0;

    // The same, and waits until it is done. Never from the node's thread. Timeout after `patience`, or when the call
    // that this thread answers has to end (base/deadline.h); `work` may still
    // run then, so it must own what it touches. Unavailable once the node has ended.
    virtual Result<void> call(std::function<void(Node&)> work,
                              std::chrono::milliseconds patience = std::chrono::seconds(5)) = 0;
};

// Node::put and Node::erase from any other thread: return when the row is on the disk. Timeout as of Runner::call; the
// write goes on then.
Result<void> put(Runner& runner, std::string key, std::string value);
Result<void> erase(Runner& runner, std::string key);

}  // namespace weft::kv
