#include "driver/http_frame.h"

#include <gtest/gtest.h>

#include "driver/http_server.h"

namespace weft::driver {
namespace {

using State = HttpFrame::State;

TEST(HttpFrame, EndsWithTheHeadersWhenThereIsNoBody) {
    const std::string request = "POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\n\r\n";
    const HttpFrame frame = frameRequest(request + "POST /next");
    EXPECT_EQ(frame.state, State::Complete);
    EXPECT_EQ(frame.size, request.size());
    EXPECT_EQ(frame.body, "");
}

TEST(HttpFrame, EveryPrefixOfARequestIsIncomplete) {
    for (const std::string request :
         {"POST /x HTTP/1.1\r\ncontent-LENGTH:  4 \r\n\r\nbody",
          "POST /x HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nbod\r\n1\r\ny\r\n0\r\nT: r\r\n\r\n"}) {
        for (size_t size = 0; size < request.size(); ++size) {
            EXPECT_EQ(frameRequest(request.substr(0, size)).state, State::Incomplete) << request.substr(0, size);
        }
        const HttpFrame frame = frameRequest(request + "rest");
        EXPECT_EQ(frame.state, State::Complete);
        EXPECT_EQ(frame.size, request.size());
        EXPECT_EQ(frame.body, "body");
    }
}

struct BadRequest {
    std::string text;
    int status;
};

TEST(HttpFrame, RefusesWhatCannotBecomeARequest) {
    const std::vector<BadRequest> cases{
        {"POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413},
        {"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413},
        {"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n", 413},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n", 413},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabcd", 400},
        {"POST / HTTP/1.1\r\nno colon here\r\n\r\n", 400},
        {std::string(kMaxHead, 'a'), 431},
        {"POST / HTTP/1.1\r\nX: " + std::string(kMaxHead, 'a') + "\r\n\r\n", 431},
    };
    for (const auto& [text, status] : cases) {
        const HttpFrame frame = frameRequest(text);
        EXPECT_EQ(frame.state, State::Bad) << text.substr(0, 80);
        EXPECT_EQ(frame.status, status) << text.substr(0, 80);
        EXPECT_NE(frame.error, "");
    }
}

TEST(HttpFrame, LeavesRangesOutOfTheHead) {
    const HttpFrame frame = frameRequest("GET / HTTP/1.1\r\nA: 1\r\nrange: bytes=0-1\r\nB: 2\r\n\r\n");
    EXPECT_EQ(frame.head, "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\n\r\n");
}

TEST(HttpFrame, TakesABodyOfExactlyTheLimit) {
    const std::string head = "POST / HTTP/1.1\r\nContent-Length: " + std::to_string(kMaxBody) + "\r\n\r\n";
    EXPECT_EQ(frameRequest(head + std::string(kMaxBody, ' ')).state, State::Complete);
}

}  // namespace
}  // namespace weft::driver
