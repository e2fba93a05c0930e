#include "driver/asker_quota.h"

#include <gtest/gtest.h>

#include "tests/must.h"

namespace weft::driver {
namespace {

const IpAddress kOne = must(IpAddress::parse("10.0.0.2"));
const IpAddress kOther = must(IpAddress::parse("10.0.0.3"));
const IpAddress kThird = must(IpAddress::parse("fd00::2"));

TEST(AskerQuotaTest, WhoHasItsShareGetsNoMoreAndLeavesTheRest) {
    AskerQuota quota(10, 2);
    EXPECT_TRUE(quota.take(kOne));
    EXPECT_TRUE(quota.take(kOne));
    EXPECT_FALSE(quota.take(kOne));
    EXPECT_TRUE(quota.take(kOther));
    quota.giveBack(kOne);
    EXPECT_TRUE(quota.take(kOne));
    EXPECT_FALSE(quota.take(kOne));
}

TEST(AskerQuotaTest, AllAreNoMoreThanThereAre) {
    AskerQuota quota(3, 2);
    EXPECT_TRUE(quota.take(kOne));
    EXPECT_TRUE(quota.take(kOther));
    EXPECT_TRUE(quota.take(kThird));
    EXPECT_FALSE(quota.take(kOther));
    quota.giveBack(kThird);
    EXPECT_TRUE(quota.take(kOther));
}

}  // namespace
}  // namespace weft::driver
