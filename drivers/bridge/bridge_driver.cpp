#include "drivers/bridge/bridge_driver.h"

#include <algorithm>
#include <chrono>

#include "base/deadline.h"
#include "base/log.h"
#include "base/rollback.h"
#include "drivers/host_state.h"
#include "drivers/leases.h"
#include "drivers/names.h"
#include "firewall/passage.h"
#include "net/announce.h"
#include "net/sysctl.h"

namespace weft {

namespace {

// Of the containers' gateway where it is not the bridge; Docker's bridge knows these names too.
constexpr const char* kGatewayAuxV4 = "DefaultGatewayIPv4";
constexpr const char* kGatewayAuxV6 = "DefaultGatewayIPv6";

Result<void> writeSysctl(const net::NetNs& ns, const std::string& setting, std::string_view value) {
    WEFT_TRY(net::runIn(ns, [&] { return net::setSysctl(setting, value); }));
    return {};
}

Error notFound(std::string_view what, const std::string& brief) {
    return makeError(ErrorCode::NotFound, "no " + std::string(what) + " " + brief);
}

// An endpoint's notes: what it says of its own, whatever its network says.
constexpr std::string_view kSpoofAllowed = "spoof=allow";
constexpr std::string_view kSpoofDenied = "spoof=deny";

bool spoofAllowed(const BridgeOptions& network, const EndpointRecord& endpoint) {
    return endpoint.notes.empty() ? network.spoofAllowed : endpoint.notes == kSpoofAllowed;
}

}  // namespace

const IpamData* BridgeDriver::Network::subnetOf(const IpAddress& address) const {
    const auto found = std::find_if(subnets.begin(), subnets.end(),
                                    [&](const IpamData& subnet) { return subnet.pool.contains(address); });
    return found == subnets.end() ? nullptr : &*found;
}

std::optional<IpAddress> BridgeDriver::Network::gatewayFor(const std::optional<IpPrefix>& address) const {
    if (!address || request().internal) return std::nullopt;
    const IpamData* subnet = subnetOf(address->address());
    if (subnet == nullptr) return std::nullopt;
    const auto other = subnet->auxAddresses.find(address->address().isV4() ? kGatewayAuxV4 : kGatewayAuxV6);
    return other != subnet->auxAddresses.end() ? other->second.address() : gatewayAddress(*subnet).address();
}

BridgeDriver::BridgeDriver(DriverContext context, std::string instance)
    : context_(context), instance_(std::move(instance)), remover_(context.netlink) {}

Result<std::unique_ptr<BridgeDriver>> BridgeDriver::create(DriverContext context) {
    WEFT_ASSIGN(const net::KernelInstance instance, context.netlink.netns().instance());
    return std::unique_ptr<BridgeDriver>(new BridgeDriver(context, instance.str()));
}

Result<BridgeDriver::Network> BridgeDriver::read(NetworkPtr record) {
    Network network;
    WEFT_ASSIGN(network.options, parseBridgeOptions(record->request, record->mode == kOverlayMode));
    WEFT_ASSIGN(network.subnets, bridgeSubnets(record->request));
    network.record = std::move(record);
    return network;
}

Result<BridgeDriver::Network> BridgeDriver::load(const NetworkId& networkId) const {
    NetworkPtr record = context_.records.network(networkId);
    if (!isMine(record)) return notFound("network", networkId.brief());
    return read(std::move(record));
}

std::vector<NetworkPtr> BridgeDriver::myNetworks() const {
    std::vector<NetworkPtr> mine = context_.records.networks();
    std::erase_if(mine, [](const NetworkPtr& record) { return !isMine(record); });
    return mine;
}

ipam::PoolBook& BridgeDriver::poolsOf(const NetworkRecord& record) const {
    return record.mode == kOverlayMode && overlayPools_ != nullptr ? *overlayPools_ : context_.ipam;
}

ipam::PoolBook& BridgeDriver::poolsOf(const NetworkId& networkId) const {
    const NetworkPtr record = context_.records.network(networkId);
    return record ? poolsOf(*record) : context_.ipam;
}

firewall::Network BridgeDriver::rulesOf(const Network& network) {
    firewall::Network rules;
    rules.id = network.id();
    rules.bridge = network.record->link;
    for (const IpamData& subnet : network.subnets) rules.subnets.push_back(subnet.pool.network());
    rules.internal = network.request().internal;
    rules.icc = network.options.icc;
    rules.masquerade = network.options.masquerade;
    rules.modeV4 = network.options.modeV4;
    rules.modeV6 = network.options.modeV6;
    rules.hostAddressV4 = network.options.hostV4;
    rules.hostAddressV6 = network.options.hostV6;
    rules.resolve = network.record->mode == kOverlayMode;
    return rules;
}

// Without its options nobody knows what it may do; its bridge and containers are there all the same.
firewall::Network BridgeDriver::closedRulesOf(const NetworkRecord& record) {
    firewall::Network rules;
    rules.id = record.request.networkId;
    rules.bridge = record.link;
    for (const auto* family : {&record.request.ipv4, &record.request.ipv6}) {
        for (const IpamData& subnet : *family) {
            if (subnet.pool.length() != 0) rules.subnets.push_back(subnet.pool.network());
        }
    }
    rules.internal = true;
    rules.icc = false;
    rules.resolve = record.mode == kOverlayMode;
    return rules;
}

firewall::Endpoint BridgeDriver::rulesOf(const EndpointRecord& endpoint) {
    return {endpoint.endpointId, endpoint.networkId, endpoint.published};
}

// Networks

Result<void> BridgeDriver::createNetwork(const CreateNetworkRequest& request) {
    NetworkRecord draft;
    draft.request = request;
    draft.mode = kMode;
    return makeNetwork(std::move(draft));
}

Result<void> BridgeDriver::createOverlay(const CreateNetworkRequest& request, uint32_t mtu, std::string notes) {
    NetworkRecord draft;
    draft.request = request;
    draft.mode = kOverlayMode;
    draft.mtu = mtu;
    draft.notes = std::move(notes);
    return makeNetwork(std::move(draft));
}

Result<void> BridgeDriver::makeNetwork(NetworkRecord asked) {
    const auto draft = std::make_shared<NetworkRecord>(std::move(asked));
    const CreateNetworkRequest& request = draft->request;
    WEFT_ASSIGN(Network network, read(draft));
    draft->link = network.options.name.empty() ? bridgeName(request.networkId) : network.options.name;

    const Deadline deadline(withinCall(RecordStore::kLockPatience));
    const std::unique_lock creating(creating_, deadline.left());
    if (!creating) return makeError(ErrorCode::Busy, "other networks are being created");
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(request.networkId, deadline.left()));

    if (const NetworkPtr known = context_.records.network(request.networkId)) {
        if (known->mode != draft->mode || known->request != request) {
            return makeError(ErrorCode::AlreadyExists,
                             "network " + request.networkId.brief() + " exists with other settings");
        }
        network.record = known;
        Sweep sweep(false);
        ensureBridge(network, sweep);
        return sweep.outcome();
    }

    removeOrphanBridges();
    WEFT_TRY(checkSubnets(network));
    WEFT_TRY(checkLink(network));
    if (draft->mtu == 0) draft->mtu = network.options.mtu;
    if (draft->mtu == 0) {
        const auto uplink = defaultRouteLink(context_.netlink);
        draft->mtu = uplink ? uplink->mtu : 1500;
    }
    draft->created = context_.clock.wall();

    Rollback undo;
    ipam::PoolBook& pools = poolsOf(*draft);
    undo.push([&] { return pools.detachPools(request.networkId); });
    for (const IpamData& subnet : network.subnets) {
        std::vector<IpAddress> reserved{gatewayAddress(subnet).address()};
        for (const auto& [name, address] : subnet.auxAddresses) reserved.push_back(address.address());
        WEFT_ASSIGN(const bool ours, pools.attachPool(request.networkId, subnet.addressSpace, subnet.pool, reserved));
        static_cast<void>(ours);
    }

    PendingWrite written = context_.records.put(*draft);
    undo.push([&] { static_cast<void>(context_.records.erase(request.networkId)); });

    undo.push([&] { return removeBridge(*network.record); });
    Sweep sweep(false);
    ensureBridge(network, sweep);
    ensureForwarding(network, sweep);
    WEFT_TRY(sweep.outcome());
    WEFT_TRY(ensureSynced());
    {
        WEFT_ASSIGN(const auto rules, lockRules());
        undo.push([&] { return context_.firewall.removeNetwork(request.networkId); });
        WEFT_TRY(context_.firewall.setNetwork(rulesOf(network)));
    }
    WEFT_TRY(written.wait());
    undo.commit();
    return {};
}

// What a create that was killed left behind would be taken for a holder of its subnet.
void BridgeDriver::removeOrphanBridges() {
    const auto bridges = context_.netlink.listLinks({.kind = "bridge"});
    if (!bridges) return;
    for (const net::Link& link : *bridges) {
        const auto id = markedNetwork(link.alias);
        if (!id || context_.records.network(*id)) continue;
        if (auto removed = context_.netlink.deleteLink(link.index); !removed) {
            logWarn("msg=\"remove leftover bridge\" link={} error={}", link.name, logValue(removed.error().message));
        }
    }
}

Result<void> BridgeDriver::checkSubnets(const Network& network) {
    const auto overlap = [](const IpPrefix& subnet, const IpPrefix& other, const std::string& holder) {
        return makeError(ErrorCode::Busy, "subnet " + subnet.str() + " overlaps " + other.str() + " of " + holder);
    };
    for (const NetworkPtr& other : context_.records.networks()) {
        for (const auto* family : {&other->request.ipv4, &other->request.ipv6}) {
            for (const IpamData& data : *family) {
                for (const IpamData& subnet : network.subnets) {
                    if (data.pool.length() == 0 || !subnet.pool.overlaps(data.pool)) continue;
                    return overlap(subnet.pool, data.pool,
                                   "weft network " + other->request.networkId.brief() + " (" + other->mode +
                                       (other->link.empty() ? ")" : " on " + other->link + ")") +
                                       "; if Docker has no such network, weftctl doctor says how to remove it");
                }
            }
        }
    }
    WEFT_ASSIGN(const auto occupied, occupiedByHost(context_.netlink));
    for (const ipam::Occupied& taken : occupied) {
        if (taken.holder.ends_with(" on " + network.record->link)) continue;
        for (const IpamData& subnet : network.subnets) {
            if (subnet.pool.overlaps(taken.prefix)) {
                return overlap(subnet.pool, taken.prefix, "the host (" + taken.holder + ")");
            }
        }
    }
    return {};
}

Result<void> BridgeDriver::checkLink(const Network& network) {
    const std::string& name = network.record->link;
    const auto taken = [&](const std::string& holder) {
        return makeError(ErrorCode::Busy, "bridge name " + name + " is taken by " + holder);
    };
    for (const NetworkPtr& other : context_.records.networks()) {
        if (other->link == name) return taken("weft network " + other->request.networkId.brief());
    }
    const auto link = context_.netlink.getLink(name);
    if (!link) return link.error().code == ErrorCode::NotFound ? Result<void>() : Result<void>(link.error());
    if (net::isOwn(*link, networkMark(network.id()))) return {};
    if (!link->alias.empty()) return taken("a link with the alias \"" + link->alias + "\"");
    if (firewall::isEngineBridgeName(name)) return taken("Docker");
    if (network.options.name.empty() || link->kind != "bridge") {
        return taken("a link of kind " + (link->kind.empty() ? std::string("hardware") : link->kind));
    }
    return {};  // the user's own bridge: used as it is
}

void BridgeDriver::ensureBridge(Network& network, Sweep& sweep) {
    const std::string& name = network.record->link;
    net::BridgeSpec spec;
    spec.name = name;
    spec.alias = networkMark(network.id());
    spec.mtu = network.record->mtu;
    // The gateway of an overlay network has the same MAC on every host: a container that hears another host's gateway
    // learns nothing new.
    spec.mac =
        macFromKey(network.options.overlay.empty() ? network.id().str() : "gateway of " + network.options.overlay);
    spec.up = false;  // sysctls come first

    auto link = context_.netlink.getLink(name);
    if (!link && link.error().code != ErrorCode::NotFound) return sweep.fail("link", name, link.error());
    const auto createBridge = [&]() -> Result<void> {
        WEFT_ASSIGN(link, context_.netlink.createBridge(spec));
        return {};
    };
    if (!link) {
        if (!sweep.fix("link", name, "created", createBridge)) return;
    } else if (link->kind != "bridge") {
        return sweep.fail("link", name,
                          makeError(ErrorCode::Busy, "the name is taken by a link of kind " + link->kind));
    }
    const bool own = net::isOwn(*link, spec.alias);
    if (own && (link->alias != spec.alias || link->mtu != spec.mtu || link->mac != *spec.mac))
        sweep.fix("link", name, "settings restored", createBridge);

    std::string changes;  // of a user's bridge, which gets back what it had: addresses, and settings as they were
    const auto note = [&changes](const std::string& change) { changes += (changes.empty() ? "" : " ") + change; };
    std::vector<std::pair<std::string, std::string>> settings;
    for (auto& [setting, value] : bridgeSysctls(name, network.request(), network.options)) {
        if (!own && setting.ends_with("disable_ipv6")) continue;
        const auto read = [&, &key = setting] { return net::readSysctl(key); };
        const auto now = net::runIn(context_.netlink.netns(), read);
        // A kernel without IPv6 has none of its settings, and a network without IPv6 needs none.
        if (!now && now.error().code == ErrorCode::NotFound && !network.request().enableIpv6) continue;
        if (now && *now == value) continue;
        // Forwarding follows the host's own switch.
        if (now && !setting.ends_with("/forwarding")) note(setting + "=" + *now);
        settings.emplace_back(std::move(setting), std::move(value));
    }
    const auto present = context_.netlink.listAddresses(link->index);
    if (!present) return sweep.fail("address", name, present.error());
    std::vector<net::Address> addresses;
    for (const IpamData& subnet : network.subnets) {
        if (subnet.pool.family() == IpFamily::V4 && network.options.inhibitV4) continue;
        const IpPrefix wanted = gatewayAddress(subnet);
        const bool there = std::any_of(present->begin(), present->end(),
                                       [&](const net::Address& address) { return address.prefix == wanted; });
        if (there) continue;
        note(wanted.str());
        net::Address& address = addresses.emplace_back();
        address.link = link->index;
        address.prefix = wanted;
        address.noDad = true;
    }
    if (!own && !changes.empty() && network.record->notes.empty() && !sweep.dryRun()) {
        NetworkRecord noted = *network.record;
        noted.notes = changes;
        if (auto written = context_.records.put(std::move(noted)).wait(); !written) {
            return sweep.fail("link", name, written.error());
        }
        network.record = context_.records.network(network.id());
    }
    for (const auto& [setting, value] : settings) {
        sweep.fix("sysctl", setting, "set to " + value,
                  [&, &key = setting, &wanted = value] { return writeSysctl(context_.netlink.netns(), key, wanted); });
    }
    for (const net::Address& address : addresses) {
        sweep.fix("address", address.prefix.str() + " on " + name, "added",
                  [&] { return context_.netlink.setAddress(address); });
    }
    if (!link->up) sweep.fix("link", name, "set up", [&] { return context_.netlink.setUp(link->index); });
}

void BridgeDriver::ensureForwarding(const Network& network, Sweep& sweep) {
    if (network.request().internal) return;
    for (const IpFamily family : {IpFamily::V4, IpFamily::V6}) {
        if (family == IpFamily::V4 ? !network.request().enableIpv4 : !network.request().enableIpv6) continue;
        auto changed = enableForwarding(context_.netlink, context_.records, family, sweep.dryRun());
        const std::string name = "forwarding of " + std::string(toString(family));
        if (!changed) sweep.fail("sysctl", name, changed.error());
        if (changed && *changed) sweep.note({"sysctl", name, "turned on", {}});
    }
}

Result<void> BridgeDriver::removeBridge(const NetworkRecord& record) {
    const auto link = context_.netlink.getLink(record.link);
    if (!link) return link.error().code == ErrorCode::NotFound ? Result<void>() : Result<void>(link.error());
    if (net::isOwn(*link, networkMark(record.request.networkId))) return remover_.remove(*link);
    // The user's bridge stays, without what weft put on it.
    Result<void> outcome;
    if (context_.portProgram != nullptr) {
        for (const IpamData& subnet : bridgeSubnets(record.request).value_or(std::vector<IpamData>())) {
            static_cast<void>(
                context_.portProgram->reserve(link->index, gatewayAddress(subnet).address(), std::nullopt));
        }
    }
    std::string_view rest = record.notes;
    while (!rest.empty()) {
        const size_t end = std::min(rest.find(' '), rest.size());
        const std::string_view change = rest.substr(0, end);
        Result<void> undone;
        if (const size_t is = change.rfind('='); is != std::string_view::npos) {
            undone = writeSysctl(context_.netlink.netns(), std::string(change.substr(0, is)), change.substr(is + 1));
        } else if (auto prefix = IpPrefix::parse(change)) {
            undone = context_.netlink.deleteAddress(link->index, *prefix);
        }
        if (!undone) outcome = undone;
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    return outcome;
}

Result<void> BridgeDriver::deleteNetwork(const NetworkId& networkId) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(networkId));
    const NetworkPtr record = context_.records.network(networkId);
    return isMine(record) ? removeNetwork(*record) : Result<void>();
}

// With its lock held.
Result<void> BridgeDriver::removeNetwork(const NetworkRecord& record) {
    const NetworkId& networkId = record.request.networkId;
    // The engine forgets the network whatever the answer is. So the record goes in any case; what stays in the kernel
    // is a leftover that the next sweep finds by its mark.
    Result<void> outcome;
    const auto attempt = [&](Result<void> done) {
        if (!done && outcome) outcome = std::move(done);
    };
    for (const EndpointPtr& endpoint : context_.records.endpoints(networkId)) attempt(release(*endpoint));
    {
        WEFT_ASSIGN(const auto rules, lockRules());
        PendingWrite written = context_.records.erase(networkId);
        if (synced_) attempt(context_.firewall.removeNetwork(networkId));
        attempt(removeBridge(record));
        attempt(written.wait());
    }
    // Last: a record without its pool would keep a subnet that IPAM gives to the next.
    attempt(poolsOf(record).detachPools(networkId));
    const std::lock_guard stale(staleMutex_);
    std::erase_if(staleMacs_, [&](const auto& entry) { return entry.first.first == networkId; });
    return outcome;
}

// Endpoints

Result<void> BridgeDriver::checkAddresses(const Network& network, const CreateEndpointRequest& request) {
    const auto refuse = [](const std::string& why) { return makeError(ErrorCode::InvalidArgument, why); };
    if (!request.address && !request.addressV6) return refuse("an endpoint of a bridge needs an address");
    for (const auto& prefix : {request.address, request.addressV6}) {
        if (!prefix) continue;
        const IpAddress& address = prefix->address();
        const IpamData* subnet = network.subnetOf(address);
        if (subnet == nullptr) return refuse("address " + address.str() + " is in none of the network's subnets");
        if (gatewayAddress(*subnet).address() == address) return refuse("address " + address.str() + " is the gateway");
    }
    if (request.mac && (request.mac->isMulticast() || request.mac->isZero())) {
        return refuse("MAC address " + request.mac->str() + " is not one of a single station");
    }
    return {};
}

bool BridgeDriver::isAlive(const EndpointRecord& endpoint) {
    if (endpoint.instance != instance_) return false;
    const auto link = context_.netlink.getLink(endpoint.link);
    if (!link) return link.error().code != ErrorCode::NotFound;  // in doubt it lives
    return link->alias == endpointMark(endpoint.endpointId) && !cameBack(endpoint, *link);
}

bool BridgeDriver::cameBack(const EndpointRecord& endpoint, const net::Link& link) {
    return endpoint.phase == EndpointPhase::Joined && !link.parentNetnsId && link.wasRunning && !link.running;
}

bool BridgeDriver::isAlive(const EndpointId& endpointId) {
    const EndpointPtr record = context_.records.endpoint(endpointId);
    return record && isAlive(*record);
}

// Releases `holder` if it is dead or on its way out; with the lock of its network held.
Result<void> BridgeDriver::claim(const EndpointPtr& holder, const EndpointId& self, const std::string& what) {
    if (!holder || holder->endpointId == self) return {};
    if (holder->phase != EndpointPhase::Left && isAlive(*holder)) {
        return makeError(ErrorCode::Busy, what + " is held by endpoint " + holder->endpointId.brief() + " of network " +
                                              holder->networkId.brief());
    }
    logInfo("msg=\"release dead endpoint\" endpoint={} for={}", holder->endpointId.brief(), logValue(what));
    return release(*holder);
}

net::PortFlags BridgeDriver::portFlags(const BridgeOptions& options) const {
    const auto filtered = [] {
        return Result<bool>(net::bridgeCallsIptables(IpFamily::V4) || net::bridgeCallsIptables(IpFamily::V6));
    };
    const bool rulesSeeFrames = net::runIn(context_.netlink.netns(), filtered).value_or(false);
    net::PortFlags flags;
    // Where frames pass the rules, DNAT happens before bridging, and a container that calls its own published port gets
    // the frame back out of the port it came in by.
    flags.hairpin = rulesSeeFrames;
    // Where they do not, only the bridge itself can keep containers apart. Not both: between isolated ports a frame
    // that DNAT turned round would be dropped.
    flags.isolated = !options.icc && !rulesSeeFrames;
    return flags;
}

Result<void> BridgeDriver::addLink(Network& network, const EndpointRecord& endpoint) {
    net::VethSpec spec;
    spec.name = endpoint.link;
    spec.peerName = containerEndName(endpoint.endpointId);
    spec.alias = spec.peerAlias = endpointMark(endpoint.endpointId);
    spec.mtu = network.record->mtu;
    spec.peerMac = endpoint.mac;
    spec.port = portFlags(network.options);

    auto bridge = context_.netlink.getLink(network.record->link);
    if (!bridge && bridge.error().code == ErrorCode::NotFound) {
        Sweep sweep(false);
        ensureBridge(network, sweep);
        WEFT_TRY(sweep.outcome());
        bridge = context_.netlink.getLink(network.record->link);
    }
    if (!bridge) return bridge.error();
    if (bridge->mac == *endpoint.mac) {
        return makeError(ErrorCode::InvalidArgument, "MAC address " + endpoint.mac->str() + " is the gateway's");
    }
    spec.master = bridge->index;
    WEFT_ASSIGN(const net::LinkIndex port, context_.netlink.createVeth(spec));
    return guardPort(network, endpoint, port, *bridge);
}

Result<void> BridgeDriver::guardPort(const Network& network, const EndpointRecord& endpoint, net::LinkIndex port,
                                     const net::Link& bridge) {
    const net::FdbEntry own{.link = port, .mac = *endpoint.mac, .bridgePort = true, .sticky = true};
    WEFT_TRY(context_.netlink.setFdb(std::span(&own, 1)));
    if (context_.portProgram == nullptr) return {};
    net::PortRules rules;
    rules.segment = bridge.index;
    rules.fastPath = !network.options.overlay.empty() && network.options.fastPath;
    rules.fewFloods = !network.options.overlay.empty();
    if (!spoofAllowed(network.options, endpoint)) {
        net::PortSender& sender = rules.sender.emplace();
        sender.mac = *endpoint.mac;
        if (endpoint.address) sender.v4 = endpoint.address->address();
        if (endpoint.addressV6) sender.v6 = endpoint.addressV6->address();
        sender.anyAddress = !net::isOwn(bridge, networkMark(network.id()));
    }
    if (rules.sender && rules.sender->anyAddress) {
        for (const IpamData& subnet : network.subnets) {
            WEFT_TRY(context_.portProgram->reserve(bridge.index, gatewayAddress(subnet).address(), bridge.index));
        }
    }
    return context_.portProgram->setPort(port, rules);
}

Result<void> BridgeDriver::removeLink(const EndpointRecord& endpoint) {
    const auto link = context_.netlink.getLink(endpoint.link);
    if (!link) return link.error().code == ErrorCode::NotFound ? Result<void>() : Result<void>(link.error());
    if (!net::isOwn(*link, endpointMark(endpoint.endpointId))) return {};
    if (context_.portProgram != nullptr) context_.portProgram->removePort(link->index);
    return remover_.remove(*link);
}

Result<CreateEndpointReply> BridgeDriver::createEndpoint(const CreateEndpointRequest& request) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(request.networkId));
    WEFT_ASSIGN(Network network, load(request.networkId));
    WEFT_TRY(checkAddresses(network, request));

    EndpointRecord record;
    record.networkId = request.networkId;
    record.endpointId = request.endpointId;
    record.address = request.address;
    record.addressV6 = request.addressV6;
    record.mac = request.mac ? *request.mac : macFromAddress(request.address, request.addressV6, request.endpointId);
    record.macGiven = request.mac.has_value();
    record.link = hostEndName(request.endpointId);
    record.ports = request.ports;
    WEFT_ASSIGN(const auto spoof, parseEndpointSpoof("weft-" + network.record->mode, request.options));
    if (spoof) record.notes = *spoof ? kSpoofAllowed : kSpoofDenied;
    record.instance = instance_;
    record.created = record.changed = context_.clock.wall();

    CreateEndpointReply reply;
    if (!record.macGiven) reply.mac = record.mac;

    if (const EndpointPtr known = context_.records.endpoint(request.endpointId)) {
        if (known->networkId != record.networkId || known->address != record.address ||
            known->addressV6 != record.addressV6 || known->mac != record.mac || known->macGiven != record.macGiven ||
            known->notes != record.notes) {
            return makeError(ErrorCode::AlreadyExists,
                             "endpoint " + request.endpointId.brief() + " exists with other settings");
        }
        if (isAlive(*known)) return reply;
        WEFT_TRY(release(*known));
    }

    for (const auto& prefix : {record.address, record.addressV6}) {
        if (!prefix) continue;
        const IpAddress& address = prefix->address();
        WEFT_TRY(claim(context_.records.endpointWith(record.networkId, address), record.endpointId,
                       "address " + address.str()));
    }
    WEFT_TRY(claim(context_.records.endpointWith(record.networkId, *record.mac), record.endpointId,
                   "MAC address " + record.mac->str()));

    Rollback undo;
    ipam::PoolBook& pools = poolsOf(*network.record);
    WEFT_TRY(bindLeases(pools, record));
    undo.push([&] { unbindLeases(pools, record); });
    PendingWrite written = context_.records.put(record);
    undo.push([&] { static_cast<void>(context_.records.erase(record.networkId, record.endpointId)); });
    undo.push([&] { return removeLink(record); });  // it may be half made
    WEFT_TRY(addLink(network, record));
    WEFT_TRY(written.wait());
    undo.commit();
    announce(network, record);
    return reply;
}

// Addresses that always have the MAC that follows from them need no announcement; those whose MAC a user chose, now or
// before, do, and engines before 28 send none.
void BridgeDriver::announce(const Network& network, const EndpointRecord& endpoint) {
    const MacAddress usual = macFromAddress(endpoint.address, endpoint.addressV6, endpoint.endpointId);
    for (const auto& prefix : {endpoint.address, endpoint.addressV6}) {
        if (!prefix) continue;
        const IpAddress address = prefix->address();
        MacAddress before = usual;
        {
            const std::lock_guard lock(staleMutex_);
            if (auto stale = staleMacs_.extract({endpoint.networkId, address})) before = stale.mapped();
        }
        if (before == *endpoint.mac) continue;
        const auto bridge = context_.netlink.linkIndex(network.record->link);
        if (!bridge) return;
        net::Neighbour neighbour;
        neighbour.link = *bridge;
        neighbour.address = address;
        static_cast<void>(context_.netlink.deleteNeighbours(std::span(&neighbour, 1)));
        const auto told = net::announceAddress(context_.netlink.netns(), *bridge, address, *endpoint.mac);
        if (!told)
            logDebug("msg=\"announce address\" address={} error={}", address.str(), logValue(told.error().message));
    }
}

void BridgeDriver::rememberMac(const EndpointRecord& endpoint) {
    if (!endpoint.mac || *endpoint.mac == macFromAddress(endpoint.address, endpoint.addressV6, endpoint.endpointId))
        return;
    const std::lock_guard lock(staleMutex_);
    for (const auto& prefix : {endpoint.address, endpoint.addressV6}) {
        if (prefix) staleMacs_[{endpoint.networkId, prefix->address()}] = *endpoint.mac;
    }
}

// Takes away all that an endpoint has, its record included; with the lock of its network held. Goes on after a failure
// and tells the first.
Result<void> BridgeDriver::release(const EndpointRecord& endpoint) {
    Result<void> outcome;
    const auto attempt = [&](Result<void> done) {
        if (!done && outcome) outcome = std::move(done);
    };
    std::optional<PendingWrite> written;
    {
        WEFT_ASSIGN(const auto rules, lockRules());
        written = context_.records.erase(endpoint.networkId, endpoint.endpointId);
        attempt(withdraw(endpoint));
    }
    attempt(removeLink(endpoint));
    unbindLeases(poolsOf(endpoint.networkId), endpoint);
    rememberMac(endpoint);
    attempt(written->wait());
    return outcome;
}

Result<void> BridgeDriver::deleteEndpoint(const NetworkId& networkId, const EndpointId& endpointId) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(networkId));
    const EndpointPtr record = context_.records.endpoint(networkId, endpointId);
    return record ? release(*record) : Result<void>();
}

Result<JoinReply> BridgeDriver::join(const JoinRequest& request) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(request.networkId));
    WEFT_ASSIGN(const Network network, load(request.networkId));
    const EndpointPtr known = context_.records.endpoint(request.networkId, request.endpointId);
    if (!known) return notFound("endpoint", request.endpointId.brief());

    Sweep sweep(false);
    ensureForwarding(network, sweep);
    WEFT_TRY(sweep.outcome());

    EndpointRecord record = *known;
    record.phase = EndpointPhase::Joined;
    record.sandboxKey = request.sandboxKey;
    record.ports = request.ports;
    record.changed = context_.clock.wall();
    // If a kill loses this write, the next sweep sees from the link that the container has it.
    static_cast<void>(context_.records.put(std::move(record), Urgency::Soon));

    JoinReply reply;
    reply.sourceName = containerEndName(request.endpointId);
    reply.destinationPrefix = network.options.interfacePrefix;
    reply.gateway = network.gatewayFor(known->address);
    reply.gatewayV6 = network.gatewayFor(known->addressV6);
    // With a gateway the engine must know of it, or it would think that the container needs docker_gwbridge.
    reply.disableGatewayService = !reply.gateway && !reply.gatewayV6;
    return reply;
}

Result<void> BridgeDriver::leave(const NetworkId& networkId, const EndpointId& endpointId) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(networkId));
    const EndpointPtr known = context_.records.endpoint(networkId, endpointId);
    if (!known) return {};
    EndpointRecord record = *known;
    record.phase = EndpointPhase::Left;
    record.sandboxKey.clear();
    record.published.clear();
    record.changed = context_.clock.wall();
    WEFT_ASSIGN(const auto rules, lockRules());
    static_cast<void>(context_.records.put(std::move(record), Urgency::Soon));  // DeleteEndpoint follows at once
    return withdraw(*known);
}

}  // namespace weft
