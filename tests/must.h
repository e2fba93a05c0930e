// must(): the value of a Result that a test cannot go on without.
#pragma once

#include <gtest/gtest.h>

#include <stdexcept>
#include <utility>

#include "base/result.h"

namespace weft {

// The value, or a test failure with the error's text.
template <typename T>
T must(Result<T> result) {
    if (!result) {
        ADD_FAILURE() << result.error().message;
        throw std::runtime_error(result.error().message);
    }
    return std::move(result).value();
}
inline void must(const Result<void>& result) {
    if (!result) {
        ADD_FAILURE() << result.error().message;
        throw std::runtime_error(result.error().message);
    }
}

}  // namespace weft
