// SpareDescriptor: one descriptor kept back for when none is left. A connection that cannot be accepted stays in the
// backlog, and a level-triggered epoll tells of it again at once, for ever; so it is taken by the spare and closed.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/unique_fd.h"

namespace weft {

class SpareDescriptor {
public:
    SpareDescriptor() { take(); }

    // After an accept that failed with `error`. True: it was for lack of descriptors, and the connection is gone.
    bool refuse(int listener, int error) {
        if (error != EMFILE && error != ENFILE) return false;
        fd_.reset();
        UniqueFd(::accept(listener, nullptr, nullptr)).reset();
        take();
        return true;
    }

private:
    void take() { fd_ = UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

    UniqueFd fd_;
};

}  // namespace weft
