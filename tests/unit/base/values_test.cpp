// Result, Id, Rollback, Clock, Deadline: the small values everything else is made of.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unordered_set>

#include "base/clock.h"
#include "base/deadline.h"
#include "base/id.h"
#include "base/result.h"
#include "base/rollback.h"
#include "base/unique_fd.h"

namespace weft {
namespace {

Result<int> half(int number) {
    if (number % 2 != 0) return makeError(ErrorCode::InvalidArgument, std::to_string(number) + " is odd");
    return number / 2;
}

Result<int> quarter(int number) {
    WEFT_ASSIGN(const int once, half(number));
    return half(once).within("second half");
}

Result<void> check(int number) {
    WEFT_TRY(quarter(number));
    return {};
}

TEST(Result, CarriesAValueOrAnError) {
    EXPECT_EQ(*quarter(8), 2);
    EXPECT_TRUE(check(8));
    const auto failed = quarter(6);
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, ErrorCode::InvalidArgument);
    EXPECT_EQ(failed.error().message, "second half: 3 is odd");
    EXPECT_EQ(check(7).error().message, "7 is odd");
    EXPECT_EQ(failed.value_or(-1), -1);
    EXPECT_EQ(quarter(8).value_or(-1), 2);
}

TEST(Result, HoldsWhatCanOnlyMove) {
    const auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(5); };
    const auto forward = [&]() -> Result<std::unique_ptr<int>> {
        WEFT_ASSIGN(auto value, make());
        ++*value;
        return value;
    };
    const std::unique_ptr<int> value = std::move(forward()).value();
    EXPECT_EQ(*value, 6);
}

TEST(Result, ContextGoesOutsideIn) {
    Result<void> result = errnoError(ENODEV, "netlink newlink");
    result = std::move(result).within("add bridge").within("create network");
    EXPECT_EQ(result.error().message, "create network: add bridge: netlink newlink: No such device");
    EXPECT_EQ(result.error().code, ErrorCode::NotFound);
    EXPECT_EQ(result.error().sysErrno, ENODEV);
    EXPECT_TRUE(Result<void>().within("nothing"));
}

TEST(Error, ErrnoFoldsIntoCodes) {
    EXPECT_EQ(errnoError(EEXIST, "x").code, ErrorCode::AlreadyExists);
    EXPECT_EQ(errnoError(ESRCH, "x").code, ErrorCode::NotFound);
    EXPECT_EQ(errnoError(EADDRINUSE, "x").code, ErrorCode::Busy);
    EXPECT_EQ(errnoError(EPERM, "x").code, ErrorCode::PermissionDenied);
    EXPECT_EQ(errnoError(EOPNOTSUPP, "x").code, ErrorCode::Unsupported);
    EXPECT_EQ(errnoError(ETIMEDOUT, "x").code, ErrorCode::Timeout);
    EXPECT_EQ(errnoError(EIO, "x").code, ErrorCode::Kernel);
}

TEST(Id, ComparesHashesAndShortens) {
    const NetworkId id("0123456789abcdef");
    EXPECT_EQ(id.brief(), "0123456789ab");
    EXPECT_EQ(NetworkId("short").brief(), "short");
    EXPECT_TRUE(NetworkId().empty());
    const std::unordered_set<NetworkId> set{id, NetworkId("x"), id};
    EXPECT_EQ(set.size(), 2U);
    static_assert(!std::is_convertible_v<NetworkId, EndpointId>);
    static_assert(!std::is_convertible_v<std::string, NetworkId>);
}

TEST(Rollback, UndoesInReverseUnlessCommitted) {
    std::string trace;
    {
        Rollback rollback;
        rollback.push([&] { trace += "1"; });
        rollback.push([&] { trace += "2"; });
    }
    EXPECT_EQ(trace, "21");
    {
        Rollback rollback;
        rollback.push([&] { trace += "3"; });
        rollback.commit();
        rollback.push([&] { trace += "4"; });
    }
    EXPECT_EQ(trace, "214");
}

TEST(Clock, StandsStillUntilAdvanced) {
    ManualClock clock;
    const auto start = clock.now();
    const auto wall = clock.wall();
    EXPECT_EQ(clock.now(), start);
    clock.advance(std::chrono::seconds(90));
    EXPECT_EQ(clock.now() - start, std::chrono::seconds(90));
    EXPECT_EQ(clock.wall() - wall, std::chrono::seconds(90));
    const SystemClock system;
    const auto earlier = system.now();
    EXPECT_LE(earlier, system.now());
}

TEST(CallDeadline, BoundsEveryWaitOfItsThread) {
    using namespace std::chrono_literals;
    EXPECT_FALSE(CallDeadline::left());
    EXPECT_EQ(withinCall(1h), 1h);
    {
        const CallDeadline call(Deadline(30s));
        EXPECT_EQ(withinCall(10ms), 10ms);
        EXPECT_LE(withinCall(1h), 30s);
        std::thread([] { EXPECT_EQ(withinCall(1h), 1h); }).join();
        {
            const CallDeadline longer(Deadline(2h));
            EXPECT_LE(withinCall(1h), 30s);
            const CallDeadline over(Deadline(-1s));
            EXPECT_EQ(withinCall(1h), 0ms);
        }
        EXPECT_GT(withinCall(1h), 20s);
    }
    EXPECT_FALSE(CallDeadline::left());
}

TEST(CallDeadline, BoundsALock) {
    using namespace std::chrono_literals;
    std::timed_mutex mutex;
    std::shared_timed_mutex shared;
    EXPECT_TRUE(lockWithinCall(mutex));
    const std::lock_guard others(mutex);
    const std::lock_guard writer(shared);
    std::thread([&] {
        const CallDeadline call(Deadline(20ms));
        EXPECT_FALSE(lockWithinCall(mutex));
        EXPECT_FALSE(lockWithinCall<std::shared_lock>(shared));
    }).join();
}

TEST(UniqueFd, ClosesOnce) {
    const auto isOpen = [](int fd) { return ::fcntl(fd, F_GETFD) != -1; };
    UniqueFd first(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(first);
    const int number = first.get();
    UniqueFd second(std::move(first));
    EXPECT_FALSE(first);
    EXPECT_TRUE(isOpen(number));
    second.reset();
    EXPECT_FALSE(isOpen(number));
    UniqueFd third(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const int released = third.release();
    third.reset();
    EXPECT_TRUE(isOpen(released));
    ::close(released);
}

}  // namespace
}  // namespace weft
