#include "firewall/packet_walk.h"

#include <gmock/gmock.h>

#include "firewall/iptc_walk.h"

namespace weft::firewall {

namespace {

using testing::ElementsAre;
using testing::Field;
using testing::IsEmpty;

IpAddress ip(const char* text) {
    return IpAddress::parse(text).value();
}

const Packet kWeb{
    .in = "weft-a", .out = "eth0", .source = ip("10.1.0.2"), .destination = ip("192.0.2.7"), .protocol = 6, .port = 80};

// What `rule` does, alone in a chain at forward.
std::vector<Obstacle> meet(const std::string& rule, const Packet& packet = kWeb) {
    const std::string listing =
        "table ip filter { # handle 1\n\tchain FORWARD { # handle 2\n"
        "\t\ttype filter hook forward priority 0; policy accept;\n\t\t" +
        rule + " # handle 7\n\t}\n}\n";
    const auto tables = parseRuleset(listing, packet.destination.isV4() ? "ip" : "ip6", packet);
    return tables.empty() ? std::vector<Obstacle>() : walk(tables.front(), "forward");
}

auto certainly(const std::string& rule) {
    return ElementsAre(Obstacle{"nft ip filter FORWARD", rule, "nft delete rule ip filter FORWARD handle 7", true});
}
const auto kPerhaps = ElementsAre(Field(&Obstacle::certain, false));

}  // namespace

TEST(NftWalk, NamesTheRuleThatDrops) {
    const std::string rule = "ip saddr 10.1.0.0/16 tcp dport 80 drop";
    EXPECT_THAT(meet(rule), certainly(rule));
}

TEST(NftWalk, UnderstandsConditions) {
    for (const char* rule :
         {"drop", "iifname \"weft-a\" drop", "iifname \"weft-*\" oifname != \"eth1\" counter drop",
          "tcp dport 79-81 drop",
          "meta l4proto 6 ip saddr 10.1.0.0/16 tcp dport { 80, 81 } counter packets 0 bytes 0 reject",
          "ct state 0x1,0x8 drop", "ct status ! 0x20 drop", "ip daddr { 10.0.0.0/8, 192.0.2.1-192.0.2.9 } drop",
          "fib daddr type != 2 drop", "log prefix \"a drop of \" level info drop",
          "ip protocol 6 drop comment \"no accept\"", "reject with icmp 3"}) {
        EXPECT_THAT(meet(rule), certainly(rule)) << rule;
    }
    for (const char* rule :
         {"accept", "iifname \"eth0\" drop", "oifname \"eth0\" ip saddr 10.2.0.0/16 drop", "udp dport 80 drop",
          "tcp dport 443 drop", "ct state 0x2,0x4 drop", "ct status 0x20 drop", "fib daddr type 2 drop",
          "icmp type 8 drop", "ip6 saddr fd00::/8 drop", "limit rate 3/second log", "meta nfproto 10 drop",
          "ip saddr 10.2.0.0/16 meta mark 0x1 drop", "meta mark set 0x1"}) {
        EXPECT_THAT(meet(rule), IsEmpty()) << rule;
    }
}

TEST(NftWalk, SaysPerhapsOfWhatItDoesNotUnderstand) {
    for (const char* rule : {"meta mark 0x1 drop", "ip saddr @bad drop", "limit rate over 10/second drop",
                             "ip daddr . meta l4proto . th dport @closed drop", "iifname vmap { \"weft-a\" : drop }",
                             "tcp flags 0x2 drop", "time < \"2026-01-01\" drop"}) {
        EXPECT_THAT(meet(rule), kPerhaps) << rule;
    }
}

TEST(NftWalk, FollowsChains) {
    const std::string listing = R"(table inet fw { # handle 1
	set bad { # handle 9
		type ipv4_addr
	}

	chain forward { # handle 2
		comment "of a user"
		type filter hook forward priority 0; policy drop;
		iifname "lo" accept # handle 3
		jump users # handle 4
		ip saddr 10.1.0.0/16 goto ours # handle 5
		drop # handle 6
	}

	chain users { # handle 10
		ip daddr 198.51.100.0/24 drop # handle 11
		tcp dport 22 return # handle 12
	}

	chain ours { # handle 20
		ip saddr { 10.1.0.2, 10.1.0.3,
			   10.1.0.4 } tcp dport 80 accept # handle 21
	}

	chain translate { # handle 30
		type nat hook forward priority 0; policy accept;
		drop # handle 31
	}
}
table inet weft { # handle 2
	chain forward { # handle 1
		type filter hook forward priority 0; policy accept;
		drop # handle 3
	}
}
table ip6 filter { # handle 3
	chain FORWARD { # handle 1
		type filter hook forward priority 0; policy drop;
	}
}
)";
    const auto meets = [&](Packet packet) {
        std::vector<std::string> rules;
        for (const WalkedTable& table : parseRuleset(listing, "ip", packet)) {
            for (const Obstacle& obstacle : walk(table, "forward"))
                rules.push_back(obstacle.place + ": " + obstacle.rule);
        }
        return rules;
    };
    Packet packet = kWeb;
    EXPECT_THAT(meets(packet), IsEmpty());
    packet.port = 81;
    EXPECT_THAT(meets(packet), ElementsAre("nft inet fw forward: policy drop")) << "goto does not come back";
    packet.destination = ip("198.51.100.1");
    EXPECT_THAT(meets(packet), ElementsAre("nft inet fw users: ip daddr 198.51.100.0/24 drop"));
    packet = kWeb;
    packet.source = ip("10.2.0.2");
    EXPECT_THAT(meets(packet), ElementsAre("nft inet fw forward: drop"));
}

TEST(PacketWalk, WhatMayHavePassedIsNotDroppedForCertain) {
    WalkedTable table{"t", {}};
    WalkedChain& chain = table.chains["c"];
    chain.hook = "forward";
    chain.drops = true;
    EXPECT_TRUE(walk(table, "forward").at(0).certain);
    chain.rules.push_back({.text = "perhaps", .match = Applies::Maybe, .action = Action::Accept});
    EXPECT_FALSE(walk(table, "forward").at(0).certain);
    EXPECT_THAT(walk(table, "input"), IsEmpty());
}

namespace iptc {

namespace {

WalkedRule judged(const Rule& rule, const Packet& packet = kWeb) {
    RawRule raw;
    encode(rule, packet.destination.family(), raw.entry);
    raw.target = rule.target;
    return judge(raw, packet);
}

}  // namespace

TEST(IptcWalk, UnderstandsConditions) {
    Rule rule;
    rule.in = {{"weft-a"}};
    rule.out = {{"eth1", true}};
    rule.source = {{IpPrefix::parse("10.1.0.0/16").value()}};
    rule.protocol = 6;
    rule.destinationPort = 80;
    rule.ctState = {{CtState::EstablishedOrRelated, true}};
    rule.toLocal = false;
    rule.target = "DROP";
    const WalkedRule walked = judged(rule);
    EXPECT_EQ(walked.match, Applies::Yes);
    EXPECT_EQ(walked.action, Action::Drop);
    EXPECT_EQ(walked.text,
              "-s 10.1.0.0/16 -i weft-a ! -o eth1 -p tcp --dport 80 ! --ctstate ESTABLISHED,RELATED ! --dst-type LOCAL "
              "-j DROP");

    for (const auto& change : std::vector<std::function<void(Rule&)>>{
             [](Rule& other) { other.in = {{"weft-b"}}; },
             [](Rule& other) {
                 other.out = {{"eth0", true}};
             },
             [](Rule& other) { other.source->inverted = true; }, [](Rule& other) { other.destinationPort = 81; },
             [](Rule& other) { other.ctState = {{CtState::Dnat}}; }, [](Rule& other) { other.toLocal = true; },
             [](Rule& other) { other.protocol = 17; }}) {
        Rule other = rule;
        change(other);
        EXPECT_EQ(judged(other).match, Applies::No) << other.str();
    }
}

TEST(IptcWalk, ReadsIpv6) {
    Packet packet = kWeb;
    packet.source = ip("fd00:1::2");
    packet.destination = ip("2001:db8::7");
    Rule rule;
    rule.source = {{IpPrefix::parse("fd00:1::/64").value()}};
    rule.target = "ACCEPT";
    EXPECT_EQ(judged(rule, packet).text, "-s fd00:1::/64 -j ACCEPT");
    EXPECT_EQ(judged(rule, packet).match, Applies::Yes);
    rule.source = {{IpPrefix::parse("fd00:2::/64").value()}};
    EXPECT_EQ(judged(rule, packet).match, Applies::No);
}

}  // namespace iptc

}  // namespace weft::firewall
