#include "driver/instance_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

namespace weft::driver {

Result<void> ownDirectory(const std::string& path, mode_t mode) {
    std::error_code failed;
    if (std::filesystem::create_directories(path, failed)) ::chmod(path.c_str(), mode);
    if (failed) return errnoError(failed.value(), "make directory " + path);
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0) return errnoError(errno, path);
    const bool ours = found.st_uid == 0 || found.st_uid == ::geteuid();
    if (ours && (found.st_mode & S_IWOTH) == 0) return {};
    return makeError(
        ErrorCode::PermissionDenied,
        fmt::format("{}: {}, so weftd cannot trust what is in it; chown root {} && chmod o-w {}", path,
                    ours ? "everybody may write there" : fmt::format("user {} owns it", found.st_uid), path, path));
}

Result<InstanceLock> InstanceLock::take(const std::string& dir) {
    const std::string path = dir + "/weftd.lock";
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
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
