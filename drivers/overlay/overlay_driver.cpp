#include "drivers/overlay/overlay_driver.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>

#include "base/deadline.h"
#include "base/log.h"
#include "drivers/names.h"
#include "drivers/overlay/overlay_names.h"
#include "ipam/cluster_ipam.h"
#include "net/offload.h"

namespace weft {

namespace {

constexpr std::chrono::milliseconds kCreatePatience{3500};
constexpr std::chrono::milliseconds kKeepPatience{1000};
constexpr std::chrono::seconds kSettle{10};
constexpr std::chrono::seconds kLookAtLedger{1};

// VNIs that weft chooses; those below are left to users.
constexpr uint32_t kFirstVni = 4096;
constexpr uint32_t kVnis = (1U << 24) - kFirstVni;

std::string nameOf(const NetworkRecord& record) {
    const auto found = record.request.options.find(kOverlayNameOption);
    return found == record.request.options.end() ? std::string() : found->second;
}

// In the record's notes: what the claim says and the request does not.
std::string notesOf(const NetworkClaim& claim) {
    return std::to_string(claim.vni) + " " + std::to_string(claim.stamp);
}

Result<void> readNotes(const std::string& notes, NetworkClaim& claim) {
    const char* end = notes.data() + notes.size();
    const auto vni = std::from_chars(notes.data(), end, claim.vni);
    if (vni.ec == std::errc() && vni.ptr != end) {
        const auto stamp = std::from_chars(vni.ptr + 1, end, claim.stamp);
        if (stamp.ec == std::errc() && stamp.ptr == end) return {};
    }
    return makeError(ErrorCode::Corrupt, "notes of an overlay network: \"" + notes + "\"");
}

// The same on every host, so that hosts that do not hear each other choose alike.
uint32_t vniFor(const std::string& name, uint32_t attempt) {
    uint64_t hash = 0;
    const MacAddress spread = macFromKey("vni of " + name + " " + std::to_string(attempt));
    for (const uint8_t byte : spread.bytes()) {
        hash = hash << 8 | byte;
    }
    return kFirstVni + static_cast<uint32_t>(hash % kVnis);
}

// For the bridge.
net::FdbEntry behindTunnel(net::LinkIndex tunnel, const MacAddress& mac) {
    return {.link = tunnel, .mac = mac, .bridgePort = true, .sticky = true};
}

template <typename T>
std::vector<T> without(const std::set<T>& from, const std::set<T>& those) {
    std::vector<T> left;
    std::set_difference(from.begin(), from.end(), those.begin(), those.end(), std::back_inserter(left));
    return left;
}

Error busyTunnel(const NetworkId& networkId) {
    return makeError(ErrorCode::Busy, "the tunnel of network " + networkId.brief() + " is being changed");
}

}  // namespace

OverlayDriver::OverlayDriver(DriverContext context, BridgeDriver& bridge, kv::Runner& runner, OverlayConfig config)
    : context_(context), bridge_(bridge), runner_(runner), config_(std::move(config)), rows_(runner) {}

Result<std::unique_ptr<OverlayDriver>> OverlayDriver::create(DriverContext context, BridgeDriver& bridge,
                                                             kv::Runner& runner, OverlayConfig config,
                                                             ipam::PoolBook& pools) {
    bridge.carryOverlays(pools);
    std::unique_ptr<OverlayDriver> driver(new OverlayDriver(context, bridge, runner, std::move(config)));
    // What the store's thread runs owns what it touches: it may run after a timeout.
    struct Started {
        kv::NodeId self;
        kv::WatchId watch = 0;
        uint32_t epoch = 0;
    };
    const auto started = std::make_shared<Started>();
    if (const auto& memory = driver->config_.memory) {
        HostMemory::Listener listener;
        const auto view = driver->view_;
        listener.host = [view](const kv::NodeId& id, const RememberedHost& host) { view->remember(id, host); };
        listener.row = [view](kv::RowEvent event, const kv::Row& row) { view->apply(event, row); };
        listener.forget = [view](const kv::NodeId& id) { view->forget(id); };
        memory->attach(std::move(listener));
    }
    WEFT_TRY(runner.call([started, view = driver->view_, memory = driver->config_.memory](kv::Node& node) {
        started->self = node.id();
        const auto hear = [view, memory, self = node.id()](const kv::Member& member) {
            if (member.id == self) return;
            view->onMember(member);
            if (memory) memory->onMember(member);
        };
        for (const kv::Member& member : node.members()) {
            hear(member);
            if (member.id == node.id()) started->epoch = static_cast<uint32_t>(member.record.incarnation >> 32);
        }
        node.onMember(hear);
        started->watch = node.watch(std::string(kOverlayPrefix),
                                    [view](kv::RowEvent event, const kv::Row& row) { view->apply(event, row); });
        if (!memory) return;
        for (const std::string_view prefix : {kOverlayPrefix, kNamesPrefix}) {
            node.watch(std::string(prefix), [memory, self = node.id()](kv::RowEvent event, const kv::Row& row) {
                if (row.owner != self) memory->apply(event, row);
            });
        }
        node.onGivenUp([memory](const kv::NodeId& host) { memory->forget(host); });
    }));
    driver->self_ = started->self;
    driver->watch_ = started->watch;
    driver->adoptTunnels();
    driver->worker_ = std::thread([made = driver.get()] { made->work(); });
    if (driver->config_.clustered) {
        driver->startProbe(started->epoch);
        WEFT_TRY(driver->startHostWatch());
    }
    return driver;
}

OverlayDriver::~OverlayDriver() {
    probe_.reset();
    hostWatch_.reset();
    view_->stop();
    if (worker_.joinable()) worker_.join();
    if (watch_ != 0) static_cast<void>(runner_.call([id = watch_](kv::Node& node) { node.unwatch(id); }));
}

void OverlayDriver::adoptTunnels() {
    bool some = false;
    for (const NetworkPtr& record : context_.records.networks(kMode)) {
        const NetworkId& id = record->request.networkId;
        {
            const std::lock_guard lock(shownMutex_);
            names_.emplace(nameOf(*record), id);
        }
        const auto link = context_.netlink.getLink(tunnelName(id));
        const auto bridge = context_.netlink.getLink(record->link);
        if (!link || !bridge) continue;
        const TunnelPtr tunnel = tunnelOf(id);
        const std::lock_guard lock(tunnel->mutex);
        tunnel->link = link->index;
        tunnel->bridge = bridge->index;
        tunnel->status.id = id;
        static_cast<void>(readTables(*tunnel));
        // Before the bridge driver has containers' ports look into this table.
        if (const auto network = read(record); network && tunnel->link != 0) shorten(*network, *tunnel);
        show(*tunnel);
        some = true;
    }
    if (some) settled_ = context_.clock.now() + kSettle;
    findUplink();
    // The first sweep of the rules must not open what is closed now.
    if (const auto guarded = guard(); !guarded) logWarn("{}", guarded.error().message);
}

OverlayDriver::TunnelPtr OverlayDriver::tunnelOf(const NetworkId& networkId) {
    const std::lock_guard lock(shownMutex_);
    TunnelPtr& tunnel = tunnels_[networkId];
    if (!tunnel) tunnel = std::make_shared<Tunnel>();
    return tunnel;
}

void OverlayDriver::show(const Tunnel& tunnel) {
    Shown shown{tunnel.status, tunnel.link, tunnel.bridge, {}, tunnel.agreement};
    for (const auto& [remote, entries] : tunnel.remotes) shown.remotes.insert(remote);
    const std::lock_guard lock(shownMutex_);
    shown_[tunnel.status.id] = std::move(shown);
}

// The link that has this host's address, if any has it yet.
void OverlayDriver::findUplink() {
    const auto addresses = context_.netlink.listAddresses();
    if (!addresses) return;
    for (const net::Address& address : *addresses) {
        if (address.prefix.address() != config_.vtep) continue;
        const auto link = context_.netlink.getLink(address.link);
        const std::lock_guard lock(guarding_);
        if (link) uplink_ = link->name;
    }
}

Result<void> OverlayDriver::guard() {
    const auto lock = lockWithinCall(guarding_);
    if (!lock) return makeError(ErrorCode::Busy, "the guard of the tunnel port is being changed");
    firewall::Tunnel wanted;
    if (config_.clustered) {
        wanted.port = config_.port;
        wanted.members = view_->addresses();
    }
    {
        const std::lock_guard shown(shownMutex_);
        for (const auto& [id, tunnel] : shown_) {
            wanted.port = config_.port;
            wanted.members.insert(tunnel.status.hosts.begin(), tunnel.status.hosts.end());
            wanted.members.insert(tunnel.remotes.begin(), tunnel.remotes.end());
        }
    }
    wanted.members.erase(config_.vtep);  // what an earlier identity of this host had
    wanted.peers = wanted.members;
    for (const IpAddress& away : view_->awayAddresses()) wanted.members.erase(away);
    wanted.address = config_.vtep;
    wanted.uplink = uplink_;
    if (wanted == guard_) return {};
    WEFT_TRY(context_.firewall.setTunnel(wanted));
    guard_ = std::move(wanted);
    return {};
}

void OverlayDriver::startProbe(uint32_t epoch) {
    TunnelProbe::Hooks hooks;
    hooks.open = [this]() -> Result<std::unique_ptr<ProbeLink>> {
        WEFT_ASSIGN(const uint32_t mtu, probeMtu());
        const std::lock_guard lock(links_);
        return ProbeLink::open(context_.netlink, tunnelSettings(kProbeVni), mtu);
    };
    hooks.mtu = [this] { return probeMtu(); };
    // The epoch may be raised while weftd runs (kv::Node::inDoubt): the next offer follows.
    hooks.offer = [this, known = std::make_shared<std::atomic<uint32_t>>(epoch)](uint32_t mtu) {
        rows_.put(std::string(kProbeKey), encode(ProbeRow{*known, mtu, config_.vtep}));
        runner_.post([known](kv::Node& node) { *known = node.epoch(); });
    };
    hooks.setOffload = [this](bool on) { return setOffload(on); };
    probe_ = std::make_unique<TunnelProbe>(context_.clock, view_, std::move(hooks));
}

Result<void> OverlayDriver::startHostWatch() {
    HostWatch::Hooks hooks;
    hooks.open = [this](const net::EchoKey& key) {
        const std::lock_guard lock(links_);
        return EchoLink::open(context_.netlink, tunnelSettings(kEchoVni), key);
    };
    hooks.offer = [this](const net::EchoKey& key) {
        rows_.put(std::string(kEchoKey), encode(EchoRow{key, config_.vtep}));
    };
    WEFT_ASSIGN(hostWatch_, HostWatch::start(view_, self_, std::move(hooks)));
    return {};
}

Result<uint32_t> OverlayDriver::probeMtu() const {
    uint32_t mtu = 0;
    for (const NetworkPtr& record : context_.records.networks(kMode)) mtu = std::max(mtu, record->mtu);
    if (mtu != 0) return mtu;
    return largestMtu();
}

Result<void> OverlayDriver::setOffload(bool on) {
    offload_ = on;
    std::vector<NetworkId> made;
    {
        const std::lock_guard lock(shownMutex_);
        for (const auto& [id, tunnel] : shown_) {
            if (tunnel.link != 0) made.push_back(id);
        }
    }
    Result<void> outcome;
    for (const NetworkId& id : made) {
        auto done = net::setChecksumOffload(context_.netlink.netns(), tunnelName(id), on);
        if (!done && outcome) outcome = std::move(done);
    }
    return outcome;
}

TunnelReport OverlayDriver::tunnels() const {
    return probe_ ? probe_->report() : TunnelReport{};
}

void OverlayDriver::work() {
    const Clock::Monotonic settled = settled_;
    bool settling = context_.clock.now() < settled;
    for (;;) {
        std::optional<std::chrono::nanoseconds> patience;
        if (settling) patience = settled - context_.clock.now();
        if (config_.ledger) {
            view_->setLedger(config_.ledger());
            patience = std::min<std::chrono::nanoseconds>(patience.value_or(kLookAtLedger), kLookAtLedger);
        }
        auto marked = view_->takeMarked(patience);
        if (!marked) return;
        if (settling && context_.clock.now() >= settled) {
            // What no host has said again goes now.
            settling = false;
            for (const NetworkPtr& record : context_.records.networks(kMode)) (*marked)[nameOf(*record)].all = true;
        }
        // Hosts may have come or gone.
        if (const auto guarded = guard(); !guarded) logWarn("{}", guarded.error().message);
        for (auto& [name, changes] : *marked) {
            const NetworkPtr record = find(name);
            if (!record) continue;
            const TunnelPtr tunnel = tunnelOf(record->request.networkId);
            const std::lock_guard lock(tunnel->mutex);
            const bool all = changes.all || settling || !tunnel->network || tunnel->link == 0;
            const auto done = all ? refresh(record, *tunnel) : refresh(*tunnel, changes);
            // Not found: its bridge is being made or removed, and who does that looks at the tunnel afterwards.
            if (done || done.error().code == ErrorCode::NotFound) continue;
            logWarn("msg=\"overlay not up to date, next try by the reconciler\" network={} error={}", name,
                    logValue(done.error().message));
        }
    }
}

Result<OverlayDriver::Network> OverlayDriver::read(NetworkPtr record) const {
    Network network;
    WEFT_ASSIGN(network.options, parseBridgeOptions(record->request, true));
    WEFT_ASSIGN(const auto subnets, bridgeSubnets(record->request));
    network.claim = claimOf(subnets, record->request.internal);
    WEFT_TRY(readNotes(record->notes, network.claim));
    network.claim.mtu = record->mtu;
    network.gateway = macFromKey("gateway of " + network.name());
    network.record = std::move(record);
    return network;
}

NetworkClaim OverlayDriver::claimOf(const std::vector<IpamData>& subnets, bool internal) const {
    NetworkClaim claim;
    claim.internal = internal;
    claim.vtep = config_.vtep;
    claim.port = config_.port;
    for (const IpamData& subnet : subnets) claim.gateways.push_back(gatewayAddress(subnet));
    std::sort(claim.gateways.begin(), claim.gateways.end());
    return claim;
}

NetworkPtr OverlayDriver::find(const std::string& name) const {
    NetworkId id;
    {
        const std::lock_guard lock(shownMutex_);
        const auto known = names_.find(name);
        if (known == names_.end()) return nullptr;
        id = known->second;
    }
    return context_.records.network(id);
}

std::optional<std::string> OverlayDriver::overlayName(const NetworkId& networkId) const {
    const NetworkPtr record = context_.records.network(networkId);
    if (!record || record->mode != kMode) return std::nullopt;
    return nameOf(*record);
}

std::optional<OverlayDriver::Surroundings> OverlayDriver::networkAround(const IpAddress& container,
                                                                        const IpAddress& gateway,
                                                                        const std::string& bridge) const {
    for (const NetworkPtr& record : context_.records.networks(kMode)) {
        if (!bridge.empty() && record->link != bridge) continue;
        const auto subnets = bridgeSubnets(record->request);
        if (!subnets) continue;
        const auto has = [&](const auto& is) { return std::any_of(subnets->begin(), subnets->end(), is); };
        if (has([&](const IpamData& subnet) { return gatewayAddress(subnet).address() == gateway; }) &&
            has([&](const IpamData& subnet) { return subnet.pool.contains(container); })) {
            return Surroundings{nameOf(*record), record->request.internal};
        }
    }
    return std::nullopt;
}

uint64_t OverlayDriver::stampOf(Clock::Wall time) const {
    const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
    return std::min(static_cast<uint64_t>(std::max<int64_t>(since, 0)), kLastStamp);
}

// Networks

Result<void> OverlayDriver::createNetwork(const CreateNetworkRequest& request) {
    WEFT_TRY(checkPools(request));
    WEFT_ASSIGN(const BridgeOptions options, parseBridgeOptions(request, true));
    WEFT_ASSIGN(const auto subnets, bridgeSubnets(request));
    const std::string& name = options.overlay;

    const std::unique_lock creating(creating_, withinCall(kCreatePatience));
    if (!creating) return makeError(ErrorCode::Busy, "other overlay networks are being created");
    if (const NetworkPtr known = context_.records.network(request.networkId)) {
        WEFT_TRY(bridge_.createOverlay(request, known->mtu, known->notes));
        return refresh(context_.records.network(request.networkId));
    }
    if (const NetworkPtr other = find(name)) {
        return makeError(ErrorCode::AlreadyExists, "overlay network \"" + name + "\" is on this host already, as " +
                                                       other->request.networkId.brief());
    }

    NetworkClaim claim = claimOf(subnets, request.internal);
    claim.stamp = stampOf(context_.clock.wall());
    WEFT_ASSIGN(const uint32_t most, largestMtu());
    if (options.mtu > most) {
        return makeError(ErrorCode::InvalidArgument, "MTU " + std::to_string(options.mtu) +
                                                         " does not fit: the underlay carries " + std::to_string(most) +
                                                         " (its own MTU less " + std::to_string(overhead()) + ")");
    }
    if (request.enableIpv6 && most < 1280) {
        return makeError(ErrorCode::Unsupported,
                         "IPv6 needs an MTU of 1280, the underlay carries " + std::to_string(most));
    }
    claim.mtu = options.mtu != 0 ? options.mtu : most;
    WEFT_TRY(settle(claim, name, options.vni));

    auto made = kv::put(runner_, networkKey(name), encode(claim));
    if (made) {
        const std::lock_guard lock(shownMutex_);
        names_.insert_or_assign(name, request.networkId);
    }
    if (made) made = bridge_.createOverlay(request, claim.mtu, notesOf(claim));
    if (made) {
        made = refresh(context_.records.network(request.networkId));
        if (!made) static_cast<void>(bridge_.deleteNetwork(request.networkId));
    }
    if (!made) {
        static_cast<void>(removeTunnel(request.networkId));
        withdraw(name);
    }
    return made;
}

// Docker's own IPAM gives out the same addresses on every host, unless a Swarm's manager does it for all.
Result<void> OverlayDriver::checkPools(const CreateNetworkRequest& request) const {
    if (config_.swarm) {
        if (request.options.contains(kOverlayNameOption) && request.options.contains(kOverlayVniOption)) return {};
        return makeError(
            ErrorCode::InvalidArgument,
            "as a plugin weft serves a swarm's networks alone: docker swarm init, then docker network create "
            "--attachable -d weft:latest ... on a manager. Without a swarm, install weftd on the host");
    }
    const auto given = request.options.find(kOverlayNameOption);
    const std::string name = given == request.options.end() ? "NAME" : given->second;
    for (const auto* family : {&request.ipv4, &request.ipv6}) {
        for (const IpamData& data : *family) {
            if (data.addressSpace.empty() || data.addressSpace == ipam::kOverlayLocalAddressSpace ||
                data.addressSpace == ipam::kOverlayGlobalAddressSpace) {
                continue;
            }
            return makeError(ErrorCode::InvalidArgument,
                             "the addresses of an overlay network must come from weft, or hosts would use them twice: "
                             "docker network create -d weft-overlay --ipam-driver weft-overlay --subnet " +
                                 data.pool.network().str() + " -o weft.network=" + name + " ...");
        }
    }
    return {};
}

Result<void> OverlayDriver::settle(NetworkClaim& claim, const std::string& name, uint32_t presetVni) const {
    if (config_.ledger) view_->setLedger(config_.ledger());
    const LedgerFacts& ledger = *view_->ledger();
    OverlayClaims all = view_->claims();
    std::set<uint32_t> taken;
    for (auto& [other, claims] : all) {
        // Of a create that was killed.
        std::erase_if(claims, [this](const OverlayClaim& theirs) { return theirs.owner == self_; });
        if (other == name) continue;
        for (const OverlayClaim& theirs : claims) {
            taken.insert(theirs.claim.vni);
            if (theirs.absent || ledger.strangers.contains(theirs.owner)) continue;
            for (const IpPrefix& a : claim.gateways) {
                for (const IpPrefix& b : theirs.claim.gateways) {
                    if (!a.network().overlaps(b.network())) continue;
                    return makeError(ErrorCode::Busy, "subnet " + a.network().str() + " overlaps " + b.network().str() +
                                                          " of overlay network \"" + other + "\" on host " +
                                                          theirs.claim.vtep.str());
                }
            }
        }
    }
    // What a host without its weftd says counts where it fits: its containers are to be reached.
    std::erase_if(all[name], [&](const OverlayClaim& theirs) {
        return theirs.absent && (theirs.claim.gateways != claim.gateways || theirs.claim.port != claim.port);
    });
    const auto truth = truthOf(all[name], ledger);
    for (const NetworkPtr& record : context_.records.networks(kMode)) {
        const auto mine = read(record);
        if (mine && mine->name() != name) taken.insert(mine->claim.vni);
    }
    for (const auto& [id, other] : allocated_) {
        if (other.first != name) taken.insert(other.second);
    }
    if (presetVni == kProbeVni || presetVni == kEchoVni) {
        return makeError(ErrorCode::InvalidArgument, "VNI " + std::to_string(presetVni) + " is that of weft's probes");
    }
    taken.insert(kProbeVni);
    taken.insert(kEchoVni);
    if (!truth) {
        if (presetVni != 0 && taken.contains(presetVni)) {
            return makeError(ErrorCode::Busy, "VNI " + std::to_string(presetVni) + " is another network's");
        }
        claim.vni = presetVni;
        for (uint32_t attempt = 0; claim.vni == 0; ++attempt) {
            const uint32_t vni = vniFor(name, attempt);
            if (!taken.contains(vni)) claim.vni = vni;
        }
        return {};
    }
    const NetworkClaim& first = truth->first.claim;
    const auto differs = [&](const std::string& here, const std::string& there) {
        return makeError(ErrorCode::AlreadyExists, "overlay network \"" + name + "\" has " + there + " on host " +
                                                       first.vtep.str() + ", not " + here);
    };
    if (claim.gateways != first.gateways) return differs(describeSubnets(claim), describeSubnets(first));
    if (presetVni != 0 && presetVni != first.vni) {
        return differs("VNI " + std::to_string(presetVni), "VNI " + std::to_string(first.vni));
    }
    if (claim.port != first.port) {
        return differs("UDP port " + std::to_string(claim.port), "UDP port " + std::to_string(first.port));
    }
    claim.vni = first.vni;
    claim.mtu = std::min(claim.mtu, first.mtu);
    claim.stamp = std::max(claim.stamp, std::min(first.stamp + 1, kLastStamp));
    return {};
}

Result<uint32_t> OverlayDriver::largestMtu() const {
    WEFT_ASSIGN(const auto addresses, context_.netlink.listAddresses());
    const auto own = std::find_if(addresses.begin(), addresses.end(), [this](const net::Address& address) {
        return address.prefix.address() == config_.vtep;
    });
    if (own == addresses.end()) {
        return makeError(ErrorCode::Unavailable, "no link of this host has the address " + config_.vtep.str() +
                                                     " that the other hosts are to send to");
    }
    WEFT_ASSIGN(const net::Link link, context_.netlink.getLink(own->link));
    uint32_t underlay = link.mtu;
    std::set<IpAddress> peers;
    for (const auto& [name, claims] : view_->claims()) {
        for (const OverlayClaim& theirs : claims) {
            if (theirs.owner != self_ && theirs.claim.vtep.family() == config_.vtep.family()) {
                peers.insert(theirs.claim.vtep);
            }
        }
    }
    for (const IpAddress& peer : peers) {
        if (const auto route = context_.netlink.lookupRoute(peer)) underlay = std::min(underlay, route->mtu);
    }
    // No UDP packet is longer.
    return std::min<uint32_t>(underlay, 65535) - std::min(underlay, overhead());
}

Result<void> OverlayDriver::deleteNetwork(const NetworkId& networkId) {
    const NetworkPtr record = context_.records.network(networkId);
    if (!record || record->mode != kMode) return {};
    Result<void> outcome = bridge_.deleteNetwork(networkId);
    if (auto removed = removeTunnel(networkId); !removed && outcome) outcome = removed;
    withdraw(nameOf(*record));
    return outcome;
}

Result<void> OverlayDriver::removeForgotten(const std::string& name, const EngineKnows& known) {
    const NetworkPtr record = find(name);
    if (!record || context_.records.endpointCount(record->request.networkId) != 0) return {};
    const NetworkId id = record->request.networkId;
    WEFT_ASSIGN(const bool stays, known(id));
    if (stays) return {};
    logInfo("network that the engine forgot removed network={} name={}", id.brief(), logValue(name));
    return deleteNetwork(id);
}

// A Swarm's networks

Result<std::map<std::string, std::string>> OverlayDriver::allocateNetwork(const AllocateNetworkRequest& request) {
    CreateNetworkRequest wanted;
    wanted.networkId = request.networkId;
    wanted.options = request.options;
    wanted.ipv4 = request.ipv4;
    wanted.options.try_emplace(kOverlayNameOption, request.networkId.str());
    WEFT_ASSIGN(const BridgeOptions options, parseBridgeOptions(wanted, true));
    WEFT_ASSIGN(const auto subnets, bridgeSubnets(wanted));

    const std::unique_lock creating(creating_, withinCall(kCreatePatience));
    if (!creating) return makeError(ErrorCode::Busy, "other overlay networks are being created");
    for (const auto& [id, other] : allocated_) {
        if (id == request.networkId || other.first != options.overlay) continue;
        return makeError(ErrorCode::AlreadyExists, "weft.network=" + options.overlay + " is network " + id.str());
    }
    NetworkClaim claim = claimOf(subnets, false);
    WEFT_TRY(settle(claim, options.overlay, options.vni));
    allocated_[request.networkId] = {options.overlay, claim.vni};
    wanted.options[kOverlayVniOption] = std::to_string(claim.vni);
    return wanted.options;
}

Result<void> OverlayDriver::freeNetwork(const NetworkId& networkId) {
    const std::unique_lock creating(creating_, withinCall(kCreatePatience));
    if (!creating) return makeError(ErrorCode::Busy, "other overlay networks are being created");
    allocated_.erase(networkId);
    return {};
}

Result<void> OverlayDriver::removeTunnel(const NetworkId& networkId) {
    const TunnelPtr tunnel = tunnelOf(networkId);
    const auto lock = lockWithinCall(tunnel->mutex);
    if (!lock) return busyTunnel(networkId);
    tunnel->removed = true;
    {
        const std::lock_guard shown(shownMutex_);
        tunnels_.erase(networkId);
        shown_.erase(networkId);
        std::erase_if(names_, [&](const auto& named) { return named.second == networkId; });
    }
    WEFT_TRY(guard());
    const auto links = lockWithinCall(links_);
    if (!links) return makeError(ErrorCode::Busy, "other tunnels are being made");
    const auto link = context_.netlink.getLink(tunnelName(networkId));
    if (!link) return link.error().code == ErrorCode::NotFound ? Result<void>() : Result<void>(link.error());
    if (link->alias != networkMark(networkId)) return {};
    return context_.netlink.deleteLink(link->index);
}

// Endpoints

Result<CreateEndpointReply> OverlayDriver::createEndpoint(const CreateEndpointRequest& request) {
    auto reply = bridge_.createEndpoint(request);
    if (const auto name = overlayName(request.networkId)) view_->mark(*name, request.endpointId);
    return reply;
}

Result<void> OverlayDriver::deleteEndpoint(const NetworkId& networkId, const EndpointId& endpointId) {
    auto done = bridge_.deleteEndpoint(networkId, endpointId);
    if (const auto name = overlayName(networkId)) view_->mark(*name, endpointId);
    return done;
}

// Rows

std::optional<EndpointRow> OverlayDriver::rowOf(const EndpointPtr& endpoint) const {
    if (!endpoint || !endpoint->mac) return std::nullopt;
    EndpointRow row;
    row.stamp = stampOf(endpoint->created);
    row.mac = *endpoint->mac;
    if (endpoint->address) row.v4 = endpoint->address->address();
    if (endpoint->addressV6) row.v6 = endpoint->addressV6->address();
    return row;
}

void OverlayDriver::publish(const Network& network, Tunnel& tunnel) {
    rows_.put(networkKey(network.name()), encode(network.claim));
    std::map<EndpointId, EndpointRow> now;
    std::map<std::string, std::string> rows;
    for (const EndpointPtr& endpoint : context_.records.endpoints(network.id())) {
        const auto row = rowOf(endpoint);
        if (!row) continue;
        now.emplace(endpoint->endpointId, *row);
        rows.emplace(endpointKey(network.name(), endpoint->endpointId), encode(*row));
    }
    for (const auto& [id, row] : tunnel.published) {
        if (!now.contains(id)) unlearn(tunnel, row);
    }
    rows_.replace(endpointKey(network.name(), {}), rows);
    tunnel.published = std::move(now);
}

void OverlayDriver::publish(Tunnel& tunnel, const EndpointId& own, OverlayChanges& changes) {
    const Network& network = *tunnel.network;
    const auto row = rowOf(context_.records.endpoint(network.id(), own));
    const std::string key = endpointKey(network.name(), own);
    if (const auto known = tunnel.published.find(own); known != tunnel.published.end()) {
        changes.add(known->second);
        if (!row) unlearn(tunnel, known->second);
        tunnel.published.erase(known);
    }
    if (row) {
        changes.add(*row);
        tunnel.published.emplace(own, *row);
        rows_.put(key, encode(*row));
    } else {
        rows_.erase(key);
    }
}

// A container that asks its router for something makes itself known to the host, which would remember for minutes.
void OverlayDriver::unlearn(const Tunnel& tunnel, const EndpointRow& row) {
    std::vector<net::Neighbour> learned;
    for (const auto& address : {row.v4, row.v6, std::optional(linkLocalOf(row.mac))}) {
        if (address) learned.push_back({.link = tunnel.bridge, .address = *address});
    }
    if (const auto done = context_.netlink.deleteNeighbours(learned); !done) logDebug("{}", done.error().message);
}

void OverlayDriver::withdraw(const std::string& name) {
    rows_.erase(networkKey(name));
    rows_.replace(endpointKey(name, {}), {});
}

std::vector<std::string> OverlayDriver::warnings() const {
    const auto written = rows_.trouble();
    return written ? std::vector<std::string>() : std::vector{"overlay: " + written.error().message};
}

// Tunnels

Result<void> OverlayDriver::refresh(const NetworkPtr& record) {
    if (!record) return {};
    const TunnelPtr tunnel = tunnelOf(record->request.networkId);
    const auto lock = lockWithinCall(tunnel->mutex);
    if (!lock) return busyTunnel(record->request.networkId);
    return refresh(record, *tunnel);
}

Result<void> OverlayDriver::refresh(const NetworkPtr& listed, Tunnel& tunnel) {
    const NetworkId& id = listed->request.networkId;
    const NetworkPtr record = context_.records.network(id);
    if (tunnel.removed) return {};
    if (!record) {
        const std::lock_guard shown(shownMutex_);
        tunnel.removed = true;
        tunnels_.erase(id);
        return {};
    }
    tunnel.network.reset();
    WEFT_ASSIGN(Network network, read(record));
    OverlayAgreement agreement =
        agree(network.name(), {self_, network.claim}, view_->claimsAround(network.name()), *view_->ledger());
    if (agreement.vni != network.claim.vni) WEFT_TRY(keepVni(network, agreement.vni));
    publish(network, tunnel);

    OverlayStatus& status = tunnel.status;
    if (agreement.conflict != status.conflict) {
        if (agreement.conflict.empty()) {
            logInfo("msg=\"overlay network is whole again\" network={}", network.name());
        } else {
            logError("msg=\"overlay network is apart from other hosts\" network={} why={}", network.name(),
                     logValue(agreement.conflict));
        }
    }
    status.id = network.id();
    status.name = network.name();
    status.vni = agreement.vni;
    status.conflict = agreement.conflict;
    status.advice = agreement.advice;
    status.hosts.clear();
    for (const auto& [owner, vtep] : agreement.peers) status.hosts.push_back(vtep);
    tunnel.agreement = std::move(agreement);
    show(tunnel);
    WEFT_TRY(ensureTunnel(network, status.vni, tunnel));
    WEFT_TRY(guard());
    Tables wanted = tablesOf(
        forwarding(view_->endpoints(network.name()), tunnel.agreement.peers, network.claim, localTo(network)), tunnel);
    if (network.options.broadcast) {
        for (const auto& [owner, vtep] : tunnel.agreement.peers) {
            if (view_->isAway(owner)) continue;
            wanted.fdb.insert({.link = tunnel.link, .mac = {}, .remote = vtep});
        }
    }
    if (context_.clock.now() < settled_.load()) keepUnknown(network, tunnel.tables, wanted);
    const auto programmed = program(tunnel, Tables(tunnel.tables), wanted);
    shorten(network, tunnel);
    show(tunnel);
    WEFT_TRY(programmed);
    tunnel.network = std::move(network);
    return guard();
}

// The same for what changed, when neither the network nor its hosts did.
Result<void> OverlayDriver::refresh(Tunnel& tunnel, OverlayChanges& changes) {
    if (tunnel.removed) return {};
    const Network& network = *tunnel.network;
    for (const EndpointId& own : changes.own) publish(tunnel, own, changes);
    const auto rows = view_->endpointsAround(network.name(), changes);
    Forwarding some = forwarding(rows, tunnel.agreement.peers, network.claim, localTo(network));
    std::erase_if(some.tunnels, [&](const auto& entry) { return !changes.macs.contains(entry.first); });
    std::erase_if(some.neighbours, [&](const auto& entry) { return !changes.addresses.contains(entry.first); });
    Tables had;
    for (const MacAddress& mac : changes.macs) {
        auto entry = tunnel.tables.fdb.lower_bound({.link = tunnel.link, .mac = mac, .permanent = false});
        for (; entry != tunnel.tables.fdb.end() && entry->mac == mac; ++entry) had.fdb.insert(*entry);
    }
    for (const IpAddress& address : changes.addresses) {
        auto entry = tunnel.tables.neighbours.lower_bound({.link = tunnel.bridge, .address = address});
        for (; entry != tunnel.tables.neighbours.end() && entry->address == address; ++entry) {
            had.neighbours.insert(*entry);
        }
    }
    WEFT_TRY(program(tunnel, had, tablesOf(some, tunnel)));
    shorten(tunnel, changes.macs);
    const std::lock_guard lock(shownMutex_);
    shown_[tunnel.status.id].status = tunnel.status;
    return {};
}

// The network keeps its VNI when the host that chose it goes.
Result<void> OverlayDriver::keepVni(Network& network, uint32_t vni) {
    logWarn("msg=\"overlay network takes another VNI\" network={} was={} now={}", network.name(), network.claim.vni,
            vni);
    network.claim.vni = vni;
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(network.id(), kKeepPatience));
    const NetworkPtr current = context_.records.network(network.id());
    if (!current) return makeError(ErrorCode::NotFound, "no network " + network.id().brief());
    NetworkRecord changed = *current;
    changed.notes = notesOf(network.claim);
    return context_.records.put(std::move(changed)).wait();
}

net::VxlanSettings OverlayDriver::tunnelSettings(uint32_t vni) const {
    net::VxlanSettings settings;
    settings.vni = vni;
    settings.port = config_.port;
    settings.local = config_.vtep;
    settings.sourcePorts = config_.sourcePorts;
    // The link answers ARP and neighbour solicitations from its own neighbour table, and drops the rest of them. The
    // table is empty: the bridge has answered already what is known.
    settings.proxy = true;
    // The MTU leaves room for the outer headers: a packet that would have to be cut is a wrong MTU on the way.
    settings.df = config_.vtep.isV4() ? net::VxlanDf::Set : net::VxlanDf::Unset;
    return settings;
}

Result<void> OverlayDriver::ensureTunnel(const Network& network, uint32_t vni, Tunnel& tunnel) {
    WEFT_ASSIGN(const net::Link bridge, context_.netlink.getLink(network.record->link));
    net::VxlanSpec spec;
    spec.name = tunnelName(network.id());
    spec.alias = networkMark(network.id());
    spec.mtu = network.record->mtu;
    spec.master = bridge.index;
    spec.vxlan = tunnelSettings(vni);
    spec.port.hairpin = false;
    spec.port.isolated = false;
    spec.port.learning = false;
    spec.port.unicastFlood = false;
    spec.port.multicastFlood = network.options.broadcast;
    spec.port.broadcastFlood = network.options.broadcast;
    spec.port.neighSuppress = true;

    const auto lock = lockWithinCall(links_);
    if (!lock) return makeError(ErrorCode::Busy, "other tunnels are being made");
    auto link = context_.netlink.getLink(spec.name);
    const bool right = link && link->alias == spec.alias && link->vxlan == spec.vxlan && link->up &&
                       link->master == bridge.index && link->mtu == spec.mtu && link->port == spec.port;
    if (!right) {
        link = context_.netlink.createVxlan(spec);
        if (!link && link.error().code == ErrorCode::AlreadyExists) {
            // Of an earlier life, unless it is somebody else's: then the error names it.
            Sweep sweep(false);
            sweepTunnels(sweep);
            link = context_.netlink.createVxlan(spec);
        }
        if (!link) return link.error();
        if (!offload_) WEFT_TRY(net::setChecksumOffload(context_.netlink.netns(), spec.name, false));
    }
    if (tunnel.link == link->index && tunnel.bridge == bridge.index) return {};
    if (tunnel.link != 0 && tunnel.link != link->index) {
        // Made anew, for another VNI or as an older weftd made it: rows of others may be on their way yet.
        std::vector<net::FdbEntry> carried;
        for (net::FdbEntry entry : tunnel.tables.fdb) {
            entry.link = link->index;
            carried.push_back(entry);
        }
        WEFT_TRY(context_.netlink.setFdb(carried));
    }
    tunnel.link = link->index;
    tunnel.bridge = bridge.index;
    return readTables(tunnel);
}

LocalEndpoints OverlayDriver::localTo(const Network& network) const {
    return {[this, &network](const MacAddress& mac) {
                return mac == network.gateway || context_.records.endpointWith(network.id(), mac);
            },
            [this, &network](const IpAddress& address) {
                return context_.records.endpointWith(network.id(), address) != nullptr;
            }};
}

OverlayDriver::Tables OverlayDriver::tablesOf(const Forwarding& wanted, const Tunnel& tunnel) {
    Tables tables;
    for (const auto& [mac, vtep] : wanted.tunnels) {
        tables.fdb.insert({.link = tunnel.link, .mac = mac, .remote = vtep});
        tables.fdb.insert(behindTunnel(tunnel.link, mac));
    }
    for (const auto& [address, mac] : wanted.neighbours) {
        tables.neighbours.insert({.link = tunnel.bridge, .address = address, .mac = mac});
    }
    return tables;
}

void OverlayDriver::keepUnknown(const Network& network, const Tables& before, Tables& wanted) const {
    std::set<std::pair<MacAddress, bool>> known;
    for (const net::FdbEntry& entry : wanted.fdb) known.emplace(entry.mac, entry.bridgePort);
    for (const net::FdbEntry& entry : before.fdb) {
        if (!entry.mac.isZero() &&
            (known.contains({entry.mac, entry.bridgePort}) || context_.records.endpointWith(network.id(), entry.mac))) {
            continue;
        }
        wanted.fdb.insert(entry);
    }
    std::set<IpAddress> addresses;
    for (const net::Neighbour& entry : wanted.neighbours) addresses.insert(entry.address);
    for (const net::Neighbour& entry : before.neighbours) {
        if (addresses.contains(entry.address) || context_.records.endpointWith(network.id(), entry.address)) continue;
        wanted.neighbours.insert(entry);
    }
}

Result<void> OverlayDriver::program(Tunnel& tunnel, const Tables& had, const Tables& wanted) {
    // A MAC or address that gets another value is replaced, not removed: no packet finds it missing.
    std::set<std::pair<MacAddress, bool>> kept;
    for (const net::FdbEntry& entry : wanted.fdb) {
        if (!entry.mac.isZero()) kept.emplace(entry.mac, entry.bridgePort);
    }
    std::set<IpAddress> keptAddresses;
    for (const net::Neighbour& entry : wanted.neighbours) keptAddresses.insert(entry.address);

    auto stale = without(had.fdb, wanted.fdb);
    std::erase_if(stale, [&](const net::FdbEntry& entry) { return kept.contains({entry.mac, entry.bridgePort}); });
    auto staleNeighbours = without(had.neighbours, wanted.neighbours);
    std::erase_if(staleNeighbours, [&](const net::Neighbour& entry) { return keptAddresses.contains(entry.address); });
    // Router solicitations come to every host of the network: the kernel learns from them.
    for (const net::FdbEntry& entry : stale) {
        if (entry.bridgePort) staleNeighbours.push_back({.link = tunnel.bridge, .address = linkLocalOf(entry.mac)});
    }
    const auto fresh = without(wanted.fdb, had.fdb);
    const auto freshNeighbours = without(wanted.neighbours, had.neighbours);

    Result<void> outcome;
    const auto attempt = [&](Result<void> done) {
        if (!done && outcome) outcome = std::move(done);
    };
    attempt(context_.netlink.setFdb(fresh));
    attempt(context_.netlink.setNeighbours(freshNeighbours));
    attempt(context_.netlink.deleteNeighbours(staleNeighbours));
    attempt(context_.netlink.deleteFdb(stale));
    if (!outcome) {
        static_cast<void>(readTables(tunnel));  // some of it is done: the kernel says what
        return outcome;
    }
    for (const net::FdbEntry& entry : without(had.fdb, wanted.fdb)) {
        tunnel.tables.fdb.erase(entry);
        tunnel.count(entry, false);
    }
    for (const net::FdbEntry& entry : fresh) {
        tunnel.tables.fdb.insert(entry);
        tunnel.count(entry, true);
    }
    for (const net::Neighbour& entry : without(had.neighbours, wanted.neighbours)) {
        tunnel.tables.neighbours.erase(entry);
    }
    tunnel.tables.neighbours.insert(freshNeighbours.begin(), freshNeighbours.end());
    return {};
}

void OverlayDriver::Tunnel::count(const net::FdbEntry& entry, bool comes) {
    if (entry.bridgePort) status.remoteEndpoints += comes ? 1 : static_cast<size_t>(-1);
    if (!entry.remote) return;
    size_t& entries = remotes[*entry.remote];
    entries += comes ? 1 : static_cast<size_t>(-1);
    if (entries == 0) remotes.erase(*entry.remote);
}

void OverlayDriver::Tunnel::setTables(Tables now) {
    tables = std::move(now);
    remotes.clear();
    status.remoteEndpoints = 0;
    for (const net::FdbEntry& entry : tables.fdb) count(entry, true);
}

Result<void> OverlayDriver::readTables(Tunnel& tunnel) {
    auto now = dump(tunnel.link, tunnel.bridge);
    if (!now) {
        tunnel.setTables({});
        tunnel.link = 0;
        return now.error();
    }
    tunnel.setTables(*std::move(now));
    return {};
}

Result<OverlayDriver::Tables> OverlayDriver::dump(net::LinkIndex link, net::LinkIndex bridge) const {
    Tables tables;
    WEFT_ASSIGN(const auto fdb, context_.netlink.listFdb(link));
    tables.fdb.insert(fdb.begin(), fdb.end());
    WEFT_ASSIGN(const auto neighbours, context_.netlink.listNeighbours(bridge));
    for (const net::Neighbour& entry : neighbours) {
        if (entry.permanent) tables.neighbours.insert(entry);
    }
    return tables;
}

void OverlayDriver::shorten(const Network& network, Tunnel& tunnel) const {
    net::PortProgram* program = context_.portProgram;
    if (program == nullptr || !network.options.fastPath) return;
    tunnel.status.fastPath = true;

    net::PortProgram::Macs macs;
    for (const EndpointPtr& endpoint : context_.records.endpoints(network.id())) {
        const auto link = context_.netlink.linkIndex(endpoint->link);
        if (link && endpoint->mac) macs.emplace(*endpoint->mac, *link);
    }
    for (const net::FdbEntry& entry : tunnel.tables.fdb) {
        if (entry.bridgePort) macs.emplace(entry.mac, tunnel.link);
    }
    // The table comes first: what is attached may be an earlier weftd's, with entries of then.
    if (const auto done = program->setMacs(tunnel.bridge, macs); !done) logDebug("{}", done.error().message);
    const net::PortRules rules{.segment = tunnel.bridge, .sender = {}, .fastPath = true};
    if (const auto done = program->setPort(tunnel.link, rules); !done) logDebug("{}", done.error().message);
}

void OverlayDriver::shorten(Tunnel& tunnel, const std::set<MacAddress>& changed) const {
    net::PortProgram* program = context_.portProgram;
    if (program == nullptr || !tunnel.network->options.fastPath) return;
    for (const MacAddress& mac : changed) {
        std::optional<net::LinkIndex> port;
        if (const EndpointPtr local = context_.records.endpointWith(tunnel.network->id(), mac)) {
            if (const auto link = context_.netlink.linkIndex(local->link)) port = *link;
        } else if (tunnel.tables.fdb.contains(behindTunnel(tunnel.link, mac))) {
            port = tunnel.link;
        }
        if (!port) {
            program->removeMac(tunnel.bridge, mac);
        } else if (const auto done = program->setMac(tunnel.bridge, mac, *port); !done) {
            logDebug("{}", done.error().message);
        }
    }
}

// Reconciliation

Result<std::vector<Repair>> OverlayDriver::reconcile(bool dryRun) {
    Sweep sweep(dryRun);
    if (!dryRun) {
        findUplink();
        if (auto guarded = guard(); !guarded) sweep.fail("rule", "tunnel port", guarded.error());
    }
    {
        const std::lock_guard lock(links_);
        sweepTunnels(sweep);
    }
    std::set<std::string> forgotten = view_->networksOf(self_);
    for (const NetworkPtr& record : context_.records.networks(kMode)) {
        forgotten.erase(nameOf(*record));
        const TunnelPtr tunnel = tunnelOf(record->request.networkId);
        const std::lock_guard lock(tunnel->mutex);
        sweepNetwork(record, *tunnel, sweep);
    }
    // A create under way has said its row before it has a record.
    const std::unique_lock creating(creating_, std::try_to_lock);
    if (!creating) return sweep.take();
    // The bridge driver removes a network whose subnet was given back.
    std::set<NetworkId> gone;
    {
        const std::lock_guard lock(shownMutex_);
        for (const auto& [id, shown] : shown_) gone.insert(id);
    }
    std::erase_if(gone, [&](const NetworkId& id) { return context_.records.network(id) != nullptr; });
    for (const NetworkId& id : gone) {
        sweep.fix("tunnel", id.brief(), "removed: no such network", [&] { return removeTunnel(id); });
    }
    for (const std::string& name : forgotten) {
        if (find(name)) continue;
        sweep.fix("row", name, "withdrawn: no such network", [&]() -> Result<void> {
            withdraw(name);
            return {};
        });
    }
    return sweep.take();
}

void OverlayDriver::sweepNetwork(const NetworkPtr& record, Tunnel& tunnel, Sweep& sweep) {
    const std::string name = nameOf(*record);
    const auto link = context_.netlink.getLink(tunnelName(record->request.networkId));
    if (tunnel.link != 0 && link && link->index == tunnel.link) {
        const Tables& known = tunnel.tables;
        auto now = dump(tunnel.link, tunnel.bridge);
        if (!now) return sweep.fail("fdb", name, now.error());
        const auto differ = [&](const char* kind, size_t missing, size_t extra) {
            if (missing + extra == 0) return;
            if (!sweep.dryRun()) tunnel.status.drift += missing + extra;
            sweep.note({kind, name, std::to_string(missing) + " missing, " + std::to_string(extra) + " not ours", {}});
        };
        differ("fdb", without(known.fdb, now->fdb).size(), without(now->fdb, known.fdb).size());
        differ("neighbour", without(known.neighbours, now->neighbours).size(),
               without(now->neighbours, known.neighbours).size());
        if (!sweep.dryRun()) tunnel.setTables(*std::move(now));
    } else if (!link) {
        sweep.note({"link", tunnelName(record->request.networkId), "recreated", {}});
    }
    const net::NetNs& netns = context_.netlink.netns();
    if (link && !offload_ && net::checksumOffload(netns, link->name).value_or(false)) {
        sweep.fix("offload", link->name, "turned off",
                  [&] { return net::setChecksumOffload(netns, link->name, false); });
    }
    if (sweep.dryRun()) return;
    if (auto done = refresh(record, tunnel); !done) sweep.fail("overlay", name, done.error());
}

void OverlayDriver::sweepTunnels(Sweep& sweep) {
    const auto links = context_.netlink.listLinks({.kind = "vxlan"});
    if (!links) return sweep.fail("link", "vxlan", links.error());
    for (const net::Link& link : *links) {
        const auto network = markedNetwork(link.alias);
        // With links_ held nobody is making one.
        if (!net::isHalfMade(link) && link.alias != kProbeMark && (!network || context_.records.network(*network)))
            continue;
        sweep.fix("link", link.name, "removed: nobody's", [&] { return context_.netlink.deleteLink(link.index); });
    }
}

Result<OverlayWay> OverlayDriver::wayTo(const NetworkId& networkId, const IpAddress& address) const {
    const auto name = overlayName(networkId);
    if (!name) return makeError(ErrorCode::NotFound, "no overlay network " + networkId.brief());
    OverlayWay way;
    way.overhead = overhead();
    way.port = config_.port;
    Shown shown;
    {
        const std::lock_guard lock(shownMutex_);
        if (const auto found = shown_.find(networkId); found != shown_.end()) shown = found->second;
    }
    way.status = shown.status;
    std::optional<OverlayEndpoint> latest;
    for (const OverlayEndpoint& endpoint : view_->endpointsWith(*name, address)) {
        if (endpoint.owner != self_ && (!latest || latest->rank() < endpoint.rank())) latest = endpoint;
    }
    if (latest) {
        way.owner = latest->owner;
        way.row = latest->row;
        const auto peer = shown.agreement.peers.find(latest->owner);
        if (peer != shown.agreement.peers.end()) way.vtep = peer->second;
    }
    const auto link = context_.netlink.getLink(tunnelName(networkId));
    if (!link) return way;
    way.tunnel = *link;
    WEFT_ASSIGN(const Tables tables, dump(link->index, shown.bridge));
    for (const net::FdbEntry& entry : tables.fdb) {
        if (entry.mac.isZero() && entry.remote == way.vtep) way.floods = true;
        if (entry.mac != way.row.mac) continue;
        if (entry.bridgePort) way.atTunnel = true;
        if (entry.remote) way.remote = entry.remote;
    }
    for (const net::Neighbour& entry : tables.neighbours) {
        if (entry.address == address) way.neighbour = entry.mac;
    }
    return way;
}

std::vector<OverlayStatus> OverlayDriver::status() const {
    const std::lock_guard lock(shownMutex_);
    std::vector<OverlayStatus> all;
    for (const auto& [id, tunnel] : shown_) {
        if (!tunnel.status.name.empty()) all.push_back(tunnel.status);
    }
    return all;
}

}  // namespace weft
