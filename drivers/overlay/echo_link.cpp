#include "drivers/overlay/echo_link.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "firewall/firewall.h"
#include "net/sysctl.h"

namespace weft {

namespace {

MacAddress macOf(const IpAddress& vtep) {
    return macFromKey("kernel echo of " + vtep.str());
}

}  // namespace

Result<std::unique_ptr<EchoLink>> EchoLink::open(net::Netlink& host, net::VxlanSettings settings,
                                                 const net::EchoKey& key) {
    const MacAddress mac = macOf(*settings.local);
    const IpFamily family = settings.local->family();
    net::VxlanSpec spec;
    spec.name = kEchoLink;
    spec.alias = kEchoMark;
    spec.vxlan = std::move(settings);
    spec.vxlan.vni = kEchoVni;
    spec.mac = mac;
    spec.up = false;
    WEFT_ASSIGN(const net::Link link, host.createVxlan(spec));
    // No addresses, and nothing sent for their sake. Where there is no IPv6 there is no such setting.
    static_cast<void>(net::runIn(
        host.netns(), [] { return net::setSysctl("net/ipv6/conf/" + std::string(kEchoLink) + "/disable_ipv6", "1"); }));
    WEFT_TRY(net::answerAt(host.netns(), link.index, key));
    WEFT_TRY(host.setUp(link.index));
    WEFT_ASSIGN(net::EchoAsker asker, net::EchoAsker::open(host.netns(), link.index, mac, firewall::kTunnelMark));
    return std::unique_ptr<EchoLink>(new EchoLink(host, family, link.index, std::move(asker)));
}

bool EchoLink::isThere() const {
    const auto link = host_.linkIndex(kEchoLink);
    return link && *link == link_;
}

Result<void> EchoLink::setPeers(const std::set<IpAddress>& vteps) {
    std::set<net::FdbEntry> wanted;
    for (const IpAddress& vtep : vteps) {
        if (vtep.family() == family_) wanted.insert({.link = link_, .mac = macOf(vtep), .remote = vtep});
    }
    WEFT_ASSIGN(const auto listed, host_.listFdb(link_));
    const std::set<net::FdbEntry> there(listed.begin(), listed.end());
    std::vector<net::FdbEntry> stale;
    std::vector<net::FdbEntry> missing;
    std::set_difference(there.begin(), there.end(), wanted.begin(), wanted.end(), std::back_inserter(stale));
    std::set_difference(wanted.begin(), wanted.end(), there.begin(), there.end(), std::back_inserter(missing));
    WEFT_TRY(host_.deleteFdb(stale));
    return host_.setFdb(missing);
}

Result<void> EchoLink::ask(const IpAddress& vtep, uint64_t number) {
    return asker_.ask(macOf(vtep), number);
}

// SipHash-2-4 of the number's eight bytes, as in net/kernel_echo.bpf.c.
uint64_t echoProof(const net::EchoKey& key, uint64_t number) {
    std::array<uint64_t, 2> words{};
    static_assert(sizeof words == sizeof key);
    std::memcpy(words.data(), key.data(), sizeof words);
    uint64_t v0 = words[0] ^ 0x736f6d6570736575;
    uint64_t v1 = words[1] ^ 0x646f72616e646f6d;
    uint64_t v2 = words[0] ^ 0x6c7967656e657261;
    uint64_t v3 = words[1] ^ 0x7465646279746573;
    const auto rounds = [&](int count) {
        for (; count > 0; --count) {
            v0 += v1;
            v1 = std::rotl(v1, 13) ^ v0;
            v0 = std::rotl(v0, 32);
            v2 += v3;
            v3 = std::rotl(v3, 16) ^ v2;
            v0 += v3;
            v3 = std::rotl(v3, 21) ^ v0;
            v2 += v1;
            v1 = std::rotl(v1, 17) ^ v2;
            v2 = std::rotl(v2, 32);
        }
    };
    for (const uint64_t block : {number, uint64_t{sizeof number} << 56}) {
        v3 ^= block;
        rounds(2);
        v0 ^= block;
    }
    v2 ^= 0xff;
    rounds(4);
    return v0 ^ v1 ^ v2 ^ v3;
}

}  // namespace weft
