#include "ctl/trace.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/ip.h"
#include "base/protocol.h"

namespace weft::ctl {
namespace {

using Json = nlohmann::json;

constexpr size_t kShortestId = 4;

struct Destination {
    std::string host;
    std::string protocol;  // empty: ICMP
    uint16_t port = 0;
};

Result<Destination> parse(const std::string& text) {
    const auto wrong = [&] {
        return makeError(ErrorCode::InvalidArgument,
                         text + ": expected ADDRESS or NAME, with :PORT or :PORT/udp; [V6]:PORT for IPv6");
    };
    Destination destination{text, "", 0};
    if (IpAddress::parse(text)) return destination;
    const size_t colon = text.rfind(':');
    if (colon == std::string::npos) return text.empty() ? Result<Destination>(wrong()) : destination;
    const std::string port = text.substr(colon + 1);
    const size_t slash = port.find('/');
    destination.protocol = slash == std::string::npos ? "tcp" : port.substr(slash + 1);
    destination.host = text.substr(0, colon);
    if (destination.host.starts_with('[') && destination.host.ends_with(']')) {
        destination.host = destination.host.substr(1, destination.host.size() - 2);
        if (!IpAddress::parse(destination.host)) return wrong();
    } else if (destination.host.find_first_of(":[]") != std::string::npos) {
        return wrong();
    }
    const char* end = port.data() + std::min(slash, port.size());
    const auto [last, error] = std::from_chars(port.data(), end, destination.port);
    if (error != std::errc() || last != end || destination.port == 0 || destination.host.empty()) return wrong();
    if (!protocolNumber(destination.protocol)) return wrong();
    return destination;
}

// By name, by the beginning of an id, or by an address on a network; null: the engine knows none, or did not answer.
Json find(std::string_view containers, const std::string& wanted) {
    const Json parsed = Json::parse(containers, nullptr, false);
    if (!parsed.is_array()) return {};
    for (const Json& container : parsed) {
        const auto names = container.value("Names", std::vector<std::string>());
        if (std::find(names.begin(), names.end(), "/" + wanted) != names.end()) return container;
        if (wanted.size() < kShortestId) continue;
        if (container.value("Id", "").starts_with(wanted)) return container;
        for (const Json& settings : container.at("NetworkSettings").at("Networks")) {
            const bool isIt = settings.value("IPAddress", "") == wanted ||
                              settings.value("GlobalIPv6Address", "") == wanted ||
                              settings.value("EndpointID", "").starts_with(wanted);
            if (isIt) return container;
        }
    }
    return {};
}

Json networksOf(const Json& container) {
    return container.is_null() ? Json::object() : container.at("NetworkSettings").at("Networks");
}

}  // namespace

Result<std::string> traceQuestion(const std::string& container, const std::string& destination,
                                  std::string_view containers) {
    WEFT_ASSIGN(Destination to, parse(destination));
    try {
        Json question{{"container", container}, {"name", container}};
        const Json source = find(containers, container);
        const Json from = networksOf(source);
        if (!source.is_null()) question["name"] = source.at("Names").at(0).get<std::string>().substr(1);
        for (const Json& settings : from) {
            if (const std::string endpoint = settings.value("EndpointID", ""); !endpoint.empty()) {
                question["container"] = endpoint;
            }
        }
        if (!IpAddress::parse(to.host)) {
            const Json there = networksOf(find(containers, to.host));
            for (const auto& [network, settings] : there.items()) {
                // Where they meet, else anywhere.
                const bool known = IpAddress::parse(to.host).has_value();
                if (!known || from.contains(network)) to.host = settings.value("IPAddress", to.host);
            }
        }
        question["destination"] = to.host;
        if (to.port != 0) question.update({{"protocol", to.protocol}, {"port", to.port}});
        return question.dump(-1, ' ', false, Json::error_handler_t::replace);
    } catch (const Json::exception& error) {
        return makeError(ErrorCode::Corrupt, std::string("the engine's containers: ") + error.what());
    }
}

}  // namespace weft::ctl
