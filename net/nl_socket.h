// Private to net/: netlink requests by libnl's messages and sockets, with the kernel's own errno and text kept.
//
// libnl's typed objects are not used: they fold several errnos into one code, drop extended-ack text, and cost an
// object for every dumped entry.
#pragma once

#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/socket.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "net/netns.h"

namespace weft::net {

template <auto Free>
struct NlFree {
    void operator()(auto* object) const { Free(object); }
};

// A request under construction. Running out of room is remembered and reported when it is sent.
class Message {
public:
    Message(int type, int flags, size_t capacity = 1024)
        : message_(nlmsg_alloc_size(NLMSG_HDRLEN + capacity)), failed_(message_ == nullptr) {
        if (failed_) return;
        nlmsghdr* header = nlmsg_hdr(message_.get());
        header->nlmsg_type = static_cast<uint16_t>(type);
        header->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    }

    // The fixed header of the family (ifinfomsg, ndmsg, ...), first of all.
    template <typename Header>
    Message& header(const Header& value) {
        if (!failed_)
            failed_ = nlmsg_append(message_.get(), const_cast<Header*>(&value), sizeof value, NLMSG_ALIGNTO) < 0;
        return *this;
    }
    Message& put(int attribute, const void* data, size_t size) {
        if (!failed_) failed_ = nla_put(message_.get(), attribute, static_cast<int>(size), data) < 0;
        return *this;
    }
    template <typename Integer>
    requires std::is_integral_v<Integer> Message& put(int attribute, Integer value) {
        return put(attribute, &value, sizeof value);
    }
    Message& put(int attribute, std::string_view text) {
        const std::string terminated(text);
        return put(attribute, terminated.c_str(), terminated.size() + 1);
    }
    Message& put(int attribute, const char* text) { return put(attribute, std::string_view(text)); }
    Message& put(int attribute, const MacAddress& mac) {
        return put(attribute, mac.bytes().data(), mac.bytes().size());
    }
    Message& put(int attribute, const IpAddress& address) {
        return put(attribute, address.bytes().data(), address.size());
    }
    template <typename Fill>
    Message& nest(int attribute, Fill&& fill) {
        nlattr* start = failed_ ? nullptr : nla_nest_start(message_.get(), attribute);
        failed_ = start == nullptr;
        fill();
        if (!failed_) nla_nest_end(message_.get(), start);
        return *this;
    }

    [[nodiscard]] bool failed() const { return failed_; }
    [[nodiscard]] nlmsghdr* raw() const { return nlmsg_hdr(message_.get()); }

private:
    std::unique_ptr<nl_msg, NlFree<nlmsg_free>> message_;
    bool failed_;
};

// Attributes of a reply by number; all pointers are into the reply.
class Attributes {
public:
    Attributes(nlattr* first, int length) : first_(first), length_(length) {}
    static Attributes of(const nlmsghdr& message, size_t familyHeader) {
        auto* header = const_cast<nlmsghdr*>(&message);
        return {nlmsg_attrdata(header, static_cast<int>(familyHeader)),
                nlmsg_attrlen(header, static_cast<int>(familyHeader))};
    }

    [[nodiscard]] nlattr* find(int attribute) const {
        return length_ > 0 ? nla_find(first_, length_, attribute) : nullptr;
    }
    [[nodiscard]] bool has(int attribute) const { return find(attribute) != nullptr; }
    [[nodiscard]] Attributes nested(int attribute) const {
        nlattr* found = find(attribute);
        return found == nullptr ? Attributes(nullptr, 0)
                                : Attributes(static_cast<nlattr*>(nla_data(found)), nla_len(found));
    }
    template <typename Value>
    [[nodiscard]] Value get(int attribute, Value fallback = {}) const {
        const nlattr* found = find(attribute);
        if (found == nullptr || nla_len(found) < static_cast<int>(sizeof(Value))) return fallback;
        Value value;
        nla_memcpy(&value, found, sizeof value);
        return value;
    }
    [[nodiscard]] std::string text(int attribute) const;
    [[nodiscard]] MacAddress mac(int attribute) const;
    [[nodiscard]] std::optional<IpAddress> ip(int attribute) const;  // family by its size

private:
    nlattr* first_;
    int length_;
};

// One netlink socket. One user at a time. Each dump and each send of a batch is bounded by 5 s (Timeout). After an
// error of its own (not of a request) it is broken and not reused.
class NlSocket {
public:
    using OnMessage = std::function<void(const nlmsghdr&)>;

    static Result<std::unique_ptr<NlSocket>> open(int protocol);  // the calling thread's namespace

    // Sends one request and hands every reply to `onReply`; returns when the kernel acknowledged it.
    Result<void> request(Message& message, std::string_view what, const OnMessage& onReply = {});
    // Sends a dump request; `restart` is called before a dump that changed midway begins anew.
    Result<void> dump(Message& message, std::string_view what, const OnMessage& onReply,
                      const std::function<void()>& restart);
    // Sends `messages` at once, to be executed in order whatever becomes of each (the kernel skips none). Failures go
    // to onError(index, error), replies to onReply. The error is the socket's own.
    Result<void> batch(std::span<Message> messages, std::string_view what,
                       const std::function<void(size_t, Error)>& onError, const OnMessage& onReply = {});

    [[nodiscard]] int fd() const { return nl_socket_get_fd(socket_.get()); }
    [[nodiscard]] nl_sock* raw() const { return socket_.get(); }
    [[nodiscard]] bool broken() const { return broken_; }

private:
    explicit NlSocket(nl_sock* socket) : socket_(socket), buffer_(size_t{64} << 10) {}
    Result<void> send(std::span<const uint8_t> bytes, std::string_view what);
    // One datagram into buffer_.
    Result<size_t> receive(std::string_view what);

    std::unique_ptr<nl_sock, NlFree<nl_socket_free>> socket_;
    std::vector<uint8_t> buffer_;
    std::vector<uint8_t> outgoing_;
    uint32_t sequence_ = 0;
    std::chrono::steady_clock::time_point deadline_;
    bool broken_ = false;
};

// Sockets of one protocol in one namespace: as many as are in use at once.
class NlPool {
public:
    NlPool(NetNs ns, int protocol) : ns_(std::move(ns)), protocol_(protocol) {}

    [[nodiscard]] const NetNs& netns() const { return ns_; }
    // Runs fn(NlSocket&), which returns a Result, with a socket of its own.
    template <typename Fn>
    auto with(Fn&& fn) -> std::invoke_result_t<Fn, NlSocket&> {
        WEFT_ASSIGN(std::unique_ptr<NlSocket> socket, take());
        auto result = fn(*socket);
        giveBack(std::move(socket));
        return result;
    }

private:
    Result<std::unique_ptr<NlSocket>> take();
    void giveBack(std::unique_ptr<NlSocket> socket);

    NetNs ns_;
    int protocol_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<NlSocket>> idle_;
};

}  // namespace weft::net
