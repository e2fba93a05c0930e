// Options: a user's -o strings read strictly, so that a misspelt option is an error at create and not a surprise later.
//
//     OptionReader reader("weft-bridge", request.options, kKnown);
//     WEFT_TRY(reader.check());
//     WEFT_ASSIGN(options.icc, reader.flag("com.docker.network.bridge.enable_icc", true));
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"

namespace weft {

struct KnownOption {
    std::string_view name;
    std::string_view refusal;  // not empty: known, and why it is refused
};

class OptionReader {
public:
    // `mode` and `known` must outlive the reader; `options` too.
    OptionReader(std::string_view mode, const std::map<std::string, std::string>& options,
                 std::span<const KnownOption> known)
        : mode_(mode), options_(options), known_(known) {}

    // InvalidArgument for an unknown name (with the nearest known one and the list), Unsupported for a refused one.
    [[nodiscard]] Result<void> check() const;

    // Null when absent or empty: Docker's own drivers take an empty value as unset.
    [[nodiscard]] const std::string* text(std::string_view name) const;

    // InvalidArgument naming the option when the value does not parse.
    [[nodiscard]] Result<bool> flag(std::string_view name, bool fallback) const;  // as Go's strconv.ParseBool
    [[nodiscard]] Result<uint32_t> number(std::string_view name, uint32_t low, uint32_t high, uint32_t fallback) const;
    [[nodiscard]] Result<std::optional<IpAddress>> address(std::string_view name) const;

    [[nodiscard]] Error invalid(std::string_view name, std::string_view why) const;

private:
    std::string_view mode_;
    const std::map<std::string, std::string>& options_;
    std::span<const KnownOption> known_;
};

// Damerau's distance, adjacent transposition included.
size_t editDistance(std::string_view a, std::string_view b);

}  // namespace weft
