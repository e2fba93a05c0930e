#include "ipam/local_ipam.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <thread>

#include "fake_store.h"
#include "ipam/database_lease_store.h"

namespace weft::ipam {
namespace {

using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

const NetworkId kWeb{"aaaaaaaaaaaaaaaaaaaa"};
const NetworkId kOther{"bbbbbbbbbbbbbbbbbbbb"};
const EndpointId kOne{"1111111111111111"};
const EndpointId kTwo{"2222222222222222"};

class LocalIpamTest : public ::testing::Test {
protected:
    void SetUp() override {
        hooks_.occupied = [this]() -> Result<std::vector<Occupied>> { return occupied_; };
        hooks_.endpointIsAlive = [this](const EndpointId& id) { return !dead_.contains(id); };
        hooks_.bindingReleased = [this](const EndpointId& id, const IpAddress& address) {
            released_.push_back(id.str() + " " + address.str());
        };
        hooks_.random = [this] { return ++random_; };
        start();
    }

    void start() {
        ipam_.reset();
        store_.restart();
        auto ipam = LocalIpam::create(store_, clock_, config_, hooks_);
        ASSERT_TRUE(ipam) << ipam.error().message;
        ipam_ = std::move(ipam).value();
    }

    Result<PoolReply> pool(std::string_view cidr, std::string_view range = "") {
        PoolRequest request;
        request.addressSpace = kLocalAddressSpace;
        if (!cidr.empty()) request.pool = prefix(cidr);
        if (!range.empty()) request.subPool = prefix(range);
        return ipam_->requestPool(request);
    }

    // A pool as the engine makes it for a weft network: gateway leased, then attached.
    PoolId network(std::string_view cidr, const NetworkId& id = kWeb) {
        const PoolId poolId = pool(cidr)->poolId;
        const auto gateway = ipam_->requestAddress({poolId, std::nullopt, true, {}});
        EXPECT_TRUE(gateway);
        const IpAddress reserved[] = {gateway->address()};
        EXPECT_TRUE(ipam_->attachPool(id, kLocalAddressSpace, prefix(cidr), reserved).value());
        return poolId;
    }

    std::string request(const PoolId& poolId, std::string_view address = "", bool gateway = false) {
        AddressRequest r;
        r.poolId = poolId;
        if (!address.empty()) r.address = ip(address);
        r.gateway = gateway;
        const auto reply = ipam_->requestAddress(r);
        return reply ? reply->str() : std::string(toString(reply.error().code)) + ": " + reply.error().message;
    }

    std::vector<std::string> leases() {
        std::vector<std::string> list;
        for (const auto& lease : ipam_->listLeases()) {
            list.push_back(lease.record.key.address.str() + (lease.endpoint.empty() ? "" : " " + lease.endpoint.str()));
        }
        return list;
    }

    FakeStore store_;
    ManualClock clock_;
    LocalIpamConfig config_;
    LocalIpamHooks hooks_;
    std::vector<Occupied> occupied_;
    std::set<EndpointId> dead_;
    std::vector<std::string> released_;
    uint64_t random_ = 0;
    std::unique_ptr<LocalIpam> ipam_;
};

// --- pools

TEST_F(LocalIpamTest, ChosenPoolsDifferWhileHeld) {
    std::set<std::string> pools;
    std::set<std::string> ids;
    for (int i = 0; i < 10; ++i) {
        const auto reply = pool("");
        ASSERT_TRUE(reply);
        EXPECT_TRUE(pools.insert(reply->pool.str()).second);
        EXPECT_TRUE(ids.insert(reply->poolId.str()).second);
    }
    EXPECT_TRUE(pools.contains("10.208.0.0/24"));
    EXPECT_TRUE(pools.contains("10.208.9.0/24"));
}

TEST_F(LocalIpamTest, ReleasedPoolComesBackUnderANewId) {
    const auto first = pool("");
    ASSERT_TRUE(ipam_->releasePool(first->poolId));
    const auto second = pool("");
    EXPECT_EQ(second->pool, first->pool);
    EXPECT_NE(second->poolId, first->poolId);
    ASSERT_TRUE(ipam_->releasePool(first->poolId));  // late repetition
    EXPECT_EQ(ipam_->listPools().size(), 1U);
}

TEST_F(LocalIpamTest, ChosenPoolsAvoidHostRoutesAndResolvers) {
    occupied_ = {{prefix("10.208.0.0/23"), "route on eth0"},
                 {prefix("10.208.2.53/32"), "resolver"},
                 {prefix("0.0.0.0/0"), "default route"}};
    EXPECT_EQ(pool("")->pool.str(), "10.208.3.0/24");
}

TEST_F(LocalIpamTest, NoPoolIsChosenIfTheHostCannotBeRead) {
    hooks_.occupied = []() -> Result<std::vector<Occupied>> { return makeError(ErrorCode::Kernel, "netlink"); };
    start();
    EXPECT_FALSE(pool(""));
}

TEST_F(LocalIpamTest, ExhaustedDefaultsSayWhatIsHeld) {
    config_.defaultsV4 = {{prefix("10.5.0.0/22"), 24}};
    occupied_ = {{prefix("10.5.1.0/24"), "route on eth0"}};
    start();
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(pool(""));
    const auto reply = pool("");
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().code, ErrorCode::Exhausted);
    EXPECT_THAT(reply.error().message, AllOf(HasSubstr("10.5.0.0/22 in /24s"), HasSubstr("3 pools held")));
}

TEST_F(LocalIpamTest, V6PoolsComeFromOneRandomSitePrefixForEver) {
    hooks_.random = [] { return 0x0123456789abcdefULL; };
    FakeStore fresh;
    auto ipam = LocalIpam::create(fresh, clock_, {}, hooks_).value();
    PoolRequest v6;
    v6.addressSpace = kLocalAddressSpace;
    v6.v6 = true;
    EXPECT_EQ(ipam->requestPool(v6)->pool.str(), "fd67:89ab:cdef::/64");
    hooks_.random = [] { return 42ULL; };
    ipam = LocalIpam::create(fresh, clock_, {}, hooks_).value();
    EXPECT_EQ(ipam->requestPool(v6)->pool.str(), "fd67:89ab:cdef:1::/64");
}

TEST_F(LocalIpamTest, GivenPoolOverlappingANetworkIsRefusedWithItsName) {
    network("10.20.0.0/24");
    for (const char* cidr : {"10.20.0.0/24", "10.20.0.0/16", "10.20.0.128/25"}) {
        const auto reply = pool(cidr);
        ASSERT_FALSE(reply) << cidr;
        EXPECT_EQ(reply.error().code, ErrorCode::Busy);
        EXPECT_THAT(reply.error().message, AllOf(HasSubstr(kWeb.brief()), HasSubstr("10.20.0.0/24"))) << cidr;
    }
    EXPECT_TRUE(pool("10.20.1.0/24"));
    PoolRequest global;
    global.addressSpace = kGlobalAddressSpace;
    global.pool = prefix("10.20.0.0/24");
    EXPECT_FALSE(ipam_->requestPool(global)) << "two links cannot have one subnet, whatever the address space";
}

TEST_F(LocalIpamTest, GivenPoolOverlappingAHostRouteIsRefusedWithItsHolder) {
    occupied_ = {{prefix("192.168.1.0/24"), "route on eth0"}};
    const auto reply = pool("192.168.0.0/16");
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().code, ErrorCode::Busy);
    EXPECT_THAT(reply.error().message, AllOf(HasSubstr("192.168.1.0/24"), HasSubstr("route on eth0")));

    PoolRequest lan;
    lan.addressSpace = kLocalAddressSpace;
    lan.pool = prefix("192.168.1.0/24");
    lan.onHostNetwork = true;
    EXPECT_TRUE(ipam_->requestPool(lan));
}

TEST_F(LocalIpamTest, GivenPoolAskedForAgainIsTheEnginesRetry) {
    const auto first = pool("10.20.0.0/24", "10.20.0.128/25");
    EXPECT_EQ(pool("10.20.0.0/24", "10.20.0.128/25")->poolId, first->poolId);
    EXPECT_FALSE(pool("10.20.0.0/24")) << "without the range it is another request";
    ASSERT_EQ(request(first->poolId, "", true), "10.20.0.128/24");
    EXPECT_FALSE(pool("10.20.0.0/24", "10.20.0.128/25")) << "somebody already works with it";
}

TEST_F(LocalIpamTest, PoolsThatCannotBeAreRefused) {
    const auto code = [&](std::string_view cidr, std::string_view range) {
        const auto reply = pool(cidr, range);
        return reply ? ErrorCode::Internal : reply.error().code;
    };
    EXPECT_EQ(code("0.0.0.0/0", ""), ErrorCode::InvalidArgument);
    EXPECT_EQ(code("224.0.0.0/24", ""), ErrorCode::InvalidArgument);
    EXPECT_EQ(code("127.1.0.0/16", ""), ErrorCode::InvalidArgument);
    EXPECT_EQ(code("10.0.0.0/24", "10.0.1.0/25"), ErrorCode::InvalidArgument);
    EXPECT_EQ(code("10.0.0.0/24", "10.0.0.0/16"), ErrorCode::InvalidArgument);
    EXPECT_EQ(code("10.0.0.0/24", "fd00::/96"), ErrorCode::InvalidArgument);
    EXPECT_EQ(code("", "10.0.0.0/24"), ErrorCode::InvalidArgument);
    EXPECT_EQ(pool("10.0.0.77/24")->pool.str(), "10.0.0.0/24");
}

TEST_F(LocalIpamTest, PoolOfALivingNetworkOutlivesAStrayRelease) {
    const PoolId poolId = network("10.20.0.0/24");
    ASSERT_TRUE(ipam_->releasePool(poolId));
    EXPECT_EQ(request(poolId), "10.20.0.2/24");
    start();
    EXPECT_EQ(ipam_->listPools().size(), 1U);
    ASSERT_TRUE(ipam_->detachPools(kWeb));
    EXPECT_TRUE(ipam_->listPools().empty());
    start();
    EXPECT_TRUE(ipam_->listPools().empty());
}

TEST_F(LocalIpamTest, PoolWithoutItsNetworkWaitsForTheEnginesRelease) {
    const PoolId poolId = network("10.20.0.0/24");
    ASSERT_TRUE(ipam_->detachPools(kWeb));
    EXPECT_EQ(ipam_->listPools().size(), 1U);
    ASSERT_TRUE(ipam_->releaseAddress(poolId, ip("10.20.0.1")));
    EXPECT_TRUE(leases().empty());
    ASSERT_TRUE(ipam_->releasePool(poolId));
    EXPECT_TRUE(ipam_->listPools().empty());
    EXPECT_TRUE(pool("10.20.0.0/24"));
}

TEST_F(LocalIpamTest, PoolWhoseReleaseWasLostIsFreedAfterItsNetwork) {
    network("10.20.0.0/24");
    const PoolId foreign = pool("10.21.0.0/24")->poolId;  // of a driver that is not ours
    ASSERT_TRUE(ipam_->detachPools(kWeb));
    clock_.advance(seconds(59));
    ASSERT_TRUE(ipam_->collect());
    EXPECT_EQ(ipam_->listPools().size(), 2U);
    clock_.advance(seconds(1));
    ASSERT_TRUE(ipam_->collect());
    ASSERT_EQ(ipam_->listPools().size(), 1U);
    EXPECT_EQ(ipam_->listPools().front().record.id, foreign);
    start();
    EXPECT_EQ(ipam_->listPools().size(), 1U);
    network("10.20.0.0/24", kOther);
    clock_.advance(seconds(3600));
    ASSERT_TRUE(ipam_->collect());
    EXPECT_EQ(ipam_->listPools().size(), 2U);
}

TEST_F(LocalIpamTest, PoolsAttachToOneNetwork) {
    network("10.20.0.0/24");
    const auto again = ipam_->attachPool(kWeb, kLocalAddressSpace, prefix("10.20.0.0/24"), {});
    EXPECT_TRUE(again.value());
    const auto other = ipam_->attachPool(kOther, "", prefix("10.20.0.0/24"), {});
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, ErrorCode::Busy);
    EXPECT_FALSE(ipam_->attachPool(kOther, "LocalDefault", prefix("10.20.0.0/24"), {}).value());
    EXPECT_FALSE(ipam_->attachPool(kOther, kLocalAddressSpace, prefix("10.21.0.0/24"), {}).value());
}

TEST_F(LocalIpamTest, RepeatedAttachDoesNotWrite) {
    network("10.20.0.0/24");
    const int before = store_.writes();
    const IpAddress reserved[] = {ip("10.20.0.1")};
    ASSERT_TRUE(ipam_->attachPool(kWeb, kLocalAddressSpace, prefix("10.20.0.0/24"), reserved));
    EXPECT_EQ(store_.writes(), before);
}

TEST_F(LocalIpamTest, NetworksNoDriverKnowsAreDetachedAfterAStart) {
    network("10.20.0.0/24", kWeb);
    network("10.21.0.0/24", kOther);
    start();
    const NetworkId known[] = {kOther};
    EXPECT_EQ(ipam_->detachForgotten(known).value(), std::vector<NetworkId>{kWeb});
    EXPECT_TRUE(ipam_->attachPool(NetworkId("cc"), kLocalAddressSpace, prefix("10.20.0.0/24"), {}).value());
}

// --- addresses

TEST_F(LocalIpamTest, GatewayFirstThenEndpoints) {
    const PoolId poolId = pool("10.20.0.0/29")->poolId;
    EXPECT_EQ(request(poolId, "", true), "10.20.0.1/29");
    EXPECT_EQ(request(poolId, "", true), "10.20.0.1/29") << "the engine's retry";
    EXPECT_EQ(request(poolId, "10.20.0.1", true), "10.20.0.1/29");
    EXPECT_EQ(request(poolId), "10.20.0.2/29");
    EXPECT_THAT(request(poolId, "10.20.0.2", true), HasSubstr("busy: 10.20.0.2 is held by a request"));
    EXPECT_THAT(request(poolId, "10.20.0.1"), HasSubstr("as the gateway"));
}

TEST_F(LocalIpamTest, AddressesThatCannotBeAreRefused) {
    const PoolId poolId = network("10.20.0.0/24");
    EXPECT_THAT(request(poolId, "10.20.0.0"), HasSubstr("invalid argument"));
    EXPECT_THAT(request(poolId, "10.20.0.255"), HasSubstr("network, broadcast"));
    EXPECT_THAT(request(poolId, "10.20.1.1"),
                HasSubstr("10.20.1.1 is not in pool 10.20.0.0/24 of network aaaaaaaaaaaa"));
    EXPECT_THAT(request(poolId, "fd00::1"), HasSubstr("invalid argument"));
    EXPECT_THAT(request(PoolId("nothing")), HasSubstr("not found"));
}

TEST_F(LocalIpamTest, ExhaustionSaysHowManyLeasesAndEndpoints) {
    const PoolId poolId = network("10.20.0.0/29");
    for (int i = 0; i < 5; ++i) request(poolId);
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.2"), kOne));
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.3"), kOne));
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.4"), kTwo));
    EXPECT_EQ(request(poolId),
              "exhausted: no free address in pool 10.20.0.0/29 of network aaaaaaaaaaaa: 6 leases held, by 2 endpoints");
}

TEST_F(LocalIpamTest, ReleaseOfTheUnknownSucceeds) {
    EXPECT_TRUE(ipam_->releasePool(PoolId("nothing")));
    EXPECT_TRUE(ipam_->releaseAddress(PoolId("nothing"), ip("10.0.0.1")));
    const PoolId poolId = network("10.20.0.0/24");
    EXPECT_TRUE(ipam_->releaseAddress(poolId, ip("10.20.0.77")));
    EXPECT_TRUE(ipam_->releaseAddress(poolId, ip("fd00::1")));
}

TEST_F(LocalIpamTest, ReleasedAddressRestsBeforeReuse) {
    const PoolId poolId = network("10.20.0.0/29");
    ASSERT_EQ(request(poolId), "10.20.0.2/29");
    ASSERT_TRUE(ipam_->releaseAddress(poolId, ip("10.20.0.2")));
    for (const char* expected : {"10.20.0.3/29", "10.20.0.4/29", "10.20.0.5/29", "10.20.0.6/29", "10.20.0.2/29"}) {
        EXPECT_EQ(request(poolId), expected);
    }
}

TEST_F(LocalIpamTest, ReleasedAddressCanBeAskedForByName) {
    const PoolId poolId = network("10.20.0.0/24");
    ASSERT_EQ(request(poolId, "10.20.0.9"), "10.20.0.9/24");
    ASSERT_TRUE(ipam_->releaseAddress(poolId, ip("10.20.0.9")));
    EXPECT_EQ(request(poolId, "10.20.0.9"), "10.20.0.9/24");
}

TEST_F(LocalIpamTest, UnboundAddressAskedForAgainSoonIsTheEnginesRetry) {
    const PoolId poolId = network("10.20.0.0/24");
    ASSERT_EQ(request(poolId, "10.20.0.9"), "10.20.0.9/24");
    clock_.advance(seconds(29));
    EXPECT_EQ(request(poolId, "10.20.0.9"), "10.20.0.9/24");
    clock_.advance(seconds(30));
    EXPECT_THAT(request(poolId, "10.20.0.9"), HasSubstr("by a request 30 s ago"));
}

TEST_F(LocalIpamTest, InAPoolOfAnotherDriverNoRepetitionIsTrusted) {
    const PoolId poolId = pool("10.20.0.0/24")->poolId;
    ASSERT_EQ(request(poolId, "10.20.0.9"), "10.20.0.9/24");
    EXPECT_THAT(request(poolId, "10.20.0.9"), AllOf(HasSubstr("busy"), HasSubstr("which no weft network uses")));
}

TEST_F(LocalIpamTest, BoundAddressIsRefusedWithItsHolder) {
    const PoolId poolId = network("10.20.0.0/24");
    ASSERT_EQ(request(poolId, "10.20.0.9"), "10.20.0.9/24");
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.9"), kOne));
    EXPECT_THAT(request(poolId, "10.20.0.9"), HasSubstr("busy: 10.20.0.9 is held by endpoint 111111111111"));
    clock_.advance(seconds(3600));
    EXPECT_THAT(request(poolId, "10.20.0.9"), HasSubstr("busy"));
    const auto other = ipam_->bindLease(kWeb, ip("10.20.0.9"), kTwo);
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, ErrorCode::Busy);
    EXPECT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.9"), kOne));
}

TEST_F(LocalIpamTest, DeadEndpointLosesItsAddressToANewRequest) {
    const PoolId poolId = network("10.20.0.0/24");
    ASSERT_EQ(request(poolId, "10.20.0.9"), "10.20.0.9/24");
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.9"), kOne));
    dead_ = {kOne};
    EXPECT_THAT(request(poolId, "10.20.0.9"), HasSubstr("busy")) << "its driver may be just about to record it";
    clock_.advance(seconds(30));
    EXPECT_EQ(request(poolId, "10.20.0.9"), "10.20.0.9/24");
    EXPECT_EQ(released_, std::vector<std::string>{kOne.str() + " 10.20.0.9"});
    EXPECT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.9"), kTwo));
}

TEST_F(LocalIpamTest, ReleaseOfALivingEndpointsAddressIsIgnored) {
    const PoolId poolId = network("10.20.0.0/24");
    ASSERT_EQ(request(poolId), "10.20.0.2/24");
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.2"), kOne));
    clock_.advance(seconds(100));
    EXPECT_TRUE(ipam_->releaseAddress(poolId, ip("10.20.0.2")));
    EXPECT_THAT(request(poolId, "10.20.0.2"), HasSubstr("held by endpoint"));
    dead_ = {kOne};
    EXPECT_TRUE(ipam_->releaseAddress(poolId, ip("10.20.0.2")));
    EXPECT_EQ(leases(), std::vector<std::string>{"10.20.0.1"});
    EXPECT_EQ(released_.size(), 1U);
}

TEST_F(LocalIpamTest, ReleaseOfALivingNetworksGatewayIsIgnored) {
    const PoolId poolId = network("10.20.0.0/24");
    EXPECT_TRUE(ipam_->releaseAddress(poolId, ip("10.20.0.1")));
    EXPECT_EQ(leases(), std::vector<std::string>{"10.20.0.1"});
}

TEST_F(LocalIpamTest, AuxAddressesMayLieOutsideTheRangeAndStay) {
    const PoolId poolId = pool("10.20.0.0/24", "10.20.0.128/25")->poolId;
    ASSERT_EQ(request(poolId, "10.20.0.254", true), "10.20.0.254/24");
    ASSERT_EQ(request(poolId, "10.20.0.7"), "10.20.0.7/24");
    const IpAddress reserved[] = {ip("10.20.0.254"), ip("10.20.0.7")};
    ASSERT_TRUE(ipam_->attachPool(kWeb, kLocalAddressSpace, prefix("10.20.0.0/24"), reserved).value());
    clock_.advance(seconds(3600));
    EXPECT_TRUE(ipam_->collect()->empty());
    EXPECT_THAT(request(poolId, "10.20.0.7"), HasSubstr("as an auxiliary address"));
    const auto info = ipam_->listPools().front();
    EXPECT_EQ(info.used, Uint128{2});
    EXPECT_EQ(info.free, Uint128{126});  // .128 to .254 without the gateway
}

TEST_F(LocalIpamTest, BindingAForeignAddressIsNoBusinessOfOurs) {
    EXPECT_TRUE(ipam_->bindLease(kWeb, ip("172.18.0.2"), kOne));
    ipam_->unbindLease(kWeb, ip("172.18.0.2"), kOne);
    EXPECT_TRUE(leases().empty());
}

TEST_F(LocalIpamTest, BindingALeaseThatWasCollectedLeasesItAgain) {
    const PoolId poolId = network("10.20.0.0/24");
    ASSERT_EQ(request(poolId), "10.20.0.2/24");
    clock_.advance(seconds(60));
    ASSERT_EQ(ipam_->collect()->size(), 1U);
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.2"), kOne));
    start();
    EXPECT_EQ(leases(), (std::vector<std::string>{"10.20.0.1", "10.20.0.2"}));
}

TEST_F(LocalIpamTest, BindingNeverWritesOtherwise) {
    const PoolId poolId = network("10.20.0.0/24");
    request(poolId);
    const int before = store_.writes();
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.2"), kOne));
    ipam_->unbindLease(kWeb, ip("10.20.0.2"), kTwo);
    EXPECT_THAT(request(poolId, "10.20.0.2"), HasSubstr("busy"));
    ipam_->unbindLease(kWeb, ip("10.20.0.2"), kOne);
    EXPECT_EQ(store_.writes(), before);
}

// --- collection

TEST_F(LocalIpamTest, CollectFreesWhatNoEndpointTook) {
    const PoolId poolId = network("10.20.0.0/24");
    request(poolId);
    request(poolId);
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.3"), kOne));
    clock_.advance(seconds(59));
    EXPECT_TRUE(ipam_->collect()->empty());
    clock_.advance(seconds(1));
    const auto collected = ipam_->collect();
    ASSERT_EQ(collected->size(), 1U);
    EXPECT_EQ(collected->front().key, (LeaseKey{poolId, ip("10.20.0.2")}));
    EXPECT_EQ(leases(), (std::vector<std::string>{"10.20.0.1", "10.20.0.3 " + kOne.str()}));
}

TEST_F(LocalIpamTest, CollectFreesAfterALostRelease) {
    const PoolId poolId = network("10.20.0.0/24");
    request(poolId);
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.2"), kOne));
    clock_.advance(seconds(3600));
    ipam_->unbindLease(kWeb, ip("10.20.0.2"), kOne);
    EXPECT_TRUE(ipam_->collect()->empty()) << "the engine's release is still to be expected";
    clock_.advance(seconds(60));
    EXPECT_EQ(ipam_->collect()->size(), 1U);
}

TEST_F(LocalIpamTest, CollectFreesTheLeasesOfDeadEndpoints) {
    const PoolId poolId = network("10.20.0.0/24");
    request(poolId);
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.2"), kOne));
    dead_ = {kOne};
    EXPECT_TRUE(ipam_->collect()->empty());
    clock_.advance(seconds(60));
    EXPECT_EQ(ipam_->collect()->front().endpoint, kOne);
    EXPECT_EQ(released_.size(), 1U);
}

TEST_F(LocalIpamTest, CollectSparesPoolsOfOtherDrivers) {
    const PoolId poolId = pool("10.20.0.0/24")->poolId;
    request(poolId);
    clock_.advance(seconds(100000));
    EXPECT_TRUE(ipam_->collect()->empty());
    start();
    clock_.advance(seconds(100000));
    EXPECT_TRUE(ipam_->collect()->empty());
}

TEST_F(LocalIpamTest, CollectWaitsForTheBindingsAfterAStart) {
    const PoolId poolId = network("10.20.0.0/24");
    request(poolId);
    request(poolId);
    ASSERT_TRUE(ipam_->bindLease(kWeb, ip("10.20.0.2"), kOne));
    start();
    clock_.advance(seconds(3600));
    EXPECT_TRUE(ipam_->collect()->empty());
    const std::pair<IpAddress, EndpointId> bindings[] = {{ip("10.20.0.2"), kOne}};
    ASSERT_TRUE(ipam_->restoreBindings(kWeb, bindings));
    EXPECT_EQ(ipam_->collect()->size(), 1U);
    EXPECT_EQ(leases(), (std::vector<std::string>{"10.20.0.1", "10.20.0.2 " + kOne.str()}));
}

TEST_F(LocalIpamTest, RestoringTwoOwnersOfOneAddressKeepsTheFirst) {
    const PoolId poolId = network("10.20.0.0/24");
    request(poolId);
    start();
    const std::pair<IpAddress, EndpointId> bindings[] = {{ip("10.20.0.2"), kOne}, {ip("10.20.0.2"), kTwo}};
    const auto restored = ipam_->restoreBindings(kWeb, bindings);
    ASSERT_FALSE(restored);
    EXPECT_THAT(restored.error().message, HasSubstr("10.20.0.2 is held by endpoint 111111111111"));
    EXPECT_EQ(leases(), (std::vector<std::string>{"10.20.0.1", "10.20.0.2 " + kOne.str()}));
}

// --- the disk

TEST_F(LocalIpamTest, WhatWasAnsweredIsThereAfterAStart) {
    const PoolId poolId = network("10.20.0.0/24");
    request(poolId);
    request(poolId, "10.20.0.77");
    const auto pools = ipam_->listPools();
    const auto before = leases();
    start();
    EXPECT_EQ(leases(), before);
    ASSERT_EQ(ipam_->listPools().size(), 1U);
    EXPECT_EQ(ipam_->listPools().front().record, pools.front().record);
    EXPECT_EQ(request(poolId), "10.20.0.78/24");
}

TEST_F(LocalIpamTest, FailedWritesAreTakenBack) {
    const PoolId poolId = network("10.20.0.0/29");
    const auto failNext = [&] { store_.arm(FakeStore::Fault::Fail, 1); };
    failNext();
    EXPECT_THAT(request(poolId), HasSubstr("no disk"));
    EXPECT_EQ(leases(), std::vector<std::string>{"10.20.0.1"});
    failNext();
    EXPECT_FALSE(pool("10.30.0.0/24"));
    EXPECT_EQ(ipam_->listPools().size(), 1U);
    EXPECT_TRUE(pool("10.30.0.0/24"));

    ASSERT_EQ(request(poolId, "10.20.0.5"), "10.20.0.5/29");
    failNext();
    EXPECT_FALSE(ipam_->releaseAddress(poolId, ip("10.20.0.5")));
    EXPECT_EQ(leases().size(), 2U);
    EXPECT_TRUE(ipam_->releaseAddress(poolId, ip("10.20.0.5")));

    failNext();
    EXPECT_FALSE(ipam_->detachPools(kWeb));
    EXPECT_EQ(ipam_->listPools().front().record.network, kWeb);
    request(poolId);
    clock_.advance(seconds(60));
    failNext();
    EXPECT_FALSE(ipam_->collect());
    EXPECT_EQ(ipam_->collect()->size(), 1U);
    ASSERT_TRUE(ipam_->detachPools(kWeb));
    failNext();
    EXPECT_FALSE(ipam_->releasePool(poolId));
    EXPECT_EQ(ipam_->listPools().size(), 2U);
    EXPECT_TRUE(ipam_->releasePool(poolId));
    EXPECT_EQ(ipam_->listPools().size(), 1U);
}

TEST_F(LocalIpamTest, DamagedStoreIsRefused) {
    const PoolId poolId = network("10.20.0.0/24");
    IpamChange stray;
    stray.putLeases = {{{PoolId("nothing"), ip("10.0.0.1")}, LeaseKind::Endpoint}};
    ASSERT_TRUE(store_.apply(stray));
    const auto ipam = LocalIpam::create(store_, clock_, config_, hooks_);
    ASSERT_FALSE(ipam);
    EXPECT_EQ(ipam.error().code, ErrorCode::Corrupt);
}

// --- concurrency: the write of one request is under way while another one comes

TEST_F(LocalIpamTest, WhileOneAddressIsBeingWrittenAnotherIsChosen) {
    const PoolId poolId = network("10.20.0.0/24");
    std::string second;
    store_.duringWrite = [&] { second = request(poolId); };
    EXPECT_EQ(request(poolId), "10.20.0.2/24");
    EXPECT_EQ(second, "10.20.0.3/24");
}

TEST_F(LocalIpamTest, SameAddressAskedForDuringItsWriteWaitsForTheOutcome) {
    const PoolId poolId = network("10.20.0.0/24");
    std::string second;
    std::thread thread;
    const auto start = [&] { thread = std::thread([&] { second = request(poolId, "10.20.0.9"); }); };
    store_.duringWrite = start;
    store_.arm(FakeStore::Fault::Fail, 1);
    EXPECT_THAT(request(poolId, "10.20.0.9"), HasSubstr("no disk"));
    thread.join();
    EXPECT_EQ(second, "10.20.0.9/24");
    EXPECT_EQ(store_.load()->leases.size(), 2U) << "the second one's own write put it on disk";
}

TEST_F(LocalIpamTest, ConcurrentUsersOfOnePoolShareNothing) {
    auto path = std::filesystem::temp_directory_path() / ("weft-ipam-" + std::to_string(::getpid()));
    std::filesystem::create_directory(path);
    {
        const SchemaComponent components[] = {schemaComponent()};
        auto database = Database::open(path / "weft.db", components).value();
        DatabaseLeaseStore store(*database);
        auto ipam = LocalIpam::create(store, clock_).value();
        PoolRequest poolRequest;
        poolRequest.addressSpace = kLocalAddressSpace;
        poolRequest.pool = prefix("10.20.0.0/22");
        const PoolId poolId = ipam->requestPool(poolRequest)->poolId;
        constexpr size_t kThreads = 8;
        std::vector<std::vector<IpAddress>> got(kThreads);
        std::vector<std::thread> threads;
        for (size_t t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, t] {
                for (int i = 0; i < 60; ++i) {
                    const auto address = ipam->requestAddress({poolId, {}, false, {}});
                    if (!address) continue;
                    if (i % 3 == 0) {
                        (void)ipam->releaseAddress(poolId, address->address());
                    } else {
                        got[t].push_back(address->address());
                    }
                }
            });
        }
        for (auto& thread : threads) thread.join();
        std::set<IpAddress> all;
        for (const auto& list : got) all.insert(list.begin(), list.end());
        EXPECT_EQ(all.size(), kThreads * 40);
        const auto counters = database->counters();
        EXPECT_LT(counters.commits, counters.writes);
        EXPECT_EQ(store.load()->leases.size(), all.size());
        ipam = LocalIpam::create(store, clock_).value();
        EXPECT_EQ(ipam->listLeases().size(), all.size());
    }
    std::filesystem::remove_all(path);
}

TEST_F(LocalIpamTest, DatabaseStoreKeepsEveryField) {
    auto path = std::filesystem::temp_directory_path() / ("weft-ipam-store-" + std::to_string(::getpid()));
    std::filesystem::create_directory(path);
    {
        const SchemaComponent components[] = {schemaComponent()};
        auto database = Database::open(path / "weft.db", components).value();
        DatabaseLeaseStore store(*database);
        IpamChange change;
        change.sitePrefix = prefix("fd01:2:3::/48");
        change.putPools = {{PoolId("p1"), "space", prefix("10.0.0.0/8"), prefix("10.1.0.0/16"), kWeb, true},
                           {PoolId("p2"), "other", prefix("fd00::/64"), {}, {}, false}};
        change.putLeases = {{{PoolId("p1"), ip("10.0.0.1")}, LeaseKind::Gateway},
                            {{PoolId("p2"), ip("fd00::5")}, LeaseKind::Aux},
                            {{PoolId("p2"), ip("fd00::6")}, LeaseKind::Endpoint}};
        ASSERT_TRUE(store.apply(change));
        auto stored = store.load().value();
        EXPECT_EQ(stored.sitePrefix, change.sitePrefix);
        EXPECT_EQ(stored.pools, change.putPools);
        EXPECT_EQ(stored.leases, change.putLeases);

        IpamChange less;
        less.erasePools = {PoolId("p1")};
        less.eraseLeases = {{PoolId("p2"), ip("fd00::5")}};
        ASSERT_TRUE(store.apply(less));
        stored = store.load().value();
        EXPECT_EQ(stored.pools, std::vector<PoolRecord>{change.putPools[1]});
        EXPECT_EQ(stored.leases, std::vector<LeaseRecord>{change.putLeases[2]});
    }
    std::filesystem::remove_all(path);
}

// --- shared pools ---

TEST_F(LocalIpamTest, QuarantineHoldsRangesButNotWhatIsAskedForByName) {
    config_.onlyHeld = true;
    start();
    ipam_->hold(prefix("10.1.0.0/24"), {ip("10.1.0.0").bits(), ip("10.1.0.255").bits()});
    const PoolId poolId = pool("10.1.0.0/24")->poolId;
    const IpAddress named = ip("10.1.0.7");
    ASSERT_TRUE(ipam_->requestAddress({poolId, named, false, {}}));
    EXPECT_FALSE(ipam_->vacate(prefix("10.1.0.0/24"), {named.bits(), named.bits()})) << "while it is leased";

    ASSERT_TRUE(ipam_->releaseAddress(poolId, named));
    EXPECT_FALSE(ipam_->vacate(prefix("10.1.0.0/24"), {ip("10.1.0.6").bits(), named.bits()}));
    EXPECT_TRUE(ipam_->vacate(prefix("10.1.0.0/24"), {named.bits(), named.bits()}));
    EXPECT_FALSE(ipam_->requestAddress({poolId, named, false, {}})) << "it is another host's now";
}

}  // namespace
}  // namespace weft::ipam
