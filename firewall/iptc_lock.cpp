#include "firewall/iptc_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "base/deadline.h"

namespace weft::firewall::iptc {

namespace {

constexpr const char* kLockFile = "/run/xtables.lock";
constexpr auto kPoll = std::chrono::milliseconds(5);  // flock() has no timed form

const char* lockPath() {
    const char* path = std::getenv("XTABLES_LOCKFILE");
    return path != nullptr && *path != '\0' ? path : kLockFile;
}

}  // namespace

// A timed mutex; std::timed_mutex's waits on the steady clock are unknown to g++ 12's ThreadSanitizer.
struct XtablesLock::Turn {
    std::mutex mutex;
    std::condition_variable freed;
    bool taken = false;
};

void XtablesLock::EndTurn::operator()(Turn* turn) const {
    const std::lock_guard guard(turn->mutex);
    turn->taken = false;
    turn->freed.notify_one();
}

Result<XtablesLock> XtablesLock::take(std::chrono::milliseconds patience) {
    const auto deadline = std::chrono::steady_clock::now() + withinCall(patience);
    const auto timeout = [] {
        return makeError(ErrorCode::Timeout, std::string("another program holds the xtables lock ") + lockPath());
    };

    static Turn shared;
    std::unique_lock guard(shared.mutex);
    if (!shared.freed.wait_until(guard, deadline, [] { return !shared.taken; })) return timeout();
    shared.taken = true;
    guard.unlock();
    std::unique_ptr<Turn, EndTurn> turn(&shared);

    UniqueFd file(::open(lockPath(), O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    if (!file) return errnoError(errno, std::string("open ") + lockPath());
    while (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) return errnoError(errno, std::string("lock ") + lockPath());
        if (std::chrono::steady_clock::now() >= deadline) return timeout();
        std::this_thread::sleep_for(kPoll);
    }
    return XtablesLock(std::move(turn), std::move(file));
}

}  // namespace weft::firewall::iptc
