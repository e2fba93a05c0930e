// Where one HTTP/1.1 request ends in a stream of bytes: all the server must know before it hands the request on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace weft::driver {

inline constexpr size_t kMaxHead = 16U << 10;  // bytes of request line and headers; above: 431

struct HttpFrame {
    enum class State : uint8_t { Incomplete, Complete, Bad };
    State state = State::Incomplete;
    size_t headSize = 0;  // with the blank line
    std::string head;     // as it came, but for what the server ignores
    size_t size = 0;      // of the whole request
    std::string body;     // chunks put together
    int status = 400;     // Bad: how to answer
    std::string error;
};

// Costs one pass over the head, and over the body only if it is chunked or complete.
HttpFrame frameRequest(std::string_view input);

}  // namespace weft::driver
