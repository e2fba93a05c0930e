#include "net/netns.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <fstream>
#include <optional>
#include <system_error>
#include <thread>

namespace weft::net {

namespace {

constexpr const char* kOwnNamespace = "/proc/thread-self/ns/net";

// Runs fn on a thread that may do what it likes to its namespaces, for it ends afterwards.
Result<void> onOwnThread(const std::function<Result<void>()>& fn) {
    std::optional<Result<void>> result;
    try {
        std::thread([&] { result = fn(); }).join();
    } catch (const std::system_error& failure) {
        return errnoError(failure.code().value(), "start namespace thread");
    }
    return *std::move(result);
}

}  // namespace

std::string KernelInstance::str() const {
    return bootId + "/" + std::to_string(netnsCookie);
}

Result<NetNs> NetNs::adopt(UniqueFd fd, std::string_view what) {
    struct statfs fs {};
    struct stat status {};
    if (::fstatfs(fd.get(), &fs) != 0 || ::fstat(fd.get(), &status) != 0) return errnoError(errno, what);
    // A container's sandbox path is an empty regular file until the engine mounts the namespace over it.
    if (fs.f_type != NSFS_MAGIC) {
        return makeError(ErrorCode::NotFound, std::string(what) + ": not a network namespace");
    }
    return NetNs(std::move(fd), status.st_ino);
}

Result<NetNs> NetNs::current() {
    return open(kOwnNamespace);
}

Result<NetNs> NetNs::open(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return errnoError(errno, "open network namespace " + path);
    return adopt(std::move(fd), "open network namespace " + path);
}

Result<NetNs> NetNs::create() {
    std::optional<Result<NetNs>> made;
    WEFT_TRY(onOwnThread([&]() -> Result<void> {
        if (::unshare(CLONE_NEWNET) != 0) return errnoError(errno, "create network namespace");
        made = current();
        return {};
    }));
    return *std::move(made);
}

Result<NetNs> NetNs::duplicate() const {
    UniqueFd fd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
    if (!fd) return errnoError(errno, "duplicate network namespace");
    return NetNs(std::move(fd), inode_);
}

Result<KernelInstance> NetNs::instance() const {
    KernelInstance instance;
    std::ifstream file("/proc/sys/kernel/random/boot_id");
    if (!std::getline(file, instance.bootId)) return makeError(ErrorCode::Kernel, "read boot_id");
    WEFT_ASSIGN(UniqueFd socket, socketIn(*this, AF_UNIX, SOCK_DGRAM, 0));
    socklen_t length = sizeof instance.netnsCookie;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &instance.netnsCookie, &length) != 0) {
        return errnoError(errno, "read network namespace cookie");
    }
    return instance;
}

Result<void> runIn(const NetNs& ns, const std::function<Result<void>()>& fn) {
    struct stat here {};
    if (::stat(kOwnNamespace, &here) != 0) return errnoError(errno, "the thread's network namespace");
    if (here.st_ino == ns.inode()) return fn();
    return onOwnThread([&]() -> Result<void> {
        if (::setns(ns.fd(), CLONE_NEWNET) != 0) return errnoError(errno, "enter network namespace");
        return fn();
    });
}

Result<UniqueFd> socketIn(const NetNs& ns, int domain, int type, int protocol) {
    return runIn(ns, [&]() -> Result<UniqueFd> {
        UniqueFd fd(::socket(domain, type | SOCK_CLOEXEC, protocol));
        if (!fd) return errnoError(errno, "open socket");
        return fd;
    });
}

}  // namespace weft::net
