#include "driver/docker_names.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace weft::driver {
namespace {

using nlohmann::json;

// Throws what nlohmann::json throws for an answer of another shape.
NamesById parse(const json& networks, const json& containers) {
    NamesById names;
    for (const json& network : networks) names.networks[network.at("Id")] = network.at("Name");
    for (const json& container : containers) {
        const std::string name = container.at("Names").at(0);
        for (const json& endpoint : container.at("NetworkSettings").at("Networks")) {
            names.containers[endpoint.at("EndpointID")] = name.substr(name.starts_with('/') ? 1 : 0);
        }
    }
    return names;
}

}  // namespace

DockerNames::DockerNames(std::string engineSocket, const Clock& clock)
    : clock_(clock), engine_(std::move(engineSocket)) {}

NamesById DockerNames::get() {
    const std::lock_guard lock(mutex_);
    if (askedAt_ != Clock::Monotonic() && clock_.now() - askedAt_ < kAskEvery) return names_;
    askedAt_ = clock_.now();
    const auto networks = engine_.get("/networks");
    const auto containers = networks ? engine_.get("/containers/json") : networks;
    if (!containers) return names_;
    try {
        names_ = parse(*networks, *containers);
    } catch (const json::exception&) {
        // An engine that answers otherwise leaves the ids as they are.
    }
    return names_;
}

}  // namespace weft::driver
