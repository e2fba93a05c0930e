#include "ctl/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
