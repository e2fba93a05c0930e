#include "ctl/table.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

namespace weft::ctl {
namespace {

constexpr std::string_view kGap = "  ";

// Characters, as far as UTF-8 tells: bytes that begin one.
size_t width(std::string_view text) {
    return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::string harmless(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
        // U+0080 to U+009F, which some terminals take for escape sequences too.
        const bool c1 = byte == 0xc2 && next >= 0x80 && next <= 0x9f;
        if (c1) ++i;
        out += c1 || byte < 0x20 || byte == 0x7f ? '?' : text[i];
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
