#include "driver/http_frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "driver/http_server.h"

namespace weft::driver {
namespace {

constexpr std::string_view kLineEnd = "\r\n";

HttpFrame bad(int status, std::string error) {
    HttpFrame frame;
    frame.state = HttpFrame::State::Bad;
    frame.status = status;
    frame.error = std::move(error);
    return frame;
}

HttpFrame tooLarge() {
    return bad(413, fmt::format("request body is larger than {} bytes", kMaxBody));
}

bool equalsNoCase(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
        const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
        return lower(x) == lower(y);
    });
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}

std::optional<size_t> parseSize(std::string_view text, int base) {
    size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    // Too many digits for size_t is a size too: an enormous one.
    if (error == std::errc::result_out_of_range) return SIZE_MAX;
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// RFC 9112, 7.1: size in hex [; extension] CRLF data CRLF ... 0 CRLF [trailers] CRLF.
HttpFrame readChunks(std::string_view input, HttpFrame frame) {
    size_t at = frame.headSize;
    for (;;) {
        const size_t lineEnd = input.find(kLineEnd, at);
        if (lineEnd == std::string_view::npos) {
            return input.size() - at > kMaxHead ? bad(400, "chunk size line is too long") : frame;
        }
        std::string_view line = input.substr(at, lineEnd - at);
        line = trimmed(line.substr(0, line.find(';')));
        const std::optional<size_t> size = parseSize(line, 16);
        if (!size) return bad(400, "malformed chunk size");
        at = lineEnd + kLineEnd.size();
        if (*size == 0) break;
        if (*size > kMaxBody - frame.body.size()) return tooLarge();
        if (input.size() - at < *size + kLineEnd.size()) return frame;
        if (input.substr(at + *size, kLineEnd.size()) != kLineEnd) return bad(400, "chunk is longer than its size");
        frame.body += input.substr(at, *size);
        at += *size + kLineEnd.size();
    }
    for (;;) {  // trailers, up to an empty line
        const size_t lineEnd = input.find(kLineEnd, at);
        if (lineEnd == std::string_view::npos) {
            return input.size() - at > kMaxHead ? bad(431, "trailers are too long") : frame;
        }
        const bool last = lineEnd == at;
        at = lineEnd + kLineEnd.size();
        if (last) break;
    }
    frame.size = at;
    frame.state = HttpFrame::State::Complete;
    return frame;
}

}  // namespace

HttpFrame frameRequest(std::string_view input) {
    HttpFrame frame;
    const size_t headEnd = input.substr(0, kMaxHead).find("\r\n\r\n");
    if (headEnd == std::string_view::npos) {
        return input.size() >= kMaxHead ? bad(431, "request headers are too long") : frame;
    }
    frame.headSize = headEnd + 4;

    std::optional<size_t> length;
    bool chunked = false;
    const std::string_view head = input.substr(0, headEnd + kLineEnd.size());
    size_t at = head.find(kLineEnd) + kLineEnd.size();
    frame.head = head.substr(0, at);
    while (at < head.size()) {
        const size_t next = head.find(kLineEnd, at) + kLineEnd.size();
        const std::string_view lineWithEnd = head.substr(at, next - at);
        const std::string_view line = lineWithEnd.substr(0, lineWithEnd.size() - kLineEnd.size());
        at = next;
        const size_t colon = line.find(':');
        if (colon == std::string_view::npos) return bad(400, "malformed header line");
        const std::string_view name = line.substr(0, colon);
        const std::string_view value = trimmed(line.substr(colon + 1));
        if (equalsNoCase(name, "Content-Length")) {
            const std::optional<size_t> parsed = parseSize(value, 10);
            if (!parsed || (length && *length != *parsed)) return bad(400, "malformed Content-Length");
            length = parsed;
        } else if (equalsNoCase(name, "Transfer-Encoding")) {
            if (!equalsNoCase(value, "chunked")) return bad(501, "Transfer-Encoding other than chunked");
            chunked = true;
        }
        // A server may ignore Range (RFC 9110, 14.2), and httplib reads it by std::regex, which recurses once a
        // character: a long one would overflow a worker's stack.
        if (!equalsNoCase(name, "Range")) frame.head += lineWithEnd;
    }
    frame.head += kLineEnd;
    if (chunked) return length ? bad(400, "both Content-Length and Transfer-Encoding") : readChunks(input, frame);

    const size_t bodySize = length.value_or(0);
    if (bodySize > kMaxBody) return tooLarge();
    if (input.size() - frame.headSize < bodySize) return frame;
    frame.body = input.substr(frame.headSize, bodySize);
    frame.size = frame.headSize + bodySize;
    frame.state = HttpFrame::State::Complete;
    return frame;
}

}  // namespace weft::driver
