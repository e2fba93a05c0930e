// Tunables of the gossip store. Defaults are those of memberlist's LAN profile where it has the same knob.
// n is the number of members that are not dead. "Cost" is what a larger value buys and what it is paid with.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "kv/types.h"

namespace weft::kv {

constexpr uint16_t kDefaultPort = 7950;

// Which wires are spoken (docs/gossip.md). Tests of upgrades make nodes of wire 1.
enum class WirePolicy : uint8_t {
    One,     // as weft up to c52709e
    Either,  // wire 2 with whoever speaks it; wire 1 with the others while there are any
    Two,     // --strict
};

struct Config {
    using Duration = std::chrono::milliseconds;

    std::string cluster = "weft";  // authenticated with every packet: clusters with equal keys still do not mix
    std::string nodeName;          // for people; the identity is the key pair
    Address advertise;             // where the others reach this node, UDP and TCP
    std::vector<Address> seeds;    // asked at start, and for ever while no member answers at that address

    WirePolicy wire = WirePolicy::Either;

    // The largest UDP payload: the underlay's MTU less 28 (IPv4) or 48 (IPv6). At least kMinPacketBytes.
    size_t packetBytes = 1400;

    // --- failure detector (prober.h) ---
    // One member is probed per interval. A dead member is first missed after n/(n-1) intervals on average by
    // somebody. Cost: 2 packets a node an interval.
    Duration probeInterval{1000};
    // Wait for the direct answer before others are asked to probe. About the 99th percentile of the round trip.
    Duration probeTimeout{500};
    // How many others are asked. Chance that all paths fail at packet loss p: p' = 1-(1-p)^2, p'(1-(1-p')^2)^k.
    // Zero: the stream probe alone confirms.
    int indirectProbes = 3;
    // A stream (TCP) probe goes out beside the indirect ones: UDP blocked on the path is not a dead host.
    bool streamProbe = true;

    // --- suspicion (suspicion.h) ---
    // Shortest time from suspect to dead: suspicionMult * max(1, log10(n)) * probeInterval.
    int suspicionMult = 4;
    // Longest, when nobody confirms: that times suspicionMaxMult. 1: no shrinking.
    int suspicionMaxMult = 6;
    // Lifeguard as a whole: local health, shrinking timeouts, early refutation. Off is plain SWIM, for comparison.
    bool lifeguard = true;
    // Local health (awareness.h): probe interval stretches up to this many times when this node itself is slow.
    int awarenessMax = 8;

    // --- gossip (broadcast_queue.h) ---
    // A queued message goes to gossipNodes members each interval, retransmitMult * ceil(log10(n + 1)) times in all.
    Duration gossipInterval{200};
    int gossipNodes = 3;
    int retransmitMult = 4;
    // The first copies leave after this delay (it gathers what one operation changes), not at the next interval, but
    // rounds are never closer than gossipSpacing. Cost: under constant change 1/gossipSpacing rounds a second.
    Duration gossipDelay{5};
    Duration gossipSpacing{40};
    // A dead member still hears gossip this long, so that a wrongly declared one can refute.
    Duration gossipToTheDead{30'000};
    // Queued row messages beyond this are dropped, oldest first; anti-entropy carries what was dropped.
    size_t queueLimit = 4096;

    // --- anti-entropy (sync.h) ---
    // Digest exchange with one random member; times 1 + ceil(log2(n / 32)) above 32 members. Cost in agreement: about
    // 300 bytes; in disagreement 33 bytes a member and 20 bytes a row of each owner that differs.
    Duration syncInterval{30'000};
    // Probes carry a digest of everything. When it differs and nothing changed here for syncQuiet, or when a dead
    // member is heard again, an exchange starts at once, no more often than this.
    Duration syncSpacing{1000};
    Duration syncQuiet{500};
    Duration streamTimeout{10'000};  // silence after which a stream is given up

    // --- joining and healing ---
    Duration seedInterval{2000};  // between tries of seeds that no living member answers for; jittered by half
    // Dead members are pinged: each hears about this many pings a probe interval from the whole cluster.
    int deadPings = 3;

    // --- forgetting ---
    // The longest partition that is merged row by row. A member dead this long is forgotten with its rows, so after a
    // longer absence both sides start from empty. Cost: memory, about 250 bytes a deleted row.
    std::chrono::seconds partitionLimit{24 * 3600};
    // Rows of ours under these are promises to others: of two versions the higher one is right, whoever remembers it,
    // and their tombstones are stored, too. All other rows are right as this node has them.
    std::vector<std::string> keptPrefixes{"ipam/head", "ipam/heard/", "ipam/log/", "ipam/unit/"};
    // Tombstones live for partitionLimit + tombstoneSlack: detection and one sync must fit into the slack.
    std::chrono::seconds tombstoneSlack{3600};

    // --- quotas: what one member can cost the others ---
    // Of one owner: live rows, their bytes (key, value, signature), and tombstones. A container costs one row and one
    // for each of its names, some 250 bytes each; a deletion some 300 bytes for 25 hours. See table.h for what gives
    // way.
    size_t rowsAnOwner = 32'768;
    size_t bytesAnOwner = size_t{16} << 20;
    size_t tombstonesAnOwner = 131'072;
    // Members at all and at one IP address, and how many one address may tell of in a minute.
    size_t maxMembers = 4'096;
    size_t membersAnAddress = 16;
    size_t newcomersAMinute = 1'024;
};

}  // namespace weft::kv
