#include "drivers/overlay/overlay_plan.h"

#include <algorithm>
#include <tuple>

#include "drivers/names.h"

namespace weft {

namespace {

Standing standingOf(const std::vector<OverlayClaim>& claims, const LedgerFacts& ledger) {
    Standing standing;
    standing.hosts = claims.size();
    for (const auto& [owner, claim, absent] : claims) {
        if (const auto joined = ledger.joined.find(owner); joined != ledger.joined.end()) {
            ++standing.members;
            standing.firstJoined = std::min(standing.firstJoined, joined->second);
        }
        if (std::tie(claim.stamp, owner) < std::tie(standing.stamp, standing.owner)) {
            standing.stamp = claim.stamp;
            standing.owner = owner;
        }
    }
    return standing;
}

// Of the groups that `keyOf` makes of them the one that stands best.
template <typename KeyOf>
std::vector<OverlayClaim> best(const std::vector<OverlayClaim>& claims, const LedgerFacts& ledger, KeyOf keyOf) {
    std::map<decltype(keyOf(claims.front().claim)), std::vector<OverlayClaim>> groups;
    for (const OverlayClaim& claim : claims) groups[keyOf(claim.claim)].push_back(claim);
    std::vector<OverlayClaim>* winner = nullptr;
    for (auto& [key, group] : groups) {
        if (winner == nullptr || standingOf(group, ledger).betterThan(standingOf(*winner, ledger))) winner = &group;
    }
    return winner == nullptr ? std::vector<OverlayClaim>() : std::move(*winner);
}

std::vector<OverlayClaim> ofOurs(std::vector<OverlayClaim> claims, const LedgerFacts& ledger) {
    std::erase_if(claims, [&](const OverlayClaim& claim) { return ledger.strangers.contains(claim.owner); });
    return claims;
}

const auto kSubnets = [](const NetworkClaim& claim) { return claim.gateways; };
const auto kVni = [](const NetworkClaim& claim) { return claim.vni; };

const OverlayClaim& speaker(const std::vector<OverlayClaim>& claims, const Standing& standing) {
    return *std::find_if(claims.begin(), claims.end(),
                         [&](const OverlayClaim& claim) { return claim.owner == standing.owner; });
}

std::string hostsOf(const std::vector<OverlayClaim>& claims, const OverlayClaim& first) {
    const std::string others = claims.size() == 1 ? "" : " and " + std::to_string(claims.size() - 1) + " more";
    return "host " + first.claim.vtep.str() + others;
}

}  // namespace

bool Standing::betterThan(const Standing& other) const {
    return std::tie(other.members, other.hosts, firstJoined, stamp, owner) <
           std::tie(members, hosts, other.firstJoined, other.stamp, other.owner);
}

std::optional<OverlayTruth> truthOf(const std::vector<OverlayClaim>& claims, const LedgerFacts& ledger) {
    auto ours = ofOurs(claims, ledger);
    const auto isAbsent = [](const OverlayClaim& claim) { return claim.absent; };
    if (!std::all_of(ours.begin(), ours.end(), isAbsent)) std::erase_if(ours, isAbsent);
    const auto group = best(best(ours, ledger, kSubnets), ledger, kVni);
    if (group.empty()) return std::nullopt;
    const Standing standing = standingOf(group, ledger);
    return OverlayTruth{speaker(group, standing), standing};
}

OverlayAgreement agree(const std::string& network, const OverlayClaim& own, const OverlayClaims& all,
                       const LedgerFacts& ledger) {
    std::vector<OverlayClaim> claims;
    std::vector<OverlayClaim> absent;
    std::optional<OverlayClaim> stranger;
    if (const auto found = all.find(network); found != all.end()) {
        for (const OverlayClaim& claim : found->second) {
            if (claim.owner == own.owner) continue;
            if (!ledger.strangers.contains(claim.owner)) {
                (claim.absent ? absent : claims).push_back(claim);
            } else if (!stranger) {
                stranger = claim;
            }
        }
    }
    claims.push_back(own);

    OverlayAgreement agreement;
    if (stranger) {
        agreement.conflict = "host " + stranger->claim.vtep.str() +
                             " has it as well, but is of a cluster that began apart from this one and gives out the "
                             "same addresses";
        agreement.advice = "decide which of the two clusters stays: weftctl status says how the other joins it";
    }
    const auto truth = best(claims, ledger, kSubnets);
    if (truth.front().claim.gateways != own.claim.gateways) {
        const OverlayClaim& first = speaker(truth, standingOf(truth, ledger));
        agreement.conflict = hostsOf(truth, first) + " had it before with " + describeSubnets(first.claim) +
                             "; here it has " + describeSubnets(own.claim);
        agreement.advice = "remove the network on the hosts where it is wrong, and create it again there";
    }
    const auto isApart = [&](const OverlayClaim& claim) {
        return claim.claim.gateways != own.claim.gateways || claim.claim.port != own.claim.port ||
               claim.claim.vtep.family() != own.claim.vtep.family();
    };
    std::erase_if(claims, isApart);
    const auto group = best(claims, ledger, kVni);
    const Standing standing = standingOf(group, ledger);
    agreement.vni = group.front().claim.vni;

    // Frames of two networks by one VNI would mix.
    for (const auto& [name, others] : all) {
        if (name == network) continue;
        std::vector<OverlayClaim> same = ofOurs(others, ledger);
        std::erase_if(same,
                      [&](const OverlayClaim& claim) { return claim.absent || claim.claim.vni != agreement.vni; });
        if (same.empty() || !standingOf(same, ledger).betterThan(standing)) continue;
        agreement.conflict = "its VNI " + std::to_string(agreement.vni) + " is network \"" + name + "\"'s";
        agreement.advice = "remove one of the two networks on all hosts, and create it again with another -o weft.vni";
        return agreement;
    }
    for (const OverlayClaim& claim : claims) {
        if (claim.owner != own.owner) agreement.peers.emplace(claim.owner, claim.claim.vtep);
    }
    // Their kernels have the VNI that they had.
    for (const OverlayClaim& claim : absent) {
        if (!isApart(claim) && claim.claim.vni == agreement.vni) {
            agreement.peers.emplace(claim.owner, claim.claim.vtep);
        }
    }
    return agreement;
}

std::string describeSubnets(const NetworkClaim& claim) {
    std::string text;
    for (const IpPrefix& gateway : claim.gateways) {
        text += (text.empty() ? "" : ", ") + gateway.network().str() + " (gateway " + gateway.address().str() + ")";
    }
    return text;
}

std::vector<IpAddress> answeredAddresses(const EndpointRow& row) {
    std::vector<IpAddress> addresses;
    if (row.v4) addresses.push_back(*row.v4);
    if (row.v6) addresses.insert(addresses.end(), {*row.v6, linkLocalOf(row.mac)});
    return addresses;
}

Forwarding forwarding(std::vector<OverlayEndpoint> rows, const std::map<kv::NodeId, IpAddress>& peers,
                      const NetworkClaim& claim, const LocalEndpoints& local) {
    const auto contains = [&](const IpAddress& address) {
        return std::any_of(claim.gateways.begin(), claim.gateways.end(), [&](const IpPrefix& gateway) {
            return gateway.contains(address) && gateway.address() != address;
        });
    };
    std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return b.rank() < a.rank(); });
    Forwarding wanted;
    for (const auto& [owner, row, absent] : rows) {
        const auto peer = peers.find(owner);
        if (peer == peers.end() || local.hasMac(row.mac)) continue;
        if (!wanted.tunnels.emplace(row.mac, peer->second).second) continue;
        for (const IpAddress& address : answeredAddresses(row)) {
            const bool linkLocal = address == linkLocalOf(row.mac);
            if ((!linkLocal && !contains(address)) || local.hasAddress(address)) continue;
            wanted.neighbours.emplace(address, row.mac);
        }
    }
    return wanted;
}

}  // namespace weft
