// What the store counts, for metrics and tests. Only grow.
#pragma once

#include <cstdint>

namespace weft::kv {

struct Counters {
    uint64_t packetsSent = 0, packetsReceived = 0, bytesSent = 0, bytesReceived = 0;

    // Dropped on arrival.
    uint64_t unknownKey = 0;      // sealed with a key that is not in the ring, or not of this protocol
    uint64_t forged = 0;          // did not open: wrong key, cluster, receiver, or damaged
    uint64_t replayed = 0;        // opened, but seen before, too old, or for another receiver
    uint64_t outdated = 0;        // for an earlier life of this node, or from one of the sender's that is not known
    uint64_t oldWire = 0;         // of wire 1, which is not spoken here any more
    uint64_t malformed = 0;       // opened, but not a message of this version
    uint64_t badSignature = 0;    // a row or record that its owner did not sign
    uint64_t unknownOwner = 0;    // a row of a node not heard of yet; anti-entropy brings it later
    uint64_t unknownMessage = 0;  // of a newer version; skipped

    uint64_t streamsAccepted = 0, streamsRefused = 0, streamsFailed = 0, streamBytesSent = 0;

    uint64_t probes = 0, probesFailed = 0;
    uint64_t suspected = 0;  // this node began to suspect by its own probe
    uint64_t declaredDead = 0;
    uint64_t refuted = 0;  // this node was suspected and answered

    uint64_t rowsApplied = 0, rowsStale = 0, rowsReasserted = 0;
    uint64_t rowsBeyondQuota = 0, membersRefused = 0;
    uint64_t broadcastsDropped = 0;
    uint64_t syncsStarted = 0, syncsEqual = 0, syncsFinished = 0;
};

}  // namespace weft::kv
