// Who is in an overlay network with whom, and which entries follow from the rows of others.
#include "drivers/overlay/overlay_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "drivers/overlay/overlay_view.h"
#include "tests/must.h"

namespace weft {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

IpAddress ip(const std::string& text) {
    return must(IpAddress::parse(text));
}

kv::NodeId node(char name) {
    return {{static_cast<uint8_t>(name)}};
}

IpAddress vtep(char name) {
    return ip("192.0.2." + std::to_string(static_cast<int>(name)));
}

// A cluster's words: who claims what of which network, and who joined the ledger in which order.
struct Words {
    OverlayClaims claims{};
    LedgerFacts ledger{};

    Words& claim(char host, uint64_t stamp, uint32_t vni, const std::string& gateway = "10.32.0.1/16",
                 const std::string& network = "blue") {
        NetworkClaim made;
        made.stamp = stamp;
        made.vni = vni;
        made.mtu = 1450;
        made.vtep = vtep(host);
        made.port = 4789;
        made.gateways = {must(IpPrefix::parse(gateway))};
        claims[network].push_back({node(host), made});
        return *this;
    }
    Words& members(const std::string& hosts) {
        for (const char host : hosts) ledger.joined.emplace(node(host), ledger.joined.size());
        return *this;
    }
    Words& strangers(const std::string& hosts) {
        for (const char host : hosts) ledger.strangers.insert(node(host));
        return *this;
    }
    [[nodiscard]] OverlayAgreement of(char host, const std::string& network = "blue") const {
        for (const OverlayClaim& claim : claims.at(network)) {
            if (claim.owner == node(host)) return agree(network, claim, claims, ledger);
        }
        ADD_FAILURE() << host << " has no claim of " << network;
        return {};
    }
    [[nodiscard]] std::string peersOf(char host) const {
        std::string names;
        for (const auto& [id, address] : of(host).peers) {
            EXPECT_EQ(address, vtep(static_cast<char>(id.bytes[0])));
            names += static_cast<char>(id.bytes[0]);
        }
        return names;
    }
};

// One line a story: what is claimed; then for each host its peers, its VNI, and whether it is told that it is apart.
struct Story {
    const char* name;
    Words words;
    struct Outcome {
        char host;
        std::string peers;
        uint32_t vni;
        bool apart;
    };
    std::vector<Outcome> outcomes;
};

class OverlayAgreementTest : public testing::TestWithParam<Story> {};

TEST_P(OverlayAgreementTest, IsThatOfWhoWasThereBefore) {
    const Story& story = GetParam();
    for (const auto& [host, peers, vni, apart] : story.outcomes) {
        EXPECT_EQ(story.words.peersOf(host), peers) << host;
        EXPECT_EQ(story.words.of(host).vni, vni) << host;
        EXPECT_EQ(!story.words.of(host).conflict.empty(), apart) << host << ": " << story.words.of(host).conflict;
    }
}

constexpr const char* kOther = "10.99.0.1/24";

INSTANTIATE_TEST_SUITE_P(
    Stories, OverlayAgreementTest,
    testing::Values(
        Story{"EqualClaims",
              Words().claim('a', 5, 4711).claim('b', 6, 4711).claim('c', 7, 4711).members("abc"),
              {{'a', "bc", 4711, false}, {'b', "ac", 4711, false}, {'c', "ab", 4711, false}}},
        // C4: a node that just joined, with a stamp of 0, other subnets and the network's VNI.
        Story{"StampZeroFromANewcomer",
              Words().claim('a', 5, 4711).claim('b', 6, 4711).claim('n', 0, 4711, kOther).members("ab"),
              {{'a', "b", 4711, false}, {'b', "a", 4711, false}, {'n', "", 4711, true}}},
        Story{"StampZeroFromANewMember",
              Words().claim('a', 5, 4711).claim('b', 6, 4711).claim('n', 0, 4711, kOther).members("abn"),
              {{'a', "b", 4711, false}, {'b', "a", 4711, false}, {'n', "", 4711, true}}},
        Story{"StampZeroAgainstASingleHost",
              Words().claim('a', 5, 4711).claim('n', 0, 4711, kOther).members("abn"),
              {{'a', "", 4711, false}, {'n', "", 4711, true}}},
        // C4: a host at 1970 made the network by hand, with a typo, before it joined.
        Story{"MadeIn1970BeforeItJoined",
              Words().claim('a', 5, 4711).claim('b', 6, 4711).claim('n', 1, 4711, kOther).members("ab").strangers("n"),
              {{'a', "b", 4711, true}, {'b', "a", 4711, true}}},
        Story{"TheSameSeenFromThere",
              Words().claim('a', 5, 4711).claim('b', 6, 4711).claim('n', 1, 4711, kOther).members("n").strangers("ab"),
              {{'n', "", 4711, true}}},
        // B3: equal in everything but the ledger.
        Story{"TwoClustersThatMeet",
              Words().claim('a', 5, 4711).claim('x', 4, 4711).members("a").strangers("x"),
              {{'a', "", 4711, true}}},
        Story{"TheOtherOfTheTwo",
              Words().claim('a', 5, 4711).claim('x', 4, 4711).members("x").strangers("a"),
              {{'x', "", 4711, true}}},
        // One host, whatever VNI it says, moves nobody.
        Story{"AnotherVniFromANewcomer",
              Words().claim('a', 5, 4711).claim('b', 6, 4711).claim('n', 0, 9999).members("abn"),
              {{'a', "bn", 4711, false}, {'b', "an", 4711, false}, {'n', "ab", 4711, false}}},
        Story{"AnotherVniAgainstASingleHost",
              Words().claim('a', 5, 4711).claim('n', 0, 9999).members("an"),
              {{'a', "n", 4711, false}, {'n', "a", 4711, false}}},
        Story{"MadeApartWithDifferentVnis",
              Words().claim('a', 5, 5000).claim('b', 6, 4711),
              {{'a', "b", 5000, false}, {'b', "a", 5000, false}}},
        Story{"TheVniOfAnotherNetwork",
              Words().claim('a', 5, 4711).claim('b', 6, 4711).claim('n', 0, 4711, kOther, "red").members("abn"),
              {{'a', "b", 4711, false}, {'b', "a", 4711, false}}},
        Story{"HalvesOfAPartitionStayWhole",
              Words()
                  .claim('a', 5, 4711, kOther)
                  .claim('b', 6, 4711, kOther)
                  .claim('c', 7, 4711)
                  .claim('d', 8, 4711)
                  .claim('e', 9, 4711)
                  .members("abcde"),
              {{'a', "b", 4711, true}, {'b', "a", 4711, true}, {'c', "de", 4711, false}, {'e', "cd", 4711, false}}},
        // Before anybody knows of a ledger (a Swarm's networks), and mixed with hosts of an older weft: their rule, the
        // earliest stamp, where it is one against one.
        Story{"WithoutALedgerTheEarlier",
              Words().claim('a', 6, 4711).claim('b', 5, 4711, kOther),
              {{'a', "", 4711, true}, {'b', "", 4711, false}}},
        Story{"WithoutALedgerTheMost",
              Words().claim('a', 6, 4711).claim('c', 7, 4711).claim('b', 5, 4711, kOther),
              {{'a', "c", 4711, false}, {'b', "", 4711, true}}}),
    [](const auto& story) { return std::string(story.param.name); });

TEST(OverlayAgreement, SaysWhatToDoAboutAnotherCluster) {
    const Words words = Words().claim('a', 5, 4711).claim('x', 4, 4711).members("a").strangers("x");
    EXPECT_THAT(words.of('a').conflict, HasSubstr(vtep('x').str()));
    EXPECT_THAT(words.of('a').advice, HasSubstr("weftctl status"));
}

TEST(OverlayAgreement, ANetworksVniThatABetterOneHasConnectsNobody) {
    Words words = Words().claim('a', 5, 4711, kOther, "red").claim('b', 5, 4711, kOther, "red").claim('c', 1, 4711);
    words.members("abc");
    EXPECT_THAT(words.of('c').conflict, HasSubstr("\"red\""));
    EXPECT_THAT(words.of('c').peers, IsEmpty());
    EXPECT_EQ(words.of('a', "red").conflict, "");
}

TEST(OverlayAgreement, AHostThatMakesTheNetworkFollowsTheSameRule) {
    const Words words = Words()
                            .claim('a', 5, 4711)
                            .claim('b', 6, 4711)
                            .claim('n', 0, 9999, kOther)
                            .claim('x', 0, 1)
                            .members("ab")
                            .strangers("x");
    const auto truth = truthOf(words.claims.at("blue"), words.ledger);
    ASSERT_TRUE(truth);
    EXPECT_EQ(truth->first.claim.vni, 4711U);
    EXPECT_FALSE(truthOf({}, {}));
}

// The view with rows of many hosts, changed at random: what is worked out for a change is what is worked out anew.
class OverlayForwardingTest : public testing::Test {
protected:
    OverlayForwardingTest() {
        for (const char host : {'a', 'b', 'c'}) peers_.emplace(node(host), vtep(host));
        claim_.gateways = {must(IpPrefix::parse("10.32.0.1/16")), must(IpPrefix::parse("fd32::1/64"))};
        local_.hasMac = [](const MacAddress& mac) { return mac.bytes()[5] == 7; };
        local_.hasAddress = [](const IpAddress& address) { return address == ip("10.32.0.8"); };
    }

    EndpointRow row() {
        const auto number = [this](uint32_t most) { return static_cast<uint8_t>(random_() % most); };
        EndpointRow made;
        made.stamp = number(20);
        made.mac = MacAddress(std::array<uint8_t, 6>{2, 0, 0, 0, 0, number(12)});
        if (number(4) != 0) made.v4 = ip("10.32.0." + std::to_string(2 + number(12)));
        if (!made.v4 || number(2) != 0) made.v6 = ip("fd32::" + std::to_string(2 + number(9)));
        if (number(10) == 0) made.v4 = ip("10.77.0.2");  // not of the network
        return made;
    }
    void change() {
        const char host = "abcz"[random_() % 4];  // z is no peer
        const kv::Row row{.owner = node(host),
                          .key = endpointKey("blue", EndpointId("e" + std::to_string(random_() % 8))),
                          .value = encode(this->row())};
        view_.apply(random_() % 3 == 0 ? kv::RowEvent::Deleted : kv::RowEvent::Put, row);
    }

    std::mt19937 random_{1};
    OverlayView view_;
    std::map<kv::NodeId, IpAddress> peers_;
    NetworkClaim claim_;
    LocalEndpoints local_;
};

TEST_F(OverlayForwardingTest, OfAChangeIsThatOfAllRows) {
    Forwarding kept;
    for (int step = 0; step < 3000; ++step) {
        for (auto some = 1 + random_() % 3; some > 0; --some) change();
        OverlayChanges changes = view_.takeMarked()->at("blue");
        ASSERT_FALSE(changes.all);
        const auto rows = view_.endpointsAround("blue", changes);
        const Forwarding part = forwarding(rows, peers_, claim_, local_);
        for (const MacAddress& mac : changes.macs) {
            kept.tunnels.erase(mac);
            if (const auto found = part.tunnels.find(mac); found != part.tunnels.end()) kept.tunnels.insert(*found);
        }
        for (const IpAddress& address : changes.addresses) {
            kept.neighbours.erase(address);
            const auto found = part.neighbours.find(address);
            if (found != part.neighbours.end()) kept.neighbours.insert(*found);
        }
        ASSERT_EQ(kept, forwarding(view_.endpoints("blue"), peers_, claim_, local_)) << step;
    }
    EXPECT_FALSE(kept.neighbours.contains(ip("10.77.0.2")));
    EXPECT_FALSE(kept.neighbours.contains(ip("10.32.0.8")));
}

TEST_F(OverlayForwardingTest, AChangeAmongManyLooksAtFewRows) {
    for (uint32_t number = 0; number < 10'000; ++number) {
        const std::string low = std::to_string(number % 250), high = std::to_string(number / 250);
        EndpointRow row;
        row.mac = MacAddress(
            std::array<uint8_t, 6>{2, 0, 0, 1, static_cast<uint8_t>(number >> 8), static_cast<uint8_t>(number)});
        row.v4 = ip("10.32." + high + "." + low);
        row.v6 = ip("fd32::" + high + ":" + low);
        view_.apply(
            kv::RowEvent::Put,
            {.owner = node('a'), .key = endpointKey("blue", EndpointId(std::to_string(number))), .value = encode(row)});
    }
    static_cast<void>(view_.takeMarked());
    kv::Row moved{.owner = node('b'), .key = endpointKey("blue", EndpointId("x")), .value = {}};
    EndpointRow row;
    row.stamp = 1;
    row.mac = MacAddress(std::array<uint8_t, 6>{2, 0, 0, 1, 0, 9});
    row.v4 = ip("10.32.0.77");
    moved.value = encode(row);
    view_.apply(kv::RowEvent::Put, moved);
    OverlayChanges changes = view_.takeMarked()->at("blue");
    EXPECT_FALSE(changes.all);
    const auto rows = view_.endpointsAround("blue", changes);
    EXPECT_EQ(rows.size(), 3U) << "the new one, the one with its MAC, the one with its address";
    EXPECT_LE(changes.addresses.size(), 4U);
}

}  // namespace
}  // namespace weft
