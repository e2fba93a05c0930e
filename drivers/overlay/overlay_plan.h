// What a host makes of what all hosts say of an overlay network: with whom it is in it and by which VNI, and which
// entries it wants for their containers. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/ip.h"
#include "drivers/overlay/overlay_rows.h"
#include "ipam/ledger_facts.h"
#include "kv/types.h"

namespace weft {

struct OverlayClaim {
    kv::NodeId owner;
    NetworkClaim claim;
    bool absent = false;  // of a host whose weftd is gone: it decides nothing, and is a peer where it agrees
};
using OverlayClaims = std::map<std::string, std::vector<OverlayClaim>>;  // by the network's name

struct OverlayEndpoint {
    kv::NodeId owner;
    EndpointRow row;
    bool absent = false;  // of a host whose weftd is gone: whoever else has the address comes before it

    // The greater has the address: the later one's container is there, the other's host has not noticed yet.
    [[nodiscard]] auto rank() const { return std::tuple(!absent, row.stamp, owner, row.mac, row.v4, row.v6); }
};

using ipam::LedgerFacts;

// Who said a network is so. What is so is what the better of two say, which asks, in this order, for more members of
// the ledger, more hosts, the member that joined first, the earliest stamp. So one host, whatever it says, changes
// nothing for those that were connected before.
struct Standing {
    size_t members = 0;
    size_t hosts = 0;
    size_t firstJoined = SIZE_MAX;
    uint64_t stamp = UINT64_MAX;
    kv::NodeId owner;  // of that stamp

    [[nodiscard]] bool betterThan(const Standing& other) const;
};

// What a network is: subnets by most, and within these the VNI by most.
struct OverlayTruth {
    OverlayClaim first;  // speaks for those that say so
    Standing standing;
};
// Without strangers' claims, and by those of absent hosts only where there is no other; none: nobody has it.
std::optional<OverlayTruth> truthOf(const std::vector<OverlayClaim>& claims, const LedgerFacts& ledger);

struct OverlayAgreement {
    uint32_t vni = 0;
    std::map<kv::NodeId, IpAddress> peers;  // VTEPs
    std::string conflict;                   // not empty: why some others are none,
    std::string advice;                     // and what to do

    bool operator==(const OverlayAgreement&) const = default;
};

// `own` is this host's claim; `claims` may have another of it. They must have those of the network, and those of every
// network that has a claim with a VNI in these (OverlayView::claimsAround).
//
// Hosts with equal subnets are in one network. Those of another ledger never are, for both give out the same addresses.
OverlayAgreement agree(const std::string& network, const OverlayClaim& own, const OverlayClaims& claims,
                       const LedgerFacts& ledger);

// "10.32.0.0/16 (gateway 10.32.0.1)"
std::string describeSubnets(const NetworkClaim& claim);

// Which addresses and MACs this host keeps for itself.
struct LocalEndpoints {
    std::function<bool(const MacAddress&)> hasMac;
    std::function<bool(const IpAddress&)> hasAddress;
};

// Containers of other hosts.
struct Forwarding {
    std::map<MacAddress, IpAddress> tunnels;  // the VTEP that has the MAC
    std::map<IpAddress, MacAddress> neighbours;

    bool operator==(const Forwarding&) const = default;
};

// Of rows of any order. One MAC's entries follow from the rows with that MAC, an address's from the rows that have it
// and those with a MAC of these: what a change leaves as it is need not be among them.
Forwarding forwarding(std::vector<OverlayEndpoint> rows, const std::map<kv::NodeId, IpAddress>& peers,
                      const NetworkClaim& claim, const LocalEndpoints& local);

// The row's, with the link-local one that it is answered for.
std::vector<IpAddress> answeredAddresses(const EndpointRow& row);

}  // namespace weft
