#include "kv/socket_transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "kv/node.h"
#include "kv/socket_address.h"

namespace weft::kv {

namespace {

constexpr uint64_t kWakeToken = 1;
constexpr uint64_t kUdpToken = 2;
constexpr uint64_t kTcpToken = 3;

constexpr int kReceiveBuffer = 4 << 20;
constexpr int kPacketsAtOnce = 64;
constexpr int kAcceptsAtOnce = 16;
constexpr size_t kReadAtOnce = 64 << 10;
// A peer that asks for everything and reads nothing: the stream is given up.
constexpr size_t kMaxUnsent = 32 << 20;
constexpr size_t kMaxUnsentOfAll = 64 << 20;  // then the stream with the most is given up
constexpr size_t kCountUnsentFrom = 1 << 20;  // of a stream that has less the sum is not asked for
// Without a descriptor for who connects, epoll would report it again at once and for ever.
constexpr std::chrono::milliseconds kAcceptPause{100};
// Streams that the node is done with and whose last bytes nobody reads.
constexpr size_t kMaxClosing = 64;
// A goodbye that nobody reads.
constexpr std::chrono::seconds kCloseLimit{5};

int createSocket(IpFamily family, int type) {
    return ::socket(family == IpFamily::V4 ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

void setOption(int fd, int level, int name, int value) {
    ::setsockopt(fd, level, name, &value, sizeof(value));
}

Error cannot(const Address& bind, const char* what) {
    const int error = errno;
    std::string hint;
    if (error == EADDRNOTAVAIL) hint = "; it is no address of this host: see --bind and --advertise";
    if (error == EADDRINUSE)
        hint = "; another program has the port: see ss -lnptu, or choose one with --bind ADDR:PORT";
    Error made = errnoError(error, std::string(what) + " " + bind.str());
    made.message += hint;
    return made;
}

}  // namespace

SocketTransport::~SocketTransport() = default;

Result<std::unique_ptr<SocketTransport>> SocketTransport::open(const Address* bind) {
    std::unique_ptr<SocketTransport> made(new SocketTransport);
    made->epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    made->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!made->epoll_ || !made->wake_) return errnoError(errno, "gossip event loop");
    made->watch(made->wake_.get(), kWakeToken, EPOLLIN, true);
    if (bind != nullptr) WEFT_TRY(made->listen(*bind));
    return made;
}

Result<void> SocketTransport::listen(const Address& bind) {
    const SocketAddress name(bind);
    tcp_.reset(createSocket(bind.ip.family(), SOCK_STREAM));
    udp_.reset(createSocket(bind.ip.family(), SOCK_DGRAM));
    if (!tcp_ || !udp_) return errnoError(errno, "gossip socket");
    setOption(tcp_.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind.ip.isV6()) {
        setOption(tcp_.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
        setOption(udp_.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
        setOption(udp_.get(), IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
    } else {
        // A path with a smaller MTU than ours shall cost fragments, not packets.
        setOption(udp_.get(), IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
    }
    setOption(udp_.get(), SOL_SOCKET, SO_RCVBUFFORCE, kReceiveBuffer);
    if (::bind(tcp_.get(), name.get(), name.size()) != 0) return cannot(bind, "listen on tcp");
    WEFT_ASSIGN(const Address bound, SocketAddress::ofSocket(tcp_.get()));
    port_ = bound.port;
    const SocketAddress same(Address{bind.ip, port_});
    if (::bind(udp_.get(), same.get(), same.size()) != 0) return cannot(Address{bind.ip, port_}, "listen on udp");
    if (::listen(tcp_.get(), 128) != 0) return cannot(bind, "listen on tcp");
    watch(udp_.get(), kUdpToken, EPOLLIN, true);
    watch(tcp_.get(), kTcpToken, EPOLLIN, true);
    buffer_.resize(kReadAtOnce);
    return {};
}

void SocketTransport::watch(int fd, uint64_t token, uint32_t events, bool add) const {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    ::epoll_ctl(epoll_.get(), add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
}

void SocketTransport::wake() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t size = ::write(wake_.get(), &one, sizeof(one));
}

void SocketTransport::run(Node& node, std::chrono::steady_clock::duration patience) {
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(patience).count();
    constexpr int64_t kLongest = 3'600'000;
    std::array<epoll_event, 64> events{};
    const int64_t longest = acceptPaused_ ? kAcceptPause.count() : kLongest;
    const int limit = broken_.empty() ? static_cast<int>(std::clamp<int64_t>(wait, 0, longest)) : 0;
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), limit);
    for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<size_t>(i)];
        if (event.data.u64 == kWakeToken) {
            uint64_t rings = 0;
            [[maybe_unused]] const ssize_t size = ::read(wake_.get(), &rings, sizeof(rings));
        } else if (event.data.u64 == kUdpToken) {
            receivePackets(node);
        } else if (event.data.u64 == kTcpToken) {
            acceptStreams(node);
        } else {
            onStream(node, event.data.u64, event.events);
        }
    }
    for (const StreamId id : std::exchange(broken_, {})) {
        if (streams_.erase(id) != 0) node.onStreamClosed(id);
    }
    const auto now = std::chrono::steady_clock::now();
    if (acceptPaused_ && now >= resumeAccept_) pauseAccept(false);
    std::erase_if(streams_, [now](const auto& entry) { return entry.second.closing && now >= entry.second.closeBy; });
}

void SocketTransport::receivePackets(Node& node) {
    for (int i = 0; i < kPacketsAtOnce; ++i) {
        SocketAddress from;
        socklen_t size = SocketAddress::kRoom;
        const ssize_t bytes = ::recvfrom(udp_.get(), buffer_.data(), buffer_.size(), 0, from.get(), &size);
        if (bytes < 0) {
            if (errno == EINTR || errno == ECONNREFUSED) continue;  // the latter: an ICMP answer to what we sent
            return;
        }
        if (const auto address = from.address()) {
            node.onPacket(*address, BytesView(buffer_).first(static_cast<size_t>(bytes)));
        }
    }
}

void SocketTransport::acceptStreams(Node& node) {
    for (int i = 0; i < kAcceptsAtOnce; ++i) {
        SocketAddress from;
        socklen_t size = SocketAddress::kRoom;
        UniqueFd fd(::accept4(tcp_.get(), from.get(), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) pauseAccept(true);
            return;
        }
        const auto address = from.address();
        if (!address) continue;
        setOption(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
        const StreamId id = nextStream_++;
        watch(fd.get(), id, EPOLLIN, true);
        streams_[id].fd = std::move(fd);
        node.onStreamAccepted(id, *address);
    }
}

void SocketTransport::pauseAccept(bool pause) {
    acceptPaused_ = pause;
    resumeAccept_ = std::chrono::steady_clock::now() + kAcceptPause;
    watch(tcp_.get(), kTcpToken, pause ? 0U : static_cast<uint32_t>(EPOLLIN), false);
}

void SocketTransport::onStream(Node& node, StreamId id, uint32_t events) {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    Stream& stream = found->second;
    if ((events & EPOLLOUT) != 0 || stream.connecting) {
        if (!flush(id, stream)) return end(id);
        if (stream.closing && stream.unsent.empty()) {
            streams_.erase(found);
            return;
        }
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
    const ssize_t bytes = ::recv(stream.fd.get(), buffer_.data(), buffer_.size(), 0);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (bytes <= 0) return end(id);
    if (!stream.closing) node.onStreamData(id, BytesView(buffer_).first(static_cast<size_t>(bytes)));
}

void SocketTransport::end(StreamId id) {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    if (found->second.closing) {
        streams_.erase(found);
    } else {
        broken_.push_back(id);
    }
}

bool SocketTransport::flush(StreamId id, Stream& stream) {
    if (stream.connecting) {
        int error = 0;
        socklen_t size = sizeof(error);
        ::getsockopt(stream.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) return false;
        SocketAddress peer;
        socklen_t room = SocketAddress::kRoom;
        if (::getpeername(stream.fd.get(), peer.get(), &room) != 0) return errno == ENOTCONN;
        stream.connecting = false;
    }
    size_t sent = 0;
    while (sent < stream.unsent.size()) {
        const ssize_t bytes =
            ::send(stream.fd.get(), stream.unsent.data() + sent, stream.unsent.size() - sent, MSG_NOSIGNAL);
        if (bytes < 0 && errno == EINTR) continue;
        if (bytes < 0 && errno == EAGAIN) break;
        if (bytes < 0) return false;
        sent += static_cast<size_t>(bytes);
    }
    stream.unsent.erase(stream.unsent.begin(), stream.unsent.begin() + static_cast<ptrdiff_t>(sent));
    watch(stream.fd.get(), id, stream.unsent.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT, false);
    return true;
}

void SocketTransport::sendPacket(const Address& to, BytesView bytes) {
    if (!udp_) return;
    const SocketAddress name(to);
    // Lost like any packet if the family differs, the buffer is full or there is no route.
    ::sendto(udp_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL, name.get(), name.size());
}

StreamId SocketTransport::connect(const Address& to) {
    const StreamId id = nextStream_++;
    Stream& stream = streams_[id];
    stream.fd.reset(createSocket(to.ip.family(), SOCK_STREAM));
    const SocketAddress name(to);
    if (!stream.fd) {
        broken_.push_back(id);
        return id;
    }
    setOption(stream.fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    if (::connect(stream.fd.get(), name.get(), name.size()) != 0 && errno != EINPROGRESS) {
        broken_.push_back(id);
        return id;
    }
    stream.connecting = true;
    watch(stream.fd.get(), id, EPOLLIN | EPOLLOUT, true);
    return id;
}

void SocketTransport::sendStream(StreamId id, BytesView bytes) {
    const auto found = streams_.find(id);
    if (found == streams_.end() || found->second.closing) return;
    Stream& stream = found->second;
    if (stream.unsent.size() + bytes.size() > kMaxUnsent) {
        broken_.push_back(id);
        return;
    }
    stream.unsent.insert(stream.unsent.end(), bytes.begin(), bytes.end());
    if (!stream.connecting && !flush(id, stream)) broken_.push_back(id);
    if (stream.unsent.size() > kCountUnsentFrom) limitUnsent();
}

// Streams that are closing count like the others: a peer that asks for much and reads nothing has no more of them.
void SocketTransport::limitUnsent() {
    size_t sum = 0;
    for (const auto& [id, stream] : streams_) sum += stream.unsent.size();
    if (sum <= kMaxUnsentOfAll) return;
    const auto most =
        std::ranges::max_element(streams_, {}, [](const auto& entry) { return entry.second.unsent.size(); });
    most->second.unsent = {};
    if (most->second.closing) {
        streams_.erase(most);
    } else {
        most->second.fd.reset();
        broken_.push_back(most->first);
    }
}

void SocketTransport::limitClosing() {
    const auto closing = [](const auto& entry) { return entry.second.closing; };
    if (std::ranges::count_if(streams_, closing) <= static_cast<ptrdiff_t>(kMaxClosing)) return;
    streams_.erase(std::ranges::min_element(streams_, {}, [](const auto& entry) {
        return entry.second.closing ? entry.second.closeBy : std::chrono::steady_clock::time_point::max();
    }));
}

void SocketTransport::closeStream(StreamId id) {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    Stream& stream = found->second;
    if (stream.unsent.empty() || stream.connecting) {
        streams_.erase(found);
        return;
    }
    stream.closing = true;
    stream.closeBy = std::chrono::steady_clock::now() + kCloseLimit;
    limitClosing();
}

}  // namespace weft::kv
