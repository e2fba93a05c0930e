// WebServer: one page for people to look at, and its data. Read-only.
//
//     GET /         the page (web_page.html, which is all there is to it)
//     GET /state    the state as one JSON object; the page asks for it every two seconds
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
    // However many look, the state is asked for once in this time.
    static constexpr std::chrono::milliseconds kEvery{1000};

    // `address` as in listenLoopback(). `state` gives one JSON object, and is called on one of the server's threads at
    // a time; nothing is done while nobody looks.
    static Result<std::unique_ptr<WebServer>> start(std::string_view address, std::function<std::string()> state,
                                                    std::chrono::milliseconds every = kEvery);
    // Waits for what is under way.
    ~WebServer();

private:
    WebServer();

    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// Whether a Host header names this machine's loopback: "localhost", "127.x.y.z" or "[::1]", with or without a port.
bool isLoopbackHost(std::string_view host);

}  // namespace weft::driver
