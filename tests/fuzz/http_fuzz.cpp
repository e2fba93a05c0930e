// Any bytes as an HTTP request to a plugin socket: an answer or none, never a crash.
#include <cstdlib>
#include <string_view>

#include "base/log.h"
#include "driver/http_frame.h"
#include "driver/http_server.h"
#include "driver/plugin_api.h"
#include "tests/unit/driver/fakes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace weft;
    setLogLevel(LogLevel::Off);
    static Metrics metrics;
    static const ManualClock clock;
    static driver::testing::FullDriver plugin;
    static driver::testing::RecordingAddresses addresses;
    static driver::PluginApi api("weft-fuzz", plugin, addresses, metrics, clock);

    const std::string_view input(reinterpret_cast<const char*>(data), size);
    const driver::HttpFrame frame = driver::frameRequest(input);
    if (frame.state == driver::HttpFrame::State::Complete && (frame.size > size || frame.size < frame.headSize))
        std::abort();
    bool close = false;
    const std::string answer = driver::answerRequest(
        input, [](const driver::HttpRequest& request) { return api.handle(request); }, driver::pluginErrorBody, close);
    if (!answer.empty() && !answer.starts_with("HTTP/1.1 ")) std::abort();
    return 0;
}
