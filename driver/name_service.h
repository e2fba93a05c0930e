// NameService: names of containers across hosts. Learns this host's from its engine, knows all hosts' by the gossip
// store, and answers the DNS queries that the firewall redirects from overlay networks.
//
// NAME, NAME.NETWORK, and both with the domain behind them; a container's address backwards; _PORT._PROTOCOL.NAME for
// its exposed ports. Only of networks that the asking container is on. Everything else goes on to where it was going,
// but is refused if it came from an internal network.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "base/metrics.h"
#include "base/result.h"
#include "driver/dns_message.h"
#include "driver/dns_server.h"
#include "driver/engine_names.h"
#include "drivers/overlay/overlay_driver.h"
#include "drivers/overlay/overlay_names.h"
#include "kv/service.h"
#include "net/conntrack.h"
#include "net/netns.h"

namespace weft::driver {

// Of an answer: names change hands within a second.
inline constexpr std::chrono::seconds kNameTtl{1};

// What the containers of `networks` are told; none: the query is not about their containers. Addresses come in an order
// by `random`, those on suspected hosts last.
std::optional<DnsAnswer> answerName(const OverlayNames& names, const std::vector<std::string>& networks,
                                    const std::string& domain, const DnsQuery& query, std::minstd_rand& random);

struct NameConfig {
    uint16_t port = 0;
    std::string domain;
    std::string dockerSocket;
    std::function<void()> vouch;  // queries may be redirected here (firewall.h)
};

class NameService {
public:
    // All must outlive it.
    static Result<std::unique_ptr<NameService>> start(NameConfig config, kv::Service& gossip,
                                                      const OverlayDriver& overlay, const net::NetNs& netns,
                                                      Metrics& metrics);
    ~NameService();

    // Why the names of this host's containers are not known; empty: they are.
    [[nodiscard]] std::string trouble() const { return engine_->trouble(); }
    // Why other hosts do not hear of some.
    [[nodiscard]] std::vector<std::string> warnings() const { return engine_->warnings(); }

    [[nodiscard]] const OverlayNames& names() const { return *names_; }

private:
    NameService(NameConfig config, kv::Service& gossip, const OverlayDriver& overlay, net::FlowLookup flows);

    using Place = std::tuple<uint32_t, IpAddress, IpAddress>;  // link, local, asker

    std::optional<OverlayDriver::Surroundings> around(const DnsAsker& asker);
    [[nodiscard]] std::optional<OverlayDriver::Surroundings> findAround(const DnsAsker& asker) const;
    DnsVerdict decide(const DnsAsker& asker, std::span<const uint8_t> bytes);
    Result<kv::Address> destinationOf(const DnsAsker& asker, uint16_t port);

    const NameConfig config_;
    kv::Service& gossip_;
    const OverlayDriver& overlay_;
    std::shared_ptr<OverlayNames> names_ = std::make_shared<OverlayNames>();
    std::vector<kv::WatchId> watches_;
    net::FlowLookup flows_;
    // Of the server's thread.
    std::minstd_rand random_{std::random_device{}()};
    Place lastPlace_;
    std::optional<OverlayDriver::Surroundings> lastAround_;
    std::chrono::steady_clock::time_point lastUntil_;
    std::unique_ptr<EngineNames> engine_;
    std::unique_ptr<DnsServer> server_;
};

}  // namespace weft::driver
