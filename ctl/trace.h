// What weftctl trace asks weftd: names that only the engine knows become ids and addresses. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace weft::ctl {

// The body of POST /v1/trace. `destination` is HOST, HOST:PORT or [V6]:PORT, each with /tcp, /udp or /sctp behind a
// port; without a port an ICMP echo is traced. `containers` is the engine's GET /containers/json, or empty: then names
// of this host are not known. InvalidArgument for what cannot be read.
Result<std::string> traceQuestion(const std::string& container, const std::string& destination,
                                  std::string_view containers);

}  // namespace weft::ctl
