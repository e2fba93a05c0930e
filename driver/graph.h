// The cluster as a picture's data: for weftctl graph and the web page.
//
//     {"cluster": NAME, "hosts": [{"name", "address", "state", "presence", "self", "sinceSeconds", "tunnel",
//      "tunnelFound"}],
//      "networks": [{"name", "vni", "subnets": [PREFIX], "conflict", "containers",
//                    "endpoints": [{"host", "name", "addresses"}]}]}
//
// All in order of name; endpoints by host, then name, and no more than were asked for: "containers" is their number. A
// host's state is what this one heard of it last, `tunnel` a TunnelState and `tunnelFound` what that means: what probes
// of the way there found; empty for this host and where nothing is examined. What hosts
// without their weftd had is not shown. `conflict` is why this host is apart from others that have a network of that
// name.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "drivers/overlay/overlay_driver.h"
#include "kv/service.h"

namespace weft::driver {

// "here", "daemon away" or "host away".
std::string_view presenceOf(const kv::Member& member, const std::map<kv::NodeId, OverlayView::KnownHost>& known);

// Any thread but the store's. However many look, the store is asked once in kFresh, and a few hundred rows at a time.
class ClusterGraph {
public:
    static constexpr std::chrono::seconds kFresh{1};

    explicit ClusterGraph(kv::Service& gossip);
    ~ClusterGraph();

    // As JSON, with at most `most` endpoints of each network.
    Result<std::string> text(const std::vector<OverlayStatus>& overlay, const TunnelReport& tunnels,
                             const std::map<kv::NodeId, OverlayView::KnownHost>& known, size_t most = SIZE_MAX);

private:
    struct Picture;
    Result<std::shared_ptr<const Picture>> picture();

    kv::Service& gossip_;
    std::mutex mutex_;
    std::shared_ptr<const Picture> last_;
    std::chrono::steady_clock::time_point looked_;
};

}  // namespace weft::driver
