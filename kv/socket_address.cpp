#include "kv/socket_address.h"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>

#include "base/unique_fd.h"

namespace weft::kv {

SocketAddress::SocketAddress(const Address& address) {
    const auto bytes = address.ip.bytes();
    if (address.ip.isV4()) {
        auto& in = reinterpret_cast<sockaddr_in&>(storage_);
        in.sin_family = AF_INET;
        in.sin_port = htons(address.port);
        std::copy_n(bytes.begin(), 4, reinterpret_cast<uint8_t*>(&in.sin_addr));
    } else {
        auto& in = reinterpret_cast<sockaddr_in6&>(storage_);
        in.sin6_family = AF_INET6;
        in.sin6_port = htons(address.port);
        std::copy_n(bytes.begin(), 16, reinterpret_cast<uint8_t*>(&in.sin6_addr));
    }
}

socklen_t SocketAddress::size() const {
    return storage_.ss_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
}

std::optional<Address> SocketAddress::address() const {
    if (storage_.ss_family == AF_INET) {
        const auto& in = reinterpret_cast<const sockaddr_in&>(storage_);
        return Address{IpAddress::fromBytes(IpFamily::V4, reinterpret_cast<const uint8_t*>(&in.sin_addr)),
                       ntohs(in.sin_port)};
    }
    if (storage_.ss_family == AF_INET6) {
        const auto& in = reinterpret_cast<const sockaddr_in6&>(storage_);
        return Address{IpAddress::fromBytes(IpFamily::V6, reinterpret_cast<const uint8_t*>(&in.sin6_addr)),
                       ntohs(in.sin6_port)};
    }
    return std::nullopt;
}

Result<Address> SocketAddress::ofSocket(int fd) {
    SocketAddress name;
    socklen_t size = kRoom;
    if (::getsockname(fd, name.get(), &size) != 0) return errnoError(errno, "name of a socket");
    const auto address = name.address();
    if (!address) return makeError(ErrorCode::Internal, "a socket of another family");
    return *address;
}

Result<Route> routeTo(const IpAddress& to) {
    const bool v4 = to.isV4();
    // Connecting a UDP socket looks up the route and sends nothing.
    const UniqueFd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd) return errnoError(errno, "socket");
    const SocketAddress name(Address{to, 9});
    if (::connect(fd.get(), name.get(), name.size()) != 0) return errnoError(errno, "route to " + to.str());
    WEFT_ASSIGN(const Address source, SocketAddress::ofSocket(fd.get()));
    int mtu = 0;
    socklen_t size = sizeof(mtu);
    if (::getsockopt(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MTU : IPV6_MTU, &mtu, &size) != 0) {
        return errnoError(errno, "MTU of the route to " + to.str());
    }
    return Route{source.ip, static_cast<uint32_t>(mtu)};
}

}  // namespace weft::kv
