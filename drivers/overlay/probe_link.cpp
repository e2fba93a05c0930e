#include "drivers/overlay/probe_link.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "base/log.h"
#include "kv/socket_address.h"
#include "kv/wire.h"
#include "net/offload.h"
#include "net/sysctl.h"

namespace weft {

namespace {

using namespace std::chrono_literals;
using Time = std::chrono::steady_clock::time_point;

constexpr uint16_t kPort = 7950;                             // inside the tunnel, UDP and TCP
constexpr size_t kHead = 8;                                  // of a datagram: see below
constexpr std::array kPatience{200ms, 300ms, 400ms, 600ms};  // for the answer to each try
constexpr auto kStreamPatience = 5s;
constexpr size_t kChunk = 64 << 10;
constexpr size_t kMostStreams = 64;
constexpr uint64_t kMostBytes = 1 << 20;  // of a stream

// A datagram: version, what it is, two zeros, and a number (u32) by which an answer is known; then anything.
constexpr uint8_t kVersion = 1;
enum class Kind : uint8_t { Ask = 1, AskChecksum = 2, Answer = 3 };  // AskChecksum: the answer shall have a checksum

Time now() {
    return std::chrono::steady_clock::now();
}

kv::Bytes datagram(Kind kind, uint32_t number, size_t size = kHead) {
    kv::Writer out;
    out.u8(kVersion);
    out.u8(static_cast<uint8_t>(kind));
    out.u16(0);
    out.u32(number);
    kv::Bytes bytes = std::move(out).take();
    bytes.resize(std::max(size, kHead));
    return bytes;
}

// FNV-1a.
uint64_t hashed(uint64_t hash, kv::BytesView bytes) {
    for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
    return hash;
}
constexpr uint64_t kEmptyHash = 0xcbf29ce484222325;

// A chunk of the stream: bytes that no checksum adds up to the same of when words change places.
kv::Bytes pattern() {
    kv::Bytes bytes(kChunk);
    std::minstd_rand random(1);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() >> 8);
    return bytes;
}

MacAddress macOf(const IpAddress& vtep) {
    return macFromKey("tunnel probe of " + vtep.str());
}

void setOption(int fd, int level, int name, int value) {
    ::setsockopt(fd, level, name, &value, sizeof value);
}

// UDP with a checksum or without.
void setChecksum(int fd, bool isV4, bool on) {
    if (isV4) {
        setOption(fd, SOL_SOCKET, SO_NO_CHECK, on ? 0 : 1);
    } else {
        setOption(fd, SOL_UDP, UDP_NO_CHECK6_TX, on ? 0 : 1);
    }
}

Result<UniqueFd> openSocket(const net::NetNs& ns, const IpAddress& own, int type, uint16_t port) {
    WEFT_ASSIGN(UniqueFd fd, net::socketIn(ns, own.isV4() ? AF_INET : AF_INET6, type | SOCK_NONBLOCK, 0));
    if (type == SOCK_STREAM) {
        setOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    } else if (own.isV4()) {
        setOption(fd.get(), IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
    } else {
        setOption(fd.get(), IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
        setOption(fd.get(), SOL_UDP, UDP_NO_CHECK6_RX, 1);
    }
    const kv::SocketAddress address({own, port});
    if (::bind(fd.get(), address.get(), address.size()) != 0)
        return errnoError(errno, "bind a socket of the tunnel probe");
    return fd;
}

}  // namespace

Result<std::unique_ptr<ProbeLink>> ProbeLink::open(net::Netlink& host, net::VxlanSettings settings, uint32_t mtu) {
    WEFT_ASSIGN(net::NetNs ns, net::NetNs::create());
    std::unique_ptr<ProbeLink> made(new ProbeLink(std::move(ns)));
    WEFT_TRY(made->make(host, std::move(settings), mtu));
    WEFT_TRY(made->listen());
    made->server_ = std::thread([probe = made.get()] { probe->serve(); });
    return made;
}

Result<void> ProbeLink::make(net::Netlink& host, net::VxlanSettings settings, uint32_t mtu) {
    vtep_ = *settings.local;
    mtu_ = mtu;
    net::VxlanSpec spec;
    spec.name = kProbeLink;
    spec.alias = kProbeMark;
    spec.vxlan = std::move(settings);
    spec.vxlan.vni = kProbeVni;
    spec.mac = macOf(vtep_);
    spec.mtu = mtu;
    spec.up = false;
    WEFT_ASSIGN(const net::Link link, host.createVxlan(spec));
    if (auto moved = host.moveTo(link.index, ns_); !moved) {
        (void)host.deleteLink(link.index);
        return moved;
    }
    // New namespaces take the host's settings over. Frames from others end here.
    WEFT_TRY(net::runIn(ns_, [] { return net::setSysctl("net/ipv4/ip_forward", "0"); }));
    WEFT_ASSIGN(netlink_, net::Netlink::openIn(ns_));
    WEFT_ASSIGN(const net::Link here, netlink_->getLink(kProbeLink));
    link_ = here.index;
    WEFT_TRY(netlink_->setUp(link_));
    net::Address address;
    address.link = link_;
    address.prefix = IpPrefix(vtep_, static_cast<uint8_t>(addressBits(vtep_.family())));
    address.noDad = true;
    WEFT_TRY(netlink_->setAddress(address));
    net::Route route;
    route.destination = IpPrefix(IpAddress::any(vtep_.family()), 0);
    route.link = link_;
    route.linkScope = vtep_.isV4();
    return netlink_->setRoute(route);
}

Result<void> ProbeLink::listen() {
    stopped_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!stopped_) return errnoError(errno, "eventfd");
    WEFT_ASSIGN(datagrams_, openSocket(ns_, vtep_, SOCK_DGRAM, kPort));
    WEFT_ASSIGN(listener_, openSocket(ns_, vtep_, SOCK_STREAM, kPort));
    if (::listen(listener_.get(), SOMAXCONN) != 0) return errnoError(errno, "listen for tunnel probes");
    return {};
}

ProbeLink::~ProbeLink() {
    stop();
    if (server_.joinable()) server_.join();
    // With the namespace it would go a moment later, and a successor finds its VNI taken.
    if (link_ != 0) (void)netlink_->deleteLink(link_);
}

void ProbeLink::stop() {
    if (!stopped_) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t size = ::write(stopped_.get(), &one, sizeof one);
}

Result<void> ProbeLink::setPeers(const std::set<IpAddress>& peers) {
    const auto entries = [this](const std::set<IpAddress>& from, const std::set<IpAddress>& without) {
        std::pair<std::vector<net::FdbEntry>, std::vector<net::Neighbour>> made;
        for (const IpAddress& peer : from) {
            if (without.contains(peer)) continue;
            made.first.push_back({.link = link_, .mac = macOf(peer), .remote = peer});
            made.second.push_back({.link = link_, .address = peer, .mac = macOf(peer)});
        }
        return made;
    };
    const auto [staleFdb, staleNeighbours] = entries(peers_, peers);
    const auto [fdb, neighbours] = entries(peers, peers_);
    WEFT_TRY(netlink_->deleteNeighbours(staleNeighbours));
    WEFT_TRY(netlink_->deleteFdb(staleFdb));
    WEFT_TRY(netlink_->setFdb(fdb));
    WEFT_TRY(netlink_->setNeighbours(neighbours));
    peers_ = peers;
    return {};
}

Result<void> ProbeLink::setMtu(uint32_t mtu) {
    if (mtu == mtu_) return {};
    WEFT_TRY(netlink_->setMtu(link_, mtu));
    mtu_ = mtu;
    return {};
}

Result<void> ProbeLink::setOffload(bool on) {
    if (on == offload_) return {};
    WEFT_TRY(net::setChecksumOffload(ns_, kProbeLink, on));
    offload_ = on;
    return {};
}

// Asking

TunnelFindings ProbeLink::examine(const IpAddress& peer, uint32_t mtu) {
    TunnelFindings found;
    found.size = std::min(mtu, mtu_);
    const auto socket = openSocket(ns_, vtep_, SOCK_DGRAM, 0);
    if (!socket) {
        logWarn("{}", socket.error().message);
        return found;
    }
    const int fd = socket->get();
    const size_t headers = vtep_.isV4() ? 28 : 48;
    found.small = asks(fd, peer, kHead, false, false);
    if (!found.small) return found;
    found.large = asks(fd, peer, found.size - headers, false, false);
    found.checksummed = asks(fd, peer, kHead, true, false);
    found.answered = asks(fd, peer, kHead, false, true);
    found.stream = found.checksummed && found.answered && streams(peer);
    return found;
}

// Whether the fd is ready for `events` by then; false also when stopped.
static bool await(int fd, short events, int stopped, Time until) {
    std::array<pollfd, 2> fds{{{fd, events, 0}, {stopped, POLLIN, 0}}};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - now()).count();
    if (left <= 0 || ::poll(fds.data(), fds.size(), static_cast<int>(left)) <= 0) return false;
    return fds[1].revents == 0;
}

bool ProbeLink::asks(int fd, const IpAddress& peer, size_t size, bool checksum, bool checksumBack) {
    setChecksum(fd, peer.isV4(), checksum);
    const kv::SocketAddress to({peer, kPort});
    for (const auto patience : kPatience) {
        const uint32_t number = ++nonce_;
        const kv::Bytes request = datagram(checksumBack ? Kind::AskChecksum : Kind::Ask, number, size);
        const auto sent = ::sendto(fd, request.data(), request.size(), 0, to.get(), to.size());
        if (sent < 0 && errno == EMSGSIZE) return false;
        const kv::Bytes wanted = datagram(Kind::Answer, number);
        for (const Time until = now() + patience; await(fd, POLLIN, stopped_.get(), until);) {
            std::array<uint8_t, kHead> got{};
            const ssize_t length = ::recv(fd, got.data(), got.size(), 0);
            if (length == kHead && std::equal(got.begin(), got.end(), wanted.begin())) return true;
        }
    }
    return false;
}

bool ProbeLink::streams(const IpAddress& peer) {
    const auto socket = openSocket(ns_, vtep_, SOCK_STREAM, 0);
    if (!socket) return false;
    const int fd = socket->get();
    const Time until = now() + kStreamPatience;
    const kv::SocketAddress to({peer, kPort});
    if (::connect(fd, to.get(), to.size()) != 0 && errno != EINPROGRESS) return false;
    const kv::Bytes chunk = pattern();
    uint64_t hash = kEmptyHash;
    uint64_t sent = 0;
    while (sent < kProbeStreamBytes) {
        if (!await(fd, POLLOUT, stopped_.get(), until)) return false;
        const size_t at = sent % kChunk;
        const ssize_t taken = ::send(fd, chunk.data() + at, kChunk - at, MSG_NOSIGNAL);
        if (taken < 0 && errno != EAGAIN) return false;
        if (taken <= 0) continue;
        hash = hashed(hash, kv::BytesView(chunk).subspan(at, static_cast<size_t>(taken)));
        sent += static_cast<uint64_t>(taken);
    }
    ::shutdown(fd, SHUT_WR);
    kv::Writer wanted;
    wanted.u64(sent);
    wanted.u64(hash);
    kv::Bytes got;
    while (got.size() < wanted.size() && await(fd, POLLIN, stopped_.get(), until)) {
        std::array<uint8_t, 16> bytes{};
        const ssize_t length = ::recv(fd, bytes.data(), bytes.size(), 0);
        if (length <= 0) break;
        got.insert(got.end(), bytes.begin(), bytes.begin() + length);
    }
    return got == wanted.view();
}

// Answering

void ProbeLink::serve() {
    std::vector<Stream> open;
    std::vector<pollfd> fds;
    for (;;) {
        fds = {{stopped_.get(), POLLIN, 0}, {datagrams_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
        for (const Stream& stream : open) fds.push_back({stream.fd.get(), POLLIN, 0});
        ::poll(fds.data(), fds.size(), open.empty() ? -1 : 1000);
        if (fds[0].revents != 0) return;
        if (fds[1].revents != 0) answer();
        for (size_t i = 0; i < open.size(); ++i) {
            const bool over = fds[3 + i].revents != 0 ? !receive(open[i]) : now() > open[i].deadline;
            if (over) open[i].fd.reset();
        }
        std::erase_if(open, [](const Stream& stream) { return !stream.fd; });
        if (fds[2].revents == 0) continue;
        UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd) continue;
        if (open.size() == kMostStreams) open.erase(open.begin());  // the oldest
        open.push_back({std::move(fd), 0, kEmptyHash, now() + 2 * kStreamPatience});
    }
}

void ProbeLink::answer() {
    std::array<uint8_t, kHead> bytes{};
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    auto* sender = reinterpret_cast<sockaddr*>(&from);
    const ssize_t length = ::recvfrom(datagrams_.get(), bytes.data(), bytes.size(), 0, sender, &size);
    if (length < static_cast<ssize_t>(kHead)) return;
    kv::Reader in(bytes);
    const uint8_t version = in.u8();
    const auto kind = static_cast<Kind>(in.u8());
    in.u16();
    if (version != kVersion || (kind != Kind::Ask && kind != Kind::AskChecksum)) return;
    setChecksum(datagrams_.get(), vtep_.isV4(), kind == Kind::AskChecksum);
    const kv::Bytes reply = datagram(Kind::Answer, in.u32());
    ::sendto(datagrams_.get(), reply.data(), reply.size(), 0, sender, size);
}

bool ProbeLink::receive(Stream& stream) {
    std::array<uint8_t, 16 << 10> bytes{};
    const ssize_t length = ::recv(stream.fd.get(), bytes.data(), bytes.size(), 0);
    if (length < 0) return errno == EAGAIN;
    if (length > 0) {
        stream.bytes += static_cast<uint64_t>(length);
        stream.hash = hashed(stream.hash, kv::BytesView(bytes).first(static_cast<size_t>(length)));
        return stream.bytes <= kMostBytes;
    }
    kv::Writer out;
    out.u64(stream.bytes);
    out.u64(stream.hash);
    ::send(stream.fd.get(), out.view().data(), out.size(), MSG_NOSIGNAL);
    return false;
}

}  // namespace weft
