#include "driver/web_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "driver/socket.h"
#include "tests/must.h"

namespace weft::driver::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// One that was free a moment ago.
int freePort() {
    const UniqueFd socket = must(listenLoopback("127.0.0.1:0"));
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
}

class WebServerTest : public ::testing::Test {
protected:
    WebServerTest()
        : server_(must(WebServer::start(
              "127.0.0.1:" + std::to_string(port_), [this] { return "{\"look\":" + std::to_string(++looks_) + "}"; },
              5ms))) {}

    httplib::Client client() const { return httplib::Client("127.0.0.1", port_); }

    const int port_ = freePort();
    std::atomic<int> looks_ = 0;
    std::unique_ptr<WebServer> server_;
};

TEST_F(WebServerTest, GivesThePageWithAPolicyThatLoadsNothingElse) {
    const auto page = client().Get("/");
    ASSERT_TRUE(page);
    EXPECT_EQ(page->status, 200);
    EXPECT_THAT(page->body, HasSubstr("new EventSource(\"/events\")"));
    EXPECT_THAT(page->body, HasSubstr("</html>"));
    EXPECT_THAT(page->get_header_value("Content-Security-Policy"), HasSubstr("default-src 'none'"));
    EXPECT_EQ(looks_, 0);
}

TEST_F(WebServerTest, TellsTheStateAgainAndAgain) {
    std::string seen;
    const auto result = client().Get("/events", [&](const char* data, size_t size) {
        seen.append(data, size);
        return seen.find("data: {\"look\":3}\n\n") == std::string::npos;
    });
    EXPECT_EQ(result.error(), httplib::Error::Canceled);
    EXPECT_TRUE(seen.starts_with("data: {\"look\":1}\n\ndata: {\"look\":2}\n\n")) << seen;
}

TEST_F(WebServerTest, ChangesNothingAndHasNothingElse) {
    EXPECT_EQ(client().Post("/", "", "text/plain")->status, 404);
    EXPECT_EQ(client().Get("/v1/status")->status, 404);
}

TEST_F(WebServerTest, RefusesOtherNamesForLoopback) {
    EXPECT_EQ(client().Get("/", {{"Host", "evil.example:80"}})->status, 403);
    EXPECT_EQ(client().Get("/events", {{"Host", "evil.example"}})->status, 403);
    EXPECT_EQ(client().Get("/", {{"Host", "localhost:8080"}})->status, 200);
    EXPECT_EQ(looks_, 0);
}

TEST_F(WebServerTest, LetsOnlySoManyWatchAndEndsTheirStreams) {
    std::atomic<size_t> watching = 0;
    std::vector<std::thread> viewers;
    for (size_t i = 0; i < WebServer::kMaxViewers; ++i) {
        viewers.emplace_back([&] {
            bool counted = false;
            (void)client().Get("/events", [&](const char*, size_t) {
                if (!std::exchange(counted, true)) ++watching;
                return true;
            });
        });
    }
    while (watching < WebServer::kMaxViewers) std::this_thread::yield();
    EXPECT_EQ(client().Get("/events")->status, 503);
    EXPECT_EQ(client().Get("/")->status, 200);
    server_.reset();
    for (std::thread& viewer : viewers) viewer.join();
}

TEST(WebServer, RefusesAddressesThatLeaveTheHost) {
    const auto made = WebServer::start("0.0.0.0:8080", [] { return std::string(); });
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().message, HasSubstr("not a loopback address"));
}

TEST(LoopbackHost, IsAnyNameOfLoopback) {
    for (const char* good : {"localhost", "localhost:80", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:80"}) {
        EXPECT_TRUE(isLoopbackHost(good)) << good;
    }
    for (const char* bad : {"", ":80", "localhost.example", "example.com", "10.0.0.1", "[::2]", "127.0.0.1.example"}) {
        EXPECT_FALSE(isLoopbackHost(bad)) << bad;
    }
}

}  // namespace
}  // namespace weft::driver::testing
