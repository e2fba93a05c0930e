// LinkMonitor: the kernel's notifications about links and addresses, as they happen.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "net/netlink.h"

namespace weft::net {

struct LinkEvent {
    enum class Kind : uint8_t {
        Changed,         // made or changed; `link` is its state now
        Removed,         // deleted or moved away; `link` its last state
        AddressAdded,    // `link.index` and `prefix` only
        AddressRemoved,  // "
        Lost,            // notifications were dropped: look at everything anew
    };
    Kind kind = Kind::Changed;
    Link link;
    IpPrefix prefix;
};

// Delivers events to `callback` on a thread of its own, in order, from start() until destruction (which waits for a
// callback under way). The callback must not destroy the monitor; it should be quick, or events are Lost. Bridge-port
// notifications of the AF_BRIDGE family are not delivered.
class LinkMonitor {
public:
    using Callback = std::function<void(const LinkEvent&)>;

    static Result<std::unique_ptr<LinkMonitor>> start(const NetNs& ns, Callback callback);
    ~LinkMonitor();

private:
    LinkMonitor();

    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace weft::net
