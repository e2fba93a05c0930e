// Which back end a host gets.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "firewall/firewall.h"

namespace weft::firewall {

struct Choice {
    Backend backend = Backend::Nft;
    std::string reason;  // for the log: "Docker's chains are in nf_tables (ip filter)"
};

std::string_view toString(Backend backend);  // "iptc", "nft"

// The back end of the world that Docker's own chains live in; without such chains that of the `iptables` command, else
// nft. Unsupported when the kernel has neither. Looks at the calling thread's namespace.
Result<Choice> chooseBackend();

Result<std::unique_ptr<Firewall>> makeFirewall(Backend backend);

// Removes what the back end that is not `kept` left behind. Call it after the first sync() of `kept`, so that traffic
// finds rules throughout.
Result<void> clearOther(Backend kept);

}  // namespace weft::firewall
