#include "drivers/host/host_driver.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "base/deadline.h"
#include "base/log.h"
#include "base/rollback.h"
#include "drivers/host/nic_state.h"
#include "drivers/host_state.h"
#include "drivers/leases.h"
#include "drivers/names.h"
#include "drivers/options.h"
#include "net/announce.h"

namespace weft {

namespace {

constexpr std::chrono::milliseconds kSweepPatience{1000};
// Of one sweep with all busy networks together: the watchdog waits for it.
constexpr std::chrono::milliseconds kPatienceOfAll{8000};
// The first PID namespace's inode, PROC_PID_INIT_INO in the kernel.
constexpr uint64_t kInitialPidNamespace = 0xEFFFFFFC;

// A NIC's own mark: unlike a link that weft made, it is never removed for want of a record.
std::string nicMark(const EndpointId& id) {
    return "weft nic " + id.str();
}

bool isNic(const EndpointRecord& endpoint) {
    return !endpoint.notes.empty();  // its NicState
}

Error notFound(std::string_view what, const std::string& brief) {
    return makeError(ErrorCode::NotFound, "no " + std::string(what) + " " + brief);
}

// Whether any process is in the namespace; true when /proc does not show all of them.
bool hasProcesses(const net::NetNs& ns) {
    struct stat info {};
    if (::stat("/proc/self/ns/pid", &info) != 0 || info.st_ino != kInitialPidNamespace) return true;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
        const std::string name = entry.path().filename();
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        if (::stat((entry.path() / "ns/net").c_str(), &info) == 0 && info.st_ino == ns.inode()) return true;
    }
    return static_cast<bool>(error);
}

}  // namespace

HostDriver::HostDriver(DriverContext context, std::string instance)
    : context_(context), instance_(std::move(instance)) {}

Result<std::unique_ptr<HostDriver>> HostDriver::create(DriverContext context) {
    WEFT_ASSIGN(const net::KernelInstance instance, context.netlink.netns().instance());
    return std::unique_ptr<HostDriver>(new HostDriver(context, instance.str()));
}

Result<NetworkPtr> HostDriver::load(const NetworkId& networkId) const {
    NetworkPtr record = context_.records.network(networkId);
    if (!record || record->mode != kMode) return notFound("network", networkId.brief());
    return record;
}

// `own` gets the NIC's addresses within the subnets: no container may have them while the host has.
Result<void> HostDriver::checkSubnets(const CreateNetworkRequest& request, const HostOptions& options,
                                      const net::Link& parent, std::vector<IpAddress>& own) {
    const auto refuse = [](const std::string& why) { return makeError(ErrorCode::InvalidArgument, why); };
    WEFT_ASSIGN(const auto addresses, context_.netlink.listAddresses(parent.index));
    const auto check = [&](bool enabled, const std::vector<IpamData>& data, IpFamily family) -> Result<void> {
        if (!enabled) return {};
        std::string lans;
        for (const net::Address& address : addresses) {
            const IpAddress& ip = address.prefix.address();
            if (ip.family() != family || ip.isLinkLocal()) continue;
            lans += (lans.empty() ? "" : " or ") + address.prefix.network().str();
        }
        if (data.empty()) return refuse("weft-host needs --subnet" + (lans.empty() ? "" : " " + lans));
        for (const IpamData& subnet : data) {
            if (subnet.pool.length() == 0) return refuse("weft-host needs --subnet" + (lans.empty() ? "" : " " + lans));
            bool matches = lans.empty();  // a NIC without addresses has a LAN that only the user knows
            for (const net::Address& address : addresses) {
                if (address.prefix.network() != subnet.pool.network()) continue;
                matches = true;
                if (!options.exclusive) own.push_back(address.prefix.address());
                if (subnet.gateway && subnet.gateway->address() == address.prefix.address()) {
                    return refuse("gateway " + subnet.gateway->address().str() + " is this host's own address on " +
                                  parent.name + ": give the LAN's router with --gateway");
                }
            }
            if (!matches) {
                return refuse("subnet " + subnet.pool.str() + " is not the LAN of " + parent.name + ": give --subnet " +
                              lans);
            }
        }
        return {};
    };
    WEFT_TRY(check(request.enableIpv4, request.ipv4, IpFamily::V4));
    WEFT_TRY(check(request.enableIpv6, request.ipv6, IpFamily::V6));
    return {};
}

Result<void> HostDriver::createNetwork(const CreateNetworkRequest& request) {
    WEFT_ASSIGN(const HostOptions options, parseHostOptions(request));
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(request.networkId));
    if (const NetworkPtr known = context_.records.network(request.networkId)) {
        if (known->mode == kMode && known->request == request) return {};
        return makeError(ErrorCode::AlreadyExists,
                         "network " + request.networkId.brief() + " exists with other settings");
    }
    auto parent =
        options.parent.empty() ? defaultRouteLink(context_.netlink) : context_.netlink.getLink(options.parent);
    if (!parent && parent.error().code == ErrorCode::NotFound && !options.parent.empty()) {
        return makeError(ErrorCode::NotFound,
                         "the host has no link " + options.parent +
                             " to be the parent; make it first, also a VLAN: ip link add link NIC name " +
                             options.parent + " type vlan id ID");
    }
    if (!parent) return parent.error().within("parent NIC");
    if (parent->loopback) return makeError(ErrorCode::InvalidArgument, "parent " + parent->name + " is the loopback");
    if (parent->master != 0) {
        return makeError(ErrorCode::InvalidArgument,
                         "parent " + parent->name + " is a port of another link: give that one as parent");
    }
    std::vector<IpAddress> own;
    WEFT_TRY(checkSubnets(request, options, *parent, own));

    Rollback undo;
    undo.push([&] { return context_.ipam.detachPools(request.networkId); });
    for (const auto* family : {&request.ipv4, &request.ipv6}) {
        for (const IpamData& subnet : *family) {
            std::vector<IpAddress> reserved;
            if (subnet.gateway) reserved.push_back(subnet.gateway->address());
            for (const auto& [name, address] : subnet.auxAddresses) reserved.push_back(address.address());
            std::copy_if(own.begin(), own.end(), std::back_inserter(reserved),
                         [&](const IpAddress& address) { return subnet.pool.contains(address); });
            WEFT_ASSIGN(const bool ours,
                        context_.ipam.attachPool(request.networkId, subnet.addressSpace, subnet.pool, reserved));
            static_cast<void>(ours);
        }
    }
    NetworkRecord record;
    record.request = request;
    record.mode = kMode;
    record.link = parent->name;
    record.mtu = options.mtu != 0 ? options.mtu : parent->mtu;
    record.created = context_.clock.wall();
    undo.push([&] { static_cast<void>(context_.records.erase(request.networkId)); });
    WEFT_TRY(context_.records.put(std::move(record)).wait());
    undo.commit();
    return {};
}

Result<void> HostDriver::deleteNetwork(const NetworkId& networkId) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(networkId));
    const NetworkPtr record = context_.records.network(networkId);
    return record && record->mode == kMode ? removeNetwork(networkId) : Result<void>();
}

// With its lock held.
Result<void> HostDriver::removeNetwork(const NetworkId& networkId) {
    for (const EndpointPtr& endpoint : context_.records.endpoints(networkId)) WEFT_TRY(release(*endpoint));
    Result<void> outcome = context_.records.erase(networkId).wait();
    if (auto detached = context_.ipam.detachPools(networkId); !detached && outcome) outcome = detached;
    return outcome;
}

std::string HostDriver::markOf(const EndpointRecord& endpoint) {
    return isNic(endpoint) ? nicMark(endpoint.endpointId) : endpointMark(endpoint.endpointId);
}

// By its mark, under whatever name: the engine renames links, and so does the kernel when it saves a NIC from a
// namespace that ends. The host's links are looked through last: they may be thousands.
HostDriver::Place HostDriver::find(const EndpointRecord& endpoint) {
    const std::string mark = markOf(endpoint);
    if (auto link = context_.netlink.getLink(endpoint.link); link && link->alias == mark) {
        return {Place::Kind::Host, std::move(*link), nullptr};
    }
    const auto marked = [&](net::Netlink& netlink) -> Result<std::optional<net::Link>> {
        WEFT_ASSIGN(const auto links, netlink.listLinks());
        const auto found =
            std::find_if(links.begin(), links.end(), [&](const net::Link& link) { return link.alias == mark; });
        return found == links.end() ? std::nullopt : std::optional(*found);
    };
    Place place;  // in doubt it lives
    if (endpoint.sandboxKey.empty()) {
        place.kind = Place::Kind::Nowhere;
    } else if (const auto ns = net::NetNs::open(endpoint.sandboxKey); !ns) {
        // Without the directory this daemon does not see the engine's sandboxes at all.
        std::error_code error;
        const bool visible = std::filesystem::exists(std::filesystem::path(endpoint.sandboxKey).parent_path(), error);
        if (visible && ns.error().code == ErrorCode::NotFound) place.kind = Place::Kind::Nowhere;
    } else if (auto sandbox = net::Netlink::openIn(*ns)) {
        auto inside = marked(**sandbox);
        if (inside && *inside) return {Place::Kind::Sandbox, std::move(**inside), std::move(*sandbox)};
        if (inside) place.kind = Place::Kind::Nowhere;
    }
    auto here = marked(context_.netlink);
    if (!here) return {};
    if (*here) return {Place::Kind::Host, std::move(**here), nullptr};
    return place;
}

bool HostDriver::nicCameBack(const EndpointRecord& endpoint, const Place& place) {
    if (place.kind != Place::Kind::Host || place.link.up || endpoint.phase != EndpointPhase::Joined) return false;
    const auto state = NicState::decode(endpoint.notes);
    return state && state->up;
}

bool HostDriver::isAlive(const EndpointRecord& endpoint) {
    if (endpoint.instance != instance_ || endpoint.phase == EndpointPhase::Left) return false;
    return endpoint.link.empty() || find(endpoint).kind != Place::Kind::Nowhere;
}

bool HostDriver::isAlive(const EndpointId& endpointId) {
    const EndpointPtr record = context_.records.endpoint(endpointId);
    return record && isAlive(*record);
}

Result<void> HostDriver::claim(const EndpointPtr& holder, const EndpointId& self, const std::string& what) {
    if (!holder || holder->endpointId == self) return {};
    // IPAM gives an address out again only when the engine has released it. So a link that is at the host is not about
    // to move into a container: it came back, and the engine's Leave was lost while no daemon ran.
    const bool cameBack = holder->phase == EndpointPhase::Joined && find(*holder).kind == Place::Kind::Host;
    if (!cameBack && isAlive(*holder)) {
        return makeError(ErrorCode::Busy, what + " is held by endpoint " + holder->endpointId.brief() + " of network " +
                                              holder->networkId.brief());
    }
    return release(*holder);
}

// A NIC is either one endpoint's alone or shared by any number. With the lock of self's network held.
Result<void> HostDriver::checkParentFree(const std::string& parent, bool exclusive, const EndpointRecord& self) {
    for (const NetworkPtr& network : context_.records.networks(kMode)) {
        if (network->link != parent) continue;
        for (const EndpointPtr& other : context_.records.endpoints(network->request.networkId)) {
            if (other->endpointId == self.endpointId || other->link.empty() || !(exclusive || isNic(*other))) continue;
            // An engine that starts after a crash removes the sandbox without a call, and runs the container again.
            if (other->networkId == self.networkId && nicCameBack(*other, find(*other))) {
                WEFT_TRY(release(*other));
                continue;
            }
            return makeError(ErrorCode::Busy, "NIC " + parent + " is " + (isNic(*other) ? "handed to" : "used by") +
                                                  " endpoint " + other->endpointId.brief() + " of network " +
                                                  other->networkId.brief());
        }
    }
    return {};
}

Result<CreateEndpointReply> HostDriver::createEndpoint(const CreateEndpointRequest& request) {
    const Deadline deadline(withinCall(RecordStore::kLockPatience));
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(request.networkId, deadline.left()));
    WEFT_ASSIGN(const NetworkPtr network, load(request.networkId));
    WEFT_ASSIGN(const HostOptions options, parseHostOptions(network->request));
    WEFT_TRY(OptionReader("weft-host", request.options, {}).check());
    if (!request.address && !request.addressV6) {
        return makeError(ErrorCode::InvalidArgument, "an endpoint of weft-host needs an address");
    }
    if (!request.ports.bindings.empty()) {
        logWarn("msg=\"weft-host maps no ports: -p is ignored\" endpoint={}", request.endpointId.brief());
    }

    EndpointRecord record;
    record.networkId = request.networkId;
    record.endpointId = request.endpointId;
    record.address = request.address;
    record.addressV6 = request.addressV6;
    record.macGiven = request.mac.has_value();
    record.mac = request.mac;
    record.link = options.exclusive ? network->link : containerEndName(request.endpointId);
    record.instance = instance_;
    record.created = record.changed = context_.clock.wall();
    CreateEndpointReply reply;

    if (const EndpointPtr known = context_.records.endpoint(request.endpointId)) {
        const bool same = known->networkId == record.networkId && known->address == record.address &&
                          known->addressV6 == record.addressV6 && known->macGiven == record.macGiven &&
                          (!record.macGiven || known->mac == record.mac);
        if (!same) {
            return makeError(ErrorCode::AlreadyExists,
                             "endpoint " + request.endpointId.brief() + " exists with other settings");
        }
        if (isAlive(*known)) {
            if (!known->macGiven) reply.mac = known->mac;
            return reply;
        }
        WEFT_TRY(release(*known));
    }

    const std::unique_lock nics(nics_, deadline.left());
    if (!nics) return makeError(ErrorCode::Busy, "other endpoints are being created");
    WEFT_TRY(checkParentFree(network->link, options.exclusive, record));
    WEFT_ASSIGN(const net::Link parent, context_.netlink.getLink(network->link));
    for (const auto& prefix : {record.address, record.addressV6}) {
        if (!prefix) continue;
        WEFT_TRY(claim(context_.records.endpointWith(record.networkId, prefix->address()), record.endpointId,
                       "address " + prefix->address().str()));
        if (options.exclusive) continue;
        WEFT_ASSIGN(const auto addresses, context_.netlink.listAddresses(parent.index));
        for (const net::Address& address : addresses) {
            if (address.prefix.address() != prefix->address()) continue;
            return makeError(ErrorCode::InvalidArgument, "address " + prefix->address().str() +
                                                             " is this host's own on " + parent.name +
                                                             " (keep it out with --ip-range)");
        }
    }
    if (options.exclusive) {
        WEFT_ASSIGN(const NicState state, readNic(context_.netlink, parent));
        record.notes = state.encode();
        if (!record.mac) record.mac = state.mac;
    } else if (!record.mac) {
        record.mac = macFromAddress(record.address, record.addressV6, record.endpointId);
    }

    Rollback undo;
    WEFT_TRY(bindLeases(context_.ipam, record));
    undo.push([&] { unbindLeases(context_.ipam, record); });
    undo.push([&] { static_cast<void>(context_.records.erase(record.networkId, record.endpointId)); });
    PendingWrite written = context_.records.put(record);
    if (options.exclusive) {
        // What the NIC had must be on disk before it can lose it.
        WEFT_TRY(written.wait());
        WEFT_TRY(context_.netlink.setAlias(parent.index, nicMark(record.endpointId)));
    } else {
        net::MacvlanSpec spec;
        spec.name = record.link;
        spec.alias = endpointMark(record.endpointId);
        spec.parent = parent.index;
        spec.mac = record.mac;
        spec.mtu = options.mtu;
        WEFT_ASSIGN(const net::Link link, context_.netlink.createMacvlan(spec));
        undo.push([&] { return context_.netlink.deleteLink(link.index); });
        WEFT_TRY(written.wait());
        undo.commit();
    }
    undo.commit();
    announce(parent, record);
    if (!record.macGiven) reply.mac = record.mac;
    return reply;
}

// Neighbours on the LAN may know the address at another MAC, of who had it before, for up to a minute; engines before
// 28 tell them nothing. Now, for later the link is out of reach.
void HostDriver::announce(const net::Link& parent, const EndpointRecord& endpoint) const {
    for (const auto& prefix : {endpoint.address, endpoint.addressV6}) {
        if (!prefix || !endpoint.mac) continue;
        const auto told =
            net::announceAddress(context_.netlink.netns(), parent.index, prefix->address(), *endpoint.mac);
        if (!told)
            logDebug("msg=\"announce address\" address={} error={}", prefix->address().str(),
                     logValue(told.error().message));
    }
}

Result<JoinReply> HostDriver::join(const JoinRequest& request) {
    const Deadline deadline(withinCall(RecordStore::kLockPatience));
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(request.networkId, deadline.left()));
    WEFT_ASSIGN(const NetworkPtr network, load(request.networkId));
    WEFT_ASSIGN(const HostOptions options, parseHostOptions(network->request));
    const EndpointPtr known = context_.records.endpoint(request.networkId, request.endpointId);
    if (!known) return notFound("endpoint", request.endpointId.brief());

    EndpointRecord record = *known;
    record.phase = EndpointPhase::Joined;
    record.sandboxKey = request.sandboxKey;
    record.changed = context_.clock.wall();
    JoinReply reply;

    // Engines up to 27 name a sandbox that is not there yet; the host's own always is.
    const auto sandbox = net::NetNs::open(request.sandboxKey);
    if (sandbox && *sandbox == context_.netlink.netns()) {
        reply.disableGatewayService = true;
        if (!known->link.empty()) WEFT_TRY(takeBack(*known));
        record.link.clear();
        record.notes.clear();
        WEFT_TRY(context_.records.put(std::move(record)).wait());
        return reply;
    }

    // Where the link went is found again through the sandbox's key: it must outlive a crash.
    WEFT_TRY(context_.records.put(std::move(record)).wait());
    reply.sourceName = known->link;
    reply.destinationPrefix = options.interfacePrefix;
    const auto gatewayOf = [](const std::vector<IpamData>& data, const std::optional<IpPrefix>& address) {
        for (const IpamData& subnet : data) {
            if (address && subnet.gateway && subnet.pool.contains(address->address())) {
                return std::optional(subnet.gateway->address());
            }
        }
        return std::optional<IpAddress>();
    };
    reply.gateway = gatewayOf(network->request.ipv4, known->address);
    reply.gatewayV6 = gatewayOf(network->request.ipv6, known->addressV6);
    reply.disableGatewayService = !reply.gateway && !reply.gatewayV6;
    return reply;
}

Result<void> HostDriver::leave(const NetworkId& networkId, const EndpointId& endpointId) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(networkId));
    const EndpointPtr known = context_.records.endpoint(networkId, endpointId);
    if (!known) return {};
    EndpointRecord record = *known;  // with its sandbox: the engine moves the link back after this answer, or fails to
    record.phase = EndpointPhase::Left;
    record.changed = context_.clock.wall();
    static_cast<void>(context_.records.put(std::move(record), Urgency::Soon));
    return {};
}

// Removes the macvlan link, or makes the NIC the host's again.
Result<void> HostDriver::takeBack(const EndpointRecord& endpoint) {
    if (endpoint.link.empty() || endpoint.instance != instance_)
        return {};  // after a reboot NICs are where they belong
    Place place = find(endpoint);
    if (!isNic(endpoint)) {
        switch (place.kind) {
            case Place::Kind::Host:
                return context_.netlink.deleteLink(place.link.index);
            case Place::Kind::Sandbox:
                return place.sandbox->deleteLink(place.link.index);
            default:
                return {};
        }
    }
    WEFT_ASSIGN(const NicState state, NicState::decode(endpoint.notes));
    if (place.kind == Place::Kind::Sandbox) {
        WEFT_TRY(place.sandbox->setDown(place.link.index));
        WEFT_TRY(place.sandbox->moveTo(place.link.index, context_.netlink.netns(), state.name));
        place = find(endpoint);
    }
    if (place.kind == Place::Kind::Host) return restoreNic(context_.netlink, place.link, state);
    // Killed between its record and its mark, it never left.
    if (auto link = context_.netlink.getLink(state.name);
        link && link->alias == state.alias && link->mac == state.mac) {
        return {};
    }
    return makeError(ErrorCode::Unavailable, "NIC " + state.name + " is neither on the host nor in its sandbox");
}

Result<void> HostDriver::release(const EndpointRecord& endpoint) {
    WEFT_TRY(takeBack(endpoint));
    PendingWrite written = context_.records.erase(endpoint.networkId, endpoint.endpointId);
    unbindLeases(context_.ipam, endpoint);
    return written.wait();
}

Result<void> HostDriver::deleteEndpoint(const NetworkId& networkId, const EndpointId& endpointId) {
    WEFT_ASSIGN(const NetworkLock lock, context_.records.lock(networkId));
    const EndpointPtr record = context_.records.endpoint(networkId, endpointId);
    return record ? release(*record) : Result<void>();
}

Result<std::vector<Repair>> HostDriver::reconcile(bool dryRun) {
    const std::lock_guard sweeping(sweeping_);
    Sweep sweep(dryRun);
    const Deadline patience(kPatienceOfAll);
    ages_.look(context_.clock);
    const std::set<NetworkId> over = givenBack(context_.ipam);
    for (const NetworkPtr& network : context_.records.networks(kMode)) {
        const NetworkId id = network->request.networkId;
        const auto lock = context_.records.lock(id, std::min(kSweepPatience, patience.left()));
        if (!lock || !context_.records.network(id)) continue;
        if (!started_) {
            if (auto restored = restoreLeases(context_.ipam, context_.records, id); !restored) {
                sweep.fail("lease", id.brief(), restored.error());
            }
        }
        for (const EndpointPtr& endpoint : context_.records.endpoints(id)) sweepEndpoint(*endpoint, sweep);
        if (over.contains(id) && context_.records.endpointCount(id) == 0) {
            sweep.fix("network", id.brief(), "removed: its subnet was given back", [&] { return removeNetwork(id); });
        }
    }
    sweepOrphans(sweep);
    if (!dryRun) started_ = true;
    return sweep.take();
}

void HostDriver::sweepEndpoint(const EndpointRecord& endpoint, Sweep& sweep) {
    const std::string name = endpoint.endpointId.brief();
    const auto letGo = [&](const std::string& why) {
        sweep.fix("endpoint", name, "released: " + why, [&] { return release(endpoint); });
    };
    const auto age = ages_.of(endpoint.changed);
    if (endpoint.instance != instance_) return letGo("made before the host restarted");
    if (endpoint.link.empty()) {
        if (endpoint.phase == EndpointPhase::Left && age > kLeftGrace) letGo("left and never deleted");
        return;
    }
    const Place place = find(endpoint);
    switch (place.kind) {
        case Place::Kind::Host:
            if (nicCameBack(endpoint, place)) return letGo("its container gave the NIC back");
            if (endpoint.phase == EndpointPhase::Left && age > kLeftGrace) return letGo("left and never deleted");
            if (endpoint.phase == EndpointPhase::Created && age > kUnjoinedGrace) return letGo("never joined");
            if (endpoint.phase == EndpointPhase::Joined && age > kUnmovedGrace) return letGo("joined and never moved");
            return;
        case Place::Kind::Sandbox:
            if (age <= kDeadGrace) return;
            if (endpoint.phase == EndpointPhase::Left) return letGo("left and never deleted");
            if (isNic(endpoint) && !hasProcesses(place.sandbox->netns())) return letGo("its sandbox has no process");
            return;
        case Place::Kind::Nowhere:
            if (!isNic(endpoint)) {
                if (age > kDeadGrace) letGo("its link is gone");
                return;
            }
            if (age > kLostGrace) {
                sweep.fix("endpoint", name, "given up: its NIC is gone", [&] {
                    unbindLeases(context_.ipam, endpoint);
                    return context_.records.erase(endpoint.networkId, endpoint.endpointId).wait();
                });
            } else if (age > kDeadGrace) {
                letGo("its NIC is not in the sandbox");
            }
            return;
        case Place::Kind::Unknown:
            return;
    }
}

// macvlan links that a killed create left behind, or that the engine moved back for an endpoint that is no more.
void HostDriver::sweepOrphans(Sweep& sweep) {
    const auto links = context_.netlink.listLinks({.kind = "macvlan"});
    if (!links) return sweep.fail("link", "macvlan", links.error());
    for (const net::Link& link : *links) {
        const auto id = markedEndpoint(link.alias);
        // Later a half-made one is being made right now.
        const bool orphan = id ? !context_.records.endpoint(*id) : !started_ && net::isHalfMade(link);
        if (!orphan) continue;
        sweep.fix("link", link.name, "removed: nobody's", [&] { return context_.netlink.deleteLink(link.index); });
    }
}

}  // namespace weft
