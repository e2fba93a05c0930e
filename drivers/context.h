// What every mode works with. All of it is shared, thread-safe, and outlives the modes.
#pragma once

#include "base/clock.h"
#include "drivers/record_store.h"
#include "firewall/firewall.h"
#include "ipam/pool_book.h"
#include "net/netlink.h"
#include "net/port_program.h"
#include "net/ports.h"

namespace weft {

struct DriverContext {
    RecordStore& records;
    net::Netlink& netlink;  // of the host's namespace
    net::PortAllocator& ports;
    firewall::Firewall& firewall;
    ipam::PoolBook& ipam;
    const Clock& clock;
    net::PortProgram* portProgram = nullptr;  // null: the kernel takes no BPF program
};

}  // namespace weft
