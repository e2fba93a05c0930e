#include "ctl/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "samples.h"

namespace weft::ctl::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(DrawTree, ShowsContainersUnderTheirHosts) {
    EXPECT_EQ(*drawTree(samples::kGraph, true, false), R"(cluster weft
├─ ● one  192.0.2.1  this host
│  ├─ backend
│  │  ├─ web  10.32.0.5 fd32::5
│  │  └─ cache  10.32.0.6
│  └─ front
│     └─ web  10.33.0.2
├─ ● two  192.0.2.2  suspect, tunnel healed
│  └─ backend
│     └─ db  10.32.4.1
└─ ✗ three  192.0.2.3  dead

networks
├─ backend  VNI 4711  10.32.0.0/16 fd32::/64  containers: 3, hosts with some: 2
└─ front  VNI 12  10.33.0.0/16  containers: 1, hosts with some: 1
   └─ host 192.0.2.2 had it before
)");
}

TEST(DrawTree, IsAsciiWhereTheTerminalIs) {
    const std::string tree = *drawTree(samples::kGraph, false, false);
    EXPECT_TRUE(std::all_of(tree.begin(), tree.end(), [](char c) { return c > 0; })) << tree;
    EXPECT_THAT(tree, HasSubstr("`- x three"));
}

TEST(DrawTree, ColoursOnlyWhenAsked) {
    EXPECT_THAT(*drawTree(samples::kGraph, true, false), Not(HasSubstr("\x1b")));
    EXPECT_THAT(*drawTree(samples::kGraph, true, true), HasSubstr("\x1b"));
}

TEST(Draw, AHostWithABadTunnelIsBadThoughItLives) {
    const char* graph = R"({"cluster":"weft","hosts":[{"name":"one","address":"192.0.2.1","state":"alive","self":false,
        "sinceSeconds":1,"tunnel":"closed","tunnelFound":"nothing passes"}],"networks":[]})";
    EXPECT_THAT(*drawTree(graph, true, false), HasSubstr("● one  192.0.2.1  alive, tunnel closed"));
    EXPECT_THAT(*drawSvg(graph), HasSubstr("class=\"bad\" dx=\"8\">alive, tunnel closed<"));
    EXPECT_THAT(*drawDot(graph), HasSubstr("one 192.0.2.1 alive, tunnel closed"));
}

TEST(DrawDot, TiesAContainerToEachOfItsNetworks) {
    const std::string dot = *drawDot(samples::kGraph);
    EXPECT_THAT(dot, HasSubstr(R"("one/web" -- "network/backend" [label="10.32.0.5 fd32::5"];)"));
    EXPECT_THAT(dot, HasSubstr(R"("one/web" -- "network/front" [label="10.33.0.2"];)"));
    EXPECT_THAT(dot, HasSubstr("label=\"three 192.0.2.3 dead\"; style=dashed;"));
}

TEST(DrawSvg, HasAColumnForEachHostAndABandForEachNetwork) {
    const std::string svg = *drawSvg(samples::kGraph);
    EXPECT_THAT(svg, HasSubstr("prefers-color-scheme: dark"));
    size_t hosts = 0;
    for (size_t at = 0; (at = svg.find("class=\"host\"", at)) != std::string::npos; ++at) ++hosts;
    EXPECT_EQ(hosts, 3);
    size_t bands = 0;
    for (size_t at = 0; (at = svg.find("class=\"band\"", at)) != std::string::npos; ++at) ++bands;
    EXPECT_EQ(bands, 2);
    EXPECT_THAT(svg, HasSubstr(">host 192.0.2.2 had it before<"));
}

TEST(DrawSvg, NamesOfOthersAreNoMarkup) {
    const std::string svg = *drawSvg(R"({"cluster":"a<b&c","hosts":[{"name":"<script>","address":"192.0.2.1",
        "state":"alive","self":true,"sinceSeconds":1,"tunnel":"","tunnelFound":""}],"networks":[]})");
    EXPECT_THAT(svg, HasSubstr("a&lt;b&amp;c"));
    EXPECT_THAT(svg, Not(HasSubstr("<script>")));
}

TEST(Draw, RefusesWhatIsNoGraph) {
    for (const char* wrong : {"", "[]", "{}", R"({"cluster":"x","hosts":[{}],"networks":[]})"}) {
        EXPECT_FALSE(drawTree(wrong, true, false)) << wrong;
        EXPECT_FALSE(drawDot(wrong)) << wrong;
        EXPECT_FALSE(drawSvg(wrong)) << wrong;
    }
}

TEST(SpeaksUnicode, TakesTheFirstOfThreeVariables) {
    ::setenv("LC_ALL", "", 1);
    ::setenv("LC_CTYPE", "C", 1);
    ::setenv("LANG", "en_GB.UTF-8", 1);
    EXPECT_FALSE(speaksUnicode());
    ::setenv("LC_ALL", "C.UTF-8", 1);
    EXPECT_TRUE(speaksUnicode());
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) ::unsetenv(name);
    EXPECT_FALSE(speaksUnicode());
}

}  // namespace
}  // namespace weft::ctl::testing
