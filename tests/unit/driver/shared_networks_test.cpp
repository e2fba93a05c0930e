// SharedNetworks over a real store of one and an engine that is a few lines of HTTP.
#include "driver/shared_networks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/database.h"
#include "base/metrics.h"
#include "driver/http_server.h"
#include "driver/socket.h"
#include "drivers/overlay/overlay_rows.h"
#include "kv/service.h"
#include "temp_dir.h"
#include "tests/must.h"

namespace weft::driver::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Json = nlohmann::json;

class FakeEngine {
public:
    explicit FakeEngine(const std::string& path) : path_(path) { start(); }

    void start() {
        socket_.emplace(must(listenUnix(path_, 0600)));
        std::vector<HttpListener> listeners;
        listeners.push_back({UniqueFd(::dup(socket_->fd())),
                             [this](const HttpRequest& request) { return handle(request); },
                             [](int, std::string_view text) { return std::string(text); },
                             {}});
        server_ = must(HttpServer::start(std::move(listeners)));
    }
    void stop() {
        server_.reset();
        socket_.reset();
    }

    // Name and labels, as made; users are containers on all networks.
    void add(const std::string& name, const Json& labels) {
        const std::lock_guard lock(mutex_);
        networks_[name] = labels;
    }
    std::optional<Json> labels(const std::string& name) {
        const std::lock_guard lock(mutex_);
        const auto found = networks_.find(name);
        return found == networks_.end() ? std::nullopt : std::optional(found->second);
    }
    void setUsers(const Json& users) {
        const std::lock_guard lock(mutex_);
        users_ = users;
    }
    void refuse(const std::string& words) {
        const std::lock_guard lock(mutex_);
        refusal_ = words;
    }

private:
    HttpResponse handle(const HttpRequest& request) {
        const std::lock_guard lock(mutex_);
        const std::string id = request.path.substr(std::string("/networks").size());
        if (id.empty()) {
            Json list = Json::array();
            for (const auto& [name, labels] : networks_)
                list.push_back({{"Id", name}, {"Name", name}, {"Labels", labels}});
            return {200, list.dump()};
        }
        if (id == "/create") {
            if (!refusal_.empty()) return {500, Json{{"message", refusal_}}.dump()};
            const Json body = Json::parse(request.body);
            networks_[body.at("Name")] = body.at("Labels");
            return {201, R"({"Id":"x"})"};
        }
        if (id.ends_with("/disconnect")) {
            users_.erase(Json::parse(request.body).at("Container").get<std::string>());
            return {200, ""};
        }
        if (request.method == "GET") return {200, Json{{"Containers", users_}}.dump()};
        if (!users_.empty()) return {403, R"({"message":"has active endpoints"})"};
        networks_.erase(id.substr(1));
        return {204, ""};
    }

    const std::string path_;
    std::mutex mutex_;
    std::map<std::string, Json> networks_;
    Json users_ = Json::object();
    std::string refusal_;
    std::optional<ListeningSocket> socket_;
    std::unique_ptr<HttpServer> server_;
};

class SharedNetworksTest : public ::testing::Test {
protected:
    SharedNetworksTest() {
        const std::array components{kv::Service::schema()};
        database_ = must(Database::open(directory_.file("weft.db"), components));
        kv::ServiceConfig gossip;
        gossip.nodeName = "here";
        gossip.stateDir = directory_.path();
        gossip_ = must(kv::Service::start(gossip, *database_, metrics_));
        start();
    }

    void start() {
        networks_.reset();
        SharedNetworksConfig config{directory_.file("docker.sock"), {"web"}, {}};
        config.removeForgotten = [this](const std::string& name, const std::set<NetworkId>& known) -> Result<void> {
            const std::lock_guard lock(mutex_);
            lookedFor_[name] = known;
            return {};
        };
        networks_ = must(SharedNetworks::start(std::move(config), *gossip_, clock_));
    }

    static NetworkSpec spec(const std::string& name, const std::string& subnet = "10.32.0.0/16") {
        NetworkSpec made;
        made.name = name;
        made.subnets = {must(IpPrefix::parse(subnet))};
        return made;
    }

    HostState stateOf(const std::string& name) {
        for (const SharedNetwork& network : must(networks_->list())) {
            if (network.name == name) return network.hosts.at(0).state;
        }
        return HostState::Removed;
    }
    bool soon(const std::function<bool()>& holds) {
        for (const auto limit = std::chrono::steady_clock::now() + 15s; !holds();) {
            if (std::chrono::steady_clock::now() > limit) return false;
            std::this_thread::sleep_for(5ms);
        }
        return true;
    }
    bool soonIs(const std::string& name, HostState state) {
        return soon([&] { return stateOf(name) == state; });
    }

    std::mutex mutex_;
    std::map<std::string, std::set<NetworkId>> lookedFor_;  // as forgotten by the engine
    TempDir directory_;
    Metrics metrics_;
    SystemClock clock_;
    std::unique_ptr<Database> database_;
    std::unique_ptr<kv::Service> gossip_;
    FakeEngine engine_{directory_.file("docker.sock")};
    std::unique_ptr<SharedNetworks> networks_;
};

TEST_F(SharedNetworksTest, MakesAndRemoves) {
    must(networks_->create(spec("shop")));
    EXPECT_TRUE(engine_.labels("shop")->contains(kStampLabel));
    EXPECT_EQ(networks_->create(spec("shop")).error().code, ErrorCode::AlreadyExists);
    must(networks_->remove("shop", false));
    EXPECT_TRUE(soon([this] { return !engine_.labels("shop"); }));
    EXPECT_TRUE(soonIs("shop", HostState::Removed));
    EXPECT_EQ(networks_->remove("shop", false).error().code, ErrorCode::NotFound);
    must(networks_->create(spec("shop", "10.40.0.0/16")));
    EXPECT_TRUE(soonIs("shop", HostState::Ready));
}

TEST_F(SharedNetworksTest, LeavesNothingWhenTheEngineRefuses) {
    engine_.refuse("no room");
    EXPECT_THAT(networks_->create(spec("shop")).error().message, HasSubstr("no room"));
    EXPECT_TRUE(must(networks_->list()).empty());
    engine_.refuse("");
    must(networks_->create(spec("shop")));
}

TEST_F(SharedNetworksTest, MakesNothingWithoutAnEngine) {
    engine_.stop();
    EXPECT_EQ(networks_->create(spec("shop")).error().code, ErrorCode::Unavailable);
    engine_.start();
    must(networks_->create(spec("shop")));
}

TEST_F(SharedNetworksTest, LeavesTheUsersOwnAlone) {
    engine_.add("mine", Json::object());
    EXPECT_EQ(networks_->create(spec("mine")).error().code, ErrorCode::AlreadyExists);
    engine_.add("shop", nullptr);
    must(kv::put(*gossip_, "networks/shop",
                 must(encode("shop", NetworkRow{.stamp = 1, .spec = spec("shop"), .state = HostState::Waiting}))));
    EXPECT_TRUE(soonIs("shop", HostState::ByHand));
    EXPECT_THAT(networks_->warnings().at(0), HasSubstr("shop"));
    must(networks_->remove("shop", true));
    EXPECT_TRUE(soonIs("shop", HostState::Removed));
    EXPECT_TRUE(engine_.labels("shop"));
}

// A create that was killed between two steps.
TEST_F(SharedNetworksTest, FinishesADraftThatTheEngineHasAndForgetsOneItHasNot) {
    networks_.reset();
    engine_.add("made", {{kStampLabel, "7"}});
    for (const char* name : {"made", "lost"}) {
        must(kv::put(*gossip_, std::string("networks/") + name, must(encode(name, {.stamp = 7, .spec = spec(name)}))));
    }
    start();
    EXPECT_TRUE(soonIs("made", HostState::Ready));
    EXPECT_TRUE(soonIs("lost", HostState::Removed));
    EXPECT_FALSE(engine_.labels("lost"));
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(lookedFor_.at("lost"), std::set{NetworkId("made")}) << "the driver may have what the engine has not";
}

TEST_F(SharedNetworksTest, WaitsForAnEngineThatIsStillMakingADraft) {
    networks_.reset();
    const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.wall().time_since_epoch()).count();
    const auto stamp = static_cast<uint64_t>(now);
    must(kv::put(*gossip_, "networks/late", must(encode("late", {.stamp = stamp, .spec = spec("late")}))));
    start();
    std::this_thread::sleep_for(50ms);
    engine_.add("late", {{kStampLabel, std::to_string(stamp)}});
    EXPECT_TRUE(soonIs("late", HostState::Ready));
}

TEST_F(SharedNetworksTest, WaitsForContainersUnlessForced) {
    must(networks_->create(spec("shop")));
    must(kv::put(*gossip_, endpointKey("shop", EndpointId("e1")), "row"));
    EXPECT_THAT(networks_->remove("shop", false).error().message, HasSubstr("endpoint e1 on here"));
    must(kv::erase(*gossip_, endpointKey("shop", EndpointId("e1"))));
    engine_.setUsers({{"c1", {{"Name", "late"}}}});
    must(networks_->remove("shop", false));
    EXPECT_TRUE(soonIs("shop", HostState::InUse));
    EXPECT_THAT(networks_->warnings().at(0), HasSubstr("by late"));
    EXPECT_EQ(networks_->create(spec("shop")).error().code, ErrorCode::AlreadyExists);
    must(networks_->remove("shop", true));
    EXPECT_TRUE(soonIs("shop", HostState::Removed));

    must(kv::put(*gossip_, "networks/other",
                 must(encode("other", {.stamp = 1, .spec = spec("other"), .state = HostState::Ready}))));
    EXPECT_TRUE(soonIs("other", HostState::Ready));
    must(networks_->remove("other", true));
    EXPECT_TRUE(soon([this] { return !engine_.labels("other"); }));
}

TEST_F(SharedNetworksTest, IsOnlyOnHostsWithTheLabel) {
    NetworkSpec meant = spec("meant");
    meant.hosts = "web";
    NetworkSpec foreign = spec("foreign", "10.33.0.0/16");
    foreign.hosts = "db";
    must(networks_->create(meant));
    must(networks_->create(foreign));
    EXPECT_TRUE(engine_.labels("meant"));
    EXPECT_FALSE(engine_.labels("foreign"));
    EXPECT_EQ(stateOf("foreign"), HostState::Elsewhere);
}

}  // namespace
}  // namespace weft::driver::testing
