// DockerNames: Docker's names for what weft knows by id, for people to look at.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "driver/engine_client.h"

namespace weft::driver {

struct NamesById {
    std::map<std::string, std::string> networks;    // network id -> name
    std::map<std::string, std::string> containers;  // endpoint id -> container's name
};

class DockerNames {
public:
    DockerNames(std::string engineSocket, const Clock& clock);

    // Asks the engine, at most each kAskEvery; while it is away, what it said last. Any thread but a plugin handler's.
    NamesById get();

    static constexpr std::chrono::seconds kAskEvery{5};

private:
    const Clock& clock_;
    std::mutex mutex_;
    EngineClient engine_;
    NamesById names_;
    Clock::Monotonic askedAt_{};
};

}  // namespace weft::driver
