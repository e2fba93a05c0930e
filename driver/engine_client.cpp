#include "driver/engine_client.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <utility>

#include "driver/engine_socket.h"

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

// The engine's own words in {"message": "..."}.
std::string wordsOf(const httplib::Response& response) {
    const auto body = nlohmann::json::parse(response.body, nullptr, false);
    return body.is_object() ? body.value("message", response.body) : response.body;
}

Result<void> check(const std::string& socketPath, const std::string& path, const httplib::Result& result) {
    if (!result) return whyNot(socketPath, result.error());
    const int status = result->status;
    if (status >= 200 && status < 300) return {};
    const ErrorCode code = status == 404   ? ErrorCode::NotFound
                           : status == 409 ? ErrorCode::AlreadyExists
                           : status == 403 ? ErrorCode::Busy  // a network with containers on it
                                           : ErrorCode::Internal;
    return makeError(code, fmt::format("engine: {}: status {}: {}", path, status, wordsOf(*result)));
}

}  // namespace

struct EngineClient::Impl {
    explicit Impl(std::string path)
        : socketPath(std::move(path)), socket(socketPath), calls(socketPath), stream(socketPath) {
        prepare(calls);
        prepare(stream);
        calls.set_keep_alive(true);
        calls.set_read_timeout(kPatience);
        stream.set_read_timeout(kQuiet);
    }

    // Before each use of the clients below, which may connect.
    Result<void> ready() {
        if (stopping) return makeError(ErrorCode::Unavailable, "stopped");
        if (socket.attended()) return {};
        return makeError(ErrorCode::Unavailable,
                         fmt::format("{}: the engine does not run, and weft does not start it", socketPath));
    }

    std::string socketPath;
    EngineSocket socket;
    httplib::Client calls;
    httplib::Client stream;
    std::atomic<bool> stopping = false;
};

EngineClient::EngineClient(std::string socketPath) : impl_(std::make_unique<Impl>(std::move(socketPath))) {}

EngineClient::~EngineClient() = default;

Result<nlohmann::json> EngineClient::get(const std::string& path) {
    WEFT_TRY(impl_->ready());
    const auto result = impl_->calls.Get(path, headers());
    WEFT_TRY(check(impl_->socketPath, path, result));
    auto body = nlohmann::json::parse(result->body, nullptr, false);
    if (body.is_discarded()) return makeError(ErrorCode::Internal, path + ": the engine's answer is no JSON");
    return body;
}

Result<void> EngineClient::post(const std::string& path, const nlohmann::json& body) {
    WEFT_TRY(impl_->ready());
    return check(impl_->socketPath, path, impl_->calls.Post(path, headers(), body.dump(), "application/json"));
}

Result<void> EngineClient::remove(const std::string& path) {
    WEFT_TRY(impl_->ready());
    return check(impl_->socketPath, path, impl_->calls.Delete(path, headers()));
}

Result<void> EngineClient::events(const std::string& query, const std::function<void()>& onOpen,
                                  const std::function<void(std::string_view)>& onEvents) {
    WEFT_TRY(impl_->ready());
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
