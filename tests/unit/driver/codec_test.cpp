#include "driver/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::driver {
namespace {

using ::testing::HasSubstr;

IpPrefix prefix(const char* text) {
    return *IpPrefix::parse(text);
}

TEST(Codec, CreateNetworkReadsEveryPart) {
    const auto request = decodeCreateNetwork(R"({"NetworkID":"n1","Options":{
        "com.docker.network.enable_ipv4":false,"com.docker.network.enable_ipv6":true,"com.docker.network.internal":true,
        "com.docker.network.generic":{"com.docker.network.bridge.name":"br-test"}},
        "IPv4Data":[{"AddressSpace":"s","Pool":"10.1.0.0/24","Gateway":"10.1.0.254/24","AuxAddresses":{"printer":"10.1.0.9/24"}},
                    {"Pool":"10.2.0.0/24"}],
        "IPv6Data":[{"Pool":"fd00::/64","Gateway":""}],"Unknown":[{}]})");
    ASSERT_TRUE(request) << request.error().message;
    EXPECT_EQ(request->networkId.str(), "n1");
    EXPECT_FALSE(request->enableIpv4);
    EXPECT_TRUE(request->enableIpv6);
    EXPECT_TRUE(request->internal);
    EXPECT_EQ(request->options, (std::map<std::string, std::string>{{"com.docker.network.bridge.name", "br-test"}}));
    ASSERT_EQ(request->ipv4.size(), 2U);
    EXPECT_EQ(request->ipv4[0],
              (IpamData{"s", prefix("10.1.0.0/24"), prefix("10.1.0.254/24"), {{"printer", prefix("10.1.0.9/24")}}}));
    EXPECT_EQ(request->ipv4[1].gateway, std::nullopt);
    ASSERT_EQ(request->ipv6.size(), 1U);
    EXPECT_EQ(request->ipv6[0].gateway, std::nullopt);
}

TEST(Codec, AbsentAndNullAreTheSame) {
    for (const char* body :
         {R"({"NetworkID":"n1"})", R"({"NetworkID":"n1","Options":null,"IPv4Data":null,"IPv6Data":null})",
          R"({"NetworkID":"n1","Options":{"com.docker.network.generic":null},"IPv4Data":[]})"}) {
        const auto request = decodeCreateNetwork(body);
        ASSERT_TRUE(request) << request.error().message;
        EXPECT_TRUE(request->enableIpv4);
        EXPECT_FALSE(request->enableIpv6);
        EXPECT_FALSE(request->internal);
        EXPECT_TRUE(request->options.empty());
        EXPECT_TRUE(request->ipv4.empty());
    }
}

TEST(Codec, CreateEndpointReadsAddressesMacPortsAndOptions) {
    const auto request = decodeCreateEndpoint(R"({"NetworkID":"n1","EndpointID":"e1",
        "Interface":{"Address":"10.1.0.2/24","AddressIPv6":"fd00::2/64","MacAddress":""},
        "Options":{"com.docker.network.endpoint.macaddress":"AgAAAAAJ","com.docker.network.endpoint.sysctls":"a=1",
          "com.docker.network.endpoint.dnsservers":["1.1.1.1"],"com.docker.network.driver.private.no_proxy_6to4":true,
          "my.option":"yes",
          "com.docker.network.endpoint.exposedports":[{"Proto":6,"Port":80},{"Proto":17,"Port":53}],
          "com.docker.network.portmap":[
            {"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080},
            {"Proto":17,"IP":"","Port":53,"HostIP":"0.0.0.0","HostPort":9000,"HostPortEnd":9010},
            {"Proto":132,"IP":"","Port":5000,"HostIP":"::","HostPort":0,"HostPortEnd":0}]}})");
    ASSERT_TRUE(request) << request.error().message;
    EXPECT_EQ(request->address, prefix("10.1.0.2/24"));
    EXPECT_EQ(request->addressV6, prefix("fd00::2/64"));
    EXPECT_EQ(request->mac->str(), "02:00:00:00:00:09");
    EXPECT_EQ(request->ports.exposed, (std::vector<ExposedPort>{{IpProtocol::Tcp, 80}, {IpProtocol::Udp, 53}}));
    EXPECT_EQ(request->ports.bindings,
              (std::vector<PortBinding>{{IpProtocol::Tcp, 80, std::nullopt, 8080, 0},
                                        {IpProtocol::Udp, 53, IpAddress::any(IpFamily::V4), 9000, 9010},
                                        {IpProtocol::Sctp, 5000, IpAddress::any(IpFamily::V6), 0, 0}}));
}

TEST(Codec, TheInterfacesMacGoesBeforeTheOptions) {
    const auto request =
        decodeCreateEndpoint(R"({"NetworkID":"n","EndpointID":"e","Interface":{"MacAddress":"02:42:00:00:00:01"},
        "Options":{"com.docker.network.endpoint.macaddress":"AgAAAAAJ"}})");
    ASSERT_TRUE(request);
    EXPECT_EQ(request->mac->str(), "02:42:00:00:00:01");
}

TEST(Codec, WeftsOwnEndpointOptionsAreTaken) {
    const auto request = decodeCreateEndpoint(
        R"({"NetworkID":"n","EndpointID":"e","Options":{"weft.spoof":"allow","my.option":"yes"}})");
    ASSERT_TRUE(request);
    EXPECT_EQ(request->options, (std::map<std::string, std::string>{{"weft.spoof", "allow"}}));
    EXPECT_THAT(
        decodeCreateEndpoint(R"({"NetworkID":"n","EndpointID":"e","Options":{"weft.spoof":true}})").error().message,
        HasSubstr("Options.weft.spoof: expected a string"));
}

// A wish that a plugin cannot fulfil is refused, not forgotten.
TEST(Codec, TheNameOfALinkIsTheEngines) {
    const auto request = decodeCreateEndpoint(
        R"({"NetworkID":"n","EndpointID":"e","Options":{"com.docker.network.endpoint.ifname":"lan0"}})");
    ASSERT_FALSE(request);
    EXPECT_EQ(request.error().code, ErrorCode::Unsupported);
    EXPECT_THAT(request.error().message, HasSubstr("container_iface_prefix"));
}

struct Malformed {
    const char* body;
    const char* message;
};

TEST(Codec, ErrorsNameTheFieldAndWhatWasExpected) {
    const std::vector<Malformed> networks{
        {"", "empty request body"},
        {" \n", "empty request body"},
        {"{", "not valid JSON"},
        {"[]", "request body: expected a JSON object, got an array"},
        {"{}", "NetworkID: missing"},
        {R"({"NetworkID":""})", "NetworkID: missing"},
        {R"({"networkid":"n"})", "NetworkID: missing"},
        {R"({"NetworkID":7})", "NetworkID: expected a string, got 7"},
        {R"({"NetworkID":"n","Options":[]})", "Options: expected an object, got an array"},
        {R"({"NetworkID":"n","Options":{"com.docker.network.internal":"true"}})",
         "Options.com.docker.network.internal: expected true or false, got \"true\""},
        {R"({"NetworkID":"n","Options":{"com.docker.network.generic":{"a":1}}})",
         "Options.com.docker.network.generic.a: expected a string, got 1"},
        {R"({"NetworkID":"n","IPv4Data":{}})", "IPv4Data: expected an array"},
        {R"({"NetworkID":"n","IPv4Data":["10.0.0.0/8"]})", "IPv4Data[0]: expected an object, got \"10.0.0.0/8\""},
        {R"({"NetworkID":"n","IPv4Data":[{}]})", "IPv4Data[0].Pool: missing"},
        {R"({"NetworkID":"n","IPv4Data":[{"Pool":"10.0.0.0/8"},{"Pool":"10.0.0.0"}]})",
         "IPv4Data[1].Pool: expected a prefix such as 10.0.0.0/24, got \"10.0.0.0\""},
        {R"({"NetworkID":"n","IPv4Data":[{"Pool":"fd00::/64"}]})", "IPv4Data[0].Pool: expected an IPv4 prefix"},
        {R"({"NetworkID":"n","IPv6Data":[{"Pool":"fd00::/64","Gateway":"fd00::1"}]})",
         "IPv6Data[0].Gateway: expected a prefix"},
        {R"({"NetworkID":"n","IPv4Data":[{"Pool":"10.0.0.0/8","AuxAddresses":{"x":"nowhere"}}]})",
         "IPv4Data[0].AuxAddresses.x: expected a prefix"},
    };
    for (const auto& [body, message] : networks) {
        const auto request = decodeCreateNetwork(body);
        ASSERT_FALSE(request) << body;
        EXPECT_EQ(request.error().code, ErrorCode::InvalidArgument);
        EXPECT_THAT(request.error().message, HasSubstr(message)) << body;
    }
    const std::vector<Malformed> ports{
        {R"({"Port":80})", "portmap[0].Proto: missing"},
        {R"({"Proto":2,"Port":80})", "portmap[0].Proto: expected 6 (tcp), 17 (udp), 132 (sctp) or 1 (icmp), got 2"},
        {R"({"Proto":6})", "portmap[0].Port: missing"},
        {R"({"Proto":6,"Port":0})", "portmap[0].Port: expected a port from 1 to 65535, got 0"},
        {R"({"Proto":6,"Port":-1})", "portmap[0].Port: expected a port"},
        {R"({"Proto":6,"Port":80.5})", "portmap[0].Port: expected a port"},
        {R"({"Proto":6,"Port":80,"HostPort":65536})", "portmap[0].HostPort: expected a port from 0 to 65535"},
        {R"({"Proto":6,"Port":80,"HostPort":90,"HostPortEnd":80})",
         "portmap[0].HostPortEnd: expected 0 or at least HostPort 90"},
        {R"({"Proto":6,"Port":80,"HostIP":"host"})", "portmap[0].HostIP: expected an address"},
    };
    for (const auto& [port, message] : ports) {
        const std::string body =
            std::string(R"({"NetworkID":"n","EndpointID":"e","Options":{"com.docker.network.portmap":[)") + port +
            "]}}";
        const auto request = decodeCreateEndpoint(body);
        ASSERT_FALSE(request) << body;
        EXPECT_THAT(request.error().message, HasSubstr(message)) << body;
    }
    EXPECT_THAT(decodeCreateEndpoint(R"({"NetworkID":"n"})").error().message, HasSubstr("EndpointID: missing"));
    for (const char* mac : {"AgAAAAA=", "AgAA", "AgAAAA!J"}) {
        const std::string body =
            std::string(R"({"NetworkID":"n","EndpointID":"e","Options":{"com.docker.network.endpoint.macaddress":")") +
            mac + "\"}}";
        EXPECT_THAT(decodeCreateEndpoint(body).error().message, HasSubstr("expected six bytes in base64"));
    }
    EXPECT_THAT(decodeAddressRequest(R"({"PoolID":"p","Address":"10.0.0.1/24"})").error().message,
                HasSubstr("Address: expected an address"));
    EXPECT_THAT(decodeReleaseAddress(R"({"PoolID":"p","Address":""})").error().message, HasSubstr("Address: missing"));
    EXPECT_THAT(decodePoolRequest(R"({"Pool":"10.0.0.0"})").error().message, HasSubstr("Pool: expected a prefix"));
}

TEST(Codec, IpamRequests) {
    const auto pool = decodePoolRequest(
        R"({"AddressSpace":"s","Pool":"10.0.0.0/24","SubPool":"10.0.0.128/25","Options":{"a":"b"},"V6":false})");
    ASSERT_TRUE(pool);
    EXPECT_EQ(pool->pool, prefix("10.0.0.0/24"));
    EXPECT_EQ(pool->subPool, prefix("10.0.0.128/25"));
    EXPECT_EQ(pool->options.at("a"), "b");
    const auto gateway = decodeAddressRequest(
        R"({"PoolID":"p","Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}})");
    ASSERT_TRUE(gateway);
    EXPECT_TRUE(gateway->gateway);
    EXPECT_EQ(gateway->address, std::nullopt);
    const auto withMac = decodeAddressRequest(
        R"({"PoolID":"p","Address":"10.0.0.9","Options":{"com.docker.network.endpoint.macaddress":"02:00:00:00:00:09"}})");
    ASSERT_TRUE(withMac);
    EXPECT_EQ(withMac->mac->str(), "02:00:00:00:00:09");
    EXPECT_FALSE(withMac->gateway);
}

TEST(Codec, RepliesLeaveOutWhatIsNotSet) {
    EXPECT_EQ(encode(CreateEndpointReply{}), R"({"Interface":{}})");
    CreateEndpointReply endpoint;
    endpoint.mac = *MacAddress::parse("02:42:0a:01:00:02");
    EXPECT_EQ(encode(endpoint), R"({"Interface":{"MacAddress":"02:42:0a:01:00:02"}})");
    JoinReply none;
    none.disableGatewayService = true;
    EXPECT_EQ(encode(none), R"({"DisableGatewayService":true})");
    JoinReply full{"wv123",
                   "eth",
                   *IpAddress::parse("10.1.0.1"),
                   *IpAddress::parse("fd00::1"),
                   {{prefix("10.9.0.0/16"), *IpAddress::parse("10.1.0.9")}, {prefix("10.8.0.0/16"), std::nullopt}}};
    EXPECT_EQ(encode(full), R"({"DisableGatewayService":false,"Gateway":"10.1.0.1","GatewayIPv6":"fd00::1",)"
                            R"("InterfaceName":{"DstPrefix":"eth","SrcName":"wv123"},)"
                            R"("StaticRoutes":[{"Destination":"10.9.0.0/16","NextHop":"10.1.0.9","RouteType":0},)"
                            R"({"Destination":"10.8.0.0/16","RouteType":1}]})");
    EXPECT_EQ(encode(ipam::PoolReply{ipam::PoolId("p"), prefix("10.0.0.0/24"), {}}),
              R"({"Data":{},"Pool":"10.0.0.0/24","PoolID":"p"})");
    EXPECT_EQ(encodeAddress(prefix("10.0.0.2/24")), R"({"Address":"10.0.0.2/24","Data":{}})");
}

TEST(Codec, ErrorTextsMayHoldAnyBytes) {
    EXPECT_EQ(encodeError("a \"b\"\n"), R"({"Err":"a \"b\"\n","Error":"a \"b\"\n"})");
    EXPECT_EQ(encodeError("\xff"), "{\"Err\":\"\xef\xbf\xbd\",\"Error\":\"\xef\xbf\xbd\"}");
}

TEST(Codec, DeepNestingIsOnlyAnError) {
    const std::string deep(500000, '[');
    EXPECT_FALSE(decodeCreateNetwork(deep));
    EXPECT_FALSE(decodeCreateNetwork("{\"NetworkID\":" + deep + std::string(500000, ']') + "}"));
}

}  // namespace
}  // namespace weft::driver
