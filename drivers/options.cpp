#include "drivers/options.h"

#include <algorithm>
#include <charconv>
#include <vector>

namespace weft {

size_t editDistance(std::string_view a, std::string_view b) {
    std::vector<size_t> beforeLast(b.size() + 1);
    std::vector<size_t> last(b.size() + 1);
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = std::min(row[j], beforeLast[j - 2] + 1);
            }
        }
        std::swap(beforeLast, last);
        std::swap(last, row);
    }
    return last[b.size()];
}

namespace {

// People type the last word of "com.docker.network.bridge.enable_icc": compare what is after the last dot too.
size_t distance(std::string_view typed, std::string_view known) {
    const auto tail = [](std::string_view text) { return text.substr(text.rfind('.') + 1); };
    return std::min(editDistance(typed, known), editDistance(tail(typed), tail(known)));
}

}  // namespace

Result<void> OptionReader::check() const {
    for (const auto& [name, value] : options_) {
        const auto found = std::find_if(known_.begin(), known_.end(),
                                        [&typed = name](const KnownOption& option) { return option.name == typed; });
        if (found != known_.end()) {
            if (found->refusal.empty()) continue;
            return makeError(ErrorCode::Unsupported, std::string(mode_) + ": option \"" + name +
                                                         "\" is not supported: " + std::string(found->refusal));
        }
        std::string_view nearest;
        size_t best = 4;  // farther is a guess, not help
        std::string all;
        for (const KnownOption& option : known_) {
            if (!option.refusal.empty()) continue;
            all += (all.empty() ? "" : ", ") + std::string(option.name);
            if (const size_t far = distance(name, option.name); far < best) {
                best = far;
                nearest = option.name;
            }
        }
        return makeError(ErrorCode::InvalidArgument,
                         std::string(mode_) + ": unknown option \"" + name + "\"" +
                             (nearest.empty() ? "." : "; did you mean \"" + std::string(nearest) + "\"?") +
                             " Known: " + (all.empty() ? "none" : all));
    }
    return {};
}

const std::string* OptionReader::text(std::string_view name) const {
    const auto found = options_.find(std::string(name));
    return found == options_.end() || found->second.empty() ? nullptr : &found->second;
}

Result<bool> OptionReader::flag(std::string_view name, bool fallback) const {
    const std::string* value = text(name);
    if (value == nullptr) return fallback;
    for (const std::string_view yes : {"1", "t", "T", "true", "TRUE", "True"}) {
        if (*value == yes) return true;
    }
    for (const std::string_view no : {"0", "f", "F", "false", "FALSE", "False"}) {
        if (*value == no) return false;
    }
    return invalid(name, "must be true or false");
}

Result<uint32_t> OptionReader::number(std::string_view name, uint32_t low, uint32_t high, uint32_t fallback) const {
    const std::string* value = text(name);
    if (value == nullptr) return fallback;
    uint32_t number = 0;
    const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), number);
    if (error != std::errc() || end != value->data() + value->size() || number < low || number > high) {
        return invalid(name, "must be a number from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return number;
}

Result<std::optional<IpAddress>> OptionReader::address(std::string_view name) const {
    const std::string* value = text(name);
    if (value == nullptr) return std::optional<IpAddress>();
    auto parsed = IpAddress::parse(*value);
    if (!parsed) return invalid(name, "must be an IP address");
    return std::optional(*parsed);
}

Error OptionReader::invalid(std::string_view name, std::string_view why) const {
    const auto found = options_.find(std::string(name));
    return makeError(ErrorCode::InvalidArgument,
                     std::string(mode_) + ": option \"" + std::string(name) + "\"" +
                         (found == options_.end() ? " " : " is \"" + found->second + "\" but ") + std::string(why));
}

}  // namespace weft
