// EngineSocket: whether a connection to the engine's unix socket would be taken by an engine that runs.
//
// systemd may keep that socket (docker.socket) and start the engine for whoever connects: weft must not undo a
// `systemctl stop docker`, nor start at boot what nobody asked for. See systemd.socket(5).
#pragma once

#include <sys/types.h>

#include <mutex>
#include <optional>
#include <set>
#include <string>

namespace weft::driver {

class EngineSocket {
public:
    explicit EngineSocket(std::string path, std::string proc = "/proc");

    // False: process 1 holds the listening socket and no other process does. True also where that cannot be told. Any
    // thread; some milliseconds where process 1 holds it, else less.
    bool attended();

private:
    [[nodiscard]] std::set<std::string> listeners() const;
    [[nodiscard]] std::optional<std::string> descriptorOf(const std::string& pid,
                                                          const std::set<std::string>& sockets) const;
    [[nodiscard]] std::optional<std::string> findHolder(const std::set<std::string>& sockets) const;

    const std::string path_;
    const std::string proc_;
    std::mutex mutex_;
    std::string holder_;  // /proc/PID/fd/N of the engine's end, as it was seen last
    std::string socket_;  // "socket:[INODE]" that it was
};

}  // namespace weft::driver
