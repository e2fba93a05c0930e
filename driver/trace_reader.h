// Reads what composeTrace() needs from records, store and kernel.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "driver/modes.h"
#include "driver/trace.h"
#include "drivers/bridge/bridge_driver.h"
#include "kv/service.h"

namespace weft::driver {

struct TraceSources {
    const std::vector<Mode>& modes;
    net::Netlink& netlink;  // of the host's namespace
    const BridgeDriver& bridge;
    const OverlayDriver& overlay;
    kv::Service& gossip;
    // The address of a container by its name on an overlay network; none: no such name.
    std::function<std::optional<IpAddress>(const std::string& network, const std::string& name)> resolve;
    const net::PortProgram* portProgram;  // null: none
};

// In a thread of the host's namespace. Changes nothing. InvalidArgument for a question that names no endpoint or
// destination; Unsupported for a mode whose packets weft does not touch.
Result<TraceFacts> readTrace(const TraceSources& sources, TraceQuestion question);

}  // namespace weft::driver
