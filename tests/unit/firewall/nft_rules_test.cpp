#include "firewall/nft_rules.h"

#include <gmock/gmock.h>

#include "firewall/nft_elements.h"

namespace weft::firewall::nft {

namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

IpAddress ip(const char* text) {
    return IpAddress::parse(text).value();
}

Network network() {
    Network net;
    net.id = NetworkId("aaaa");
    net.bridge = "br-a";
    net.subnets = {IpPrefix::parse("10.1.0.0/24").value(), IpPrefix::parse("fd00:1::/64").value()};
    return net;
}

State stateWith(const Network& net, std::vector<PublishedPort> ports) {
    const Endpoint endpoint{EndpointId("e"), net.id, std::move(ports)};
    return {{{net.id, net}}, {{endpoint.id, endpoint}}};
}

const PublishedPort kWeb{6, ip("0.0.0.0"), 8080, ip("10.1.0.2"), 80};

Elements elementsOf(const State& state) {
    return endpointElements(state, state.endpoints.begin()->second);
}

}  // namespace

TEST(NftRules, ANetworkIsOnlyElements) {
    const Table one = tableOf(stateWith(network(), {}));
    const Table none = tableOf({});
    EXPECT_EQ(one.chains, none.chains);
    EXPECT_EQ(one.sets, none.sets);
    EXPECT_THAT(one.elements.at("home4"), ElementsAre(Pair("\"br-a\" . 10.1.0.0/24", "")));
    EXPECT_THAT(one.elements.at("masquerade6"), ElementsAre(Pair("0x86dd . fd00:1::/64", "")));
    EXPECT_FALSE(one.elements.contains("snat4"));
}

// Kernels newer than 6.1 refuse what libnftables 1.0.6 makes of it: "byteorder reg 1 = hton(reg 1, 2, 1)".
TEST(NftRules, NoIntervalSetHasAFieldOfOneByte) {
    for (const auto& [name, type] : tableOf({}).sets) {
        if (type.find("flags interval") == std::string::npos) continue;
        EXPECT_THAT(type, Not(HasSubstr("_proto"))) << name;
    }
}

TEST(NftRules, TheTunnelIsOnlyElements) {
    State state = stateWith(network(), {});
    state.engines = {"docker0"};
    state.tunnel = {4789, {ip("192.0.2.7")}, {ip("192.0.2.7"), ip("2001:db8::7")}, ip("192.0.2.1"), "eth0"};
    Table table = tableOf(state);
    EXPECT_EQ(table.chains, tableOf({}).chains);
    EXPECT_THAT(table.elements.at("tunnel"), ElementsAre(Pair("4789", "")));
    EXPECT_THAT(table.elements.at("address4"), ElementsAre(Pair("192.0.2.1", "")));
    EXPECT_THAT(table.elements.at("members4"), ElementsAre(Pair("192.0.2.7", "")));
    EXPECT_FALSE(table.elements.contains("members6"));
    EXPECT_THAT(table.elements.at("peers6"), ElementsAre(Pair("2001:db8::7", "")));
    const auto inside = [&] { return tableOf(state).elements.at("inside"); };
    EXPECT_THAT(inside(), ElementsAre(Pair("\"br-a\"", ""), Pair("\"docker0\"", ""), Pair("\"lo\"", "")));
    state.tunnel.uplink = "br-a";
    EXPECT_THAT(inside(), ElementsAre(Pair("\"docker0\"", ""), Pair("\"lo\"", "")));
    state.tunnel.uplink = "lo";
    EXPECT_THAT(inside(), ElementsAre(Pair("\"br-a\"", ""), Pair("\"docker0\"", ""), Pair("\"lo\"", "")));
}

TEST(NftRules, TheResolverIsOnlyElements) {
    auto net = network();
    State state = stateWith(net, {});
    state.resolver = 7953;
    EXPECT_THAT(resolverElements(state), ElementsAre(Pair("names", ElementsAre(Pair("7953", "")))));
    net.resolve = true;
    state = stateWith(net, {});
    EXPECT_THAT(resolverElements(state), IsEmpty());
    state.resolver = 7953;
    const Table table = tableOf(state);
    EXPECT_EQ(table.chains, tableOf({}).chains);
    EXPECT_THAT(table.elements.at("resolver"),
                ElementsAre(Pair("10 . \"br-a\"", "7953"), Pair("2 . \"br-a\"", "7953")));
}

TEST(NftRules, AnInternalNetworkPublishesNothing) {
    auto net = network();
    net.internal = true;
    EXPECT_THAT(elementsOf(stateWith(net, {kWeb})), IsEmpty());
    const auto elements = networkElements(net);
    EXPECT_THAT(elements.at("entering"), ElementsAre(Pair("\"br-a\"", "drop")));
    EXPECT_THAT(elements.at("leaving"), ElementsAre(Pair("\"br-a\"", "drop")));
    EXPECT_FALSE(elements.contains("masquerade4"));
    EXPECT_TRUE(elements.contains("guarded4"));
}

TEST(NftRules, RoutedPortsAreOpenedNotMapped) {
    auto net = network();
    net.modeV4 = GatewayMode::Routed;
    const auto elements = elementsOf(stateWith(net, {kWeb}));
    EXPECT_THAT(elements, ElementsAre(Pair("open4", ElementsAre(Pair("10.1.0.2 . 6 . 80", "")))));
    EXPECT_THAT(networkElements(net).at("routed"), ElementsAre(Pair("2 . \"br-a\"", "")));
    EXPECT_FALSE(networkElements(net).contains("guarded4"));
    EXPECT_TRUE(networkElements(net).contains("guarded6"));
}

TEST(NftRules, LoopbackPortsAreGuarded) {
    auto port = kWeb;
    port.hostIp = ip("127.0.0.1");
    const auto elements = elementsOf(stateWith(network(), {port}));
    EXPECT_THAT(elements.at("loopback4"), ElementsAre(Pair("127.0.0.1 . 6 . 8080", "")));
    EXPECT_THAT(elements.at("published_at4"), ElementsAre(Pair("127.0.0.1 . 6 . 8080", "10.1.0.2 . 80")));
}

TEST(NftRules, AChangeTakesOutBeforeItPutsIn) {
    const Elements from = {{"published4", {{"6 . 80", "10.1.0.2 . 80"}, {"6 . 81", "10.1.0.2 . 81"}}}};
    const Elements to = {{"published4", {{"6 . 80", "10.1.0.3 . 80"}, {"6 . 81", "10.1.0.2 . 81"}}}};
    EXPECT_EQ(changeCommands(without(from, to), without(to, from)),
              "delete element inet weft published4 { 6 . 80 }\n"
              "add element inet weft published4 { 6 . 80 : 10.1.0.3 . 80 }\n");
    EXPECT_EQ(changeCommands(without(from, from), without(from, from)), "");
}

TEST(NftRules, DifferencesAreTold) {
    const Table wanted = tableOf(stateWith(network(), {kWeb}));
    EXPECT_THAT(differences(wanted, wanted), IsEmpty());
    Table found = wanted;
    found.chains.at("forward").pop_back();
    found.chains["stray"];
    found.sets.erase("open4");
    found.elements.erase("guarded6");
    found.elements["bridges"].emplace("\"br-x\"", "");
    EXPECT_THAT(
        differences(wanted, found),
        ElementsAre("set open4 missing", "chain forward has other rules", "chain stray unexpected",
                    "element 0x86dd . fd00:1::/64 missing from guarded6", "element \"br-x\" unexpected in bridges"));
}

TEST(NftRules, AListingIsParsed) {
    const Table table = parseListing(
        "table inet weft { # handle 3\n"
        "\tset home4 { # handle 7\n\t\ttype ifname . ipv4_addr\n\t\tflags interval\n\t}\n\n"
        "\tchain open { # handle 9\n\t}\n\n"
        "\tchain forward { # handle 10\n\t\ttype filter hook forward priority 0; policy accept;\n"
        "\t\toifname vmap @entering # handle 11\n\t}\n}\n");
    EXPECT_THAT(table.sets, ElementsAre(Pair("home4", "type ifname . ipv4_addr\nflags interval")));
    EXPECT_THAT(table.chains,
                ElementsAre(Pair("forward", ElementsAre("type filter hook forward priority 0; policy accept;",
                                                        "oifname vmap @entering")),
                            Pair("open", IsEmpty())));
}

TEST(NftRules, TheWholeTableIsReplacedAtOnce) {
    const auto commands = replaceCommands(tableOf(stateWith(network(), {kWeb})));
    EXPECT_THAT(commands, testing::StartsWith("add table inet weft\ndelete table inet weft\nadd table inet weft\n"));
    EXPECT_LT(commands.rfind("add chain"), commands.find("add rule"));
    EXPECT_LT(commands.rfind("add rule"), commands.find("add element"));
    EXPECT_THAT(commands, Not(HasSubstr("flags interval; flags")));
}

// What the kernel keeps for a concatenation: each field from a whole 32-bit register on, in network order.
TEST(NftElements, AreSpelledAsTheyWereWritten) {
    using namespace std::string_literals;
    const auto key = "\x06\0\0\0\x1f\x90\0\0"s;
    const auto data = "\x0a\x01\0\x02\0\x50\0\0"s;
    EXPECT_THAT(spell("type inet_proto . inet_service : ipv4_addr . inet_service", {key, {}, data, {}}),
                Pair("6 . 8080", "10.1.0.2 . 80"));

    const auto first = "br-a"s + std::string(12, '\0') + "\x0a\x01\0\0"s;
    const auto last = "br-a"s + std::string(12, '\0') + "\x0a\x01\0\xff"s;
    EXPECT_THAT(spell("type ifname . ipv4_addr\nflags interval", {first, last, {}, {}}),
                Pair("\"br-a\" . 10.1.0.0/24", ""));
    EXPECT_THAT(spell("type ifname . ipv4_addr\nflags interval", {first, first, {}, {}}),
                Pair("\"br-a\" . 10.1.0.0", ""));
    EXPECT_THAT(spell("type ifname : verdict", {first.substr(0, 16), {}, {}, "goto x"}), Pair("\"br-a\"", "goto x"));
    // Cut short: something, but nothing that is wanted, and no read beyond the end.
    EXPECT_THAT(spell("type inet_proto . inet_service", {"\x06", {}, {}, {}}), Pair("6", ""));
}

}  // namespace weft::firewall::nft
