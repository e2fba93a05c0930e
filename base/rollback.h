// Rollback runs the pushed undo steps in reverse order at scope exit, unless commit() was called.
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace weft {

class Rollback {
public:
    Rollback() = default;
    Rollback(const Rollback&) = delete;
    Rollback& operator=(const Rollback&) = delete;
    ~Rollback() {
        for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) (*step)();
    }

    // Steps must not throw; what they cannot undo they log, and the reconciler finishes.
    // cppcheck-suppress danglingLifetime  // a step outlives what it captures only if it is declared above that
    void push(std::function<void()> undo) { steps_.push_back(std::move(undo)); }
    void commit() { steps_.clear(); }

private:
    std::vector<std::function<void()>> steps_;
};

}  // namespace weft
