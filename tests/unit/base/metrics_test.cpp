#include "base/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

namespace weft {
namespace {

TEST(Metrics, ShowsCountersAndGaugesInOrder) {
    Metrics metrics;
    metrics.gauge("weft_b", "A gauge.").set(1.5);
    metrics.counter("weft_a_total", "A counter.", {{"x", "2"}}).add(3);
    metrics.counter("weft_a_total", "A counter.", {{"x", "1"}}).add();
    metrics.counter("weft_a_total", "A counter.", {{"x", "1"}}).add();
    EXPECT_EQ(metrics.render(),
              "# HELP weft_a_total A counter.\n# TYPE weft_a_total counter\n"
              "weft_a_total{x=\"1\"} 2\nweft_a_total{x=\"2\"} 3\n"
              "# HELP weft_b A gauge.\n# TYPE weft_b gauge\nweft_b 1.5\n");
}

TEST(Metrics, EscapesLabelsAndHelp) {
    Metrics metrics;
    metrics.gauge("weft_g", "back\\slash \"quote\"\nline", {{"l", "a\\b\"c\nd"}}).set(0);
    EXPECT_EQ(metrics.render(),
              "# HELP weft_g back\\\\slash \"quote\"\\nline\n# TYPE weft_g gauge\nweft_g{l=\"a\\\\b\\\"c\\nd\"} 0\n");
}

TEST(Metrics, ShowsNumbersThatAreNone) {
    Metrics metrics;
    metrics.gauge("weft_a", "").set(std::numeric_limits<double>::quiet_NaN());
    metrics.gauge("weft_b", "").set(std::numeric_limits<double>::infinity());
    EXPECT_NE(metrics.render().find("weft_a NaN\n"), std::string::npos);
    EXPECT_NE(metrics.render().find("weft_b +Inf\n"), std::string::npos);
}

TEST(Metrics, HistogramBucketsAreCumulativeAndInclusive) {
    Metrics metrics;
    Histogram& histogram = metrics.histogram("weft_h", "H.", {{"m", "x"}});
    histogram.observe(0.001);
    histogram.observe(0.0011);
    histogram.observe(99);
    const std::string text = metrics.render();
    for (const char* line :
         {"weft_h_bucket{m=\"x\",le=\"0.0005\"} 0\n", "weft_h_bucket{m=\"x\",le=\"0.001\"} 1\n",
          "weft_h_bucket{m=\"x\",le=\"0.0025\"} 2\n", "weft_h_bucket{m=\"x\",le=\"10\"} 2\n",
          "weft_h_bucket{m=\"x\",le=\"+Inf\"} 3\n", "weft_h_sum{m=\"x\"} 99.0021\n", "weft_h_count{m=\"x\"} 3\n"}) {
        EXPECT_NE(text.find(line), std::string::npos) << line << text;
    }
}

TEST(Metrics, CollectsGaugesWhenAsked) {
    Metrics metrics;
    int asked = 0;
    metrics.gaugesFrom("weft_n", "N.", [&] {
        ++asked;
        // A collector may count: no lock is held.
        metrics.counter("weft_asked_total", "").add();
        return std::vector<Metrics::Sample>{{{{"d", "b"}}, 2}, {{{"d", "a"}}, 1}};
    });
    EXPECT_EQ(asked, 0);
    EXPECT_NE(metrics.render().find("weft_n{d=\"a\"} 1\nweft_n{d=\"b\"} 2\n"), std::string::npos);
    EXPECT_EQ(asked, 1);
}

// Every line is one the exposition format knows, every sample belongs to the family above it.
TEST(Metrics, KeepsToTheExpositionFormat) {
    Metrics metrics;
    metrics.counter("weft_c_total", "C.", {{"a", "ü \\ \" x"}, {"b", ""}}).add(7);
    metrics.gauge("weft_g", "G.").set(1e300);
    metrics.histogram("weft_h", "H.").observe(1);
    const std::regex sample(
        R"re(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\[\\"n])*"(,[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\[\\"n])*")*\})? (NaN|[+-]Inf|[-+0-9.e]+))re");
    std::istringstream lines(metrics.render());
    std::string family;
    std::set<std::string> seen;
    for (std::string line; std::getline(lines, line);) {
        std::smatch match;
        if (line.starts_with("# HELP ")) {
            family = line.substr(7, line.find(' ', 7) - 7);
            EXPECT_TRUE(seen.insert(family).second) << line;
        } else if (line.starts_with("# TYPE ")) {
            EXPECT_EQ(line.substr(7, line.find(' ', 7) - 7), family);
        } else {
            ASSERT_TRUE(std::regex_match(line, match, sample)) << line;
            EXPECT_TRUE(match[1].str().starts_with(family)) << line;
        }
    }
    EXPECT_EQ(seen.size(), 3U);
}

TEST(Metrics, CountsFromManyThreads) {
    Metrics metrics;
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&metrics] {
            for (int n = 0; n < 1000; ++n) metrics.counter("weft_c_total", "", {{"n", std::to_string(n % 10)}}).add();
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(metrics.counter("weft_c_total", "", {{"n", "3"}}).value(), 800U);
}

}  // namespace
}  // namespace weft
