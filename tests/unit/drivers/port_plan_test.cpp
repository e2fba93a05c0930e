#include "drivers/port_plan.h"

#include <gtest/gtest.h>

#include "tests/unit/drivers/scratch.h"

namespace weft {
namespace {

const auto kV4 = must(IpPrefix::parse("10.20.0.7/24"));
const auto kV6 = must(IpPrefix::parse("fd00::7/64"));
const auto kAny4 = IpAddress::any(IpFamily::V4);
const auto kAny6 = IpAddress::any(IpFamily::V6);

PortBinding binding(uint16_t containerPort, uint16_t hostPort = 0, uint16_t hostPortEnd = 0,
                    std::optional<IpAddress> hostIp = {}) {
    return {IpProtocol::Tcp, containerPort, hostIp, hostPort, hostPortEnd};
}

std::vector<PortWish> plan(std::vector<PortBinding> bindings, const PortPolicy& policy = {},
                           std::optional<IpPrefix> v4 = kV4, std::optional<IpPrefix> v6 = std::nullopt) {
    return must(planPorts(bindings, policy, v4, v6));
}

TEST(PortPlan, AnyAddressMeansTheFamiliesTheEndpointHas) {
    EXPECT_EQ(plan({binding(80, 8080)})[0].hostIps, std::vector{kAny4});
    EXPECT_EQ(plan({binding(80, 8080)}, {}, kV4, kV6)[0].hostIps, (std::vector{kAny4, kAny6}));
    EXPECT_EQ(plan({binding(80, 8080)}, {}, std::nullopt, kV6)[0].hostIps, std::vector{kAny6});
}

TEST(PortPlan, DefaultHostAddressCountsOnlyWhereNoneIsGiven) {
    PortPolicy policy;
    policy.defaultHostIp = must(IpAddress::parse("127.0.0.1"));
    const auto given = must(IpAddress::parse("192.0.2.1"));
    const auto wishes = plan({binding(80, 8080), binding(81, 8081, 0, given)}, policy, kV4, kV6);
    EXPECT_EQ(wishes[0].hostIps, std::vector{*policy.defaultHostIp});
    EXPECT_EQ(wishes[1].hostIps, std::vector{given});
}

TEST(PortPlan, GivenPortsComeBeforeChoices) {
    const auto wishes = plan({binding(80), binding(81, 8000, 8010), binding(82, 8005)});
    ASSERT_EQ(wishes.size(), 3U);
    EXPECT_EQ(wishes[0].containerPort, 82);
    EXPECT_EQ(wishes[1].range, (net::PortRange{0, 0}));
    EXPECT_EQ(wishes[2].range, (net::PortRange{8000, 8010}));
}

TEST(PortPlan, RepeatsCountOnce) {
    EXPECT_EQ(plan({binding(80, 8080), binding(80, 8080), binding(80, 8081)}).size(), 2U);
}

TEST(PortPlan, RoutedFamiliesAreOpenedAndTakeNoHostPort) {
    PortPolicy policy;
    policy.modeV6 = firewall::GatewayMode::Routed;
    const auto mixed = plan({binding(80, 8080)}, policy, kV4, kV6);
    EXPECT_EQ(mixed[0].hostIps, std::vector{kAny4});
    EXPECT_EQ(mixed[0].opened, std::vector{kV6.address()});
    const auto published = publishedFor(mixed[0], 8080, kV4, kV6);
    ASSERT_EQ(published.size(), 2U);
    EXPECT_EQ(published[0], (firewall::PublishedPort{6, kAny4, 8080, kV4.address(), 80}));
    EXPECT_EQ(published[1], (firewall::PublishedPort{6, kAny6, 0, kV6.address(), 80}));
    policy.modeV4 = firewall::GatewayMode::Routed;
    EXPECT_TRUE(plan({binding(80, 8080)}, policy, kV4, kV6)[0].hostIps.empty());
}

TEST(PortPlan, RefusesWhatCannotWork) {
    const auto refused = [](PortBinding bad) { return !planPorts(std::span(&bad, 1), {}, kV4, std::nullopt); };
    EXPECT_TRUE(refused({IpProtocol::Icmp, 80, {}, 0, 0}));
    EXPECT_TRUE(refused(binding(0, 8080)));
    EXPECT_TRUE(refused(binding(80, 8080, 8079)));
    EXPECT_TRUE(refused(binding(80, 8080, 0, must(IpAddress::parse("::1")))));
    EXPECT_FALSE(refused(binding(80, 8080, 0, must(IpAddress::parse("127.0.0.1")))));
    const PortBinding loopback = binding(80, 8080, 0, must(IpAddress::parse("::1")));
    EXPECT_FALSE(planPorts(std::span(&loopback, 1), {}, kV4, kV6)) << "nobody could reach it";
}

}  // namespace
}  // namespace weft
