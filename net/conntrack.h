// Removal of connection-tracking entries, so that a flow finds its new destination at once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

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

}  // namespace weft::net
