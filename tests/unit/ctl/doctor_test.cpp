#include "ctl/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "ctl/show.h"
#include "tests/unit/ctl/samples.h"

namespace weft::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A host where all is well.
HostView goodHost() {
    HostView host;
    host.status = samples::kStatus;
    host.networks = samples::kNetworks;
    host.endpoints = samples::kEndpoints;
    host.checks = samples::kDoctor;
    host.engineSocket = "/run/docker.sock";
    host.engineNetworks = samples::kEngineNetworks;
    host.engineContainers = samples::kEngineContainers;
    host.forward = {{"iptables-nft", "-P FORWARD DROP\n-A FORWARD -j WEFT-FORWARD\n"},
                    {"ip6tables-nft", "-P FORWARD ACCEPT\n"}};
    return host;
}

std::string report(const HostView& host) {
    const auto text = show("doctor", examine(host), {}, false);
    EXPECT_TRUE(text);
    return text ? *text : "";
}

TEST(Doctor, FindsNothingOnAGoodHost) {
    const std::string found = report(goodHost());
    EXPECT_THAT(found, HasSubstr("ok   weftd: answers\nok   conntrack: 12 of"));
    EXPECT_THAT(found, HasSubstr("ok   plugin sockets: in /run/docker/plugins, and all answer\n"));
    EXPECT_THAT(found, HasSubstr("ok   FORWARD of iptables-nft: policy DROP; weft's traffic passes by WEFT-FORWARD\n"));
    EXPECT_THAT(found, HasSubstr("ok   docker's view: the same as weft's: 2 networks, 1 endpoints\n"));
    EXPECT_THAT(found, Not(HasSubstr("fail")));
}

TEST(Doctor, NamesANetworkThatWeftLost) {
    HostView host = goodHost();
    host.networks = R"({"networks":[]})";
    host.endpoints = R"({"endpoints":[]})";
    EXPECT_THAT(report(host), HasSubstr("fail docker's view: Docker has network web, weft does not\n"
                                        "     fix: docker network rm web, then create it again\n"));
}

TEST(Doctor, NamesANetworkThatDockerLost) {
    HostView host = goodHost();
    host.engineNetworks = "[]";
    EXPECT_THAT(report(host), HasSubstr("warn docker's view: weft has network aaaaaaaaaaaa, Docker does not\n"
                                        "     fix: curl --unix-socket /run/docker/plugins/weft-bridge.sock -d "
                                        "'{\"NetworkID\":\"aaaaaaaaaaaaaaaaaaaa\"}'"));
}

TEST(Doctor, NamesAPoolThatNoNetworkOfDockerUses) {
    HostView host = goodHost();
    host.pools = samples::kPools;  // p1 is attached to a network, p2 to none
    EXPECT_THAT(report(host),
                HasSubstr("warn docker's view: weft keeps subnet fd00:20::/64 for a network that Docker does not have\n"
                          "     fix: curl --unix-socket /run/docker/plugins/weft-bridge.sock -d "
                          "'{\"PoolID\":\"p2\"}' http://weft/IpamDriver.ReleasePool\n"));
    HostView overlay = host;
    const size_t space = overlay.pools.find("\"local\"", overlay.pools.find("p2"));
    overlay.pools.replace(space, 7, "\"weft-overlay-local\"");
    EXPECT_THAT(report(overlay), HasSubstr("weft-overlay.sock -d '{\"PoolID\":\"p2\"}'"));
    host.engineNetworks.insert(1, R"({"Id":"1","Driver":"bridge","IPAM":{"Config":[{"Subnet":"fd00:20::7/64"}]}},)");
    EXPECT_THAT(report(host), Not(HasSubstr("weft keeps subnet")));
    host.engineNetworks.insert(1, R"({"Id":"2","Driver":"none","IPAM":{"Config":null}},{"Id":"3","Driver":"x"},)");
    EXPECT_THAT(report(host), Not(HasSubstr("not understood")));
}

TEST(Doctor, NamesAnEndpointOfOneSideOnly) {
    HostView host = goodHost();
    host.endpoints = R"({"endpoints":[]})";
    EXPECT_THAT(report(host),
                HasSubstr("fail docker's view: container 111111111111 is on network web for Docker, not for weft\n"
                          "     fix: docker network disconnect -f web 111111111111; docker network connect web"));
    host = goodHost();
    host.engineContainers = "[]";
    EXPECT_THAT(report(host), HasSubstr("warn docker's view: weft has endpoint eeeeeeeeeeee on network aaaaaaaaaaaa"));
}

TEST(Doctor, SeesAForwardChainThatDropsWeftsTraffic) {
    HostView host = goodHost();
    host.forward = {{"iptables-nft", "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n"}};
    EXPECT_THAT(report(host),
                HasSubstr("fail FORWARD of iptables-nft: policy DROP, and no rule lets weft's traffic pass\n"
                          "     fix: weftctl reconcile\n"));
    // The other world than weft's: reconciling would not mend it.
    host.forward[0].command = "iptables-legacy";
    EXPECT_THAT(report(host), HasSubstr("set firewall = \"auto\""));
    // IPv6 is judged by IPv6 networks.
    host.forward[0].command = "ip6tables-nft";
    EXPECT_THAT(report(host), HasSubstr("fail FORWARD of ip6tables-nft"));
    host.networks = R"({"networks":[{"id":"a","driver":"weft-bridge","subnets":["10.20.0.0/24"]}]})";
    EXPECT_THAT(report(host), HasSubstr("ok   FORWARD of ip6tables-nft"));
}

TEST(Doctor, SeesSocketsThatTheEngineCannotUse) {
    HostView host = goodHost();
    host.deafSockets = {"/run/docker/plugins/weft-none.sock: Connection refused"};
    EXPECT_THAT(report(host), HasSubstr("fail plugin sockets: /run/docker/plugins/weft-none.sock: Connection refused\n"
                                        "     fix: systemctl restart weftd.socket weftd.service\n"));
    host = goodHost();
    host.status = R"({"pluginDir":"/srv/plugins"})";
    EXPECT_THAT(report(host), HasSubstr("warn plugin sockets: in /srv/plugins, where Docker does not look"));
}

// With an overlay network, and an engine of that version.
HostView hostOfEngine(const std::string& version) {
    HostView host = goodHost();
    host.networks = R"({"networks":[{"id":"o","driver":"weft-overlay","subnets":["10.32.0.0/16"]}]})";
    host.checks = R"({"checks":[{"name":"names","health":"good","found":"the engine tells them","fix":""}]})";
    host.engineVersion = R"({"Version":")" + version + R"("})";
    host.nameServers = {"192.0.2.53", "2001:db8::53"};
    return host;
}

TEST(Doctor, SeesThatTheEngineAsksNamesPastWeft) {
    HostView host = hostOfEngine("28.0.0");
    EXPECT_THAT(report(host), HasSubstr("warn containers' name servers: none set; engine 28.0.0 asks the host's"));
    EXPECT_THAT(
        report(host),
        HasSubstr("     fix: printf '%s\\n' '{\"dns\":[\"192.0.2.53\",\"2001:db8::53\"]}' > /etc/docker/daemon.json; "
                  "systemctl restart docker\n"));
    // What is in the file stays there.
    host.engineSettings = {{"dockerd"}, "/srv/it's.json", R"({"dns":[],"labels":["it's"]})"};
    host.nameServers = {};
    EXPECT_THAT(report(host),
                HasSubstr(R"(printf '%s\n' '{"dns":["ADDRESS"],"labels":["it'\''s"]}' > '/srv/it'\''s.json';)"));
    host.engineSettings.text = "{";
    EXPECT_THAT(report(host), HasSubstr("warn containers' name servers: /srv/it's.json is not understood\n"));
}

TEST(Doctor, FindsTheEnginesNameServersInItsFileAndArguments) {
    HostView host = hostOfEngine("29.1.1");
    host.engineSettings.text = R"({"dns":["192.0.2.53"]})";
    EXPECT_THAT(report(host), HasSubstr("ok   containers' name servers: set for the engine\n"));
    host.engineSettings.text = "";
    for (const char* argument : {"--dns", "--dns=192.0.2.53"}) {
        host.engineSettings.arguments = {"dockerd", argument, "192.0.2.53"};
        EXPECT_THAT(report(host), HasSubstr("ok   containers' name servers"));
    }
    host.engineSettings.arguments = {"dockerd", "--dns-search=example.com"};
    EXPECT_THAT(report(host), HasSubstr("warn containers' name servers"));
}

TEST(Doctor, SaysNothingOfNameServersWhereContainersAskThemselves) {
    for (const char* version : {"20.10.24+dfsg1", "25.0.5", "27.5.1", "dev", ""}) {
        EXPECT_THAT(report(hostOfEngine(version)), Not(HasSubstr("name servers"))) << version;
    }
    HostView host = hostOfEngine("28.0.0");
    host.networks = samples::kNetworks;  // no overlay
    EXPECT_THAT(report(host), Not(HasSubstr("name servers")));
    host = hostOfEngine("28.0.0");
    host.checks = samples::kDoctor;  // --dns-port 0
    EXPECT_THAT(report(host), Not(HasSubstr("name servers")));
}

TEST(Doctor, NamesNameServersThatContainersCanAsk) {
    std::istringstream file(
        "# nameserver 192.0.2.1\nnameserver 127.0.0.53\nsearch example.com\nnameserver\t192.0.2.53 \n"
        "nameserver ::1\nnameserver 2001:db8::53\nnameserver\n");
    EXPECT_EQ(nameServersIn(file), (std::vector<std::string>{"192.0.2.53", "2001:db8::53"}));
}

TEST(Doctor, HelpsWithoutWeftdAndWithoutAnEngine) {
    HostView host;
    host.weftError = "/run/weft/weft.sock: No such file or directory";
    host.engineSocket = "/run/docker.sock";
    EXPECT_EQ(report(host),
              "fail weftd: /run/weft/weft.sock: No such file or directory\n"
              "     fix: systemctl start weftd.socket weftd.service; journalctl -u weftd\n"
              "warn docker's view: no engine answers at /run/docker.sock\n"
              "     fix: systemctl start docker; or name its socket: weftctl --docker-socket PATH doctor\n");
    EXPECT_TRUE(foundTrouble("doctor", examine(host)));
}

TEST(Doctor, SurvivesAnEngineOfAnotherShape) {
    HostView host = goodHost();
    host.engineContainers = R"([{"Id":"1"}])";
    EXPECT_THAT(report(host), HasSubstr("warn docker's view: not understood"));
}

}  // namespace
}  // namespace weft::ctl
