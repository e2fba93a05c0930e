// Netlink: links, addresses, routes, forwarding entries and neighbours of one network namespace, by rtnetlink.
//
// Bound to a namespace when opened, usable from any thread at once: each request takes a socket from a small pool, so
// a slow link removal does not hold up a lookup (the kernel serialises changes under its RTNL lock anyway).
//
// Creating what exists with equal identity succeeds (adoption, see each call); deleting what is absent succeeds.
// Errors: codes by errnoError() with the kernel's errno, the message ending in the kernel's extended-ack text if it
// gave one; NotFound when a link named by index or name is absent; Timeout when the kernel gave no answer in 5 s.
// Every call blocks for the kernel only. Lists repeat a dump that changed under them, a few times at most, then Busy.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "net/netns.h"

namespace weft::net {

using LinkIndex = int;  // 0: none

inline constexpr size_t kMaxLinkName = 15;

// Settings of a bridge port; an unset one keeps the kernel's value.
struct PortFlags {
    std::optional<bool> hairpin = {};       // may send a frame back where it came from
    std::optional<bool> isolated = {};      // isolated ports do not reach each other
    std::optional<bool> learning = {};      // source MACs go into the FDB
    std::optional<bool> unicastFlood = {};  // unknown unicast leaves here
    std::optional<bool> multicastFlood = {};
    std::optional<bool> broadcastFlood = {};
    std::optional<bool> neighSuppress = {};  // the bridge answers ARP/ND from its neighbour table

    bool operator==(const PortFlags&) const = default;
};

enum class VxlanDf : uint8_t { Unset, Set, Inherit };

struct VxlanSettings {
    uint32_t vni = 0;
    uint16_t port = 4789;                 // UDP destination port
    std::optional<IpAddress> local = {};  // source address; its family is the underlay's. None: IPv4, chosen by route
    LinkIndex parent = 0;                 // underlay link; 0: by route
    uint8_t ttl = 64;                     // of the outer packet; 0: the host's default
    VxlanDf df = VxlanDf::Unset;          // as reported by kernels that report it
    bool learning = false;                // MAC to VTEP from received frames
    bool external = false;                // metadata mode
    bool proxy = false;                   // the vxlan link answers ARP and ND itself, and sends neither on
    bool udpCsum = true;                  // IPv4 underlay: send UDP checksums
    bool udp6ZeroCsumTx = false;          // IPv6 underlay: send without
    bool udp6ZeroCsumRx = false;          // IPv6 underlay: accept without
    std::optional<std::pair<uint16_t, uint16_t>> sourcePorts = {};  // low, high; none: ephemeral range

    bool operator==(const VxlanSettings&) const = default;
};

// A link as the kernel shows it.
struct Link {
    LinkIndex index = 0;
    std::string name = {};
    std::string kind = {};  // "bridge", "veth", "vxlan", "macvlan", ...; empty for hardware and lo
    std::string alias = {};
    MacAddress mac = {};
    uint32_t mtu = 0;
    uint32_t group = 0;
    bool up = false;          // IFF_UP: told to work
    bool running = false;     // IFF_LOWER_UP: has a carrier
    bool wasRunning = false;  // has had one since it was made; always false of macvlan links
    bool loopback = false;
    LinkIndex master = 0;                       // the bridge it is a port of
    LinkIndex parent = 0;                       // veth: the other end; macvlan, vxlan: the underlay link
    std::optional<int32_t> parentNetnsId = {};  // set: parent is in another namespace, an index there
    PortFlags port = {};                        // set if it is a bridge port
    std::optional<VxlanSettings> vxlan = {};
};

// Since the link was made. What a container receives its host's end of the pair sends.
struct LinkTraffic {
    uint64_t receivedBytes = 0;
    uint64_t sentBytes = 0;
};

// The kernel takes no alias with a creation, only a group; so what has weft's group and no alias is weft's, left by a
// kill between the two.
bool isHalfMade(const Link& link);
// Whether weft made it under this alias, or half.
bool isOwn(const Link& link, std::string_view alias);

struct BridgeSpec {
    std::string name = {};
    std::string alias = {};  // the owner's mark; must not be empty
    uint32_t mtu = 1500;
    std::optional<MacAddress> mac = {};  // none: the kernel's choice. A set one also stays when ports come and go
    bool multicastSnooping = false;  // off: multicast is flooded; without a querier snooping loses IPv6 ND after 260 s
    bool up = true;
};

struct VethSpec {
    std::string name = {};      // the end that stays
    std::string peerName = {};  // the end that is handed over; left down
    std::string alias = {};     // of `name`
    std::string peerAlias = {};
    uint32_t mtu = 1500;  // of both
    std::optional<MacAddress> mac = {};
    std::optional<MacAddress> peerMac = {};
    LinkIndex master = 0;
    PortFlags port = {};  // with a master
    bool up = true;       // `name` only
};

enum class MacvlanMode : uint8_t { Private, Vepa, Bridge, Passthru };

struct MacvlanSpec {
    std::string name = {};
    std::string alias = {};
    LinkIndex parent = 0;
    MacvlanMode mode = MacvlanMode::Bridge;
    std::optional<MacAddress> mac = {};
    uint32_t mtu = 0;  // 0: the parent's
};

struct VxlanSpec {
    std::string name = {};
    std::string alias = {};
    VxlanSettings vxlan = {};
    std::optional<MacAddress> mac = {};
    uint32_t mtu = 0;  // 0: the kernel's choice
    LinkIndex master = 0;
    PortFlags port = {};
    bool up = true;
};

struct LinkFilter {
    std::string kind = {};  // empty: any
    LinkIndex master = 0;   // 0: any
};

struct Address {
    LinkIndex link = 0;
    IpPrefix prefix = {};  // address with the subnet's length
    bool noPrefixRoute = false;
    bool noDad = false;      // IPv6: usable at once
    bool tentative = false;  // reported only
    bool dadFailed = false;  // reported only
};

inline constexpr uint32_t kMainTable = 254;

struct Route {
    IpPrefix destination = {};  // length 0: default
    std::optional<IpAddress> gateway = {};
    LinkIndex link = 0;  // of the first hop if it has several
    std::optional<IpAddress> source = {};
    uint32_t metric = 0;  // smaller wins
    uint32_t mtu = 0;     // 0: the link's
    uint32_t table = kMainTable;
    uint8_t protocol = 3;  // RTPROT_BOOT; 2 is the kernel's own
    bool linkScope = false;
};

// Which way a packet to an address would go.
struct RouteLookup {
    LinkIndex link = 0;
    IpAddress source = {};
    std::optional<IpAddress> gateway = {};
    uint32_t mtu = 0;    // of the path: the route's if it names one, else the link's
    bool local = false;  // the address is this namespace's own
};

// A forwarding entry. On a vxlan link: mac is behind the VTEP `remote`. With bridgePort: the entry is the bridge's,
// for the port `link`. A zero MAC on a vxlan link is its default destination; one MAC may have several remotes then.
struct FdbEntry {
    LinkIndex link = 0;
    MacAddress mac = {};
    std::optional<IpAddress> remote = {};
    bool bridgePort = false;  // NTF_MASTER rather than NTF_SELF
    bool permanent = true;    // listed: not learned
    bool sticky = false;      // of a bridge: a frame with this MAC as sender elsewhere does not move it

    auto operator<=>(const FdbEntry&) const = default;
};

struct Neighbour {
    LinkIndex link = 0;
    IpAddress address = {};
    MacAddress mac = {};
    bool permanent = true;

    auto operator<=>(const Neighbour&) const = default;
};

class Netlink {
public:
    static Result<std::unique_ptr<Netlink>> open();  // the calling thread's namespace
    static Result<std::unique_ptr<Netlink>> openIn(const NetNs& ns);
    ~Netlink();
    Netlink(const Netlink&) = delete;
    Netlink& operator=(const Netlink&) = delete;

    [[nodiscard]] const NetNs& netns() const;

    // Links. get*: NotFound when absent.
    Result<Link> getLink(std::string_view name);
    Result<Link> getLink(LinkIndex index);
    // NotFound when absent. A few microseconds: neither a message is made nor the RTNL lock taken.
    [[nodiscard]] Result<LinkIndex> linkIndex(std::string_view name) const;
    Result<std::vector<Link>> listLinks(const LinkFilter& filter = {});
    Result<std::map<std::string, LinkTraffic>> linkTraffic();  // by the links' names

    // An existing bridge with the same name and alias is adopted: MTU, MAC, settings and up are made as asked. One
    // with another alias or kind is AlreadyExists.
    Result<Link> createBridge(const BridgeSpec& spec);
    // A pair of that name with the same alias is removed and made anew (its peer may be anywhere). The index of `name`,
    // for a look at a link that is up without a carrier has the kernel wait for an RCU grace period.
    Result<LinkIndex> createVeth(const VethSpec& spec);
    Result<Link> createMacvlan(const MacvlanSpec& spec);  // as createVeth
    // A vxlan link of that name and alias with equal settings is adopted; with others it is made anew. When another
    // link holds the VNI and port: AlreadyExists naming it.
    Result<Link> createVxlan(const VxlanSpec& spec);
    // Both return once the kernel let go of the link. Deleting several at once costs little more than one.
    Result<void> deleteLink(LinkIndex index);
    Result<void> deleteLink(std::string_view name);
    Result<void> deleteLinks(std::span<const LinkIndex> indexes);

    // Removal without the wait (the kernel's RCU grace periods, some 15 ms): the link is gone shortly after, together
    // with all others discarded meanwhile, and in any case when the Netlink is destroyed. Until then it is still
    // listed; creating one of its name waits for it. After a kill it may be left: a reconciler must know it for an
    // orphan.
    void discardLink(LinkIndex index);
    void waitForDiscarded();  // until nothing is left to remove

    Result<void> setUp(LinkIndex index);
    Result<void> setDown(LinkIndex index);
    Result<void> rename(LinkIndex index, std::string_view name);
    Result<void> setMtu(LinkIndex index, uint32_t mtu);
    Result<void> setMac(LinkIndex index, MacAddress mac);
    Result<void> setAlias(LinkIndex index, std::string_view alias);
    Result<void> setMaster(LinkIndex index, LinkIndex master);  // 0: none
    Result<void> setPortFlags(LinkIndex index, const PortFlags& flags);
    // Moves the link there, its name becoming `newName` if given; it arrives down and without addresses.
    Result<void> moveTo(LinkIndex index, const NetNs& ns, std::string_view newName = {});

    // Addresses and routes. set*: adds or changes; equal is success.
    Result<void> setAddress(const Address& address);
    Result<void> deleteAddress(LinkIndex link, const IpPrefix& prefix);
    Result<std::vector<Address>> listAddresses(LinkIndex link = 0);  // 0: of all links
    Result<void> setRoute(const Route& route);
    Result<void> deleteRoute(const Route& route);
    Result<std::vector<Route>> listRoutes(uint32_t table = kMainTable);  // unicast, both families; 0: all tables
    // Unavailable when there is no route.
    Result<RouteLookup> lookupRoute(const IpAddress& destination);

    // Batches: every entry is tried; the error is the first one's, with its entry and the number that failed.
    // setFdb replaces the remote of a MAC; for a zero MAC on a vxlan link it appends.
    Result<void> setFdb(std::span<const FdbEntry> entries);
    Result<void> deleteFdb(std::span<const FdbEntry> entries);
    Result<std::vector<FdbEntry>> listFdb(LinkIndex link);  // of a vxlan link or of a bridge port
    Result<void> setNeighbours(std::span<const Neighbour> entries);
    Result<void> deleteNeighbours(std::span<const Neighbour> entries);
    Result<std::vector<Neighbour>> listNeighbours(LinkIndex link);  // those with a MAC

private:
    explicit Netlink(NetNs ns);

    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace weft::net
