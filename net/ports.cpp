#include "net/ports.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <linux/filter.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <random>

#include "base/protocol.h"
#include "net/nl_socket.h"

namespace weft::net {

// What this allocator holds: for SCTP without kernel sockets, for naming ourselves, and for going round.
struct PortTable {
    std::mutex mutex;
    std::map<std::pair<uint8_t, uint16_t>, std::vector<IpAddress>> held;
    std::map<uint8_t, uint32_t> cursor;  // by protocol: where the search for an ephemeral port goes on

    [[nodiscard]] bool conflicts(uint8_t protocol, uint16_t port, const IpAddress& address) const {
        const auto found = held.find({protocol, port});
        if (found == held.end()) return false;
        return std::any_of(found->second.begin(), found->second.end(), [&](const IpAddress& other) {
            return other.family() == address.family() && (other == address || other.isAny() || address.isAny());
        });
    }
};

namespace {

std::string portText(uint8_t protocol, const IpAddress& address, uint16_t port) {
    const std::string host = address.isV4() ? address.str() : "[" + address.str() + "]";
    return "port " + host + ":" + std::to_string(port) + "/" + protocolName(protocol);
}

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;

    SocketAddress(const IpAddress& address, uint16_t port) {
        const auto bytes = address.bytes();
        if (address.isV4()) {
            sockaddr_in v4{};
            v4.sin_family = AF_INET;
            v4.sin_port = htons(port);
            std::memcpy(&v4.sin_addr, bytes.data(), 4);
            std::memcpy(&storage, &v4, length = sizeof v4);
        } else {
            sockaddr_in6 v6{};
            v6.sin6_family = AF_INET6;
            v6.sin6_port = htons(port);
            std::memcpy(&v6.sin6_addr, bytes.data(), 16);
            std::memcpy(&storage, &v6, length = sizeof v6);
        }
    }
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

bool setOption(int fd, int level, int option, int value) {
    return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

// Packets for a published UDP port are DNATed before they reach a socket. What still comes is dropped, not queued.
bool dropEverything(int fd) {
    sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    const sock_fprog program{1, &drop};
    return ::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0 &&
           setOption(fd, SOL_SOCKET, SO_RCVBUF, 0);
}

// A bound socket. An invalid one: the kernel has no such sockets (SCTP).
Result<UniqueFd> bindPort(uint8_t protocol, const IpAddress& address, uint16_t port) {
    const int type = protocol == IPPROTO_UDP ? SOCK_DGRAM : SOCK_STREAM;
    const std::string context = portText(protocol, address, port);
    UniqueFd fd(::socket(address.isV4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, protocol));
    if (!fd) {
        const bool absent = errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT;
        if (protocol == IPPROTO_SCTP && absent) return UniqueFd();
        return errnoError(errno, "socket for " + context);
    }
    if (address.isV6() && !setOption(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1)) return errnoError(errno, context);
    if (protocol == IPPROTO_UDP && !dropEverything(fd.get())) return errnoError(errno, "filter for " + context);

    const SocketAddress name(address, port);
    if (::bind(fd.get(), name.get(), name.length) == 0) return fd;
    int failure = errno;
    if (failure == EADDRINUSE && protocol == IPPROTO_TCP) {
        // Connections in TIME_WAIT stand in the way of a plain bind only. The option is taken off again, or any program
        // that sets it could share the port with a socket that does not listen. (Not set from the start: the first
        // socket of a port passes the option on to the port itself, and there it stays.)
        if (setOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1) && ::bind(fd.get(), name.get(), name.length) == 0) {
            setOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 0);
            return fd;
        }
        failure = errno;
    }
    if (failure == EADDRNOTAVAIL) {
        return Error{ErrorCode::InvalidArgument, context + ": this host does not have the address " + address.str(),
                     failure};
    }
    return errnoError(failure, context);
}

std::string nameOfProcess(const std::string& pid) {
    std::ifstream file("/proc/" + pid + "/comm");
    std::string name;
    std::getline(file, name);
    return (name.empty() ? std::string("a process") : name) + " (pid " + pid + ")";
}

// The first process with a descriptor of the socket, by name; empty if there is none.
std::string ownerOfSocket(uint32_t inode) {
    const std::string wanted = "socket:[" + std::to_string(inode) + "]";
    const auto openDirectory = [](const std::string& path) {
        return std::unique_ptr<DIR, int (*)(DIR*)>(::opendir(path.c_str()), ::closedir);
    };
    const auto processes = openDirectory("/proc");
    while (const dirent* process = processes ? ::readdir(processes.get()) : nullptr) {
        const std::string pid = process->d_name;
        if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
        const auto descriptors = openDirectory("/proc/" + pid + "/fd");
        while (const dirent* descriptor = descriptors ? ::readdir(descriptors.get()) : nullptr) {
            char target[64];
            const std::string path = "/proc/" + pid + "/fd/" + descriptor->d_name;
            const ssize_t length = ::readlink(path.c_str(), target, sizeof target);
            if (length > 0 && wanted == std::string_view(target, static_cast<size_t>(length)))
                return nameOfProcess(pid);
        }
    }
    return {};
}

bool inTheWay(const inet_diag_msg& entry, const IpAddress& address, uint16_t port) {
    if (ntohs(entry.id.idiag_sport) != port) return false;
    const bool v4 = entry.idiag_family == AF_INET;
    const auto* bytes = reinterpret_cast<const uint8_t*>(entry.id.idiag_src);
    const IpAddress bound = IpAddress::fromBytes(v4 ? IpFamily::V4 : IpFamily::V6, bytes);
    if (bound.family() == address.family()) return bound == address || bound.isAny() || address.isAny();
    // A dual-stack socket takes the IPv4 port as well.
    constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (v4) return false;
    if (bound.isAny()) return true;
    return std::memcmp(bytes, kMapped, sizeof kMapped) == 0 &&
           (address.isAny() || IpAddress::fromBytes(IpFamily::V4, bytes + 12) == address);
}

}  // namespace

PortReservation& PortReservation::operator=(PortReservation&& other) noexcept {
    if (this == &other) return *this;
    release();
    port_ = other.port_;
    protocol_ = other.protocol_;
    addresses_ = std::move(other.addresses_);
    sockets_ = std::move(other.sockets_);
    table_ = std::move(other.table_);
    return *this;
}

void PortReservation::release() {
    if (!table_) return;
    const std::lock_guard lock(table_->mutex);
    sockets_.clear();
    if (const auto found = table_->held.find({protocol_, port_}); found != table_->held.end()) {
        for (const IpAddress& address : addresses_) {
            const auto own = std::find(found->second.begin(), found->second.end(), address);
            if (own != found->second.end()) found->second.erase(own);
        }
        if (found->second.empty()) table_->held.erase(found);
    }
    table_.reset();
}

PortAllocator::PortAllocator(NetNs ns) : ns_(std::move(ns)), table_(std::make_shared<PortTable>()) {}
PortAllocator::~PortAllocator() = default;

Result<std::unique_ptr<PortAllocator>> PortAllocator::open() {
    WEFT_ASSIGN(const NetNs ns, NetNs::current());
    return openIn(ns);
}

Result<std::unique_ptr<PortAllocator>> PortAllocator::openIn(const NetNs& ns) {
    WEFT_ASSIGN(NetNs own, ns.duplicate());
    return std::unique_ptr<PortAllocator>(new PortAllocator(std::move(own)));
}

Result<PortReservation> PortAllocator::reserveExactly(const PortRequest& request, uint16_t port) {
    PortReservation reservation;
    for (const IpAddress& address : request.addresses) {
        if (table_->conflicts(request.protocol, port, address)) {
            return Error{ErrorCode::Busy, portText(request.protocol, address, port) + " is held by weft", EADDRINUSE};
        }
        auto bound = bindPort(request.protocol, address, port);
        if (!bound) return std::move(bound).error();
        if (*bound) reservation.sockets_.push_back(*std::move(bound));
    }
    reservation.port_ = port;
    reservation.protocol_ = request.protocol;
    reservation.addresses_ = request.addresses;
    reservation.table_ = table_;
    auto& held = table_->held[{request.protocol, port}];
    held.insert(held.end(), request.addresses.begin(), request.addresses.end());
    return reservation;
}

Result<PortReservation> PortAllocator::reserve(const PortRequest& request) {
    const bool known =
        request.protocol == IPPROTO_TCP || request.protocol == IPPROTO_UDP || request.protocol == IPPROTO_SCTP;
    const bool ephemeral = request.range == PortRange{};
    if (!known || request.addresses.empty() || (!ephemeral && request.range.first == 0) ||
        request.range.last < request.range.first) {
        return makeError(ErrorCode::InvalidArgument, "port request: needs tcp, udp or sctp, an address and a range");
    }

    auto result = runIn(ns_, [&]() -> Result<PortReservation> {
        PortRange range = request.range;
        std::vector<PortRange> avoided;
        if (ephemeral) {
            WEFT_ASSIGN(range, ephemeralPorts());
            WEFT_ASSIGN(avoided, reservedPorts());
        }
        const uint32_t count = uint32_t{range.last} - range.first + 1;

        const std::lock_guard lock(table_->mutex);
        uint32_t start = 0;
        if (ephemeral) {
            // Begins anywhere, so that a restart does not hand out the ports of a minute ago.
            auto [cursor, isNew] = table_->cursor.try_emplace(request.protocol, 0);
            if (isNew) cursor->second = std::random_device{}();
            start = cursor->second % count;
        }
        for (uint32_t step = 0; step < count; ++step) {
            const uint32_t offset = (start + step) % count;
            const auto port = static_cast<uint16_t>(range.first + offset);
            const auto holdsPort = [&](const PortRange& item) { return item.contains(port); };
            if (std::any_of(avoided.begin(), avoided.end(), holdsPort)) continue;
            auto reservation = reserveExactly(request, port);
            if (reservation && ephemeral) table_->cursor[request.protocol] = offset + 1;
            if (reservation || reservation.error().code != ErrorCode::Busy || count == 1) return reservation;
        }
        const std::string text = std::to_string(range.first) + "-" + std::to_string(range.last);
        return makeError(ErrorCode::Exhausted, "no free " + protocolName(request.protocol) + " port in " + text);
    });
    if (result || result.error().code != ErrorCode::Busy) return result;
    for (const IpAddress& address : request.addresses) {
        if (result.error().message.ends_with("by weft")) break;
        const auto holder = findPortHolder(ns_, request.protocol, address, request.range.first);
        if (!holder) continue;
        return Error{ErrorCode::Busy,
                     portText(request.protocol, address, request.range.first) + " is held by " + *holder, EADDRINUSE};
    }
    return result;
}

Result<std::string> findPortHolder(const NetNs& ns, uint8_t protocol, const IpAddress& address, uint16_t port) {
    WEFT_ASSIGN(const auto socket, runIn(ns, [] { return NlSocket::open(NETLINK_SOCK_DIAG); }));
    uint32_t inode = 0;
    bool found = false;
    for (const int family : {AF_INET, AF_INET6}) {
        inet_diag_req_v2 request{};
        request.sdiag_family = static_cast<uint8_t>(family);
        request.sdiag_protocol = protocol;
        request.idiag_states = ~0U;  // with those merely bound (Linux 6.8)
        Message message(SOCK_DIAG_BY_FAMILY, 0);
        message.header(request);
        const auto inspect = [&](const nlmsghdr& header) {
            if (header.nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg))) return;
            const auto* entry = static_cast<const inet_diag_msg*>(NLMSG_DATA(&header));
            if (!inTheWay(*entry, address, port)) return;
            // The listening socket rather than a connection it accepted.
            if (inode == 0 || entry->idiag_state == TCP_LISTEN) inode = entry->idiag_inode;
            found = true;
        };
        WEFT_TRY(socket->dump(message, "list sockets", inspect, [] {}));
    }
    if (!found) return makeError(ErrorCode::NotFound, portText(protocol, address, port) + ": no holder found");
    const std::string owner = inode == 0 ? std::string() : ownerOfSocket(inode);
    return owner.empty() ? std::string("the kernel") : owner;
}

Result<uint64_t> raiseFileLimit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return errnoError(errno, "limit of open files");
    limit.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return errnoError(errno, "limit of open files");
    return uint64_t{limit.rlim_cur};
}

}  // namespace weft::net
