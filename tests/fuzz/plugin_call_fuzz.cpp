// "METHOD\nBODY": any body for every method. An answer of the right shape, never a crash.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/log.h"
#include "driver/plugin_api.h"
#include "tests/unit/driver/fakes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace weft;
    setLogLevel(LogLevel::Off);
    static Metrics metrics;
    static const ManualClock clock;
    static driver::testing::FullDriver plugin;
    static driver::testing::RecordingAddresses addresses;
    static driver::PluginApi api("weft-fuzz", plugin, addresses, metrics, clock,
                                 {.onHostNetwork = false, .global = true, .discovered = [](const auto&, bool) {}});

    const std::string_view input(reinterpret_cast<const char*>(data), size);
    const size_t line = input.find('\n');
    if (line == std::string_view::npos) return 0;
    const driver::HttpResponse response =
        api.handle({"POST", "/" + std::string(input.substr(0, line)), "", std::string(input.substr(line + 1))});
    const auto json = nlohmann::json::parse(response.body, nullptr, false);
    if (!json.is_object()) std::abort();
    if (response.status != 200 && !(json.contains("Err") && json.contains("Error"))) std::abort();
    return 0;
}
