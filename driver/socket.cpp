#include "driver/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "base/ip.h"
#include "base/log.h"

namespace weft::driver {
namespace {

constexpr int kFirstInherited = 3;  // SD_LISTEN_FDS_START

Result<sockaddr_un> unixAddress(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof(address.sun_path)) {
        return makeError(ErrorCode::InvalidArgument,
                         fmt::format("{}: a socket's path has 1 to {} bytes", path, sizeof(address.sun_path) - 1));
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

// Empties the way for bind: true when nothing is there any more.
Result<void> removeStale(const std::string& path, const sockaddr_un& address) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) {
        if (errno == ENOENT) return {};
        return errnoError(errno, path);
    }
    if (!S_ISSOCK(status.st_mode)) return makeError(ErrorCode::AlreadyExists, path + " exists and is not a socket");
    const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!probe) return errnoError(errno, "socket");
    // EAGAIN: its backlog is full, so somebody does listen.
    if (::connect(probe.get(), generic(address), sizeof(address)) == 0 || errno == EAGAIN) {
        return makeError(ErrorCode::Busy, path + " is served by another process");
    }
    if (errno != ECONNREFUSED) return errnoError(errno, "probe " + path);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return errnoError(errno, "remove stale " + path);
    return {};
}

struct Endpoint {
    IpAddress address;
    uint16_t port = 0;
};

Result<Endpoint> parseLoopback(std::string_view text) {
    const auto error = [text](std::string_view what) {
        return makeError(ErrorCode::InvalidArgument, fmt::format("\"{}\": {}", text, what));
    };
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return error("expected ADDRESS:PORT, such as 127.0.0.1:9100");
    std::string_view host = text.substr(0, colon);
    const std::string_view port = text.substr(colon + 1);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    const auto address = IpAddress::parse(host);
    Endpoint endpoint;
    const auto [end, failed] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
    if (!address || failed != std::errc() || end != port.data() + port.size()) {
        return error("expected ADDRESS:PORT, such as 127.0.0.1:9100");
    }
    // Who serves there asks for no password: it must not leave the host.
    if (!address->isLoopback()) return error("not a loopback address");
    endpoint.address = *address;
    return endpoint;
}

}  // namespace

ListeningSocket::~ListeningSocket() {
    if (!fd_ || inode_ == 0) return;
    struct stat status {};
    if (::lstat(path_.c_str(), &status) == 0 && status.st_ino == inode_) ::unlink(path_.c_str());
}

Result<ListeningSocket> listenUnix(const std::string& path, uint32_t mode) {
    WEFT_ASSIGN(const sockaddr_un address, unixAddress(path));
    WEFT_TRY(removeStale(path, address));
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) return errnoError(errno, "socket");
    struct stat status {};
    // Nobody can connect before listen(), so the mode is right in time.
    if (::bind(fd.get(), generic(address), sizeof(address)) != 0 || ::chmod(path.c_str(), mode) != 0 ||
        ::lstat(path.c_str(), &status) != 0 || ::listen(fd.get(), SOMAXCONN) != 0) {
        return errnoError(errno, "listen on " + path);
    }
    return ListeningSocket(std::move(fd), path, status.st_ino);
}

Result<void> checkLoopback(std::string_view address) {
    WEFT_TRY(parseLoopback(address));
    return {};
}

Result<UniqueFd> listenLoopback(std::string_view text) {
    WEFT_ASSIGN(const Endpoint endpoint, parseLoopback(text));
    const auto bytes = endpoint.address.bytes();
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    const sockaddr* address = nullptr;
    socklen_t size = 0;
    if (endpoint.address.isV4()) {
        v4.sin_family = AF_INET;
        v4.sin_port = htons(endpoint.port);
        std::memcpy(&v4.sin_addr, bytes.data(), sizeof(v4.sin_addr));
        address = reinterpret_cast<const sockaddr*>(&v4);
        size = sizeof(v4);
    } else {
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(endpoint.port);
        std::memcpy(&v6.sin6_addr, bytes.data(), sizeof(v6.sin6_addr));
        address = reinterpret_cast<const sockaddr*>(&v6);
        size = sizeof(v6);
    }
    UniqueFd fd(::socket(endpoint.address.isV4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        ::bind(fd.get(), address, size) != 0 || ::listen(fd.get(), SOMAXCONN) != 0) {
        return errnoError(errno, fmt::format("listen on {}", text));
    }
    return fd;
}

std::vector<ListeningSocket> inheritedSockets() {
    std::vector<ListeningSocket> sockets;
    const auto number = [](const char* variable) -> std::optional<int> {
        const char* text = std::getenv(variable);
        int value = 0;
        if (text == nullptr || std::from_chars(text, text + std::strlen(text), value).ec != std::errc()) return {};
        return value;
    };
    const auto pid = number("LISTEN_PID");
    const auto count = number("LISTEN_FDS");
    ::unsetenv("LISTEN_PID");
    ::unsetenv("LISTEN_FDS");
    ::unsetenv("LISTEN_FDNAMES");
    if (!pid || !count || *pid != ::getpid()) return sockets;
    for (int fd = kFirstInherited; fd < kFirstInherited + *count; ++fd) {
        UniqueFd owned(fd);
        ::fcntl(fd, F_SETFD, FD_CLOEXEC);
        sockaddr_un address{};
        socklen_t size = sizeof(address);
        int listening = 0;
        socklen_t optionSize = sizeof(listening);
        if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &optionSize) != 0 || listening == 0 ||
            ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 || address.sun_family != AF_UNIX ||
            size <= offsetof(sockaddr_un, sun_path)) {
            logWarn("descriptor {} from systemd is not a listening unix socket: ignored", fd);
            continue;
        }
        const std::string path(address.sun_path, ::strnlen(address.sun_path, size - offsetof(sockaddr_un, sun_path)));
        sockets.emplace_back(std::move(owned), path, 0);
    }
    return sockets;
}

void notifyManager(std::string_view state) {
    const char* path = std::getenv("NOTIFY_SOCKET");
    if (path == nullptr) return;
    auto address = unixAddress(path);
    if (!address) return;
    const size_t length = std::strlen(path);
    if (address->sun_path[0] == '@') address->sun_path[0] = '\0';  // an abstract name
    const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
    if (!fd || ::sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL, generic(*address), size) < 0) {
        logWarn("cannot notify systemd at {}: {}", path, std::strerror(errno));
    }
}

}  // namespace weft::driver
