#include "drivers/options.h"

#include <gmock/gmock.h>

#include "drivers/bridge/bridge_options.h"
#include "drivers/host/host_options.h"
#include "drivers/names.h"
#include "tests/unit/drivers/scratch.h"

namespace weft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

CreateNetworkRequest request(std::map<std::string, std::string> options = {}) {
    CreateNetworkRequest request;
    request.networkId = NetworkId(std::string(64, 'a'));
    request.options = std::move(options);
    IpamData data;
    data.pool = must(IpPrefix::parse("10.20.0.0/24"));
    data.gateway = must(IpPrefix::parse("10.20.0.1/24"));
    request.ipv4 = {data};
    return request;
}

std::string refusal(std::map<std::string, std::string> options) {
    const auto parsed = parseBridgeOptions(request(std::move(options)));
    return parsed ? "accepted" : parsed.error().message;
}

TEST(EditDistance, CountsInsertionsDeletionsSubstitutionsAndSwaps) {
    EXPECT_EQ(editDistance("", ""), 0U);
    EXPECT_EQ(editDistance("", "abc"), 3U);
    EXPECT_EQ(editDistance("kitten", "sitting"), 3U);
    EXPECT_EQ(editDistance("enable_icc", "enbale_icc"), 1U);
    EXPECT_EQ(editDistance("abcd", "badc"), 2U);
}

TEST(BridgeOptions, DefaultsAreDockers) {
    const auto options = must(parseBridgeOptions(request()));
    EXPECT_TRUE(options.icc);
    EXPECT_TRUE(options.masquerade);
    EXPECT_FALSE(options.inhibitV4);
    EXPECT_EQ(options.modeV4, firewall::GatewayMode::Nat);
    EXPECT_EQ(options.interfacePrefix, "eth");
    EXPECT_FALSE(options.hostBinding);
    EXPECT_EQ(options.mtu, 0U);
}

TEST(BridgeOptions, ReadsEveryOne) {
    const auto options = must(parseBridgeOptions(request({
        {"com.docker.network.bridge.name", "br-web"},
        {"com.docker.network.bridge.enable_icc", "false"},
        {"com.docker.network.bridge.enable_ip_masquerade", "0"},
        {"com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"},
        {"com.docker.network.bridge.gateway_mode_ipv4", "routed"},
        {"com.docker.network.bridge.gateway_mode_ipv6", "nat"},
        {"com.docker.network.bridge.inhibit_ipv4", "T"},
        {"com.docker.network.container_iface_prefix", "net"},
        {"com.docker.network.driver.mtu", "1400"},
        {"com.docker.network.enable_ipv4", "true"},
        {"com.docker.network.advertise_addr_nmsgs", "2"},
    })));
    EXPECT_EQ(options.name, "br-web");
    EXPECT_FALSE(options.icc);
    EXPECT_FALSE(options.masquerade);
    EXPECT_EQ(options.hostBinding, must(IpAddress::parse("127.0.0.1")));
    EXPECT_EQ(options.modeV4, firewall::GatewayMode::Routed);
    EXPECT_EQ(options.modeV6, firewall::GatewayMode::Nat);
    EXPECT_TRUE(options.inhibitV4);
    EXPECT_EQ(options.interfacePrefix, "net");
    EXPECT_EQ(options.mtu, 1400U);
    const auto snat = must(parseBridgeOptions(request({{"com.docker.network.host_ipv4", "192.0.2.1"}})));
    EXPECT_EQ(snat.hostV4, must(IpAddress::parse("192.0.2.1")));
}

TEST(BridgeOptions, UnknownNameTellsTheNearestAndAll) {
    const std::string text = refusal({{"com.docker.network.bridge.enbale_icc", "true"}});
    EXPECT_THAT(text, HasSubstr("did you mean \"com.docker.network.bridge.enable_icc\""));
    EXPECT_THAT(text, HasSubstr("com.docker.network.driver.mtu"));
    EXPECT_THAT(text, Not(HasSubstr("default_bridge")));
    EXPECT_THAT(refusal({{"mtu", "1400"}}), HasSubstr("did you mean \"com.docker.network.driver.mtu\""));
    EXPECT_THAT(refusal({{"colour", "blue"}}), Not(HasSubstr("did you mean")));
}

TEST(BridgeOptions, RefusesWhatItCannotDoAndSaysWhy) {
    EXPECT_THAT(refusal({{"com.docker.network.bridge.default_bridge", "true"}}), HasSubstr("not supported"));
    EXPECT_THAT(refusal({{"com.docker.network.bridge.gateway_mode_ipv4", "nat-unprotected"}}), HasSubstr("publish"));
    EXPECT_THAT(refusal({{"com.docker.network.bridge.gateway_mode_ipv6", "isolated"}}), HasSubstr("--internal"));
}

TEST(BridgeOptions, RefusesMalformedAndContradictoryValues) {
    for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
             {"com.docker.network.bridge.enable_icc", "yes"},
             {"com.docker.network.bridge.name", "much-too-long-for-a-link"},
             {"com.docker.network.bridge.name", "a/b"},
             {"com.docker.network.bridge.host_binding_ipv4", "localhost"},
             {"com.docker.network.bridge.gateway_mode_ipv4", "bridged"},
             {"com.docker.network.driver.mtu", "67"},
             {"com.docker.network.driver.mtu", "1400 "},
             {"com.docker.network.driver.mtu", "65536"},
             {"com.docker.network.container_iface_prefix", "eth0"},
             {"com.docker.network.host_ipv4", "fd00::1"},
             {"com.docker.network.enable_ipv6", "true"},
             {"com.docker.network.advertise_addr_nmsgs", "4"},
         }) {
        EXPECT_THAT(refusal({{name, value}}), HasSubstr(name)) << value;
    }
    const std::string host = "com.docker.network.host_ipv4";
    EXPECT_THAT(refusal({{host, "192.0.2.1"}, {"com.docker.network.bridge.gateway_mode_ipv4", "routed"}}),
                HasSubstr("contradict"));
    EXPECT_THAT(refusal({{host, "192.0.2.1"}, {"com.docker.network.bridge.enable_ip_masquerade", "false"}}),
                HasSubstr("contradict"));
    EXPECT_THAT(refusal({{"com.docker.network.bridge.enable_ip_masquerade", "true"},
                         {"com.docker.network.bridge.gateway_mode_ipv4", "routed"}}),
                HasSubstr("contradict"));
}

TEST(BridgeOptions, SpoofIsAllowOrDenyAndTheEndpointsOwnGoesFirst) {
    const std::map<std::string, std::string> overlay{{"weft.network", "n"}};
    for (const bool isOverlay : {false, true}) {
        for (const auto& [value, allowed] :
             {std::pair("allow", true), std::pair("deny", false), std::pair("", false)}) {
            auto options = isOverlay ? overlay : std::map<std::string, std::string>();
            options["weft.spoof"] = value;
            EXPECT_EQ(must(parseBridgeOptions(request(options), isOverlay)).spoofAllowed, allowed) << value;
        }
        auto options = isOverlay ? overlay : std::map<std::string, std::string>();
        options["weft.spoof"] = "true";
        const auto refused = parseBridgeOptions(request(options), isOverlay);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, ErrorCode::InvalidArgument);
        EXPECT_THAT(refused.error().message, HasSubstr("option \"weft.spoof\" is \"true\" but must be allow or deny"));
    }
    EXPECT_EQ(must(parseEndpointSpoof("weft-bridge", {})), std::nullopt);
    EXPECT_EQ(must(parseEndpointSpoof("weft-bridge", {{"weft.spoof", "allow"}})), true);
    EXPECT_EQ(must(parseEndpointSpoof("weft-bridge", {{"weft.spoof", "deny"}})), false);
    EXPECT_THAT(parseEndpointSpoof("weft-bridge", {{"weft.spoof", "yes"}}).error().message,
                HasSubstr("must be allow or deny"));
    EXPECT_THAT(parseEndpointSpoof("weft-bridge", {{"weft.spoo", "allow"}}).error().message,
                HasSubstr("did you mean \"weft.spoof\"?"));
}

TEST(BridgeSubnets, TakesTheFamiliesThatAreOn) {
    auto both = request();
    IpamData six;
    six.pool = must(IpPrefix::parse("fd00:20::/64"));
    both.ipv6 = {six};
    EXPECT_EQ(must(bridgeSubnets(both)).size(), 1U);
    both.enableIpv6 = true;
    EXPECT_EQ(must(bridgeSubnets(both)).size(), 2U);
    EXPECT_EQ(gatewayAddress(six).str(), "fd00:20::1/64");
    both.enableIpv4 = false;
    EXPECT_EQ(must(bridgeSubnets(both)).front().pool, six.pool);
}

TEST(BridgeSubnets, RefusesWhatCannotWork) {
    const auto refused = [](CreateNetworkRequest bad) { return !bridgeSubnets(bad); };
    auto bad = request();
    bad.ipv4.clear();
    EXPECT_TRUE(refused(bad));
    bad = request();
    bad.enableIpv4 = false;
    EXPECT_TRUE(refused(bad));
    bad = request();
    bad.ipv4[0].pool = must(IpPrefix::parse("0.0.0.0/0"));
    EXPECT_TRUE(refused(bad));
    bad = request();
    bad.ipv4[0].gateway = must(IpPrefix::parse("10.21.0.1/24"));
    EXPECT_TRUE(refused(bad));
    bad = request();
    bad.ipv4.push_back(bad.ipv4[0]);
    bad.ipv4[1].pool = must(IpPrefix::parse("10.20.0.128/25"));
    bad.ipv4[1].gateway.reset();
    EXPECT_TRUE(refused(bad));
}

TEST(BridgeSysctls, ForwardOnlyWhereNeeded) {
    auto internal = request();
    internal.internal = true;
    const auto value = [](const CreateNetworkRequest& of, const std::string& setting) {
        for (const auto& [name, wanted] : bridgeSysctls("b", of, must(parseBridgeOptions(of)))) {
            if (name == setting) return wanted;
        }
        return std::string("unset");
    };
    EXPECT_EQ(value(request(), "net/ipv4/conf/b/forwarding"), "1");
    EXPECT_EQ(value(request(), "net/ipv4/conf/b/route_localnet"), "1");
    EXPECT_EQ(value(request(), "net/ipv6/conf/b/disable_ipv6"), "1");
    EXPECT_EQ(value(internal, "net/ipv4/conf/b/forwarding"), "0");
    EXPECT_EQ(value(internal, "net/ipv4/conf/b/route_localnet"), "0");
    const auto routed = request({{"com.docker.network.bridge.gateway_mode_ipv4", "routed"}});
    EXPECT_EQ(value(routed, "net/ipv4/conf/b/route_localnet"), "0");
}

TEST(HostOptions, ReadsAndRefuses) {
    const auto options = must(parseHostOptions(request({{"parent", "eno1"}, {"exclusive", "true"}})));
    EXPECT_EQ(options.parent, "eno1");
    EXPECT_TRUE(options.exclusive);
    EXPECT_FALSE(parseHostOptions(request({{"parnet", "eno1"}})));
    EXPECT_FALSE(parseHostOptions(request({{"exclusive", "true"}, {"com.docker.network.driver.mtu", "1400"}})));
    EXPECT_FALSE(parseHostOptions(request({{"macvlan_mode", "vepa"}})));
    auto internal = request();
    internal.internal = true;
    EXPECT_FALSE(parseHostOptions(internal));
}

TEST(Names, AreStableMarkedAndFit) {
    const NetworkId network("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    const EndpointId endpoint("fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210");
    EXPECT_EQ(bridgeName(network), "weft-0123456789");
    EXPECT_EQ(hostEndName(endpoint), "wvfedcba987654");
    EXPECT_EQ(containerEndName(endpoint), "wcfedcba987654");
    EXPECT_EQ(markedNetwork(networkMark(network)), network);
    EXPECT_EQ(markedEndpoint(endpointMark(endpoint)), endpoint);
    EXPECT_FALSE(markedNetwork(endpointMark(endpoint)));
    EXPECT_FALSE(markedNetwork("weft network "));
    EXPECT_FALSE(markedEndpoint(""));
    // Swarm's IDs are 25 digits of base 36.
    const std::string swarm = bridgeName(NetworkId("l3kq2kq0y0vxk3kbgnmqzhqqb"));
    EXPECT_EQ(swarm.size(), 15U);
    EXPECT_NE(swarm, bridgeName(NetworkId("l3kq2kq0y0vxk3kbgnmqzhqqc")));
    EXPECT_TRUE(checkLinkName(swarm));
}

TEST(Names, MacFollowsTheAddress) {
    const auto v4 = must(IpPrefix::parse("10.20.0.7/24"));
    const auto v6 = must(IpPrefix::parse("fd00::7/64"));
    EXPECT_EQ(macFromAddress(v4, v6, EndpointId("e")).str(), "02:42:0a:14:00:07");
    const MacAddress six = macFromAddress(std::nullopt, v6, EndpointId("e"));
    EXPECT_EQ(six, macFromAddress(std::nullopt, v6, EndpointId("f")));
    EXPECT_FALSE(six.isMulticast());
    EXPECT_EQ(six.bytes()[0] & 2, 2);
}

}  // namespace
}  // namespace weft
