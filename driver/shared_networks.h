// SharedNetworks: networks made once for all hosts. It keeps this host's engine to what the rows networks/NAME say.
//
// A thread of its own looks at rows and engine whenever a row changes, every minute, and more often while something
// is left to do. The engine calls the overlay driver back meanwhile, so nothing of this is done in a plugin's handler.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/id.h"
#include "base/result.h"
#include "driver/engine_client.h"
#include "driver/network_spec.h"
#include "kv/runner.h"

namespace weft::driver {

// How far a host is with a network.
struct HostReport {
    std::string host;  // node name
    bool away = false;
    HostState state = HostState::Waiting;
    std::string detail;
};

struct SharedNetwork {
    std::string name;
    std::optional<NetworkSpec> spec;  // none: removed, but some host still has it
    std::vector<HostReport> hosts;    // all members
};

// Whether the engine has the network, or may be about to have it.
using EngineKnows = std::function<Result<bool>(const NetworkId&)>;

struct SharedNetworksConfig {
    std::string engineSocket;
    std::vector<std::string> hostLabels;  // a spec's `hosts` names one of them
    // OverlayDriver::removeForgotten()
    std::function<Result<void>(const std::string& name, const EngineKnows& known)> removeForgotten;
};

class SharedNetworks {
public:
    // All must outlive it.
    static Result<std::unique_ptr<SharedNetworks>> start(SharedNetworksConfig config, kv::Runner& runner,
                                                         const Clock& clock);
    ~SharedNetworks();

    // --- any thread; they wait for the engine, so never from a plugin's handler ---

    // Returns when this host's engine has it, if it is meant for this host, and the store will tell the others.
    // AlreadyExists, InvalidArgument, Unavailable without an engine, or what the engine says against it: then no host
    // makes it. Timeout: it may yet come to be.
    Result<void> create(const NetworkSpec& spec);
    // NotFound when list() has it not; Busy naming the containers on it on any host, unless `force`, which takes them
    // off. Hosts follow as list() tells; again, and with force, while some have yet to.
    Result<void> remove(const std::string& name, bool force);

    Result<std::vector<SharedNetwork>> list();
    // What a person should know about this host's part.
    std::vector<std::string> warnings();

private:
    using Rows = std::map<std::string, std::map<kv::NodeId, NetworkRow>>;  // by network and owner
    struct Known;                                                          // what the store says
    struct Engine;                                                         // the engine's networks
    struct Wakeup {
        std::mutex mutex;
        std::condition_variable cause;
        bool changed = true;
        bool stopping = false;
        Rows rows;  // as the watch of the store tells: each is parsed once
    };

    SharedNetworks(SharedNetworksConfig config, kv::Runner& runner, const Clock& clock);
    void work();
    // Brings the engine to what the store says; when to look again.
    Result<std::chrono::milliseconds> settle();
    Result<std::chrono::milliseconds> settle(const std::string& name, Known& known, const Engine& engine);
    Result<std::chrono::milliseconds> waitForEngine(const std::string& name, Known& known, const Error& away);
    Result<Known> read();
    NetworkRow bring(NetworkRow truth, const std::string& name, const std::optional<EngineNetwork>& found);
    static NetworkRow held(NetworkRow truth, const Error& error);
    Result<void> removeFromEngine(const std::string& id, bool force);
    Result<nlohmann::json> containersOn(const std::string& path);
    Result<void> takeOff(const std::string& path);
    Result<Engine> engineNetworks();
    Result<bool> engineKnows(const NetworkId& id, const Engine& engine);
    Result<std::string> usersOf(const std::string& name, const std::vector<kv::Member>& members);
    Result<void> say(const std::string& name, const NetworkRow& row);

    const SharedNetworksConfig config_;
    kv::Runner& runner_;
    const Clock& clock_;
    std::mutex engineUse_;
    EngineClient engine_;
    std::map<NetworkId, Clock::Monotonic> unknownSince_;  // with engineUse_ held
    const std::shared_ptr<Wakeup> wakeup_ = std::make_shared<Wakeup>();
    kv::WatchId watch_ = 0;
    std::thread thread_;
};

}  // namespace weft::driver
