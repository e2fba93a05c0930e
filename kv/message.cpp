#include "kv/message.h"

#include <utility>

#include "base/printable.h"

namespace weft::kv {

namespace {

enum class Type : uint8_t {
    Ping = 1,
    PingRequest = 2,
    Ack = 3,
    Nack = 4,
    Member = 5,
    Suspect = 6,
    Dead = 7,
    Row = 8,
    Clock = 9,
    Introduce = 10,
};

Type typeOf(const Message& message) {
    static_assert(std::variant_size_v<Message> == 10);  // in the order of Type
    return static_cast<Type>(message.index() + 1);
}

void writeBody(Writer& out, const Ping& ping) {
    out.u32(ping.sequence);
    out.id(ping.target);
    out.u64(ping.root);
}

void writeBody(Writer& out, const PingRequest& request) {
    out.u32(request.sequence);
    out.id(request.target);
    out.address(request.address);
}

void writeBody(Writer& out, const Ack& ack) {
    out.u32(ack.sequence);
    out.u64(ack.root);
}

void writeBody(Writer& out, const Nack& nack) {
    out.u32(nack.sequence);
}

template <typename Notice>
void writeNotice(Writer& out, const Notice& notice) {
    out.id(notice.target);
    out.u64(notice.incarnation);
    out.id(notice.from);
}
void writeBody(Writer& out, const SuspectNotice& notice) {
    writeNotice(out, notice);
}
void writeBody(Writer& out, const DeadNotice& notice) {
    writeNotice(out, notice);
}

void writeBody(Writer& out, const ClockNotice& clock) {
    out.u64(clock.seconds);
}

void writeBody(Writer&, const Introduce&) {}

// Braces evaluate left to right: the order of the fields is the order on the wire.
Message readBody(Type type, Reader& in) {
    switch (type) {
        case Type::Ping:
            return Ping{in.u32(), in.id(), in.u64()};
        case Type::PingRequest:
            return PingRequest{in.u32(), in.id(), in.address()};
        case Type::Ack:
            return Ack{in.u32(), in.u64()};
        case Type::Nack:
            return Nack{in.u32()};
        case Type::Member:
            return readRecord(in);
        case Type::Suspect:
            return SuspectNotice{in.id(), in.u64(), in.id()};
        case Type::Dead:
            return DeadNotice{in.id(), in.u64(), in.id()};
        case Type::Row:
            return readRow(in);
        case Type::Clock:
            return ClockNotice{in.u64()};
        case Type::Introduce:
            return Introduce{};
    }
    in.fail();
    return Nack{};
}

}  // namespace

void writeBody(Writer& out, const MemberRecord& record) {
    out.bytes(record.publicKey);
    out.u64(record.incarnation);
    out.u8(record.left ? 1 : 0);
    out.address(record.address);
    out.text8(record.signedName.empty() ? record.name : record.signedName);
    out.bytes(record.signature);
}

void writeBody(Writer& out, const Row& row) {
    out.id(row.owner);
    out.u64(row.version);
    out.u8(row.deleted ? 1 : 0);
    if (row.deleted) out.u32(row.ageSeconds);
    out.text8(row.key);
    if (!row.deleted) out.text16(row.value);
    out.bytes(row.signature);
}

MemberRecord readRecord(Reader& in) {
    MemberRecord record;
    record.publicKey = in.array<32>();
    record.incarnation = in.u64();
    record.left = in.flag();
    record.address = in.address();
    record.name = in.text8(kMaxNameBytes);
    record.signature = in.array<64>();
    if (!isPrintable(record.name)) {
        // Hosts from before this rule must not be lost in an upgrade.
        if (speaksWire2(record)) in.fail();
        record.signedName = std::exchange(record.name, NodeId::of(record.publicKey).brief());
    }
    return record;
}

Row readRow(Reader& in) {
    Row row;
    row.owner = in.id();
    row.version = in.u64();
    row.deleted = in.flag();
    if (row.deleted) row.ageSeconds = in.u32();
    row.key = in.text8(kMaxKeyBytes);
    if (!row.deleted) row.value = in.text16(kMaxRowBytes);
    row.signature = in.array<64>();
    if (!withinLimits(row.key, row.value)) in.fail();
    return row;
}

Bytes encode(const Message& message) {
    Writer out;
    out.u8(static_cast<uint8_t>(typeOf(message)));
    out.u16(0);
    std::visit([&out](const auto& body) { writeBody(out, body); }, message);
    out.patchU16(1, out.size() - kMessageHeaderBytes);
    return std::move(out).take();
}

Decoded decodeNext(Reader& in, Message& out) {
    if (in.done()) return Decoded::End;
    const uint8_t type = in.u8();
    Reader body(in.bytes(in.u16()));
    if (!in.ok()) return Decoded::Malformed;
    if (type < static_cast<uint8_t>(Type::Ping) || type > static_cast<uint8_t>(Type::Introduce)) {
        return Decoded::Unknown;
    }
    out = readBody(static_cast<Type>(type), body);
    return body.done() ? Decoded::Ok : Decoded::Malformed;
}

}  // namespace weft::kv
