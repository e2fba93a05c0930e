#include "driver/web_server.h"

#include <httplib.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/ip.h"
#include "base/unique_fd.h"
#include "driver/socket.h"
#include "driver/web_page.h"

namespace weft::driver {
namespace {

// Scripts and styles are in the page; nothing else is loaded, and nobody may frame it.
constexpr const char* kContentPolicy =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";
// A viewer holds a thread; the others are for the page itself.
constexpr size_t kThreads = WebServer::kMaxViewers + 2;
constexpr time_t kTimeout = 5;  // s, for a peer to send its request or to take what is written

class AdoptingServer : public httplib::Server {
public:
    // Owns `socket` from now on; to be followed by listen_after_bind().
    void adopt(UniqueFd socket) { svr_sock_ = socket.release(); }
};

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
        : state(std::move(stateSource)), every(interval) {
        server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
        server.set_read_timeout(kTimeout);
        server.set_write_timeout(kTimeout);
        server.set_default_headers({{"Content-Security-Policy", kContentPolicy},
                                    {"X-Content-Type-Options", "nosniff"},
                                    {"Referrer-Policy", "no-referrer"},
                                    {"Cache-Control", "no-store"}});
        server.set_pre_routing_handler([](const httplib::Request& request, httplib::Response& response) {
            if (isLoopbackHost(request.get_header_value("Host"))) return httplib::Server::HandlerResponse::Unhandled;
            response.status = 403;
            response.set_content("Ask for localhost or a loopback address.\n", "text/plain");
            return httplib::Server::HandlerResponse::Handled;
        });
        server.Get("/", [](const httplib::Request&, httplib::Response& response) {
            response.set_content(kWebPage, "text/html; charset=utf-8");
        });
        server.Get("/events", [this](const httplib::Request&, httplib::Response& response) { watch(response); });
    }

    void watch(httplib::Response& response) {
        if (viewers.fetch_add(1) >= kMaxViewers) {
            --viewers;
            response.status = 503;
            response.set_content("Too many look already. Close one of the pages.\n", "text/plain");
            return;
        }
        response.set_chunked_content_provider(
            "text/event-stream",
            [this, first = true](size_t, httplib::DataSink& sink) mutable {
                if (!first && sleepOrStop()) return false;
                first = false;
                const std::string message = "data: " + state() + "\n\n";
                return sink.write(message.data(), message.size());
            },
            [this](bool) { --viewers; });
    }

    bool sleepOrStop() {
        std::unique_lock lock(mutex);
        return stopped.wait_for(lock, every, [this] { return stopping; });
    }

    const std::function<std::string()> state;
    const std::chrono::milliseconds every;
    AdoptingServer server;
    std::atomic<size_t> viewers = 0;
    std::mutex mutex;
    std::condition_variable stopped;
    bool stopping = false;
    std::atomic<bool> ended = false;
    std::thread thread;
};

WebServer::WebServer() = default;

Result<std::unique_ptr<WebServer>> WebServer::start(std::string_view address, std::function<std::string()> state,
                                                    std::chrono::milliseconds every) {
    WEFT_ASSIGN(UniqueFd socket, listenLoopback(address));
    std::unique_ptr<WebServer> made(new WebServer);
    made->impl_ = std::make_unique<Impl>(std::move(state), every);
    Impl& impl = *made->impl_;
    impl.server.adopt(std::move(socket));
    impl.thread = std::thread([&impl] {
        impl.server.listen_after_bind();
        impl.ended = true;
    });
    // A stop() before it runs would be lost.
    while (!impl.server.is_running() && !impl.ended) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return made;
}

WebServer::~WebServer() {
    {
        const std::lock_guard lock(impl_->mutex);
        impl_->stopping = true;
    }
    impl_->stopped.notify_all();
    impl_->server.stop();
    impl_->thread.join();
}

}  // namespace weft::driver
