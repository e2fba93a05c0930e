#include "driver/engine_socket.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

namespace weft::driver {

namespace {

namespace fs = std::filesystem;

constexpr unsigned long kAcceptsConnections = 0x10000;  // __SO_ACCEPTCON, in the flags column of /proc/net/unix

std::string linkAt(const fs::path& path) {
    std::error_code error;
    return fs::read_symlink(path, error).string();
}

bool sameFile(const std::string& a, const std::string& b) {
    struct stat left {};
    struct stat right {};
    return ::stat(a.c_str(), &left) == 0 && ::stat(b.c_str(), &right) == 0 && left.st_dev == right.st_dev &&
           left.st_ino == right.st_ino;
}

bool isPid(const std::string& name) {
    return !name.empty() && std::ranges::all_of(name, [](unsigned char c) { return std::isdigit(c) != 0; });
}

}  // namespace

EngineSocket::EngineSocket(std::string path, std::string proc) : path_(std::move(path)), proc_(std::move(proc)) {}

// As /proc/PID/fd shows them. The path there is as it was bound: /run and /var/run may be one.
std::set<std::string> EngineSocket::listeners() const {
    std::set<std::string> found;
    std::ifstream table(proc_ + "/net/unix");
    std::string line;
    while (std::getline(table, line)) {
        std::istringstream columns(line);
        std::string address, references, protocol, flags, type, state, inode, path;
        if (!(columns >> address >> references >> protocol >> flags >> type >> state >> inode >> path)) continue;
        if ((std::strtoul(flags.c_str(), nullptr, 16) & kAcceptsConnections) == 0) continue;
        if (path == path_ || (path.starts_with('/') && sameFile(path, path_))) found.insert("socket:[" + inode + "]");
    }
    return found;
}

std::optional<std::string> EngineSocket::descriptorOf(const std::string& pid,
                                                      const std::set<std::string>& sockets) const {
    std::error_code error;
    for (fs::directory_iterator entry(proc_ + "/" + pid + "/fd", error), end; !error && entry != end;
         entry.increment(error)) {
        if (sockets.contains(linkAt(entry->path()))) return entry->path().string();
    }
    return std::nullopt;
}

std::optional<std::string> EngineSocket::findHolder(const std::set<std::string>& sockets) const {
    // The engine's pid file, mostly beside its socket, saves a look at every process.
    std::ifstream file(fs::path(path_).parent_path() / "docker.pid");
    if (std::string pid; file >> pid && isPid(pid) && pid != "1") {
        if (auto found = descriptorOf(pid, sockets)) return found;
    }
    std::error_code error;
    for (fs::directory_iterator entry(proc_, error), end; !error && entry != end; entry.increment(error)) {
        const std::string pid = entry->path().filename().string();
        if (!isPid(pid) || pid == "1") continue;
        if (auto found = descriptorOf(pid, sockets)) return found;
    }
    return std::nullopt;
}

bool EngineSocket::attended() {
    const std::lock_guard lock(mutex_);
    if (!holder_.empty() && linkAt(holder_) == socket_) return true;
    holder_.clear();
    const auto sockets = listeners();
    if (!descriptorOf("1", sockets)) return true;
    const auto holder = findHolder(sockets);
    if (!holder) return false;
    holder_ = *holder;
    socket_ = linkAt(holder_);
    return true;
}

}  // namespace weft::driver
