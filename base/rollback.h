// Rollback runs the pushed undo steps in reverse order at scope exit, unless commit() was called.
#pragma once

#include <concepts>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/result.h"

namespace weft {

class Rollback {
public:
    Rollback() = default;
    Rollback(const Rollback&) = delete;
    Rollback& operator=(const Rollback&) = delete;
    ~Rollback() {
        for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) (*step)();
    }

    // Steps must not throw. What they cannot undo is logged, and the reconciler finishes.
    // cppcheck-suppress danglingLifetime  // a step outlives what it captures only if it is declared above that
    template <typename Step>
    requires std::same_as < std::invoke_result_t<Step&>,
    void > void push(Step undo) { steps_.emplace_back(std::move(undo)); }
    template <typename Step>
    requires std::same_as<std::invoke_result_t<Step&>, Result<void>>
    void push(Step undo) {
        steps_.emplace_back([undo = std::move(undo)]() mutable {
            if (const Result<void> undone = undo(); !undone) {
                logWarn("msg=\"not undone; the next sweep does it\" error={}", logValue(undone.error().message));
            }
        });
    }
    void commit() { steps_.clear(); }

private:
    std::vector<std::function<void()>> steps_;
};

}  // namespace weft
