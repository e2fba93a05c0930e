#include "kv/random.h"

#include <sodium.h>

namespace weft::kv {

uint64_t SystemRandom::next() {
    uint64_t value = 0;
    randombytes_buf(&value, sizeof value);
    return value;
}

void SystemRandom::fill(std::span<uint8_t> bytes) {
    randombytes_buf(bytes.data(), bytes.size());
}

}  // namespace weft::kv
