#include "driver/web_server.h"

#include <mutex>
#include <utility>

#include "base/ip.h"
#include "driver/http_server.h"
#include "driver/socket.h"
#include "driver/web_page.h"

namespace weft::driver {
namespace {

using Time = std::chrono::steady_clock::time_point;

// Scripts and styles are in the page; nothing else is loaded, and nobody may frame it.
constexpr const char* kContentPolicy =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";
// Any user of the host may connect.
constexpr size_t kConnections = 64;
constexpr size_t kWorkers = 4;
constexpr std::chrono::seconds kIdle{10};

}  // namespace

bool isLoopbackHost(std::string_view host) {
    if (host.starts_with('[')) {
        host = host.substr(1, host.find(']') - 1);
    } else {
        host = host.substr(0, host.find(':'));
    }
    const auto address = IpAddress::parse(host);
    return host == "localhost" || (address && address->isLoopback());
}

struct WebServer::Impl {
    Impl(std::function<std::string()> stateSource, std::chrono::milliseconds interval)
        : source(std::move(stateSource)), every(interval) {}

    HttpResponse answer(const HttpRequest& request) {
        HttpResponse response = body(request);
        response.headers = {{"Content-Security-Policy", kContentPolicy},
                            {"X-Content-Type-Options", "nosniff"},
                            {"Referrer-Policy", "no-referrer"},
                            {"Cache-Control", "no-store"}};
        return response;
    }

    HttpResponse body(const HttpRequest& request) {
        if (!isLoopbackHost(request.host)) return {403, "Ask for localhost or a loopback address.\n", "text/plain"};
        if (request.method == "GET" && request.path == "/") return {200, kWebPage, "text/html; charset=utf-8"};
        if (request.method == "GET" && request.path == "/state") return {200, state()};
        return {404, "There is only one page: /\n", "text/plain"};
    }

    std::string state() {
        const std::lock_guard lock(mutex);
        const Time now = std::chrono::steady_clock::now();
        if (last.empty() || now - asked >= every) {
            last = source();
            asked = std::chrono::steady_clock::now();
        }
        return last;
    }

    const std::function<std::string()> source;
    const std::chrono::milliseconds every;
    std::mutex mutex;
    std::string last;
    Time asked;
    std::unique_ptr<HttpServer> server;  // ends first
};

WebServer::WebServer() = default;
WebServer::~WebServer() = default;

Result<std::unique_ptr<WebServer>> WebServer::start(std::string_view address, std::function<std::string()> state,
                                                    std::chrono::milliseconds every) {
    std::vector<HttpListener> listeners(1);
    HttpListener& listener = listeners.front();
    WEFT_ASSIGN(listener.socket, listenLoopback(address));
    std::unique_ptr<WebServer> made(new WebServer);
    made->impl_ = std::make_unique<Impl>(std::move(state), every);
    listener.handler = [impl = made->impl_.get()](const HttpRequest& request) { return impl->answer(request); };
    listener.errorBody = [](int, std::string_view text) { return std::string(text) + "\n"; };
    listener.maxConnections = kConnections;
    listener.maxWorkers = kWorkers;
    listener.idleTimeout = kIdle;
    WEFT_ASSIGN(made->impl_->server, HttpServer::start(std::move(listeners)));
    return made;
}

}  // namespace weft::driver
