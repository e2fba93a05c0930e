#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <utility>

namespace weft {
namespace {

constexpr std::array<std::string_view, 6> kLevelNames{"trace", "debug", "info", "warn", "error", "off"};

// $JOURNAL_STREAM is "device:inode" of the stream systemd gave us. It is inherited by children that were redirected
// elsewhere, hence the comparison (systemd.exec(5)).
bool stderrIsJournal() {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat status {};
    if (stream == nullptr || ::fstat(STDERR_FILENO, &status) != 0) return false;
    return fmt::format("{}:{}", status.st_dev, status.st_ino) == stream;
}

// "<6>": sd-daemon(3).
class PriorityFlag final : public spdlog::custom_flag_formatter {
public:
    void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
        constexpr std::array<char, 7> kPriorities{'7', '7', '6', '4', '3', '2', '6'};
        const std::array<char, 3> prefix{'<', kPriorities.at(static_cast<size_t>(message.level)), '>'};
        out.append(prefix.data(), prefix.data() + prefix.size());
    }
    [[nodiscard]] std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
        return std::make_unique<PriorityFlag>();
    }
};

std::shared_ptr<spdlog::logger> makeLogger() {
    auto logger = std::make_shared<spdlog::logger>("weft", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    if (stderrIsJournal()) {
        formatter->add_flag<PriorityFlag>('*').set_pattern("%*%v");
    } else {
        formatter->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
    }
    logger->set_formatter(std::move(formatter));
    logger->set_level(spdlog::level::info);
    return logger;
}

spdlog::logger& logger() {
    static const std::shared_ptr<spdlog::logger> instance = makeLogger();
    return *instance;
}

spdlog::level::level_enum spdlogLevel(LogLevel level) {
    // spdlog has Critical between Error and Off.
    return level == LogLevel::Off ? spdlog::level::off : static_cast<spdlog::level::level_enum>(level);
}

bool isControl(char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

void appendEscaped(std::string& out, char c) {
    if (c == '\n') {
        out += "\\n";
    } else {
        fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(c));
    }
}

}  // namespace

std::string_view toString(LogLevel level) {
    return kLevelNames.at(static_cast<size_t>(level));
}

Result<LogLevel> parseLogLevel(std::string_view text) {
    for (size_t i = 0; i < kLevelNames.size(); ++i) {
        if (kLevelNames.at(i) == text) return static_cast<LogLevel>(i);
    }
    return makeError(ErrorCode::InvalidArgument,
                     fmt::format("log level \"{}\": expected trace, debug, info, warn, error or off", text));
}

void setLogLevel(LogLevel level) {
    logger().set_level(spdlogLevel(level));
}

LogLevel logLevel() {
    const auto level = logger().level();
    return level >= spdlog::level::critical ? LogLevel::Off : static_cast<LogLevel>(level);
}

bool logEnabled(LogLevel level) {
    return level != LogLevel::Off && logger().should_log(spdlogLevel(level));
}

std::string logValue(std::string_view text) {
    bool plain = !text.empty();
    for (const char c : text) plain = plain && !isControl(c) && c != ' ' && c != '"' && c != '=' && c != '\\';
    if (plain) return std::string(text);
    std::string out = "\"";
    for (const char c : text) {
        if (isControl(c)) {
            appendEscaped(out, c);
            continue;
        }
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    return out + '"';
}

void logLine(LogLevel level, std::string_view line) {
    std::string clean;
    clean.reserve(line.size());
    for (const char c : line) {
        if (isControl(c)) {
            appendEscaped(clean, c);
        } else {
            clean += c;
        }
    }
    logger().log(spdlogLevel(level), spdlog::string_view_t(clean));
}

}  // namespace weft
