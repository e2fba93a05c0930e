// The messages inside packets. Byte layout: docs/gossip.md.
//
// A packet's content is messages one after the other: type u8 | length u16 | body. A type this version does not know is
// skipped by its length. A body that is shorter or longer than its type says is malformed.
#pragma once

#include <optional>
#include <variant>

#include "kv/member.h"
#include "kv/row.h"
#include "kv/wire.h"

namespace weft::kv {

// `root` in Ping and Ack: the sender's Node::digest(), or zero for "not told".
struct Ping {
    uint32_t sequence = 0;
    NodeId target;  // a packet that reached a host with another identity is not answered
    uint64_t root = 0;
    bool operator==(const Ping&) const = default;
};
struct PingRequest {
    uint32_t sequence = 0;
    NodeId target;
    Address address;
    bool operator==(const PingRequest&) const = default;
};
struct Ack {
    uint32_t sequence = 0;
    uint64_t root = 0;
    bool operator==(const Ack&) const = default;
};
// The asked helper lives but got no answer either.
struct Nack {
    uint32_t sequence = 0;
    bool operator==(const Nack&) const = default;
};
// Speak of one incarnation only: a record signed later makes them void.
struct SuspectNotice {
    NodeId target;
    uint64_t incarnation = 0;
    NodeId from;
    bool operator==(const SuspectNotice&) const = default;
};
struct DeadNotice {
    NodeId target;
    uint64_t incarnation = 0;
    NodeId from;
    bool operator==(const DeadNotice&) const = default;
};

// The sender's wall clock, with its acks. To members of wire 2 only.
struct ClockNotice {
    uint64_t seconds = 0;  // since 1970
    bool operator==(const ClockNotice&) const = default;
};
// "Your packet was for an earlier life of mine, or is from a later one of yours than I know": the receiver sends its
// record. Comes with the sender's own. To members of wire 2 only.
struct Introduce {
    bool operator==(const Introduce&) const = default;
};

using Message =
    std::variant<Ping, PingRequest, Ack, Nack, MemberRecord, SuspectNotice, DeadNotice, Row, ClockNotice, Introduce>;

constexpr size_t kMessageHeaderBytes = 3;

// With its header.
Bytes encode(const Message& message);

enum class Decoded { Ok, Unknown, Malformed, End };
// Takes the next message off `in`.
Decoded decodeNext(Reader& in, Message& out);

// Bodies that stream frames share.
void writeBody(Writer& out, const MemberRecord& record);
void writeBody(Writer& out, const Row& row);
MemberRecord readRecord(Reader& in);
Row readRow(Reader& in);

}  // namespace weft::kv
