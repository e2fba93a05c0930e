// KernelEcho: a link at which the kernel itself answers, whether its maker lives or not.
//
// A BPF program at the link's ingress sends each question back to its sender, with a proof: SipHash-2-4 of the
// question's number under a key. So an answer can only come from a host with that key. Frames are of EtherType 88B5
// (IEEE 802, for local experiments): version u8 (1), kind u8 (1 question, 2 answer), number u64, proof u64; numbers
// as the kernel's hash takes them, little-endian.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/ip.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "net/netlink.h"
#include "net/netns.h"

namespace weft::net {

using EchoKey = std::array<uint8_t, 16>;

// From now on questions that come in by `link` of `ns` are answered, until the link goes. Replaces an earlier one.
// Unsupported, with the kernel's reason, where BPF is not to be had.
Result<void> answerAt(const NetNs& ns, LinkIndex link, const EchoKey& key);

// Asks by one link. One user at a time.
class EchoAsker {
public:
    // `mark` is that of its packets (SO_MARK).
    static Result<EchoAsker> open(const NetNs& ns, LinkIndex link, MacAddress own, uint32_t mark);

    [[nodiscard]] int fd() const { return fd_.get(); }
    Result<void> ask(MacAddress whom, uint64_t number);
    struct Answer {
        MacAddress from;
        uint64_t number = 0;
        uint64_t proof = 0;
    };
    // The next one that is there; none: no more for now.
    std::optional<Answer> next();

private:
    EchoAsker(UniqueFd fd, LinkIndex link, MacAddress own) : fd_(std::move(fd)), link_(link), own_(own) {}

    UniqueFd fd_;
    LinkIndex link_;
    MacAddress own_;
};

}  // namespace weft::net
