#include "net/conntrack.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <vector>

#include "net/nl_socket.h"
#include "net/sysctl.h"

namespace weft::net {

namespace {

// Bits of CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS; the kernel has them in no exported header.
constexpr uint32_t kCompareSource = 1U << 0;
// Each filtered dump walks the kernel's whole hash table: beyond this many addresses one unfiltered dump is cheaper.
constexpr size_t kMaxFilteredDumps = 8;

constexpr int messageType(int type) {
    return NFNL_SUBSYS_CTNETLINK << 8 | type;
}

struct Tuple {
    std::optional<IpAddress> source;
    std::optional<IpAddress> destination;
    uint8_t protocol = 0;
    uint16_t sourcePort = 0;
    uint16_t destinationPort = 0;
};

struct Entry {
    Tuple original;
    Tuple reply;
};

using Match = std::function<bool(const Entry&)>;

Tuple decodeTuple(const Attributes& tuple) {
    const Attributes ip = tuple.nested(CTA_TUPLE_IP);
    const Attributes protocol = tuple.nested(CTA_TUPLE_PROTO);
    const auto address = [&](int v4, int v6) { return ip.has(v4) ? ip.ip(v4) : ip.ip(v6); };
    return {.source = address(CTA_IP_V4_SRC, CTA_IP_V6_SRC),
            .destination = address(CTA_IP_V4_DST, CTA_IP_V6_DST),
            .protocol = protocol.get<uint8_t>(CTA_PROTO_NUM),
            .sourcePort = ntohs(protocol.get<uint16_t>(CTA_PROTO_SRC_PORT)),
            .destinationPort = ntohs(protocol.get<uint16_t>(CTA_PROTO_DST_PORT))};
}

nfgenmsg familyHeader(IpFamily family) {
    nfgenmsg header{};
    header.nfgen_family = family == IpFamily::V4 ? AF_INET : AF_INET6;
    header.version = NFNETLINK_V0;
    return header;
}

// All entries of a family, or with `source` those whose tuple `which` (CTA_TUPLE_ORIG or _REPLY) has that source; a
// kernel before 5.8 does not know the filter and gives all.
Message dumpRequest(IpFamily family, const IpAddress* source, int which) {
    Message message(messageType(IPCTNL_MSG_CT_GET), 0);
    message.header(familyHeader(family));
    if (source == nullptr) return message;
    message.nest(which, [&] {
        message.nest(CTA_TUPLE_IP,
                     [&] { message.put(family == IpFamily::V4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, *source); });
    });
    message.nest(CTA_FILTER, [&] {
        message.put(CTA_FILTER_ORIG_FLAGS, which == CTA_TUPLE_ORIG ? kCompareSource : 0U)
            .put(CTA_FILTER_REPLY_FLAGS, which == CTA_TUPLE_REPLY ? kCompareSource : 0U);
    });
    return message;
}

// The one entry of a flow, by the tuple of its answers: the one that NAT made of what arrives here.
Message entryRequest(const ReceivedFlow& flow) {
    const bool v4 = flow.local.isV4();
    Message message(messageType(IPCTNL_MSG_CT_GET), 0, 256);
    message.header(familyHeader(flow.local.family()));
    message.nest(CTA_TUPLE_REPLY, [&] {
        message.nest(CTA_TUPLE_IP, [&] {
            message.put(v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, flow.local)
                .put(v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, flow.peer);
        });
        message.nest(CTA_TUPLE_PROTO, [&] {
            message.put(CTA_PROTO_NUM, flow.protocol)
                .put(CTA_PROTO_SRC_PORT, htons(flow.localPort))
                .put(CTA_PROTO_DST_PORT, htons(flow.peerPort));
        });
    });
    return message;
}

// Names an entry as the kernel showed it; the id keeps a new one with the same tuple from harm.
Message deletion(const nlmsghdr& entry, IpFamily family) {
    const Attributes attributes = Attributes::of(entry, sizeof(nfgenmsg));
    Message message(messageType(IPCTNL_MSG_CT_DELETE), 0, 256);
    message.header(familyHeader(family));
    for (const int attribute : {CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID}) {
        const nlattr* found = attributes.find(attribute);
        if (found != nullptr) message.put(found->nla_type, nla_data(found), static_cast<size_t>(nla_len(found)));
    }
    return message;
}

// One socket lists while the other deletes, so that a large table is never held in memory.
struct Sockets {
    std::unique_ptr<NlSocket> list;
    std::unique_ptr<NlSocket> remove;
};

Result<size_t> flush(Sockets& sockets, IpFamily family, const IpAddress* source, int which, const Match& match) {
    constexpr size_t kChunk = 256;
    std::vector<Message> doomed;
    size_t removed = 0;
    Result<void> outcome;
    const auto removeDoomed = [&]() -> Result<void> {
        removed += doomed.size();
        const auto onError = [&](size_t, Error error) {
            --removed;  // ENOENT: it ended by itself meanwhile
            if (error.sysErrno != ENOENT && outcome) outcome = std::move(error);
        };
        auto sent = sockets.remove->batch(doomed, "delete conntrack entry", onError);
        doomed.clear();
        return sent;
    };
    const auto inspect = [&](const nlmsghdr& header) {
        const Attributes attributes = Attributes::of(header, sizeof(nfgenmsg));
        const Entry entry{.original = decodeTuple(attributes.nested(CTA_TUPLE_ORIG)),
                          .reply = decodeTuple(attributes.nested(CTA_TUPLE_REPLY))};
        if (!outcome || !match(entry)) return;
        doomed.push_back(deletion(header, family));
        if (doomed.size() < kChunk) return;
        if (auto sent = removeDoomed(); !sent) outcome = std::move(sent);
    };
    Message request = dumpRequest(family, source, which);
    WEFT_TRY(sockets.list->dump(request, "list conntrack entries", inspect, [] {}));
    WEFT_TRY(removeDoomed());
    WEFT_TRY(std::move(outcome));
    return removed;
}

// Flushes what matches among the entries with one of `sources` as the source of one of the tuples `whiches`.
Result<size_t> flushBySource(const NetNs& ns, std::vector<IpAddress> sources, std::initializer_list<int> whiches,
                             const Match& match) {
    const auto count = runIn(ns, [] { return readSysctl("net/netfilter/nf_conntrack_count"); });
    if (!count || *count == "0") return size_t{0};  // no conntrack in this kernel, or nothing in the table
    WEFT_ASSIGN(Sockets sockets, runIn(ns, []() -> Result<Sockets> {
                    WEFT_ASSIGN(auto list, NlSocket::open(NETLINK_NETFILTER));
                    WEFT_ASSIGN(auto remove, NlSocket::open(NETLINK_NETFILTER));
                    return Sockets{std::move(list), std::move(remove)};
                }));

    std::sort(sources.begin(), sources.end());
    sources.erase(std::unique(sources.begin(), sources.end()), sources.end());
    size_t removed = 0;
    for (const IpFamily family : {IpFamily::V4, IpFamily::V6}) {
        std::vector<IpAddress> own;
        std::copy_if(sources.begin(), sources.end(), std::back_inserter(own),
                     [&](const IpAddress& address) { return address.family() == family; });
        if (own.size() * whiches.size() > kMaxFilteredDumps) {
            WEFT_ASSIGN(const size_t some, flush(sockets, family, nullptr, 0, match));
            removed += some;
            continue;
        }
        for (const IpAddress& address : own) {
            for (const int which : whiches) {
                WEFT_ASSIGN(const size_t some, flush(sockets, family, &address, which, match));
                removed += some;
            }
        }
    }
    return removed;
}

}  // namespace

Result<size_t> flushMappedFlows(const NetNs& ns, std::span<const MappedFlow> flows) {
    std::vector<IpAddress> containers;
    containers.reserve(flows.size());
    for (const MappedFlow& flow : flows) containers.push_back(flow.containerIp);
    return flushBySource(ns, std::move(containers), {CTA_TUPLE_REPLY}, [&](const Entry& entry) {
        return std::any_of(flows.begin(), flows.end(), [&](const MappedFlow& flow) {
            return entry.original.protocol == flow.protocol && entry.original.destinationPort == flow.hostPort &&
                   entry.reply.source == flow.containerIp && entry.reply.sourcePort == flow.containerPort &&
                   (!flow.hostIp || entry.original.destination == *flow.hostIp);
        });
    });
}

Result<size_t> flushUnmappedFlows(const NetNs& ns, std::span<const HostPort> ports) {
    std::vector<IpAddress> hosts;
    hosts.reserve(ports.size());
    for (const HostPort& port : ports) hosts.push_back(port.address);
    return flushBySource(ns, std::move(hosts), {CTA_TUPLE_REPLY}, [&](const Entry& entry) {
        return std::any_of(ports.begin(), ports.end(), [&](const HostPort& port) {
            return entry.original.protocol == port.protocol && entry.original.destination == port.address &&
                   entry.original.destinationPort == port.port && entry.reply.source == port.address &&
                   entry.reply.sourcePort == port.port;
        });
    });
}

Result<size_t> flushAddresses(const NetNs& ns, std::span<const IpAddress> addresses) {
    const auto among = [&](const std::optional<IpAddress>& address) {
        return address && std::find(addresses.begin(), addresses.end(), *address) != addresses.end();
    };
    return flushBySource(ns, {addresses.begin(), addresses.end()}, {CTA_TUPLE_ORIG, CTA_TUPLE_REPLY},
                         [&](const Entry& entry) { return among(entry.original.source) || among(entry.reply.source); });
}

FlowLookup::FlowLookup(std::unique_ptr<NlPool> pool) : pool_(std::move(pool)) {}
FlowLookup::FlowLookup(FlowLookup&&) noexcept = default;
FlowLookup& FlowLookup::operator=(FlowLookup&&) noexcept = default;
FlowLookup::~FlowLookup() = default;

Result<FlowLookup> FlowLookup::open(const NetNs& ns) {
    WEFT_ASSIGN(NetNs own, ns.duplicate());
    FlowLookup lookup(std::make_unique<NlPool>(std::move(own), NETLINK_NETFILTER));
    const auto tried = lookup.originalDestination({});
    if (tried || tried.error().code == ErrorCode::NotFound) return lookup;
    Error error = tried.error();
    if (error.sysErrno == EINVAL) error.code = ErrorCode::Unsupported;  // nfnetlink has no such subsystem
    return error;
}

Result<std::pair<IpAddress, uint16_t>> FlowLookup::originalDestination(const ReceivedFlow& flow) {
    Message request = entryRequest(flow);
    std::optional<Tuple> original;
    WEFT_TRY(pool_->with([&](NlSocket& socket) {
        return socket.request(request, "look up conntrack entry", [&](const nlmsghdr& header) {
            original = decodeTuple(Attributes::of(header, sizeof(nfgenmsg)).nested(CTA_TUPLE_ORIG));
        });
    }));
    if (!original || !original->destination) {
        return makeError(ErrorCode::Kernel, "conntrack entry without a destination");
    }
    return std::pair{*original->destination, original->destinationPort};
}

}  // namespace weft::net
