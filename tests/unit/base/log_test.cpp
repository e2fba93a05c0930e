#include "base/log.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

TEST(Log, ValuesAreQuotedWhenNeeded) {
    EXPECT_EQ(logValue("plain/text:1"), "plain/text:1");
    EXPECT_EQ(logValue(""), "\"\"");
    EXPECT_EQ(logValue("two words"), "\"two words\"");
    EXPECT_EQ(logValue("a=\"b\"\n\\\x01"), "\"a=\\\"b\\\"\\n\\\\\\x01\"");
}

TEST(Log, LevelsParseAndPrint) {
    for (const char* name : {"trace", "debug", "info", "warn", "error", "off"}) {
        const auto level = parseLogLevel(name);
        ASSERT_TRUE(level);
        EXPECT_EQ(toString(*level), name);
        setLogLevel(*level);
        EXPECT_EQ(logLevel(), *level);
    }
    setLogLevel(LogLevel::Info);
    EXPECT_FALSE(parseLogLevel("loud"));
}

TEST(Log, OneLineWhateverTheText) {
    testing::internal::CaptureStderr();
    logInfo("a\nb {}", "\x1b[31m");
    logDebug("not shown");
    const std::string text = testing::internal::GetCapturedStderr();
    EXPECT_NE(text.find("info a\\nb \\x1b[31m\n"), std::string::npos) << text;
    EXPECT_EQ(text.find("not shown"), std::string::npos);
}

}  // namespace
}  // namespace weft
