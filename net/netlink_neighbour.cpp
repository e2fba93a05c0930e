#include <arpa/inet.h>
#include <linux/neighbour.h>

#include <cerrno>

#include "net/netlink_impl.h"

namespace weft::net {

namespace {

constexpr size_t kEntrySize = 96;

ndmsg entryHeader(uint8_t family, LinkIndex link, uint16_t state, uint8_t flags) {
    ndmsg header{};
    header.ndm_family = family;
    header.ndm_ifindex = link;
    header.ndm_state = state;
    header.ndm_flags = flags;
    return header;
}

uint8_t flagsOf(const FdbEntry& entry) {
    if (!entry.bridgePort) return NTF_SELF;
    return entry.sticky ? NTF_MASTER | NTF_STICKY : NTF_MASTER;
}

Message fdbMessage(int type, int flags, const FdbEntry& entry) {
    // NUD_PERMANENT in a bridge's table would mean "the bridge itself has this MAC"; NUD_NOARP is a static entry.
    const uint16_t state = entry.bridgePort ? NUD_NOARP : NUD_PERMANENT;
    Message message(type, flags, kEntrySize);
    message.header(entryHeader(AF_BRIDGE, entry.link, state, flagsOf(entry))).put(NDA_LLADDR, entry.mac);
    if (entry.remote) message.put(NDA_DST, *entry.remote);
    return message;
}

Message neighbourMessage(int type, int flags, const Neighbour& neighbour) {
    const uint8_t family = neighbour.address.isV4() ? AF_INET : AF_INET6;
    Message message(type, flags, kEntrySize);
    message.header(entryHeader(family, neighbour.link, NUD_PERMANENT, 0)).put(NDA_DST, neighbour.address);
    if (type == RTM_NEWNEIGH) message.put(NDA_LLADDR, neighbour.mac);
    return message;
}

std::string describe(const FdbEntry& entry) {
    return entry.mac.str() + (entry.remote ? " at " + entry.remote->str() : std::string());
}

std::string describe(const Neighbour& neighbour) {
    return neighbour.address.str();
}

std::optional<FdbEntry> decodeFdb(const nlmsghdr& message, LinkIndex link) {
    const auto* header = static_cast<const ndmsg*>(NLMSG_DATA(&message));
    const Attributes attributes = Attributes::of(message, sizeof(ndmsg));
    if (header->ndm_family != AF_BRIDGE || header->ndm_ifindex != link || !attributes.has(NDA_LLADDR)) {
        return std::nullopt;
    }
    FdbEntry entry;
    entry.link = link;
    entry.mac = attributes.mac(NDA_LLADDR);
    entry.remote = attributes.ip(NDA_DST);
    entry.bridgePort = attributes.has(NDA_MASTER);
    if (entry.bridgePort && (header->ndm_state & NUD_PERMANENT) != 0) return std::nullopt;  // the port's own MAC
    entry.sticky = (header->ndm_flags & NTF_STICKY) != 0;
    entry.permanent = (header->ndm_state & (NUD_PERMANENT | NUD_NOARP)) != 0;
    return entry;
}

std::optional<Neighbour> decodeNeighbour(const nlmsghdr& message, LinkIndex link) {
    const auto* header = static_cast<const ndmsg*>(NLMSG_DATA(&message));
    const Attributes attributes = Attributes::of(message, sizeof(ndmsg));
    const std::optional<IpAddress> address = attributes.ip(NDA_DST);
    const bool useful = (header->ndm_family == AF_INET || header->ndm_family == AF_INET6) &&
                        header->ndm_ifindex == link && (header->ndm_state & (NUD_NOARP | NUD_FAILED)) == 0;
    if (!useful || !address || !attributes.has(NDA_LLADDR)) return std::nullopt;
    return Neighbour{.link = link,
                     .address = *address,
                     .mac = attributes.mac(NDA_LLADDR),
                     .permanent = (header->ndm_state & NUD_PERMANENT) != 0};
}

Message tableRequest(uint8_t family, LinkIndex link) {
    Message message(RTM_GETNEIGH, 0);
    message.header(entryHeader(family, 0, 0, 0)).put(NDA_IFINDEX, static_cast<uint32_t>(link));
    return message;
}

}  // namespace

Result<void> Netlink::setFdb(std::span<const FdbEntry> entries) {
    const auto encode = [](const FdbEntry& entry) {
        // A zero MAC has a list of remotes; the kernel refuses to replace it, and appending one twice is success.
        const int mode = entry.mac.isZero() ? NLM_F_APPEND : NLM_F_REPLACE;
        return fdbMessage(RTM_NEWNEIGH, NLM_F_CREATE | mode, entry);
    };
    return impl_->batch(entries, "set FDB entry", {}, encode, [](const FdbEntry& entry) { return describe(entry); });
}

Result<void> Netlink::deleteFdb(std::span<const FdbEntry> entries) {
    return impl_->batch(
        entries, "delete FDB entry", {ENOENT, ENODEV, ESRCH},
        [](const FdbEntry& entry) { return fdbMessage(RTM_DELNEIGH, 0, entry); },
        [](const FdbEntry& entry) { return describe(entry); });
}

Result<std::vector<FdbEntry>> Netlink::listFdb(LinkIndex link) {
    return impl_->list<FdbEntry>(tableRequest(AF_BRIDGE, link), "list FDB",
                                 [&](const nlmsghdr& reply) { return decodeFdb(reply, link); });
}

Result<void> Netlink::setNeighbours(std::span<const Neighbour> entries) {
    return impl_->batch(
        entries, "set neighbour", {},
        [](const Neighbour& entry) { return neighbourMessage(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, entry); },
        [](const Neighbour& entry) { return describe(entry); });
}

Result<void> Netlink::deleteNeighbours(std::span<const Neighbour> entries) {
    return impl_->batch(
        entries, "delete neighbour", {ENOENT, ENODEV, ESRCH},
        [](const Neighbour& entry) { return neighbourMessage(RTM_DELNEIGH, 0, entry); },
        [](const Neighbour& entry) { return describe(entry); });
}

Result<std::vector<Neighbour>> Netlink::listNeighbours(LinkIndex link) {
    return impl_->list<Neighbour>(tableRequest(AF_UNSPEC, link), "list neighbours",
                                  [&](const nlmsghdr& reply) { return decodeNeighbour(reply, link); });
}

}  // namespace weft::net
