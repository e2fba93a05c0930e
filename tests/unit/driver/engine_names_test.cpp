#include "driver/engine_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "driver/http_server.h"
#include "driver/plugin_api.h"
#include "driver/socket.h"
#include "kv/service.h"
#include "temp_dir.h"
#include "tests/must.h"

namespace weft::driver {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::optional<std::string> overlayOf(const NetworkId& id) {
    if (id == NetworkId("n1")) return "back";
    return std::nullopt;
}

// The fields of engine 20.10's answer that matter, as it sends them.
json container() {
    return json::parse(R"({
        "Id": "0123456789abcdef0123", "Name": "/shop-db-1",
        "Config": {"Hostname": "0123456789ab", "ExposedPorts": {"5432/tcp": {}, "53/udp": {}, "odd": {}},
                   "Labels": {"com.docker.compose.service": "DB"}},
        "NetworkSettings": {"Networks": {
            "backend": {"NetworkID": "n1", "EndpointID": "e1", "Aliases": ["db", "0123456789ab"],
                        "IPAddress": "10.32.0.2", "GlobalIPv6Address": ""},
            "other": {"NetworkID": "n2", "EndpointID": "e2", "Aliases": null, "IPAddress": "10.9.0.2"}}}})");
}

TEST(NamedEndpoints, AreThoseOnOverlayNetworks) {
    const auto found = namedEndpoints(container(), overlayOf);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].network, "back");
    EXPECT_EQ(found[0].endpoint, EndpointId("e1"));
    EXPECT_THAT(found[0].addresses, ElementsAre(must(IpAddress::parse("10.32.0.2"))));
    EXPECT_THAT(found[0].row.names, ElementsAre("shop-db-1", "db", "0123456789ab"));
    EXPECT_THAT(found[0].row.ports, ElementsAre(ServicePort{6, 5432}, ServicePort{17, 53}));
}

TEST(NamedEndpoints, OfEnginesThatTellDnsNames) {
    json told = container();
    told["NetworkSettings"]["Networks"]["backend"]["Aliases"] = nullptr;
    told["NetworkSettings"]["Networks"]["backend"]["DNSNames"] = {"shop-db-1", "main"};
    EXPECT_THAT(namedEndpoints(told, overlayOf).front().row.names,
                ElementsAre("shop-db-1", "main", "db", "0123456789ab"));
}

TEST(NamedEndpoints, NoneOfAStoppedContainer) {
    json told = container();
    told["NetworkSettings"]["Networks"]["backend"]["EndpointID"] = "";
    EXPECT_THAT(namedEndpoints(told, overlayOf), IsEmpty());
}

TEST(NamedEndpoints, NoneOfNonsense) {
    for (const char* text :
         {"null", "[]", "{}", R"({"NetworkSettings": []})", R"({"NetworkSettings": {"Networks": 7}})",
          R"({"NetworkSettings": {"Networks": {"a": null}}})"}) {
        EXPECT_THAT(namedEndpoints(json::parse(text), overlayOf), IsEmpty()) << text;
    }
}

TEST(ContainersIn, ReadsWholeLinesAndKeepsTheRest) {
    const Matters matters = [](const NetworkId& network, const std::string& container) {
        return network == NetworkId("n1") || container == "known";
    };
    std::string text =
        R"({"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{"container":"c1","name":"backend"}}})"
        "\n"
        R"({"Type":"network","Action":"connect","Actor":{"ID":"n2","Attributes":{"container":"c4","name":"bridge"}}})"
        "\n"
        R"({"Type":"network","Action":"disconnect","Actor":{"ID":"gone","Attributes":{"container":"known"}}})"
        "\n"
        R"({"Type":"container","Action":"start","Actor":{"ID":"c2","Attributes":{}}})"
        "\nnonsense\n"
        R"({"Type":"container","Act)";
    EXPECT_THAT(containersIn(text, matters), ElementsAre("c1", "c2", "known"));
    EXPECT_EQ(text, R"({"Type":"container","Act)");
    text += R"(ion":"die","Actor":{"ID":"c3"}})";
    EXPECT_THAT(containersIn(text, matters), IsEmpty());
    text += "\n";
    EXPECT_THAT(containersIn(text, matters), ElementsAre("c3"));
    EXPECT_EQ(text, "");
}

TEST(EngineNames, SaysThatNamesAreNotWritten) {
    testing::TempDir directory;
    const std::string path = directory.file("docker.sock");
    const auto socket = must(listenUnix(path, 0600));
    std::vector<HttpListener> listeners(1);
    listeners[0].socket = UniqueFd(::dup(socket.fd()));
    listeners[0].handler = [](const HttpRequest& request) -> HttpResponse {
        if (request.path == "/events") return {200, ""};
        return {200, request.path == "/containers/json" ? json::array({container()}).dump() : container().dump()};
    };
    listeners[0].errorBody = pluginErrorBody;
    const auto engine = must(HttpServer::start(std::move(listeners)));

    const SchemaComponent components[] = {kv::Service::schema()};
    const auto database = must(Database::open(directory.file("weft.db"), components));
    Metrics metrics;
    kv::ServiceConfig config;
    config.nodeName = "web-1";
    config.stateDir = directory.path();
    const auto gossip = must(kv::Service::start(config, *database, metrics));

    // The store takes no key that long.
    const std::string name(300, 'x');
    EngineNames names(path, *gossip,
                      [&](const NetworkId& id) { return overlayOf(id) ? std::optional(name) : std::nullopt; });
    std::vector<std::string> warnings;
    for (int i = 0; i < 1500 && warnings.empty(); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        warnings = names.warnings();
    }
    EXPECT_THAT(warnings, ElementsAre(HasSubstr("names: 1 rows are not written yet")));
}

}  // namespace
}  // namespace weft::driver
