// Trace: what happens to one packet of a container, step by step, and where it would stop. Nothing is sent: the answer
// is what records, store and kernel say now.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "driver/doctor.h"
#include "drivers/inspect.h"
#include "drivers/overlay/overlay_driver.h"
#include "firewall/firewall.h"
#include "firewall/packet_walk.h"
#include "kv/member.h"
#include "net/netlink.h"
#include "net/port_program.h"

namespace weft::driver {

struct TraceQuestion {
    std::string container;    // an endpoint's id, the beginning of one, or its address
    std::string name;         // what to call it
    std::string destination;  // an address, or the name of a container on an overlay network of it
    uint8_t protocol = 1;     // ICMP, TCP, UDP or SCTP
    uint16_t port = 0;
};

// Where the packet is going to.
enum class TraceGoal : uint8_t {
    Neighbour,     // a container of the same network on this host
    Remote,        // one on another host
    Nobody,        // an address of the network that no container has
    Host,          // an address of this host
    OtherNetwork,  // an address in another network of weft
    Elsewhere,
};

struct TraceHost {
    std::string name;
    IpAddress address;
    kv::MemberState state = kv::MemberState::Alive;
    bool kernelAnswers = false;                    // though its weftd is gone
    std::chrono::seconds since{};                  // in that state
    std::optional<std::chrono::seconds> unopened;  // since a packet of it came that did not open
};

// All that was read on the way. What is not on the way is not read.
struct TraceFacts {
    TraceQuestion question;
    IpAddress destination;
    TraceGoal goal = TraceGoal::Elsewhere;

    // The container.
    EndpointInfo endpoint;
    firewall::Network network;
    uint32_t mtu = 0;
    Result<net::RouteLookup> route = net::RouteLookup{};  // its own
    std::string leavesBy;                                 // link in its namespace
    bool leavesByWeft = false;
    std::optional<MacAddress> cached;    // of the next hop, as its kernel has it
    std::optional<MacAddress> expected;  // and as it is

    // Its network on this host.
    std::optional<net::Link> port;  // the host's end
    std::optional<net::Link> bridge;
    std::optional<net::PortSender> sender;  // as what it may send; none: as anybody
    net::DropCounts drops{};                // what it sent otherwise
    bool fastPath = false;                  // to a container that is known past bridge and rules
    bool framesMeetRules = false;           // br_netfilter

    // Who has the destination, for Neighbour and OtherNetwork; or the published port's container, for Host.
    std::optional<EndpointInfo> target;
    std::optional<firewall::Network> targetNetwork;
    std::optional<net::Link> targetPort;
    std::optional<firewall::PublishedPort> published;  // for Host: the mapping
    bool listening = false;                            // for Host: a program of the host has the port

    // Remote.
    std::optional<OverlayWay> way;
    std::optional<TraceHost> host;
    Result<net::RouteLookup> underlay = net::RouteLookup{};
    std::string underlayLink;

    // Elsewhere.
    Result<net::RouteLookup> outward = net::RouteLookup{};
    std::string outwardLink;
    bool forwarding = true;
    bool toEngine = false;  // outwardLink is a bridge of the engine

    Result<std::vector<firewall::Obstacle>> obstacles = std::vector<firewall::Obstacle>{};
};

// The steps; Bad: the packet stops there, and the step is the last one. Warning: it may.
std::vector<Check> composeTrace(const TraceFacts& facts);

}  // namespace weft::driver
