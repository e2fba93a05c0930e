#include "driver/network_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/must.h"

namespace weft::driver {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json described() {
    return json::parse(R"({"name": "shop", "subnets": ["10.32.0.0/16", "fd32::/64"], "ranges": ["10.32.1.0/24"],
        "gateways": ["10.32.0.9"], "auxAddresses": {"printer": "10.32.0.7"}, "ipv6": true,
        "options": {"weft.vni": "77"}, "labels": {"team": "blue"}, "hosts": "db"})");
}

NetworkRow row(uint64_t stamp, std::optional<NetworkSpec> spec, HostState state = HostState::Ready) {
    NetworkRow made;
    made.stamp = stamp;
    made.spec = std::move(spec);
    made.state = state;
    return made;
}

NetworkSpec spec() {
    return must(parseNetworkSpec(described()));
}

TEST(NetworkSpec, ReadsWhatItWrites) {
    EXPECT_EQ(toJson(spec()), described());
}

TEST(NetworkSpec, BecomesTheEnginesRequest) {
    EXPECT_EQ(engineRequest(spec(), 5),
              json::parse(R"({"Name": "shop", "CheckDuplicate": true, "Driver": "weft-overlay",
        "Internal": false, "EnableIPv6": true,
        "IPAM": {"Driver": "weft-overlay", "Options": {}, "Config": [
            {"Subnet": "10.32.0.0/16", "IPRange": "10.32.1.0/24", "Gateway": "10.32.0.9",
             "AuxiliaryAddresses": {"printer": "10.32.0.7"}},
            {"Subnet": "fd32::/64"}]},
        "Options": {"weft.network": "shop", "weft.vni": "77"}, "Labels": {"team": "blue", "weft.stamp": "5"}})"));
}

TEST(NetworkSpec, RefusesWhatNoHostCouldMake) {
    struct Case {
        const char* change;
        const char* words;
    };
    for (const auto& [change, words] : {
             Case{R"({"name": "a/b"})", "letters, digits"},
             Case{R"({"name": 7})", "description"},
             Case{R"({"subnets": []})", "--subnet 10.32.0.0/16"},
             Case{R"({"subnets": ["10.32.0.1/16"]})", "write 10.32.0.0/16"},
             Case{R"({"subnets": "10.32.0.0/16"})", "description"},
             Case{R"({"subnets": ["fd32::/64"], "ranges": [], "gateways": [], "auxAddresses": {}})", "IPv4 subnet"},
             Case{R"({"ipv6": false})", "needs --ipv6"},
             Case{R"({"gateways": ["192.0.2.1"]})", "192.0.2.1 is in none"},
             Case{R"({"gateways": ["10.32.0.1", "10.32.0.2"]})", "two gateways"},
             Case{R"({"ranges": ["10.33.0.0/24"]})", "10.33.0.0/24 is in none"},
             Case{R"({"auxAddresses": {"x": "10.33.0.1"}})", "10.33.0.1 is in none"},
             Case{R"({"options": {"weft.vin": "7"}})", "weft.vni"},
             Case{R"({"options": {"weft.network": "other"}})", "leave that option out"},
         }) {
        json changed = described();
        changed.update(json::parse(change));
        const auto refused = parseNetworkSpec(changed);
        ASSERT_FALSE(refused) << change;
        EXPECT_EQ(refused.error().code, ErrorCode::InvalidArgument);
        EXPECT_THAT(refused.error().message, HasSubstr(words));
    }
    for (const char* text : {"null", "[]", "7", "{}"}) EXPECT_FALSE(parseNetworkSpec(json::parse(text))) << text;
}

TEST(NetworkRow, ReadsWhatItWrites) {
    NetworkRow written = row(9, spec(), HostState::Failed);
    written.detail = "no room";
    const NetworkRow read = must(decodeNetworkRow(must(encode("shop", written))));
    EXPECT_TRUE(read.sameTruth(written));
    EXPECT_EQ(read.state, HostState::Failed);
    EXPECT_EQ(read.detail, "no room");
    EXPECT_EQ(must(decodeNetworkRow(must(encode("shop", row(9, {}, HostState::Removed))))).spec, std::nullopt);
}

TEST(NetworkRow, HasRoomForAnyDetailOrIsRefused) {
    NetworkRow wordy = row(9, spec());
    wordy.detail = std::string(5000, 'x');
    EXPECT_EQ(must(decodeNetworkRow(must(encode("shop", wordy)))).detail.size(), 160U);
    for (int i = 0; i < 60; ++i) wordy.spec->labels["label" + std::to_string(i)] = "value";
    const auto refused = encode("shop", wordy);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("too many"));
}

TEST(NetworkRow, IsCorruptWhenItIsNotOne) {
    for (const char* text : {"", "null", "{}", R"({"stamp": -1, "state": "ready"})",
                             R"({"stamp": 18446744073709551615, "state": "ready"})", R"({"stamp": 1, "state": "glad"})",
                             R"({"stamp": 1, "state": "ready", "spec": {}})"}) {
        const auto read = decodeNetworkRow(text);
        ASSERT_FALSE(read) << text;
        EXPECT_EQ(read.error().code, ErrorCode::Corrupt);
    }
}

TEST(Truth, IsTheLatestThatIsNoDraft) {
    ManualClock clock;
    const auto now = static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(clock.wall().time_since_epoch()).count());
    const auto truth = [&](const std::vector<NetworkRow>& rows) { return truthOf(rows, clock.wall()); };
    EXPECT_EQ(truth({}), nullptr);
    EXPECT_EQ(truth({row(now, spec(), HostState::Draft)}), nullptr);
    std::vector<NetworkRow> rows{row(now, spec()), row(now + 1, {}), row(now + 2, spec(), HostState::Draft)};
    EXPECT_EQ(truth(rows), &rows[1]);

    clock.advance(kRemovalKept + std::chrono::seconds(1));
    rows = {row(now, {}, HostState::Removed)};
    EXPECT_EQ(truth(rows), nullptr) << "a removal of long ago";
    // Of a host whose clock is far behind.
    rows.push_back(row(now - 1, spec()));
    EXPECT_EQ(truth(rows), &rows[0]) << "another host has not followed yet";
    rows[1] = row(now, {}, HostState::InUse);
    EXPECT_NE(truth(rows), nullptr) << "another host has containers on it";
}

// Whoever hears of two made in the same millisecond must choose alike, in any order.
TEST(Truth, DoesNotDependOnTheOrder) {
    const ManualClock clock;
    NetworkSpec other = spec();
    other.internal = true;
    std::vector<NetworkRow> rows{row(1U << 30, spec()), row(1U << 30, other)};
    const bool internal = truthOf(rows, clock.wall())->spec->internal;
    std::swap(rows[0], rows[1]);
    EXPECT_EQ(truthOf(rows, clock.wall())->spec->internal, internal);
}

TEST(Plan, BringsTheEngineToTheTruth) {
    NetworkSpec everywhere = spec();
    everywhere.hosts = "";
    const NetworkRow wanted = row(5, everywhere);
    const NetworkRow elsewhere = row(5, spec());
    const NetworkRow removed = row(5, {});
    const std::vector<std::string> labels{"web"};
    const auto ours = [](uint64_t stamp) { return EngineNetwork{"id", stamp}; };
    const EngineNetwork byHand{"id", {}};

    EXPECT_EQ(plan(wanted, labels, {}), (NetworkPlan{NetworkStep::Make, HostState::Ready}));
    EXPECT_EQ(plan(wanted, labels, ours(5)), (NetworkPlan{NetworkStep::None, HostState::Ready}));
    EXPECT_EQ(plan(wanted, labels, ours(4)), (NetworkPlan{NetworkStep::Replace, HostState::Ready}));
    EXPECT_EQ(plan(wanted, labels, byHand), (NetworkPlan{NetworkStep::None, HostState::ByHand}));
    EXPECT_EQ(plan(elsewhere, labels, {}), (NetworkPlan{NetworkStep::None, HostState::Elsewhere}));
    EXPECT_EQ(plan(elsewhere, labels, ours(4)), (NetworkPlan{NetworkStep::Remove, HostState::Elsewhere}));
    EXPECT_EQ(plan(elsewhere, {"web", "db"}, {}), (NetworkPlan{NetworkStep::Make, HostState::Ready}));
    EXPECT_EQ(plan(removed, labels, {}), (NetworkPlan{NetworkStep::None, HostState::Removed}));
    EXPECT_EQ(plan(removed, labels, ours(4)), (NetworkPlan{NetworkStep::Remove, HostState::Removed}));
    EXPECT_EQ(plan(removed, labels, byHand), (NetworkPlan{NetworkStep::None, HostState::Removed}));
}

}  // namespace
}  // namespace weft::driver
