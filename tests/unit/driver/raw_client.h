// A client that sends bytes as they are given, well-formed or not.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace weft::driver::testing {

struct RawAnswer {
    int status = 0;  // 0: none came
    std::string head;
    std::string body;
};

class RawClient {
public:
    explicit RawClient(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
        connected_ = ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
        const timeval patience{10, 0};
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    }

    [[nodiscard]] bool connected() const { return connected_; }
    [[nodiscard]] int fd() const { return fd_.get(); }

    bool send(std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent <= 0) return false;
            bytes.remove_prefix(static_cast<size_t>(sent));
        }
        return true;
    }

    // One answer; the connection stays usable.
    RawAnswer receive() {
        RawAnswer answer;
        while (input_.find("\r\n\r\n") == std::string::npos) {
            if (!more()) return answer;
        }
        const size_t headSize = input_.find("\r\n\r\n") + 4;
        answer.head = input_.substr(0, headSize);
        std::string lower = answer.head;
        std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
        const size_t length = lower.find("content-length: ");
        const size_t size = length == std::string::npos ? 0 : std::stoul(lower.substr(length + 16));
        while (input_.size() < headSize + size) {
            if (!more()) return answer;
        }
        answer.body = input_.substr(headSize, size);
        answer.status = std::stoi(answer.head.substr(9, 3));
        input_.erase(0, headSize + size);
        return answer;
    }

    // True: the server closed in order, with nothing left to read.
    bool closedByPeer() { return input_.empty() && !more() && !failed_; }

    RawAnswer post(const std::string& method, const std::string& body) {
        send("POST /" + method +
             " HTTP/1.1\r\nHost: x\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: " +
             std::to_string(body.size()) + "\r\n\r\n" + body);
        return receive();
    }

private:
    bool more() {
        char chunk[4096];
        const ssize_t count = ::recv(fd_.get(), chunk, sizeof(chunk), 0);
        failed_ = count < 0;
        if (count <= 0) return false;
        input_.append(chunk, static_cast<size_t>(count));
        return true;
    }

    UniqueFd fd_;
    bool connected_ = false;
    bool failed_ = false;
    std::string input_;
};

}  // namespace weft::driver::testing
