// weftctl graph: the cluster as a picture, from weftd's answer to GET /v1/graph. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace weft::ctl {

// All are Corrupt when `graph` is not weftd's answer.

// Hosts with their containers, then networks, as trees for a terminal; of ASCII only unless `unicode`.
Result<std::string> drawTree(std::string_view graph, bool unicode, bool colour);
// In Graphviz' language: hosts are clusters of their containers, a network is a node with an edge to each of its own.
Result<std::string> drawDot(std::string_view graph);
// A column for each host, a band for each network, containers where they cross; follows the reader's light or dark.
Result<std::string> drawSvg(std::string_view graph);

// Whether the locale's characters are UTF-8, from the environment as POSIX orders it.
bool speaksUnicode();

}  // namespace weft::ctl
