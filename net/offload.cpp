#include "net/offload.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string>

namespace weft::net {

namespace {

Result<uint32_t> ask(const NetNs& ns, std::string_view link, uint32_t command, uint32_t value) {
    ifreq request{};
    if (link.size() >= sizeof request.ifr_name) {
        return makeError(ErrorCode::InvalidArgument, "link name \"" + std::string(link) + "\" is too long");
    }
    std::copy(link.begin(), link.end(), request.ifr_name);
    ethtool_value setting{command, value};
    request.ifr_data = reinterpret_cast<char*>(&setting);
    WEFT_ASSIGN(const UniqueFd socket, socketIn(ns, AF_INET, SOCK_DGRAM, 0));
    if (::ioctl(socket.get(), SIOCETHTOOL, &request) != 0) {
        const int error = errno;
        if (error == ENODEV) return makeError(ErrorCode::NotFound, "no link " + std::string(link));
        return errnoError(error, "checksum offload of link " + std::string(link));
    }
    return setting.data;
}

}  // namespace

Result<bool> checksumOffload(const NetNs& ns, std::string_view link) {
    WEFT_ASSIGN(const uint32_t on, ask(ns, link, ETHTOOL_GTXCSUM, 0));
    return on != 0;
}

Result<void> setChecksumOffload(const NetNs& ns, std::string_view link, bool on) {
    WEFT_TRY(ask(ns, link, ETHTOOL_STXCSUM, on ? 1 : 0));
    return {};
}

}  // namespace weft::net
