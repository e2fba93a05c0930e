// Big-endian integers and length-prefixed strings into and out of bytes.
#pragma once

#include <string>
#include <string_view>

#include "kv/types.h"

namespace weft::kv {

class Writer {
public:
    void u8(uint8_t value) { out_.push_back(value); }
    void u16(uint16_t value) { number(value, 2); }
    void u32(uint32_t value) { number(value, 4); }
    void u64(uint64_t value) { number(value, 8); }
    void bytes(BytesView view) { out_.insert(out_.end(), view.begin(), view.end()); }
    void id(const NodeId& id) { bytes(id.bytes); }
    // Length first, u8 or u16. The caller keeps to the limit.
    void text8(std::string_view text);
    void text16(std::string_view text);
    void address(const Address& address);  // family u8 (4 or 6), ip, port u16
    void patchU16(size_t at, size_t value);

    [[nodiscard]] size_t size() const { return out_.size(); }
    [[nodiscard]] const Bytes& view() const { return out_; }
    [[nodiscard]] Bytes take() && { return std::move(out_); }

private:
    void number(uint64_t value, int bytes);

    Bytes out_;
};

// Reads within bounds. The first failure sticks: every later read gives zero or empty, and ok() is false. Nothing is
// allocated before the bytes asked for are known to be there.
class Reader {
public:
    explicit Reader(BytesView in) : in_(in) {}

    uint8_t u8() { return static_cast<uint8_t>(number(1)); }
    uint16_t u16() { return static_cast<uint16_t>(number(2)); }
    uint32_t u32() { return static_cast<uint32_t>(number(4)); }
    uint64_t u64() { return number(8); }
    BytesView bytes(size_t count);
    template <size_t N>
    std::array<uint8_t, N> array() {
        std::array<uint8_t, N> value{};
        const BytesView view = bytes(N);
        if (ok_) std::copy(view.begin(), view.end(), value.begin());
        return value;
    }
    NodeId id() { return {array<16>()}; }
    bool flag();  // 0 or 1, else a failure
    std::string text8(size_t limit);
    std::string text16(size_t limit);
    Address address();

    void fail() { ok_ = false; }
    [[nodiscard]] bool ok() const { return ok_; }
    [[nodiscard]] size_t left() const { return ok_ ? in_.size() : 0; }
    [[nodiscard]] bool done() const { return ok_ && in_.empty(); }  // all read, nothing missing

private:
    uint64_t number(size_t count);
    std::string text(size_t length, size_t limit);

    BytesView in_;
    bool ok_ = true;
};

}  // namespace weft::kv
