// EngineNames: learns from this host's engine what its containers are called, and says so to the cluster.
//
// A thread of its own follows the engine's events. Whenever it could have missed some, after a start of either daemon,
// it looks at all containers. While the engine is away, what was said stays: containers may run on without it, and
// the names of those that end go with their endpoints.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/id.h"
#include "base/ip.h"
#include "driver/engine_client.h"
#include "drivers/overlay/overlay_names.h"
#include "kv/own_rows.h"

namespace weft::driver {

// A container on one overlay network, as the engine tells it.
struct NamedEndpoint {
    std::string network;  // the overlay's name on all hosts
    EndpointId endpoint;
    std::vector<IpAddress> addresses;
    NameRow row;

    bool operator==(const NamedEndpoint&) const = default;
};

// The overlay network a Docker network is; none: it is none.
using OverlayOf = std::function<std::optional<std::string>(const NetworkId&)>;

// Reads the answer to GET /containers/ID/json. What it lacks is left out.
std::vector<NamedEndpoint> namedEndpoints(const nlohmann::json& container, const OverlayOf& overlayOf);

// Whether a container's coming to a network, or leaving it, is of interest.
using Matters = std::function<bool(const NetworkId& network, const std::string& container)>;

// The containers that lines of events speak of. What is left of `text` after the last whole line stays in it.
std::set<std::string> containersIn(std::string& text, const Matters& matters);

class EngineNames {
public:
    // All must outlive it.
    EngineNames(std::string socketPath, kv::Runner& runner, OverlayOf overlayOf);
    ~EngineNames();

    // The overlay networks of the container that has this address on that one; at least that one. Any thread.
    [[nodiscard]] std::vector<std::string> networksOf(const std::string& network, const IpAddress& address) const;

    // Why nothing is heard from the engine; empty: it is. Any thread.
    [[nodiscard]] std::string trouble() const;

    // Why other hosts do not hear some names: rows that are not written yet. A line each. Any thread.
    [[nodiscard]] std::vector<std::string> warnings() const;

private:
    void work();
    Result<void> lookAtAll();
    Result<void> look(const std::string& container);
    void say(const std::string& container, const std::vector<NamedEndpoint>& endpoints);
    void setTrouble(const std::string& trouble);

    EngineClient engine_;
    kv::OwnRows rows_;
    OverlayOf overlayOf_;

    // Of the thread.
    std::map<std::string, std::map<std::string, std::string>> said_;  // container: key, value

    mutable std::mutex mutex_;
    std::condition_variable stopped_;
    bool stopping_ = false;
    std::string trouble_ = "not asked yet";
    std::map<std::string, std::vector<NamedEndpoint>> containers_;
    std::map<std::pair<std::string, IpAddress>, std::string> byAddress_;  // of (network, address): the container

    std::thread thread_;
};

}  // namespace weft::driver
