// Sweep: one run of bringing the kernel to the records. Every difference is noted as a Repair; with dryRun it stays.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "drivers/network_driver.h"

namespace weft {

class Sweep {
public:
    explicit Sweep(bool dryRun) : dryRun_(dryRun) {}

    // Notes the repair and runs it, unless dry. True when it ran and succeeded.
    bool fix(std::string kind, std::string object, std::string action, const std::function<Result<void>()>& repair) {
        Repair& entry = repairs_.emplace_back(Repair{std::move(kind), std::move(object), std::move(action), {}});
        if (dryRun_) return false;
        Result<void> done = repair();
        if (!done) entry.error = std::move(done).error();
        return !entry.error;
    }
    void note(Repair repair) { repairs_.push_back(std::move(repair)); }
    void fail(std::string kind, std::string object, Error error) {
        repairs_.push_back({std::move(kind), std::move(object), "looked at", std::move(error)});
    }

    [[nodiscard]] bool dryRun() const { return dryRun_; }
    // Of the first repair that failed.
    [[nodiscard]] Result<void> outcome() const {
        for (const Repair& repair : repairs_) {
            if (repair.error) return repair.error->within(repair.kind + " " + repair.object);
        }
        return {};
    }
    [[nodiscard]] std::vector<Repair> take() { return std::move(repairs_); }

private:
    bool dryRun_;
    std::vector<Repair> repairs_;
};

}  // namespace weft
