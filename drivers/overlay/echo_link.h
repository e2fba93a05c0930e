// EchoLink: a vxlan link with a VNI of its own at which this host's kernel answers the other hosts (net/kernel_echo.h),
// and by which theirs are asked. It is in the host's own namespace and has neither address nor port, so it outlives
// weftd, is found again by its name, and carries nothing but questions and answers.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"
#include "net/kernel_echo.h"
#include "net/netlink.h"

namespace weft {

inline constexpr uint32_t kEchoVni = (1U << 24) - 2;
inline constexpr std::string_view kEchoLink = "w-echo";
inline constexpr std::string_view kEchoMark = "weft kernel echo";  // its alias

// One thread at a time.
class EchoLink {
public:
    // `settings` are those of a network's tunnel. Unsupported where the kernel takes no BPF: then nobody can ask it.
    static Result<std::unique_ptr<EchoLink>> open(net::Netlink& host, net::VxlanSettings settings,
                                                  const net::EchoKey& key);

    [[nodiscard]] bool isThere() const;                   // nobody removed it
    [[nodiscard]] int fd() const { return asker_.fd(); }  // readable: there are answers
    // Whose questions are answered and who can be asked; those of another family cannot.
    Result<void> setPeers(const std::set<IpAddress>& vteps);
    Result<void> ask(const IpAddress& vtep, uint64_t number);
    std::optional<net::EchoAsker::Answer> next() { return asker_.next(); }

private:
    EchoLink(net::Netlink& host, IpFamily family, net::LinkIndex link, net::EchoAsker asker)
        : host_(host), family_(family), link_(link), asker_(std::move(asker)) {}

    net::Netlink& host_;
    IpFamily family_;
    net::LinkIndex link_;
    net::EchoAsker asker_;
};

// What an answer has that comes from a host with that key.
uint64_t echoProof(const net::EchoKey& key, uint64_t number);

}  // namespace weft
