#include "ctl/table.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace weft::ctl {
namespace {

TEST(Table, AlignsColumnsAndLeavesNoTrailingSpace) {
    Table table({"NAME", ">PORTS", "LINK"});
    table.add({std::string("a"), std::string("7"), std::string("weft-1")});
    table.add({std::string("longer"), std::string("1234567"), std::string("x")});
    EXPECT_EQ(table.render(false),
              "NAME      PORTS  LINK\n"
              "a             7  weft-1\n"
              "longer  1234567  x\n");
}

TEST(Table, CountsCharactersNotBytes) {
    Table table({"NAME", "LINK"});
    table.add({std::string("zürich"), std::string("a")});
    table.add({std::string("london"), std::string("b")});
    EXPECT_EQ(table.render(false), "NAME    LINK\nzürich  a\nlondon  b\n");
}

TEST(Table, ShowsAnEmptyCellAsADash) {
    Table table({"A", "B"});
    table.add({std::string(), std::string("b")});
    EXPECT_EQ(table.render(false), "A  B\n-  b\n");
}

TEST(Table, ColoursTextNotPadding) {
    Table table({"A", "B"});
    table.add({Cell("bad", Tone::Bad), std::string("b")});
    table.add({std::string("longer"), std::string("b")});
    EXPECT_EQ(table.render(true),
              "\x1b[1mA\x1b[0m       \x1b[1mB\x1b[0m\n"
              "\x1b[31mbad\x1b[0m     b\n"
              "longer  b\n");
}

TEST(Table, LetsNoCellSteerTheTerminal) {
    Table table({"A"});
    table.add(
        {std::string("x\x1b[2Jy\nz\x7f\xc2\x9b"
                     "0m")});
    EXPECT_EQ(table.render(false), "A\nx?[2Jy?z??0m\n");
}

TEST(Table, HarmlessKeepsOtherCharacters) {
    EXPECT_EQ(harmless("grün \xc2\xa0 日本"), "grün \xc2\xa0 日本");
    EXPECT_EQ(harmless("cut \xc2"), "cut ?");
    EXPECT_EQ(harmless("8 bit \x9b", Lines::Many), "8 bit ?");
    EXPECT_EQ(harmless("a\nb"), "a?b");
    EXPECT_EQ(harmless("a\nb", Lines::Many), "a\nb");
}

TEST(Table, HarmlessLetsNobodyTurnTheOrderOfText) {
    for (const char* mark : {"\u061c", "\u200e", "\u200f", "\u2028", "\u202a", "\u202e", "\u2066", "\u2069"}) {
        EXPECT_EQ(harmless(std::string("a") + mark + "b"), "a?b");
    }
    EXPECT_EQ(harmlessJson("{\"a\":\"x\u202ey\u009bz\u00e4\"}"), "{\"a\":\"x\\u202ey\\u009bz\u00e4\"}");
}

TEST(Toned, IsPlainWithoutColour) {
    EXPECT_EQ(toned("ok", Tone::Good, false), "ok");
    EXPECT_EQ(toned("ok", Tone::Good, true), "\x1b[32mok\x1b[0m");
    EXPECT_EQ(toned("ok", Tone::Plain, true), "ok");
}

// Standard output is a terminal of its own for the time of a test.
class WantsColour : public ::testing::Test {
protected:
    void SetUp() override {
        std::fflush(stdout);
        ASSERT_EQ(::openpty(&leader_, &terminal_, nullptr, nullptr, nullptr), 0);
        saved_ = ::dup(STDOUT_FILENO);
        ::dup2(terminal_, STDOUT_FILENO);
        ::unsetenv("NO_COLOR");
        ::setenv("TERM", "xterm", 1);
    }
    void TearDown() override {
        ::dup2(saved_, STDOUT_FILENO);
        for (const int fd : {saved_, terminal_, leader_}) ::close(fd);
    }
    int leader_ = -1;
    int terminal_ = -1;
    int saved_ = -1;
};

TEST_F(WantsColour, OnATerminalOnly) {
    EXPECT_TRUE(wantsColour());
    std::FILE* file = std::tmpfile();
    ::dup2(::fileno(file), STDOUT_FILENO);
    EXPECT_FALSE(wantsColour());
    std::fclose(file);
}

TEST_F(WantsColour, NotWithNoColorOrADumbTerminal) {
    ::setenv("NO_COLOR", "1", 1);
    EXPECT_FALSE(wantsColour());
    ::setenv("NO_COLOR", "", 1);  // no-color.org: empty does not count
    EXPECT_TRUE(wantsColour());
    ::setenv("TERM", "dumb", 1);
    EXPECT_FALSE(wantsColour());
}

}  // namespace
}  // namespace weft::ctl
