// What the parts of one node share.
#pragma once

#include "base/clock.h"
#include "kv/config.h"
#include "kv/counters.h"
#include "kv/identity.h"
#include "kv/random.h"
#include "kv/timers.h"

namespace weft::kv {

struct Context {
    Config config;
    const Clock& clock;
    Random& random;
    const Signer& signer;
    Timers timers;
    Counters counters;
};

}  // namespace weft::kv
