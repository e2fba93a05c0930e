// One HTTP request over a unix socket: to weftd's control socket, or to the engine's.
#pragma once

#include <chrono>
#include <string>

#include "base/result.h"

namespace weft::ctl {

struct Reply {
    int status = 0;
    std::string body;
};

// `method` is GET, PUT or POST. Unavailable when nobody serves the socket, PermissionDenied when we may not, Timeout
// when no whole answer came in time. Blocks up to `timeout` each for connecting and for the answer.
Result<Reply> request(const std::string& socketPath, const std::string& method, const std::string& path,
                      const std::string& body = "", std::chrono::seconds timeout = std::chrono::seconds(30));

}  // namespace weft::ctl
