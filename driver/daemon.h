// The daemon: makes the parts, lets them know each other, brings the kernel in order, serves, and keeps watch.
#pragma once

#include <functional>
#include <variant>

#include "driver/config.h"

namespace weft::driver {

// Runs until SIGTERM or SIGINT; returns the exit status. `reread` gives the settings of now, for SIGHUP. What the
// kernel holds for containers stays as it is at the end.
int runDaemon(const Config& config, const std::function<std::variant<Config, Exit>()>& reread);

}  // namespace weft::driver
