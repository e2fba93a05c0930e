// DnsServer: takes the DNS queries that the firewall redirects here from containers, over UDP and TCP, and answers them
// or passes them on, octet for octet, to where they were going.
//
// One thread. Datagrams wait in one of several queues by their sender, which get turns, so that who sends more than can
// be answered fills up and delays its own queue alone. A query passed on over UDP holds a socket of its own until it is
// answered or kPassTimeout is over; a TCP connection whose first query is passed on becomes a plain relay. Both are
// bounded, in all and for one asker, so that a flood costs its sender's queries alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/ip.h"
#include "base/metrics.h"
#include "base/result.h"
#include "kv/types.h"

namespace weft::driver {

struct DnsAsker {
    kv::Address address;
    IpAddress local;    // of this host, to which it was redirected
    uint32_t link = 0;  // index of the link the query came in by; 0: not known (TCP)
    bool tcp = false;
};

struct DnsVerdict {
    enum class Kind : uint8_t { Answer, PassOn, Drop };

    Kind kind = Kind::Drop;
    std::vector<uint8_t> reply;  // of Answer
};

struct DnsHooks {
    std::function<DnsVerdict(const DnsAsker& asker, std::span<const uint8_t> query)> decide;
    // Whether anybody with these addresses may connect.
    std::function<bool(const DnsAsker& asker)> admits;
    // Where the query, over UDP, was going. Unavailable: it was for this host itself.
    std::function<Result<kv::Address>(const DnsAsker& asker, uint16_t port)> destinationOf;
    // Called every kVouchEvery while the server answers.
    std::function<void()> vouch = [] {};
};

class DnsServer {
public:
    static constexpr size_t kQueues = 64;  // of each family; a power of two
    static constexpr size_t kMaxPassed = 1024;
    static constexpr size_t kMaxPassedPerAsker = 128;
    static constexpr size_t kMaxStreams = 128;
    static constexpr size_t kMaxStreamsPerAsker = 16;
    static constexpr std::chrono::milliseconds kVouchEvery{200};
    static constexpr std::chrono::seconds kPassTimeout{5};
    static constexpr std::chrono::seconds kStreamTimeout{10};  // without a word

    // Listens on every address, both families (IPv4 alone where there is no IPv6); port 0: any. Busy when the port is
    // taken. The hooks run on the server's thread.
    static Result<std::unique_ptr<DnsServer>> start(uint16_t port, DnsHooks hooks, Metrics& metrics);
    ~DnsServer();

    [[nodiscard]] uint16_t port() const;

private:
    struct Impl;
    explicit DnsServer(std::unique_ptr<Impl> impl);

    std::unique_ptr<Impl> impl_;
};

}  // namespace weft::driver
