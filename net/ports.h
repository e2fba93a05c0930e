// Host ports held for publishing: bound and never listened on, so that no other program can take them.
//
// PortAllocator makes reservations in one namespace and is the only maker: it does not give a freed port out again
// until it has gone round the range. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "net/netns.h"
#include "net/sysctl.h"

namespace weft::net {

struct PortTable;

// What to reserve.
struct PortRequest {
    uint8_t protocol = 6;              // IPPROTO_TCP, _UDP, _SCTP
    std::vector<IpAddress> addresses;  // host addresses that shall have the same port; any() of a family: all of it
    PortRange range = {};              // {8080, 8080}: that one; {8000, 8010}: the first free; {0, 0}: any ephemeral
};

// One port on one or more addresses, held until destroyed. Move-only; owns its descriptors.
class PortReservation {
public:
    [[nodiscard]] uint16_t port() const { return port_; }
    [[nodiscard]] uint8_t protocol() const { return protocol_; }
    [[nodiscard]] const std::vector<IpAddress>& addresses() const { return addresses_; }
    // False where the kernel has no such sockets (SCTP not built): then nobody else can take the port either, and
    // the reservation is in this allocator's table only.
    [[nodiscard]] bool bound() const { return !sockets_.empty(); }

    PortReservation(PortReservation&& other) noexcept = default;
    PortReservation& operator=(PortReservation&& other) noexcept;
    ~PortReservation() { release(); }

private:
    friend class PortAllocator;
    PortReservation() = default;
    void release();

    uint16_t port_ = 0;
    uint8_t protocol_ = 0;
    std::vector<IpAddress> addresses_;
    std::vector<UniqueFd> sockets_;
    std::shared_ptr<PortTable> table_;
};

class PortAllocator {
public:
    static Result<std::unique_ptr<PortAllocator>> open();  // the calling thread's namespace
    static Result<std::unique_ptr<PortAllocator>> openIn(const NetNs& ns);
    ~PortAllocator();

    // Errors: Busy when a port asked for is taken, naming the holder where it can be found ("port 0.0.0.0:8080/tcp
    // is held by nginx (pid 123)"; one of this allocator's own reservations: "... by weft"); Exhausted when no port
    // of a range is free; InvalidArgument for an address this host does not have.
    Result<PortReservation> reserve(const PortRequest& request);

private:
    explicit PortAllocator(NetNs ns);
    // Binds every address of the request to `port` or none.
    Result<PortReservation> reserveExactly(const PortRequest& request, uint16_t port);

    NetNs ns_;
    std::shared_ptr<PortTable> table_;
};

// Who holds the socket bound to address:port: "nginx (pid 123)", "the kernel" for one without a process, NotFound
// when nobody is found. Scans /proc: milliseconds, for error messages only.
Result<std::string> findPortHolder(const NetNs& ns, uint8_t protocol, const IpAddress& address, uint16_t port);

// Raises the soft limit of open files to the hard one; returns the limit. Call once at start: a reservation takes a
// descriptor per address.
Result<uint64_t> raiseFileLimit();

}  // namespace weft::net
