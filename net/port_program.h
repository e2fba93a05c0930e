// PortProgram: what happens to frames that come in by the ports of networks' bridges, before the bridge has them.
//
// One BPF program at the ports' ingress (tc's clsact), one for all networks. At a container's port it drops what does
// not come from that container: another's MAC or address, also inside ARP and neighbour discovery, router
// advertisements and VLAN tags. What it drops it counts. Where the fast path is on it then hands frames for known MACs
// straight to the port where that MAC is; frames on this way meet no rules of the host: where br_netfilter is on, as
// the engine turns it on, they are most of what a frame between containers costs. What is not in its table takes the
// bridge, as do broadcasts, ARP, neighbour discovery, and frames for a link that is gone. So the table need not be
// complete.
//
// What is attached works on without its maker, until the link goes or another PortProgram takes its place there, which
// happens between two frames. So: first everything about a port and the MACs of its segment, then setPort.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"
#include "net/netlink.h"
#include "net/netns.h"
#include "net/port_maps.h"

struct bpf_object;

namespace weft::net {

// Of a container: what its frames may say of their sender, besides 169.254/16 and fe80::/10.
struct PortSender {
    MacAddress mac = {};
    std::optional<IpAddress> v4 = {};
    std::optional<IpAddress> v6 = {};
    // Also any other address that is not in reserve() for another port: DHCP or a router may have given it.
    bool anyAddress = false;

    bool operator==(const PortSender&) const = default;
};

struct PortRules {
    LinkIndex segment = 0;                  // the bridge
    std::optional<PortSender> sender = {};  // none: not checked
    bool fastPath = false;
    bool fewFloods = false;  // broadcasts and multicasts beyond kFloodsASecond are dropped

    bool operator==(const PortRules&) const = default;
};

// By PortDrop.
using DropCounts = std::array<uint64_t, kPortDrops>;
// "mac", "arp", ...: a label of the metric.
std::string_view dropName(PortDrop reason);
uint64_t sum(const DropCounts& counts);
std::string describe(const DropCounts& counts);  // "arp 3, mac 1"

// Any thread. Errors are the kernel's.
class PortProgram {
public:
    using Macs = std::map<MacAddress, LinkIndex>;

    // Of the fast path's table.
    static constexpr uint32_t kMostMacs = 131072;

    // For links in `ns`, which must outlive it. Some milliseconds, once. Unsupported, with the kernel's reason, where
    // BPF is not to be had.
    static Result<std::unique_ptr<PortProgram>> load(const NetNs& ns, uint32_t mostMacs = kMostMacs);
    ~PortProgram();

    // Frames that come in by this link follow these rules from now on. Counts of the program that an earlier
    // PortProgram left there are taken over.
    Result<void> setPort(LinkIndex link, const PortRules& rules);
    // Forgets the port; frames that still come are dropped. For links that are going: the program goes with them.
    void removePort(LinkIndex link);
    // Forgets ports and segments whose link is gone.
    void prune();
    // Whether setPort's program is there: an administrator may have removed it. A look into the kernel.
    [[nodiscard]] bool isAttached(LinkIndex link) const;
    // setPort again for a port whose program was removed.
    Result<void> restore(LinkIndex link);

    // Who has which address in a segment, for ports that may have any other; setPort says it of theirs. None: nobody.
    Result<void> reserve(LinkIndex segment, const IpAddress& address, std::optional<LinkIndex> owner) const;

    // The fast path's table, one MAC at a time.
    Result<void> setMac(LinkIndex segment, const MacAddress& mac, LinkIndex port);
    void removeMac(LinkIndex segment, const MacAddress& mac);
    // A segment's part of the table becomes this. What does not fit is left out, and the first of it is told.
    Result<void> setMacs(LinkIndex segment, const Macs& macs);

    // As setPort was told last.
    [[nodiscard]] std::optional<PortRules> rules(LinkIndex link) const;
    // Of one port, since it was made. Zeros for a link without the program.
    [[nodiscard]] DropCounts drops(LinkIndex link) const;
    // Of all ports there were since load().
    [[nodiscard]] DropCounts allDrops() const;

private:
    PortProgram(const NetNs& ns, bpf_object* object);
    Result<bool> makeClsact(LinkIndex link);  // false: it is there
    Result<void> attach(LinkIndex link) const;
    [[nodiscard]] DropCounts read(LinkIndex link) const;
    void forget(LinkIndex link);
    Result<void> enterMac(LinkIndex segment, const MacAddress& mac, LinkIndex port);
    void eraseMac(LinkIndex segment, const MacAddress& mac);

    struct Port {
        PortRules rules;
        DropCounts before{};  // what an earlier program had counted
    };
    struct Close {
        void operator()(bpf_object* object) const;
    };
    const NetNs* ns_;
    std::unique_ptr<bpf_object, Close> object_;
    int program_ = -1;
    uint32_t programId_ = 0;
    int portsMap_ = -1;
    int dropsMap_ = -1;
    int floodedMap_ = -1;
    int ownersMap_ = -1;
    int macsMap_ = -1;
    int linksMap_ = -1;

    mutable std::mutex mutex_;
    std::map<LinkIndex, Port> ports_;
    std::map<LinkIndex, Macs> macs_;  // by segment
    DropCounts past_{};               // of ports that are gone
};

}  // namespace weft::net
