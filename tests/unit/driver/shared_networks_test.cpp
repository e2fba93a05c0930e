// SharedNetworks over a real store of one and an engine that is a few lines of HTTP.
#include "driver/shared_networks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
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

    // How often /networks/NAME was asked for.
    int asked(const std::string& name) {
        const std::lock_guard lock(mutex_);
        return asked_[name];
    }
    // Of the list of all networks; those of one name are answered meanwhile.
    void hide(bool hidden) {
        const std::lock_guard lock(mutex_);
        hidden_ = hidden;
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
    void remove(const std::string& name) {
        const std::lock_guard lock(mutex_);
        networks_.erase(name);
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
            for (const auto& [name, labels] : hidden_ ? decltype(networks_)() : networks_)
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
        if (request.method == "GET") {
            ++asked_[id.substr(1)];
            if (!networks_.contains(id.substr(1))) return {404, R"({"message":"not found"})"};
            return {200, Json{{"Containers", users_}}.dump()};
        }
        if (!users_.empty()) return {403, R"({"message":"has active endpoints"})"};
        networks_.erase(id.substr(1));
        return {204, ""};
    }

    const std::string path_;
    std::mutex mutex_;
    std::map<std::string, Json> networks_;
    std::map<std::string, int> asked_;
    bool hidden_ = false;
    Json users_ = Json::object();
    std::string refusal_;
    std::optional<ListeningSocket> socket_;
    std::unique_ptr<HttpServer> server_;
};

class ShiftedClock final : public Clock {
public:
    [[nodiscard]] Monotonic now() const override { return std::chrono::steady_clock::now() + shift_.load(); }
    [[nodiscard]] Wall wall() const override { return std::chrono::system_clock::now(); }
    void advance(std::chrono::seconds by) { shift_ = shift_.load() + by; }

private:
    std::atomic<std::chrono::seconds> shift_{0s};
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
        config.removeForgotten = [this](const std::string& name, const EngineKnows& known) -> Result<void> {
            const auto stays = known(NetworkId(name));
            const std::lock_guard lock(mutex_);
            if (stays) ++(*stays ? kept_ : forgotten_)[name];
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
    std::map<std::string, int> kept_;       // how often it was said that the engine has it
    std::map<std::string, int> forgotten_;  // or has not
    TempDir directory_;
    Metrics metrics_;
    ShiftedClock clock_;
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
    // The driver may have what the engine has not, and only the row leads there.
    const auto rows = [this] {
        const auto count = std::make_shared<size_t>();
        must(gossip_->call([count](kv::Node& node) { *count = node.table().list("networks/lost").size(); }));
        return *count;
    };
    EXPECT_TRUE(soon([this] {
        const std::lock_guard lock(mutex_);
        return kept_["lost"] > 1;
    }));
    EXPECT_EQ(rows(), 1U);
    clock_.advance(61s);
    EXPECT_TRUE(soon([&] { return rows() == 0; }));
    const std::lock_guard lock(mutex_);
    EXPECT_GT(forgotten_["lost"], 0);
}

TEST_F(SharedNetworksTest, AskAgainBeforeANetworkIsTakenForForgotten) {
    const auto count = [this](std::map<std::string, int>& of, const std::string& name) {
        const std::lock_guard lock(mutex_);
        return of[name];
    };
    int turns = 0;
    const auto turn = [&] {  // a look at all networks, started after this call
        for (int i = 0; i < 2; ++i) {
            const int before = count(kept_, "shop") + count(forgotten_, "shop");
            must(kv::put(*gossip_, "networks/other", must(encode("other", {.stamp = static_cast<uint64_t>(++turns)}))));
            ASSERT_TRUE(soon([&] { return count(kept_, "shop") + count(forgotten_, "shop") > before; }));
        }
    };
    must(networks_->create(spec("shop")));
    must(networks_->remove("shop", false));
    ASSERT_TRUE(soonIs("shop", HostState::Removed));
    turn();
    // What was made a moment ago is in nobody's list.
    EXPECT_EQ(count(forgotten_, "shop"), 0);
    EXPECT_EQ(engine_.asked("shop"), 0);
    clock_.advance(61s);
    engine_.add("shop", nullptr);
    engine_.hide(true);
    turn();
    EXPECT_EQ(count(forgotten_, "shop"), 0) << "made after the list was asked for";
    EXPECT_GT(engine_.asked("shop"), 0);
    engine_.remove("shop");
    clock_.advance(61s);
    turn();
    clock_.advance(61s);
    turn();
    EXPECT_GT(count(forgotten_, "shop"), 0);
}

TEST_F(SharedNetworksTest, ARowMayNotSpeakOfAnotherNetwork) {
    must(kv::put(*gossip_, "networks/shop",
                 must(encode("shop", {.stamp = 1, .spec = spec("mine"), .state = HostState::Ready}))));
    must(networks_->create(spec("after")));
    EXPECT_TRUE(soonIs("after", HostState::Ready));
    EXPECT_EQ(stateOf("shop"), HostState::Removed);
    EXPECT_FALSE(engine_.labels("mine"));
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
