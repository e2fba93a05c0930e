#include "drivers/overlay/tunnel_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace weft {
namespace {

using namespace std::chrono_literals;

// In the middle of every jitter.
class NoRandom final : public kv::Random {
public:
    uint64_t next() override { return uint64_t{1} << 63; }
    void fill(std::span<uint8_t> bytes) override { std::fill(bytes.begin(), bytes.end(), 0); }
};

kv::NodeId node(uint8_t number) {
    kv::NodeId id;
    id.bytes[0] = number;
    return id;
}

TunnelPlan::Peer peer(uint8_t number, std::optional<uint32_t> mtu = 1450) {
    return {"host" + std::to_string(number), *IpAddress::parse("192.0.2." + std::to_string(number)), mtu};
}

constexpr TunnelFindings kFine{true, true, true, true, true, 1450};
constexpr TunnelFindings kNothing{};
constexpr TunnelFindings kOursDamaged{true, true, false, true, false, 1450};
constexpr TunnelFindings kStalls{true, true, true, true, false, 1450};

class TunnelPlanTest : public ::testing::Test {
protected:
    // Lets time pass until something is due and answers it; what was asked.
    TunnelPlan::Step step(const TunnelFindings& findings) {
        EXPECT_NE(plan_.due(), Clock::Monotonic::max());
        if (plan_.due() > clock_.now()) clock_.advance(plan_.due() - clock_.now());
        const auto asked = plan_.next();
        EXPECT_TRUE(asked);
        change_ = plan_.found(*asked, findings);
        return *asked;
    }
    TunnelState state(uint8_t number = 1) {
        for (const TunnelHealth& health : plan_.health()) {
            if (health.id == node(number)) return health.state;
        }
        ADD_FAILURE() << "no host " << int{number};
        return TunnelState::Unknown;
    }

    ManualClock clock_;
    NoRandom random_;
    TunnelPlan plan_{clock_, random_};
    std::optional<TunnelPlan::Change> change_;
};

TEST(TunnelFindings, AreJudgedByWhatIsMissingFirst) {
    EXPECT_EQ(judge(kFine), TunnelState::Good);
    EXPECT_EQ(judge(kNothing), TunnelState::Closed);
    EXPECT_EQ(judge(kOursDamaged), TunnelState::Damaged);
    EXPECT_EQ(judge(kStalls), TunnelState::Damaged);
    EXPECT_EQ(judge({true, true, true, false, false, 1450}), TunnelState::Damages);
    EXPECT_EQ(judge({true, false, true, true, false, 1450}), TunnelState::Cut);
    EXPECT_EQ(judge({true, false, false, true, false, 1450}), TunnelState::Damaged)
        << "healed first, then seen to be cut";
}

TEST_F(TunnelPlanTest, ANewWayIsExaminedSoonAndThenAgainByAndBy) {
    plan_.setPeers({{node(1), peer(1)}});
    EXPECT_FALSE(plan_.next());
    EXPECT_EQ(state(), TunnelState::Unknown);
    EXPECT_LE(plan_.due() - clock_.now(), TunnelPlan::kFirst);
    const auto asked = step(kFine);
    EXPECT_EQ(asked.vtep.str(), "192.0.2.1");
    EXPECT_TRUE(asked.offload);
    ASSERT_TRUE(change_);
    EXPECT_EQ(change_->now.state, TunnelState::Good);
    EXPECT_EQ(plan_.due() - clock_.now(), TunnelPlan::kEvery);
    step(kFine);
    EXPECT_FALSE(change_);
}

TEST_F(TunnelPlanTest, AnOlderWeftdIsUnknownUntilItAnswers) {
    plan_.setPeers({{node(1), peer(1, {})}});
    EXPECT_EQ(plan_.due(), Clock::Monotonic::max());
    clock_.advance(1h);
    EXPECT_FALSE(plan_.next());
    EXPECT_EQ(state(), TunnelState::Unknown);
    plan_.setPeers({{node(1), peer(1)}});
    step(kFine);
    EXPECT_EQ(state(), TunnelState::Good);
    plan_.setPeers({{node(1), peer(1, {})}});
    EXPECT_EQ(state(), TunnelState::Unknown) << "replaced by an older one";
}

TEST_F(TunnelPlanTest, OneBadExaminationIsNotBelieved) {
    plan_.setPeers({{node(1), peer(1)}});
    step(kFine);
    step(kNothing);
    EXPECT_EQ(state(), TunnelState::Good);
    EXPECT_LE(plan_.due() - clock_.now(), 3s) << "looked at again at once";
    step(kFine);
    step(kNothing);
    EXPECT_EQ(state(), TunnelState::Good) << "the earlier doubt is over";
    step(kNothing);
    EXPECT_EQ(state(), TunnelState::Closed);
    ASSERT_TRUE(change_);
    EXPECT_EQ(change_->was, TunnelState::Good);
    EXPECT_EQ(plan_.due() - clock_.now(), TunnelPlan::kTroubled);
    step(kFine);
    EXPECT_EQ(state(), TunnelState::Good);
}

TEST_F(TunnelPlanTest, DamageIsTriedWithoutOffloadAndThatStaysWhileItIsNeeded) {
    plan_.setPeers({{node(1), peer(1)}});
    EXPECT_TRUE(step(kOursDamaged).offload);
    EXPECT_TRUE(step(kOursDamaged).offload) << "to be sure";
    EXPECT_TRUE(plan_.offload());
    EXPECT_FALSE(step(kFine).offload) << "the trial";
    EXPECT_FALSE(plan_.offload());
    EXPECT_EQ(state(), TunnelState::Healed);
    // Whether it still is.
    EXPECT_TRUE(step(kOursDamaged).offload);
    EXPECT_TRUE(step(kOursDamaged).offload);
    EXPECT_FALSE(step(kFine).offload);
    EXPECT_FALSE(change_) << "nothing to tell";
    EXPECT_FALSE(plan_.offload());
    EXPECT_TRUE(step(kFine).offload);
    EXPECT_EQ(state(), TunnelState::Good);
    EXPECT_TRUE(plan_.offload()) << "the NIC was mended";
}

// C7: one member that answers probes with checksums from the third on.
TEST_F(TunnelPlanTest, NoHostAloneTurnsOffloadOffForTheOthers) {
    plan_.setPeers({{node(1), peer(1)}, {node(2), peer(2)}, {node(3), peer(3)}});
    const auto examine = [&](const std::map<uint8_t, TunnelFindings>& withOffload, int times) {
        for (int i = 0; i < times; ++i) {
            clock_.advance(TunnelPlan::kEvery * 2);
            const auto asked = plan_.next();
            ASSERT_TRUE(asked);
            plan_.found(*asked, asked->offload ? withOffload.at(asked->peer.bytes[0]) : kFine);
        }
    };
    examine({{1, kOursDamaged}, {2, kFine}, {3, kFine}}, 30);
    EXPECT_TRUE(plan_.offload());
    EXPECT_EQ(state(1), TunnelState::Damaged);
    EXPECT_EQ(state(2), TunnelState::Good);
    examine({{1, kOursDamaged}, {2, kOursDamaged}, {3, kFine}}, 30);
    EXPECT_FALSE(plan_.offload()) << "two say so";
    EXPECT_EQ(state(1), TunnelState::Healed);
    EXPECT_EQ(state(2), TunnelState::Healed);
    EXPECT_EQ(state(3), TunnelState::Good);
    examine({{1, kOursDamaged}, {2, kFine}, {3, kFine}}, 30);
    EXPECT_TRUE(plan_.offload()) << "and comes back";
}

TEST_F(TunnelPlanTest, AStreamThatStallsIsTriedToo) {
    plan_.setPeers({{node(1), peer(1)}});
    step(kStalls);
    step(kStalls);
    EXPECT_FALSE(step(kFine).offload);
    EXPECT_FALSE(plan_.offload());
}

TEST_F(TunnelPlanTest, OffloadStaysWhereItIsNotToBlame) {
    plan_.setPeers({{node(1), peer(1)}});
    step(kStalls);
    step(kStalls);
    EXPECT_FALSE(step(kStalls).offload);
    EXPECT_TRUE(plan_.offload());
    EXPECT_EQ(state(), TunnelState::Damaged);
    EXPECT_TRUE(step(kStalls).offload);
    EXPECT_FALSE(step(kNothing).offload) << "tried again, and nothing is learned from a host that does not answer";
    EXPECT_TRUE(plan_.offload());
}

TEST_F(TunnelPlanTest, TheOthersDamageIsTheirsToHeal) {
    plan_.setPeers({{node(1), peer(1)}});
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(step({true, true, true, false, false, 1450}).offload);
    EXPECT_EQ(state(), TunnelState::Damages);
    EXPECT_TRUE(plan_.offload());
}

TEST_F(TunnelPlanTest, HundredsOfHostsAreExaminedOneAtATimeAndSlowly) {
    std::map<kv::NodeId, TunnelPlan::Peer> peers;
    for (int i = 0; i < 250; ++i) peers[node(static_cast<uint8_t>(i))] = peer(static_cast<uint8_t>(i));
    plan_.setPeers(peers);
    const auto begin = clock_.now();
    for (int i = 0; i < 250; ++i) step(kFine);
    EXPECT_GE(clock_.now() - begin, 249s);
    EXPECT_LE(clock_.now() - begin, 260s);
    const auto routine = clock_.now();
    for (int i = 0; i < 250; ++i) step(kFine);
    EXPECT_GE(clock_.now() - routine, 249 * TunnelPlan::kIdlePause);
    for (const TunnelHealth& health : plan_.health()) EXPECT_EQ(health.state, TunnelState::Good);
}

TEST_F(TunnelPlanTest, AHostThatWentIsForgottenAlsoAmidItsExamination) {
    plan_.setPeers({{node(1), peer(1)}});
    clock_.advance(TunnelPlan::kFirst);
    const auto asked = plan_.next();
    ASSERT_TRUE(asked);
    plan_.setPeers({});
    EXPECT_FALSE(plan_.found(*asked, kNothing));
    EXPECT_TRUE(plan_.health().empty());
    plan_.setPeers({{node(1), peer(1)}});
    EXPECT_EQ(state(), TunnelState::Unknown);
}

}  // namespace
}  // namespace weft
