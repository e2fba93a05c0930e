#include "driver/control_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "drivers/overlay/overlay_names.h"
#include "drivers/overlay/overlay_rows.h"
#include "fakes.h"
#include "ipam/lease_store.h"

namespace weft::driver::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class MemoryLeases final : public ipam::LeaseStore {
public:
    Result<ipam::StoredIpam> load() override { return ipam::StoredIpam{}; }
    Result<void> apply(const ipam::IpamChange&) override { return {}; }
};

class ControlApiTest : public ::testing::Test {
protected:
    ControlApiTest() : ipam_(*ipam::LocalIpam::create(leases_, clock_)) {
        std::string directory = "/tmp/weft-control-XXXXXX";
        if (::mkdtemp(directory.data()) != nullptr) directory_ = directory;
        const std::array components{kv::Service::schema()};
        database_ = *Database::open(directory + "/weft.db", components);
        kv::ServiceConfig gossip;
        gossip.nodeName = "here";
        gossip.stateDir = directory;
        gossip_ = *kv::Service::start(gossip, *database_, metrics_);
        sharedNetworks_ = *SharedNetworks::start({directory + "/docker.sock", {}, {}}, *gossip_, clock_);
        overlay_.push_back({.id = NetworkId("o1"),
                            .name = "backend",
                            .vni = 4711,
                            .hosts = {*IpAddress::parse("192.0.2.2")},
                            .remoteEndpoints = 3,
                            .conflict = "host 192.0.2.2 had it before",
                            .advice = "make one of them anew"});
        driver_.shownNetworks = {{NetworkId("n1"), "br-n1", {*IpPrefix::parse("10.1.0.0/24")}, 1500, false, true}};
        EndpointInfo endpoint;
        endpoint.id = EndpointId("e1");
        endpoint.networkId = NetworkId("n1");
        endpoint.link = "wv1";
        endpoint.address = *IpPrefix::parse("10.1.0.2/24");
        endpoint.ports = {{6, IpAddress::any(IpFamily::V4), 8080, *IpAddress::parse("10.1.0.2"), 80}};
        driver_.shownEndpoints = {endpoint};
        ControlSources sources;
        sources.modes = {Mode("weft-bridge", driver_), Mode("weft-none", plain_)};
        sources.pools = [this] { return ipam_->listPools(); };
        sources.leases = [this] { return ipam_->listLeases(); };
        sources.gossip = gossip_.get();
        sources.ledgerWarnings = [] {
            return std::vector<std::string>{"host b belongs to a cluster that began apart"};
        };
        sources.sharedNetworks = sharedNetworks_.get();
        sources.overlay = [this] { return overlay_; };
        sources.tunnels = [this] { return tunnels_; };
        sources.blocks = [] { return std::string("10.32.0.0/16: all of it here"); };
        sources.forget = [](const std::string& node, bool force) -> Result<std::string> {
            if (force) return "forgot " + node;
            return makeError(ErrorCode::Unavailable, "no majority");
        };
        sources.metrics = &metrics_;
        sources.clock = &clock_;
        sources.firewall = "nft (test)";
        sources.reconcile = [this](bool dryRun) -> Result<std::vector<Repair>> {
            dryRun_ = dryRun;
            return std::vector<Repair>{{"link", "br-n1", "recreated", std::nullopt}};
        };
        sources.lastRepairs = [this] {
            return std::vector<PastRepair>{
                {clock_.wall(), {"link", "br-n1", "recreated", makeError(ErrorCode::Busy, "in use")}}};
        };
        sources.traffic = [this]() -> Result<std::map<std::string, net::LinkTraffic>> { return traffic_; };
        sources.drops = [](const std::string& link) {
            net::DropCounts drops{};
            if (link == "wv1") drops[kDropArp] = 3;
            return drops;
        };
        sources.allDrops = [] {
            net::DropCounts drops{};
            drops[kDropMac] = 5;
            return drops;
        };
        sources.names = [] { return NamesById{{{"n1", "shop"}}, {{"e1", "web"}}}; };
        sources.doctor = [] { return std::vector<Check>{{"ip_forward", Health::Warning, "off", "sysctl"}}; };
        sources.trace = [this](TraceQuestion question) -> Result<std::vector<Check>> {
            traced_ = std::move(question);
            if (traced_.container == "nobody") return makeError(ErrorCode::InvalidArgument, "no such container");
            return std::vector<Check>{{"fdb", Health::Bad, "no entry", "weftctl reconcile"}};
        };
        api_ = std::make_unique<ControlApi>(std::move(sources));
    }

    ~ControlApiTest() override {
        sharedNetworks_.reset();
        gossip_.reset();
        database_.reset();
        std::filesystem::remove_all(directory_);
    }

    Json post(const std::string& path, const std::string& body) {
        return Json::parse(api_->handle({"POST", path, "", body}).body);
    }
    Json get(const std::string& path) { return Json::parse(api_->handle({"GET", path, "", ""}).body); }

    ManualClock clock_;
    Metrics metrics_;
    MemoryLeases leases_;
    std::unique_ptr<ipam::LocalIpam> ipam_;
    std::filesystem::path directory_;
    std::unique_ptr<Database> database_;
    std::unique_ptr<kv::Service> gossip_;
    std::unique_ptr<SharedNetworks> sharedNetworks_;
    std::vector<OverlayStatus> overlay_;
    TunnelReport tunnels_;
    FullDriver driver_;
    RecordingDriver plain_;
    std::optional<bool> dryRun_;
    TraceQuestion traced_;
    std::map<std::string, net::LinkTraffic> traffic_{{"br-n1", {10, 20}}, {"lo", {1, 1}}};
    std::unique_ptr<ControlApi> api_;
};

TEST_F(ControlApiTest, TellsWhatItServes) {
    clock_.advance(std::chrono::seconds(90));
    const Json status = get("/v1/status");
    EXPECT_EQ(status["uptimeSeconds"], 90);
    EXPECT_EQ(status["firewall"], "nft (test)");
    EXPECT_EQ(status["modes"][0], Json::parse(R"({"driver":"weft-bridge","networks":1,"endpoints":1,"ports":1})"));
    EXPECT_EQ(get("/v1/networks")["networks"][0]["endpoints"], 1);
    EXPECT_EQ(get("/v1/networks")["networks"][0]["spoof"], "allow");
    EXPECT_EQ(get("/v1/endpoints")["endpoints"][0]["dropped"], 3);
    EXPECT_EQ(get("/v1/endpoints")["endpoints"][0]["droppedAs"], "arp 3");
    EXPECT_NE(api_->handle({"GET", "/metrics", "", ""}).body.find("weft_port_drops{reason=\"mac\"} 5\n"),
              std::string::npos);
    EXPECT_EQ(get("/v1/endpoints")["endpoints"][0]["address"], "10.1.0.2/24");
    EXPECT_EQ(get("/v1/endpoints")["endpoints"][0]["addressV6"], nullptr);
    const Json port = get("/v1/ports")["ports"][0];
    EXPECT_EQ(port["protocol"], "tcp");
    EXPECT_EQ(port["hostPort"], 8080);
    EXPECT_EQ(get("/v1/doctor")["checks"][0]["health"], "warning");
}

TEST_F(ControlApiTest, TellsTheClusterForAPicture) {
    NetworkClaim claim;
    claim.vni = 7;
    claim.mtu = 1450;
    claim.port = 4789;
    claim.vtep = *IpAddress::parse("192.0.2.1");
    claim.gateways = {*IpPrefix::parse("10.32.0.1/16")};
    EndpointRow row;
    row.mac = *MacAddress::parse("02:00:00:00:00:01");
    row.v4 = *IpAddress::parse("10.32.0.5");
    ASSERT_TRUE(kv::put(*gossip_, networkKey("db"), encode(claim)));
    ASSERT_TRUE(kv::put(*gossip_, endpointKey("db", EndpointId("e1")), encode(row)));
    ASSERT_TRUE(kv::put(*gossip_, endpointKey("db", EndpointId("e2")), encode(row)));
    ASSERT_TRUE(kv::put(*gossip_, nameKey("db", EndpointId("e1")), encode(NameRow{{"web", "alias"}, {}})));
    const Json graph = get("/v1/graph");
    EXPECT_EQ(graph["hosts"][0]["name"], "here");
    EXPECT_EQ(graph["hosts"][0]["self"], true);
    ASSERT_EQ(graph["networks"].size(), 2);
    EXPECT_EQ(graph["networks"][0]["name"], "backend");
    EXPECT_EQ(graph["networks"][0]["conflict"], "host 192.0.2.2 had it before");
    EXPECT_EQ(graph["networks"][1]["subnets"], Json::parse(R"(["10.32.0.0/16"])"));
    EXPECT_EQ(graph["networks"][1]["endpoints"][1],
              Json::parse(R"({"host":"here","name":"web","addresses":["10.32.0.5"]})"));
    EXPECT_EQ(graph["networks"][1]["endpoints"][0]["name"], "e2") << "by name";
    EXPECT_EQ(graph["networks"][1]["containers"], 2);
}

TEST_F(ControlApiTest, TellsAtOnceWhatAPageShows) {
    clock_.advance(std::chrono::seconds(90));
    const Json live = get("/v1/live");
    EXPECT_EQ(live["uptimeSeconds"], 90);
    EXPECT_EQ(live["node"], "here");
    EXPECT_EQ(live["graph"]["hosts"].size(), 1);
    EXPECT_EQ(live["networks"], get("/v1/networks")["networks"]);
    EXPECT_EQ(live["endpoints"], get("/v1/endpoints")["endpoints"]);
    EXPECT_EQ(live["traffic"], Json::parse(R"({"br-n1":{"receivedBytes":10,"sentBytes":20}})")) << "weft's links only";
    EXPECT_EQ(live["names"], Json::parse(R"({"networks":{"n1":"shop"},"containers":{"e1":"web"}})"));
    EXPECT_EQ(live["repairs"][0]["error"], "in use");
    EXPECT_EQ(live["repairs"][0]["timeMs"], live["timeMs"]);
}

TEST_F(ControlApiTest, Traces) {
    const Json answer =
        post("/v1/trace", R"({"container":"e1","name":"web","destination":"10.1.0.9","protocol":"udp","port":53})");
    EXPECT_EQ(answer["steps"][0],
              Json::parse(R"({"name":"fdb","health":"bad","found":"no entry","fix":"weftctl reconcile"})"));
    EXPECT_EQ(traced_.name, "web");
    EXPECT_EQ(traced_.protocol, 17);
    EXPECT_EQ(traced_.port, 53);
    post("/v1/trace", R"({"container":"e1","destination":"10.1.0.9"})");
    EXPECT_EQ(traced_.name, "e1");
    EXPECT_EQ(traced_.protocol, 1);
    EXPECT_EQ(post("/v1/trace", R"({"container":"nobody","destination":"x"})")["error"], "no such container");
    for (const char* wrong :
         {"", "[]", R"({"container":"e1"})", R"({"container":1,"destination":"x"})",
          R"({"container":"e1","destination":"x","port":70000})", R"({"container":"e1","destination":"x","port":"80"})",
          R"({"container":"e1","destination":"x","port":80,"protocol":"icmp"})"}) {
        EXPECT_EQ(api_->handle({"POST", "/v1/trace", "", wrong}).status, 400) << wrong;
    }
}

TEST_F(ControlApiTest, TellsPoolsAndLeases) {
    ipam::PoolRequest request;
    request.addressSpace = ipam::kLocalAddressSpace;
    request.pool = *IpPrefix::parse("10.9.0.0/24");
    const auto pool = ipam_->requestPool(request);
    ASSERT_TRUE(pool) << pool.error().message;
    ipam::AddressRequest address;
    address.poolId = pool->poolId;
    ASSERT_TRUE(ipam_->requestAddress(address));
    const Json pools = get("/v1/pools")["pools"];
    ASSERT_EQ(pools.size(), 1U);
    EXPECT_EQ(pools[0]["pool"], "10.9.0.0/24");
    EXPECT_EQ(pools[0]["used"], 1);
    EXPECT_EQ(get("/v1/leases")["leases"][0]["address"], "10.9.0.1");
    EXPECT_THAT(metrics_.render(), HasSubstr("weft_leases_used{pool=\"10.9.0.0/24\""));
}

TEST_F(ControlApiTest, ReconcilesForRealOrDry) {
    const HttpResponse response = api_->handle({"POST", "/v1/reconcile", "", R"({"dryRun":true})"});
    EXPECT_EQ(dryRun_, true);
    EXPECT_EQ(Json::parse(response.body)["repairs"][0]["action"], "recreated");
    api_->handle({"POST", "/v1/reconcile", "", ""});
    EXPECT_EQ(dryRun_, false);
    dryRun_.reset();
    EXPECT_EQ(api_->handle({"POST", "/v1/reconcile", "", R"({"dryRun":"yes"})"}).status, 400);
    EXPECT_EQ(api_->handle({"POST", "/v1/reconcile", "", "{"}).status, 400);
    EXPECT_EQ(api_->handle({"GET", "/v1/reconcile", "", ""}).status, 405);
    EXPECT_EQ(dryRun_, std::nullopt);
}

TEST_F(ControlApiTest, SwitchesTheLogLevel) {
    EXPECT_EQ(api_->handle({"PUT", "/v1/log-level", "", R"({"level":"debug"})"}).status, 200);
    EXPECT_EQ(logLevel(), LogLevel::Debug);
    EXPECT_EQ(get("/v1/log-level")["level"], "debug");
    EXPECT_EQ(api_->handle({"PUT", "/v1/log-level", "", R"({"level":"loud"})"}).status, 400);
    EXPECT_EQ(api_->handle({"PUT", "/v1/log-level", "", R"({"level":5})"}).status, 400);
    setLogLevel(LogLevel::Info);
}

TEST_F(ControlApiTest, ServesMetrics) {
    const HttpResponse response = api_->handleMetrics({"GET", "/metrics", "", ""});
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.contentType, "text/plain; version=0.0.4; charset=utf-8");
    EXPECT_THAT(response.body, HasSubstr("weft_networks{driver=\"weft-bridge\"} 1\n"));
    EXPECT_THAT(response.body, HasSubstr("weft_published_ports{driver=\"weft-bridge\"} 1\n"));
    EXPECT_EQ(api_->handleMetrics({"GET", "/v1/status", "", ""}).status, 404);
}

TEST_F(ControlApiTest, TellsTheCluster) {
    const Json members = get("/v1/members");
    EXPECT_TRUE(members["alone"]);
    ASSERT_EQ(members["members"].size(), 1U);
    EXPECT_EQ(members["members"][0]["name"], "here");
    EXPECT_EQ(members["members"][0]["state"], "alive");
    EXPECT_EQ(get("/v1/overlay")["overlay"][0]["vni"], 4711);
    EXPECT_EQ(get("/v1/overlay")["overlay"][0]["hosts"][0], "192.0.2.2");
    EXPECT_EQ(get("/v1/overlay")["blocks"], "10.32.0.0/16: all of it here");
    EXPECT_EQ(get("/v1/status")["membersAlive"], 1);
    EXPECT_EQ(get("/v1/status")["warnings"][0], "overlay network backend: host 192.0.2.2 had it before");
    EXPECT_THAT(get("/v1/status")["warnings"].dump(), HasSubstr("host b belongs to a cluster that began apart"));
}

TEST_F(ControlApiTest, TellsWhatProbesOfTunnelsFound) {
    tunnels_.probes = true;
    tunnels_.offload = false;
    tunnels_.offloadWhy = "TCP to two passed only without";
    tunnels_.now = clock_.now();
    tunnels_.tunnels = {
        {{{2}}, "two", *IpAddress::parse("192.0.2.2"), TunnelState::Healed, "TCP passes", clock_.now()},
        {gossip_->id(), "three", *IpAddress::parse("192.0.2.3"), TunnelState::Closed, "nothing passes", clock_.now()},
        {{{4}}, "old", *IpAddress::parse("192.0.2.4"), TunnelState::Unknown, "no answer", {}}};
    const Json told = get("/v1/tunnels");
    EXPECT_EQ(told["tunnels"][0],
              Json::parse(R"({"host":"two","address":"192.0.2.2","state":"healed","found":"TCP passes",
                              "examinedSecondsAgo":0,"checksumOffload":false})"));
    EXPECT_TRUE(told["tunnels"][2]["examinedSecondsAgo"].is_null());
    EXPECT_EQ(get("/v1/graph")["hosts"][0]["tunnel"], "closed") << "by the host's id";
    const std::string warnings = get("/v1/status")["warnings"].dump();
    EXPECT_THAT(warnings, HasSubstr("checksum offload is off"));
    EXPECT_THAT(warnings, HasSubstr("tunnel to three: nothing passes"));
    EXPECT_THAT(warnings, ::testing::Not(HasSubstr("old")));
    const std::string metrics = api_->handle({"GET", "/metrics", "", ""}).body;
    EXPECT_THAT(metrics, HasSubstr("weft_tunnels{state=\"closed\"} 1\n"));
    EXPECT_THAT(metrics, HasSubstr("weft_tunnels{state=\"good\"} 0\n"));
    EXPECT_THAT(metrics, HasSubstr("weft_tunnel_checksum_offload 0\n"));

    const auto checks = tunnelChecks(tunnels_, "ens192", 4790);
    ASSERT_EQ(checks.size(), 3U);
    EXPECT_THAT(checks[0].fix, HasSubstr("ethtool -K ens192 tx-udp_tnl-segmentation off"));
    EXPECT_EQ(checks[1].name, "tunnel to three");
    EXPECT_EQ(checks[1].health, Health::Bad);
    EXPECT_THAT(checks[1].fix, HasSubstr("UDP port 4790"));
    EXPECT_EQ(checks[2].health, Health::Good);
    EXPECT_THAT(checks[2].found, HasSubstr("1 of 3"));
    EXPECT_TRUE(tunnelChecks({}, "eth0", 4789).empty()) << "alone";
}

TEST(SilentHostsCheck, SaysWhyTheyCannotBeAsked) {
    EXPECT_EQ(silentHostsCheck("").health, Health::Good);
    const Check check = silentHostsCheck("load the echo program: Operation not permitted");
    EXPECT_EQ(check.health, Health::Warning);
    EXPECT_THAT(check.found, HasSubstr("Operation not permitted"));
    EXPECT_THAT(check.fix, HasSubstr("CONFIG_NET_CLS_BPF"));
}

TEST(SenderChecks, NameWhoWasCaughtAndTheOption) {
    auto checks = senderChecks({{EndpointId("e1"), NetworkId("n1")}}, "");
    ASSERT_EQ(checks.size(), 1U);
    EXPECT_EQ(checks[0].health, Health::Good);

    std::vector<ForgingPort> ports(12, {EndpointId("e1"), NetworkId("n1")});
    for (uint64_t i = 0; i < ports.size(); ++i) ports[i].drops[kDropArp] = i;
    ports[3].drops[kDropRouter] = 100;
    checks = senderChecks(ports, "");
    ASSERT_EQ(checks.size(), 11U);
    EXPECT_EQ(checks[0].health, Health::Warning);
    EXPECT_THAT(checks[0].found, HasSubstr("endpoint e1 of network n1 sent 103 frames"));
    EXPECT_THAT(checks[0].found, HasSubstr("(arp 3, router 100)"));
    EXPECT_THAT(checks[0].fix, HasSubstr("--driver-opt weft.spoof=allow"));
    EXPECT_THAT(checks[10].found, HasSubstr("1 endpoints more"));

    checks = senderChecks(ports, "Operation not permitted");
    ASSERT_EQ(checks.size(), 1U);
    EXPECT_THAT(checks[0].found, HasSubstr("not checked"));
    EXPECT_THAT(checks[0].found, HasSubstr("Operation not permitted"));
}

TEST_F(ControlApiTest, TellsRowsButNoKeys) {
    ASSERT_TRUE(kv::put(*gossip_, "test/a", "text"));
    ASSERT_TRUE(kv::put(*gossip_, "test/b", std::string("\0\x7f", 2)));
    ASSERT_TRUE(kv::put(*gossip_, std::string(kv::kKeyringRow), "secret"));
    const Json all = Json::parse(api_->handle({"GET", "/v1/kv", "", ""}).body)["kv"];
    ASSERT_EQ(all.size(), 3U);
    EXPECT_EQ(all[0]["value"], "text");
    EXPECT_EQ(all[0]["owner"], "here");
    EXPECT_EQ(all[1]["value"], "0x007f");
    EXPECT_EQ(all[2]["value"], "(cluster keys)");
    EXPECT_EQ(Json::parse(api_->handle({"GET", "/v1/kv", "test/b", ""}).body)["kv"].size(), 1U);
}

TEST_F(ControlApiTest, ChangesKeysAndForgetsNodes) {
    EXPECT_TRUE(get("/v1/keys")["keys"].empty());
    EXPECT_EQ(post("/v1/keys", "{}")["error"], "expected add, use or remove");
    EXPECT_EQ(post("/v1/keys", R"({"add":"short"})")["error"], "a cluster key is 32 bytes in base64");
    EXPECT_EQ(post("/v1/keys", R"({"use":"xyz"})")["error"], "a key's id is 8 hex digits: see weftctl key list");
    EXPECT_THAT(post("/v1/keys", R"({"remove":"0badcafe"})")["error"], HasSubstr("--key-file"));
    EXPECT_EQ(post("/v1/forget", R"({"node":"gone"})")["error"], "no majority");
    EXPECT_EQ(post("/v1/forget", R"({"node":"gone","force":true})")["done"], "forgot gone");
    EXPECT_EQ(api_->handle({"POST", "/v1/forget", "", R"({"node":7})"}).status, 400);
    EXPECT_THAT(post("/v1/renew", "")["done"], HasSubstr("a new identity"));
    EXPECT_THAT(post("/v1/renew", R"({"first":true})")["done"], HasSubstr("a new identity"));
    EXPECT_EQ(api_->handle({"POST", "/v1/renew", "", "[]"}).status, 400);
}

TEST_F(ControlApiTest, UnknownPathsAre404) {
    const HttpResponse response = api_->handle({"GET", "/v2/status", "", ""});
    EXPECT_EQ(response.status, 404);
    EXPECT_EQ(Json::parse(response.body)["error"], "no such path: /v2/status");
}

TEST_F(ControlApiTest, MakesNetworksOfAllHosts) {
    const auto status = [this](const std::string& path, const std::string& body) {
        return api_->handle({"POST", path, "", body}).status;
    };
    EXPECT_EQ(status("/v1/network", "no json"), 400);
    EXPECT_EQ(status("/v1/network", R"({"name":"shop"})"), 400);
    EXPECT_EQ(status("/v1/network", R"({"name":"shop","subnets":["10.1.0.0/16"]})"), 500) << "there is no engine";
    EXPECT_EQ(status("/v1/network", R"({"name":"shop","subnets":["10.1.0.0/16"],"hosts":"db"})"), 200);
    EXPECT_EQ(status("/v1/network", R"({"name":"shop","subnets":["10.1.0.0/16"],"hosts":"db"})"), 409);
    const Json network = get("/v1/network")["network"][0];
    EXPECT_EQ(network["spec"]["subnets"], Json({"10.1.0.0/16"}));
    EXPECT_EQ(network["hosts"][0]["host"], "here");
    EXPECT_EQ(status("/v1/network/remove", R"({"name":7})"), 400);
    EXPECT_EQ(status("/v1/network/remove", R"({"name":"other"})"), 404);
    EXPECT_EQ(status("/v1/network/remove", R"({"name":"shop"})"), 200);
}

}  // namespace
}  // namespace weft::driver::testing
