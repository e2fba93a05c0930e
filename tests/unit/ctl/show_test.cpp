#include "ctl/show.h"

#include <gtest/gtest.h>

#include "tests/unit/ctl/samples.h"

namespace weft::ctl {
namespace {

Names names() {
    return namesFromEngine(samples::kEngineNetworks, samples::kEngineContainers);
}

std::string shown(std::string_view what, std::string_view json, bool colour = false) {
    auto text = show(what, json, names(), colour);
    EXPECT_TRUE(text) << (text ? "" : text.error().message);
    return text ? *text : "";
}

TEST(Show, Status) {
    EXPECT_EQ(shown("status", samples::kStatus),
              "weftd 0.1.0 running, pid 417, up 1d2h\n"
              "firewall   nft: Docker's rules are there\n"
              "plugins    /run/docker/plugins\n"
              "state      /var/lib/weft\n"
              "log level  info\n"
              "node       one, cluster weft, at 192.0.2.1:7950, 2 of 3 members alive\n"
              "warning    two are called one\n"
              "\n"
              "DRIVER       NETWORKS  ENDPOINTS  PORTS\n"
              "weft-bridge         2          3      1\n"
              "weft-none           0          0      0\n");
}

TEST(Show, MembersAndOverlays) {
    EXPECT_EQ(shown("members", R"({"cluster":"weft","alone":false,"members":[
                {"name":"one","id":"0123456789abcdef","address":"192.0.2.1:7950","state":"alive","self":true,
                 "sinceSeconds":45},
                {"name":"two","id":"fedcba9876543210","address":"[2001:db8::2]:7950","state":"dead","self":false,
                 "sinceSeconds":5}]})"),
              "cluster weft\n"
              "NAME        ADDRESS             STATE  SINCE  ID\n"
              "one (here)  192.0.2.1:7950      alive    45s  01234567\n"
              "two         [2001:db8::2]:7950  dead      5s  fedcba98\n");
    EXPECT_EQ(shown("overlay", R"({"overlay":[{"name":"backend","id":"ffff","vni":4711,"hosts":["192.0.2.2"],
                "localEndpoints":2,"remoteEndpoints":3,"fastPath":true,"drift":0,"conflict":""}],"blocks":"10.32.0.0/16: one"})"),
              "OVERLAY  NETWORK   VNI  OTHER HOSTS  HERE  REMOTE  FAST PATH  DRIFT  CONFLICT\n"
              "backend  ffff     4711  192.0.2.2       2       3  yes            0  -\n"
              "\n"
              "10.32.0.0/16: one\n");
    EXPECT_EQ(shown("tunnels", R"({"tunnels":[{"host":"two","address":"192.0.2.2","state":"healed","found":"TCP passes",
                "examinedSecondsAgo":30,"checksumOffload":false},{"host":"old","address":"192.0.2.3","state":"unknown",
                "found":"answers no probes","examinedSecondsAgo":null,"checksumOffload":true}]})"),
              "TUNNEL TO  ADDRESS    STATE    EXAMINED  OFFLOAD  FOUND\n"
              "two        192.0.2.2  healed    30s ago  off      TCP passes\n"
              "old        192.0.2.3  unknown     never  on       answers no probes\n");
    EXPECT_EQ(shown("kv", R"({"kv":[{"key":"a/b","owner":"one","version":1,"value":"x"}]})"),
              "KEY  OWNER  VALUE\n"
              "a/b  one    x\n");
    EXPECT_EQ(shown("keys", R"({"keys":[{"id":"0badcafe","primary":true},{"id":"00000001","primary":false}]})"),
              "KEY       USE\n"
              "0badcafe  seals and opens\n"
              "00000001  opens\n");
}

TEST(Show, Trace) {
    const char* answer = R"({"steps":[{"name":"container","health":"good","found":"leaves","fix":""},
        {"name":"rules","health":"warning","found":"may\u001b[2J stop","fix":"nft"},
        {"name":"fdb","health":"bad","found":"no entry","fix":"weftctl reconcile"}]})";
    EXPECT_EQ(shown("trace", answer),
              " 1 ok   container: leaves\n"
              " 2 may  rules: may?[2J stop\n"
              "        fix: nft\n"
              " 3 stop fdb: no entry\n"
              "        fix: weftctl reconcile\n");
    EXPECT_TRUE(foundTrouble("trace", answer));
    EXPECT_FALSE(foundTrouble("trace", R"({"steps":[{"name":"rules","health":"warning","found":"","fix":""}]})"));
}

TEST(Show, Ping) {
    EXPECT_EQ(shown("ping", R"({"gossip":{"protocol":"tcp","address":"192.0.2.1:7950","sent":2,"answered":2,
                "minMs":0.1,"avgMs":0.15,"maxMs":0.2},
                "underlay":{"protocol":"icmp","address":"192.0.2.1","sent":2,"answered":0},
                "mtu":1500,"overlayMtu":1450})"),
              "gossip    tcp 192.0.2.1:7950: 2/2 answered, 0.10/0.15/0.20 ms (min/avg/max)\n"
              "underlay  icmp 192.0.2.1: 0/2 answered\n"
              "MTU       1500, so overlay networks carry 1450\n");
}

TEST(Show, FindsAMemberByNameIdOrAddress) {
    constexpr std::string_view kMembers = R"({"members":[
        {"name":"one","id":"0123456789abcdef","address":"192.0.2.1:7950"},
        {"name":"two","id":"fedcba9876543210","address":"[2001:db8::2]:7951"}]})";
    for (const char* host : {"two", "fedcba98", "2001:db8::2", "[2001:db8::2]:7951"}) {
        const auto found = addressOf(kMembers, host);
        ASSERT_TRUE(found) << host;
        EXPECT_EQ(found->str(), "[2001:db8::2]:7951");
    }
    EXPECT_EQ(addressOf(kMembers, "three").error().message, "no member three; there are: one, two");
    EXPECT_EQ(addressOf("{}", "one").error().code, ErrorCode::Corrupt);
}

TEST(Show, NetworksByDockersNames) {
    EXPECT_EQ(shown("networks", samples::kNetworks),
              "NETWORK  DRIVER       LINK             SUBNETS                      MTU  ENDPOINTS  INTERNAL  SPOOF\n"
              "web      weft-bridge  weft-aaaaaaaaaa  10.20.0.0/24, fd00:20::/64  1450          2  no        allow\n"
              "bare     weft-none    -                -                              -          0  yes       -\n");
}

TEST(Show, NetworksByIdWithoutAnEngine) {
    const auto text = show("networks", samples::kNetworks, namesFromEngine("", ""), false);
    ASSERT_TRUE(text);
    EXPECT_NE(text->find("\naaaaaaaaaaaa  weft-bridge"), std::string::npos) << *text;
}

TEST(Show, Endpoints) {
    EXPECT_EQ(shown("endpoints", samples::kEndpoints),
              "CONTAINER  NETWORK  ADDRESS       ADDRESS V6  MAC                LINK            PORTS  DROPPED\n"
              "server     web      10.20.0.2/24  -           02:42:0a:14:00:02  wveeeeeeeeeeee      1        3\n");
}

TEST(Show, PortsOfBothFamilies) {
    EXPECT_EQ(shown("ports", samples::kPorts),
              "HOST          TARGET           PROTOCOL  CONTAINER     NETWORK\n"
              "0.0.0.0:8080  10.20.0.2:80     tcp       server        web\n"
              "[::]:53       [fd00:20::2]:53  udp       ffffffffffff  web\n"
              "-             10.20.0.3:80     tcp       ffffffffffff  web\n");
}

TEST(Show, PoolsRoundWhatNobodyCounts) {
    EXPECT_EQ(shown("pools", samples::kPools),
              "POOL          SUB-POOL      NETWORK  USED   FREE  ENDPOINTS  SPACE\n"
              "10.20.0.0/24  -             web         3    251          2  local\n"
              "fd00:20::/64  fd00:20::/80  -           1  > 1e9          1  local\n");
}

TEST(Show, Leases) {
    EXPECT_EQ(shown("leases", samples::kLeases),
              "ADDRESS    KIND      CONTAINER   AGE  POOL\n"
              "10.20.0.1  gateway   -           59s  p1\n"
              "10.20.0.2  endpoint  server     1h1m  p1\n");
}

TEST(Show, ReconcileTellsADryRun) {
    EXPECT_EQ(shown("reconcile", samples::kRepairs),
              "KIND  OBJECT           ACTION    ERROR\n"
              "link  weft-aaaaaaaaaa  set up    -\n"
              "rule  WEFT-FORWARD     put back  table is locked\n"
              "nothing was changed\n");
    EXPECT_EQ(shown("reconcile", R"({"dryRun":true,"repairs":[]})"),
              "nothing to repair: the kernel is as weft's records say\n");
}

TEST(Show, DoctorPutsTheFixBelow) {
    EXPECT_EQ(shown("doctor", samples::kDoctor),
              "ok   conntrack: 12 of 262144 entries\n"
              "warn ip_forward: off\n"
              "     fix: sysctl -w net.ipv4.ip_forward=1\n");
    EXPECT_NE(shown("doctor", samples::kDoctor, true).find("\x1b[33mwarn\x1b[0m ip_forward"), std::string::npos);
}

TEST(Show, SaysWhenAListIsEmpty) {
    EXPECT_EQ(shown("ports", R"({"ports":[]})"), "no published ports\n");
    EXPECT_EQ(shown("networks", R"({"networks":[]})"),
              "no networks; make one with: docker network create -d weft-bridge NAME\n");
}

TEST(Show, RefusesAnAnswerOfAnotherShape) {
    for (const char* answer : {"", "[]", "{}", R"({"networks":[{"id":1}]})", "not json"}) {
        const auto text = show("networks", answer, {}, false);
        ASSERT_FALSE(text) << answer;
        EXPECT_EQ(text.error().code, ErrorCode::Corrupt);
    }
}

TEST(NamesFromEngine, GivesNoneForNonsense) {
    EXPECT_TRUE(namesFromEngine("{", "[{}]").networks.empty());
    EXPECT_TRUE(namesFromEngine(R"([{"Id":7}])", "").networks.empty());
}

TEST(ListOf, TakesTheArrayOut) {
    EXPECT_EQ(*listOf("ports", R"({"ports":[1,2]})"), "[1,2]");
    EXPECT_EQ(*listOf("doctor", R"({"checks":[]})"), "[]");
    EXPECT_FALSE(listOf("ports", R"({"error":"x"})"));
}

TEST(FoundTrouble, IsABadCheckOrAFailedRepair) {
    EXPECT_FALSE(foundTrouble("doctor", samples::kDoctor));
    EXPECT_TRUE(foundTrouble("doctor", R"({"checks":[{"health":"bad"}]})"));
    EXPECT_TRUE(foundTrouble("reconcile", samples::kRepairs));
    EXPECT_FALSE(foundTrouble("reconcile", R"({"repairs":[{"error":null}]})"));
    EXPECT_FALSE(foundTrouble("metrics", "weft_networks 1"));
}

TEST(ErrorText, IsWhatWeftdTold) {
    EXPECT_EQ(errorText(R"({"error":"no such path"})"), "no such path");
    EXPECT_EQ(errorText("<html>"), "<html>");
}

}  // namespace
}  // namespace weft::ctl
