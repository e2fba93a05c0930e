// SocketAddress: an Address as the socket calls want it.
#pragma once

#include <sys/socket.h>

#include <optional>

#include "base/result.h"
#include "kv/types.h"

namespace weft::kv {

class SocketAddress {
public:
    static constexpr socklen_t kRoom = sizeof(sockaddr_storage);

    SocketAddress() = default;
    explicit SocketAddress(const Address& address);

    // What a socket is bound to.
    static Result<Address> ofSocket(int fd);

    [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage_); }
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage_); }
    [[nodiscard]] socklen_t size() const;
    [[nodiscard]] std::optional<Address> address() const;  // none of another family

private:
    sockaddr_storage storage_{};
};

// The way packets would take from here to `to`.
struct Route {
    IpAddress source;
    uint32_t mtu = 0;
};
Result<Route> routeTo(const IpAddress& to);

}  // namespace weft::kv
