#include "driver/http_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <future>
#include <thread>

#include "base/deadline.h"
#include "driver/plugin_api.h"
#include "driver/socket.h"
#include "raw_client.h"
#include "temp_dir.h"
#include "tests/must.h"

namespace weft::driver::testing {
namespace {

class HttpServerTest : public ::testing::Test {
protected:
    // One that any user may connect to, beside the one of serve().
    struct Anybody {
        std::string path;
        size_t maxConnections;
        std::chrono::milliseconds idleTimeout;
        HttpHandler handler;
    };

    void serve(HttpHandler handler, const Anybody& anybody) {
        std::vector<HttpListener> listeners(2);
        sockets_.push_back(must(listenUnix(path_, 0660)));
        listeners[0].socket = UniqueFd(::dup(sockets_.back().fd()));
        listeners[0].handler = std::move(handler);
        sockets_.push_back(must(listenUnix(anybody.path, 0660)));
        listeners[1].socket = UniqueFd(::dup(sockets_.back().fd()));
        listeners[1].handler = anybody.handler;
        listeners[1].maxConnections = anybody.maxConnections;
        listeners[1].maxWorkers = 2;
        listeners[1].idleTimeout = anybody.idleTimeout;
        for (HttpListener& listener : listeners) listener.errorBody = pluginErrorBody;
        server_ = must(HttpServer::start(std::move(listeners)));
    }

    void serve(HttpHandler handler, HttpLimits limits = {}, std::optional<uint32_t> onlyUser = {},
               std::optional<std::chrono::milliseconds> answerWithin = {}) {
        auto socket = listenUnix(path_, 0660);
        ASSERT_TRUE(socket) << socket.error().message;
        std::vector<HttpListener> listeners;
        listeners.push_back(
            {UniqueFd(::dup(socket->fd())), std::move(handler), pluginErrorBody, onlyUser, answerWithin});
        sockets_.push_back(std::move(*socket));
        auto server = HttpServer::start(std::move(listeners), limits);
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
    }

    static HttpResponse echo(const HttpRequest& request) {
        return {200, request.method + " " + request.path + " [" + request.query + "] " + request.body, "text/x"};
    }

    TempDir dir_;
    std::string path_ = dir_.file("test.sock");
    std::vector<ListeningSocket> sockets_;
    std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersManyRequestsOnOneConnection) {
    serve(echo);
    RawClient client(path_);
    for (int i = 0; i < 100; ++i) {
        const RawAnswer answer = client.post("Method." + std::to_string(i), "body");
        ASSERT_EQ(answer.status, 200);
        ASSERT_EQ(answer.body, "POST /Method." + std::to_string(i) + " [] body");
    }
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
    serve(echo);
    RawClient client(path_);
    client.send(
        "GET /a?q=1 HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 1\r\n\r\nxGET /c HTTP/1.1\r\n\r\nPOST /d HT");
    EXPECT_EQ(client.receive().body, "GET /a [q=1] ");
    EXPECT_EQ(client.receive().body, "POST /b [] x");
    EXPECT_EQ(client.receive().body, "GET /c [] ");
    client.send("TP/1.1\r\n\r\n");
    EXPECT_EQ(client.receive().body, "POST /d [] ");
}

TEST_F(HttpServerTest, TakesBodiesInChunksAndAnyHostAndContentType) {
    serve(echo);
    RawClient client(path_);
    client.send(
        "POST /x HTTP/1.1\r\nHost: %2Frun%2Fx.sock\r\nContent-Type: multipart/form-data; boundary=\r\n"
        "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    EXPECT_EQ(client.receive().body, "POST /x [] abc");
}

TEST_F(HttpServerTest, ClosesWhenAsked) {
    serve(echo);
    RawClient client(path_);
    client.send("GET /x HTTP/1.1\r\nConnection: close\r\n\r\n");
    EXPECT_EQ(client.receive().status, 200);
    EXPECT_TRUE(client.closedByPeer());
}

TEST_F(HttpServerTest, AnswersAPeerThatClosedItsSendingHalf) {
    serve(echo);
    RawClient client(path_);
    client.send("GET /x HTTP/1.1\r\n\r\n");
    ::shutdown(client.fd(), SHUT_WR);
    EXPECT_EQ(client.receive().status, 200);
}

TEST_F(HttpServerTest, RefusesTooLargeABodyWhilstItIsStillBeingSent) {
    serve(echo);
    RawClient client(path_);
    const std::string body(3 * kMaxBody, 'x');
    // The whole is taken and dropped, so that the peer gets to read the answer.
    const RawAnswer answer = client.post("NetworkDriver.CreateNetwork", body);
    EXPECT_EQ(answer.status, 413);
    EXPECT_EQ(
        answer.body,
        R"({"Err":"request body is larger than 1048576 bytes","Error":"request body is larger than 1048576 bytes"})");
    EXPECT_EQ(RawClient(path_).post("ok", "").status, 200);
}

TEST_F(HttpServerTest, RefusesWhatIsNotHttp) {
    serve(echo);
    for (const std::string text : {"hello\r\n\r\n", "GET\r\n\r\n", "\r\n\r\n", "POST /x HTTP/9.9\r\n\r\n",
                                   "POST /x HTTP/1.1\r\nContent-Length: many\r\n\r\n"}) {
        RawClient client(path_);
        client.send(text);
        const RawAnswer answer = client.receive();
        EXPECT_EQ(answer.status, 400) << text;
        EXPECT_NE(answer.body.find("\"Err\":"), std::string::npos) << text;
    }
    EXPECT_EQ(RawClient(path_).post("ok", "").status, 200);
}

TEST_F(HttpServerTest, LongHeadersNeverOverflowAWorkersStack) {
    serve(echo);
    for (const std::string name : {"Range: bytes=", "Cookie: ", "Accept-Encoding: ", "Content-Type: ", "X: "}) {
        std::string value;
        while (value.size() < 8000) value += "1-2,";
        RawClient client(path_);
        client.send("POST /x HTTP/1.1\r\n" + name + value + "\r\n\r\n");
        EXPECT_NE(client.receive().status, 0) << name;
    }
    RawClient client(path_);
    client.send("POST /" + std::string(8000, 'a') + " HTTP/1.1\r\n\r\n");
    EXPECT_NE(client.receive().status, 0);
}

TEST_F(HttpServerTest, HalfSentRequestsHoldUpNobody) {
    HttpLimits limits;
    limits.requestTimeout = std::chrono::milliseconds(1500);
    serve(echo, limits);
    std::vector<std::unique_ptr<RawClient>> stuck;
    for (int i = 0; i < 200; ++i) {
        stuck.push_back(std::make_unique<RawClient>(path_));
        ASSERT_TRUE(stuck.back()->connected());
        stuck.back()->send(i % 2 == 0 ? "POST /NetworkDri" : "POST /x HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf");
    }
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 200; ++i) ASSERT_EQ(RawClient(path_).post("ok", "body").status, 200);
    EXPECT_LT(std::chrono::steady_clock::now() - start, limits.requestTimeout);
    for (auto& client : stuck) {
        const RawAnswer answer = client->receive();
        EXPECT_EQ(answer.status, 408);
        EXPECT_NE(answer.body.find("not complete within"), std::string::npos);
    }
}

TEST_F(HttpServerTest, ServesManyAtOnce) {
    constexpr int kCalls = 32;
    std::barrier together(kCalls);  // passes only if all are within the handler at the same time
    serve([&together](const HttpRequest& request) {
        together.arrive_and_wait();
        return echo(request);
    });
    std::vector<std::future<int>> answers;
    for (int i = 0; i < kCalls; ++i) {
        answers.push_back(std::async(std::launch::async, [this] { return RawClient(path_).post("x", "").status; }));
    }
    for (auto& answer : answers) EXPECT_EQ(answer.get(), 200);
}

TEST_F(HttpServerTest, SurvivesPeersThatGoAway) {
    std::atomic<int> served{0};
    serve([&served](const HttpRequest&) {
        ++served;
        return HttpResponse{200, std::string(1 << 20, 'x'), "text/x"};
    });
    for (int i = 0; i < 20; ++i) {
        RawClient client(path_);
        client.send("POST /x HTTP/1.1\r\n\r\n");
    }
    EXPECT_EQ(RawClient(path_).post("x", "").body.size(), 1U << 20);
    EXPECT_GE(served, 1);
}

TEST_F(HttpServerTest, GivesUpOnAPeerThatDoesNotReadItsAnswer) {
    HttpLimits limits;
    limits.responseTimeout = std::chrono::milliseconds(200);
    serve([](const HttpRequest&) { return HttpResponse{200, std::string(8 << 20, 'x'), "text/x"}; }, limits);
    RawClient deaf(path_);
    deaf.send("POST /x HTTP/1.1\r\n\r\n");
    const auto start = std::chrono::steady_clock::now();
    server_->stop();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST_F(HttpServerTest, AnswersForAHandlerThatTakesTooLong) {
    std::promise<void> release;
    const std::shared_future<void> released = release.get_future().share();
    std::atomic<int> ended{0};
    serve(
        [&](const HttpRequest& request) {
            if (request.path == "/slow") released.wait();
            ++ended;
            return echo(request);
        },
        {}, {}, std::chrono::milliseconds(300));
    // All workers, and more that wait for one.
    std::vector<std::unique_ptr<RawClient>> clients;
    for (size_t i = 0; i < kMaxWorkers + 10; ++i) {
        clients.push_back(std::make_unique<RawClient>(path_));
        clients.back()->send("POST /slow HTTP/1.1\r\n\r\n");
    }
    for (auto& client : clients) {
        const RawAnswer answer = client->receive();
        EXPECT_EQ(answer.status, 504);
        EXPECT_NE(answer.body.find("not done within 300 ms"), std::string::npos);
        EXPECT_TRUE(client->closedByPeer());
    }
    EXPECT_EQ(ended, 0);
    release.set_value();
    // Of a connection that goes on, only the request under way counts.
    RawClient kept(path_);
    EXPECT_EQ(kept.post("fast", "").status, 200);
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    EXPECT_EQ(kept.post("fast", "").status, 200);
    server_->stop();
    EXPECT_EQ(ended, static_cast<int>(kMaxWorkers) + 2);
}

TEST_F(HttpServerTest, AHandlersWaitsEndBeforeItIsAnsweredFor) {
    std::promise<std::optional<std::chrono::milliseconds>> left;
    const auto handler = [&](const HttpRequest& request) {
        left.set_value(CallDeadline::left());
        return echo(request);
    };
    serve(handler, {}, {}, std::chrono::seconds(20));
    EXPECT_EQ(RawClient(path_).post("call", "").status, 200);
    const auto bounded = left.get_future().get();
    ASSERT_TRUE(bounded);
    EXPECT_LE(*bounded, std::chrono::milliseconds(18500));
    EXPECT_GT(*bounded, std::chrono::seconds(10));
    server_->stop();
    sockets_.clear();
    left = {};
    serve(handler);
    EXPECT_EQ(RawClient(path_).post("call", "").status, 200);
    EXPECT_FALSE(left.get_future().get());
}

// Connections held at a port for anybody.
TEST_F(HttpServerTest, StrangersAtOneListenerTakeNothingFromAnother) {
    const std::string open = dir_.file("open.sock");
    serve(echo, {open, 8, std::chrono::seconds(60), echo});
    std::vector<std::unique_ptr<RawClient>> idle;
    for (size_t i = 0; i < kMaxConnections + 100; ++i) {
        idle.push_back(std::make_unique<RawClient>(open));
        ASSERT_TRUE(idle.back()->connected());
    }
    EXPECT_EQ(RawClient(path_).post("x", "").status, 200);
    EXPECT_EQ(RawClient(open).post("x", "").status, 200) << "the idle make room";
    EXPECT_TRUE(idle.front()->closedByPeer());
}

TEST_F(HttpServerTest, BusyWorkersOfOneListenerLeaveAnotherItsOwn) {
    const std::string open = dir_.file("open.sock");
    std::promise<void> release;
    const auto released = release.get_future().share();
    std::atomic<int> waiting{0};
    serve(echo, {open, 200, std::chrono::seconds(60), [&](const HttpRequest& request) {
                     ++waiting;
                     released.wait();
                     return echo(request);
                 }});
    std::vector<std::unique_ptr<RawClient>> clients;
    for (size_t i = 0; i < 2 * kMaxWorkers + 10; ++i) {
        clients.push_back(std::make_unique<RawClient>(open));
        ASSERT_TRUE(clients.back()->send("GET /x HTTP/1.1\r\n\r\n"));
    }
    EXPECT_EQ(RawClient(path_).post("x", "").status, 200);
    EXPECT_LE(waiting, 2);
    release.set_value();
    for (auto& client : clients) EXPECT_EQ(client->receive().status, 200);
}

TEST_F(HttpServerTest, AnIdleConnectionOfAnybodyEnds) {
    const std::string open = dir_.file("open.sock");
    serve(echo, {open, 8, std::chrono::milliseconds(150), echo});
    RawClient silent(open);
    RawClient asked(open);
    RawClient trusted(path_);
    EXPECT_EQ(asked.post("x", "").status, 200);
    EXPECT_TRUE(silent.closedByPeer());
    EXPECT_TRUE(asked.closedByPeer());
    EXPECT_EQ(trusted.post("x", "").status, 200);
}

TEST_F(HttpServerTest, StopFinishesTheCallsUnderWay) {
    std::promise<void> entered;
    std::promise<void> release;
    serve([&](const HttpRequest& request) {
        entered.set_value();
        release.get_future().wait();
        return echo(request);
    });
    RawClient client(path_);
    client.send("POST /x HTTP/1.1\r\n\r\n");
    entered.get_future().wait();
    auto stopped = std::async(std::launch::async, [this] { server_->stop(); });
    release.set_value();
    stopped.get();
    EXPECT_EQ(client.receive().status, 200);
}

TEST_F(HttpServerTest, LetsInOnlyRootAndTheUserNamed) {
    // Tests may run as root or as anybody: one's own user is let in either way.
    serve(echo, {}, ::getuid());
    EXPECT_EQ(RawClient(path_).post("x", "").status, 200);
    if (::getuid() == 0) return;
    server_.reset();
    sockets_.clear();
    serve(echo, {}, ::getuid() + 1);
    EXPECT_EQ(RawClient(path_).post("x", "").status, 403);
}

TEST_F(HttpServerTest, AHandlersExceptionIsAnAnswer) {
    serve([](const HttpRequest&) -> HttpResponse { throw std::runtime_error("oops"); });
    const RawAnswer answer = RawClient(path_).post("x", "");
    EXPECT_EQ(answer.status, 500);
    EXPECT_EQ(answer.body, R"({"Err":"internal error: oops","Error":"internal error: oops"})");
}

}  // namespace
}  // namespace weft::driver::testing
