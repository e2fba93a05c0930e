// The floor of the connect benchmark: a network plugin that does nothing but hand over a veth made beforehand, so that
// what remains is the engine's own time. The runner makes links floor0..floorN-1 and their peers, enslaved to a bridge.
// It names the network's gateway, so that the engine has as much to do as for any network with a way out.
//
//     floor_plugin SOCKET LINKS
#include <httplib.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

using nlohmann::json;

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fputs("usage: floor_plugin SOCKET LINKS\n", stderr);
        return 2;
    }
    std::mutex mutex;
    std::vector<std::string> free;
    std::map<std::string, std::string> used;      // endpoint to link
    std::map<std::string, std::string> gateways;  // of networks
    for (int i = std::stoi(argv[2]); i-- > 0;) free.push_back("floor" + std::to_string(i));

    httplib::Server server;
    const auto on = [&](const std::string& method, auto&& answer) {
        server.Post("/" + method, [answer](const httplib::Request& request, httplib::Response& response) {
            const json body = request.body.empty() ? json::object() : json::parse(request.body);
            response.set_content(answer(body).dump(), "application/json");
        });
    };
    const auto nothing = [](const json&) { return json::object(); };

    on("Plugin.Activate", [](const json&) { return json{{"Implements", {"NetworkDriver"}}}; });
    on("NetworkDriver.GetCapabilities", [](const json&) {
        return json{{"Scope", "local"}, {"ConnectivityScope", "local"}};
    });
    on("NetworkDriver.CreateNetwork", [&](const json& body) {
        const std::string prefix = body.at("IPv4Data").at(0).at("Gateway");
        const std::scoped_lock lock(mutex);
        gateways[body.at("NetworkID")] = prefix.substr(0, prefix.find('/'));
        return json::object();
    });
    for (const char* method : {"DeleteNetwork", "CreateEndpoint", "Leave", "DiscoverNew", "ProgramExternalConnectivity",
                               "RevokeExternalConnectivity"}) {
        on(std::string("NetworkDriver.") + method, nothing);
    }
    on("NetworkDriver.EndpointOperInfo", [](const json&) { return json{{"Value", json::object()}}; });
    on("NetworkDriver.Join", [&](const json& body) {
        const std::scoped_lock lock(mutex);
        if (free.empty()) return json{{"Err", "no link left"}};
        auto& link = used[body.at("EndpointID").get<std::string>()];
        link = free.back();
        free.pop_back();
        return json{{"InterfaceName", {{"SrcName", link}, {"DstPrefix", "eth"}}},
                    {"Gateway", gateways.at(body.at("NetworkID"))}};
    });
    on("NetworkDriver.DeleteEndpoint", [&](const json& body) {
        const std::scoped_lock lock(mutex);
        if (auto node = used.extract(body.at("EndpointID").get<std::string>())) free.push_back(node.mapped());
        return json::object();
    });

    server.set_address_family(AF_UNIX);
    server.set_keep_alive_max_count(1'000'000);
    server.set_keep_alive_timeout(3600);
    return server.listen(argv[1], 80) ? 0 : 1;
}
