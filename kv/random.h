// Randomness, injected: the same seed gives the same run in tests.
#pragma once

#include <cstdint>
#include <span>

namespace weft::kv {

class Random {
public:
    virtual ~Random() = default;
    virtual uint64_t next() = 0;
    virtual void fill(std::span<uint8_t> bytes) = 0;

    uint64_t below(uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
    double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
};

// The kernel's generator, by libsodium.
class SystemRandom final : public Random {
public:
    uint64_t next() override;
    void fill(std::span<uint8_t> bytes) override;
};

}  // namespace weft::kv
