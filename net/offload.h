// Checksum offload: whether a link sends packets on with checksums still to be filled in by what it stands on.
#pragma once

#include <string_view>

#include "base/result.h"
#include "net/netns.h"

namespace weft::net {

// What `ethtool -K LINK tx on|off` does. Off also ends segmentation offload, which needs it: then whole and finished
// packets leave the link. NotFound when the link is absent, Unsupported when it has no such setting.
Result<bool> checksumOffload(const NetNs& ns, std::string_view link);
Result<void> setChecksumOffload(const NetNs& ns, std::string_view link, bool on);

}  // namespace weft::net
