// Docker's identifiers as types that do not mix. Values are opaque strings, 64 hex digits from real engines.
#pragma once

#include <compare>
#include <functional>
#include <string>
#include <utility>

namespace weft {

template <typename Tag>
class Id {
public:
    Id() = default;
    explicit Id(std::string value) : value_(std::move(value)) {}

    [[nodiscard]] const std::string& str() const { return value_; }
    [[nodiscard]] bool empty() const { return value_.empty(); }
    // The first 12 characters, as `docker ps` shows them.
    [[nodiscard]] std::string brief() const { return value_.substr(0, 12); }

    auto operator<=>(const Id&) const = default;

private:
    std::string value_;
};

using NetworkId = Id<struct NetworkIdTag>;
using EndpointId = Id<struct EndpointIdTag>;

}  // namespace weft

template <typename Tag>
struct std::hash<weft::Id<Tag>> {
    size_t operator()(const weft::Id<Tag>& id) const noexcept { return std::hash<std::string>{}(id.str()); }
};
