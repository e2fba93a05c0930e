#include <arpa/inet.h>
#include <linux/if.h>
#include <linux/veth.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>

#include "net/netlink_impl.h"

namespace weft::net {

namespace {

// Every link weft makes starts in this group ("weft" in ASCII): the kernel takes a group with the creation itself but
// an alias only afterwards, so this marks a link that was left between the two as weft's.
constexpr uint32_t kLinkGroup = 0x77656674;
// One queue each way: a veth has no hardware to spread over, and each queue more costs memory, sysfs objects and time.
constexpr uint32_t kVethQueues = 1;
constexpr uint32_t kNoStatistics = RTEXT_FILTER_SKIP_STATS;
constexpr uint8_t kAddressesNone = IN6_ADDR_GEN_MODE_NONE;

ifinfomsg linkHeader(LinkIndex index = 0, unsigned flags = 0, unsigned change = 0) {
    ifinfomsg header{};
    header.ifi_family = AF_UNSPEC;
    header.ifi_index = index;
    header.ifi_flags = flags;
    header.ifi_change = change;
    return header;
}

Message changeLink(LinkIndex index, unsigned flags = 0, unsigned change = 0) {
    Message message(RTM_NEWLINK, 0);
    message.header(linkHeader(index, flags, change));
    return message;
}

Message newLink(std::string_view name, const std::optional<MacAddress>& mac) {
    Message message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    message.header(linkHeader()).put(IFLA_IFNAME, name).put(IFLA_GROUP, kLinkGroup);
    if (mac) message.put(IFLA_ADDRESS, *mac);
    return message;
}

template <typename Fill>
void putKind(Message& message, std::string_view kind, Fill&& fill) {
    message.nest(IFLA_LINKINFO, [&] {
        message.put(IFLA_INFO_KIND, kind);
        message.nest(IFLA_INFO_DATA, fill);
    });
}

void putPortFlags(Message& message, const PortFlags& flags) {
    const auto flag = [&](int attribute, const std::optional<bool>& value) {
        if (value) message.put(attribute, static_cast<uint8_t>(*value));
    };
    message.nest(IFLA_LINKINFO, [&] {
        message.put(IFLA_INFO_SLAVE_KIND, "bridge");
        message.nest(IFLA_INFO_SLAVE_DATA, [&] {
            flag(IFLA_BRPORT_MODE, flags.hairpin);
            flag(IFLA_BRPORT_ISOLATED, flags.isolated);
            flag(IFLA_BRPORT_LEARNING, flags.learning);
            flag(IFLA_BRPORT_UNICAST_FLOOD, flags.unicastFlood);
            flag(IFLA_BRPORT_MCAST_FLOOD, flags.multicastFlood);
            flag(IFLA_BRPORT_BCAST_FLOOD, flags.broadcastFlood);
            flag(IFLA_BRPORT_NEIGH_SUPPRESS, flags.neighSuppress);
        });
    });
}

// A bridge port needs no address of its own: no link-local one, no DAD, no multicast groups.
void putNoAddresses(Message& message) {
    message.nest(IFLA_AF_SPEC,
                 [&] { message.nest(AF_INET6, [&] { message.put(IFLA_INET6_ADDR_GEN_MODE, kAddressesNone); }); });
}

void putBridge(Message& message, bool multicastSnooping) {
    // VLAN filtering is off by itself, and a kernel without 802.1Q refuses even to be told so.
    putKind(message, "bridge", [&] {
        message.put(IFLA_BR_FORWARD_DELAY, uint32_t{0})
            .put(IFLA_BR_STP_STATE, uint32_t{0})
            .put(IFLA_BR_MCAST_SNOOPING, static_cast<uint8_t>(multicastSnooping));
    });
}

void putVxlan(Message& message, const VxlanSettings& settings) {
    putKind(message, "vxlan", [&] {
        message.put(IFLA_VXLAN_ID, settings.vni).put(IFLA_VXLAN_PORT, htons(settings.port));
        if (settings.local) message.put(settings.local->isV4() ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, *settings.local);
        if (settings.parent != 0) message.put(IFLA_VXLAN_LINK, static_cast<uint32_t>(settings.parent));
        message.put(IFLA_VXLAN_TTL, settings.ttl)
            .put(IFLA_VXLAN_LEARNING, static_cast<uint8_t>(settings.learning))
            .put(IFLA_VXLAN_PROXY, static_cast<uint8_t>(settings.proxy))
            .put(IFLA_VXLAN_UDP_CSUM, static_cast<uint8_t>(settings.udpCsum))
            .put(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, static_cast<uint8_t>(settings.udp6ZeroCsumTx))
            .put(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, static_cast<uint8_t>(settings.udp6ZeroCsumRx));
        // Not sent when plain: unknown to kernels before 4.3 and 4.20.
        if (settings.external) message.put(IFLA_VXLAN_COLLECT_METADATA, uint8_t{1});
        if (settings.df != VxlanDf::Unset) message.put(IFLA_VXLAN_DF, static_cast<uint8_t>(settings.df));
        if (settings.sourcePorts) {
            const ifla_vxlan_port_range range{htons(settings.sourcePorts->first), htons(settings.sourcePorts->second)};
            message.put(IFLA_VXLAN_PORT_RANGE, &range, sizeof range);
        }
    });
}

PortFlags decodePort(const Attributes& data) {
    const auto flag = [&](int attribute) -> std::optional<bool> {
        if (!data.has(attribute)) return std::nullopt;
        return data.get<uint8_t>(attribute) != 0;
    };
    return {.hairpin = flag(IFLA_BRPORT_MODE),
            .isolated = flag(IFLA_BRPORT_ISOLATED),
            .learning = flag(IFLA_BRPORT_LEARNING),
            .unicastFlood = flag(IFLA_BRPORT_UNICAST_FLOOD),
            .multicastFlood = flag(IFLA_BRPORT_MCAST_FLOOD),
            .broadcastFlood = flag(IFLA_BRPORT_BCAST_FLOOD),
            .neighSuppress = flag(IFLA_BRPORT_NEIGH_SUPPRESS)};
}

VxlanSettings decodeVxlan(const Attributes& data) {
    VxlanSettings settings;
    settings.vni = data.get<uint32_t>(IFLA_VXLAN_ID);
    settings.port = ntohs(data.get<uint16_t>(IFLA_VXLAN_PORT));
    settings.local = data.ip(IFLA_VXLAN_LOCAL);
    if (!settings.local) settings.local = data.ip(IFLA_VXLAN_LOCAL6);
    settings.parent = static_cast<LinkIndex>(data.get<uint32_t>(IFLA_VXLAN_LINK));
    settings.ttl = data.get<uint8_t>(IFLA_VXLAN_TTL);
    settings.df = static_cast<VxlanDf>(data.get<uint8_t>(IFLA_VXLAN_DF));
    settings.learning = data.get<uint8_t>(IFLA_VXLAN_LEARNING) != 0;
    settings.external = data.get<uint8_t>(IFLA_VXLAN_COLLECT_METADATA) != 0;
    settings.proxy = data.get<uint8_t>(IFLA_VXLAN_PROXY) != 0;
    settings.udpCsum = data.get<uint8_t>(IFLA_VXLAN_UDP_CSUM) != 0;
    settings.udp6ZeroCsumTx = data.get<uint8_t>(IFLA_VXLAN_UDP_ZERO_CSUM6_TX) != 0;
    settings.udp6ZeroCsumRx = data.get<uint8_t>(IFLA_VXLAN_UDP_ZERO_CSUM6_RX) != 0;
    const auto range = data.get<ifla_vxlan_port_range>(IFLA_VXLAN_PORT_RANGE);
    if (range.high != 0) settings.sourcePorts = {ntohs(range.low), ntohs(range.high)};
    return settings;
}

Message finishLink(std::string_view name, std::string_view alias, unsigned flags = 0) {
    Message message = changeLink(0, flags, flags);
    message.put(IFLA_IFNAME, name).put(IFLA_IFALIAS, alias);
    return message;
}

Message getLinkByName(std::string_view name) {
    Message message(RTM_GETLINK, 0);
    message.header(linkHeader()).put(IFLA_IFNAME, name).put(IFLA_EXT_MASK, kNoStatistics);
    return message;
}

// Whether weft may take over or remove `link` in order to make one with `alias`.

Error heldBy(std::string_view name, const Link& link) {
    std::string text = "link " + std::string(name) + " exists already: a " + (link.kind.empty() ? "device" : link.kind);
    if (!link.alias.empty()) text += " with alias \"" + link.alias + "\"";
    return {ErrorCode::AlreadyExists, text, EEXIST};
}

Result<void> checkName(std::string_view name) {
    if (!name.empty() && name.size() <= kMaxLinkName) return {};
    return makeError(ErrorCode::InvalidArgument, "link name \"" + std::string(name) + "\": not of 1 to 15 characters");
}

Result<void> ignoreAbsent(Result<void> result) {
    if (!result && result.error().code == ErrorCode::NotFound) return {};
    return result;
}

std::string what(std::string_view verb, LinkIndex index) {
    return std::string(verb) + " link " + std::to_string(index);
}
std::string what(std::string_view verb, std::string_view name) {
    return std::string(verb) + " link " + std::string(name);
}

}  // namespace

bool isHalfMade(const Link& link) {
    return link.alias.empty() && link.group == kLinkGroup;
}

bool isOwn(const Link& link, std::string_view alias) {
    return link.alias.empty() ? isHalfMade(link) : link.alias == alias;
}

Link decodeLink(const nlmsghdr& message) {
    const auto* header = static_cast<const ifinfomsg*>(NLMSG_DATA(&message));
    const Attributes attributes = Attributes::of(message, sizeof(ifinfomsg));
    Link link;
    link.index = header->ifi_index;
    link.name = attributes.text(IFLA_IFNAME);
    link.alias = attributes.text(IFLA_IFALIAS);
    link.mac = attributes.mac(IFLA_ADDRESS);
    link.mtu = attributes.get<uint32_t>(IFLA_MTU);
    link.group = attributes.get<uint32_t>(IFLA_GROUP);
    link.up = (header->ifi_flags & IFF_UP) != 0;
    link.running = (header->ifi_flags & IFF_LOWER_UP) != 0;
    link.wasRunning = attributes.get<uint32_t>(IFLA_CARRIER_UP_COUNT) != 0;
    link.loopback = (header->ifi_flags & IFF_LOOPBACK) != 0;
    link.master = attributes.get<LinkIndex>(IFLA_MASTER);
    link.parent = attributes.get<LinkIndex>(IFLA_LINK);
    if (attributes.has(IFLA_LINK_NETNSID)) link.parentNetnsId = attributes.get<int32_t>(IFLA_LINK_NETNSID);
    const Attributes info = attributes.nested(IFLA_LINKINFO);
    link.kind = info.text(IFLA_INFO_KIND);
    if (info.text(IFLA_INFO_SLAVE_KIND) == "bridge") link.port = decodePort(info.nested(IFLA_INFO_SLAVE_DATA));
    if (link.kind == "vxlan") link.vxlan = decodeVxlan(info.nested(IFLA_INFO_DATA));
    return link;
}

Netlink::Impl::Impl(NetNs ns) : pool(std::move(ns), NETLINK_ROUTE), ipv6(::access("/proc/sys/net/ipv6", F_OK) == 0) {}

Netlink::Netlink(NetNs ns) : impl_(std::make_unique<Impl>(std::move(ns))) {}

Netlink::~Netlink() {
    Impl::Reaper& reaper = impl_->reaper;
    {
        const std::lock_guard lock(reaper.mutex);
        reaper.stopping = true;
    }
    reaper.changed.notify_all();
    if (reaper.thread.joinable()) reaper.thread.join();
}

Result<std::unique_ptr<Netlink>> Netlink::open() {
    WEFT_ASSIGN(const NetNs ns, NetNs::current());
    return openIn(ns);
}

Result<std::unique_ptr<Netlink>> Netlink::openIn(const NetNs& ns) {
    WEFT_ASSIGN(NetNs own, ns.duplicate());
    std::unique_ptr<Netlink> netlink(new Netlink(std::move(own)));
    // Fails here rather than at the first call.
    WEFT_TRY(netlink->impl_->pool.with([](NlSocket&) -> Result<void> { return {}; }));
    WEFT_ASSIGN(netlink->impl_->probe, socketIn(ns, AF_UNIX, SOCK_DGRAM, 0));
    return netlink;
}

const NetNs& Netlink::netns() const {
    return impl_->pool.netns();
}

Result<Link> Netlink::Impl::getLink(Message message, const std::string& context) {
    Link link;
    WEFT_TRY(pool.with([&](NlSocket& socket) {
        return socket.request(message, context, [&](const nlmsghdr& header) { link = decodeLink(header); });
    }));
    return link;
}

Result<Link> Netlink::getLink(std::string_view name) {
    WEFT_TRY(checkName(name));
    return impl_->getLink(getLinkByName(name), what("get", name));
}

Result<Link> Netlink::getLink(LinkIndex index) {
    Message message(RTM_GETLINK, 0);
    message.header(linkHeader(index)).put(IFLA_EXT_MASK, kNoStatistics);
    return impl_->getLink(std::move(message), what("get", index));
}

Result<LinkIndex> Netlink::linkIndex(std::string_view name) const {
    WEFT_TRY(checkName(name));
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    if (::ioctl(impl_->probe.get(), SIOCGIFINDEX, &request) != 0) return errnoError(errno, what("get", name));
    return request.ifr_ifindex;
}

Result<std::vector<Link>> Netlink::listLinks(const LinkFilter& filter) {
    Message message(RTM_GETLINK, 0);
    message.header(linkHeader()).put(IFLA_EXT_MASK, kNoStatistics);
    if (filter.master != 0) message.put(IFLA_MASTER, static_cast<uint32_t>(filter.master));
    if (!filter.kind.empty()) message.nest(IFLA_LINKINFO, [&] { message.put(IFLA_INFO_KIND, filter.kind); });
    return impl_->list<Link>(std::move(message), "list links", [&](const nlmsghdr& header) -> std::optional<Link> {
        Link link = decodeLink(header);
        // A kernel older than strict checking returns them all; one that does not know the kind, too.
        if (!filter.kind.empty() && link.kind != filter.kind) return std::nullopt;
        if (filter.master != 0 && link.master != filter.master) return std::nullopt;
        return link;
    });
}

Result<std::map<std::string, LinkTraffic>> Netlink::linkTraffic() {
    Message message(RTM_GETLINK, 0);
    message.header(linkHeader());
    using Named = std::pair<std::string, LinkTraffic>;
    WEFT_ASSIGN(const std::vector<Named> all,
                impl_->list<Named>(std::move(message), "list links", [](const nlmsghdr& header) {
                    const Attributes attributes = Attributes::of(header, sizeof(ifinfomsg));
                    // struct rtnl_link_stats64, which grows at its end: packets, then bytes.
                    const auto counters = attributes.get<std::array<uint64_t, 4>>(IFLA_STATS64);
                    return std::optional(Named(attributes.text(IFLA_IFNAME), {counters[2], counters[3]}));
                }));
    return std::map<std::string, LinkTraffic>(all.begin(), all.end());
}

// Makes the link and finishes it in two sends: nothing is changed on a link of that name that was there before.
Result<void> Netlink::Impl::makeLink(std::string_view name, Message creation, std::vector<Message> finish) {
    return pool.with([&](NlSocket& socket) -> Result<void> {
        WEFT_TRY(socket.request(creation, what("create", name)));
        Result<void> outcome;
        const auto onError = [&](size_t, Error error) {
            if (outcome) outcome = std::move(error);
        };
        WEFT_TRY(socket.batch(finish, what("set up", name), onError));
        if (!outcome) {
            Message removal(RTM_DELLINK, 0);
            removal.header(linkHeader()).put(IFLA_IFNAME, name);
            (void)socket.request(removal, what("remove half-made", name));
        }
        return outcome;
    });
}

Result<Link> Netlink::createBridge(const BridgeSpec& spec) {
    WEFT_TRY(checkName(spec.name));
    const auto finish = [&](LinkIndex index) {
        const unsigned up = spec.up ? unsigned{IFF_UP} : 0U;
        std::vector<Message> steps;
        Message& step = steps.emplace_back(changeLink(index, up, up));
        // Set after creation the MTU is the bridge's own; set with it, it would follow the smallest port's.
        step.put(IFLA_IFNAME, spec.name).put(IFLA_IFALIAS, spec.alias).put(IFLA_MTU, spec.mtu);
        return steps;
    };
    Message creation = newLink(spec.name, spec.mac);
    putBridge(creation, spec.multicastSnooping);
    const auto made = impl_->makeLink(spec.name, std::move(creation), finish(0));
    if (made) return getLink(spec.name);
    if (made.error().code != ErrorCode::AlreadyExists) return made.error();

    WEFT_ASSIGN(const Link link, getLink(spec.name));
    if (link.kind != "bridge" || !isOwn(link, spec.alias)) return heldBy(spec.name, link);
    std::vector<Message> steps = finish(link.index);
    if (spec.mac && link.mac != *spec.mac) steps.front().put(IFLA_ADDRESS, *spec.mac);
    putBridge(steps.front(), spec.multicastSnooping);
    WEFT_TRY(impl_->request(std::move(steps.front()), what("adopt", spec.name)));
    return getLink(link.index);
}

// Creates by `create`; when something of its name is in the way and is weft's own, removes that and tries once more.
template <typename Create>
std::invoke_result_t<Create> Netlink::Impl::recreate(
    Netlink& netlink, std::initializer_list<std::pair<std::string_view, std::string_view>> names, Create create) {
    auto made = create();
    if (made || made.error().code != ErrorCode::AlreadyExists) return made;
    for (const auto& [name, alias] : names) {
        auto link = netlink.getLink(name);
        if (!link) {
            if (link.error().code == ErrorCode::NotFound) continue;
            return link.error();
        }
        if (!isOwn(*link, alias)) return heldBy(name, *link);
        WEFT_TRY(netlink.deleteLink(link->index));
    }
    return create();
}

Result<LinkIndex> Netlink::createVeth(const VethSpec& spec) {
    WEFT_TRY(checkName(spec.name));
    WEFT_TRY(checkName(spec.peerName));
    const auto create = [&]() -> Result<LinkIndex> {
        Message creation = newLink(spec.name, spec.mac);
        creation.put(IFLA_MTU, spec.mtu).put(IFLA_NUM_TX_QUEUES, kVethQueues).put(IFLA_NUM_RX_QUEUES, kVethQueues);
        if (spec.master != 0) creation.put(IFLA_MASTER, static_cast<uint32_t>(spec.master));
        putKind(creation, "veth", [&] {
            creation.nest(VETH_INFO_PEER, [&] {
                creation.header(linkHeader())
                    .put(IFLA_IFNAME, spec.peerName)
                    .put(IFLA_GROUP, kLinkGroup)
                    .put(IFLA_MTU, spec.mtu)
                    .put(IFLA_NUM_TX_QUEUES, kVethQueues)
                    .put(IFLA_NUM_RX_QUEUES, kVethQueues);
                if (spec.peerMac) creation.put(IFLA_ADDRESS, *spec.peerMac);
            });
        });

        std::vector<Message> finish;
        Message& first = finish.emplace_back(finishLink(spec.name, spec.alias));
        if (spec.master != 0) {
            if (spec.port != PortFlags{}) putPortFlags(first, spec.port);
            if (impl_->ipv6) putNoAddresses(first);
        }
        if (!spec.peerAlias.empty()) finish.push_back(finishLink(spec.peerName, spec.peerAlias));
        // Last, so that no packet passes before the port is as it should be.
        if (spec.up) finish.emplace_back(changeLink(0, IFF_UP, IFF_UP)).put(IFLA_IFNAME, spec.name);
        WEFT_TRY(impl_->makeLink(spec.name, std::move(creation), std::move(finish)));
        return linkIndex(spec.name);
    };
    return impl_->recreate(*this, {{spec.name, spec.alias}, {spec.peerName, spec.peerAlias}}, create);
}

Result<Link> Netlink::createMacvlan(const MacvlanSpec& spec) {
    WEFT_TRY(checkName(spec.name));
    const auto create = [&]() -> Result<Link> {
        Message creation = newLink(spec.name, spec.mac);
        creation.put(IFLA_LINK, static_cast<uint32_t>(spec.parent));
        if (spec.mtu != 0) creation.put(IFLA_MTU, spec.mtu);
        putKind(creation, "macvlan",
                [&] { creation.put(IFLA_MACVLAN_MODE, uint32_t{1} << static_cast<unsigned>(spec.mode)); });
        std::vector<Message> finish;
        finish.push_back(finishLink(spec.name, spec.alias));
        WEFT_TRY(impl_->makeLink(spec.name, std::move(creation), std::move(finish)));
        return getLink(spec.name);
    };
    return impl_->recreate(*this, {{spec.name, spec.alias}}, create);
}

Result<Link> Netlink::createVxlan(const VxlanSpec& spec) {
    WEFT_TRY(checkName(spec.name));
    const auto finish = [&](LinkIndex index) {
        std::vector<Message> steps;
        Message& first = steps.emplace_back(changeLink(index));
        first.put(IFLA_IFNAME, spec.name).put(IFLA_IFALIAS, spec.alias);
        if (spec.master != 0) {
            first.put(IFLA_MASTER, static_cast<uint32_t>(spec.master));
            // A link becomes a port in this step: its port can be changed in the next only.
            Message& second = steps.emplace_back(changeLink(index));
            second.put(IFLA_IFNAME, spec.name);
            if (spec.port != PortFlags{}) putPortFlags(second, spec.port);
            if (impl_->ipv6) putNoAddresses(second);
        }
        if (spec.up) steps.emplace_back(changeLink(index, IFF_UP, IFF_UP)).put(IFLA_IFNAME, spec.name);
        return steps;
    };
    const auto create = [&]() -> Result<Link> {
        Message creation = newLink(spec.name, spec.mac);
        if (spec.mtu != 0) creation.put(IFLA_MTU, spec.mtu);
        putVxlan(creation, spec.vxlan);
        WEFT_TRY(impl_->makeLink(spec.name, std::move(creation), finish(0)));
        return getLink(spec.name);
    };

    auto existing = getLink(spec.name);
    if (existing && existing->kind == "vxlan" && isOwn(*existing, spec.alias) && existing->vxlan == spec.vxlan) {
        std::vector<Message> steps = finish(existing->index);
        if (spec.mac && existing->mac != *spec.mac) steps.front().put(IFLA_ADDRESS, *spec.mac);
        if (spec.mtu != 0) steps.front().put(IFLA_MTU, spec.mtu);
        for (Message& step : steps) WEFT_TRY(impl_->request(std::move(step), what("adopt", spec.name)));
        return getLink(existing->index);
    }
    auto made = impl_->recreate(*this, {{spec.name, spec.alias}}, create);
    if (made || made.error().code != ErrorCode::AlreadyExists) return made;
    WEFT_ASSIGN(const std::vector<Link> others, listLinks({.kind = "vxlan"}));
    for (const Link& other : others) {
        if (other.name != spec.name && other.vxlan->vni == spec.vxlan.vni && other.vxlan->port == spec.vxlan.port) {
            return Error{ErrorCode::AlreadyExists,
                         "VNI " + std::to_string(spec.vxlan.vni) + " on port " + std::to_string(spec.vxlan.port) +
                             " is held by link " + other.name,
                         EEXIST};
        }
    }
    return made;
}

Result<void> Netlink::deleteLink(LinkIndex index) {
    Message message(RTM_DELLINK, 0);
    message.header(linkHeader(index));
    return ignoreAbsent(impl_->request(std::move(message), what("delete", index)));
}

Result<void> Netlink::deleteLink(std::string_view name) {
    WEFT_TRY(checkName(name));
    Message message(RTM_DELLINK, 0);
    message.header(linkHeader()).put(IFLA_IFNAME, name);
    return ignoreAbsent(impl_->request(std::move(message), what("delete", name)));
}

Result<void> Netlink::deleteLinks(std::span<const LinkIndex> indexes) {
    if (indexes.empty()) return {};
    if (indexes.size() == 1) return deleteLink(indexes.front());
    // The kernel waits for its RCU grace periods once a removal request, and a request removes a whole group: so the
    // links are put in a group of their own first.
    static std::atomic<uint32_t> counter{0};
    const uint32_t group = 0x57000000U | ((static_cast<uint32_t>(::getpid()) << 8 | (counter++ & 0xffU)) & 0xffffffU);
    WEFT_TRY(impl_->batch(
        indexes, "group links", {ENODEV},
        [&](LinkIndex index) {
            Message message = changeLink(index);
            message.put(IFLA_GROUP, group);
            return message;
        },
        [](LinkIndex index) { return "link " + std::to_string(index); }));
    Message message(RTM_DELLINK, 0);
    message.header(linkHeader()).put(IFLA_GROUP, group);
    return ignoreAbsent(impl_->request(std::move(message), "delete links"));
}

void Netlink::Impl::reap(Netlink& netlink) {
    std::unique_lock lock(reaper.mutex);
    for (;;) {
        reaper.changed.wait(lock, [&] { return reaper.stopping || !reaper.doomed.empty(); });
        if (reaper.doomed.empty()) return;
        const std::vector<LinkIndex> links = std::exchange(reaper.doomed, {});
        reaper.busy = true;
        lock.unlock();
        if (auto result = netlink.deleteLinks(links); !result) {
            spdlog::warn("remove discarded links: {}", result.error().message);
        }
        lock.lock();
        reaper.busy = false;
        reaper.changed.notify_all();
    }
}

void Netlink::discardLink(LinkIndex index) {
    Impl::Reaper& reaper = impl_->reaper;
    {
        const std::lock_guard lock(reaper.mutex);
        reaper.doomed.push_back(index);
        if (!reaper.thread.joinable()) reaper.thread = std::thread([this] { impl_->reap(*this); });
    }
    reaper.changed.notify_all();
}

void Netlink::waitForDiscarded() {
    Impl::Reaper& reaper = impl_->reaper;
    std::unique_lock lock(reaper.mutex);
    reaper.changed.wait(lock, [&] { return reaper.doomed.empty() && !reaper.busy; });
}

Result<void> Netlink::setUp(LinkIndex index) {
    return impl_->request(changeLink(index, IFF_UP, IFF_UP), what("set up", index));
}

Result<void> Netlink::setDown(LinkIndex index) {
    return impl_->request(changeLink(index, 0, IFF_UP), what("set down", index));
}

Result<void> Netlink::rename(LinkIndex index, std::string_view name) {
    WEFT_TRY(checkName(name));
    Message message = changeLink(index);
    message.put(IFLA_IFNAME, name);
    return impl_->request(std::move(message), what("rename", index));
}

Result<void> Netlink::setMtu(LinkIndex index, uint32_t mtu) {
    Message message = changeLink(index);
    message.put(IFLA_MTU, mtu);
    return impl_->request(std::move(message), what("set MTU of", index));
}

Result<void> Netlink::setMac(LinkIndex index, MacAddress mac) {
    Message message = changeLink(index);
    message.put(IFLA_ADDRESS, mac);
    return impl_->request(std::move(message), what("set MAC of", index));
}

Result<void> Netlink::setAlias(LinkIndex index, std::string_view alias) {
    Message message = changeLink(index);
    message.put(IFLA_IFALIAS, alias);
    return impl_->request(std::move(message), what("set alias of", index));
}

Result<void> Netlink::setMaster(LinkIndex index, LinkIndex master) {
    Message message = changeLink(index);
    message.put(IFLA_MASTER, static_cast<uint32_t>(master));
    return impl_->request(std::move(message), what("set master of", index));
}

Result<void> Netlink::setPortFlags(LinkIndex index, const PortFlags& flags) {
    if (flags == PortFlags{}) return {};
    Message message = changeLink(index);
    putPortFlags(message, flags);
    return impl_->request(std::move(message), what("set port flags of", index));
}

Result<void> Netlink::moveTo(LinkIndex index, const NetNs& ns, std::string_view newName) {
    Message message = changeLink(index);
    message.put(IFLA_NET_NS_FD, static_cast<uint32_t>(ns.fd()));
    if (!newName.empty()) {
        WEFT_TRY(checkName(newName));
        message.put(IFLA_IFNAME, newName);
    }
    return impl_->request(std::move(message), what("move", index));
}

}  // namespace weft::net
