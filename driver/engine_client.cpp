#include "driver/engine_client.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <utility>

namespace weft::driver {

namespace {

constexpr std::chrono::seconds kPatience{30};
// Between two events. Then the stream is opened anew, and whoever reads it looks at everything again.
constexpr std::chrono::hours kQuiet{1};

void prepare(httplib::Client& client) {
    client.set_address_family(AF_UNIX);
    client.set_connection_timeout(kPatience);
}

// httplib would send the socket's path, which is no host name.
httplib::Headers headers() {
    return {{"Host", "localhost"}};
}

Error whyNot(const std::string& socketPath, httplib::Error error) {
    const bool late = error == httplib::Error::Read;
    return makeError(late ? ErrorCode::Timeout : ErrorCode::Unavailable,
                     fmt::format("{}: {}", socketPath, httplib::to_string(error)));
}

}  // namespace

struct EngineClient::Impl {
    explicit Impl(std::string path) : socketPath(std::move(path)), calls(socketPath), stream(socketPath) {
        prepare(calls);
        prepare(stream);
        calls.set_keep_alive(true);
        calls.set_read_timeout(kPatience);
        stream.set_read_timeout(kQuiet);
    }

    std::string socketPath;
    httplib::Client calls;
    httplib::Client stream;
    std::atomic<bool> stopping = false;
};

EngineClient::EngineClient(std::string socketPath) : impl_(std::make_unique<Impl>(std::move(socketPath))) {}

EngineClient::~EngineClient() = default;

Result<nlohmann::json> EngineClient::get(const std::string& path) {
    const auto result = impl_->calls.Get(path, headers());
    if (!result) return whyNot(impl_->socketPath, result.error());
    auto body = nlohmann::json::parse(result->body, nullptr, false);
    if (result->status == 404) return makeError(ErrorCode::NotFound, path + ": " + result->body);
    if (result->status != 200 || body.is_discarded()) {
        return makeError(ErrorCode::Internal, fmt::format("{}: status {}: {}", path, result->status, result->body));
    }
    return body;
}

Result<void> EngineClient::events(const std::string& query, const std::function<void()>& onOpen,
                                  const std::function<void(std::string_view)>& onEvents) {
    if (impl_->stopping) return makeError(ErrorCode::Unavailable, "stopped");
    const auto opened = [&](const httplib::Response& response) {
        if (response.status != 200) return false;
        onOpen();
        return !impl_->stopping;
    };
    const auto told = [&](const char* data, size_t size) {
        onEvents({data, size});
        return !impl_->stopping;
    };
    const auto result = impl_->stream.Get("/events?" + query, headers(), opened, told);
    if (!result) return whyNot(impl_->socketPath, result.error());
    return makeError(ErrorCode::Unavailable, fmt::format("{}: the engine ended its events", impl_->socketPath));
}

void EngineClient::stop() {
    impl_->stopping = true;
    impl_->stream.stop();
    impl_->calls.stop();
}

}  // namespace weft::driver
