#include "kv/row.h"

#include <tuple>

#include "kv/wire.h"

namespace weft::kv {

namespace {

auto rank(const Row& row) {
    return std::tie(row.version, row.deleted, row.value, row.signature);
}

}  // namespace

const Row& merge(const Row& a, const Row& b) {
    if (rank(a) == rank(b)) return a.ageSeconds >= b.ageSeconds ? a : b;
    return rank(a) > rank(b) ? a : b;
}

bool supersedes(const Row& row, const Row& held) {
    return rank(row) > rank(held);
}

Bytes signedBytes(const Row& row, const std::string& cluster) {
    Writer out;
    out.text8("weft row 1");
    out.text8(cluster);
    out.u64(row.version);
    out.u8(row.deleted ? 1 : 0);
    out.text8(row.key);
    out.text16(row.value);
    return std::move(out).take();
}

bool withinLimits(std::string_view key, std::string_view value) {
    return !key.empty() && key.size() <= kMaxKeyBytes && key.size() + value.size() <= kMaxRowBytes;
}

}  // namespace weft::kv
