#include "net/sysctl.h"

#include <gtest/gtest.h>

namespace weft::net {
namespace {

TEST(PortList, ReadsWhatTheKernelWrites) {
    const auto list = parsePortList("8080,9148-9150,65535");
    ASSERT_TRUE(list);
    EXPECT_EQ(*list, (std::vector<PortRange>{{8080, 8080}, {9148, 9150}, {65535, 65535}}));
    EXPECT_TRUE(parsePortList("")->empty());
}

TEST(PortList, RefusesAnythingElse) {
    for (const char* text : {"x", "1-", "-1", "5-4", "65536", "1,,2", "1 2", "1-2-3"}) {
        EXPECT_FALSE(parsePortList(text)) << text;
    }
}

TEST(LinkSysctl, KeepsDotsOfTheName) {
    EXPECT_EQ(linkSysctl(IpFamily::V6, "eth0.5", "accept_ra"), "net/ipv6/conf/eth0.5/accept_ra");
    EXPECT_EQ(linkSysctl(IpFamily::V4, "br0", "forwarding"), "net/ipv4/conf/br0/forwarding");
}

}  // namespace
}  // namespace weft::net
