#include "base/printable.h"

#include <cstddef>
#include <cstdint>

namespace weft {

namespace {

bool isPlain(uint32_t point) {
    if (point < 0x20 || (point >= 0x7f && point < 0xa0)) return false;
    if (point == 0x061c || point == 0x200e || point == 0x200f) return false;  // marks of direction
    if (point >= 0x2028 && point <= 0x202e) return false;                     // separators, overrides
    return point < 0x2066 || point > 0x2069;                                  // isolates
}

}  // namespace

bool isPrintable(std::string_view utf8) {
    for (size_t at = 0; at < utf8.size();) {
        const auto first = static_cast<uint8_t>(utf8[at++]);
        size_t more = 0;
        uint32_t point = first;
        if (first >= 0x80) {
            more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
            if (first < 0xc2 || first > 0xf4) return false;
            point = first & (0x3fU >> more);
        }
        for (; more > 0; --more) {
            const auto next = static_cast<uint8_t>(at < utf8.size() ? utf8[at++] : 0);
            if ((next & 0xc0) != 0x80) return false;
            point = point << 6 | (next & 0x3fU);
        }
        const bool surrogate = point >= 0xd800 && point <= 0xdfff;
        const bool overlong = (first >= 0xf0 && point < 0x10000) || (first >= 0xe0 && point < 0x800);
        if (surrogate || overlong || point > 0x10ffff || !isPlain(point)) return false;
    }
    return true;
}

}  // namespace weft
