// InstanceLock: one weftd for a directory.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace weft::driver {

// Makes the directory, or takes one that is there if nobody but root and this user can put files there.
// PermissionDenied else.
Result<void> ownDirectory(const std::string& path, mode_t mode);

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
