#include "drivers/names.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

namespace weft {

namespace {

constexpr std::string_view kNetworkMark = "weft network ";
constexpr std::string_view kEndpointMark = "weft endpoint ";
constexpr size_t kMaxLinkName = 15;  // IFNAMSIZ less its NUL

// The first digits of an engine's ID are as random as the rest; other IDs (swarm's are base 36) are hashed.
std::string hexToken(const std::string& id, size_t digits) {
    const std::string_view head = std::string_view(id).substr(0, digits);
    const auto isHex = [](unsigned char c) { return std::isxdigit(c) != 0 && std::isupper(c) == 0; };
    if (id.size() == 64 && std::all_of(head.begin(), head.end(), isHex)) return std::string(head);
    std::string token;
    const MacAddress hash = macFromKey(id);
    for (const uint8_t byte : hash.bytes()) {
        char text[3];
        std::snprintf(text, sizeof text, "%02x", byte);
        token += text;
    }
    return token.substr(token.size() - digits);
}

template <typename IdType>
std::optional<IdType> marked(std::string_view alias, std::string_view mark) {
    if (!alias.starts_with(mark) || alias.size() == mark.size()) return std::nullopt;
    return IdType(std::string(alias.substr(mark.size())));
}

}  // namespace

std::string bridgeName(const NetworkId& id) {
    return "weft-" + hexToken(id.str(), 10);
}
std::string hostEndName(const EndpointId& id) {
    return "wv" + hexToken(id.str(), 12);
}
std::string tunnelName(const NetworkId& id) {
    return "wx" + hexToken(id.str(), 12);
}
std::string containerEndName(const EndpointId& id) {
    return "wc" + hexToken(id.str(), 12);
}
std::string networkMark(const NetworkId& id) {
    return std::string(kNetworkMark) + id.str();
}
std::string endpointMark(const EndpointId& id) {
    return std::string(kEndpointMark) + id.str();
}
std::optional<NetworkId> markedNetwork(std::string_view alias) {
    return marked<NetworkId>(alias, kNetworkMark);
}
std::optional<EndpointId> markedEndpoint(std::string_view alias) {
    return marked<EndpointId>(alias, kEndpointMark);
}

MacAddress macFromAddress(const std::optional<IpPrefix>& v4, const std::optional<IpPrefix>& v6,
                          const EndpointId& fallback) {
    if (v4) {
        const auto ip = v4->address().bytes();
        return MacAddress({0x02, 0x42, ip[0], ip[1], ip[2], ip[3]});
    }
    return macFromKey(v6 ? v6->address().str() : fallback.str());
}

Result<void> checkLinkName(std::string_view name) {
    const auto bad = [](unsigned char c) {
        return std::isspace(c) != 0 || std::iscntrl(c) != 0 || c == '/' || c == ':';
    };
    if (name.empty() || name.size() > kMaxLinkName || name == "." || name == ".." || name == "all" ||
        name == "default" || name.find('%') != std::string_view::npos || std::any_of(name.begin(), name.end(), bad)) {
        return makeError(ErrorCode::InvalidArgument,
                         "\"" + std::string(name) + "\" is no name for a link (1 to 15 characters, no space / : %)");
    }
    return {};
}

}  // namespace weft
