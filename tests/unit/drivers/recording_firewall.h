// RecordingFirewall: a Firewall without a kernel. Its `kernel` is what the rules would be; tests look at it and damage
// it.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "firewall/firewall.h"

namespace weft {

class RecordingFirewall final : public firewall::Firewall {
public:
    struct Kernel {
        std::map<NetworkId, firewall::Network> networks;
        std::map<EndpointId, firewall::Endpoint> endpoints;

        bool operator==(const Kernel&) const = default;
    };
    Kernel kernel;
    firewall::Tunnel tunnel;
    uint16_t resolver = 0;
    std::optional<Error> failSetEndpoint;
    std::chrono::milliseconds delay{0};  // of changes of endpoints

    [[nodiscard]] firewall::Backend backend() const override { return firewall::Backend::Nft; }

    Result<void> setNetwork(const firewall::Network& network) override {
        const std::lock_guard lock(mutex_);
        kernel.networks[network.id] = network;
        return {};
    }
    Result<void> removeNetwork(const NetworkId& id) override {
        const std::lock_guard lock(mutex_);
        kernel.networks.erase(id);
        return {};
    }
    Result<void> setEndpoint(const firewall::Endpoint& endpoint) override {
        std::this_thread::sleep_for(delay);
        const std::lock_guard lock(mutex_);
        if (failSetEndpoint) return *failSetEndpoint;
        kernel.endpoints[endpoint.id] = endpoint;
        return {};
    }
    Result<void> removeEndpoint(const EndpointId& id) override {
        std::this_thread::sleep_for(delay);
        const std::lock_guard lock(mutex_);
        kernel.endpoints.erase(id);
        return {};
    }
    Result<void> setTunnel(const firewall::Tunnel& wanted) override {
        const std::lock_guard lock(mutex_);
        tunnel = wanted;
        return {};
    }
    Result<void> setResolver(uint16_t port) override {
        const std::lock_guard lock(mutex_);
        resolver = port;
        return {};
    }
    void vouch() override {}
    Result<firewall::SyncReport> sync(const firewall::Intent& intent, bool dryRun) override {
        const std::lock_guard lock(mutex_);
        Kernel wanted;
        for (const auto& network : intent.networks) wanted.networks[network.id] = network;
        for (const auto& endpoint : intent.endpoints) wanted.endpoints[endpoint.id] = endpoint;
        firewall::SyncReport report;
        if (!(wanted == kernel)) report.repairs.emplace_back("rules differ");
        if (!dryRun) kernel = std::move(wanted);
        return report;
    }
    Result<void> clear() override {
        const std::lock_guard lock(mutex_);
        kernel = {};
        return {};
    }

private:
    std::mutex mutex_;
};

}  // namespace weft
