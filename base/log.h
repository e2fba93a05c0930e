// Log lines to stderr, made for journald.
//
// When stderr is the journal (JOURNAL_STREAM) lines carry a <N> priority prefix and neither time nor colour, for
// journald adds those; else a time and the level. Text is one line: control characters are escaped.
//
// Any thread. Never fails, never throws.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace weft {

enum class LogLevel : uint8_t { Trace, Debug, Info, Warn, Error, Off };

std::string_view toString(LogLevel level);
// InvalidArgument naming the levels there are.
Result<LogLevel> parseLogLevel(std::string_view text);

void setLogLevel(LogLevel level);  // takes effect at the next line; Info at start
LogLevel logLevel();
bool logEnabled(LogLevel level);

// A value of a key=value pair: as it is, or quoted with escapes when it holds a space, a quote or a control character.
std::string logValue(std::string_view text);

void logLine(LogLevel level, std::string_view line);

template <typename... Args>
void logAt(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
    if (logEnabled(level)) logLine(level, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void logDebug(fmt::format_string<Args...> format, Args&&... args) {
    logAt(LogLevel::Debug, format, std::forward<Args>(args)...);
}
template <typename... Args>
void logInfo(fmt::format_string<Args...> format, Args&&... args) {
    logAt(LogLevel::Info, format, std::forward<Args>(args)...);
}
template <typename... Args>
void logWarn(fmt::format_string<Args...> format, Args&&... args) {
    logAt(LogLevel::Warn, format, std::forward<Args>(args)...);
}
template <typename... Args>
void logError(fmt::format_string<Args...> format, Args&&... args) {
    logAt(LogLevel::Error, format, std::forward<Args>(args)...);
}

}  // namespace weft
