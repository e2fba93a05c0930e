#include "driver/instance_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace weft::driver {

Result<InstanceLock> InstanceLock::take(const std::string& dir) {
    const std::string path = dir + "/weftd.lock";
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!fd) return errnoError(errno, path);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return errnoError(errno, path);
        std::array<char, 16> pid{};
        const ssize_t size = ::pread(fd.get(), pid.data(), pid.size(), 0);
        return makeError(ErrorCode::Busy,
                         fmt::format("{} is in use by another weftd, pid {}", dir,
                                     size > 0 ? std::string_view(pid.data(), static_cast<size_t>(size)) : "unknown"));
    }
    const std::string pid = fmt::format("{}", ::getpid());
    if (::ftruncate(fd.get(), 0) != 0 || ::pwrite(fd.get(), pid.data(), pid.size(), 0) < 0)
        return errnoError(errno, path);
    return InstanceLock(std::move(fd));
}

}  // namespace weft::driver
