// OwnRows on a simulated node whose disk takes its time, or nothing.
#include "kv/own_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/deadline.h"
#include "tests/unit/kv/simulator.h"

namespace weft::kv {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class OwnRowsTest : public testing::Test, public Runner {
protected:
    OwnRowsTest() {
        cluster_.add();
        cluster_.add();
        cluster_.start(0);
        cluster_.start(1);
        cluster_.run(3s);
    }
    ~OwnRowsTest() override {
        cluster_.crash(0);
        cluster_.crash(1);
    }

    void post(std::function<void(Node&)> work) override {
        ++posted_;
        work(cluster_.node(0));
    }
    Result<void> call(std::function<void(Node&)> work, std::chrono::milliseconds) override {
        post(std::move(work));
        return {};
    }

    // What the other host sees of this one.
    std::map<std::string, std::string> heard(Clock::Monotonic::duration after = 3s) {
        cluster_.run(after);
        std::map<std::string, std::string> rows;
        for (const Row& row : cluster_.node(1).table().list("")) {
            if (row.owner == cluster_.id(0)) rows.emplace(row.key, row.value);
        }
        return rows;
    }

    static Config config() {
        Config config = sim::fastConfig();
        config.seeds = {sim::hostAddress(0)};
        return config;
    }

    sim::Cluster cluster_{1, config()};
    OwnRows rows_{*this};
    int posted_ = 0;
};

TEST_F(OwnRowsTest, AFullDiskForASecondLeavesNothingBehind) {
    rows_.put("a", "1");
    rows_.put("b", "1");
    EXPECT_THAT(heard(), ElementsAre(Pair("a", "1"), Pair("b", "1")));
    cluster_.fullDisks = {0};
    rows_.put("a", "2");
    rows_.put("c", "1");
    rows_.erase("b");
    cluster_.run(1s);
    EXPECT_THAT(rows_.trouble().error().message, HasSubstr("3 rows"));
    EXPECT_THAT(heard(0s), ElementsAre(Pair("a", "1"), Pair("b", "1")));
    cluster_.fullDisks.clear();
    EXPECT_THAT(heard(), ElementsAre(Pair("a", "2"), Pair("c", "1")));
    EXPECT_TRUE(rows_.trouble());
}

TEST_F(OwnRowsTest, ADiskThatStaysFullIsAskedEverMoreSeldom) {
    cluster_.fullDisks = {0};
    rows_.put("a", "1");
    cluster_.run(10min);
    EXPECT_LT(cluster_.refusedRows, 80U);
    cluster_.fullDisks.clear();
    EXPECT_THAT(heard(15s), ElementsAre(Pair("a", "1")));
}

TEST_F(OwnRowsTest, TheLastWordCountsWhateverIsOnItsWayToTheDisk) {
    cluster_.syncDelay = 100ms;
    for (int i = 0; i < 20; ++i) {
        rows_.put("a", std::to_string(i));
        rows_.put("b", std::to_string(i));
        rows_.erase("b");
        rows_.erase("c");
        rows_.put("c", std::to_string(i));
        cluster_.run(7ms);
    }
    EXPECT_THAT(heard(), ElementsAre(Pair("a", "19"), Pair("c", "19")));
}

TEST_F(OwnRowsTest, ThoseOfAnEarlierProcessGoOnceItIsSaidWhatThereIs) {
    cluster_.node(0).put("x/1", "old", [](const Result<void>&) {});
    cluster_.node(0).put("x/2", "old", [](const Result<void>&) {});
    cluster_.node(0).put("y/1", "old", [](const Result<void>&) {});
    rows_.put("x/3", "new");
    EXPECT_EQ(heard().size(), 4U) << "nothing was said of the others";
    rows_.replace("x/", {{"x/2", "new"}, {"x/4", "new"}});
    EXPECT_THAT(heard(), ElementsAre(Pair("x/2", "new"), Pair("x/4", "new"), Pair("y/1", "old")));
    // Whatever became of them.
    cluster_.node(0).erase("x/2", [](const Result<void>&) {});
    cluster_.node(0).put("x/5", "odd", [](const Result<void>&) {});
    rows_.replace("x/", {{"x/2", "new"}, {"x/4", "new"}});
    EXPECT_THAT(heard(), ElementsAre(Pair("x/2", "new"), Pair("x/4", "new"), Pair("y/1", "old")));
}

TEST_F(OwnRowsTest, ARowThatFitsNowhereKeepsNoOtherAway) {
    rows_.put("a", std::string(5000, 'x'));
    rows_.put("b", "1");
    EXPECT_THAT(heard(), ElementsAre(Pair("b", "1")));
    EXPECT_FALSE(rows_.trouble());
    rows_.erase("a");
    EXPECT_THAT(heard(), ElementsAre(Pair("b", "1")));
    EXPECT_TRUE(rows_.trouble());
}

TEST_F(OwnRowsTest, WhatIsSaidAlreadyCostsNothing) {
    rows_.put("a", "1");
    const int before = posted_;
    for (int i = 0; i < 100; ++i) rows_.put("a", "1");
    EXPECT_EQ(posted_, before);
}

// Its thread is busy for ever.
class DeafRunner final : public Runner {
public:
    void post(std::function<void(Node&)> work) override { works_.push_back(std::move(work)); }
    Result<void> call(std::function<void(Node&)>, std::chrono::milliseconds) override { return {}; }

private:
    std::vector<std::function<void(Node&)>> works_;
};

TEST(Put, WaitsNoLongerThanTheCallHas) {
    DeafRunner runner;
    const auto begin = std::chrono::steady_clock::now();
    const CallDeadline call(Deadline(50ms));
    EXPECT_EQ(put(runner, "key", "value").error().code, ErrorCode::Timeout);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
}

}  // namespace
}  // namespace weft::kv
