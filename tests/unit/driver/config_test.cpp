#include "driver/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "temp_dir.h"

namespace weft::driver::testing {
namespace {

using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
protected:
    std::variant<Config, Exit> parse(std::vector<std::string> arguments, const std::string& toml = "") {
        std::ofstream(file_) << toml;
        arguments.insert(arguments.begin(), {"weftd", "--config", file_});
        std::vector<const char*> argv;
        for (const std::string& argument : arguments) argv.push_back(argument.c_str());
        return parseCommandLine(static_cast<int>(argv.size()), argv.data());
    }
    Config good(const std::vector<std::string>& arguments, const std::string& toml = "") {
        auto result = parse(arguments, toml);
        if (const auto* exit = std::get_if<Exit>(&result)) {
            ADD_FAILURE() << exit->text;
            return {};
        }
        return std::get<Config>(result);
    }
    Exit bad(const std::vector<std::string>& arguments, const std::string& toml = "") {
        auto result = parse(arguments, toml);
        if (std::holds_alternative<Config>(result)) {
            ADD_FAILURE() << "accepted";
            return {};
        }
        return std::get<Exit>(result);
    }

    TempDir dir_;
    std::string file_ = dir_.file("weftd.toml");
};

TEST_F(ConfigTest, HasDefaults) {
    const Config config = good({});
    EXPECT_EQ(config.pluginDir, "/run/docker/plugins");
    EXPECT_EQ(config.stateDir, "/var/lib/weft");
    EXPECT_EQ(config.runDir, "/run/weft");
    EXPECT_EQ(config.firewall, "auto");
    EXPECT_EQ(config.logLevel, LogLevel::Info);
    EXPECT_EQ(config.metrics, "");
    EXPECT_EQ(config.web, "");
    EXPECT_TRUE(config.addressPools.empty());
    EXPECT_EQ(config.gossip.cluster, "weft");
    EXPECT_EQ(config.gossip.stateDir, "/var/lib/weft");
    EXPECT_EQ(config.gossip.keyFile, "");
    EXPECT_TRUE(config.gossip.join.empty());
    EXPECT_EQ(config.vxlanPort, 4789);
}

TEST_F(ConfigTest, ReadsEveryKeyFromTheFile) {
    const Config config = good({}, R"(# a comment
plugin-dir = "/p"
state-dir = "/s"
run-dir = "/r"
firewall = "nft"
log-level = "debug"
metrics = "127.0.0.1:9100"
address-pool = ["10.208.0.0/12/24", "fd00:1::/48/64"]
node-name = "one"
cluster = "here"
key-file = "/k"
join = ["192.0.2.1", "[2001:db8::1]:7951", "seeds.example:7950"]
bind = "0.0.0.0:7951"
advertise = "192.0.2.2:7951"
vxlan-port = 4790
)");
    EXPECT_EQ(config.pluginDir, "/p");
    EXPECT_EQ(config.stateDir, "/s");
    EXPECT_EQ(config.runDir, "/r");
    EXPECT_EQ(config.firewall, "nft");
    EXPECT_EQ(config.logLevel, LogLevel::Debug);
    EXPECT_EQ(config.metrics, "127.0.0.1:9100");
    ASSERT_EQ(config.addressPools.size(), 2U);
    EXPECT_EQ(config.addressPools[0].base.str(), "10.208.0.0/12");
    EXPECT_EQ(config.addressPools[0].length, 24);
    EXPECT_EQ(config.addressPools[1].length, 64);
    EXPECT_EQ(config.gossip.nodeName, "one");
    EXPECT_EQ(config.gossip.cluster, "here");
    EXPECT_EQ(config.gossip.keyFile, "/k");
    EXPECT_EQ(config.gossip.stateDir, "/s");
    EXPECT_EQ(config.gossip.join, (std::vector<std::string>{"192.0.2.1", "[2001:db8::1]:7951", "seeds.example:7950"}));
    EXPECT_EQ(config.gossip.bind, "0.0.0.0:7951");
    EXPECT_EQ(config.gossip.advertise, "192.0.2.2:7951");
    EXPECT_EQ(config.vxlanPort, 4790);
}

TEST_F(ConfigTest, JoinMayBeRepeated) {
    const Config config = good({"--join", "192.0.2.1", "--join", "192.0.2.2"});
    EXPECT_EQ(config.gossip.join, (std::vector<std::string>{"192.0.2.1", "192.0.2.2"}));
}

TEST_F(ConfigTest, FlagsGoBeforeTheFile) {
    const Config config =
        good({"--state-dir", "/flag", "--log-level=warn"}, "state-dir = \"/file\"\nrun-dir = \"/file\"\n");
    EXPECT_EQ(config.stateDir, "/flag");
    EXPECT_EQ(config.runDir, "/file");
    EXPECT_EQ(config.logLevel, LogLevel::Warn);
}

TEST_F(ConfigTest, TheEnvironmentComesLastAndEmptyVariablesCountForNothing) {
    const std::map<std::string, std::string> variables{
        {"WEFT_STATE_DIR", "/variable"},          {"WEFT_RUN_DIR", "/variable"},
        {"WEFT_PLUGIN_DIR", "/variable"},         {"WEFT_CLUSTER", ""},
        {"WEFT_JOIN", "192.0.2.1,seeds.example"}, {"WEFT_KEY", "secret"}};
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
    const Config config = good({"--state-dir", "/flag"}, "run-dir = \"/file\"\n");
    ::setenv("WEFT_VXLAN_PORT", "many", 1);
    const Exit wrong = bad({});
    ::unsetenv("WEFT_VXLAN_PORT");
    for (const auto& [name, value] : variables) ::unsetenv(name.c_str());
    EXPECT_EQ(config.stateDir, "/flag");
    EXPECT_EQ(config.runDir, "/file");
    EXPECT_EQ(config.pluginDir, "/variable");
    EXPECT_EQ(config.gossip.cluster, "weft");
    EXPECT_EQ(config.gossip.join, (std::vector<std::string>{"192.0.2.1", "seeds.example"}));
    EXPECT_EQ(config.gossip.key, "secret");
    EXPECT_THAT(wrong.text, HasSubstr("vxlan-port"));
}

TEST_F(ConfigTest, RefusesUnknownNamesWithTheNearest) {
    const Exit key = bad({}, "log-levle = \"debug\"\n");
    EXPECT_EQ(key.status, 2);
    EXPECT_THAT(key.text, HasSubstr(file_));
    EXPECT_THAT(key.text, HasSubstr("unknown key \"log-levle\"; did you mean \"log-level\"?"));
    EXPECT_THAT(bad({}, "[section]\nfirewall = \"nft\"\n").text, HasSubstr("section [section]: there are no sections"));
    EXPECT_THAT(bad({"--plugindir=/x"}).text,
                HasSubstr("unknown argument \"--plugindir\"; did you mean --plugin-dir?"));
    EXPECT_THAT(bad({"serve"}).text, HasSubstr("unknown argument \"serve\""));
}

TEST_F(ConfigTest, RefusesBadValues) {
    EXPECT_THAT(bad({"--firewall", "ufw"}).text, HasSubstr("--firewall"));
    EXPECT_THAT(bad({}, "firewall = \"ufw\"\n").text, HasSubstr("firewall"));
    EXPECT_THAT(bad({"--log-level", "loud"}).text, HasSubstr("expected trace, debug"));
    EXPECT_THAT(bad({"--metrics", "0.0.0.0:9100"}).text, HasSubstr("not a loopback address"));
    EXPECT_THAT(bad({"--web", "0.0.0.0:8080"}).text, HasSubstr("not a loopback address"));
    EXPECT_THAT(bad({}, "metrics = \"10.0.0.1:9100\"\n").text, HasSubstr("not a loopback address"));
    EXPECT_THAT(bad({"--address-pool", "10.0.0.0/8"}).text, HasSubstr("address-pool"));
    EXPECT_THAT(bad({"--address-pool", "10.0.0.0/8/31"}).text, HasSubstr("to /30"));
    EXPECT_THAT(bad({"--address-pool", "10.1.0.0/8/24"}).text, HasSubstr("write 10.0.0.0/8"));
    EXPECT_THAT(bad({"--join", "192.0.2.1:99999"}).text, HasSubstr("--join"));
    EXPECT_THAT(bad({"--bind", "seeds.example"}).text, HasSubstr("--bind"));
    EXPECT_THAT(bad({"--advertise", "192.0.2"}).text, HasSubstr("--advertise"));
    EXPECT_THAT(bad({}, "cluster = \"\"\n").text, HasSubstr("1 to 64 characters"));
    EXPECT_THAT(bad({"--vxlan-port", "0"}).text, HasSubstr("--vxlan-port"));
    EXPECT_EQ(bad({"--run-dir"}).status, 2);
}

TEST_F(ConfigTest, AMissingFileMattersOnlyIfNamed) {
    const std::string missing = dir_.file("none.toml");
    const char* named[] = {"weftd", "--config", missing.c_str()};
    auto result = parseCommandLine(3, named);
    ASSERT_TRUE(std::holds_alternative<Exit>(result));
    EXPECT_THAT(std::get<Exit>(result).text, HasSubstr(missing));
}

TEST_F(ConfigTest, AnswersQuestions) {
    EXPECT_THAT(bad({"--help"}).text, HasSubstr("--address-pool"));
    EXPECT_EQ(bad({"--help"}).status, 0);
    EXPECT_THAT(bad({"--version"}).text, HasSubstr("weftd "));
    EXPECT_EQ(bad({"--check-config"}).status, 0);
    EXPECT_EQ(bad({"--check-config"}, "firewal = \"nft\"\n").status, 2);
}

}  // namespace
}  // namespace weft::driver::testing
