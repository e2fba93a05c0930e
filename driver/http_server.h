// HttpServer: HTTP/1.1 on listening sockets that somebody else made (systemd, or listenUnix()).
//
// One thread accepts and reads; a request goes to a worker thread only when it is there as a whole. So a client that
// sends half a request costs a descriptor and a buffer, never a worker, and is answered 408 after kRequestTimeout.
// Each listener has connections and workers of its own, so that what strangers do at one costs nothing at another.
// Workers are made as needed up to the listener's `maxWorkers` and end when idle; further requests queue. Idle
// kept-alive connections stay open, unless the listener says otherwise: a unix socket's dead peer is noticed by its
// hang-up, and closing one races with the engine's next call.
//
// The server looks at neither Host nor Content-Type: engines differ in them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace weft::driver {

inline constexpr size_t kMaxBody = 1U << 20;  // bytes; above: 413
inline constexpr size_t kMaxConnections = 1024;
inline constexpr size_t kMaxWorkers = 64;

struct HttpRequest {
    std::string method;  // "POST"
    std::string path;    // without the query
    std::string query;   // raw, after '?'
    std::string body;
    std::string host{};  // the header, "localhost:8080"
};

struct HttpResponse {
    int status = 200;
    std::string body;
    std::string contentType = "application/json";
    std::vector<std::pair<std::string, std::string>> headers{};  // further ones
};

// Called on worker threads, several at once. May throw nothing.
using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

// Turns errors of HTTP itself (400, 403, 408, 413, ...) into a body. Any thread.
using HttpErrorBody = std::function<std::string(int status, std::string_view text)>;

struct HttpListener {
    UniqueFd socket;  // listening
    HttpHandler handler;
    HttpErrorBody errorBody;
    // Only peers of this user and root may talk (SO_PEERCRED); others get 403. Unix sockets only.
    std::optional<uint32_t> onlyUser;
    // A request is answered within this time from its last byte: 504 if its handler is not done, which then finishes
    // for itself, or never runs if it still waits for a worker. The handler's CallDeadline ends 1.5 s before, so that
    // it can say itself what it waited for, and undo.
    std::optional<std::chrono::milliseconds> answerWithin{};
    size_t maxConnections = kMaxConnections;
    size_t maxWorkers = kMaxWorkers;
    // For a port that anybody may connect to. A connection on which nothing was asked for so long is closed; and when
    // there are `maxConnections`, the one that asks for nothing the longest makes room for a new one.
    std::optional<std::chrono::milliseconds> idleTimeout{};
};

struct HttpLimits {
    std::chrono::milliseconds requestTimeout{5000};   // first byte to last byte of a request
    std::chrono::milliseconds responseTimeout{5000};  // for the peer to take the answer
};

class HttpServer {
public:
    // Serves until stop() or destruction.
    static Result<std::unique_ptr<HttpServer>> start(std::vector<HttpListener> listeners, HttpLimits limits = {});
    ~HttpServer();

    // Takes no further requests, waits for the handlers under way, and closes. Repeating is harmless.
    void stop();

private:
    HttpServer();

    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// One request of raw bytes to raw answer bytes, without sockets: what a worker does. `close` says that the connection
// must not be used again.
std::string answerRequest(std::string_view raw, const HttpHandler& handler, const HttpErrorBody& errorBody,
                          bool& close);

}  // namespace weft::driver
