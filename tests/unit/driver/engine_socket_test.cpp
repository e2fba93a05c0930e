#include "driver/engine_socket.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/unit/driver/temp_dir.h"

namespace weft::driver {
namespace {

namespace fs = std::filesystem;

// A /proc with one listening socket at `socket`.
class EngineSocketTest : public ::testing::Test {
protected:
    void SetUp() override {
        listen("0000000000000000: 00000002 00000000 00010000 0001 01 4711 " + path() + "\n");
        holds("1", "socket:[4711]");
        holds("300", "socket:[9]");
    }

    [[nodiscard]] std::string path() const { return directory_.path() + "/docker.sock"; }
    [[nodiscard]] std::string proc() const { return directory_.path() + "/proc"; }

    void listen(const std::string& line) const {
        fs::create_directories(proc() + "/net");
        std::ofstream(proc() + "/net/unix") << "Num RefCount Protocol Flags Type St Inode Path\n" << line;
    }
    void holds(const std::string& pid, const std::string& what) const {
        fs::create_directories(proc() + "/" + pid + "/fd");
        fs::create_symlink(what, proc() + "/" + pid + "/fd/3");
    }
    void ends(const std::string& pid) const { fs::remove_all(proc() + "/" + pid); }

    testing::TempDir directory_;
};

TEST_F(EngineSocketTest, IsNotAttendedWhileInitAloneHoldsIt) {
    EngineSocket socket(path(), proc());
    EXPECT_FALSE(socket.attended());
}

TEST_F(EngineSocketTest, IsAttendedWhileTheEngineHoldsItToo) {
    EngineSocket socket(path(), proc());
    holds("42", "socket:[4711]");
    EXPECT_TRUE(socket.attended());
    EXPECT_TRUE(socket.attended());
    ends("42");
    EXPECT_FALSE(socket.attended());
}

TEST_F(EngineSocketTest, IsFoundByThePidFileBesideIt) {
    holds("7", "socket:[4711]");
    std::ofstream(directory_.path() + "/docker.pid") << "7";
    EngineSocket socket(path(), proc());
    EXPECT_TRUE(socket.attended());
}

// An engine that listens itself, and one of which nothing can be told: a connection starts nothing.
TEST_F(EngineSocketTest, IsAttendedWhenInitDoesNotHoldIt) {
    ends("1");
    holds("1", "socket:[9]");
    EXPECT_TRUE(EngineSocket(path(), proc()).attended());
    EXPECT_TRUE(EngineSocket(path(), proc() + "/none").attended());
}

TEST_F(EngineSocketTest, KnowsTheSocketByAnotherPath) {
    std::ofstream(path()) << "";
    fs::create_directory_symlink(directory_.path(), proc() + "/alias");
    listen("0000000000000000: 00000002 00000000 00010000 0001 01 4711 " + proc() + "/alias/docker.sock\n");
    EXPECT_FALSE(EngineSocket(path(), proc()).attended());
}

TEST_F(EngineSocketTest, IgnoresConnections) {
    listen("0000000000000000: 00000003 00000000 00000000 0001 03 4711 " + path() + "\n");
    EXPECT_TRUE(EngineSocket(path(), proc()).attended());
}

}  // namespace
}  // namespace weft::driver
