#include "drivers/overlay/host_memory.h"

#include <gtest/gtest.h>

#include "drivers/overlay/overlay_rows.h"
#include "tests/must.h"
#include "tests/unit/drivers/scratch.h"

namespace weft {
namespace {

constexpr kv::NodeId kOne{{1}};
constexpr kv::NodeId kTwo{{2}};

kv::Row row(const kv::NodeId& owner, const std::string& name, const std::string& value = "v") {
    return {.owner = owner, .key = networkKey(name), .value = value};
}

kv::Member member(const kv::NodeId& id, kv::MemberState state = kv::MemberState::Alive) {
    kv::Member member;
    member.id = id;
    member.record.name = "host";
    member.record.address = {must(IpAddress::parse("192.0.2.8")), 7950};
    member.state = state;
    return member;
}

class HostMemoryTest : public testing::Test {
protected:
    HostMemoryTest() { open(); }
    // As after a restart, or a kill: what was written is there.
    void open() {
        if (memory) must(memory->write());
        memory.reset();
        database.reset();
        told.clear();
        const SchemaComponent components[] = {HostMemory::schema()};
        database = must(Database::open(scratch / "state.db", components));
        memory = must(HostMemory::open(*database, clock));
        memory->attach({[this](const kv::NodeId& id, const RememberedHost& host) {
                            told[id.brief()] = host.name + " " + host.address.str();
                        },
                        [this](kv::RowEvent event, const kv::Row& row) {
                            told[row.owner.brief() + " " + row.key] =
                                event == kv::RowEvent::Suspended ? row.value : "deleted";
                        },
                        [this](const kv::NodeId& id) { told[id.brief()] = "forgotten"; }});
    }

    using Told = std::map<std::string, std::string>;
    Scratch scratch;
    ManualClock clock;
    std::unique_ptr<Database> database;
    std::shared_ptr<HostMemory> memory;
    Told told;
    const std::string one = kOne.brief();
};

TEST_F(HostMemoryTest, KeepsTheLastWordsOfHostsOverRestarts) {
    memory->onMember(member(kOne));
    memory->apply(kv::RowEvent::Put, row(kOne, "a", std::string("\0x", 2)));
    memory->apply(kv::RowEvent::Put, row(kOne, "b"));
    memory->apply(kv::RowEvent::Deleted, row(kOne, "b"));
    memory->apply(kv::RowEvent::Suspended, row(kOne, "a", "last"));
    memory->apply(kv::RowEvent::Forgotten, row(kOne, "a"));
    EXPECT_TRUE(told.empty());
    for (int life = 0; life < 2; ++life) {
        open();
        EXPECT_EQ(told, (Told{{one, "host 192.0.2.8"}, {one + " overlay/net/a", "last"}})) << life;
    }
}

TEST_F(HostMemoryTest, DropsWhatALivingHostDidNotSayAgain) {
    memory->onMember(member(kOne));
    for (const char* name : {"a", "b", "c"}) memory->apply(kv::RowEvent::Put, row(kOne, name));
    open();
    told.clear();
    clock.advance(std::chrono::hours(1000));
    memory->settle();
    EXPECT_TRUE(told.empty()) << "it is away";
    memory->onMember(member(kOne));
    memory->apply(kv::RowEvent::Put, row(kOne, "a"));
    memory->apply(kv::RowEvent::Deleted, row(kOne, "b"));
    clock.advance(HostMemory::kSettle - std::chrono::seconds(1));
    memory->settle();
    EXPECT_TRUE(told.empty());
    clock.advance(std::chrono::seconds(1));
    memory->settle();
    EXPECT_EQ(told, (Told{{one + " overlay/net/c", "deleted"}}));
    open();
    EXPECT_EQ(told, (Told{{one, "host 192.0.2.8"}, {one + " overlay/net/a", "v"}}));
}

TEST_F(HostMemoryTest, WhatAHostDeletedWhileItWasAwayGoesWhenItIsBack) {
    memory->onMember(member(kOne));
    memory->apply(kv::RowEvent::Put, row(kOne, "a"));
    memory->onMember(member(kOne, kv::MemberState::Dead));
    memory->apply(kv::RowEvent::Suspended, row(kOne, "a"));
    memory->onMember(member(kOne));
    clock.advance(HostMemory::kSettle);
    memory->settle();
    EXPECT_EQ(told, (Told{{one + " overlay/net/a", "deleted"}}));
}

TEST_F(HostMemoryTest, ForgetsForGoodAndKeepsNoMoreThanItShould) {
    memory->onMember(member(kOne));
    memory->apply(kv::RowEvent::Put, row(kOne, "a"));
    memory->onMember(member(kTwo));
    memory->apply(kv::RowEvent::Put, row(kTwo, "a"));
    memory->forget(kOne);
    EXPECT_EQ(told, (Told{{one, "forgotten"}}));
    open();
    EXPECT_EQ(told, (Told{{kTwo.brief(), "host 192.0.2.8"}, {kTwo.brief() + " overlay/net/a", "v"}}));
    told.clear();
    for (size_t i = 0; i < HostMemory::kMostAway; ++i) {
        clock.advance(std::chrono::seconds(1));
        kv::NodeId id{{9}};
        id.bytes[14] = static_cast<uint8_t>(i >> 8);
        id.bytes[15] = static_cast<uint8_t>(i);
        memory->onMember(member(id, kv::MemberState::Dead));
    }
    EXPECT_EQ(told, (Told{{kTwo.brief(), "forgotten"}})) << "who went first";
}

}  // namespace
}  // namespace weft
