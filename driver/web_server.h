// WebServer: one page for people to look at, and its data by server-sent events. Read-only.
//
//     GET /         the page (web_page.html, which is all there is to it)
//     GET /events   text/event-stream: the state as one JSON object a message, each kEvery
//
// It asks for no password, so it listens on loopback only, and it answers only requests whose Host is a loopback
// address or localhost: a page of the web that makes its own name mean 127.0.0.1 gets 403.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace weft::driver {

class WebServer {
public:
    static constexpr size_t kMaxViewers = 16;  // of /events; the next gets 503
    static constexpr std::chrono::milliseconds kEvery{2000};

    // `address` as in listenLoopback(). `state` gives one line of JSON, and is called on the server's threads, once a
    // message and viewer; nothing is done while nobody looks.
    static Result<std::unique_ptr<WebServer>> start(std::string_view address, std::function<std::string()> state,
                                                    std::chrono::milliseconds every = kEvery);
    // Ends the streams and waits for what is under way.
    ~WebServer();

private:
    WebServer();

    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// Whether a Host header names this machine's loopback: "localhost", "127.x.y.z" or "[::1]", with or without a port.
bool isLoopbackHost(std::string_view host);

}  // namespace weft::driver
