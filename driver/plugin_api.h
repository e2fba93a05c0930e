// PluginApi: the methods of one plugin socket, from an HTTP request to a typed call and back.
//
// Needs no sockets: tests and fuzz targets call handle() with bytes.
#pragma once

#include <functional>
#include <string>

#include "base/clock.h"
#include "base/metrics.h"
#include "driver/codec.h"
#include "driver/http_server.h"
#include "drivers/network_driver.h"
#include "ipam/address_manager.h"

namespace weft::driver {

// Both keys, for the engine reads Err or Error by status and API (docs/architecture.md).
std::string pluginErrorBody(int status, std::string_view text);

struct PluginTraits {
    bool onHostNetwork = false;  // its pools are the LAN of a NIC
    bool global = false;         // of scope global, for a swarm
    // A node of the swarm came or went. Empty: nobody cares.
    std::function<void(const DiscoveredNode& node, bool isThere)> discovered;
};

class PluginApi {
public:
    // `name` is the driver's name in Docker ("weft-bridge"). Optional abilities are found by dynamic_cast of `driver`.
    // All references must outlive the object.
    PluginApi(std::string name, NetworkDriver& driver, ipam::AddressManager& addresses, Metrics& metrics,
              const Clock& clock, PluginTraits traits = {});

    // Any thread. Blocks as long as the driver does. Logs one line for every call, counts and times it.
    HttpResponse handle(const HttpRequest& request);

    [[nodiscard]] const std::string& name() const { return name_; }

private:
    struct Call;
    struct Methods;

    std::string name_;
    NetworkDriver& driver_;
    ExternalConnectivity* ports_;  // null: the mode publishes none
    SwarmAllocation* allocation_;  // null: not for a swarm
    ipam::AddressManager& addresses_;
    Metrics& metrics_;
    const Clock& clock_;
    PluginTraits traits_;
};

}  // namespace weft::driver
