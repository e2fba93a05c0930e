// A namespace per test, and eyes independent of the code under test: `ip` run inside it.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "net/netlink.h"
#include "net/netns.h"
#include "net/sysctl.h"
#include "tests/must.h"

namespace weft::net {

inline std::string runInside(const NetNs& ns, const std::string& command) {
    const std::string line = "nsenter --net=/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(ns.fd()) +
                             " " + command + " 2>&1";
    FILE* pipe = ::popen(line.c_str(), "r");
    std::string output;
    char buffer[4096];
    while (const size_t length = ::fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, length);
    ::pclose(pipe);
    return output;
}

class NamespaceTest : public ::testing::Test {
protected:
    void SetUp() override {
        must(netlink_->setUp(1));  // lo
    }
    // Tests delete what they made; only lo may be left.
    void TearDown() override {
        if (HasFailure()) return;
        const auto left = must(netlink_->listLinks());
        EXPECT_EQ(left.size(), 1U) << ip("-br link");
    }

    std::string ip(const std::string& arguments) { return runInside(ns_, "ip " + arguments); }

    NetNs ns_ = must(NetNs::create());
    std::unique_ptr<Netlink> netlink_ = must(Netlink::openIn(ns_));
};

class Stopwatch {
public:
    [[nodiscard]] double us() const {
        return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start_).count();
    }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace weft::net
