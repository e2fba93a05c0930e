// Connection-tracking entries: removing them, so that a flow finds its new destination at once, and asking one where
// its flow was going.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "base/ip.h"
#include "base/result.h"
#include "net/netns.h"

namespace weft::net {

// The entries of one published mapping: those a client opened to hostIp:hostPort and DNAT sent to
// containerIp:containerPort.
struct MappedFlow {
    uint8_t protocol = 17;
    std::optional<IpAddress> hostIp = {};  // none: any address
    uint16_t hostPort = 0;
    IpAddress containerIp;
    uint16_t containerPort = 0;
};

// A host address and port as their clients know it.
struct HostPort {
    uint8_t protocol = 17;
    IpAddress address;
    uint16_t port = 0;
};

// All return how many entries were removed; 0 when this kernel has no conntrack. They read the table once for each
// address, filtered by the kernel (Linux 5.8), or once a family for many; each reading is bounded by 5 s (Timeout; what
// was found so far is gone). A reading walks the kernel's whole hash table: some ms for 262,144 buckets, however few
// the entries, so ask only for what needs it (UDP; a TCP client notices by itself).
// Remove the rules first: a packet that comes in between makes an entry by the rules it finds. Any thread.
Result<size_t> flushMappedFlows(const NetNs& ns, std::span<const MappedFlow> flows);
// Entries to such a port that no mapping took: a client that kept sending while nobody published it would else stay
// with the host. Set the rules first.
Result<size_t> flushUnmappedFlows(const NetNs& ns, std::span<const HostPort> ports);
// All entries with one of these addresses as original source or as reply source.
Result<size_t> flushAddresses(const NetNs& ns, std::span<const IpAddress> addresses);

// A flow as the socket that receives its packets sees it. An IPv4 client of an IPv6 socket is an IPv4 flow.
struct ReceivedFlow {
    uint8_t protocol = 17;
    IpAddress peer;
    uint16_t peerPort = 0;
    IpAddress local;
    uint16_t localPort = 0;
};

class NlPool;

// Answers where flows that NAT redirected to this host were going. Keeps its netlink sockets, so that a look-up costs a
// few microseconds. Any thread.
class FlowLookup {
public:
    static Result<FlowLookup> open(const NetNs& ns);  // Unsupported when this kernel has no ctnetlink
    FlowLookup(FlowLookup&&) noexcept;
    FlowLookup& operator=(FlowLookup&&) noexcept;
    ~FlowLookup();

    // The address and port that the peer sent to: the local ones if no NAT changed them. NotFound without an entry.
    Result<std::pair<IpAddress, uint16_t>> originalDestination(const ReceivedFlow& flow);

private:
    explicit FlowLookup(std::unique_ptr<NlPool> pool);

    std::unique_ptr<NlPool> pool_;
};

}  // namespace weft::net
