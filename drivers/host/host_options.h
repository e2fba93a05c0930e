// Options of host mode.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "drivers/network_driver.h"

namespace weft {

struct HostOptions {
    std::string parent;      // NIC; empty: the default route's
    bool exclusive = false;  // hand over the NIC itself
    std::string interfacePrefix = "eth";
    uint32_t mtu = 0;  // of macvlan links; 0: the parent's

    bool operator==(const HostOptions&) const = default;
};

// Pure. InvalidArgument: unknown, malformed or contradictory; Unsupported: known, but not here.
Result<HostOptions> parseHostOptions(const CreateNetworkRequest& request);

}  // namespace weft
