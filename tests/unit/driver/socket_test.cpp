#include "driver/socket.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "raw_client.h"
#include "temp_dir.h"

namespace weft::driver::testing {
namespace {

bool exists(const std::string& path) {
    return std::filesystem::exists(std::filesystem::symlink_status(path));
}

TEST(ListenUnix, MakesAFileWithItsModeAndRemovesIt) {
    const TempDir dir;
    const std::string path = dir.file("a.sock");
    {
        const auto socket = listenUnix(path, 0660);
        ASSERT_TRUE(socket) << socket.error().message;
        struct stat status {};
        ASSERT_EQ(::stat(path.c_str(), &status), 0);
        EXPECT_EQ(status.st_mode & 07777U, 0660U);
        EXPECT_TRUE(RawClient(path).connected());
        EXPECT_FALSE(socket->inherited());
    }
    EXPECT_FALSE(exists(path));
}

TEST(ListenUnix, ReplacesASocketNobodyServes) {
    const TempDir dir;
    const std::string path = dir.file("a.sock");
    {
        const UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
        ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    }
    ASSERT_TRUE(exists(path));
    EXPECT_TRUE(listenUnix(path, 0600));
}

TEST(ListenUnix, LeavesAServedSocketAlone) {
    const TempDir dir;
    const auto first = listenUnix(dir.file("a.sock"), 0600);
    const auto second = listenUnix(dir.file("a.sock"), 0600);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::Busy);
    EXPECT_TRUE(RawClient(dir.file("a.sock")).connected());
}

TEST(ListenUnix, LeavesOtherFilesAlone) {
    const TempDir dir;
    std::ofstream(dir.file("a.sock")) << "precious";
    const auto socket = listenUnix(dir.file("a.sock"), 0600);
    ASSERT_FALSE(socket);
    EXPECT_EQ(socket.error().code, ErrorCode::AlreadyExists);
    EXPECT_TRUE(exists(dir.file("a.sock")));
}

TEST(ListenUnix, DoesNotUnlinkWhatAnotherPutInItsPlace) {
    const TempDir dir;
    const std::string path = dir.file("a.sock");
    std::optional<ListeningSocket> socket(std::move(*listenUnix(path, 0600)));
    std::filesystem::rename(path, dir.file("moved.sock"));
    std::ofstream(path) << "another's";
    socket.reset();
    EXPECT_TRUE(exists(path));
}

TEST(ListenUnix, RefusesAPathThatIsTooLong) {
    const auto socket = listenUnix("/tmp/" + std::string(200, 'x'), 0600);
    ASSERT_FALSE(socket);
    EXPECT_EQ(socket.error().code, ErrorCode::InvalidArgument);
}

TEST(Loopback, IsTheOnlyAddressForMetrics) {
    for (const char* good : {"127.0.0.1:9100", "[::1]:0", "127.1.2.3:65535"}) EXPECT_TRUE(checkLoopback(good)) << good;
    for (const char* bad : {"0.0.0.0:9100", "[::]:9100", "10.0.0.1:9100", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536",
                            "localhost:9100", ":9100", ""}) {
        EXPECT_FALSE(checkLoopback(bad)) << bad;
    }
}

TEST(InheritedSockets, NoneWithoutTheVariablesOrForAnotherProcess) {
    ::unsetenv("LISTEN_PID");
    EXPECT_TRUE(inheritedSockets().empty());
    ::setenv("LISTEN_PID", "1", 1);
    ::setenv("LISTEN_FDS", "1", 1);
    EXPECT_TRUE(inheritedSockets().empty());
    EXPECT_EQ(::getenv("LISTEN_FDS"), nullptr);
}

TEST(Notify, SendsADatagram) {
    const TempDir dir;
    const UniqueFd manager(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, dir.file("notify").c_str(), sizeof(address.sun_path) - 1);
    ASSERT_EQ(::bind(manager.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ::setenv("NOTIFY_SOCKET", dir.file("notify").c_str(), 1);
    notifyManager("READY=1");
    ::unsetenv("NOTIFY_SOCKET");
    char text[64]{};
    ASSERT_GT(::recv(manager.get(), text, sizeof(text), MSG_DONTWAIT), 0);
    EXPECT_STREQ(text, "READY=1");
}

}  // namespace
}  // namespace weft::driver::testing
