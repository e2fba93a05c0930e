#include "ctl/client.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "base/unique_fd.h"

namespace weft::ctl {
namespace {

// httplib says "could not connect" for every reason; people need to know which.
Error whyNot(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) return makeError(ErrorCode::InvalidArgument, path + ": path too long");
    std::memcpy(address.sun_path, path.data(), path.size());
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        const int error = errno;
        const bool refused = error == EACCES || error == EPERM;
        return makeError(refused ? ErrorCode::PermissionDenied : ErrorCode::Unavailable,
                         path + ": " + std::strerror(error));
    }
    return makeError(ErrorCode::Unavailable, path + ": could not connect");
}

}  // namespace

Result<Reply> request(const std::string& socketPath, const std::string& method, const std::string& path,
                      const std::string& body, std::chrono::seconds timeout) {
    httplib::Client client(socketPath);
    client.set_address_family(AF_UNIX);
    client.set_connection_timeout(timeout);
    client.set_read_timeout(timeout);
    // httplib would send the socket's path, which is no host name.
    const httplib::Headers headers{{"Host", "localhost"}};
    const auto result = method == "GET"   ? client.Get(path, headers)
                        : method == "PUT" ? client.Put(path, headers, body, "application/json")
                                          : client.Post(path, headers, body, "application/json");
    if (!result) {
        if (result.error() == httplib::Error::Connection) return whyNot(socketPath);
        const bool late = result.error() == httplib::Error::Read;
        return makeError(late ? ErrorCode::Timeout : ErrorCode::Unavailable,
                         late ? fmt::format("{}: no whole answer within {} s", socketPath, timeout.count())
                              : fmt::format("{}: {}", socketPath, httplib::to_string(result.error())));
    }
    return Reply{result->status, result->body};
}

}  // namespace weft::ctl
