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
    EXPECT_THAT(page->body, HasSubstr("fetch(\"/state\")"));
    EXPECT_THAT(page->body, HasSubstr("</html>"));
    EXPECT_THAT(page->get_header_value("Content-Security-Policy"), HasSubstr("default-src 'none'"));
    EXPECT_EQ(looks_, 0);
}

TEST_F(WebServerTest, TellsTheState) {
    EXPECT_EQ(client().Get("/state")->body, "{\"look\":1}");
    std::this_thread::sleep_for(6ms);
    EXPECT_EQ(client().Get("/state")->body, "{\"look\":2}");
}

TEST_F(WebServerTest, ComposesTheStateOnceForAllWhoLook) {
    server_.reset();
    server_ = must(WebServer::start(
        "127.0.0.1:" + std::to_string(port_), [this] { return std::to_string(++looks_); }, 1h));
    std::vector<std::thread> viewers;
    for (int i = 0; i < 8; ++i) {
        viewers.emplace_back([&] { EXPECT_EQ(client().Get("/state")->body, "1"); });
    }
    for (std::thread& viewer : viewers) viewer.join();
}

TEST_F(WebServerTest, SlowConnectionsKeepNobodyAway) {
    std::vector<UniqueFd> slow;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < 200; ++i) {
        slow.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        ASSERT_EQ(::connect(slow.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
        ::send(slow.back().get(), "GET / HT", 8, MSG_NOSIGNAL);
    }
    const auto page = client().Get("/");
    ASSERT_TRUE(page);
    EXPECT_EQ(page->status, 200);
}

TEST_F(WebServerTest, ChangesNothingAndHasNothingElse) {
    EXPECT_EQ(client().Post("/", "", "text/plain")->status, 404);
    EXPECT_EQ(client().Get("/v1/status")->status, 404);
}

TEST_F(WebServerTest, RefusesOtherNamesForLoopback) {
    EXPECT_EQ(client().Get("/", {{"Host", "evil.example:80"}})->status, 403);
    EXPECT_EQ(client().Get("/state", {{"Host", "evil.example"}})->status, 403);
    EXPECT_EQ(client().Get("/", {{"Host", "localhost:8080"}})->status, 200);
    EXPECT_EQ(looks_, 0);
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
