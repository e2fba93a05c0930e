// EngineClient: Docker's own API, HTTP over the engine's unix socket. Never from a handler of a plugin call: the engine
// may hold the lock that its answer needs.
//
// Paths carry no version, so each engine answers by its newest: those of 20.10 (1.41) to 29 agree in what weft reads,
// and no single version is served by all of them.
//
// Starts no engine: where systemd alone listens (engine_socket.h), every call is Unavailable.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"

namespace weft::driver {

class EngineClient {
public:
    explicit EngineClient(std::string socketPath);
    ~EngineClient();

    // NotFound: the engine knows no such thing; AlreadyExists and Busy: it has one, or still uses it; Unavailable: it
    // is away; Timeout; Internal else. With its own words. One caller at a time.
    Result<nlohmann::json> get(const std::string& path);
    Result<void> post(const std::string& path, const nlohmann::json& body);
    Result<void> remove(const std::string& path);

    // Blocks while the engine tells events, and calls `onOpen` once it does, then `onEvents` for each piece that comes,
    // a JSON object a line. Beside the others: on a connection of its own.
    Result<void> events(const std::string& query, const std::function<void()>& onOpen,
                        const std::function<void(std::string_view)>& onEvents);

    // Ends what blocks above, now and later. Any thread.
    void stop();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace weft::driver
