#include "ctl/trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace weft::ctl {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kContainers = R"([
    {"Id":"c0ffee0000000000","Names":["/web"],"NetworkSettings":{"Networks":{
        "back":{"EndpointID":"aaaa1111","IPAddress":"10.2.0.2","GlobalIPv6Address":""},
        "front":{"EndpointID":"bbbb2222","IPAddress":"10.1.0.2","GlobalIPv6Address":"fd00:1::2"}}}},
    {"Id":"deadbeef00000000","Names":["/db"],"NetworkSettings":{"Networks":{
        "back":{"EndpointID":"cccc3333","IPAddress":"10.2.0.3","GlobalIPv6Address":""},
        "zone":{"EndpointID":"dddd4444","IPAddress":"10.3.0.3","GlobalIPv6Address":""}}}}])";

Json asked(const std::string& container, const std::string& destination, std::string_view containers = kContainers) {
    const auto question = traceQuestion(container, destination, containers);
    EXPECT_TRUE(question) << (question ? "" : question.error().message);
    return question ? Json::parse(*question) : Json();
}

}  // namespace

TEST(TraceQuestion, ReadsDestinations) {
    EXPECT_EQ(asked("web", "192.0.2.7"),
              Json({{"container", "bbbb2222"}, {"name", "web"}, {"destination", "192.0.2.7"}}));
    for (const auto& [text, host, protocol, port] :
         {std::tuple("192.0.2.7:80", "192.0.2.7", "tcp", 80), std::tuple("192.0.2.7:53/udp", "192.0.2.7", "udp", 53),
          std::tuple("[2001:db8::7]:443", "2001:db8::7", "tcp", 443), std::tuple("far:80", "far", "tcp", 80)}) {
        const Json question = asked("web", text);
        EXPECT_EQ(question["destination"], host);
        EXPECT_EQ(question["protocol"], protocol);
        EXPECT_EQ(question["port"], port);
    }
    EXPECT_EQ(asked("web", "2001:db8::7")["destination"], "2001:db8::7");
    for (const char* wrong : {"", "192.0.2.7:", "192.0.2.7:0", "192.0.2.7:70000", "192.0.2.7:http", "192.0.2.7:80/",
                              "192.0.2.7:80/icmp", ":80", "2001:db8::7:x", "[192.0.2.7:80", "[name]:80"}) {
        EXPECT_FALSE(traceQuestion("web", wrong, kContainers)) << wrong;
    }
}

TEST(TraceQuestion, KnowsContainersByNameIdEndpointAndAddress) {
    for (const char* container : {"web", "c0ffee", "bbbb2222", "10.1.0.2", "fd00:1::2", "10.2.0.2"}) {
        const Json question = asked(container, "192.0.2.7");
        EXPECT_EQ(question["name"], "web") << container;
        EXPECT_EQ(question["container"], "bbbb2222") << container;
    }
    EXPECT_EQ(asked("10.9.0.9", "192.0.2.7")["container"], "10.9.0.9");
    EXPECT_EQ(asked("web", "192.0.2.7", "")["container"], "web") << "without an engine";
    EXPECT_EQ(asked("web", "192.0.2.7", "{}")["container"], "web");
}

TEST(TraceQuestion, FindsADestinationWhereTheTwoMeet) {
    EXPECT_EQ(asked("web", "db")["destination"], "10.2.0.3");
    EXPECT_EQ(asked("web", "db:80")["destination"], "10.2.0.3");
    EXPECT_EQ(asked("web", "elsewhere")["destination"], "elsewhere") << "weftd may know it";
}

}  // namespace weft::ctl
