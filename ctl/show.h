// weftd's answers as text for people. Pure: JSON in, text out.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "kv/types.h"

namespace weft::ctl {

// Docker's names for what weft knows by id only. Empty without an engine: then ids are shown.
struct Names {
    std::map<std::string, std::string> networks;    // network id -> name
    std::map<std::string, std::string> containers;  // endpoint id -> container's name
};

// From the engine's GET /networks and GET /containers/json. What does not parse gives no names.
Names namesFromEngine(std::string_view networks, std::string_view containers);

// `what` is the last part of the control path: "networks", "ports", ... Corrupt when `json` is not weftd's answer.
Result<std::string> show(std::string_view what, std::string_view json, const Names& names, bool colour);

// The array inside weftd's answer to networks, endpoints, ports, pools, leases, members, overlay, tunnels, keys, kv,
// network or doctor. Corrupt when there is none.
Result<std::string> listOf(std::string_view what, std::string_view json);

using RowName = std::pair<std::string, std::string>;  // key, owner
// The values in weftd's answer to kv. Corrupt when it is none.
Result<std::map<RowName, std::string>> rowsOf(std::string_view json);

// Where the member of that name, id (or its beginning) or address is reached, by weftd's answer to members. NotFound
// names those there are.
Result<kv::Address> addressOf(std::string_view members, const std::string& host);

// Paths of the plugin sockets by weftd's answer to status; none when it is no such answer.
std::vector<std::string> pluginSockets(std::string_view status);

// Whether doctor found something bad, a repair of reconcile failed, or a host did not follow a change of a network.
bool foundTrouble(std::string_view what, std::string_view json);

// The error weftd told, or the answer's text.
std::string errorText(std::string_view json);

}  // namespace weft::ctl
