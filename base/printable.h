// isPrintable: whether text from elsewhere may be shown as it is.
#pragma once

#include <string_view>

namespace weft {

// UTF-8 without control characters (C0, DEL, C1), line or paragraph separators, and marks that turn the direction of
// what is written after them (Unicode TR 36, "bidi" overrides and isolates).
bool isPrintable(std::string_view utf8);

}  // namespace weft
