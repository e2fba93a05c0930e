// AskerQuota: how many of something bounded askers hold, in all and each, so that one cannot hold it all. Holds memory
// only for those that hold something.
#pragma once

#include <cstddef>
#include <map>

#include "base/ip.h"

namespace weft::driver {

class AskerQuota {
public:
    AskerQuota(size_t inAll, size_t each) : inAll_(inAll), each_(each) {}

    // False, and nothing is taken: all are, or the asker has its share.
    bool take(const IpAddress& asker) {
        const auto held = held_.find(asker);
        if (taken_ >= inAll_ || (held != held_.end() && held->second >= each_)) return false;
        ++taken_;
        ++held_[asker];
        return true;
    }

    // One that was taken.
    void giveBack(const IpAddress& asker) {
        const auto held = held_.find(asker);
        if (--held->second == 0) held_.erase(held);
        --taken_;
    }

private:
    const size_t inAll_;
    const size_t each_;
    size_t taken_ = 0;
    std::map<IpAddress, size_t> held_;
};

}  // namespace weft::driver
