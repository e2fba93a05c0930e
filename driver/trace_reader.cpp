#include "driver/trace_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "firewall/passage.h"
#include "net/ports.h"
#include "net/sysctl.h"

namespace weft::driver {

namespace {

constexpr size_t kShortestId = 4;

bool has(const EndpointInfo& endpoint, const IpAddress& address) {
    return (endpoint.address && endpoint.address->address() == address) ||
           (endpoint.addressV6 && endpoint.addressV6->address() == address);
}

bool has(const firewall::Network& network, const IpAddress& address) {
    return std::any_of(network.subnets.begin(), network.subnets.end(),
                       [&](const IpPrefix& subnet) { return subnet.contains(address); });
}

template <typename T>
std::optional<T> given(Result<T> result) {
    return result ? std::optional<T>(*std::move(result)) : std::nullopt;
}

class Reader {
public:
    Reader(const TraceSources& sources, TraceQuestion question)
        : sources_(sources), netlink_(sources.netlink), intent_(sources.bridge.intent()) {
        facts_.question = std::move(question);
    }

    Result<TraceFacts> read() {
        WEFT_TRY(findEndpoint());
        WEFT_TRY(findDestination());
        lookInside();
        WEFT_TRY(findNetwork());
        facts_.port = given(netlink_.getLink(facts_.endpoint.link));
        facts_.bridge = given(netlink_.getLink(facts_.network.bridge));
        if (sources_.portProgram != nullptr && facts_.port) {
            const auto rules = sources_.portProgram->rules(facts_.port->index);
            if (rules) facts_.sender = rules->sender;
            facts_.drops = sources_.portProgram->drops(facts_.port->index);
            facts_.drops[kDropFlood] = 0;  // its own, only too many
        }
        facts_.framesMeetRules = net::bridgeCallsIptables(facts_.destination.family());
        for (const OverlayStatus& network : sources_.overlay.status()) {
            if (network.id == facts_.network.id) facts_.fastPath = network.fastPath;
        }
        WEFT_TRY(findGoal());
        findExpected();
        facts_.obstacles = findObstacles();
        return std::move(facts_);
    }

private:
    Result<void> findEndpoint() {
        const std::string& wanted = facts_.question.container;
        const auto address = IpAddress::parse(wanted);
        std::optional<EndpointInfo> found;
        for (const Mode& mode : sources_.modes) {
            if (mode.inspectable == nullptr) continue;
            for (EndpointInfo& endpoint : mode.inspectable->endpoints()) {
                const bool named = wanted.size() >= kShortestId && endpoint.id.str().starts_with(wanted);
                if (named || (address && has(endpoint, *address))) found = endpoint;
                all_.push_back(std::move(endpoint));
            }
        }
        if (!found) {
            return makeError(ErrorCode::InvalidArgument,
                             "no container of this host is " + wanted + ": see weftctl endpoints");
        }
        facts_.endpoint = *found;
        return {};
    }

    // A container may be on several networks: all its endpoints are in one sandbox.
    [[nodiscard]] std::vector<EndpointInfo> siblings() const {
        std::vector<EndpointInfo> those;
        for (const EndpointInfo& endpoint : all_) {
            const bool same = !endpoint.sandboxKey.empty() && endpoint.sandboxKey == facts_.endpoint.sandboxKey;
            if (same || endpoint.id == facts_.endpoint.id) those.push_back(endpoint);
        }
        return those;
    }

    Result<void> findDestination() {
        const std::string& wanted = facts_.question.destination;
        if (const auto address = IpAddress::parse(wanted)) {
            facts_.destination = *address;
            return {};
        }
        for (const EndpointInfo& endpoint : siblings()) {
            const auto overlay = sources_.overlay.overlayName(endpoint.networkId);
            const auto address = overlay ? sources_.resolve(*overlay, wanted) : std::nullopt;
            if (!address) continue;
            facts_.destination = *address;
            return {};
        }
        return makeError(ErrorCode::InvalidArgument,
                         wanted + " is no address, and no container of that name is on a network of the container");
    }

    // What the container's own kernel does with it, and so which of its endpoints it leaves by.
    void lookInside() {
        if (facts_.endpoint.sandboxKey.empty()) return;
        const auto route = [&]() -> Result<net::RouteLookup> {
            WEFT_ASSIGN(const net::NetNs inside, net::NetNs::open(facts_.endpoint.sandboxKey));
            WEFT_ASSIGN(const auto netlink, net::Netlink::openIn(inside));
            WEFT_ASSIGN(const net::RouteLookup found, netlink->lookupRoute(facts_.destination));
            WEFT_ASSIGN(const net::Link link, netlink->getLink(found.link));
            facts_.leavesBy = link.name;
            for (const EndpointInfo& endpoint : siblings()) {
                if (endpoint.mac != link.mac) continue;
                facts_.endpoint = endpoint;
                facts_.leavesByWeft = true;
            }
            WEFT_ASSIGN(const auto neighbours, netlink->listNeighbours(found.link));
            for (const net::Neighbour& entry : neighbours) {
                if (entry.address == found.gateway.value_or(facts_.destination)) facts_.cached = entry.mac;
            }
            return found;
        };
        facts_.route = route();
    }

    Result<void> findNetwork() {
        const auto network = networkOf(facts_.endpoint.networkId);
        if (!network) {
            return makeError(ErrorCode::Unsupported,
                             "the container's network is neither of weft-bridge nor of "
                             "weft-overlay: weft does nothing to its packets");
        }
        facts_.network = *network;
        for (const Mode& mode : sources_.modes) {
            if (mode.inspectable == nullptr) continue;
            for (const NetworkInfo& info : mode.inspectable->networks()) {
                if (info.id == network->id) facts_.mtu = info.mtu;
            }
        }
        return {};
    }

    [[nodiscard]] std::optional<firewall::Network> networkOf(const NetworkId& id) const {
        const auto found = std::find_if(intent_.networks.begin(), intent_.networks.end(),
                                        [&](const firewall::Network& network) { return network.id == id; });
        return found == intent_.networks.end() ? std::nullopt : std::optional(*found);
    }

    [[nodiscard]] std::optional<EndpointInfo> ownerOf(const NetworkId& network, const IpAddress& address) const {
        const auto found = std::find_if(all_.begin(), all_.end(), [&](const EndpointInfo& endpoint) {
            return endpoint.networkId == network && has(endpoint, address);
        });
        return found == all_.end() ? std::nullopt : std::optional(*found);
    }

    Result<void> findGoal() {
        const IpAddress& destination = facts_.destination;
        facts_.outward = netlink_.lookupRoute(destination);
        if (facts_.outward && facts_.outward->local) {
            facts_.goal = TraceGoal::Host;
            findPublished();
            return {};
        }
        if (has(facts_.network, destination)) return findWithin();
        const auto other = std::find_if(intent_.networks.begin(), intent_.networks.end(),
                                        [&](const firewall::Network& network) { return has(network, destination); });
        if (other != intent_.networks.end()) {
            facts_.goal = TraceGoal::OtherNetwork;
            setTarget(*other, ownerOf(other->id, destination));
            return {};
        }
        facts_.goal = TraceGoal::Elsewhere;
        const char* setting = destination.isV4() ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding";
        facts_.forwarding = net::readSysctl(setting).value_or("0") != "0";
        if (!facts_.outward) return {};
        WEFT_ASSIGN(const net::Link link, netlink_.getLink(facts_.outward->link));
        facts_.outwardLink = link.name;
        std::set<std::string> ours;
        for (const firewall::Network& network : intent_.networks) ours.insert(network.bridge);
        WEFT_ASSIGN(auto engines, firewall::nftEngineBridges(ours));
        WEFT_ASSIGN(auto legacy, firewall::legacyEngineBridges(ours));
        facts_.toEngine = engines.contains(link.name) || legacy.contains(link.name);
        return {};
    }

    void setTarget(const firewall::Network& network, std::optional<EndpointInfo> target) {
        facts_.targetNetwork = network;
        if (target) facts_.targetPort = given(netlink_.getLink(target->link));
        facts_.target = std::move(target);
    }

    Result<void> findWithin() {
        if (auto target = ownerOf(facts_.network.id, facts_.destination)) {
            facts_.goal = TraceGoal::Neighbour;
            setTarget(facts_.network, std::move(target));
            return {};
        }
        facts_.goal = TraceGoal::Nobody;
        auto way = sources_.overlay.wayTo(facts_.network.id, facts_.destination);
        if (!way) return way.error().code == ErrorCode::NotFound ? Result<void>() : Result<void>(way.error());
        facts_.way = *std::move(way);
        WEFT_TRY(findHost());
        if (!facts_.host) return {};
        facts_.goal = TraceGoal::Remote;
        if (!facts_.way->vtep) return {};
        facts_.underlay = netlink_.lookupRoute(*facts_.way->vtep);
        if (!facts_.underlay) return {};
        WEFT_ASSIGN(const net::Link link, netlink_.getLink(facts_.underlay->link));
        facts_.underlayLink = link.name;
        return {};
    }

    // The host of the row that has the address; of a host that is gone the rows are hidden, and still held.
    Result<void> findHost() {
        const auto host = std::make_shared<std::optional<TraceHost>>();
        const std::string prefix = endpointKey(sources_.overlay.overlayName(facts_.network.id).value_or(""), {});
        WEFT_TRY(sources_.gossip.call([host, prefix, owner = facts_.way->owner, wanted = facts_.destination,
                                       hosts = sources_.overlay.hosts()](kv::Node& node) {
            for (const kv::Member& member : node.members()) {
                const bool isIt =
                    owner ? member.id == *owner : member.gone() && holds(node.table(), member.id, prefix, wanted);
                if (!isIt) continue;
                TraceHost& found = host->emplace();
                const auto age = [&](Clock::Monotonic then) {
                    return std::chrono::duration_cast<std::chrono::seconds>(node.now() - then);
                };
                found.name = member.record.name;
                found.address = member.record.address.ip;
                found.state = member.state;
                found.since = age(member.since);
                const auto known = hosts.find(member.id);
                found.kernelAnswers =
                    member.gone() && known != hosts.end() && known->second.presence == Presence::DaemonAway;
                if (const auto unopened = node.unopenedFrom(found.address)) found.unopened = age(*unopened);
            }
        }));
        facts_.host = *host;
        return {};
    }

    static bool holds(const kv::Table& table, const kv::NodeId& owner, const std::string& prefix,
                      const IpAddress& wanted) {
        for (const kv::Table::Summary& summary : table.summaries(owner, 0, SIZE_MAX)) {
            for (const kv::Row& row : table.rowsAt(owner, summary.key)) {
                if (row.deleted || !row.key.starts_with(prefix)) continue;
                const auto endpoint = decodeEndpoint(row.value);
                if (endpoint && (endpoint->v4 == wanted || endpoint->v6 == wanted)) return true;
            }
        }
        return false;
    }

    void findPublished() {
        for (const EndpointInfo& endpoint : all_) {
            for (const firewall::PublishedPort& port : endpoint.ports) {
                const bool here = port.hostIp == facts_.destination ||
                                  (port.hostIp.isAny() && port.hostIp.family() == facts_.destination.family());
                if (!here || port.protocol != facts_.question.protocol || port.hostPort != facts_.question.port)
                    continue;
                facts_.published = port;
                if (const auto network = networkOf(endpoint.networkId)) setTarget(*network, endpoint);
                return;
            }
        }
        if (facts_.question.port == 0) return;
        for (const IpAddress& address :
             {facts_.destination, IpAddress::any(facts_.destination.family()), IpAddress::any(IpFamily::V6)}) {
            facts_.listening = facts_.listening || net::findPortHolder(netlink_.netns(), facts_.question.protocol,
                                                                       address, facts_.question.port);
        }
    }

    // The MAC that the container should have for its next hop.
    void findExpected() {
        if (facts_.goal == TraceGoal::Neighbour) {
            facts_.expected = facts_.target->mac;
        } else if (facts_.goal == TraceGoal::Remote && facts_.way->owner) {
            facts_.expected = facts_.way->row.mac;
        } else if (facts_.bridge && facts_.route && facts_.route->gateway) {
            const auto gateway = netlink_.lookupRoute(*facts_.route->gateway);
            if (gateway && gateway->local) facts_.expected = facts_.bridge->mac;
        }
    }

    // --- rules ---

    Result<std::vector<firewall::Obstacle>> findObstacles() {
        std::vector<firewall::Obstacle> all;
        firewall::Packet packet{.in = facts_.network.bridge,
                                .source = facts_.route ? facts_.route->source : IpAddress(),
                                .destination = facts_.destination,
                                .protocol = facts_.question.protocol,
                                .port = facts_.question.port};
        if (packet.protocol == 1 && packet.destination.isV6()) packet.protocol = 58;
        if (facts_.goal == TraceGoal::Neighbour || facts_.goal == TraceGoal::Remote) {
            WEFT_TRY(meetWithin(packet, all));
        } else if (facts_.goal == TraceGoal::Host && !facts_.published) {
            packet.toLocal = true;
            WEFT_TRY(meet({firewall::Hook::Prerouting, firewall::Hook::Input}, packet, all));
        } else if (facts_.goal != TraceGoal::Nobody) {
            WEFT_TRY(meetForwarded(packet, all));
        }
        std::stable_partition(all.begin(), all.end(), [](const auto& obstacle) { return obstacle.certain; });
        return all;
    }

    static Result<void> meet(std::initializer_list<firewall::Hook> hooks, const firewall::Packet& packet,
                             std::vector<firewall::Obstacle>& all) {
        for (const firewall::Hook hook : hooks) {
            WEFT_ASSIGN(const auto found, firewall::findObstacles(hook, packet));
            all.insert(all.end(), found.begin(), found.end());
        }
        return {};
    }

    Result<void> meetWithin(firewall::Packet packet, std::vector<firewall::Obstacle>& all) {
        using firewall::Hook;
        firewall::Packet frame = packet;
        frame.in = facts_.endpoint.link;
        if (facts_.goal == TraceGoal::Neighbour) frame.out = facts_.target->link;
        if (facts_.goal == TraceGoal::Remote && facts_.way->tunnel) frame.out = facts_.way->tunnel->name;
        if (!facts_.fastPath) {
            WEFT_ASSIGN(all, firewall::findBridgeObstacles(frame));
            if (facts_.framesMeetRules) {
                WEFT_TRY(meet({Hook::Prerouting}, packet, all));
                packet.out = packet.in;
                WEFT_TRY(meet({Hook::Forward, Hook::Postrouting}, packet, all));
            }
        }
        if (facts_.goal != TraceGoal::Remote || !facts_.way->vtep || !facts_.underlay) return {};
        const firewall::Packet outer{.out = facts_.underlayLink,
                                     .source = facts_.underlay->source,
                                     .destination = *facts_.way->vtep,
                                     .protocol = 17,
                                     .port = facts_.way->port};
        return meet({Hook::Output, Hook::Postrouting}, outer, all);
    }

    Result<void> meetForwarded(firewall::Packet packet, std::vector<firewall::Obstacle>& all) {
        using firewall::Hook;
        packet.toLocal = facts_.goal == TraceGoal::Host;
        WEFT_TRY(meet({Hook::Prerouting}, packet, all));
        packet.toLocal = false;
        packet.out = facts_.targetNetwork ? facts_.targetNetwork->bridge : facts_.outwardLink;
        if (facts_.published) {
            packet.dnat = true;
            packet.destination = facts_.published->containerIp;
            packet.port = facts_.published->containerPort;
        }
        return meet({Hook::Forward, Hook::Postrouting}, packet, all);
    }

    const TraceSources& sources_;
    net::Netlink& netlink_;
    const firewall::Intent intent_;
    std::vector<EndpointInfo> all_;  // of this host
    TraceFacts facts_;
};

}  // namespace

Result<TraceFacts> readTrace(const TraceSources& sources, TraceQuestion question) {
    return Reader(sources, std::move(question)).read();
}

}  // namespace weft::driver
