// Network namespaces: naming one, working inside one, and telling a kernel's lifetime from the next.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"
#include "base/unique_fd.h"

namespace weft::net {

// What kernel state belongs to: one boot of one kernel, one network namespace in it. A record written under another
// instance describes links that no longer exist, whatever their names and indexes say.
struct KernelInstance {
    std::string bootId;        // /proc/sys/kernel/random/boot_id
    uint64_t netnsCookie = 0;  // unique in a boot, never reused (Linux 5.14)

    [[nodiscard]] std::string str() const;  // "bootid/cookie", for records
    bool operator==(const KernelInstance&) const = default;
};

// Owns a reference to a network namespace. Any thread.
class NetNs {
public:
    static Result<NetNs> current();                      // of the calling thread
    static Result<NetNs> open(const std::string& path);  // NotFound when absent or not a network namespace
    static Result<NetNs> create();  // a new one, gone with its last reference (and link, socket, process)

    [[nodiscard]] int fd() const { return fd_.get(); }
    // Inode of the namespace file: what /proc/PID/ns/net links show, and what tells two NetNs apart.
    [[nodiscard]] uint64_t inode() const { return inode_; }
    [[nodiscard]] Result<KernelInstance> instance() const;
    [[nodiscard]] Result<NetNs> duplicate() const;
    bool operator==(const NetNs& other) const { return inode_ == other.inode_; }

private:
    NetNs(UniqueFd fd, uint64_t inode) : fd_(std::move(fd)), inode_(inode) {}
    static Result<NetNs> adopt(UniqueFd fd, std::string_view what);

    UniqueFd fd_;
    uint64_t inode_ = 0;
};

// Runs `fn` inside `ns` and waits for it: on the caller's thread if that is there already, else on a thread of its
// own that ends with the call. The caller's thread never changes its namespace.
Result<void> runIn(const NetNs& ns, const std::function<Result<void>()>& fn);

// As above for an fn returning Result<T>.
template <typename Fn, typename R = std::invoke_result_t<Fn>>
requires(!std::is_same_v<R, Result<void>>) R runIn(const NetNs& ns, Fn&& fn) {
    R result = makeError(ErrorCode::Internal, "runIn: not run");
    const std::function<Result<void>()> step = [&]() -> Result<void> {
        result = fn();
        return {};
    };
    WEFT_TRY(runIn(ns, step));
    return result;
}

// socket(2) made in `ns`; close-on-exec. It stays bound to that namespace on whichever thread it is used.
Result<UniqueFd> socketIn(const NetNs& ns, int domain, int type, int protocol);

}  // namespace weft::net
