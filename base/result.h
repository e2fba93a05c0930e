// Result<T>: a value or an Error. The way every fallible call in weft reports, in place of exceptions.
//
// The method names are a subset of std::expected's, which g++ 12 offers only in C++23 mode.
// Callers branch on Error::code and never on its text. Each layer adds context outside-in:
//     create network 3f2a: add bridge br-3f2a: netlink newlink: Operation not permitted
#pragma once

#include <cassert>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace weft {

enum class ErrorCode {
    InvalidArgument,  // the caller's input can never work
    NotFound,         // the thing named does not exist
    AlreadyExists,    // exists with different arguments (equal ones are a success)
    Busy,             // held by somebody else now; may work later
    Exhausted,        // a pool, range or table has nothing left
    Unsupported,      // this kernel, library or mode cannot do it
    PermissionDenied,
    Unavailable,  // a peer or service is away
    Timeout,
    Corrupt,   // stored or received data fails its checks
    Kernel,    // the kernel refused; sysErrno says how
    Internal,  // a bug in weft
};

std::string_view toString(ErrorCode code);

struct Error {
    ErrorCode code = ErrorCode::Internal;
    std::string message;
    int sysErrno = 0;  // the kernel's errno where there was one, else 0

    // The same error with "context: " before its message.
    [[nodiscard]] Error within(std::string_view context) const;
};

[[nodiscard]] Error makeError(ErrorCode code, std::string message);

// Folds an errno into a code: EEXIST to AlreadyExists, ENOENT/ENODEV/ESRCH to NotFound, and so on; message is
// "what: strerror".
[[nodiscard]] Error errnoError(int errnoValue, std::string_view what);

template <typename T>
class [[nodiscard]] Result {
public:
    using value_type = T;

    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

    [[nodiscard]] bool has_value() const { return state_.index() == 0; }
    explicit operator bool() const { return has_value(); }

    T& value() & {
        assert(has_value());
        return std::get<0>(state_);
    }
    const T& value() const& {
        assert(has_value());
        return std::get<0>(state_);
    }
    T&& value() && {
        assert(has_value());
        return std::get<0>(std::move(state_));
    }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

    template <typename U>
    [[nodiscard]] T value_or(U&& fallback) const& {
        return has_value() ? value() : static_cast<T>(std::forward<U>(fallback));
    }

    const Error& error() const& {
        assert(!has_value());
        return std::get<1>(state_);
    }
    Error&& error() && {
        assert(!has_value());
        return std::get<1>(std::move(state_));
    }

    // This result, its error (if any) put within a context.
    [[nodiscard]] Result within(std::string_view context) && {
        if (has_value()) return std::move(*this);
        return error().within(context);
    }

private:
    std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    using value_type = void;

    Result() = default;
    Result(Error error) : error_(std::move(error)), failed_(true) {}  // NOLINT(google-explicit-constructor)

    [[nodiscard]] bool has_value() const { return !failed_; }
    explicit operator bool() const { return has_value(); }

    const Error& error() const& {
        assert(failed_);
        return error_;
    }
    Error&& error() && {
        assert(failed_);
        return std::move(error_);
    }

    [[nodiscard]] Result within(std::string_view context) && {
        if (has_value()) return {};
        return error_.within(context);
    }

private:
    Error error_;
    bool failed_ = false;
};

}  // namespace weft

#define WEFT_CONCAT_INNER_(a, b) a##b
#define WEFT_CONCAT_(a, b) WEFT_CONCAT_INNER_(a, b)

// NOLINTBEGIN(bugprone-macro-parentheses): `declaration` declares, `name` names
// Leaves the enclosing function with the error of `expr`, if it has one.
#define WEFT_TRY(expr) WEFT_TRY_(WEFT_CONCAT_(weftTry_, __COUNTER__), expr)
#define WEFT_TRY_(name, expr)                                          \
    do {                                                               \
        if (auto name = (expr); !name) return std::move(name).error(); \
    } while (false)

// WEFT_ASSIGN(auto link, findLink(name)); declares `link` from the value, or leaves with the error.
#define WEFT_ASSIGN(declaration, expr) WEFT_ASSIGN_(WEFT_CONCAT_(weftAssign_, __COUNTER__), declaration, expr)
#define WEFT_ASSIGN_(name, declaration, expr)  \
    auto name = (expr);                        \
    if (!name) return std::move(name).error(); \
    declaration = std::move(name).value()
// NOLINTEND(bugprone-macro-parentheses)
