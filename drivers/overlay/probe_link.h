// ProbeLink: a tunnel of weft's own to every other host, to see what passes: a vxlan link with a VNI of its own beside
// those of the networks, over the same UDP port and with the same settings, so that packets fare as containers' do.
//
// The link lives in a network namespace of its own, where each host has its VTEP as address. So nothing of it collides
// with the host's addresses, routes and rules, and the kernel removes it when the process ends, however that is.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string_view>
#include <thread>

#include "base/unique_fd.h"
#include "drivers/overlay/tunnel_plan.h"
#include "net/netlink.h"

namespace weft {

inline constexpr uint32_t kProbeVni = (1U << 24) - 1;
inline constexpr std::string_view kProbeLink = "wx-probe";
inline constexpr std::string_view kProbeMark = "weft tunnel probe";  // its alias
inline constexpr uint64_t kProbeStreamBytes = 256 << 10;

class ProbeLink {
public:
    // Makes the link and answers the probes of others from then on, on a thread of its own. `settings` are those of a
    // network's tunnel; `host` is the underlay's namespace, where the link is for a moment under its name and mark.
    // AlreadyExists while the link of a predecessor that was killed is not gone yet.
    static Result<std::unique_ptr<ProbeLink>> open(net::Netlink& host, net::VxlanSettings settings, uint32_t mtu);
    ~ProbeLink();

    [[nodiscard]] const IpAddress& vtep() const { return vtep_; }  // this host's

    // One thread at a time for what follows.

    // VTEPs that probes are sent to and taken from, without this host's.
    Result<void> setPeers(const std::set<IpAddress>& peers);
    Result<void> setMtu(uint32_t mtu);
    Result<void> setOffload(bool on);
    // Sends probes to a peer whose link has MTU `mtu`. Takes milliseconds when all is well, else up to some ten
    // seconds.
    TunnelFindings examine(const IpAddress& peer, uint32_t mtu);

    void stop();  // any thread: what examine() is doing ends, its findings mean nothing

private:
    explicit ProbeLink(net::NetNs ns) : ns_(std::move(ns)) {}
    Result<void> make(net::Netlink& host, net::VxlanSettings settings, uint32_t mtu);
    Result<void> listen();
    void serve();
    void answer();

    bool asks(int fd, const IpAddress& peer, size_t size, bool checksum, bool checksumBack);
    bool streams(const IpAddress& peer);

    struct Stream {
        UniqueFd fd;
        uint64_t bytes = 0;
        uint64_t hash = 0;
        Clock::Monotonic deadline;
    };
    // False when it is done with.
    static bool receive(Stream& stream);

    net::NetNs ns_;
    std::unique_ptr<net::Netlink> netlink_;  // of ns_
    IpAddress vtep_;
    net::LinkIndex link_ = 0;
    uint32_t mtu_ = 0;
    bool offload_ = true;
    std::set<IpAddress> peers_;
    uint32_t nonce_ = std::random_device{}();
    UniqueFd stopped_;    // an eventfd
    UniqueFd datagrams_;  // the answering ones
    UniqueFd listener_;
    std::thread server_;
};

}  // namespace weft
