#include "driver/instance_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

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

TEST(InstanceLock, FollowsNoLink) {
    const TempDir dir;
    const std::string other = dir.file("precious");
    { std::ofstream(other) << "kept"; }
    ASSERT_EQ(::symlink(other.c_str(), dir.file("weftd.lock").c_str()), 0);
    EXPECT_FALSE(InstanceLock::take(dir.path()));
    std::string text;
    std::ifstream(other) >> text;
    EXPECT_EQ(text, "kept");
}

TEST(OwnDirectory, IsMadeOrMustBelongToRootOrOneself) {
    const TempDir dir;
    const std::string path = dir.file("new/inner");
    ASSERT_TRUE(ownDirectory(path, 0700));
    ASSERT_TRUE(ownDirectory(path, 0700));
    ASSERT_EQ(::chmod(path.c_str(), 0777), 0);
    EXPECT_THAT(ownDirectory(path, 0700).error().message, ::testing::HasSubstr("everybody may write"));
    ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
    ASSERT_TRUE(ownDirectory(path, 0700));
    if (::geteuid() != 0) return;
    ASSERT_EQ(::chown(path.c_str(), 12345, 0), 0);
    EXPECT_EQ(ownDirectory(path, 0700).error().code, ErrorCode::PermissionDenied);
}

}  // namespace
}  // namespace weft::driver::testing
