#include "driver/dns_server.h"

#include <fmt/format.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <deque>
#include <map>
#include <span>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/spare_descriptor.h"
#include "base/unique_fd.h"
#include "driver/asker_quota.h"
#include "driver/dns_message.h"
#include "kv/socket_address.h"

namespace weft::driver {

namespace {

using SteadyClock = std::chrono::steady_clock;
using Time = SteadyClock::time_point;

constexpr size_t kMaxDatagram = 65535;
constexpr size_t kLengthField = 2;  // before each message over TCP (RFC 1035, 4.2.2)
constexpr size_t kStreamBuffer = kLengthField + kMaxDatagram;
constexpr size_t kBatch = 16;  // datagrams taken from a queue at once, before others get a turn
// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST; their headers do not go together with the C library's.
constexpr int kOriginalDestination = 80;

UniqueFd openSocket(IpFamily family, int type) {
    return UniqueFd(::socket(family == IpFamily::V4 ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

Result<UniqueFd> listenOn(IpFamily family, int type, uint16_t port) {
    UniqueFd fd = openSocket(family, type);
    if (!fd) return errnoError(errno, "socket");
    const int on = 1;
    const int shared =
        ::setsockopt(fd.get(), SOL_SOCKET, type == SOCK_STREAM ? SO_REUSEADDR : SO_REUSEPORT, &on, sizeof on);
    const int only = family == IpFamily::V6 ? ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) : 0;
    const int told = type == SOCK_STREAM      ? 0
                     : family == IpFamily::V4 ? ::setsockopt(fd.get(), IPPROTO_IP, IP_PKTINFO, &on, sizeof on)
                                              : ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    if (shared != 0 || only != 0 || told != 0) return errnoError(errno, "socket option");
    const kv::SocketAddress address({IpAddress::any(family), port});
    if (::bind(fd.get(), address.get(), address.size()) != 0 ||
        (type == SOCK_STREAM && ::listen(fd.get(), SOMAXCONN) != 0)) {
        const bool busy = errno == EADDRINUSE;
        Error error = errnoError(errno, fmt::format("listen on port {} for DNS", port));
        if (busy) error.message += "; choose another with --dns-port, or 0 for none";
        return error;
    }
    return fd;
}

// The sockets that share this one's port get a datagram each by its link and the last octet of its sender's address:
// the neighbours of one network, which have addresses in a row, and those of one address on two networks, seldom
// share one.
Result<void> chooseQueueBySender(int fd, IpFamily family) {
    const uint32_t lastOctet = family == IpFamily::V4 ? offsetof(iphdr, saddr) + 3 : offsetof(ip6_hdr, ip6_src) + 15;
    std::array<sock_filter, 6> code{{
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_IFINDEX)),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, static_cast<uint32_t>(SKF_NET_OFF) + lastOctet),
        BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, DnsServer::kQueues - 1),
        BPF_STMT(BPF_RET | BPF_A, 0),
    }};
    const sock_fprog program{code.size(), code.data()};
    if (::setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) == 0) return {};
    return errnoError(errno, "choice of a queue");
}

// What the socket calls want of one datagram beside its octets.
struct Envelope {
    kv::SocketAddress peer;
    alignas(cmsghdr) std::array<char, 128> control{};
    iovec part{};

    void fill(msghdr& message) {
        message.msg_name = peer.get();
        message.msg_namelen = kv::SocketAddress::kRoom;
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.data();
        message.msg_controllen = control.size();
    }
};

// Datagrams from containers, as many as one call brings.
class Inbox {
public:
    // How many came.
    size_t receive(int fd) {
        for (size_t i = 0; i < kBatch; ++i) {
            envelopes_[i].part = {octets_[i].data(), octets_[i].size()};
            envelopes_[i].fill(headers_[i].msg_hdr);
        }
        const int count = ::recvmmsg(fd, headers_.data(), kBatch, MSG_DONTWAIT, nullptr);
        return static_cast<size_t>(std::max(count, 0));
    }

    [[nodiscard]] std::span<const uint8_t> bytes(size_t i) const { return {octets_[i].data(), headers_[i].msg_len}; }

    [[nodiscard]] DnsAsker asker(size_t i) {
        DnsAsker asker{envelopes_[i].peer.address().value_or(kv::Address{}), {}, 0, false};
        msghdr& message = headers_[i].msg_hdr;
        for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
            if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO) {
                in_pktinfo info{};
                std::memcpy(&info, CMSG_DATA(header), sizeof info);
                asker.local = IpAddress::fromBytes(IpFamily::V4, reinterpret_cast<const uint8_t*>(&info.ipi_addr));
                asker.link = static_cast<uint32_t>(info.ipi_ifindex);
            } else if (header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_PKTINFO) {
                in6_pktinfo info{};
                std::memcpy(&info, CMSG_DATA(header), sizeof info);
                asker.local = IpAddress::fromBytes(IpFamily::V6, info.ipi6_addr.s6_addr);
                asker.link = info.ipi6_ifindex;
            }
        }
        return asker;
    }

private:
    std::array<mmsghdr, kBatch> headers_{};
    std::array<Envelope, kBatch> envelopes_{};
    std::array<std::array<uint8_t, kMaxDatagram>, kBatch> octets_;  // memory only where a datagram was
};

// Answers to as many.
class Outbox {
public:
    // From the address and by the link that the query came to. No more than kBatch until send().
    void add(const DnsAsker& asker, std::vector<uint8_t> bytes) {
        octets_[count_] = std::move(bytes);
        Envelope& envelope = envelopes_[count_];
        msghdr& message = headers_[count_].msg_hdr;
        ++count_;
        envelope.peer = kv::SocketAddress(asker.address);
        envelope.part = {octets_[count_ - 1].data(), octets_[count_ - 1].size()};
        envelope.fill(message);
        message.msg_namelen = envelope.peer.size();
        const auto local = asker.local.bytes();
        const auto attach = [&](int level, int type, const auto& info) {
            cmsghdr* header = CMSG_FIRSTHDR(&message);
            header->cmsg_level = level;
            header->cmsg_type = type;
            header->cmsg_len = CMSG_LEN(sizeof info);
            std::memcpy(CMSG_DATA(header), &info, sizeof info);
            message.msg_controllen = CMSG_SPACE(sizeof info);
        };
        if (asker.local.isV4()) {
            in_pktinfo info{};
            info.ipi_ifindex = static_cast<int>(asker.link);
            std::memcpy(&info.ipi_spec_dst, local.data(), sizeof info.ipi_spec_dst);
            attach(IPPROTO_IP, IP_PKTINFO, info);
        } else {
            in6_pktinfo info{};
            info.ipi6_ifindex = asker.link;
            std::memcpy(&info.ipi6_addr, local.data(), sizeof info.ipi6_addr);
            attach(IPPROTO_IPV6, IPV6_PKTINFO, info);
        }
    }

    void send(int fd) {
        // What does not go out is asked again by whoever wants to know.
        for (size_t done = 0; done < count_;) {
            const int sent = ::sendmmsg(fd, &headers_[done], static_cast<unsigned>(count_ - done), 0);
            done += static_cast<size_t>(std::max(sent, 1));
        }
        count_ = 0;
    }

private:
    std::array<mmsghdr, kBatch> headers_{};
    std::array<Envelope, kBatch> envelopes_{};
    std::array<std::vector<uint8_t>, kBatch> octets_;
    size_t count_ = 0;
};

Result<kv::Address> originalDestination(int fd, const DnsAsker& asker) {
    kv::SocketAddress address;
    socklen_t size = kv::SocketAddress::kRoom;
    const int level = asker.local.isV4() ? SOL_IP : SOL_IPV6;
    if (::getsockopt(fd, level, kOriginalDestination, address.get(), &size) != 0) {
        return errnoError(errno, "original destination");
    }
    const auto found = address.address();
    if (!found || found->ip == asker.local) return makeError(ErrorCode::Unavailable, "the query was for this host");
    return *found;
}

// A query over UDP that waits for somebody else's answer.
struct Passed {
    UniqueFd upstream;
    int socket = -1;  // of ours, where it came in
    DnsAsker asker;
    std::vector<uint8_t> query;
    Time deadline;
};

// A TCP connection of a container. Until a query of its is passed on, `toUpstream` is what was read and not yet
// answered.
struct Stream {
    UniqueFd client;
    UniqueFd upstream;
    DnsAsker asker;
    std::vector<uint8_t> toClient;
    std::vector<uint8_t> toUpstream;
    bool relayed = false;
    bool connecting = false;
    bool clientEnded = false;
    bool upstreamEnded = false;
    Time deadline;
};

// False when the connection broke.
bool writeOut(int fd, std::vector<uint8_t>& bytes) {
    if (bytes.empty()) return true;
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    bytes.erase(bytes.begin(), bytes.begin() + sent);
    return true;
}

// Appends what there is, up to kStreamBuffer in all. False when the connection broke.
bool readIn(int fd, std::vector<uint8_t>& bytes, bool& ended) {
    const size_t held = bytes.size();
    if (held >= kStreamBuffer) return true;
    bytes.resize(std::min(held + 16384, kStreamBuffer));
    const ssize_t size = ::recv(fd, bytes.data() + held, bytes.size() - held, 0);
    bytes.resize(held + static_cast<size_t>(std::max<ssize_t>(size, 0)));
    if (size == 0) ended = true;
    return size >= 0 || errno == EAGAIN || errno == EINTR;
}

}  // namespace

struct DnsServer::Impl {
    Impl(DnsHooks given, Metrics& metrics)
        : hooks(std::move(given)),
          answered(count(metrics, "answered")),
          passedOn(count(metrics, "passed")),
          dropped(count(metrics, "dropped")),
          failed(count(metrics, "failed")) {}

    static Counter& count(Metrics& metrics, const char* result) {
        return metrics.counter("weft_dns_queries_total",
                               "DNS queries of containers: answered here, passed on to where they were going, dropped "
                               "(not from a container, or a flood), failed.",
                               {{"result", result}});
    }

    Result<void> open(uint16_t port);
    Result<void> add(int fd, uint32_t events) const;
    void run();
    void serve(int fd, uint32_t events);
    void takeDatagrams(int fd);
    void pass(int fd, const DnsAsker& asker, std::span<const uint8_t> query);
    bool passTo(int fd, const DnsAsker& asker, std::span<const uint8_t> query);
    void fail(const DnsAsker& asker, std::span<const uint8_t> query);
    void finish(int upstream);
    void forget(std::map<int, Passed>::iterator one);
    void takeStream(int listener);
    void work(Stream& stream, int fd, uint32_t events);
    bool answerFrames(Stream& stream);
    bool connectUpstream(Stream& stream);
    void close(Stream& stream);
    void expire(Time now);
    [[nodiscard]] Time nextDeadline() const;

    DnsHooks hooks;
    Counter& answered;
    Counter& passedOn;
    Counter& dropped;
    Counter& failed;
    UniqueFd epoll;
    SpareDescriptor spare;
    UniqueFd wake;
    std::vector<UniqueFd> queues;  // of datagrams
    std::vector<UniqueFd> listeners;
    uint16_t port = 0;
    Inbox inbox;
    Outbox outbox;
    std::array<uint8_t, kMaxDatagram> upstreamAnswer;
    std::map<int, Passed> passed;                // by upstream
    std::deque<std::pair<Time, int>> deadlines;  // of passed, some of them done
    AskerQuota mayPass{kMaxPassed, kMaxPassedPerAsker};
    std::map<int, std::shared_ptr<Stream>> streams;  // by client and, once there is one, by upstream
    AskerQuota mayConnect{kMaxStreams, kMaxStreamsPerAsker};
    std::thread thread;
};

Result<void> DnsServer::Impl::open(uint16_t wanted) {
    epoll = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
    wake = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!epoll || !wake) return errnoError(errno, "epoll");
    WEFT_TRY(add(wake.get(), EPOLLIN));
    port = wanted;
    for (const IpFamily family : {IpFamily::V4, IpFamily::V6}) {
        if (family == IpFamily::V6 && !openSocket(family, SOCK_DGRAM) && errno == EAFNOSUPPORT) break;
        // First what two cannot share, so that a second server does not take queries of the first.
        WEFT_ASSIGN(UniqueFd listener, listenOn(family, SOCK_STREAM, port));
        WEFT_ASSIGN(const kv::Address bound, kv::SocketAddress::ofSocket(listener.get()));
        port = bound.port;
        WEFT_TRY(add(listener.get(), EPOLLIN));
        listeners.push_back(std::move(listener));
        for (size_t i = 0; i < kQueues; ++i) {
            WEFT_ASSIGN(UniqueFd queue, listenOn(family, SOCK_DGRAM, port));
            if (i == 0) WEFT_TRY(chooseQueueBySender(queue.get(), family));
            WEFT_TRY(add(queue.get(), EPOLLIN));
            queues.push_back(std::move(queue));
        }
    }
    return {};
}

Result<void> DnsServer::Impl::add(int fd, uint32_t events) const {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) return errnoError(errno, "epoll");
    return {};
}

void DnsServer::Impl::run() {
    std::array<epoll_event, 64> events{};
    Time vouchAt = SteadyClock::now();
    for (;;) {
        if (const auto now = SteadyClock::now(); now >= vouchAt) {
            hooks.vouch();
            vouchAt = now + kVouchEvery;
        }
        const Time next = std::min(nextDeadline(), vouchAt);
        const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next - SteadyClock::now()).count();
        const int timeout = static_cast<int>(std::max<int64_t>(wait, 0));
        const int ready = ::epoll_wait(epoll.get(), events.data(), events.size(), timeout);
        for (const epoll_event& event : std::span(events).first(static_cast<size_t>(std::max(ready, 0)))) {
            if (event.data.fd == wake.get()) return;
            serve(event.data.fd, event.events);
        }
        expire(SteadyClock::now());
    }
}

void DnsServer::Impl::serve(int fd, uint32_t events) {
    const auto is = [fd](const UniqueFd& one) { return one.get() == fd; };
    if (std::any_of(queues.begin(), queues.end(), is)) return takeDatagrams(fd);
    if (std::any_of(listeners.begin(), listeners.end(), is)) return takeStream(fd);
    if (passed.contains(fd)) return finish(fd);
    // Closed by an event before this one.
    if (const auto stream = streams.find(fd); stream != streams.end()) {
        const std::shared_ptr<Stream> held = stream->second;
        work(*held, fd, events);
    }
}

void DnsServer::Impl::takeDatagrams(int fd) {
    const size_t count = inbox.receive(fd);
    for (size_t i = 0; i < count; ++i) {
        const DnsAsker asker = inbox.asker(i);
        DnsVerdict verdict = hooks.decide(asker, inbox.bytes(i));
        switch (verdict.kind) {
            case DnsVerdict::Kind::Answer:
                answered.add();
                outbox.add(asker, std::move(verdict.reply));
                break;
            case DnsVerdict::Kind::PassOn:
                pass(fd, asker, inbox.bytes(i));
                break;
            case DnsVerdict::Kind::Drop:
                dropped.add();
                break;
        }
    }
    outbox.send(fd);
}

void DnsServer::Impl::fail(const DnsAsker& asker, std::span<const uint8_t> query) {
    failed.add();
    auto error = composeDnsError(query, DnsCode::ServerFailure);
    if (!error.empty()) outbox.add(asker, std::move(error));
}

void DnsServer::Impl::pass(int fd, const DnsAsker& asker, std::span<const uint8_t> query) {
    if (!mayPass.take(asker.address.ip)) return dropped.add();
    if (!passTo(fd, asker, query)) {
        mayPass.giveBack(asker.address.ip);
        fail(asker, query);
    }
}

bool DnsServer::Impl::passTo(int fd, const DnsAsker& asker, std::span<const uint8_t> query) {
    const auto destination = hooks.destinationOf(asker, port);
    if (!destination) {
        logDebug("DNS query of {} not passed on: {}", asker.address.str(), destination.error().message);
        return false;
    }
    UniqueFd upstream = openSocket(destination->ip.family(), SOCK_DGRAM);
    const kv::SocketAddress to(*destination);
    if (!upstream || ::connect(upstream.get(), to.get(), to.size()) != 0 ||
        ::send(upstream.get(), query.data(), query.size(), MSG_NOSIGNAL) < 0 || !add(upstream.get(), EPOLLIN)) {
        return false;
    }
    passedOn.add();
    const int key = upstream.get();
    const Time deadline = SteadyClock::now() + kPassTimeout;
    passed.insert_or_assign(
        key, Passed{std::move(upstream), fd, asker, std::vector<uint8_t>(query.begin(), query.end()), deadline});
    deadlines.emplace_back(deadline, key);
    return true;
}

// An answer, or word that there is nobody.
void DnsServer::Impl::finish(int upstream) {
    const auto found = passed.find(upstream);
    Passed& one = found->second;
    const ssize_t size = ::recv(upstream, upstreamAnswer.data(), upstreamAnswer.size(), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size < 0) {
        fail(one.asker, one.query);
    } else {
        outbox.add(one.asker, {upstreamAnswer.begin(), upstreamAnswer.begin() + size});
    }
    outbox.send(one.socket);
    forget(found);
}

void DnsServer::Impl::forget(std::map<int, Passed>::iterator one) {
    mayPass.giveBack(one->second.asker.address.ip);
    passed.erase(one);
}

void DnsServer::Impl::takeStream(int listener) {
    kv::SocketAddress from;
    socklen_t size = kv::SocketAddress::kRoom;
    UniqueFd client(::accept4(listener, from.get(), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!client) {
        if (spare.refuse(listener, errno)) dropped.add();
        return;
    }
    const auto local = kv::SocketAddress::ofSocket(client.get());
    const auto address = from.address();
    if (!local || !address) return;
    const DnsAsker asker{*address, local->ip, 0, true};
    if (!hooks.admits(asker) || !mayConnect.take(address->ip)) return dropped.add();
    if (!add(client.get(), EPOLLIN)) return mayConnect.giveBack(address->ip);
    auto stream = std::make_shared<Stream>();
    stream->asker = asker;
    stream->deadline = SteadyClock::now() + kStreamTimeout;
    stream->client = std::move(client);
    streams.emplace(stream->client.get(), std::move(stream));
}

void DnsServer::Impl::close(Stream& stream) {
    const auto held = streams.at(stream.client.get());  // keeps it until the end of this function
    mayConnect.giveBack(stream.asker.address.ip);
    if (stream.upstream) streams.erase(stream.upstream.get());
    streams.erase(stream.client.get());
}

// Answers the whole queries that were read. False: end the connection.
bool DnsServer::Impl::answerFrames(Stream& stream) {
    std::vector<uint8_t>& in = stream.toUpstream;
    while (!stream.relayed && in.size() >= kLengthField) {
        const size_t length = static_cast<size_t>(in[0]) << 8 | in[1];
        if (in.size() < kLengthField + length) break;
        const std::span query(in.data() + kLengthField, length);
        DnsVerdict verdict = hooks.decide(stream.asker, query);
        if (verdict.kind == DnsVerdict::Kind::Drop) {
            dropped.add();
            return false;
        }
        if (verdict.kind == DnsVerdict::Kind::PassOn) {
            if (connectUpstream(stream)) {
                passedOn.add();
                break;
            }
            failed.add();
            verdict.reply = composeDnsError(query, DnsCode::ServerFailure);
        } else {
            answered.add();
        }
        stream.toClient.push_back(static_cast<uint8_t>(verdict.reply.size() >> 8));
        stream.toClient.push_back(static_cast<uint8_t>(verdict.reply.size()));
        stream.toClient.insert(stream.toClient.end(), verdict.reply.begin(), verdict.reply.end());
        in.erase(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(kLengthField + length));
        // Who asks and does not read gets no more.
        if (stream.toClient.size() > kStreamBuffer) return false;
    }
    return true;
}

bool DnsServer::Impl::connectUpstream(Stream& stream) {
    const auto destination = originalDestination(stream.client.get(), stream.asker);
    if (!destination) return false;
    UniqueFd upstream = openSocket(destination->ip.family(), SOCK_STREAM);
    const kv::SocketAddress to(*destination);
    if (!upstream || (::connect(upstream.get(), to.get(), to.size()) != 0 && errno != EINPROGRESS)) return false;
    if (!add(upstream.get(), EPOLLOUT)) return false;
    streams.emplace(upstream.get(), streams.at(stream.client.get()));
    stream.upstream = std::move(upstream);
    stream.relayed = stream.connecting = true;
    return true;
}

void DnsServer::Impl::work(Stream& stream, int fd, uint32_t events) {
    const auto now = SteadyClock::now();
    stream.deadline = now + kStreamTimeout;
    const bool atClient = fd == stream.client.get();
    bool good = true;
    if (!atClient && stream.connecting) {
        int error = 0;
        socklen_t size = sizeof error;
        good = ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
        stream.connecting = false;
    }
    if (good && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        good = atClient ? readIn(fd, stream.toUpstream, stream.clientEnded)
                        : readIn(fd, stream.toClient, stream.upstreamEnded);
    }
    if (good && !stream.relayed) good = answerFrames(stream);
    good = good && writeOut(stream.client.get(), stream.toClient);
    if (good && stream.relayed && !stream.connecting) {
        good = writeOut(stream.upstream.get(), stream.toUpstream);
        if (stream.clientEnded && stream.toUpstream.empty()) ::shutdown(stream.upstream.get(), SHUT_WR);
    }
    const bool told = stream.toClient.empty() && (stream.relayed ? stream.upstreamEnded : stream.clientEnded);
    if (!good || told) return close(stream);

    const auto want = [this](int one, bool in, bool out) {
        epoll_event event{};
        event.events = (in ? EPOLLIN : 0U) | (out ? EPOLLOUT : 0U);
        event.data.fd = one;
        ::epoll_ctl(epoll.get(), EPOLL_CTL_MOD, one, &event);
    };
    want(stream.client.get(), !stream.clientEnded && stream.toUpstream.size() < kStreamBuffer,
         !stream.toClient.empty());
    if (stream.relayed) {
        want(stream.upstream.get(), !stream.upstreamEnded && stream.toClient.size() < kStreamBuffer,
             stream.connecting || !stream.toUpstream.empty());
    }
}

Time DnsServer::Impl::nextDeadline() const {
    Time next = deadlines.empty() ? Time::max() : deadlines.front().first;
    for (const auto& [fd, stream] : streams) next = std::min(next, stream->deadline);
    return next;
}

void DnsServer::Impl::expire(Time now) {
    while (!deadlines.empty()) {
        const auto [deadline, upstream] = deadlines.front();
        const auto found = passed.find(upstream);
        const bool waits = found != passed.end() && found->second.deadline == deadline;
        if (waits && deadline > now) break;
        deadlines.pop_front();
        if (!waits) continue;
        forget(found);
    }
    std::vector<std::shared_ptr<Stream>> late;
    for (const auto& [fd, stream] : streams) {
        if (fd == stream->client.get() && stream->deadline <= now) late.push_back(stream);
    }
    for (const auto& stream : late) close(*stream);
}

DnsServer::DnsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<DnsServer>> DnsServer::start(uint16_t port, DnsHooks hooks, Metrics& metrics) {
    auto impl = std::make_unique<Impl>(std::move(hooks), metrics);
    WEFT_TRY(impl->open(port));
    impl->thread = std::thread([&server = *impl] { server.run(); });
    return std::unique_ptr<DnsServer>(new DnsServer(std::move(impl)));
}

DnsServer::~DnsServer() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t size = ::write(impl_->wake.get(), &one, sizeof one);
    impl_->thread.join();
}

uint16_t DnsServer::port() const {
    return impl_->port;
}

}  // namespace weft::driver
