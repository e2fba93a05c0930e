// ReplayWindow: which packets of one sender were seen, in the manner of IPsec's (RFC 4303, 3.4.3).
#pragma once

#include <bitset>
#include <cstdint>

namespace weft::kv {

// A packet is numbered (epoch, counter). The epoch grows with each start of the sender, so a restarted sender is
// never mistaken for its own past.
class ReplayWindow {
public:
    static constexpr uint64_t kSize = 1024;  // how far packets may overtake each other

    // True once for each number within the window. Call only for packets that were authenticated.
    bool accept(uint32_t epoch, uint64_t counter) {
        if (epoch < epoch_) return false;
        if (epoch > epoch_) {
            epoch_ = epoch;
            highest_ = counter;
            seen_.reset();
            seen_.set(counter % kSize);
            return true;
        }
        if (counter > highest_) {
            if (counter - highest_ >= kSize) {
                seen_.reset();
            } else {
                for (uint64_t skipped = highest_ + 1; skipped < counter; ++skipped) seen_.reset(skipped % kSize);
            }
            highest_ = counter;
            seen_.set(counter % kSize);
            return true;
        }
        if (highest_ - counter >= kSize || seen_.test(counter % kSize)) return false;
        seen_.set(counter % kSize);
        return true;
    }

private:
    uint32_t epoch_ = 0;
    uint64_t highest_ = 0;
    std::bitset<kSize> seen_;
};

}  // namespace weft::kv
