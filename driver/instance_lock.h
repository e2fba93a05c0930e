// InstanceLock: one weftd for a directory.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace weft::driver {

class InstanceLock {
public:
    // Holds DIR/weftd.lock, which tells the holder's pid, until destroyed or the process ends, however it ends. Busy,
    // naming the pid, when another process holds it.
    static Result<InstanceLock> take(const std::string& dir);

private:
    explicit InstanceLock(UniqueFd fd) : fd_(std::move(fd)) {}
    UniqueFd fd_;
};

}  // namespace weft::driver
