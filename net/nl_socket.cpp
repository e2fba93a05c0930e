#include "net/nl_socket.h"

#include <netlink/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>

namespace weft::net {

namespace {

constexpr timeval kAnswerTimeout{5, 0};
// A ceiling, not an allocation: every failing message of a batch queues its own error.
constexpr int kReceiveBuffer = 8 << 20;
constexpr int kDumpAttempts = 5;
// Half of what a send may be: libnl sets SO_SNDBUF to 32 KiB, which the kernel doubles.
constexpr size_t kBatchBytes = size_t{32} << 10;
constexpr size_t kIdleSockets = 4;

void setFlag(int fd, int option) {
    // Absent on old kernels; each of these only improves answers.
    const int on = 1;
    (void)::setsockopt(fd, SOL_NETLINK, option, &on, sizeof on);
}

Error kernelError(int errnoValue, std::string_view what, const Attributes& extended) {
    Error error = errnoError(errnoValue, "netlink " + std::string(what));
    if (const std::string text = extended.text(NLMSGERR_ATTR_MSG); !text.empty()) error.message += " (" + text + ")";
    return error;
}

// The errno in NLMSG_ERROR (0: acknowledged) or NLMSG_DONE, with its text.
Result<void> verdict(const nlmsghdr& header, std::string_view what) {
    int code = 0;
    if (header.nlmsg_len < NLMSG_LENGTH(sizeof code)) return {};
    std::memcpy(&code, NLMSG_DATA(&header), sizeof code);
    if (code >= 0) return {};
    size_t fixed = sizeof code;
    if (header.nlmsg_type == NLMSG_ERROR) {
        const auto* body = static_cast<const nlmsgerr*>(NLMSG_DATA(&header));
        fixed = sizeof(nlmsgerr);
        // Without NLM_F_CAPPED the whole request comes back before the attributes.
        if ((header.nlmsg_flags & NLM_F_CAPPED) == 0) fixed += NLMSG_ALIGN(body->msg.nlmsg_len) - NLMSG_HDRLEN;
    }
    const bool hasText = (header.nlmsg_flags & NLM_F_ACK_TLVS) != 0 && header.nlmsg_len > NLMSG_LENGTH(fixed);
    return kernelError(-code, what, hasText ? Attributes::of(header, fixed) : Attributes(nullptr, 0));
}

}  // namespace

std::string Attributes::text(int attribute) const {
    const nlattr* found = find(attribute);
    if (found == nullptr) return {};
    const auto* data = static_cast<const char*>(nla_data(found));
    return {data, ::strnlen(data, static_cast<size_t>(nla_len(found)))};
}

MacAddress Attributes::mac(int attribute) const {
    return MacAddress(get<std::array<uint8_t, 6>>(attribute));
}

std::optional<IpAddress> Attributes::ip(int attribute) const {
    const nlattr* found = find(attribute);
    if (found == nullptr) return std::nullopt;
    const auto* bytes = static_cast<const uint8_t*>(nla_data(found));
    if (nla_len(found) == 4) return IpAddress::fromBytes(IpFamily::V4, bytes);
    if (nla_len(found) == 16) return IpAddress::fromBytes(IpFamily::V6, bytes);
    return std::nullopt;
}

Result<std::unique_ptr<NlSocket>> NlSocket::open(int protocol) {
    std::unique_ptr<NlSocket> socket(new NlSocket(nl_socket_alloc()));
    if (!socket->socket_) return makeError(ErrorCode::Exhausted, "netlink: no memory for a socket");
    if (const int code = nl_connect(socket->raw(), protocol); code < 0) {
        if (code == -NLE_PROTO_MISMATCH || code == -NLE_AF_NOSUPPORT) {
            return makeError(ErrorCode::Unsupported, "netlink: this kernel lacks protocol " + std::to_string(protocol));
        }
        return makeError(ErrorCode::Kernel, std::string("open netlink socket: ") + nl_geterror(code));
    }
    const int fd = socket->fd();
    if (::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kAnswerTimeout, sizeof kAnswerTimeout) != 0) {
        return errnoError(errno, "netlink socket timeout");
    }
    if (::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof kReceiveBuffer) != 0) {
        (void)::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer);
    }
    setFlag(fd, NETLINK_CAP_ACK);
    setFlag(fd, NETLINK_EXT_ACK);
    setFlag(fd, NETLINK_GET_STRICT_CHK);  // dump filters are obeyed rather than ignored (Linux 4.20)
    return socket;
}

Result<void> NlSocket::send(std::span<const uint8_t> bytes, std::string_view what) {
    deadline_ = std::chrono::steady_clock::now() + std::chrono::seconds(kAnswerTimeout.tv_sec);
    for (;;) {
        if (::send(fd(), bytes.data(), bytes.size(), 0) >= 0) return {};
        if (errno == EINTR) continue;
        broken_ = true;
        return errnoError(errno, "netlink send " + std::string(what));
    }
}

Result<size_t> NlSocket::receive(std::string_view what) {
    for (;;) {
        const ssize_t length = ::recv(fd(), buffer_.data(), buffer_.size(), MSG_TRUNC);
        if (length < 0 && errno == EINTR) continue;
        const bool late = std::chrono::steady_clock::now() > deadline_;
        if (length > 0 && static_cast<size_t>(length) <= buffer_.size() && !late) return static_cast<size_t>(length);
        // Late or missing answers would be taken for those of the next request.
        broken_ = true;
        if (late || (length < 0 && errno == EAGAIN)) {
            return makeError(ErrorCode::Timeout, "netlink " + std::string(what) + ": no answer from the kernel in 5 s");
        }
        return length < 0 ? errnoError(errno, "netlink receive " + std::string(what))
                          : makeError(ErrorCode::Kernel, "netlink " + std::string(what) + ": answer cut short");
    }
}

Result<void> NlSocket::request(Message& message, std::string_view what, const OnMessage& onReply) {
    Result<void> outcome;
    WEFT_TRY(batch(
        {&message, 1}, what, [&](size_t, Error error) { outcome = std::move(error); }, onReply));
    return outcome;
}

Result<void> NlSocket::batch(std::span<Message> messages, std::string_view what,
                             const std::function<void(size_t, Error)>& onError, const OnMessage& onReply) {
    size_t sent = 0;
    while (sent < messages.size()) {
        const size_t start = sent;
        const uint32_t firstSequence = sequence_ + 1;
        outgoing_.clear();
        while (sent < messages.size() && outgoing_.size() < kBatchBytes) {
            Message& message = messages[sent];
            if (message.failed()) {
                return makeError(ErrorCode::InvalidArgument, "netlink " + std::string(what) + ": message too long");
            }
            nlmsghdr* header = message.raw();
            header->nlmsg_seq = ++sequence_;
            header->nlmsg_pid = 0;
            const auto* bytes = reinterpret_cast<const uint8_t*>(header);
            outgoing_.insert(outgoing_.end(), bytes, bytes + header->nlmsg_len);
            outgoing_.resize(NLMSG_ALIGN(outgoing_.size()));
            ++sent;
        }
        // Only failures are reported without NLM_F_ACK, so one acknowledgement, of the last, ends the batch.
        const size_t lastOffset = outgoing_.size() - NLMSG_ALIGN(messages[sent - 1].raw()->nlmsg_len);
        reinterpret_cast<nlmsghdr*>(outgoing_.data() + lastOffset)->nlmsg_flags |= NLM_F_ACK;
        WEFT_TRY(send(outgoing_, what));

        for (bool done = false; !done;) {
            WEFT_ASSIGN(const size_t received, receive(what));
            auto* header = reinterpret_cast<nlmsghdr*>(buffer_.data());
            for (int left = static_cast<int>(received); nlmsg_ok(header, left); header = nlmsg_next(header, &left)) {
                const uint32_t offset = header->nlmsg_seq - firstSequence;
                if (offset >= sent - start) continue;
                if (header->nlmsg_type == NLMSG_ERROR) {
                    if (auto result = verdict(*header, what); !result)
                        onError(start + offset, std::move(result).error());
                    done = done || header->nlmsg_seq == sequence_;
                } else if (onReply) {
                    onReply(*header);
                }
            }
        }
    }
    return {};
}

Result<void> NlSocket::dump(Message& message, std::string_view what, const OnMessage& onReply,
                            const std::function<void()>& restart) {
    if (message.failed()) {
        return makeError(ErrorCode::InvalidArgument, "netlink " + std::string(what) + ": message too long");
    }
    nlmsghdr* request = message.raw();
    request->nlmsg_flags |= NLM_F_DUMP;
    for (int attempt = 0; attempt < kDumpAttempts; ++attempt) {
        if (attempt > 0) restart();
        request->nlmsg_seq = ++sequence_;
        WEFT_TRY(send({reinterpret_cast<const uint8_t*>(request), request->nlmsg_len}, what));
        bool interrupted = false;
        for (bool done = false; !done;) {
            WEFT_ASSIGN(const size_t received, receive(what));
            auto* header = reinterpret_cast<nlmsghdr*>(buffer_.data());
            for (int left = static_cast<int>(received); nlmsg_ok(header, left); header = nlmsg_next(header, &left)) {
                if (header->nlmsg_seq != sequence_) continue;
                // Set when the table changed between two parts: entries may be missing or double.
                interrupted = interrupted || (header->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
                if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) {
                    WEFT_TRY(verdict(*header, what));
                    done = true;
                } else {
                    onReply(*header);
                }
            }
        }
        if (!interrupted) return {};
    }
    return makeError(ErrorCode::Busy, "netlink " + std::string(what) + ": the table kept changing while it was read");
}

Result<std::unique_ptr<NlSocket>> NlPool::take() {
    {
        const std::lock_guard lock(mutex_);
        if (!idle_.empty()) {
            std::unique_ptr<NlSocket> socket = std::move(idle_.back());
            idle_.pop_back();
            return socket;
        }
    }
    return runIn(ns_, [&] { return NlSocket::open(protocol_); });
}

void NlPool::giveBack(std::unique_ptr<NlSocket> socket) {
    const std::lock_guard lock(mutex_);
    if (!socket->broken() && idle_.size() < kIdleSockets) idle_.push_back(std::move(socket));
}

}  // namespace weft::net
