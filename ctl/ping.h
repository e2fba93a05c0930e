// Ping: how far another host is, measured from here: the way of gossip and the way of frames.
#pragma once

#include <chrono>
#include <vector>

#include "base/result.h"
#include "kv/types.h"

namespace weft::ctl {

struct RoundTrips {
    int sent = 0;
    std::vector<std::chrono::microseconds> times;  // of those that were answered
};

// Connects to the host's gossip port and hangs up. Nothing is sent, so no key is needed.
RoundTrips pingGossip(const kv::Address& host, int count);

// ICMP echo to the address frames are sent to. Needs CAP_NET_RAW. With `bytes` of an IP packet that may not be cut.
Result<RoundTrips> pingUnderlay(const IpAddress& host, int count, size_t bytes);

// The largest packet, headers included, that reaches the host whole: 0 if none does.
Result<size_t> findMtu(const IpAddress& host);

}  // namespace weft::ctl
