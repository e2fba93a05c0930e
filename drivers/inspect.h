// What a mode tells about itself to weftctl and the metrics. Not a part of Docker's plugin API.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/id.h"
#include "base/ip.h"
#include "drivers/record_store.h"
#include "firewall/firewall.h"

namespace weft {

struct NetworkInfo {
    NetworkId id;
    std::string link;               // bridge or parent NIC; empty: none
    std::vector<IpPrefix> subnets;  // network form, both families
    uint32_t mtu = 0;               // 0: not applicable
    bool internal = false;
    std::optional<bool> spoof = {};  // containers may send as others; none: the mode does not check
    Clock::Wall created{};
    size_t endpoints = 0;
};

struct EndpointInfo {
    EndpointId id;
    NetworkId networkId;
    std::string link;  // the end in the host's namespace; empty: none
    std::optional<IpPrefix> address;
    std::optional<IpPrefix> addressV6;
    std::optional<MacAddress> mac;
    std::string sandboxKey;  // empty before Join and after Leave
    std::vector<firewall::PublishedPort> ports;
    EndpointPhase phase = EndpointPhase::Created;
    Clock::Wall created{};
};

// From records in memory: cheap, no kernel calls. Any thread.
class Inspectable {
public:
    virtual ~Inspectable() = default;

    [[nodiscard]] virtual std::vector<NetworkInfo> networks() const = 0;
    [[nodiscard]] virtual std::vector<EndpointInfo> endpoints() const = 0;
};

// What a mode's records say, for modes whose records say all.
std::vector<NetworkInfo> networkInfos(const RecordStore& records, std::string_view mode);
std::vector<EndpointInfo> endpointInfos(const RecordStore& records, std::string_view mode);

}  // namespace weft
