#include "ctl/table.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <utility>

namespace weft::ctl {
namespace {

constexpr std::string_view kGap = "  ";

// Characters, as far as UTF-8 tells: bytes that begin one.
size_t width(std::string_view text) {
    return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// The character at the front of `text`: how many bytes it takes, and which it is; 0 for what is no UTF-8.
std::pair<size_t, char32_t> firstOf(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text.front());
    if (lead < 0x80) return {1, lead};
    const size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() < size) return {1, 0};
    char32_t point = lead & (0xffU >> (size + 1));
    for (const char next : text.substr(1, size - 1)) {
        if ((next & 0xc0) != 0x80) return {1, 0};
        point = point << 6 | (static_cast<unsigned char>(next) & 0x3fU);
    }
    return {size, point};
}

// Steers a terminal, or the order in which it shows the text around it.
bool steers(char32_t point) {
    return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x61c || point == 0x200e || point == 0x200f ||
           (point >= 0x2028 && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

}  // namespace

std::string harmless(std::string_view text, Lines lines) {
    std::string out;
    while (!text.empty()) {
        const auto [size, point] = firstOf(text);
        const bool keeps = !steers(point) || (lines == Lines::Many && point == '\n');
        out += keeps ? text.substr(0, size) : std::string_view("?");
        text.remove_prefix(size);
    }
    return out;
}

std::string harmlessJson(std::string_view json) {
    std::string out;
    while (!json.empty()) {
        const auto [size, point] = firstOf(json);
        if (point < 0x80) {
            out += steers(point) && point != '\n' ? '?' : json.front();
        } else if (steers(point)) {
            out += fmt::format("\\u{:04x}", static_cast<uint32_t>(point));
        } else {
            out += json.substr(0, size);
        }
        json.remove_prefix(size);
    }
    return out;
}

std::string toned(std::string_view text, Tone tone, bool colour) {
    constexpr std::array<std::string_view, 5> kCodes{"", "32", "33", "31", "2"};
    const std::string_view code = kCodes.at(static_cast<size_t>(tone));
    return colour && !code.empty() ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

bool wantsColour() {
    const char* noColour = std::getenv("NO_COLOR");
    const char* terminal = std::getenv("TERM");
    return (noColour == nullptr || *noColour == '\0') && terminal != nullptr && std::string_view(terminal) != "dumb" &&
           ::isatty(STDOUT_FILENO) == 1;
}

std::string Table::render(bool colour) const {
    const auto shown = [](const Cell& cell) { return cell.text.empty() ? std::string("-") : harmless(cell.text); };
    std::vector<size_t> widths;
    std::vector<bool> right;
    for (const std::string& title : titles_) {
        right.push_back(title.starts_with('>'));
        widths.push_back(title.size() - (right.back() ? 1 : 0));
    }
    for (const auto& row : rows_) {
        for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(shown(row[i])));
    }
    std::string out;
    const auto put = [&](size_t i, const std::string& text, const std::string& styled) {
        const std::string padding(widths[i] - width(text), ' ');
        const bool last = i + 1 == widths.size();
        out += right[i] ? padding + styled : styled + (last ? "" : padding);
        out += last ? "\n" : kGap;
    };
    for (size_t i = 0; i < titles_.size(); ++i) {
        const std::string title = titles_[i].substr(right[i] ? 1 : 0);
        put(i, title, colour ? "\x1b[1m" + title + "\x1b[0m" : title);
    }
    for (const auto& row : rows_) {
        for (size_t i = 0; i < row.size(); ++i) {
            const std::string text = shown(row[i]);
            put(i, text, toned(text, row[i].tone, colour));
        }
    }
    return out;
}

std::string shellWord(const std::string& word) {
    const bool plain = std::all_of(word.begin(), word.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || std::string_view("._-/:=,@%+").find(static_cast<char>(c)) != std::string::npos;
    });
    if (plain && !word.empty()) return word;
    std::string out = "'";
    for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return out + "'";
}

}  // namespace weft::ctl
