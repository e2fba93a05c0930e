// Table: aligned columns for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft::ctl {

enum class Tone : uint8_t { Plain, Good, Warning, Bad, Faint };

struct Cell {
    Cell(std::string content, Tone cellTone = Tone::Plain)  // NOLINT(google-explicit-constructor)
        : text(std::move(content)), tone(cellTone) {}

    std::string text;
    Tone tone;
};

class Table {
public:
    // Columns whose title begins with '>' are aligned right.
    explicit Table(std::vector<std::string> titles) : titles_(std::move(titles)) {}

    // As many cells as there are titles. An empty one is shown as "-".
    void add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }

    [[nodiscard]] bool empty() const { return rows_.empty(); }
    [[nodiscard]] std::string render(bool colour) const;

private:
    std::vector<std::string> titles_;
    std::vector<std::vector<Cell>> rows_;
};

// `text` in a tone; as it is without colour.
std::string toned(std::string_view text, Tone tone, bool colour);

// What others wrote (names, errors) without characters that steer a terminal or turn the order of what is shown, and
// without bytes that are no UTF-8: a '?' for each. Line ends are kept only of texts of many lines.
enum class Lines : uint8_t { One, Many };
std::string harmless(std::string_view text, Lines lines = Lines::One);
// JSON that says the same, with such characters escaped.
std::string harmlessJson(std::string_view json);

// Whether standard output is a terminal that wants colour (no-color.org).
bool wantsColour();

// One word of a command to be typed: in quotes where a shell would see more in it.
std::string shellWord(const std::string& word);

}  // namespace weft::ctl
