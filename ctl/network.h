// weftctl network: networks made once for all hosts. Pure: words and JSON in, JSON and text out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace weft::ctl {

// As `docker network create` takes them.
struct NetworkFlags {
    std::string name;
    std::vector<std::string> subnets;
    std::vector<std::string> ranges;
    std::vector<std::string> gateways;
    std::vector<std::string> auxAddresses;  // NAME=ADDRESS
    std::vector<std::string> options;       // NAME=VALUE
    std::vector<std::string> labels;        // NAME[=VALUE]
    std::string hosts;
    int mtu = 0;  // 0: the underlay's
    bool ipv6 = false;
    bool internal = false;
};

// The body of POST /v1/network. InvalidArgument.
Result<std::string> networkBody(const NetworkFlags& flags);

// From weftd's answer to GET /v1/network, the one network. NotFound when there is none of that name.
Result<std::string> networkIn(std::string_view answer, const std::string& name);

// Whether every host that is there has done what it can.
bool isSettled(std::string_view network);

// The command that makes the same by hand, to be typed on each host.
Result<std::string> exported(std::string_view network);

}  // namespace weft::ctl
