#include "driver/name_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/must.h"

namespace weft::driver {
namespace {

using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

constexpr kv::NodeId kOne{{1}};
constexpr kv::NodeId kTwo{{2}};

IpAddress ip(const char* text) {
    return must(IpAddress::parse(text));
}

class AnswerName : public testing::Test {
protected:
    void add(const kv::NodeId& host, const std::string& network, const std::string& id, const char* v4,
             std::vector<std::string> called) {
        EndpointRow endpoint;
        endpoint.mac = must(MacAddress::parse("02:42:0a:20:00:02"));
        endpoint.v4 = ip(v4);
        names.apply(kv::RowEvent::Put,
                    {.owner = host, .key = endpointKey(network, EndpointId(id)), .value = encode(endpoint)});
        names.apply(kv::RowEvent::Put, {.owner = host,
                                        .key = nameKey(network, EndpointId(id)),
                                        .value = encode(fitting({std::move(called), {{6, 5432}}}))});
    }
    std::optional<DnsAnswer> ask(const char* name, DnsType type = DnsType::A,
                                 const std::vector<std::string>& networks = {"back"}) {
        DnsQuery query;
        query.type = type;
        query.name = name;
        return answerName(names, networks, "weft", query, random);
    }
    std::vector<IpAddress> addresses(const char* name, const std::vector<std::string>& networks = {"back"}) {
        std::vector<IpAddress> found;
        const auto answer = ask(name, DnsType::A, networks);
        if (!answer) return found;
        for (const DnsRecord& record : answer->answers) found.push_back(std::get<IpAddress>(record));
        return found;
    }
    void SetUp() override {
        add(kOne, "back", "e1", "10.32.0.2", {"db", "data"});
        add(kTwo, "back", "e2", "10.32.0.3", {"db2", "data"});
        add(kTwo, "front", "e3", "10.40.0.3", {"secret"});
    }

    OverlayNames names;
    std::minstd_rand random{7};
};

TEST_F(AnswerName, WithAndWithoutNetworkAndDomain) {
    for (const char* name : {"db", "db.back", "db.weft", "db.back.weft"}) {
        EXPECT_THAT(addresses(name), UnorderedElementsAre(ip("10.32.0.2"))) << name;
    }
    EXPECT_THAT(addresses("data"), UnorderedElementsAre(ip("10.32.0.2"), ip("10.32.0.3")));
    EXPECT_EQ(ask("db")->ttl, kNameTtl);
}

TEST_F(AnswerName, PassesOnWhatItDoesNotKnow) {
    for (const char* name : {"", "nobody", "example.com", "back", ".back", "db.front", "dbweft", "x.db"}) {
        EXPECT_FALSE(ask(name)) << name;
    }
    DnsQuery query;
    EXPECT_FALSE(answerName(names, {"back"}, "weft", query, random)) << "no text";
}

TEST_F(AnswerName, ItsOwnDomainItKnowsWhole) {
    EXPECT_EQ(ask("nobody.weft")->code, DnsCode::NameError);
    EXPECT_EQ(ask("weft")->code, DnsCode::NoError);
    EXPECT_THAT(ask("weft")->answers, IsEmpty());
}

TEST_F(AnswerName, KnownWithoutSuchRecordsIsNoError) {
    for (const DnsType type : {DnsType::Aaaa, DnsType::Soa}) {
        const auto answer = ask("db", type);
        ASSERT_TRUE(answer);
        EXPECT_EQ(answer->code, DnsCode::NoError);
        EXPECT_THAT(answer->answers, IsEmpty());
    }
}

TEST_F(AnswerName, NamesNeverCrossNetworks) {
    EXPECT_FALSE(ask("secret"));
    EXPECT_FALSE(ask("secret.front"));
    EXPECT_EQ(ask("secret.weft")->code, DnsCode::NameError);
    EXPECT_FALSE(ask("3.0.40.10.in-addr.arpa", DnsType::Ptr));
    EXPECT_THAT(addresses("secret", {"back", "front"}), UnorderedElementsAre(ip("10.40.0.3")));
}

TEST_F(AnswerName, Backwards) {
    const auto answer = ask("2.0.32.10.in-addr.arpa", DnsType::Ptr);
    ASSERT_TRUE(answer);
    ASSERT_THAT(answer->answers, SizeIs(1));
    EXPECT_EQ(std::get<DnsPointer>(answer->answers[0]).name, "db.back");
    EXPECT_FALSE(ask("9.0.32.10.in-addr.arpa", DnsType::Ptr));
}

TEST_F(AnswerName, ServicesOfExposedPorts) {
    const auto answer = ask("_5432._tcp.data.weft", DnsType::Srv);
    ASSERT_TRUE(answer);
    EXPECT_THAT(answer->answers, SizeIs(2));
    EXPECT_THAT(answer->additional, SizeIs(2));
    EXPECT_EQ(std::get<DnsService>(answer->answers[0]).port, 5432);
    EXPECT_THAT(ask("_5432._udp.data", DnsType::Srv)->answers, IsEmpty());
    EXPECT_FALSE(ask("_http._tcp.data", DnsType::Srv));
}

TEST_F(AnswerName, SuspectedHostsComeLast) {
    names.onMember({.id = kOne, .record = {}, .state = kv::MemberState::Suspect, .since = {}, .heard = {}});
    for (int i = 0; i < 20; ++i) EXPECT_EQ(addresses("data").front(), ip("10.32.0.3"));
    names.onMember({.id = kOne, .record = {}, .state = kv::MemberState::Alive, .since = {}, .heard = {}});
    bool other = false;
    for (int i = 0; i < 64; ++i) other = other || addresses("data").front() == ip("10.32.0.2");
    EXPECT_TRUE(other) << "not shuffled";
}

TEST_F(AnswerName, OfHostsThatAreAwayOnlyWhereNobodyElseHasTheName) {
    std::set<kv::NodeId> away{kOne};
    names.setIsAway([&](const kv::NodeId& host) { return away.contains(host); });
    for (int i = 0; i < 20; ++i) EXPECT_THAT(addresses("data"), testing::ElementsAre(ip("10.32.0.3")));
    away.insert(kTwo);
    EXPECT_EQ(addresses("data").size(), 2U);
}

}  // namespace
}  // namespace weft::driver
