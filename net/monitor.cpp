#include "net/monitor.h"

#include <netlink/netlink.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <thread>

#include "net/netlink_impl.h"

namespace weft::net {

namespace {

std::optional<LinkEvent> decode(const nlmsghdr& message) {
    LinkEvent event;
    if (message.nlmsg_type == RTM_NEWLINK || message.nlmsg_type == RTM_DELLINK) {
        // A bridge port leaving its bridge looks like the removal of a link but for the family.
        if (static_cast<const ifinfomsg*>(NLMSG_DATA(&message))->ifi_family == AF_BRIDGE) return std::nullopt;
        event.kind = message.nlmsg_type == RTM_NEWLINK ? LinkEvent::Kind::Changed : LinkEvent::Kind::Removed;
        event.link = decodeLink(message);
        return event;
    }
    if (message.nlmsg_type == RTM_NEWADDR || message.nlmsg_type == RTM_DELADDR) {
        const std::optional<Address> address = decodeAddress(message);
        if (!address) return std::nullopt;
        event.kind =
            message.nlmsg_type == RTM_NEWADDR ? LinkEvent::Kind::AddressAdded : LinkEvent::Kind::AddressRemoved;
        event.link.index = address->link;
        event.prefix = address->prefix;
        return event;
    }
    return std::nullopt;
}

}  // namespace

struct LinkMonitor::Impl {
    std::unique_ptr<NlSocket> socket;
    UniqueFd stop;
    Callback callback;
    std::thread thread;

    void run() const {
        std::vector<uint8_t> buffer(size_t{64} << 10);
        pollfd waits[2] = {{socket->fd(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
        for (;;) {
            if (::poll(waits, 2, -1) < 0) continue;  // EINTR
            if (waits[1].revents != 0) return;
            const ssize_t received = ::recv(socket->fd(), buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_TRUNC);
            if (received < 0) {
                if (errno == ENOBUFS) callback({.kind = LinkEvent::Kind::Lost, .link = {}, .prefix = {}});
                continue;
            }
            if (static_cast<size_t>(received) > buffer.size()) continue;
            auto* header = reinterpret_cast<nlmsghdr*>(buffer.data());
            for (int left = static_cast<int>(received); nlmsg_ok(header, left); header = nlmsg_next(header, &left)) {
                if (const std::optional<LinkEvent> event = decode(*header)) callback(*event);
            }
        }
    }
};

LinkMonitor::LinkMonitor() : impl_(std::make_unique<Impl>()) {}

LinkMonitor::~LinkMonitor() {
    if (!impl_->thread.joinable()) return;
    const uint64_t one = 1;
    (void)!::write(impl_->stop.get(), &one, sizeof one);
    impl_->thread.join();
}

Result<std::unique_ptr<LinkMonitor>> LinkMonitor::start(const NetNs& ns, Callback callback) {
    std::unique_ptr<LinkMonitor> monitor(new LinkMonitor);
    Impl& impl = *monitor->impl_;
    impl.callback = std::move(callback);
    WEFT_ASSIGN(impl.socket, runIn(ns, [] { return NlSocket::open(NETLINK_ROUTE); }));
    if (const int code =
            nl_socket_add_memberships(impl.socket->raw(), RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, 0);
        code < 0) {
        return makeError(ErrorCode::Kernel, std::string("subscribe to link events: ") + nl_geterror(code));
    }
    impl.stop.reset(::eventfd(0, EFD_CLOEXEC));
    if (!impl.stop) return errnoError(errno, "link monitor");
    impl.thread = std::thread([&impl] { impl.run(); });
    return monitor;
}

}  // namespace weft::net
