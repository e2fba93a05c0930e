#include "ctl/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "ctl/table.h"
#include "tests/unit/ctl/samples.h"

namespace weft::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A directory with a weftd in it that gives the sample answers and remembers what it was sent.
class Command : public ::testing::Test {
protected:
    void SetUp() override {
        std::string name = std::filesystem::temp_directory_path() / "weftctl.XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        dir_ = name;
        const auto serve = [this](const char* path, const char* body) {
            server_.Get(path, [body](const httplib::Request&, httplib::Response& response) {
                response.set_content(body, "application/json");
            });
        };
        serve("/v1/ports", samples::kPorts);
        serve("/v1/status", samples::kStatus);
        serve("/v1/version", R"({"version":"9.9.9"})");
        serve("/v1/doctor", samples::kDoctor);
        serve("/networks", samples::kEngineNetworks);
        serve("/containers/json", samples::kEngineContainers);
        serve("/metrics", "weft_networks{driver=\"weft-bridge\"} 2\n");
        const auto remember = [this](const httplib::Request& request, httplib::Response& response) {
            sent_ = request.method + " " + request.path + " " + request.body;
            response.set_content(request.path == "/v1/reconcile" ? samples::kRepairs : R"({"level":"debug"})",
                                 "application/json");
        };
        serve("/v1/members", R"({"members":[{"name":"here","id":"0123","address":"127.0.0.1:1"}]})");
        server_.Post("/v1/keys", [this](const httplib::Request& request, httplib::Response& response) {
            sent_ = request.body;
            response.set_content(R"({"keys":[{"id":"0badcafe","primary":true}]})", "application/json");
        });
        server_.Post("/v1/forget", [this](const httplib::Request& request, httplib::Response& response) {
            sent_ = request.body;
            response.set_content(R"({"done":"forgot it"})", "application/json");
        });
        server_.Post("/v1/renew", [this](const httplib::Request& request, httplib::Response& response) {
            sent_ = request.path + request.body;
            response.set_content(R"({"done":"restart weftd"})", "application/json");
        });
        server_.Get("/v1/kv", [this](const httplib::Request& request, httplib::Response& response) {
            sent_ = request.target;
            response.set_content(R"({"kv":[{"key":"a/b","owner":"here","version":1,"value":"x"}]})",
                                 "application/json");
        });
        server_.Put("/v1/log-level", remember);
        server_.Post("/v1/reconcile", remember);
        server_.Get("/v1/leases", [](const httplib::Request&, httplib::Response& response) {
            response.status = 500;
            response.set_content(R"({"error":"the state file is away"})", "application/json");
        });
        server_.set_address_family(AF_UNIX);
        ASSERT_TRUE(server_.bind_to_port(dir_ + "/weft.sock", 80));
        thread_ = std::thread([this] { server_.listen_after_bind(); });
        while (!server_.is_running()) std::this_thread::yield();
    }
    void TearDown() override {
        server_.stop();
        thread_.join();
        std::filesystem::remove_all(dir_);
    }

    ExitStatus run(std::vector<const char*> arguments, const std::string& input = "") {
        std::istringstream in(input);
        out_.str("");
        err_.str("");
        arguments.insert(arguments.begin(), "weftctl");
        return runCommand(static_cast<int>(arguments.size()), arguments.data(), false, out_, err_, in);
    }

    std::string dir_;
    std::string sent_;
    std::ostringstream out_, err_;
    httplib::Server server_;
    std::thread thread_;
};

TEST_F(Command, ShowsATableWithTheEnginesNames) {
    const std::string engine = dir_ + "/weft.sock";
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "--docker-socket", engine.c_str(), "ports"}), kDone);
    EXPECT_THAT(out_.str(), HasSubstr("0.0.0.0:8080  10.20.0.2:80     tcp       server        web\n"));
    EXPECT_EQ(err_.str(), "");
}

TEST_F(Command, ShowsIdsWithoutAnEngine) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "--docker-socket", "/nowhere.sock", "ports"}), kDone);
    EXPECT_THAT(out_.str(), HasSubstr("eeeeeeeeeeee  aaaaaaaaaaaa\n"));
}

TEST_F(Command, TakesFlagsBeforeAndAfterTheCommand) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "--json", "ports"}), kDone);
    const std::string before = out_.str();
    EXPECT_THAT(before, StartsWith("[{"));
    EXPECT_EQ(run({"ports", "--json", "--run-dir", dir_.c_str()}), kDone);
    EXPECT_EQ(out_.str(), before);
}

TEST_F(Command, GivesOtherAnswersAsTheyCame) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "--json", "status"}), kDone);
    EXPECT_EQ(out_.str(), std::string(samples::kStatus) + "\n");
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "metrics"}), kDone);
    EXPECT_EQ(out_.str(), "weft_networks{driver=\"weft-bridge\"} 2\n");
}

TEST_F(Command, SendsWhatWasAskedFor) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "log-level", "debug"}), kDone);
    EXPECT_EQ(sent_, R"(PUT /v1/log-level {"level":"debug"})");
    EXPECT_EQ(out_.str(), "debug\n");
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "reconcile", "--dry-run"}), kTrouble);
    EXPECT_EQ(sent_, R"(POST /v1/reconcile {"dryRun":true})");
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "reconcile"}), kTrouble);
    EXPECT_EQ(sent_, "POST /v1/reconcile {}");
}

TEST_F(Command, MakesAKeyWithoutAWeftd) {
    EXPECT_EQ(run({"--run-dir", "/nowhere", "key", "generate"}), kDone);
    const std::string first = out_.str();
    EXPECT_EQ(first.size(), 45U);  // 32 bytes in base64, and the line's end
    EXPECT_EQ(run({"--run-dir", "/nowhere", "key", "generate"}), kDone);
    EXPECT_NE(out_.str(), first);
}

TEST_F(Command, ChangesKeysAndForgetsNodes) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "key", "use", "0badcafe"}), kDone);
    EXPECT_EQ(sent_, R"({"use":"0badcafe"})");
    EXPECT_THAT(out_.str(), HasSubstr("0badcafe  seals and opens\n"));
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "node", "forget", "two"}), kDone);
    EXPECT_EQ(sent_, R"({"node":"two"})");
    EXPECT_EQ(out_.str(), "forgot it\n");
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "node", "forget", "two", "--force"}), kDone);
    EXPECT_EQ(sent_, R"({"force":true,"node":"two"})");
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "node", "forget"}), kMistake);
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "node", "renew"}), kDone);
    EXPECT_EQ(sent_, "/v1/renew{}");
    EXPECT_EQ(out_.str(), "restart weftd\n");
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "node", "renew", "--first"}), kDone);
    EXPECT_EQ(sent_, R"(/v1/renew{"first":true})");
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "key"}), kMistake);
}

TEST_F(Command, AsksForRowsByPrefix) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "--json", "kv", "get", "a/"}), kDone);
    EXPECT_EQ(sent_, "/v1/kv?a/");
    EXPECT_THAT(out_.str(), StartsWith(R"([{"key":"a/b")"));
}

TEST_F(Command, PingsOnlyMembers) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "ping", "there"}), kFailed);
    EXPECT_EQ(err_.str(), "weftctl: no member there; there are: here\n");
    // Nobody listens there, which is an answer as well.
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "--json", "ping", "here", "--count", "2"}), kDone);
    EXPECT_THAT(out_.str(), HasSubstr(R"("gossip":{"address":"127.0.0.1:1","answered":0,"protocol":"tcp","sent":2})"));
}

// Names of members, errors and rows are others' words.
TEST_F(Command, PrintsNothingThatSteersATerminal) {
    const char* evil = "\x1b]0;x\x07\x1b[2J\nroot: all is well\u202e";
    const std::string json = nlohmann::json(evil).dump();
    server_.Get("/v1/overlay", [&json](const httplib::Request&, httplib::Response& response) {
        response.set_content(R"({"overlay":[],"blocks":)" + json + "}", "application/json");
    });
    server_.Get("/v1/keys", [&json](const httplib::Request&, httplib::Response& response) {
        response.status = 500;
        response.set_content(R"({"error":)" + json + "}", "application/json");
    });
    server_.Get("/v1/network", [&json](const httplib::Request&, httplib::Response& response) {
        response.set_content(R"({"network":[{"name":)" + json + R"(,"spec":null,"hosts":[{"host":)" + json +
                                 R"(,"state":"ready","detail":)" + json + "}]}]}",
                             "application/json");
    });
    const auto isHarmless = [](const std::string& text) { return text == harmless(text, Lines::Many); };
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "overlay"}), kDone);
    EXPECT_TRUE(isHarmless(out_.str())) << out_.str();
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "--json", "overlay"}), kDone);
    EXPECT_TRUE(isHarmless(out_.str())) << out_.str();
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "key", "list"}), kFailed);
    EXPECT_EQ(err_.str(), "weftctl: weftd: ?]0;x??[2J?root: all is well?\n");
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "network", "ls"}), kDone);
    EXPECT_TRUE(isHarmless(out_.str())) << out_.str();
    EXPECT_THAT(out_.str(), Not(HasSubstr("\nroot")));
}

TEST_F(Command, TakesAKeyFromStandardInputOnly) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "key", "add", "-"}, "c2VjcmV0\n"), kDone);
    EXPECT_EQ(sent_, R"({"add":"c2VjcmV0"})");
    sent_.clear();
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "key", "add", "c2VjcmV0"}), kMistake);
    EXPECT_THAT(err_.str(), HasSubstr("weftctl key add - <"));
    EXPECT_EQ(sent_, "");
}

TEST_F(Command, SaysBothVersions) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "version"}), kDone);
    EXPECT_EQ(out_.str(), "weftctl " WEFT_VERSION "\nweftd 9.9.9\n");
}

TEST_F(Command, TellsWeftdsError) {
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "leases"}), kFailed);
    EXPECT_EQ(err_.str(), "weftctl: weftd: the state file is away\n");
    EXPECT_EQ(run({"--run-dir", dir_.c_str(), "pools"}), kFailed);  // 404 of a weftd that knows no pools
}

TEST_F(Command, SaysWhatToTypeWhenNobodyServes) {
    const std::string none = dir_ + "/none";
    EXPECT_EQ(run({"--run-dir", none.c_str(), "status"}), kFailed);
    EXPECT_THAT(err_.str(), StartsWith("weftctl: " + none + "/weft.sock: No such file or directory\n"));
    EXPECT_THAT(err_.str(), HasSubstr("systemctl start weftd.socket weftd.service"));
    EXPECT_EQ(out_.str(), "");
    // weftctl's own version is no secret of weftd's.
    EXPECT_EQ(run({"--run-dir", none.c_str(), "version"}), kFailed);
    EXPECT_EQ(out_.str(), "weftctl " WEFT_VERSION "\n");
}

TEST_F(Command, RefusesMistakes) {
    EXPECT_EQ(run({}), kMistake);
    EXPECT_THAT(err_.str(), HasSubstr("which command?"));
    EXPECT_EQ(run({"prots"}), kMistake);
    EXPECT_THAT(err_.str(), HasSubstr("what is \"prots\"?"));
    EXPECT_EQ(run({"status", "--jsn"}), kMistake);
    EXPECT_THAT(err_.str(), HasSubstr("--jsn"));
    EXPECT_EQ(run({"status", "ports"}), kMistake);
    EXPECT_EQ(run({"log-level", "loud"}), kMistake);
    EXPECT_EQ(run({"--run-dir"}), kMistake);
    EXPECT_EQ(sent_, "");
}

TEST_F(Command, HelpIsNoMistake) {
    EXPECT_EQ(run({"--help"}), kDone);
    EXPECT_THAT(out_.str(), HasSubstr("--docker-socket"));
    EXPECT_EQ(run({"ports", "--help"}), kDone);
}

}  // namespace
}  // namespace weft::ctl
