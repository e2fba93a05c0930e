// NetworkSpec: an overlay network made once for all hosts, and the rows by which hosts agree on it. Pure.
//
// The row networks/NAME of a host is a JSON object with what it knows last of that network:
//     stamp          when it was made or removed, ms of the wall clock: the latest of all hosts' rows is the truth
//     spec           absent: removed
//     force          removed even with containers on it
//     state, detail  how far this host is with it; not compared
// Every host copies the truth into its own row, so it does not go with the host where it was typed.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/result.h"

namespace weft::driver {

inline constexpr std::string_view kSharedNetworkPrefix = "networks/";
// Of the engine's networks: the stamp of the spec it was made by. Without it the network is the user's own.
inline constexpr const char* kStampLabel = "weft.stamp";
// A removal is remembered that long, for hosts that are away; and until all others have followed it.
inline constexpr std::chrono::days kRemovalKept{30};

struct NetworkSpec {
    std::string name;  // the engine's, and weft.network
    std::vector<IpPrefix> subnets;
    std::vector<IpPrefix> ranges;     // of the subnets, to give addresses from
    std::vector<IpAddress> gateways;  // at most one a subnet
    std::map<std::string, IpAddress> auxAddresses;
    bool ipv6 = false;
    bool internal = false;
    std::map<std::string, std::string> options;
    std::map<std::string, std::string> labels;
    std::string hosts;  // only those with this label; empty: all

    bool operator==(const NetworkSpec&) const = default;
};

nlohmann::json toJson(const NetworkSpec& spec);
// InvalidArgument: a field of another type, or what no host could make; says what to type.
Result<NetworkSpec> parseNetworkSpec(const nlohmann::json& json);

// The body of the engine's POST /networks/create.
nlohmann::json engineRequest(const NetworkSpec& spec, uint64_t stamp);

enum class HostState : uint8_t {
    Draft,      // being made where it was typed; no other host cares yet
    Ready,      // the engine has it
    Elsewhere,  // not meant for this host
    Waiting,    // the engine is away
    Failed,     // the engine refuses
    ByHand,     // the user's own network has the name; it is left alone
    InUse,      // removed, but containers are on it
    Removed,
};
std::string_view toString(HostState state);

struct NetworkRow {
    uint64_t stamp = 0;
    std::optional<NetworkSpec> spec{};
    bool force = false;
    HostState state = HostState::Draft;
    std::string detail{};

    // Agrees with `other` but for state and detail.
    [[nodiscard]] bool sameTruth(const NetworkRow& other) const {
        return stamp == other.stamp && spec == other.spec && force == other.force;
    }
};

// InvalidArgument when the spec leaves no room in a row of the store; a long detail is cut.
Result<std::string> encode(const std::string& name, NetworkRow row);
Result<NetworkRow> decodeNetworkRow(std::string_view value);  // Corrupt

// The truth among rows of one network; null: drafts only, or a removal of long ago that all these have followed.
const NetworkRow* truthOf(const std::vector<NetworkRow>& rows, Clock::Wall now);

// A network of this host's engine.
struct EngineNetwork {
    std::string id;
    std::optional<uint64_t> stamp;  // by its label; none: the user's own
};

// What brings the engine's network of that name to the truth, and where this host is then.
enum class NetworkStep : uint8_t { None, Make, Remove, Replace };
struct NetworkPlan {
    NetworkStep step = NetworkStep::None;
    HostState then = HostState::Ready;

    bool operator==(const NetworkPlan&) const = default;
};
NetworkPlan plan(const NetworkRow& truth, const std::vector<std::string>& hostLabels,
                 const std::optional<EngineNetwork>& found);

}  // namespace weft::driver
