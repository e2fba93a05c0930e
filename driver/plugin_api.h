// PluginApi: the methods of one plugin socket, from an HTTP request to a typed call and back.
//
// Needs no sockets: tests and fuzz targets call handle() with bytes.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/metrics.h"
#include "driver/http_server.h"
#include "drivers/network_driver.h"
#include "ipam/address_manager.h"

namespace weft::driver {

// Both keys, for the engine reads Err or Error by status and API (docs/architecture.md).
std::string pluginErrorBody(int status, std::string_view text);

class PluginApi {
public:
    // `name` is the driver's name in Docker ("weft-bridge"). Optional abilities are found by dynamic_cast of `driver`.
    // All references must outlive the object.
    PluginApi(std::string name, NetworkDriver& driver, ipam::AddressManager& addresses, Metrics& metrics,
              const Clock& clock, bool onHostNetwork = false);

    // Any thread. Blocks as long as the driver does. Logs one line for every call, counts and times it.
    HttpResponse handle(const HttpRequest& request);

    [[nodiscard]] const std::string& name() const { return name_; }

private:
    struct Call;
    struct Methods;

    std::string name_;
    NetworkDriver& driver_;
    ExternalConnectivity* ports_;  // null: the mode publishes none
    ipam::AddressManager& addresses_;
    Metrics& metrics_;
    const Clock& clock_;
    bool onHostNetwork_;
};

}  // namespace weft::driver
