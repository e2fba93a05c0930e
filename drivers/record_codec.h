// Lists inside one column of a record: fields as netstrings ("5:hello,"), so that any text is a value and a damaged
// column is noticed. Grammar and order of fields: README.md.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "drivers/network_driver.h"
#include "firewall/firewall.h"

namespace weft {

class FieldWriter {
public:
    FieldWriter& add(std::string_view text);
    FieldWriter& add(uint64_t number) { return add(std::to_string(number)); }
    [[nodiscard]] std::string take() { return std::move(out_); }

private:
    std::string out_;
};

// The first error sticks: read on, and ask finish() at the end.
class FieldReader {
public:
    explicit FieldReader(std::string_view text) : rest_(text) {}

    std::string text();
    uint64_t number(uint64_t high = UINT64_MAX);
    // The length of a list that follows, each element at least one field: bounded by what is left.
    size_t count();
    [[nodiscard]] bool atEnd() const { return rest_.empty(); }
    void fail() { failed_ = true; }
    [[nodiscard]] bool failed() const { return failed_; }

    // Corrupt if a field was damaged or something is left over.
    [[nodiscard]] Result<void> finish() const;

private:
    std::string_view rest_;
    bool failed_ = false;
};

std::string encodeNetwork(const CreateNetworkRequest& request);
Result<CreateNetworkRequest> decodeNetwork(std::string_view text);

std::string encodePorts(const PortOptions& ports);
Result<PortOptions> decodePorts(std::string_view text);

std::string encodePublished(const std::vector<firewall::PublishedPort>& ports);
Result<std::vector<firewall::PublishedPort>> decodePublished(std::string_view text);

}  // namespace weft
