#include "drivers/host/host_options.h"

#include <cctype>

#include "drivers/names.h"
#include "drivers/options.h"

namespace weft {

namespace {

constexpr std::string_view kParent = "parent";
constexpr std::string_view kExclusive = "exclusive";
constexpr std::string_view kMacvlanMode = "macvlan_mode";
constexpr std::string_view kMtu = "com.docker.network.driver.mtu";
constexpr std::string_view kPrefix = "com.docker.network.container_iface_prefix";

constexpr KnownOption kKnown[] = {
    {kParent, ""}, {kExclusive, ""}, {kMacvlanMode, ""},
    {kMtu, ""},    {kPrefix, ""},    {"ipvlan_mode", "weft-host makes macvlan links"},
};

}  // namespace

Result<HostOptions> parseHostOptions(const CreateNetworkRequest& request) {
    const OptionReader reader("weft-host", request.options, kKnown);
    WEFT_TRY(reader.check());
    HostOptions options;
    if (const std::string* parent = reader.text(kParent)) {
        if (auto valid = checkLinkName(*parent); !valid) return reader.invalid(kParent, valid.error().message);
        options.parent = *parent;
    }
    WEFT_ASSIGN(options.exclusive, reader.flag(kExclusive, false));
    if (const std::string* mode = reader.text(kMacvlanMode); mode != nullptr && *mode != "bridge") {
        return reader.invalid(kMacvlanMode, "must be bridge");
    }
    WEFT_ASSIGN(options.mtu, reader.number(kMtu, 0, 65535, 0));
    if (const uint32_t least = request.enableIpv6 ? 1280 : 68; options.mtu != 0 && options.mtu < least) {
        return reader.invalid(kMtu, "must be at least " + std::to_string(least));
    }
    if (options.exclusive && options.mtu != 0) return reader.invalid(kMtu, "an exclusive NIC keeps its own");
    if (options.exclusive && reader.text(kMacvlanMode) != nullptr) {
        return reader.invalid(kMacvlanMode, "an exclusive network has no macvlan links");
    }
    if (const std::string* prefix = reader.text(kPrefix)) {
        if (!checkLinkName(*prefix) || prefix->size() > 12 ||
            std::isdigit(static_cast<unsigned char>(prefix->back()))) {
            return reader.invalid(kPrefix, "must be 1 to 12 characters of a link name, the last one no digit");
        }
        options.interfacePrefix = *prefix;
    }
    if (request.internal) {
        return makeError(ErrorCode::InvalidArgument, "weft-host is on the host's own wire: it cannot be --internal");
    }
    return options;
}

}  // namespace weft
