// Names of the containers on overlay networks, on all hosts. A host says what its containers are called in rows of its
// own; OverlayNames joins them with the endpoints' rows, so a name goes with the endpoint, and both with their host.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/id.h"
#include "base/ip.h"
#include "base/result.h"
#include "drivers/overlay/overlay_rows.h"
#include "kv/member.h"
#include "kv/table.h"

namespace weft {

inline constexpr std::string_view kNamesPrefix = "names/";

struct ServicePort {
    uint8_t protocol = 6;  // IP protocol number
    uint16_t port = 0;

    auto operator<=>(const ServicePort&) const = default;
};

// names/NETWORK/ENDPOINT: what the container is called there, and the ports it exposes.
// Value: version, count and names (length u8 each), count and ports (protocol u8, port u16).
struct NameRow {
    std::vector<std::string> names;  // lower case; the first is the container's own
    std::vector<ServicePort> ports;

    bool operator==(const NameRow&) const = default;
};

std::string nameKey(const std::string& network, const EndpointId& id);
// Without what is unusable as a name (empty, above 253 bytes) or said twice, in lower case, and without the last
// ports and names that a row has no room for.
NameRow fitting(NameRow row);
// `row` must be fitting.
std::string encode(const NameRow& row);
// Corrupt unless all of it is as encode() writes it.
Result<NameRow> decodeNames(std::string_view value);

// Any thread; never blocks on more than its own mutex, so that the store's thread may call apply() and onMember().
class OverlayNames {
public:
    struct Container {
        kv::NodeId host;
        std::string name;  // its own
        std::optional<IpAddress> v4;
        std::optional<IpAddress> v6;
        std::vector<ServicePort> ports;
        bool hostSuspected = false;  // its host did not answer lately
        bool hostAway = false;       // its host is away, with its kernel
    };

    // Of rows under kOverlayPrefix and kNamesPrefix.
    void apply(kv::RowEvent event, const kv::Row& row);
    void onMember(const kv::Member& member);
    void forget(const kv::NodeId& host);
    // Called for the state of each host found; must not call back.
    using IsAway = std::function<bool(const kv::NodeId& host)>;
    void setIsAway(IsAway isAway) { isAway_ = std::move(isAway); }  // before any find()

    // `name` in lower case. In order of endpoint.
    [[nodiscard]] std::vector<Container> find(const std::string& network, std::string_view name) const;
    [[nodiscard]] std::optional<Container> at(const std::string& network, const IpAddress& address) const;

private:
    using Owned = std::pair<kv::NodeId, EndpointId>;
    struct Entry {
        std::optional<EndpointRow> endpoint;
        std::optional<NameRow> names;
    };
    struct Network {
        std::map<Owned, Entry> entries;
        std::map<std::string, std::set<Owned>, std::less<>> byName;
        std::map<IpAddress, std::set<Owned>> byAddress;
    };

    static void unindex(Network& network, const Owned& owned, const Entry& entry);
    static void index(Network& network, const Owned& owned, const Entry& entry);
    [[nodiscard]] Container describe(const Owned& owned, const Entry& entry) const;

    mutable std::mutex mutex_;
    std::map<std::string, Network> networks_;
    std::set<kv::NodeId> suspected_;
    IsAway isAway_ = [](const kv::NodeId&) { return false; };
};

}  // namespace weft
