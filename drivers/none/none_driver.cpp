#include "drivers/none/none_driver.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/deadline.h"
#include "drivers/options.h"
#include "drivers/sweep.h"

namespace weft {

namespace {

constexpr std::string_view kMode = "none";
constexpr std::chrono::seconds kUnfinishedGrace{60};
constexpr std::chrono::seconds kSandboxGrace{300};
// A network that is busy now is looked at in the next sweep.
constexpr std::chrono::milliseconds kSweepPatience{1000};
// Of one sweep with all busy networks together: the watchdog waits for it.
constexpr std::chrono::milliseconds kPatienceOfAll{8000};

Error noPorts() {
    return makeError(ErrorCode::Unsupported,
                     "weft-none publishes no ports: its containers have only a loopback (leave out -p)");
}

}  // namespace

Result<void> NoneDriver::createNetwork(const CreateNetworkRequest& request) {
    WEFT_TRY(OptionReader("weft-none", request.options, {}).check());
    WEFT_ASSIGN(const NetworkLock lock, records_.lock(request.networkId));
    if (const NetworkPtr known = records_.network(request.networkId)) {
        if (known->mode == kMode && known->request == request) return {};
        return makeError(ErrorCode::AlreadyExists,
                         "network " + request.networkId.brief() + " exists with other settings");
    }
    NetworkRecord record;
    record.request = request;
    record.mode = kMode;
    record.created = clock_.wall();
    Result<void> written = records_.put(std::move(record)).wait();
    if (!written) static_cast<void>(records_.erase(request.networkId));
    return written;
}

Result<void> NoneDriver::deleteNetwork(const NetworkId& networkId) {
    WEFT_ASSIGN(const NetworkLock lock, records_.lock(networkId));
    const NetworkPtr known = records_.network(networkId);
    if (!known || known->mode != kMode) return {};
    return records_.erase(networkId).wait();
}

Result<CreateEndpointReply> NoneDriver::createEndpoint(const CreateEndpointRequest& request) {
    WEFT_ASSIGN(const NetworkLock lock, records_.lock(request.networkId));
    const NetworkPtr network = records_.network(request.networkId);
    if (!network || network->mode != kMode) {
        return makeError(ErrorCode::NotFound, "no network " + request.networkId.brief());
    }
    WEFT_TRY(OptionReader("weft-none", request.options, {}).check());
    if (!request.ports.bindings.empty()) return noPorts();
    if (const EndpointPtr known = records_.endpoint(request.endpointId)) {
        const bool same = known->networkId == request.networkId && known->address == request.address &&
                          known->addressV6 == request.addressV6;
        if (same) return CreateEndpointReply();
        return makeError(ErrorCode::AlreadyExists,
                         "endpoint " + request.endpointId.brief() + " exists with other settings");
    }
    EndpointRecord record;
    record.networkId = request.networkId;
    record.endpointId = request.endpointId;
    record.address = request.address;
    record.addressV6 = request.addressV6;
    record.created = record.changed = clock_.wall();
    if (auto written = records_.put(std::move(record)).wait(); !written) {
        static_cast<void>(records_.erase(request.networkId, request.endpointId));
        return std::move(written).error();
    }
    return CreateEndpointReply();
}

Result<void> NoneDriver::deleteEndpoint(const NetworkId& networkId, const EndpointId& endpointId) {
    WEFT_ASSIGN(const NetworkLock lock, records_.lock(networkId));
    if (!records_.endpoint(networkId, endpointId)) return {};
    return records_.erase(networkId, endpointId).wait();
}

Result<JoinReply> NoneDriver::join(const JoinRequest& request) {
    WEFT_ASSIGN(const NetworkLock lock, records_.lock(request.networkId));
    const EndpointPtr known = records_.endpoint(request.networkId, request.endpointId);
    if (!known) return makeError(ErrorCode::NotFound, "no endpoint " + request.endpointId.brief());
    if (!request.ports.bindings.empty()) return noPorts();
    EndpointRecord record = *known;
    record.phase = EndpointPhase::Joined;
    record.sandboxKey = request.sandboxKey;
    record.changed = clock_.wall();
    static_cast<void>(records_.put(std::move(record), Urgency::Soon));
    JoinReply reply;
    reply.disableGatewayService = true;
    return reply;
}

Result<void> NoneDriver::leave(const NetworkId& networkId, const EndpointId& endpointId) {
    WEFT_ASSIGN(const NetworkLock lock, records_.lock(networkId));
    const EndpointPtr known = records_.endpoint(networkId, endpointId);
    if (!known) return {};
    EndpointRecord record = *known;
    record.phase = EndpointPhase::Left;
    record.sandboxKey.clear();
    record.changed = clock_.wall();
    static_cast<void>(records_.put(std::move(record), Urgency::Soon));
    return {};
}

Result<void> NoneDriver::programExternalConnectivity(const ProgramExternalConnectivityRequest& request) {
    if (!request.ports.bindings.empty()) return noPorts();
    return {};
}

Result<void> NoneDriver::revokeExternalConnectivity(const NetworkId& /*networkId*/, const EndpointId& /*endpointId*/) {
    return {};
}

std::string NoneDriver::whyOver(const EndpointRecord& endpoint) const {
    const auto age = ages_.of(endpoint.changed);
    switch (endpoint.phase) {
        case EndpointPhase::Created:
            return age > kUnfinishedGrace ? "never joined" : "";
        case EndpointPhase::Left:
            return age > kUnfinishedGrace ? "left and never deleted" : "";
        case EndpointPhase::Joined:
            break;
    }
    // Engines up to 27 tell of a sandbox before they make it. Without its directory this daemon sees none at all.
    const std::filesystem::path sandbox(endpoint.sandboxKey);
    std::error_code error;
    const bool visible = std::filesystem::exists(sandbox.parent_path(), error);
    const bool gone = visible && !std::filesystem::exists(sandbox, error) && !error;
    return gone && age > kSandboxGrace ? "its sandbox is gone" : "";
}

Result<std::vector<Repair>> NoneDriver::reconcile(bool dryRun) {
    const std::lock_guard sweeping(sweeping_);
    Sweep sweep(dryRun);
    const Deadline patience(kPatienceOfAll);
    ages_.look(clock_);
    for (const NetworkPtr& network : records_.networks(kMode)) {
        const NetworkId id = network->request.networkId;
        const auto lock = records_.lock(id, std::min(kSweepPatience, patience.left()));
        if (!lock) continue;
        for (const EndpointPtr& endpoint : records_.endpoints(id)) {
            const std::string why = whyOver(*endpoint);
            if (why.empty()) continue;
            sweep.fix("endpoint", endpoint->endpointId.brief(), "released: " + why,
                      [&] { return records_.erase(id, endpoint->endpointId).wait(); });
        }
    }
    return sweep.take();
}

std::vector<NetworkInfo> NoneDriver::networks() const {
    return networkInfos(records_, kMode);
}

std::vector<EndpointInfo> NoneDriver::endpoints() const {
    return endpointInfos(records_, kMode);
}

}  // namespace weft
