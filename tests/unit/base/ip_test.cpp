#include "base/ip.h"

#include <gtest/gtest.h>

#include <set>

namespace weft {
namespace {

IpAddress ip(std::string_view text) {
    return IpAddress::parse(text).value();
}
IpPrefix prefix(std::string_view text) {
    return IpPrefix::parse(text).value();
}

TEST(IpAddress, TextAndBytesRoundTrip) {
    for (const char* text :
         {"0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "::1", "fd00::1:2", "2001:db8::ff00:42:8329"}) {
        const IpAddress address = ip(text);
        EXPECT_EQ(address.str(), text);
        EXPECT_EQ(IpAddress::fromBytes(address.family(), address.bytes().data()), address);
    }
    EXPECT_EQ(ip("10.1.2.3").bits(), Uint128{0x0a010203});
    EXPECT_EQ(ip("10.1.2.3").bytes()[0], 10);
    EXPECT_EQ(ip("10.1.2.3").size(), 4U);
    EXPECT_EQ(ip("fd00::1").bytes()[15], 1);
}

TEST(IpAddress, RefusesWhatIsNone) {
    using namespace std::string_view_literals;
    for (const auto text : {""sv, "10.1.2"sv, "10.1.2.256"sv, "10.01.2.3x"sv, " 10.1.2.3"sv, "fe80::1%eth0"sv, "::g"sv,
                            "10.1.2.3\0x"sv, "1.2.3.4/24"sv}) {
        const auto address = IpAddress::parse(text);
        ASSERT_FALSE(address) << text;
        EXPECT_EQ(address.error().code, ErrorCode::InvalidArgument);
    }
}

TEST(IpAddress, KnowsItsKind) {
    EXPECT_TRUE(ip("127.9.9.9").isLoopback());
    EXPECT_TRUE(ip("::1").isLoopback());
    EXPECT_FALSE(ip("::2").isLoopback());
    EXPECT_TRUE(ip("169.254.1.1").isLinkLocal());
    EXPECT_TRUE(ip("febf::1").isLinkLocal());
    EXPECT_FALSE(ip("fec0::1").isLinkLocal());
    EXPECT_TRUE(ip("239.1.1.1").isMulticast());
    EXPECT_FALSE(ip("240.1.1.1").isMulticast());
    EXPECT_TRUE(ip("ff02::1").isMulticast());
    EXPECT_TRUE(ip("::").isAny());
}

TEST(IpAddress, OrdersByFamilyThenNumber) {
    EXPECT_LT(ip("9.0.0.0"), ip("10.0.0.0"));
    EXPECT_LT(ip("255.255.255.255"), ip("::"));
    EXPECT_NE(ip("0.0.0.1"), ip("::1"));
}

TEST(IpPrefix, FirstLastAndNetwork) {
    const IpPrefix v4 = prefix("10.1.2.3/20");
    EXPECT_EQ(v4.str(), "10.1.2.3/20");
    EXPECT_EQ(v4.network().str(), "10.1.0.0/20");
    EXPECT_EQ(v4.last().str(), "10.1.15.255");
    EXPECT_EQ(prefix("1.2.3.4/0").network().str(), "0.0.0.0/0");
    EXPECT_EQ(prefix("1.2.3.4/0").last().str(), "255.255.255.255");
    EXPECT_EQ(prefix("1.2.3.4/32").network().str(), "1.2.3.4/32");
    EXPECT_EQ(prefix("fd00::1/64").last().str(), "fd00::ffff:ffff:ffff:ffff");
    EXPECT_EQ(prefix("::/0").last().str(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
}

TEST(IpPrefix, ContainsAndOverlaps) {
    EXPECT_TRUE(prefix("10.0.0.0/8").contains(ip("10.255.255.255")));
    EXPECT_FALSE(prefix("10.0.0.0/8").contains(ip("11.0.0.0")));
    EXPECT_FALSE(prefix("0.0.0.0/0").contains(ip("::1")));
    EXPECT_TRUE(prefix("10.0.0.0/8").contains(prefix("10.3.0.0/16")));
    EXPECT_FALSE(prefix("10.3.0.0/16").contains(prefix("10.0.0.0/8")));
    EXPECT_TRUE(prefix("10.3.0.0/16").overlaps(prefix("10.0.0.0/8")));
    EXPECT_TRUE(prefix("10.0.0.0/8").overlaps(prefix("10.3.0.0/16")));
    EXPECT_FALSE(prefix("10.3.0.0/16").overlaps(prefix("10.4.0.0/16")));
    EXPECT_FALSE(prefix("0.0.0.0/0").overlaps(prefix("::/0")));
}

TEST(IpPrefix, RefusesWhatIsNone) {
    for (const char* text :
         {"10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.1/8x", "fd00::/129", "/24", ""}) {
        EXPECT_FALSE(IpPrefix::parse(text)) << text;
    }
}

TEST(MacAddress, TextRoundTripAndRefusals) {
    EXPECT_EQ(MacAddress::parse("02:42:0A:00:00:ff")->str(), "02:42:0a:00:00:ff");
    for (const char* text :
         {"", "02:42:0a:00:00", "02:42:0a:00:00:0g", "02-42-0a-00-00-02", "2:42:0a:00:00:002", "02:42:0a:00:00:02:"}) {
        EXPECT_FALSE(MacAddress::parse(text)) << text;
    }
    EXPECT_TRUE(MacAddress::parse("01:00:5e:00:00:01")->isMulticast());
    EXPECT_TRUE(MacAddress().isZero());
}

TEST(MacAddress, HasALinkLocalAddress) {
    EXPECT_EQ(linkLocalOf(*MacAddress::parse("02:42:0a:72:fe:00")).str(), "fe80::42:aff:fe72:fe00");
}

TEST(MacAddress, MadeFromAKeyIsStableLocalAndDistinct) {
    std::set<MacAddress> seen;
    for (int i = 0; i < 10000; ++i) {
        const std::string key = "endpoint-" + std::to_string(i);
        const MacAddress mac = macFromKey(key);
        EXPECT_EQ(mac, macFromKey(key));
        EXPECT_EQ(mac.bytes()[0] & 0x03, 0x02) << "locally administered, unicast";
        EXPECT_TRUE(seen.insert(mac).second);
    }
}

}  // namespace
}  // namespace weft
