// XtablesLock: the right to read-modify-commit legacy tables, among this process's threads and all programs.
#pragma once

#include <chrono>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"

namespace weft::firewall::iptc {

class XtablesLock {
public:
    // Waits at most `patience`, and no longer than the call has (CallDeadline), for other threads and other programs
    // together; then Timeout.
    static Result<XtablesLock> take(std::chrono::milliseconds patience);

private:
    struct Turn;
    struct EndTurn {
        void operator()(Turn* turn) const;
    };
    XtablesLock(std::unique_ptr<Turn, EndTurn> turn, UniqueFd file) : turn_(std::move(turn)), file_(std::move(file)) {}

    // libiptc keeps state in globals, so threads must take turns even where two namespaces have two lock files.
    std::unique_ptr<Turn, EndTurn> turn_;
    UniqueFd file_;
};

}  // namespace weft::firewall::iptc
