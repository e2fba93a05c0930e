#include "drivers/record_store.h"

#include <gmock/gmock.h>

#include <fstream>
#include <future>
#include <thread>

#include "base/deadline.h"
#include "drivers/ages.h"
#include "drivers/none/none_driver.h"
#include "drivers/record_codec.h"
#include "tests/unit/drivers/scratch.h"

namespace weft {
namespace {

const NetworkId kNetwork(std::string(64, 'a'));

EndpointId endpointId(int number) {
    return EndpointId(std::to_string(number) + std::string(60, 'e'));
}

NetworkRecord networkRecord() {
    NetworkRecord record;
    record.request.networkId = kNetwork;
    record.request.options = {{"a", "b"}, {"strange \n,:\"", ""}};
    record.request.internal = true;
    record.request.enableIpv6 = true;
    IpamData data;
    data.addressSpace = "weft-local";
    data.pool = must(IpPrefix::parse("10.20.0.0/24"));
    data.gateway = must(IpPrefix::parse("10.20.0.1/24"));
    data.auxAddresses = {{"router", must(IpPrefix::parse("10.20.0.254/24"))}};
    record.request.ipv4 = {data};
    data = {};
    data.pool = must(IpPrefix::parse("fd00::/64"));
    record.request.ipv6 = {data, data};
    record.mode = "bridge";
    record.link = "weft-aaaa";
    record.mtu = 1400;
    record.notes = "notes";
    record.created = Clock::Wall(std::chrono::seconds(1700000000));
    return record;
}

EndpointRecord endpointRecord(int number) {
    EndpointRecord record;
    record.networkId = kNetwork;
    record.endpointId = endpointId(number);
    record.address = IpPrefix(IpAddress(IpFamily::V4, Uint128{0x0a140000} + static_cast<unsigned>(number)), 24);
    record.mac = MacAddress({2, 0, 0, 0, 0, static_cast<uint8_t>(number)});
    record.macGiven = true;
    record.link = "wv" + std::to_string(number);
    record.phase = EndpointPhase::Joined;
    record.sandboxKey = "/run/netns/x";
    record.ports.bindings = {{IpProtocol::Udp, 53, must(IpAddress::parse("127.0.0.1")), 5300, 5310}};
    record.ports.exposed = {{IpProtocol::Sctp, 99}};
    record.published = {{17, must(IpAddress::parse("127.0.0.1")), 5301, record.address->address(), 53}};
    record.instance = "boot/1";
    record.notes = "n";
    record.created = record.changed = Clock::Wall(std::chrono::milliseconds(1700000000123));
    return record;
}

class RecordStoreTest : public ::testing::Test {
protected:
    RecordStoreTest() { open(); }

    void open() {
        store_.reset();
        database_.reset();
        const SchemaComponent components[] = {RecordStore::schema()};
        database_ = must(Database::open(scratch_ / "state.db", components));
        store_ = must(RecordStore::open(*database_));
    }

    Scratch scratch_;
    std::unique_ptr<Database> database_;
    std::unique_ptr<RecordStore> store_;
};

TEST_F(RecordStoreTest, RecordsComeBackAsTheyWere) {
    must(store_->put(networkRecord()).wait());
    EndpointRecord bare;
    bare.networkId = kNetwork;
    bare.endpointId = endpointId(9);
    must(store_->put(bare).wait());
    must(store_->put(endpointRecord(1)).wait());
    open();
    ASSERT_TRUE(store_->network(kNetwork));
    EXPECT_EQ(*store_->network(kNetwork), networkRecord());
    ASSERT_TRUE(store_->endpoint(endpointId(1)));
    EXPECT_EQ(*store_->endpoint(endpointId(1)), endpointRecord(1));
    EXPECT_EQ(*store_->endpoint(kNetwork, endpointId(9)), bare);
    EXPECT_FALSE(store_->endpoint(NetworkId("other"), endpointId(9)));
    EXPECT_EQ(store_->endpointCount(kNetwork), 2U);
}

TEST_F(RecordStoreTest, SoonIsThereAfterTheNextWriteAndAtTheEnd) {
    must(store_->put(networkRecord()).wait());
    static_cast<void>(store_->put(endpointRecord(1), Urgency::Soon));
    static_cast<void>(store_->put(endpointRecord(2), Urgency::Soon));
    must(store_->erase(kNetwork, endpointId(1)).wait());
    open();
    EXPECT_FALSE(store_->endpoint(endpointId(1)));
    EXPECT_TRUE(store_->endpoint(endpointId(2)));
    must(store_->put(endpointRecord(3), Urgency::Soon).wait());  // nobody else writes: it goes by itself
}

TEST_F(RecordStoreTest, ACallWaitsForLocksAndTheDiskNoLongerThanItHas) {
    std::promise<void> started;
    std::promise<void> release;
    std::thread busy([&] {
        const NetworkLock lock = must(store_->lock(kNetwork));
        must(database_->write([&](Transaction&) -> Result<void> {
            started.set_value();
            release.get_future().wait();
            return {};
        }));
    });
    started.get_future().wait();
    PendingWrite written = store_->put(networkRecord());
    {
        const auto begin = std::chrono::steady_clock::now();
        const CallDeadline call(Deadline(std::chrono::milliseconds(100)));
        EXPECT_EQ(store_->lock(kNetwork).error().code, ErrorCode::Busy);
        EXPECT_EQ(written.wait().error().code, ErrorCode::Timeout);
        EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
    }
    release.set_value();
    busy.join();
    must(store_->put(endpointRecord(1)).wait());
    open();
    EXPECT_TRUE(store_->network(kNetwork));
}

TEST_F(RecordStoreTest, FindsByAddressAndMacAsRecordsChange) {
    must(store_->put(networkRecord()).wait());
    must(store_->put(endpointRecord(1)).wait());
    const IpAddress first = endpointRecord(1).address->address();
    ASSERT_TRUE(store_->endpointWith(kNetwork, first));
    EXPECT_EQ(store_->endpointWith(kNetwork, *endpointRecord(1).mac)->endpointId, endpointId(1));
    EndpointRecord moved = endpointRecord(1);
    moved.address = IpPrefix(must(IpAddress::parse("10.20.0.99")), 24);
    must(store_->put(moved).wait());
    EXPECT_FALSE(store_->endpointWith(kNetwork, first));
    EXPECT_TRUE(store_->endpointWith(kNetwork, moved.address->address()));
    must(store_->erase(kNetwork, endpointId(1)).wait());
    EXPECT_FALSE(store_->endpointWith(kNetwork, moved.address->address()));
    EXPECT_FALSE(store_->endpointWith(NetworkId("other"), first));
}

TEST_F(RecordStoreTest, ErasingANetworkTakesItsEndpoints) {
    must(store_->put(networkRecord()).wait());
    must(store_->put(endpointRecord(1)).wait());
    must(store_->erase(kNetwork).wait());
    must(store_->erase(kNetwork).wait());
    EXPECT_FALSE(store_->endpoint(endpointId(1)));
    open();
    EXPECT_TRUE(store_->networks().empty());
    EXPECT_FALSE(store_->endpoint(endpointId(1)));
}

// The engine has forgotten what it asked to delete, whatever the answer was.
TEST_F(RecordStoreTest, WhatCouldNotBeErasedGoesWhenTheDiskWorksAgain) {
    const auto sql = [this](const char* text) {
        must(database_->write([text](Transaction& transaction) -> Result<void> {
            WEFT_ASSIGN(Statement statement, transaction.prepare(text));
            return statement.run();
        }));
    };
    must(store_->put(networkRecord()).wait());
    must(store_->put(endpointRecord(1)).wait());
    must(store_->put(endpointRecord(2)).wait());
    sql("CREATE TRIGGER full BEFORE DELETE ON drivers_endpoints BEGIN SELECT RAISE(ABORT, 'disk full'); END");
    EXPECT_FALSE(store_->erase(kNetwork, endpointId(1)).wait());
    EXPECT_TRUE(store_->put(endpointRecord(3)).wait());
    sql("DROP TRIGGER full");
    must(store_->put(endpointRecord(4)).wait());
    sql("CREATE TRIGGER full BEFORE DELETE ON drivers_endpoints BEGIN SELECT RAISE(ABORT, 'disk full'); END");
    EXPECT_FALSE(store_->erase(kNetwork, endpointId(2)).wait());
    sql("DROP TRIGGER full");
    open();  // and nothing else was written
    EXPECT_FALSE(store_->endpoint(endpointId(1)));
    EXPECT_FALSE(store_->endpoint(endpointId(2)));
    EXPECT_TRUE(store_->endpoint(endpointId(3)));
    EXPECT_TRUE(store_->endpoint(endpointId(4)));
}

TEST_F(RecordStoreTest, AWriteThatTheDatabaseRefusesFailsAlone) {
    must(store_->put(networkRecord()).wait());
    must(store_->put(endpointRecord(1)).wait());
    must(store_->put(endpointRecord(5)).wait());
    const std::string id = endpointId(1).str();
    must(database_->write([&id](Transaction& transaction) -> Result<void> {
        for (const char* event : {"DELETE ON drivers_endpoints WHEN old", "INSERT ON drivers_endpoints WHEN new"}) {
            WEFT_ASSIGN(Statement statement,
                        transaction.prepare("CREATE TRIGGER poison_" + std::string(event, 6) + " BEFORE " + event +
                                            ".id = '" + id + "' BEGIN SELECT RAISE(ABORT, 'poisoned'); END"));
            WEFT_TRY(statement.run());
        }
        return {};
    }));
    // In one batch, and then for ever.
    auto poisoned = store_->put(endpointRecord(1));
    auto other = store_->put(endpointRecord(2));
    auto erased = store_->erase(kNetwork, endpointId(1));
    auto last = store_->put(endpointRecord(3));
    EXPECT_FALSE(poisoned.wait());
    EXPECT_TRUE(other.wait());
    EXPECT_FALSE(erased.wait());
    EXPECT_TRUE(last.wait());
    EXPECT_TRUE(store_->put(endpointRecord(4)).wait());
    // What comes back under an id whose erase failed stays.
    must(database_->write([](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(Statement statement, transaction.prepare("DROP TRIGGER poison_INSERT"));
        return statement.run();
    }));
    EXPECT_TRUE(store_->put(endpointRecord(1)).wait());
    open();
    for (const int number : {1, 2, 3, 4, 5}) EXPECT_TRUE(store_->endpoint(endpointId(number))) << number;
}

TEST_F(RecordStoreTest, NoneModeReleasesWhatTheEngineNeverFinished) {
    ManualClock clock;
    NoneDriver driver(*store_, clock);
    CreateNetworkRequest network;
    network.networkId = kNetwork;
    must(driver.createNetwork(network));
    const std::string sandbox = scratch_ / "sandbox";
    std::ofstream(sandbox) << "";
    for (const int number : {1, 2, 3}) {
        CreateEndpointRequest endpoint;
        endpoint.networkId = kNetwork;
        endpoint.endpointId = endpointId(number);
        must(driver.createEndpoint(endpoint));
        JoinRequest join;
        join.networkId = kNetwork;
        join.endpointId = endpointId(number);
        join.sandboxKey = number == 3 ? sandbox : sandbox + " that is gone";
        if (number != 1) must(driver.join(join));
    }
    EXPECT_THAT(must(driver.reconcile(false)), ::testing::IsEmpty());
    clock.advance(std::chrono::seconds(61));
    EXPECT_THAT(must(driver.reconcile(true)), ::testing::SizeIs(1));
    EXPECT_EQ(must(driver.reconcile(false)).at(0).action, "released: never joined");
    clock.advance(std::chrono::seconds(240));
    EXPECT_EQ(must(driver.reconcile(false)).at(0).action, "released: its sandbox is gone");
    EXPECT_EQ(store_->endpointCount(kNetwork), 1U) << "the one whose sandbox is there";
}

// Moves only the wall clock.
class SetClock final : public Clock {
public:
    [[nodiscard]] Monotonic now() const override { return Monotonic(elapsed); }
    [[nodiscard]] Wall wall() const override {
        return Wall(std::chrono::duration_cast<Wall::duration>(std::chrono::hours(24 * 365 * 50) + elapsed + shift));
    }
    std::chrono::seconds elapsed{100};
    std::chrono::seconds shift{0};
};

TEST(Ages, DoNotCountAClockThatWasSet) {
    using std::chrono::seconds;
    SetClock clock;
    Ages ages;
    const auto made = clock.wall();
    ages.look(clock);
    clock.elapsed += seconds(30);
    ages.look(clock);
    EXPECT_EQ(ages.of(made), seconds(30));
    clock.shift = seconds(3600);  // set forward while a container starts
    clock.elapsed += seconds(1);
    ages.look(clock);
    EXPECT_EQ(ages.of(made), seconds(0));
    const auto later = clock.wall();
    clock.elapsed += seconds(61);
    ages.look(clock);
    EXPECT_EQ(ages.of(made), seconds(61));
    EXPECT_EQ(ages.of(later), seconds(61));
    clock.shift = seconds(-3600);  // and back
    ages.look(clock);
    clock.elapsed += seconds(61);
    ages.look(clock);
    EXPECT_EQ(ages.of(later), seconds(61)) << "stamped in the future";
}

TEST_F(RecordStoreTest, OneAtATimePerNetwork) {
    const auto held = must(store_->lock(kNetwork));
    std::thread([&] {
        const auto second = store_->lock(kNetwork, std::chrono::milliseconds(1));
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().code, ErrorCode::Busy);
        EXPECT_TRUE(store_->lock(NetworkId("other"), std::chrono::milliseconds(1)));
    }).join();
}

TEST_F(RecordStoreTest, WritersAtOnceShareCommits) {
    must(store_->put(networkRecord()).wait());
    const uint64_t before = database_->counters().commits;
    std::vector<PendingWrite> writes;
    for (int i = 0; i < 200; ++i) writes.push_back(store_->put(endpointRecord(i)));
    for (PendingWrite& write : writes) must(write.wait());
    EXPECT_LT(database_->counters().commits - before, 100U);
    open();
    EXPECT_EQ(store_->endpointCount(kNetwork), 200U);
}

TEST(RecordCodec, DamageIsNoticed) {
    const std::string good = encodeNetwork(networkRecord().request);
    ASSERT_TRUE(decodeNetwork(good));
    for (size_t i = 0; i < good.size(); ++i) EXPECT_FALSE(decodeNetwork(good.substr(0, i))) << i;
    EXPECT_FALSE(decodeNetwork(good + "0:,"));
    EXPECT_FALSE(decodeNetwork("1:2," + good.substr(4)));
    EXPECT_FALSE(decodeNetwork("99999999999999999999:x,"));
    EXPECT_FALSE(decodePorts("1:1,9:999999999,"));
}

TEST_F(RecordStoreTest, NoneModeKeepsToItself) {
    const ManualClock clock;
    NoneDriver driver(*store_, clock);
    CreateNetworkRequest network;
    network.networkId = kNetwork;
    IpamData null;
    null.pool = must(IpPrefix::parse("0.0.0.0/0"));  // --ipam-driver null
    network.ipv4 = {null};
    must(driver.createNetwork(network));
    must(driver.createNetwork(network));
    network.internal = true;
    EXPECT_EQ(driver.createNetwork(network).error().code, ErrorCode::AlreadyExists);
    network.options = {{"parent", "eth0"}};
    EXPECT_EQ(driver.createNetwork(network).error().code, ErrorCode::InvalidArgument);

    CreateEndpointRequest endpoint;
    endpoint.networkId = kNetwork;
    endpoint.endpointId = endpointId(1);
    EXPECT_FALSE(must(driver.createEndpoint(endpoint)).mac);
    must(driver.createEndpoint(endpoint));
    JoinRequest join;
    join.networkId = kNetwork;
    join.endpointId = endpointId(1);
    const JoinReply reply = must(driver.join(join));
    EXPECT_TRUE(reply.sourceName.empty());
    EXPECT_TRUE(reply.disableGatewayService);
    EXPECT_FALSE(reply.gateway);

    endpoint.endpointId = endpointId(2);
    endpoint.ports.bindings = {{IpProtocol::Tcp, 80, {}, 8080, 0}};
    const auto refused = driver.createEndpoint(endpoint);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, ::testing::HasSubstr("-p"));

    EXPECT_EQ(driver.endpoints().size(), 1U);
    must(driver.leave(kNetwork, endpointId(1)));
    must(driver.deleteEndpoint(kNetwork, endpointId(1)));
    must(driver.deleteEndpoint(kNetwork, endpointId(1)));
    must(driver.leave(kNetwork, endpointId(1)));
    must(driver.deleteNetwork(kNetwork));
    must(driver.deleteNetwork(kNetwork));
    EXPECT_TRUE(driver.networks().empty());
}

}  // namespace
}  // namespace weft
