#include "kv/wire.h"

#include <cassert>

namespace weft::kv {

void Writer::number(uint64_t value, int bytes) {
    for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) out_.push_back(static_cast<uint8_t>(value >> shift));
}

void Writer::text8(std::string_view text) {
    assert(text.size() <= 0xff);
    u8(static_cast<uint8_t>(text.size()));
    bytes(asBytes(text));
}

void Writer::text16(std::string_view text) {
    assert(text.size() <= 0xffff);
    u16(static_cast<uint16_t>(text.size()));
    bytes(asBytes(text));
}

void Writer::address(const Address& address) {
    u8(address.ip.isV4() ? 4 : 6);
    bytes(BytesView(address.ip.bytes()).first(address.ip.size()));
    u16(address.port);
}

void Writer::patchU16(size_t at, size_t value) {
    assert(value <= 0xffff && at + 2 <= out_.size());
    out_[at] = static_cast<uint8_t>(value >> 8);
    out_[at + 1] = static_cast<uint8_t>(value);
}

uint64_t Reader::number(size_t count) {
    uint64_t value = 0;
    for (const uint8_t byte : bytes(count)) value = value << 8 | byte;
    return value;
}

BytesView Reader::bytes(size_t count) {
    if (!ok_ || count > in_.size()) {
        ok_ = false;
        return {};
    }
    const BytesView view = in_.first(count);
    in_ = in_.subspan(count);
    return view;
}

bool Reader::flag() {
    const uint8_t value = u8();
    if (value > 1) ok_ = false;
    return value == 1;
}

std::string Reader::text8(size_t limit) {
    return text(u8(), limit);
}

std::string Reader::text16(size_t limit) {
    return text(u16(), limit);
}

std::string Reader::text(size_t length, size_t limit) {
    if (length > limit) ok_ = false;
    const BytesView view = bytes(length);
    return {reinterpret_cast<const char*>(view.data()), view.size()};
}

Address Reader::address() {
    const uint8_t family = u8();
    if (family != 4 && family != 6) ok_ = false;
    const IpFamily ipFamily = family == 4 ? IpFamily::V4 : IpFamily::V6;
    const BytesView ip = bytes(family == 4 ? 4 : 16);
    Address address;
    if (ok_) address.ip = IpAddress::fromBytes(ipFamily, ip.data());
    address.port = u16();
    return address;
}

}  // namespace weft::kv
