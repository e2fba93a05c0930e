#include "driver/plugin_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "driver/socket.h"
#include "fakes.h"
#include "raw_client.h"
#include "temp_dir.h"

namespace weft::driver::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

class PluginApiTest : public ::testing::Test {
protected:
    PluginApiTest() { setLogLevel(LogLevel::Off); }
    ~PluginApiTest() override { setLogLevel(LogLevel::Info); }

    HttpResponse call(const std::string& method, const std::string& body = "") {
        return api_.handle({"POST", "/" + method, "", body});
    }

    Metrics metrics_;
    ManualClock clock_;
    FullDriver driver_;
    RecordingAddresses addresses_;
    PluginApi api_{"weft-test", driver_, addresses_, metrics_, clock_};
};

TEST_F(PluginApiTest, CallsWithoutArgumentsHaveAnEmptyBody) {
    EXPECT_EQ(call("Plugin.Activate").body, R"({"Implements":["NetworkDriver","IpamDriver"]})");
    EXPECT_EQ(call("NetworkDriver.GetCapabilities").body, R"({"Scope":"local","ConnectivityScope":"local"})");
    EXPECT_EQ(Json::parse(call("IpamDriver.GetCapabilities").body)["RequiresRequestReplay"], false);
    EXPECT_EQ(Json::parse(call("IpamDriver.GetDefaultAddressSpaces").body)["LocalDefaultAddressSpace"], "weft-local");
    EXPECT_EQ(call("NetworkDriver.DiscoverNew", R"({"DiscoveryType":1,"DiscoveryData":{"Address":"192.0.2.1"}})").body,
              "{}");
    EXPECT_EQ(call("NetworkDriver.DiscoverDelete", "").status, 500);
    EXPECT_EQ(call("NetworkDriver.GwAllocCheck", R"({"Options":null})").status, 200);
}

TEST_F(PluginApiTest, FailuresAreA500WithBothKeys) {
    driver_.failure = makeError(ErrorCode::AlreadyExists, "network exists");
    const HttpResponse response = call("NetworkDriver.CreateNetwork", R"({"NetworkID":"n"})");
    EXPECT_EQ(response.status, 500);
    EXPECT_EQ(response.body, R"({"Err":"network exists","Error":"network exists"})");
    EXPECT_EQ(response.contentType, "application/vnd.docker.plugins.v1.2+json");
}

TEST_F(PluginApiTest, EveryMethodWithArgumentsRefusesAnEmptyAndABrokenBody) {
    for (const char* method :
         {"NetworkDriver.CreateNetwork", "NetworkDriver.DeleteNetwork", "NetworkDriver.CreateEndpoint",
          "NetworkDriver.DeleteEndpoint", "NetworkDriver.EndpointOperInfo", "NetworkDriver.Join", "NetworkDriver.Leave",
          "NetworkDriver.ProgramExternalConnectivity", "NetworkDriver.RevokeExternalConnectivity",
          "IpamDriver.RequestPool", "IpamDriver.ReleasePool", "IpamDriver.RequestAddress",
          "IpamDriver.ReleaseAddress"}) {
        for (const char* body : {"", "{\"NetworkID\":", "null", "\"x\"", "\xff\xfe"}) {
            const HttpResponse response = call(method, body);
            EXPECT_EQ(response.status, 500) << method << body;
            EXPECT_THAT(Json::parse(response.body)["Err"], HasSubstr("request body")) << method << body;
        }
    }
    EXPECT_TRUE(driver_.calls().empty());
}

TEST_F(PluginApiTest, UnknownMethodsAre404) {
    for (const char* path : {"/NetworkDriver.Fly", "/", "", "//NetworkDriver.Join", "/networkdriver.join"}) {
        const HttpResponse response = api_.handle({"POST", path, "", "{}"});
        EXPECT_EQ(response.status, 404) << path;
        EXPECT_THAT(Json::parse(response.body)["Error"], HasSubstr("unknown method")) << path;
    }
    EXPECT_EQ(api_.handle({"GET", "/Plugin.Activate", "", ""}).status, 404);
}

TEST_F(PluginApiTest, WithoutTheAbilityPortMethodsAre404) {
    RecordingDriver plain;
    PluginApi api("weft-plain", plain, addresses_, metrics_, clock_);
    const std::string body = R"({"NetworkID":"n","EndpointID":"e"})";
    EXPECT_EQ(api.handle({"POST", "/NetworkDriver.ProgramExternalConnectivity", "", body}).status, 404);
    EXPECT_EQ(api.handle({"POST", "/NetworkDriver.RevokeExternalConnectivity", "", body}).status, 404);
    EXPECT_EQ(call("NetworkDriver.ProgramExternalConnectivity", body).status, 200);
}

TEST_F(PluginApiTest, ASwarmManagersAllocationIsRefusedInWords) {
    const HttpResponse response = call("NetworkDriver.AllocateNetwork", R"({"NetworkID":"n"})");
    EXPECT_EQ(response.status, 500);
    EXPECT_THAT(response.body, HasSubstr("scope local"));
}

TEST_F(PluginApiTest, ServesASwarmsManager) {
    std::vector<std::string> nodes;
    PluginTraits traits;
    traits.global = true;
    traits.discovered = [&](const DiscoveredNode& node, bool isThere) {
        nodes.push_back((isThere ? "+" : "-") + node.address.str() + (node.self ? " self" : ""));
    };
    PluginApi api("weft", driver_, addresses_, metrics_, clock_, traits);
    const auto ask = [&](const std::string& method, const std::string& body) {
        return api.handle({"POST", "/NetworkDriver." + method, "", body});
    };
    EXPECT_EQ(ask("GetCapabilities", "").body, R"({"Scope":"global","ConnectivityScope":"global"})");

    const HttpResponse made = ask("AllocateNetwork", R"({"NetworkID":"n","Options":{"a":"b"},"IPv6Data":null,
        "IPv4Data":[{"AddressSpace":"","Pool":"10.60.0.0/16","Gateway":"10.60.0.1/16"}]})");
    EXPECT_EQ(Json::parse(made.body), (Json{{"Options", {{"a", "b"}, {"weft.vni", "4711"}}}}));
    EXPECT_EQ(driver_.allocated.ipv4.at(0).pool.str(), "10.60.0.0/16");
    EXPECT_EQ(ask("AllocateNetwork", R"({"NetworkID":"n","Options":{"a":1}})").status, 500);
    EXPECT_EQ(ask("FreeNetwork", R"({"NetworkID":"n"})").body, "{}");
    EXPECT_THAT(driver_.calls(), ElementsAre("allocate", "free n"));

    const auto node = [](const std::string& data, int type = 1) {
        return R"({"DiscoveryType":)" + std::to_string(type) + R"(,"DiscoveryData":)" + data + "}";
    };
    ask("DiscoverNew", node(R"({"Address":"192.0.2.1","BindAddress":"0.0.0.0","Self":true})"));
    ask("DiscoverNew", node(R"({"Address":"192.0.2.2"})"));
    ask("DiscoverDelete", node(R"({"Address":"192.0.2.2","Self":false})"));
    EXPECT_EQ(ask("DiscoverNew", node(R"([{"Key":"secret"}])", 2)).body, "{}") << "keys are of no use here";
    EXPECT_EQ(ask("DiscoverNew", node("{}")).status, 500);
    EXPECT_THAT(nodes, ElementsAre("+192.0.2.1 self", "+192.0.2.2", "-192.0.2.2"));
}

TEST_F(PluginApiTest, TellsIpamThatAPoolIsOnTheHostsNetwork) {
    PluginTraits traits;
    traits.onHostNetwork = true;
    PluginApi host("weft-host", driver_, addresses_, metrics_, clock_, traits);
    host.handle({"POST", "/IpamDriver.RequestPool", "", R"({"AddressSpace":"weft-local","Pool":"192.168.1.0/24"})"});
    EXPECT_TRUE(addresses_.pool.onHostNetwork);
    call("IpamDriver.RequestPool", R"({"AddressSpace":"weft-local"})");
    EXPECT_FALSE(addresses_.pool.onHostNetwork);
}

TEST_F(PluginApiTest, CountsAndTimesCalls) {
    driver_.during = [this] { clock_.advance(std::chrono::milliseconds(3)); };
    call("NetworkDriver.DeleteNetwork", R"({"NetworkID":"n"})");
    driver_.failure = Error{ErrorCode::Kernel, "no", EPERM};
    call("NetworkDriver.DeleteNetwork", R"({"NetworkID":"n"})");
    const std::string text = metrics_.render();
    EXPECT_THAT(
        text, HasSubstr(R"(weft_calls_total{driver="weft-test",method="NetworkDriver.DeleteNetwork",result="ok"} 1)"));
    EXPECT_THAT(
        text,
        HasSubstr(
            R"(weft_call_duration_seconds_bucket{driver="weft-test",method="NetworkDriver.DeleteNetwork",le="0.0025"} 0)"));
    EXPECT_THAT(
        text,
        HasSubstr(
            R"(weft_call_duration_seconds_bucket{driver="weft-test",method="NetworkDriver.DeleteNetwork",le="0.005"} 2)"));
    EXPECT_THAT(text, HasSubstr(R"(weft_kernel_errors_total{errno="EPERM"} 1)"));
}

TEST_F(PluginApiTest, LogsOneLineForACall) {
    setLogLevel(LogLevel::Info);
    driver_.during = [this] { clock_.advance(std::chrono::microseconds(1200)); };
    driver_.failure = makeError(ErrorCode::Busy, "port 80 is held\nby \"nginx\"");
    ::testing::internal::CaptureStderr();
    call("NetworkDriver.Join", R"({"NetworkID":"3f2a45678901234567890","EndpointID":"e1"})");
    const std::string line = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(
        line,
        HasSubstr(
            "call driver=weft-test method=NetworkDriver.Join network=3f2a45678901 endpoint=e1 duration_ms=1.20 "));
    EXPECT_THAT(line, HasSubstr(R"(err="port 80 is held\nby \"nginx\"")"));
    EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
}

// Every request of a recorded engine, in order, over a real socket.
class Replay : public PluginApiTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(Replay, IsUnderstoodToTheLastField) {
    const TempDir dir;
    auto socket = listenUnix(dir.file("weft-test.sock"), 0660);
    ASSERT_TRUE(socket);
    std::vector<HttpListener> listeners;
    listeners.push_back({UniqueFd(::dup(socket->fd())),
                         [this](const HttpRequest& request) { return api_.handle(request); },
                         pluginErrorBody,
                         {}});
    const auto server = HttpServer::start(std::move(listeners));
    ASSERT_TRUE(server);
    RawClient client(dir.file("weft-test.sock"));

    std::ifstream file(GetParam());
    size_t lines = 0;
    for (std::string line; std::getline(file, line); ++lines) {
        if (line.empty()) continue;
        const Json record = Json::parse(line);
        const std::string method = record["method"];
        const Json& request = record["request"];
        const RawAnswer answer = client.post(method, request.is_null() ? "" : request.dump());
        ASSERT_EQ(answer.status, 200) << method << ": " << answer.body;
        const Json reply = Json::parse(answer.body);
        if (method == "NetworkDriver.CreateNetwork") {
            EXPECT_EQ(driver_.network.networkId.str(), request["NetworkID"]);
            EXPECT_EQ(Json(driver_.network.options), request["Options"]["com.docker.network.generic"]);
            EXPECT_EQ(driver_.network.internal, request["Options"].value("com.docker.network.internal", false));
            ASSERT_EQ(driver_.network.ipv4.size(), request["IPv4Data"].size());
            ASSERT_EQ(driver_.network.ipv6.size(), request["IPv6Data"].size());
            for (size_t i = 0; i < driver_.network.ipv4.size(); ++i) {
                EXPECT_EQ(driver_.network.ipv4[i].pool.str(), request["IPv4Data"][i]["Pool"]);
                EXPECT_EQ(driver_.network.ipv4[i].gateway->str(), request["IPv4Data"][i]["Gateway"]);
            }
        } else if (method == "NetworkDriver.CreateEndpoint") {
            const Json& options = request["Options"];
            EXPECT_EQ(driver_.endpoint.address ? driver_.endpoint.address->str() : "", request["Interface"]["Address"]);
            const std::string mac = request["Interface"]["MacAddress"];
            EXPECT_EQ(driver_.endpoint.mac ? driver_.endpoint.mac->str() : "", mac);
            EXPECT_EQ(driver_.endpoint.ports.bindings.size(),
                      options.value("com.docker.network.portmap", Json::array()).size());
            EXPECT_TRUE(reply.contains("Interface"));
        } else if (method == "NetworkDriver.Join") {
            EXPECT_EQ(driver_.joined.sandboxKey, request["SandboxKey"]);
        } else if (method == "NetworkDriver.ProgramExternalConnectivity") {
            const Json ports = request["Options"].value("com.docker.network.portmap", Json::array());
            ASSERT_EQ(driver_.programmed.ports.bindings.size(), ports.size());
            for (size_t i = 0; i < ports.size(); ++i) {
                const PortBinding& binding = driver_.programmed.ports.bindings[i];
                EXPECT_EQ(static_cast<int>(binding.protocol), ports[i]["Proto"]);
                EXPECT_EQ(binding.containerPort, ports[i]["Port"]);
                EXPECT_EQ(binding.hostPort, ports[i]["HostPort"]);
                EXPECT_EQ(binding.hostIp ? binding.hostIp->str() : "", ports[i]["HostIP"]);
            }
        } else if (method == "IpamDriver.RequestPool") {
            EXPECT_EQ(addresses_.pool.pool ? addresses_.pool.pool->str() : "", request["Pool"]);
            EXPECT_EQ(addresses_.pool.subPool ? addresses_.pool.subPool->str() : "", request["SubPool"]);
        } else if (method == "IpamDriver.RequestAddress") {
            EXPECT_EQ(addresses_.address.poolId.str(), request["PoolID"]);
            EXPECT_EQ(addresses_.address.address ? addresses_.address.address->str() : "", request["Address"]);
            EXPECT_EQ(addresses_.address.gateway, request["Options"].is_object());
        } else if (method == "IpamDriver.ReleaseAddress") {
            EXPECT_EQ(addresses_.releasedAddress.str(), request["Address"]);
        }
    }
    EXPECT_GT(lines, 0U);
}

std::vector<std::string> traces() {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(WEFT_TEST_DATA "/engine-traces")) {
        files.push_back(entry.path().string());
    }
    std::sort(files.begin(), files.end());
    return files;
}

INSTANTIATE_TEST_SUITE_P(EngineTraces, Replay, ::testing::ValuesIn(traces()), [](const auto& test) {
    std::string name = std::filesystem::path(test.param).stem();
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
});

}  // namespace
}  // namespace weft::driver::testing
