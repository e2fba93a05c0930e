#include "kv/runner.h"

#include <future>
#include <memory>

#include "base/deadline.h"

namespace weft::kv {
namespace {

constexpr std::chrono::seconds kDiskPatience{5};

Result<void> change(Runner& runner, std::function<void(Node&, Node::Done)> start) {
    auto promise = std::make_shared<std::promise<Result<void>>>();
    auto durable = promise->get_future();
    runner.post([promise, start = std::move(start)](Node& node) {
        start(node, [promise](Result<void> result) { promise->set_value(std::move(result)); });
    });
    promise.reset();
    if (durable.wait_for(withinCall(kDiskPatience)) != std::future_status::ready) {
        return makeError(ErrorCode::Timeout, "the gossip store did not write in time");
    }
    try {
        return durable.get();
    } catch (const std::future_error&) {
        return makeError(ErrorCode::Unavailable, "the gossip store has ended");
    }
}

}  // namespace

Result<void> put(Runner& runner, std::string key, std::string value) {
    return change(runner, [key = std::move(key), value = std::move(value)](Node& node, Node::Done done) {
        node.put(key, value, std::move(done));
    });
}

Result<void> erase(Runner& runner, std::string key) {
    return change(runner, [key = std::move(key)](Node& node, Node::Done done) { node.erase(key, std::move(done)); });
}

}  // namespace weft::kv
