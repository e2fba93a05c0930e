// The cluster as a picture's data: for weftctl graph and the web page.
//
//     {"cluster": NAME, "hosts": [{"name", "address", "state", "self", "sinceSeconds", "tunnel", "tunnelFound"}],
//      "networks": [{"name", "vni", "subnets": [PREFIX], "conflict", "endpoints": [{"host", "name", "addresses"}]}]}
//
// All in order of name; containers by host, then name. A host's state is what this one heard of it last, `tunnel`
// a TunnelState and `tunnelFound` what that means: what probes of the way there found; empty for this host and where
// nothing is examined. What hosts that are dead had is not shown: it is not reached. `conflict` is why this host is
// apart from others that have a network of that name.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <vector>

#include "base/result.h"
#include "drivers/overlay/overlay_driver.h"
#include "kv/service.h"

namespace weft::driver {

// Any thread but the store's.
Result<nlohmann::json> clusterGraph(kv::Service& gossip, const std::vector<OverlayStatus>& overlay,
                                    const TunnelReport& tunnels);

}  // namespace weft::driver
