// FastPath: the short way between the ports of one bridge.
//
// A BPF program at the ports' ingress (tc's clsact) looks up a frame's destination MAC and hands the frame straight to
// the port where that MAC is. What is not in its table takes the bridge, as do broadcasts, ARP, neighbour discovery,
// and frames for a link that is gone. So the table need not be complete. Frames on this way meet no rules of the host:
// where br_netfilter is on, as the engine turns it on, they are most of what a frame between containers costs.
//
// What is attached works on without its maker, until the link goes or another FastPath is attached in its place.
#pragma once

#include <map>
#include <memory>

#include "base/ip.h"
#include "base/result.h"
#include "net/netlink.h"
#include "net/netns.h"

struct bpf_object;

namespace weft::net {

// One user at a time.
class FastPath {
public:
    using Ports = std::map<MacAddress, LinkIndex>;

    // For links in `ns`, which must outlive it. The table is empty. Unsupported, with the kernel's reason, where BPF is
    // not to be had.
    static Result<FastPath> load(const NetNs& ns);

    // The table becomes this. Entries that the kernel does not take (there is room for 16,384) are left out, and the
    // first of them is told.
    Result<void> setPorts(const Ports& ports);
    // Frames that come in by this link are looked up from now on.
    Result<void> attach(LinkIndex link);

private:
    FastPath(const NetNs& ns, bpf_object* object);
    Result<void> enter(const Ports& ports);  // in the namespace

    struct Close {
        void operator()(bpf_object* object) const;
    };
    const NetNs* ns_;
    std::unique_ptr<bpf_object, Close> object_;
    int table_ = -1;
    int links_ = -1;
    int program_ = -1;
    Ports ports_;
};

}  // namespace weft::net
