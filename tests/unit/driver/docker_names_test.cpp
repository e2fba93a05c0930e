#include "driver/docker_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>

#include "driver/http_server.h"
#include "driver/socket.h"
#include "temp_dir.h"
#include "tests/must.h"

namespace weft::driver::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr const char* kContainers = R"([{"Id": "c1", "Names": ["/web", "/other/alias"],
    "NetworkSettings": {"Networks": {"backend": {"NetworkID": "n1", "EndpointID": "e1"}}}}])";

class DockerNamesTest : public ::testing::Test {
protected:
    void startEngine(std::string containers) {
        socket_.emplace(must(listenUnix(directory_.file("docker.sock"), 0600)));
        std::vector<HttpListener> listeners;
        listeners.push_back({UniqueFd(::dup(socket_->fd())),
                             [this, containers = std::move(containers)](const HttpRequest& request) -> HttpResponse {
                                 ++asked_;
                                 if (request.path == "/networks") return {200, R"([{"Id": "n1", "Name": "backend"}])"};
                                 return {200, containers};
                             },
                             [](int, std::string_view text) { return std::string(text); },
                             {}});
        engine_ = must(HttpServer::start(std::move(listeners)));
    }
    void stopEngine() {
        engine_.reset();
        socket_.reset();
    }

    TempDir directory_;
    ManualClock clock_;
    std::atomic<int> asked_ = 0;
    std::optional<ListeningSocket> socket_;
    std::unique_ptr<HttpServer> engine_;
    DockerNames names_{directory_.file("docker.sock"), clock_};
};

TEST_F(DockerNamesTest, AreWhatTheEngineSays) {
    startEngine(kContainers);
    const NamesById names = names_.get();
    EXPECT_THAT(names.networks, ElementsAre(Pair("n1", "backend")));
    EXPECT_THAT(names.containers, ElementsAre(Pair("e1", "web")));
}

TEST_F(DockerNamesTest, AreAskedForNowAndThen) {
    startEngine(kContainers);
    names_.get();
    names_.get();
    EXPECT_EQ(asked_, 2);  // one for networks, one for containers
    clock_.advance(DockerNames::kAskEvery);
    names_.get();
    EXPECT_EQ(asked_, 4);
}

TEST_F(DockerNamesTest, StayWhileTheEngineIsAway) {
    EXPECT_THAT(names_.get().networks, IsEmpty());
    startEngine(kContainers);
    clock_.advance(DockerNames::kAskEvery);
    EXPECT_EQ(names_.get().networks.size(), 1U);
    stopEngine();
    clock_.advance(DockerNames::kAskEvery);
    EXPECT_EQ(names_.get().networks.size(), 1U);
}

TEST_F(DockerNamesTest, OfAnotherShapeAreNone) {
    startEngine(R"([{"Names": []}])");
    EXPECT_THAT(names_.get().networks, IsEmpty());
}

}  // namespace
}  // namespace weft::driver::testing
