#include "base/result.h"

#include <cerrno>
#include <system_error>

namespace weft {

std::string_view toString(ErrorCode code) {
    switch (code) {
        case ErrorCode::InvalidArgument:
            return "invalid argument";
        case ErrorCode::NotFound:
            return "not found";
        case ErrorCode::AlreadyExists:
            return "already exists";
        case ErrorCode::Busy:
            return "busy";
        case ErrorCode::Exhausted:
            return "exhausted";
        case ErrorCode::Unsupported:
            return "unsupported";
        case ErrorCode::PermissionDenied:
            return "permission denied";
        case ErrorCode::Unavailable:
            return "unavailable";
        case ErrorCode::Timeout:
            return "timeout";
        case ErrorCode::Corrupt:
            return "corrupt";
        case ErrorCode::Kernel:
            return "kernel";
        case ErrorCode::Internal:
            return "internal";
    }
    return "internal";
}

Error Error::within(std::string_view context) const {
    std::string text(context);
    text += ": ";
    text += message;
    return Error{code, std::move(text), sysErrno};
}

Error makeError(ErrorCode code, std::string message) {
    return Error{code, std::move(message), 0};
}

Error errnoError(int errnoValue, std::string_view what) {
    auto code = ErrorCode::Kernel;
    switch (errnoValue) {
        case EEXIST:
            code = ErrorCode::AlreadyExists;
            break;
        case ENOENT:
        case ENODEV:
        case ENXIO:
        case ESRCH:
            code = ErrorCode::NotFound;
            break;
        case EBUSY:
        case EADDRINUSE:
            code = ErrorCode::Busy;
            break;
        case EPERM:
        case EACCES:
            code = ErrorCode::PermissionDenied;
            break;
        case EOPNOTSUPP:
        case EPROTONOSUPPORT:
        case EAFNOSUPPORT:
            code = ErrorCode::Unsupported;
            break;
        case ETIMEDOUT:
            code = ErrorCode::Timeout;
            break;
        default:
            break;
    }
    return Error{code, std::string(what) + ": " + std::generic_category().message(errnoValue), errnoValue};
}

}  // namespace weft
