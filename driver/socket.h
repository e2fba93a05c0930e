// Where listening sockets come from: handed over by systemd, or made here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace weft::driver {

// A listening socket whose path is unlinked with it, if this process made the path and it still is that socket. The
// engine stalls 15 s on a socket file that nobody serves (moby#22653).
class ListeningSocket {
public:
    ListeningSocket(UniqueFd fd, std::string path, uint64_t inode)
        : fd_(std::move(fd)), path_(std::move(path)), inode_(inode) {}
    ListeningSocket(ListeningSocket&&) noexcept = default;
    ListeningSocket& operator=(ListeningSocket&&) = delete;
    ~ListeningSocket();

    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] bool inherited() const { return inode_ == 0; }

private:
    UniqueFd fd_;
    std::string path_;
    uint64_t inode_;  // of the file made; 0: systemd's, who keeps it
};

// Listens on `path` with `mode`. A socket file there that nobody serves is replaced; one that is served is Busy; any
// other file is AlreadyExists.
Result<ListeningSocket> listenUnix(const std::string& path, uint32_t mode);

// "127.0.0.1:9100" or "[::1]:9100". InvalidArgument for any other than a loopback address.
Result<UniqueFd> listenLoopback(std::string_view address);
// The check alone, for --check-config.
Result<void> checkLoopback(std::string_view address);

// Unix sockets systemd passed (sd_listen_fds(3)), close-on-exec from here on. Forgets the variables, so that a second
// call returns none.
std::vector<ListeningSocket> inheritedSockets();

// sd_notify(3): "READY=1" and the like. Does nothing without $NOTIFY_SOCKET.
void notifyManager(std::string_view state);

}  // namespace weft::driver
