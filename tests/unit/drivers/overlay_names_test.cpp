#include "drivers/overlay/overlay_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kv/row.h"
#include "tests/must.h"

namespace weft {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr kv::NodeId kOne{{1}};
constexpr kv::NodeId kTwo{{2}};

IpAddress ip(const char* text) {
    return must(IpAddress::parse(text));
}

kv::Row endpointRow(const kv::NodeId& host, const char* id, const char* v4, uint64_t stamp = 1) {
    EndpointRow row;
    row.stamp = stamp;
    row.mac = must(MacAddress::parse("02:42:0a:20:00:02"));
    row.v4 = ip(v4);
    return {.owner = host, .key = endpointKey("back", EndpointId(id)), .value = encode(row)};
}

kv::Row namesRow(const kv::NodeId& host, const char* id, std::vector<std::string> names) {
    return {
        .owner = host, .key = nameKey("back", EndpointId(id)), .value = encode(fitting({std::move(names), {{6, 80}}}))};
}

class OverlayNamesTest : public testing::Test {
protected:
    void put(const kv::Row& row) { names.apply(kv::RowEvent::Put, row); }
    void drop(const kv::Row& row) { names.apply(kv::RowEvent::Deleted, row); }
    std::vector<std::string> addresses(std::string_view name) {
        std::vector<std::string> found;
        for (const auto& container : names.find("back", name)) found.push_back(container.v4->str());
        return found;
    }

    OverlayNames names;
};

TEST_F(OverlayNamesTest, ANameNeedsBothRowsInAnyOrder) {
    put(namesRow(kOne, "e1", {"web"}));
    EXPECT_THAT(addresses("web"), IsEmpty());
    put(endpointRow(kOne, "e1", "10.32.0.2"));
    EXPECT_THAT(addresses("web"), ElementsAre("10.32.0.2"));
    put(endpointRow(kTwo, "e2", "10.32.0.3"));
    put(namesRow(kTwo, "e2", {"web", "WWW"}));
    EXPECT_THAT(addresses("web"), ElementsAre("10.32.0.2", "10.32.0.3"));
    EXPECT_THAT(addresses("www"), ElementsAre("10.32.0.3"));
    EXPECT_THAT(names.find("front", "web"), IsEmpty());
}

TEST_F(OverlayNamesTest, ANameGoesWithItsEndpointAndItsHost) {
    put(endpointRow(kOne, "e1", "10.32.0.2"));
    put(namesRow(kOne, "e1", {"web"}));
    drop(endpointRow(kOne, "e1", "10.32.0.2"));
    EXPECT_THAT(addresses("web"), IsEmpty());
    put(endpointRow(kOne, "e1", "10.32.0.9"));
    EXPECT_THAT(addresses("web"), ElementsAre("10.32.0.9"));
    for (const auto event : {kv::RowEvent::Suspended, kv::RowEvent::Forgotten}) {
        names.apply(event, namesRow(kOne, "e1", {"web"}));
        names.apply(event, endpointRow(kOne, "e1", "10.32.0.9"));
        EXPECT_THAT(addresses("web"), ElementsAre("10.32.0.9")) << "it runs without its host's weftd";
    }
    names.forget(kOne);
    EXPECT_THAT(addresses("web"), IsEmpty());
    EXPECT_FALSE(names.at("back", ip("10.32.0.9")));
}

TEST_F(OverlayNamesTest, ARenamedContainerLosesItsFormerName) {
    put(endpointRow(kOne, "e1", "10.32.0.2"));
    put(namesRow(kOne, "e1", {"web"}));
    put(namesRow(kOne, "e1", {"shop"}));
    EXPECT_THAT(addresses("web"), IsEmpty());
    EXPECT_THAT(addresses("shop"), ElementsAre("10.32.0.2"));
}

TEST_F(OverlayNamesTest, TheLaterOfTwoHasTheAddress) {
    put(endpointRow(kOne, "e1", "10.32.0.2", 5));
    put(namesRow(kOne, "e1", {"old"}));
    put(endpointRow(kTwo, "e2", "10.32.0.2", 9));
    put(namesRow(kTwo, "e2", {"new"}));
    EXPECT_EQ(names.at("back", ip("10.32.0.2"))->name, "new");
}

TEST_F(OverlayNamesTest, SaysWhoseHostIsSuspected) {
    put(endpointRow(kOne, "e1", "10.32.0.2"));
    put(namesRow(kOne, "e1", {"web"}));
    kv::Member member{.id = kOne, .record = {}, .state = kv::MemberState::Suspect, .since = {}, .heard = {}};
    names.onMember(member);
    EXPECT_TRUE(names.find("back", "web").front().hostSuspected);
    member.state = kv::MemberState::Alive;
    names.onMember(member);
    EXPECT_FALSE(names.find("back", "web").front().hostSuspected);
}

TEST(NameRow, IsReadAsWritten) {
    const NameRow row = fitting({{"web", "WWW", "web", ""}, {{17, 53}, {6, 80}, {6, 80}}});
    EXPECT_THAT(row.names, ElementsAre("web", "www"));
    EXPECT_THAT(row.ports, SizeIs(2));
    EXPECT_EQ(must(decodeNames(encode(row))), row);
}

TEST(NameRow, FitsTheStoreWhateverItSays) {
    NameRow row;
    for (int i = 0; i < 400; ++i) {
        row.names.push_back("a-long-name-that-somebody-thought-good-" + std::to_string(i));
        row.ports.push_back({6, static_cast<uint16_t>(1000 + i)});
    }
    row = fitting(row);
    EXPECT_GT(row.names.size(), 10U);
    EXPECT_TRUE(kv::withinLimits(nameKey(std::string(63, 'n'), EndpointId(std::string(64, 'e'))), encode(row)));
    EXPECT_EQ(must(decodeNames(encode(row))), row);
}

TEST(NameRow, DamagedOnesAreCorrupt) {
    const std::string whole = encode(fitting({{"web", "www"}, {{6, 80}}}));
    for (size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(decodeNames(whole.substr(0, size))) << size;
    EXPECT_FALSE(decodeNames(whole + "x"));
    EXPECT_FALSE(decodeNames(encode(NameRow{})));
}

}  // namespace
}  // namespace weft
