#include "driver/instance_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "temp_dir.h"

namespace weft::driver::testing {
namespace {

TEST(InstanceLock, RefusesASecondHolderWithThePidOfTheFirst) {
    const TempDir dir;
    {
        const auto first = InstanceLock::take(dir.path());
        ASSERT_TRUE(first);
        const auto second = InstanceLock::take(dir.path());
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().code, ErrorCode::Busy);
        EXPECT_THAT(second.error().message, ::testing::HasSubstr("pid " + std::to_string(::getpid())));
    }
    EXPECT_TRUE(InstanceLock::take(dir.path()));
}

}  // namespace
}  // namespace weft::driver::testing
