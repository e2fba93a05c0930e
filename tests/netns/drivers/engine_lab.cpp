#include "tests/netns/drivers/engine_lab.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "drivers/names.h"
#include "firewall/iptc.h"
#include "firewall/nft.h"
#include "tests/netns/net/namespace_fixture.h"

namespace weft {

std::string shellInside(const net::NetNs& ns, const std::string& command) {
    return net::runInside(ns, "sh -c '" + command + "'");
}

IpAddress ip(const std::string& text) {
    return must(IpAddress::parse(text));
}
IpPrefix prefix(const std::string& text) {
    return must(IpPrefix::parse(text));
}

namespace {

std::string hexId(char kind, int number) {
    char text[65];
    std::snprintf(text, sizeof text, "%c%07x%056d", kind, number, 0);
    return text;
}

socklen_t fill(sockaddr_storage& storage, const IpAddress& address, uint16_t port) {
    storage = {};
    const auto bytes = address.bytes();
    if (address.isV4()) {
        auto& in = reinterpret_cast<sockaddr_in&>(storage);
        in.sin_family = AF_INET;
        in.sin_port = htons(port);
        std::memcpy(&in.sin_addr, bytes.data(), 4);
        return sizeof in;
    }
    auto& in = reinterpret_cast<sockaddr_in6&>(storage);
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    std::memcpy(&in.sin6_addr, bytes.data(), 16);
    return sizeof in;
}

IpAddress addressOf(const sockaddr_storage& storage) {
    if (storage.ss_family == AF_INET) {
        const auto& in = reinterpret_cast<const sockaddr_in&>(storage);
        return IpAddress::fromBytes(IpFamily::V4, reinterpret_cast<const uint8_t*>(&in.sin_addr));
    }
    const auto& in = reinterpret_cast<const sockaddr_in6&>(storage);
    return IpAddress::fromBytes(IpFamily::V6, reinterpret_cast<const uint8_t*>(&in.sin6_addr));
}

bool readable(int fd, std::chrono::milliseconds patience) {
    pollfd poll{fd, POLLIN, 0};
    return ::poll(&poll, 1, static_cast<int>(patience.count())) == 1 && (poll.revents & POLLIN) != 0;
}

}  // namespace

NetworkId networkId(int number) {
    return NetworkId(hexId('a', number));
}
EndpointId endpointId(int number) {
    return EndpointId(hexId('e', number));
}

void EngineLab::SetUp() {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << std::strerror(errno);
    host_ = must(net::NetNs::current());
    outside_ = must(net::NetNs::create());
    // This namespace has br_netfilter's default of this kernel; hosts have it off.
    shellInside(*host_,
                "echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables; "
                "echo 0 > /proc/sys/net/bridge/bridge-nf-call-ip6tables; ip link set lo up");
    auto netlink = must(net::Netlink::open());
    must(netlink->createVeth({.name = "eth0", .peerName = "out0", .alias = "wire", .mtu = 1450}));
    must(netlink->moveTo(must(netlink->getLink("out0")).index, *outside_, "eth0"));
    EXPECT_EQ(shellInside(*host_,
                          "ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad; "
                          "ip route add default via 192.0.2.2; ip route add default via 2001:db8::2"),
              "");
    EXPECT_EQ(shellInside(*outside_,
                          "ip link set lo up; ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0; "
                          "ip addr add 2001:db8::2/64 dev eth0 nodad"),
              "");
    ::setenv("XTABLES_LOCKFILE", (scratch_ / "xtables.lock").c_str(), 1);
    start();
}

void EngineLab::TearDown() {
    stop();
    if (HasFailure()) return;
    EXPECT_THAT(weftLinks(), ::testing::IsEmpty()) << shellInside(*host_, "ip -br link");
    EXPECT_EQ(shellInside(*host_,
                          "{ iptables-legacy-save; ip6tables-legacy-save; nft list ruleset; } 2>/dev/null | "
                          "grep -i e00000 || true"),
              "");
}

Daemon EngineLab::make(firewall::Firewall& firewall) {
    Daemon made;
    const SchemaComponent components[] = {ipam::schemaComponent(), RecordStore::schema()};
    made.database = must(Database::open(scratch_ / "state.db", components));
    made.netlink = must(net::Netlink::openIn(*host_));
    made.ports = must(net::PortAllocator::openIn(*host_));
    made.leases = std::make_unique<ipam::DatabaseLeaseStore>(*made.database);
    made.records = must(RecordStore::open(*made.database));
    made.ipam = must(ipam::LocalIpam::create(*made.leases, clock_));
    made.portProgram = must(net::PortProgram::load(*host_));
    const DriverContext context{*made.records, *made.netlink, *made.ports,           firewall,
                                *made.ipam,    clock_,        made.portProgram.get()};
    made.bridge = must(BridgeDriver::create(context));
    made.host = must(HostDriver::create(context));
    made.none = std::make_unique<NoneDriver>(*made.records, clock_);
    return made;
}

void EngineLab::start(bool reconciled) {
    if (rulesBy_ == RulesBy::Iptc) backend_ = firewall::makeIptcFirewall();
    if (rulesBy_ == RulesBy::Nft) backend_ = must(firewall::makeNftFirewall());
    d = make(backend_ ? *backend_ : recorder_);
    if (!reconciled) return;
    must(d.bridge->reconcile(false));
    must(d.host->reconcile(false));
}

void EngineLab::stop() {
    d.none.reset();
    d.host.reset();
    d.bridge.reset();
    d.records.reset();
    d.ipam.reset();
    d = {};
    backend_.reset();
}

CreateNetworkRequest EngineLab::networkRequest(int number, const std::string& subnet, const std::string& subnetV6,
                                               std::map<std::string, std::string> options) {
    CreateNetworkRequest request;
    request.networkId = networkId(number);
    request.options = std::move(options);
    request.enableIpv4 = !subnet.empty();
    request.enableIpv6 = !subnetV6.empty();
    for (const auto& [text, list] : {std::pair(subnet, &request.ipv4), std::pair(subnetV6, &request.ipv6)}) {
        if (text.empty()) continue;
        ipam::PoolRequest wanted;
        wanted.addressSpace = ipam::kLocalAddressSpace;
        wanted.pool = prefix(text);
        const auto pool = must(d.ipam->requestPool(wanted));
        IpamData data;
        data.addressSpace = ipam::kLocalAddressSpace;
        data.pool = pool.pool;
        ipam::AddressRequest gateway;
        gateway.poolId = pool.poolId;
        gateway.gateway = true;
        data.gateway = must(d.ipam->requestAddress(gateway));
        *list = {data};
    }
    return request;
}

CreateEndpointRequest EngineLab::endpointRequest(const CreateNetworkRequest& network, int number,
                                                 const std::string& address, const std::string& addressV6) {
    CreateEndpointRequest request;
    request.networkId = network.networkId;
    request.endpointId = endpointId(number);
    for (const auto& [text, slot] : {std::pair(address, &request.address), std::pair(addressV6, &request.addressV6)}) {
        if (text.empty()) continue;
        *slot = prefix(text);
        // The engine asked IPAM before; pools of a repeated request are known by their prefix.
        for (const ipam::PoolInfo& pool : d.ipam->listPools()) {
            if (!pool.record.pool.contains((*slot)->address())) continue;
            ipam::AddressRequest lease;
            lease.poolId = pool.record.id;
            lease.address = (*slot)->address();
            static_cast<void>(d.ipam->requestAddress(lease));
        }
    }
    return request;
}

Container EngineLab::connect(NetworkDriver& driver, const CreateEndpointRequest& request,
                             std::vector<PortBinding> bindings) {
    Container container{
        request.networkId,         request.endpointId, request.address, request.addressV6, request.mac, {}, {},
        must(net::NetNs::create())};
    CreateEndpointRequest full = request;
    full.ports.bindings = bindings;
    const auto reply = must(driver.createEndpoint(full));
    EXPECT_FALSE(request.mac && reply.mac) << "the engine fails on what it did not leave open";
    if (reply.mac) container.mac = reply.mac;
    JoinRequest join;
    join.networkId = request.networkId;
    join.endpointId = request.endpointId;
    join.sandboxKey = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(container.ns.fd());
    join.ports.bindings = bindings;
    container.join = must(driver.join(join));
    container.sourceName = container.join.sourceName;
    enter(container);
    if (auto* ports = dynamic_cast<ExternalConnectivity*>(&driver);
        ports != nullptr && (container.join.gateway || container.join.gatewayV6)) {
        must(ports->programExternalConnectivity({request.networkId, request.endpointId, {bindings, {}}}));
    }
    return container;
}

void EngineLab::enter(Container& container) {
    auto inside = must(net::Netlink::openIn(container.ns));
    must(inside->setUp(1));
    if (container.sourceName.empty()) return;
    must(d.netlink->moveTo(must(d.netlink->getLink(container.sourceName)).index, container.ns, "eth0"));
    const net::LinkIndex eth0 = must(inside->getLink("eth0")).index;
    if (container.mac) must(inside->setMac(eth0, *container.mac));
    for (const auto& address : {container.address, container.addressV6}) {
        if (address) must(inside->setAddress({.link = eth0, .prefix = *address, .noDad = true}));
    }
    must(inside->setUp(eth0));
    for (const auto& gateway : {container.join.gateway, container.join.gatewayV6}) {
        if (gateway)
            must(inside->setRoute(
                {.destination = {IpAddress::any(gateway->family()), 0}, .gateway = *gateway, .link = eth0}));
    }
}

void EngineLab::disconnect(NetworkDriver& driver, Container& container) {
    if (auto* ports = dynamic_cast<ExternalConnectivity*>(&driver)) {
        must(ports->revokeExternalConnectivity(container.networkId, container.endpointId));
    }
    must(driver.leave(container.networkId, container.endpointId));
    leaveSandbox(container);
    must(driver.deleteEndpoint(container.networkId, container.endpointId));
}

void EngineLab::leaveSandbox(Container& container) {
    if (container.sourceName.empty()) return;
    auto inside = must(net::Netlink::openIn(container.ns));
    const net::LinkIndex eth0 = must(inside->getLink("eth0")).index;
    must(inside->setDown(eth0));
    must(inside->moveTo(eth0, *host_, container.sourceName));
}

std::optional<IpAddress> EngineLab::reach(const net::NetNs& from, const IpAddress& to, uint16_t port,
                                          const net::NetNs& server, uint16_t serverPort, uint8_t protocol,
                                          std::chrono::milliseconds patience) {
    const int type = (protocol == IPPROTO_UDP ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
    const int family = to.isV4() ? AF_INET : AF_INET6;
    const UniqueFd listener = must(net::socketIn(server, family, type, protocol));
    const int one = 1;
    ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (!to.isV4()) ::setsockopt(listener.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    sockaddr_storage address{};
    socklen_t length = fill(address, IpAddress::any(to.family()), serverPort);
    EXPECT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length), 0) << std::strerror(errno);
    if (protocol != IPPROTO_UDP) ::listen(listener.get(), 4);

    const UniqueFd client = must(net::socketIn(from, family, type, protocol));
    length = fill(address, to, port);
    ::connect(client.get(), reinterpret_cast<sockaddr*>(&address), length);
    sockaddr_storage peer{};
    socklen_t peerLength = sizeof peer;
    if (protocol == IPPROTO_UDP) {
        static_cast<void>(::send(client.get(), "x", 1, 0));
        if (!readable(listener.get(), patience)) return std::nullopt;
        char byte = 0;
        ::recvfrom(listener.get(), &byte, 1, 0, reinterpret_cast<sockaddr*>(&peer), &peerLength);
        ::sendto(listener.get(), "y", 1, 0, reinterpret_cast<sockaddr*>(&peer), peerLength);
        if (!readable(client.get(), patience)) return std::nullopt;
        return addressOf(peer);
    }
    if (!readable(listener.get(), patience)) return std::nullopt;
    const UniqueFd accepted(::accept4(listener.get(), reinterpret_cast<sockaddr*>(&peer), &peerLength, SOCK_CLOEXEC));
    if (!accepted) return std::nullopt;
    static_cast<void>(::send(accepted.get(), "y", 1, MSG_NOSIGNAL));
    if (!readable(client.get(), patience)) return std::nullopt;
    return addressOf(peer);
}

std::vector<std::string> EngineLab::weftLinks() {
    auto netlink = must(net::Netlink::openIn(*host_));
    std::vector<std::string> names;
    for (const net::Link& link : must(netlink->listLinks())) {
        if (link.alias.starts_with("weft ") || link.name.starts_with("weft-") || link.name.starts_with("wv") ||
            link.name.starts_with("wc")) {
            names.push_back(link.name);
        }
    }
    return names;
}

size_t EngineLab::endpointLeases() {
    size_t count = 0;
    for (const ipam::LeaseInfo& lease : d.ipam->listLeases()) count += lease.record.kind == ipam::LeaseKind::Endpoint;
    return count;
}

std::vector<std::string> EngineLab::reconcile(bool dryRun) {
    std::vector<std::string> lines;
    for (const Repair& repair : must(d.bridge->reconcile(dryRun))) {
        lines.push_back(repair.kind + " " + repair.object + ": " + repair.action +
                        (repair.error ? " FAILED " + repair.error->message : ""));
    }
    return lines;
}

}  // namespace weft
