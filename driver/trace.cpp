#include "driver/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/protocol.h"

namespace weft::driver {

namespace {

constexpr std::chrono::seconds kLately{30};

class Composer {
public:
    explicit Composer(const TraceFacts& facts) : facts_(facts) {}

    std::vector<Check> compose() {
        static_cast<void>(leaves() && enters() && arrives());
        return std::move(steps_);
    }

private:
    // Each step says whether the packet goes on.
    bool pass(std::string name, std::string found) {
        steps_.push_back({std::move(name), Health::Good, std::move(found), ""});
        return true;
    }
    bool doubt(std::string name, std::string found, std::string fix) {
        steps_.push_back({std::move(name), Health::Warning, std::move(found), std::move(fix)});
        return true;
    }
    bool stop(std::string name, std::string found, std::string fix) {
        steps_.push_back({std::move(name), Health::Bad, std::move(found), std::move(fix)});
        return false;
    }

    [[nodiscard]] const std::string& container() const { return facts_.question.name; }
    [[nodiscard]] std::string destination() const { return facts_.destination.str(); }
    [[nodiscard]] bool hasPort() const { return facts_.question.port != 0; }
    // "tcp port 80", "ping"
    [[nodiscard]] std::string wanted() const {
        if (!hasPort()) return "ping";
        return fmt::format("{} port {}", protocolName(facts_.question.protocol), facts_.question.port);
    }

    bool leaves() {
        if (facts_.endpoint.sandboxKey.empty()) {
            return stop("container", container() + " does not run", "docker start " + container());
        }
        if (!facts_.route) {
            if (facts_.network.internal && facts_.route.error().code == ErrorCode::Unavailable) return isInternal();
            return stop("container", fmt::format("no way to {}: {}", destination(), facts_.route.error().message),
                        "docker restart " + container());
        }
        if (!facts_.leavesByWeft) {
            doubt("container", fmt::format("leaves by {}, which is not weft's: not followed", facts_.leavesBy), "");
            return false;
        }
        const std::string hop =
            facts_.route->gateway ? "by its gateway " + facts_.route->gateway->str() : std::string("as to a neighbour");
        pass("container", fmt::format("leaves by {} from {}, {}", facts_.leavesBy, facts_.route->source.str(), hop));
        if (!facts_.cached || !facts_.expected || *facts_.cached == *facts_.expected) return true;
        // What the bridge told it is the bridge's fault, further on.
        if (facts_.way && facts_.cached == facts_.way->neighbour) return true;
        const std::string next = facts_.route->gateway.value_or(facts_.destination).str();
        return stop("neighbour",
                    fmt::format("stale: the container has {} at {}, but it is at {}", next, facts_.cached->str(),
                                facts_.expected->str()),
                    fmt::format("nsenter --net={} ip neighbour delete {} dev {}", facts_.endpoint.sandboxKey, next,
                                facts_.leavesBy));
    }

    bool isInternal() {
        return stop("network", "is internal: its containers reach each other and nothing else",
                    "docker network connect NETWORK " + container() + ", one that is not internal");
    }

    bool enters() {
        const std::string& name = facts_.network.bridge;
        if (!facts_.bridge) return stop("bridge", name + " is not there", "weftctl reconcile");
        if (!facts_.port) {
            return stop("bridge", "the host's end " + facts_.endpoint.link + " is not there",
                        "docker restart " + container());
        }
        if (facts_.port->master != facts_.bridge->index) {
            return stop("bridge", fmt::format("{} is not a port of {}", facts_.endpoint.link, name),
                        "weftctl reconcile");
        }
        if (!facts_.bridge->up || !facts_.port->up) {
            const bool bridgeDown = !facts_.bridge->up;
            return stop("bridge", (bridgeDown ? name : facts_.endpoint.link) + " is down", "weftctl reconcile");
        }
        return isItself() && pass("bridge", fmt::format("enters {} by {}", name, facts_.endpoint.link));
    }

    // What is not the container's own is dropped at its port.
    bool isItself() {
        const std::string fix = fmt::format(
            "docker network connect --driver-opt {0}=allow NETWORK {1}, or docker network create -o {0}=allow",
            kSpoofOption, container());
        if (facts_.sender && !facts_.sender->anyAddress && !isOwn(facts_.route->source)) {
            return stop("sender",
                        fmt::format("{} is not an address that {} was given: dropped at {}", facts_.route->source.str(),
                                    container(), facts_.endpoint.link),
                        fix);
        }
        const uint64_t drops = net::sum(facts_.drops);
        if (drops == 0) return true;
        return doubt("sender",
                     fmt::format("{} frames were dropped at {} because they were not its own ({})", drops,
                                 facts_.endpoint.link, net::describe(facts_.drops)),
                     fix);
    }

    [[nodiscard]] bool isOwn(const IpAddress& source) const {
        if (source == facts_.sender->v4 || source == facts_.sender->v6) return true;
        const auto linkLocal = source.isV4() ? IpPrefix::parse("169.254.0.0/16") : IpPrefix::parse("fe80::/10");
        return linkLocal->contains(source);
    }

    bool arrives() {
        switch (facts_.goal) {
            case TraceGoal::Neighbour:
                return meetsNeighbour();
            case TraceGoal::Remote:
                return meetsRemote();
            case TraceGoal::Nobody:
                return stop("destination", "no container of the network has " + destination(), "weftctl endpoints");
            case TraceGoal::Host:
                return meetsHost();
            case TraceGoal::OtherNetwork:
                return meetsOther();
            case TraceGoal::Elsewhere:
                return goesOut();
        }
        return false;
    }

    // --- the same network ---

    [[nodiscard]] bool isOpen() const {
        const auto& ports = facts_.target->ports;
        return std::any_of(ports.begin(), ports.end(), [this](const firewall::PublishedPort& port) {
            return port.protocol == facts_.question.protocol && port.containerPort == facts_.question.port;
        });
    }

    bool meetsNeighbour() {
        if (!facts_.targetPort || facts_.targetPort->master != facts_.bridge->index || !facts_.targetPort->up) {
            return stop("destination",
                        fmt::format("{} is not connected to {}", facts_.target->link, facts_.network.bridge),
                        "weftctl reconcile");
        }
        const bool apart =
            facts_.port->port.isolated.value_or(false) && facts_.targetPort->port.isolated.value_or(false);
        if (!facts_.network.icc && (apart || !isOpen())) {
            return stop("icc",
                        "the network keeps its containers apart (enable_icc=false): " + wanted() + " is not open",
                        "publish the port (docker run -p) and use the host's address");
        }
        return passesRules() && pass("destination", fmt::format("{} by {}", destination(), facts_.target->link));
    }

    bool meetsRemote() {
        return hostLives() && hasEntries() && goesThroughTunnel() && passesRules() &&
               pass("destination",
                    fmt::format("{} on {}; what its own rules do is seen there", destination(), facts_.host->name));
    }

    bool hostLives() {
        const TraceHost& host = *facts_.host;
        const std::string who = fmt::format("{} ({})", host.name, host.address.str());
        const bool unopened = host.unopened && *host.unopened < kLately;
        if (host.state != kv::MemberState::Alive && unopened) {
            return stop(
                "key",
                fmt::format("{} has {}, but has not the cluster's key: what it sends does not open, last {} s ago", who,
                            destination(), host.unopened->count()),
                fmt::format("weftctl key list on both; then the cluster's key into the --key-file of {}", host.name));
        }
        if (host.kernelAnswers) {
            return doubt("host",
                         fmt::format("{} has {}; its weftd is away for {} s, its kernel answers", who, destination(),
                                     host.since.count()),
                         fmt::format("see to weftd on {}: systemctl status weftd", host.name));
        }
        if (host.state == kv::MemberState::Dead || host.state == kv::MemberState::Left) {
            return stop("host",
                        fmt::format("{} has {}, and {} for {} s", who, destination(),
                                    host.state == kv::MemberState::Dead ? "is dead" : "has left", host.since.count()),
                        fmt::format("see to weftd on {}: systemctl status weftd", host.name));
        }
        if (host.state == kv::MemberState::Suspect) {
            return doubt("host",
                         fmt::format("{} has {}, and does not answer for {} s", who, destination(), host.since.count()),
                         "weftctl ping " + host.name);
        }
        return pass("host", fmt::format("{} has {}", who, destination()));
    }

    bool hasEntries() {
        const OverlayWay& way = *facts_.way;
        if (!way.status.conflict.empty() || !way.vtep) {
            return stop("network", way.status.conflict.empty() ? "is not joined to that host's" : way.status.conflict,
                        "weftctl overlay");
        }
        if (!way.tunnel || !way.tunnel->up) {
            return stop("tunnel", "the vxlan link is " + std::string(way.tunnel ? "down" : "not there"),
                        "weftctl reconcile");
        }
        const std::string mac = way.row.mac.str();
        if (way.neighbour && *way.neighbour != way.row.mac) {
            return stop("neighbour",
                        fmt::format("stale: the bridge has {} at {}, the store at {}", destination(),
                                    way.neighbour->str(), mac),
                        "weftctl reconcile");
        }
        if (!way.neighbour) {
            return stop("neighbour",
                        fmt::format("the bridge does not know {}, and nobody else is asked", destination()),
                        "weftctl reconcile");
        }
        pass("neighbour", fmt::format("the bridge answers that {} is at {}", destination(), mac));
        // The bridge does not flood into the tunnel what it does not know; the tunnel does, on a network with
        // broadcast.
        const bool atTunnel = way.atTunnel || facts_.fastPath;
        if (!atTunnel || (!way.remote && !way.floods)) {
            return stop("fdb", fmt::format("no entry for {} on {}", mac, atTunnel ? way.tunnel->name : "the bridge"),
                        "weftctl reconcile");
        }
        if (!way.remote) {
            return doubt("fdb", fmt::format("no entry for {} on {}: sent to all hosts", mac, way.tunnel->name),
                         "weftctl reconcile");
        }
        if (*way.remote != *way.vtep) {
            return stop(
                "fdb",
                fmt::format("stale: {} is sent to {}, the store says {}", mac, way.remote->str(), way.vtep->str()),
                "weftctl reconcile");
        }
        return pass("fdb", fmt::format("{} is behind {}", mac, way.remote->str()));
    }

    bool goesThroughTunnel() {
        const OverlayWay& way = *facts_.way;
        if (!facts_.underlay) {
            return stop("underlay", fmt::format("no route to {}: {}", way.vtep->str(), facts_.underlay.error().message),
                        "ip route get " + way.vtep->str());
        }
        pass("tunnel", fmt::format("{} wraps it, VNI {}, and sends it by {} to {} UDP port {}", way.tunnel->name,
                                   way.status.vni, facts_.underlayLink, way.vtep->str(), way.port));
        const uint32_t carried = facts_.underlay->mtu;
        const uint32_t room = carried - std::min(carried, way.overhead);
        if (facts_.mtu > room) {
            return stop(
                "mtu",
                fmt::format("packets of more than {} bytes: the network's MTU {} and {} of the tunnel are more "
                            "than the {} that {} carries",
                            room, facts_.mtu, way.overhead, carried, facts_.underlayLink),
                fmt::format("ip link set {} mtu {}, or make the network with -o com.docker.network.driver.mtu={}",
                            facts_.underlayLink, facts_.mtu + way.overhead, room));
        }
        return pass("mtu", fmt::format("{} and {} of the tunnel, of {}", facts_.mtu, way.overhead, carried));
    }

    // --- through the host ---

    bool meetsHost() {
        if (!facts_.published) {
            if (hasPort() && !facts_.listening) {
                return stop("port",
                            fmt::format("{} of {} is not published, and no program of the host has it", wanted(),
                                        destination()),
                            "docker run -p " + std::to_string(facts_.question.port) + ":PORT ...; weftctl ports");
            }
            return passesRules() && pass("destination", destination() + " is the host itself");
        }
        const firewall::PublishedPort& port = *facts_.published;
        pass("nat", fmt::format("{} goes to {} port {}", wanted(), port.containerIp.str(), port.containerPort));
        if (facts_.network.internal && facts_.targetNetwork->bridge != facts_.network.bridge) return isInternal();
        return passesRules() &&
               pass("destination", fmt::format("{} by {}", port.containerIp.str(), facts_.targetNetwork->bridge));
    }

    bool meetsOther() {
        if (facts_.network.internal) return isInternal();
        const firewall::Network& other = *facts_.targetNetwork;
        const auto mode = facts_.destination.isV4() ? other.modeV4 : other.modeV6;
        const std::string where = fmt::format("{} is of another network ({})", destination(), other.bridge);
        if (other.internal) {
            return stop("network", where + ", which is internal", "docker network connect NETWORK " + container());
        }
        const bool open = facts_.target && (!hasPort() || isOpen());
        if (mode == firewall::GatewayMode::Nat) {
            const bool published = facts_.target && hasPort() && isOpen();
            return stop(
                published ? "network" : "port",
                where + (published ? ": its published ports are open at the host's addresses only"
                                   : fmt::format(", and {} is not published", wanted())),
                published ? "weftctl ports" : "docker run -p ..., or docker network connect NETWORK " + container());
        }
        if (!open)
            return stop("port", fmt::format("{}, and {} is not published", where, wanted()), "docker run -p ...");
        return passesRules() && pass("destination", fmt::format("{} by {}", destination(), other.bridge));
    }

    bool goesOut() {
        if (facts_.network.internal) return isInternal();
        if (!facts_.forwarding) {
            const bool v4 = facts_.destination.isV4();
            return stop("forwarding", "is off",
                        fmt::format("sysctl -w net.{}=1", v4 ? "ipv4.ip_forward" : "ipv6.conf.all.forwarding"));
        }
        if (!facts_.outward) {
            return stop("route",
                        fmt::format("the host has none to {}: {}", destination(), facts_.outward.error().message),
                        "ip route");
        }
        pass("route", fmt::format("leaves the host by {}{}", facts_.outwardLink,
                                  facts_.outward->gateway ? " to " + facts_.outward->gateway->str() : std::string()));
        if (facts_.toEngine) {
            return stop("network",
                        facts_.outwardLink +
                            " is a network of the engine, which weft's containers reach at "
                            "published ports of the host only",
                        "docker network connect NETWORK " + container());
        }
        return passesRules() && translates() && pass("destination", destination() + ", if the way there goes on");
    }

    bool translates() {
        const bool v4 = facts_.destination.isV4();
        const auto mode = v4 ? facts_.network.modeV4 : facts_.network.modeV6;
        if (!facts_.network.masquerade || mode == firewall::GatewayMode::Routed) {
            return doubt(
                "nat", fmt::format("none: {} must have a route back to {}", destination(), facts_.route->source.str()),
                "");
        }
        const auto& fixed = v4 ? facts_.network.hostAddressV4 : facts_.network.hostAddressV6;
        return pass("nat", "seen from there as " + fixed.value_or(facts_.outward->source).str());
    }

    // weft's own are behind what the steps above say; these are everybody's.
    bool passesRules() {
        if (!facts_.obstacles) {
            return doubt("rules", "not read: " + facts_.obstacles.error().message, "");
        }
        if (facts_.obstacles->empty()) return pass("rules", "no filter rule drops it");
        for (const firewall::Obstacle& obstacle : *facts_.obstacles) {
            const std::string found = fmt::format("{}: {}", obstacle.place, obstacle.rule);
            if (!obstacle.certain) {
                doubt("rules", "may stop here: " + found, obstacle.fix);
                continue;
            }
            // The engine's, which weft's passage goes round.
            const bool engines = obstacle.rule == "policy drop" && obstacle.place.ends_with(" filter FORWARD");
            return stop("rules", found + (engines ? ", and weft's passage WEFT-FORWARD does not let it by" : ""),
                        engines ? "weftctl reconcile" : obstacle.fix);
        }
        return true;
    }

    const TraceFacts& facts_;
    std::vector<Check> steps_;
};

}  // namespace

std::vector<Check> composeTrace(const TraceFacts& facts) {
    return Composer(facts).compose();
}

}  // namespace weft::driver
