// kv::Service over real sockets on loopback, real files and a real database.
#include "kv/service.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <random>
#include <thread>

#include "base/deadline.h"
#include "base/unique_fd.h"
#include "kv/database_storage.h"
#include "kv/keyring_row.h"
#include "kv/node.h"
#include "kv/socket_address.h"
#include "kv/socket_transport.h"

namespace weft::kv {

namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::IsEmpty;

// Generous: a loaded machine is slow, a right answer comes within milliseconds.
bool eventually(const std::function<bool()>& holds) {
    const auto limit = std::chrono::steady_clock::now() + 15s;
    while (!holds()) {
        if (std::chrono::steady_clock::now() > limit) return false;
        std::this_thread::sleep_for(5ms);
    }
    return true;
}

class ServiceTest : public testing::Test {
protected:
    // One host: its directory, and what a daemon there would hold.
    struct Host {
        ServiceConfig config;
        Metrics metrics;
        std::unique_ptr<Database> database;
        std::unique_ptr<Service> service;

        Result<void> start() {
            const std::array components{Service::schema()};
            WEFT_ASSIGN(database, Database::open(config.stateDir + "/weft.db", components));
            WEFT_ASSIGN(service, Service::start(config, *database, metrics));
            return {};
        }
        void stop() {
            service.reset();
            database.reset();
        }
    };

    void SetUp() override {
        std::string name = "/tmp/weft-service-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        directory_ = name;
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    // Its seed is the first one made.
    Host& make(const std::string& name, const Key& key, const std::string& address = "127.0.0.1") {
        auto host = std::make_unique<Host>();
        host->config.nodeName = name;
        host->config.cluster = "test";
        host->config.stateDir = directory_ / name;
        std::filesystem::create_directory(host->config.stateDir);
        host->config.bind = address + ":0";
        host->config.keyFile = host->config.stateDir + "/cluster.key";
        writeKey(*host, key.base64() + "\n");
        if (!hosts_.empty()) host->config.join = {hosts_.front()->service->advertised().str()};
        hosts_.push_back(std::move(host));
        return *hosts_.back();
    }
    Host& started(const std::string& name, const Key& key) {
        Host& host = make(name, key);
        const auto done = host.start();
        EXPECT_TRUE(done) << done.error().message;
        // The same port at the next start, as on a real host.
        host.config.bind = host.service->advertised().str();
        return host;
    }
    static bool warns(Host& host, const char* what) {
        return eventually([&] {
            const auto lines = host.service->warnings();
            return std::any_of(lines.begin(), lines.end(),
                               [what](const std::string& line) { return line.find(what) != std::string::npos; });
        });
    }
    static bool doubts(Host& host) {
        bool doubt = false;
        EXPECT_TRUE(host.service->call([&](Node& node) { doubt = node.inDoubt(); }));
        return doubt;
    }
    static size_t rows(Host& host, const std::string& prefix) {
        size_t count = 0;
        EXPECT_TRUE(host.service->call([&](Node& node) { count = node.table().list(prefix).size(); }));
        return count;
    }
    static KeyId primary(Host& host) {
        const auto ring = host.service->keys();
        return ring ? ring->front().id : 0;
    }
    static void writeKey(const Host& host, const std::string& text) {
        std::ofstream(host.config.keyFile) << text;
        ::chmod(host.config.keyFile.c_str(), 0600);
    }
    static std::string readKey(const Host& host) {
        std::ifstream in(host.config.keyFile);
        return {std::istreambuf_iterator<char>(in), {}};
    }

    static size_t living(Host& host) {
        size_t count = 0;
        EXPECT_TRUE(host.service->call([&count](Node& node) {
            for (const Member& member : node.members()) count += member.gone() ? 0U : 1U;
        }));
        return count;
    }
    static bool sees(Host& host, const std::string& key, const std::string& value) {
        bool found = false;
        EXPECT_TRUE(host.service->call([&](Node& node) {
            for (const Row& row : node.table().list(key)) found = found || row.value == value;
        }));
        return found;
    }
    static uint64_t counter(Host& host, uint64_t Counters::*field) {
        uint64_t value = 0;
        EXPECT_TRUE(host.service->call([&](Node& node) { value = node.counters().*field; }));
        return value;
    }
    bool allKnowAll() {
        return std::all_of(hosts_.begin(), hosts_.end(),
                           [this](const auto& host) { return living(*host) == hosts_.size(); });
    }

    std::filesystem::path directory_;
    std::vector<std::unique_ptr<Host>> hosts_;
    const Key key_ = Key::generate();
};

}  // namespace

TEST_F(ServiceTest, ThreeFindEachOtherAndShareRows) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    Host& three = started("three", key_);
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    ASSERT_TRUE(put(*two.service, "test/greeting", "hello"));
    ASSERT_TRUE(eventually([&] { return sees(one, "test/", "hello") && sees(three, "test/", "hello"); }));
    ASSERT_TRUE(erase(*two.service, "test/greeting"));
    ASSERT_TRUE(eventually([&] { return !sees(one, "test/", "hello") && !sees(three, "test/", "hello"); }));
    EXPECT_THAT(one.service->warnings(), IsEmpty());
    EXPECT_TRUE(eventually(
        [&] { return one.metrics.render().find("weft_gossip_members{state=\"alive\"} 3") != std::string::npos; }));
    EXPECT_THAT(one.metrics.render(), HasSubstr("weft_gossip_packets_sent_total"));
}

TEST_F(ServiceTest, SpeaksIPv6) {
    for (const char* name : {"one", "two"}) ASSERT_TRUE(make(name, key_, "[::1]").start());
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    EXPECT_TRUE(hosts_[0]->service->advertised().ip.isV6());
}

TEST_F(ServiceTest, AdvertisesThePortItIsBoundTo) {
    Host& one = make("one", key_, "0.0.0.0");
    one.config.advertise = "127.0.0.1";
    ASSERT_TRUE(one.start());
    EXPECT_NE(one.service->advertised().port, kDefaultPort);
    started("two", key_);
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
}

TEST_F(ServiceTest, ASeedMayBeAName) {
    Host& one = started("one", key_);
    Host& two = make("two", key_);
    const std::string nobody(70, 'x');  // longer than a label may be: fails without asking a server
    two.config.join = {"localhost:" + std::to_string(one.service->advertised().port), nobody};
    ASSERT_TRUE(two.start());
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    EXPECT_TRUE(warns(two, "does not resolve"));
    EXPECT_THAT(two.service->warnings(), testing::SizeIs(1));
}

TEST_F(ServiceTest, ALargeTableComesOverInOneExchange) {
    constexpr size_t kRows = 3000;
    Host& one = started("one", key_);
    ASSERT_TRUE(one.service->call([](Node& node) {
        for (size_t i = 0; i < kRows; ++i) {
            node.put("test/" + std::to_string(i), std::string(500, 'x'), [](const Result<void>&) {});
        }
    }));
    ASSERT_TRUE(eventually([&] { return rows(one, "test/") == kRows; }));
    Host& two = started("two", key_);
    EXPECT_TRUE(eventually([&] { return rows(two, "test/") == kRows; }));
    EXPECT_LE(counter(two, &Counters::syncsStarted), 3U);
}

TEST_F(ServiceTest, ACallWaitsNoLongerThanItHas) {
    Host& one = started("one", key_);
    std::promise<void> release;
    one.service->post([&](Node&) { release.get_future().wait(); });
    const auto begin = std::chrono::steady_clock::now();
    {
        const CallDeadline call(Deadline(50ms));
        EXPECT_EQ(one.service->call([](Node&) {}).error().code, ErrorCode::Timeout);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
    release.set_value();
}

TEST_F(ServiceTest, CallsFromManyThreadsEndWithTheService) {
    Host& one = started("one", key_);
    started("two", key_);
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    std::atomic<int> served{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&one, &served, i] {
            Service& service = *one.service;
            for (int n = 0;; ++n) {
                const auto done = put(service, "test/" + std::to_string(i), std::to_string(n));
                [[maybe_unused]] const auto lines = service.warnings();
                [[maybe_unused]] const auto ring = service.keys();
                service.post([](Node&) {});
                if (!done) {
                    EXPECT_EQ(done.error().code, ErrorCode::Unavailable) << done.error().message;
                    return;
                }
                ++served;
            }
        });
    }
    EXPECT_TRUE(eventually([&] { return served > 20; }));
    one.service->leave(5s);
    for (std::thread& thread : threads) thread.join();
}

TEST_F(ServiceTest, ARestartKeepsIdentityAndRows) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    ASSERT_TRUE(put(*two.service, "test/kept", "yes"));
    ASSERT_TRUE(eventually([&] { return sees(one, "test/", "yes"); }));
    const NodeId before = two.service->id();
    two.config.join.clear();  // members are remembered: a restart needs no seed
    // As when killed: nothing is said to the others.
    two.stop();
    ASSERT_TRUE(two.start());
    EXPECT_EQ(two.service->id(), before);
    EXPECT_TRUE(sees(two, "test/", "yes"));
    ASSERT_TRUE(put(*two.service, "test/second", "too"));
    ASSERT_TRUE(eventually([&] { return sees(one, "test/", "too") && living(one) == 2; }));
    EXPECT_THAT(one.service->warnings(), IsEmpty());
}

TEST_F(ServiceTest, WhoLeavesIsGoneAtOnce) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    ASSERT_TRUE(put(*two.service, "test/row", "x"));
    ASSERT_TRUE(eventually([&] { return sees(one, "test/", "x"); }));
    two.service->leave(5s);
    ASSERT_TRUE(eventually([&] { return living(one) == 1 && !sees(one, "test/", "x"); }));
    EXPECT_EQ(two.service->call([](Node&) {}).error().code, ErrorCode::Unavailable);
    EXPECT_EQ(put(*two.service, "a", "b").error().code, ErrorCode::Unavailable);
}

TEST_F(ServiceTest, AnotherKeyNeverJoins) {
    Host& one = started("one", key_);
    Host& stranger = started("stranger", Key::generate());
    ASSERT_TRUE(eventually([&] { return counter(stranger, &Counters::syncsStarted) > 0; }));
    ASSERT_TRUE(eventually([&] { return counter(stranger, &Counters::streamsFailed) > 0; }));
    EXPECT_EQ(living(one), 1U);
    EXPECT_EQ(living(stranger), 1U);
    EXPECT_THAT(stranger.service->warnings(), testing::ElementsAre(HasSubstr("no member answers at the seed")));
}

TEST_F(ServiceTest, AnotherClusterNameNeverJoins) {
    Host& one = started("one", key_);
    Host& other = make("other", key_);
    other.config.cluster = "another";
    ASSERT_TRUE(other.start());
    ASSERT_TRUE(eventually([&] { return counter(other, &Counters::streamsFailed) > 0; }));
    EXPECT_EQ(living(one), 1U);
    EXPECT_EQ(living(other), 1U);
}

TEST_F(ServiceTest, KeysRotateWithoutAGap) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    Host& three = started("three", key_);
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    const Key fresh = Key::generate();
    const auto everybody = [this](size_t keys, KeyId primary) {
        return eventually([&] {
            return std::all_of(hosts_.begin(), hosts_.end(), [&](const auto& host) {
                const auto ring = host->service->keys();
                return ring && ring->size() == keys && ring->front().id == primary && ring->front().primary;
            });
        });
    };
    // Retried where others may not have said yet that they have it.
    const auto soon = [](const std::function<Result<void>()>& change) {
        return eventually([&] {
            const auto done = change();
            EXPECT_TRUE(done || done.error().code == ErrorCode::Busy) << done.error().message;
            return done.has_value();
        });
    };
    EXPECT_EQ(one.service->useKey(fresh.id()).error().code, ErrorCode::NotFound);
    ASSERT_TRUE(one.service->addKey(fresh));
    ASSERT_TRUE(one.service->addKey(fresh));
    ASSERT_TRUE(everybody(2, key_.id()));
    ASSERT_TRUE(soon([&] { return two.service->useKey(fresh.id()); }));
    ASSERT_TRUE(everybody(2, fresh.id()));
    EXPECT_EQ(three.service->removeKey(fresh.id()).error().code, ErrorCode::Busy);
    ASSERT_TRUE(soon([&] { return three.service->removeKey(key_.id()); }));
    ASSERT_TRUE(everybody(1, fresh.id()));
    EXPECT_TRUE(allKnowAll());
    for (const auto& host : hosts_) {
        EXPECT_THAT(readKey(*host), HasSubstr(fresh.base64()));
        EXPECT_THAT(readKey(*host), testing::Not(HasSubstr(key_.base64())));
        EXPECT_EQ(counter(*host, &Counters::unknownKey), 0U);
    }
    // A host that was away during a change takes it over when it is back, if its old key still opens something.
    const Key third = Key::generate();
    three.stop();
    const auto added = one.service->addKey(third);
    ASSERT_FALSE(added) << "not everybody has it";
    EXPECT_EQ(added.error().code, ErrorCode::Busy);
    EXPECT_THAT(added.error().message, HasSubstr("not yet taken over by three"));
    EXPECT_EQ(two.service->keys()->size(), 2U);
    ASSERT_TRUE(three.start());
    ASSERT_TRUE(everybody(2, fresh.id()));
}

// C3
TEST_F(ServiceTest, OneMembersFarGenerationDoesNotEndRotation) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    Host& evil = started("evil", key_);
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    const KeyringRow far{.generation = UINT64_MAX, .keys = {Key::generate()}};
    ASSERT_TRUE(put(*evil.service, std::string(kKeyringRow), far.encode()));
    ASSERT_TRUE(eventually([&] { return sees(one, std::string(kKeyringRow), far.encode()); }));
    ASSERT_TRUE(eventually([&] { return sees(two, std::string(kKeyringRow), far.encode()); }));
    const Key fresh = Key::generate();
    const auto added = one.service->addKey(fresh);
    EXPECT_TRUE(added) << added.error().message;
    for (Host* host : {&one, &two}) {
        EXPECT_EQ(host->service->keys()->size(), 2U);
        EXPECT_THAT(readKey(*host), HasSubstr(fresh.base64()));
    }
}

TEST(KeyringRow, AFarGenerationIsBelievedWhenMostOthersHaveIt) {
    const KeyringRow now{.generation = 1'800'000'000'000, .keys = {Key{{1}}}};
    const uint64_t clock = now.generation;
    const std::optional<KeyringRow> old = KeyringRow{.generation = 5, .keys = {Key{{2}}}};
    EXPECT_TRUE(isBelievable(now, 0, clock, {old, old}));
    EXPECT_TRUE(isBelievable(now, now.generation - 1, 0, {old, old})) << "a step from the last, whatever the clock";
    EXPECT_FALSE(isBelievable(now, 5, 0, {now, old, {}})) << "here it is 1970, one says so";
    EXPECT_TRUE(isBelievable(now, 5, 0, {now, now, old})) << "here it is 1970, most say so";
    KeyringRow far = now;
    far.generation = UINT64_MAX;
    EXPECT_FALSE(isBelievable(far, clock, clock, {far, far, far}));
    far.generation = KeyringRow::kLast;
    EXPECT_TRUE(isBelievable(far, clock, clock, {far, far, old}));
    far.generation = KeyringRow::kLast + 1;
    EXPECT_TRUE(isBelievable(far, KeyringRow::kLast, clock, {old})) << "rotation goes on from there";
}

TEST_F(ServiceTest, AHostWithAnOldFileDoesNotUndoARotation) {
    Host& one = started("one", key_);
    const Key fresh = Key::generate();
    ASSERT_TRUE(one.service->addKey(fresh));
    ASSERT_TRUE(one.service->useKey(fresh.id()));
    Host& two = started("two", key_);
    ASSERT_TRUE(eventually([&] { return two.service->keys()->size() == 2; }));
    EXPECT_EQ(two.service->keys()->front().id, fresh.id());
    EXPECT_EQ(one.service->keys()->front().id, fresh.id());
}

TEST_F(ServiceTest, AFileChangedByHandIsTheClustersLatestWish) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    const Key fresh = Key::generate();
    one.stop();
    writeKey(one, key_.base64() + "\n" + fresh.base64() + "\n");
    ASSERT_TRUE(one.start());
    EXPECT_TRUE(eventually([&] { return two.service->keys()->size() == 2; }));
}

TEST_F(ServiceTest, AKillWhileTheFileIsWrittenIsNoChangeByHand) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    two.service->leave(5s);
    const Key fresh = Key::generate();
    ASSERT_TRUE(one.service->addKey(fresh));
    // As if `two` had taken that over and died before its database said so.
    const auto added = DatabaseStorage::readSetting(*one.database, "keyring");
    ASSERT_TRUE(added);
    ASSERT_TRUE(DatabaseStorage::writeSetting(*two.database, "keyring-intent", *added));
    writeKey(two, key_.base64() + "\n" + fresh.base64() + "\n");
    two.stop();
    ASSERT_TRUE(eventually([&] { return one.service->useKey(fresh.id()).has_value(); }));
    ASSERT_TRUE(two.start());
    EXPECT_EQ(two.service->keys()->size(), 2U);
    EXPECT_TRUE(eventually([&] { return primary(two) == fresh.id(); }));
    EXPECT_EQ(primary(one), fresh.id());
}

TEST_F(ServiceTest, AGivenKeyBeginsTheRingAndAnotherOneTakesItsPlace) {
    const auto given = [this](const std::string& name) -> Host& {
        Host& host = make(name, key_);
        std::filesystem::remove(host.config.keyFile);
        host.config.keyFile.clear();
        host.config.key = key_.base64();
        EXPECT_TRUE(host.start());
        host.config.bind = host.service->advertised().str();
        return host;
    };
    Host& one = given("one");
    Host& two = given("two");
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    const Key fresh = Key::generate();
    ASSERT_TRUE(one.service->addKey(fresh));
    ASSERT_TRUE(eventually([&] { return two.service->keys()->size() == 2; }));
    // Refused until the other has said that it has the key.
    ASSERT_TRUE(eventually([&] { return one.service->useKey(fresh.id()).has_value(); }));
    one.stop();
    ASSERT_TRUE(one.start());
    EXPECT_EQ(primary(one), fresh.id()) << "the same key as the last time is no new wish";

    one.stop();
    one.config.key = Key::generate().base64();
    ASSERT_TRUE(one.start());
    ASSERT_EQ(one.service->keys()->size(), 1U);
    EXPECT_EQ(primary(one), Key::parse(one.config.key)->id());

    one.stop();
    one.config.key = "no key";
    const auto refused = one.start();
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("weftctl key generate"));
}

TEST_F(ServiceTest, AskHostsThatItIsToldOf) {
    Host& one = make("one", key_, "127.0.0.2");
    ASSERT_TRUE(one.start());
    const uint16_t port = one.service->advertised().port;
    Host& two = make("two", key_, "127.0.0.3");
    two.config.join.clear();
    two.config.bind = "127.0.0.3:" + std::to_string(port);
    ASSERT_TRUE(two.start());
    two.service->addSeed(IpAddress::parse("127.0.0.99").value());
    two.service->removeSeed(IpAddress::parse("127.0.0.99").value());
    two.service->addSeed(one.service->advertised().ip);
    EXPECT_TRUE(eventually([this] { return allKnowAll(); }));
    EXPECT_THAT(*two.service->seeds(), IsEmpty());
}

TEST_F(ServiceTest, RefusesWithAWordOnWhatToDo) {
    Host& host = make("host", key_);
    const auto refused = [&](const char* what) {
        const auto done = host.start();
        ASSERT_FALSE(done) << what;
        EXPECT_THAT(done.error().message, HasSubstr(what));
        host.stop();
    };
    ::chmod(host.config.keyFile.c_str(), 0640);
    refused("chmod 600");
    writeKey(host, "# nothing\n");
    refused("weftctl key generate");
    writeKey(host, "nonsense\n");
    refused("line 1");
    std::filesystem::remove(host.config.keyFile);
    refused("weftctl key generate");
    writeKey(host, key_.base64() + "\n");
    host.config.bind = "192.0.2.77:0";
    refused("no address of this host");
    host.config.bind = "127.0.0.1:0";
    host.config.join = {"[::1"};
    refused("--join");
    host.config.join.clear();
    host.config.nodeName = std::string(65, 'x');
    refused("--node-name");
    host.config.nodeName = "host";
    const std::string identity = host.config.stateDir + "/node.key";
    ASSERT_TRUE(host.start());
    host.stop();
    ::chmod(identity.c_str(), 0644);
    refused("chmod 600");
    ::chmod(identity.c_str(), 0600);
    if (::geteuid() == 0) {
        ASSERT_EQ(::chown(identity.c_str(), 65534, 65534), 0);
        refused("chown root");
        ASSERT_EQ(::chown(identity.c_str(), 0, 0), 0);
    }
    std::ofstream(identity) << "half a key";
    refused("no node key");
    std::filesystem::remove(identity);
    ASSERT_TRUE(host.start());
    Host& second = make("second", key_);
    second.config.bind = host.service->advertised().str();
    const auto done = second.start();
    ASSERT_FALSE(done);
    EXPECT_THAT(done.error().message, HasSubstr("another program has the port"));
}

TEST_F(ServiceTest, AloneWithoutAKeyFile) {
    Host& host = make("alone", key_);
    host.config.keyFile.clear();
    ASSERT_TRUE(host.start());
    EXPECT_TRUE(host.service->alone());
    EXPECT_FALSE(host.service->advertised().ip.isAny());
    ASSERT_TRUE(put(*host.service, "test/row", "x"));
    host.stop();
    ASSERT_TRUE(host.start());
    EXPECT_TRUE(sees(host, "test/", "x"));
    EXPECT_EQ(host.service->addKey(key_).error().code, ErrorCode::Unsupported);
    EXPECT_THAT(host.service->warnings(), IsEmpty());
    host.service->leave(5s);
    host.stop();
    host.config.join = {"127.0.0.1"};
    ASSERT_TRUE(host.start());
    EXPECT_TRUE(warns(host, "--join without --key-file"));
}

TEST_F(ServiceTest, TwoOfOneNameAreToldApartLoudly) {
    Host& one = started("same", key_);
    Host& two = make("other", key_);
    two.config.nodeName = "same";
    ASSERT_TRUE(two.start());
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    EXPECT_THAT(one.service->warnings(), testing::ElementsAre(HasSubstr("several nodes are called same")));
}

TEST_F(ServiceTest, AClonedHostIsToldLoudly) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    two.stop();
    Host& clone = make("clone", key_);
    clone.config.nodeName = "two";
    std::filesystem::copy(two.config.stateDir, clone.config.stateDir,
                          std::filesystem::copy_options::overwrite_existing | std::filesystem::copy_options::recursive);
    ASSERT_TRUE(two.start());
    ASSERT_TRUE(put(*two.service, "test/ahead", "yes"));
    ASSERT_TRUE(eventually([&] { return sees(one, "test/", "yes"); }));
    ASSERT_TRUE(clone.start());
    EXPECT_EQ(two.service->id(), clone.service->id());
    EXPECT_TRUE(warns(clone, "another host uses this host's identity now"));
    EXPECT_TRUE(warns(two, "another host uses this host's identity now"));
    EXPECT_EQ(living(one), 2U);
    // With an identity of its own the clone is a host like any other.
    ASSERT_TRUE(clone.service->renewIdentity(false));
    clone.stop();
    two.stop();
    ASSERT_TRUE(clone.start());
    ASSERT_TRUE(two.start());
    EXPECT_NE(two.service->id(), clone.service->id());
    EXPECT_TRUE(eventually([&] { return living(one) == 3; }));
    EXPECT_FALSE(doubts(clone));
}

TEST_F(ServiceTest, ARenewedHostKnowsThatItHadAnotherIdentity) {
    Host& one = started("one", key_);
    const auto origin = [&] {
        std::promise<Origin> told;
        one.service->post([&](Node& node) { told.set_value(node.origin()); });
        return told.get_future().get();
    };
    const auto restart = [&] {
        one.stop();
        ASSERT_TRUE(one.start());
    };
    EXPECT_EQ(origin(), Origin::New);
    ASSERT_TRUE(one.service->renewIdentity(false));
    for (int i = 0; i < 2; ++i) {
        restart();
        EXPECT_EQ(origin(), Origin::Heir);
    }
    ASSERT_TRUE(one.service->renewIdentity(true));
    for (int i = 0; i < 2; ++i) {
        restart();
        EXPECT_EQ(origin(), Origin::First);
    }
    // By hand, which says nothing of the others.
    one.stop();
    std::filesystem::remove(one.config.stateDir + "/node.key");
    ASSERT_TRUE(one.start());
    EXPECT_EQ(origin(), Origin::Heir);
}

TEST_F(ServiceTest, NodeKeyAndDatabaseKnowEachOther) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    const std::string state = two.config.stateDir;
    const auto copy = [&](const char* name) {
        two.stop();
        for (const std::string file : {"node.key", "weft.db", "weft.db-wal"}) {
            std::filesystem::remove(directory_ / (name + file));
            if (std::filesystem::exists(state + "/" + file)) {
                std::filesystem::copy(state + "/" + file, directory_ / (name + file));
            }
        }
    };
    const auto putBack = [&](const char* name, const std::string& file) {
        two.stop();
        std::filesystem::remove(state + "/" + file);
        if (std::filesystem::exists(directory_ / (name + file))) {
            std::filesystem::copy(directory_ / (name + file), state + "/" + file);
        }
    };
    const auto settle = [&] {
        auto settled = std::make_shared<std::promise<bool>>();
        auto done = settled->get_future();
        two.service->post([settled](Node& node) {
            node.settleDoubt([settled](const Result<void>& result) { settled->set_value(bool(result)); });
        });
        return done.get();
    };
    two.stop();
    one.stop();  // nobody is there to help
    ASSERT_TRUE(two.start());
    const NodeId id = two.service->id();
    EXPECT_FALSE(doubts(two));
    copy("old-");
    ASSERT_TRUE(two.start());
    EXPECT_FALSE(doubts(two)) << "as left";

    putBack("old-", "weft.db");
    putBack("old-", "weft.db-wal");
    ASSERT_TRUE(two.start());
    EXPECT_TRUE(doubts(two)) << "an older database";
    two.stop();
    ASSERT_TRUE(two.start());
    EXPECT_TRUE(doubts(two)) << "over a restart";
    EXPECT_TRUE(settle());
    two.stop();
    ASSERT_TRUE(two.start());
    EXPECT_FALSE(doubts(two)) << "settled";

    putBack("old-", "node.key");
    ASSERT_TRUE(two.start());
    EXPECT_TRUE(doubts(two)) << "an older key";
    EXPECT_TRUE(settle());

    two.stop();
    for (const char* file : {"/weft.db", "/weft.db-wal"}) std::filesystem::remove(state + file);
    ASSERT_TRUE(two.start());
    EXPECT_TRUE(doubts(two)) << "no database";
    EXPECT_EQ(two.service->id(), id);
    EXPECT_TRUE(settle());
    ASSERT_TRUE(put(*two.service, "ipam/unit/1/b0", "promise"));
    ASSERT_TRUE(put(*two.service, "test/row", "word"));

    two.stop();
    std::filesystem::remove(state + "/node.key");
    ASSERT_TRUE(two.start());
    EXPECT_NE(two.service->id(), id) << "removed after a theft";
    EXPECT_FALSE(doubts(two));
    EXPECT_EQ(rows(two, "ipam/"), 0U);
    EXPECT_TRUE(eventually([&] { return rows(two, "test/") == 1; }));
}

TEST_F(ServiceTest, AKeyFileOfAnOlderWeftIsTakenUp) {
    Host& one = started("one", key_);
    const NodeId id = one.service->id();
    one.stop();
    std::string seed;
    std::ifstream(one.config.stateDir + "/node.key") >> seed;
    const auto writeOld = [&] {
        std::filesystem::remove(one.config.stateDir + "/node.key");
        std::ofstream(one.config.stateDir + "/node.key") << seed << "\n";
        ::chmod((one.config.stateDir + "/node.key").c_str(), 0600);
    };
    writeOld();
    ASSERT_TRUE(one.start());
    EXPECT_TRUE(doubts(one)) << "the database knew its key";
    const std::array components{Service::schema()};
    one.stop();
    // As a weft without the two left it.
    auto database = Database::open(one.config.stateDir + "/weft.db", components).value();
    ASSERT_TRUE(database->write([](Transaction& transaction) -> Result<void> {
        WEFT_ASSIGN(auto erase,
                    transaction.prepare("DELETE FROM gossip_settings WHERE name IN ('database', 'node', 'doubt')"));
        return erase.run();
    }));
    database.reset();
    writeOld();
    ASSERT_TRUE(one.start());
    EXPECT_FALSE(doubts(one));
    EXPECT_EQ(one.service->id(), id);
    one.stop();
    std::filesystem::remove(one.config.stateDir + "/weft.db");
    std::filesystem::remove(one.config.stateDir + "/weft.db-wal");
    writeOld();
    ASSERT_TRUE(one.start());
    EXPECT_TRUE(doubts(one)) << "an old key without its database";
}

TEST_F(ServiceTest, RefusesRowsThatAreNotAsItWroteThem) {
    Host& one = started("one", key_);
    ASSERT_TRUE(put(*one.service, "ipam/log/0", "promise"));
    one.stop();
    const std::array components{Service::schema()};
    const auto write = [&](const char* sql) {
        auto database = Database::open(one.config.stateDir + "/weft.db", components).value();
        return database->write([&](Transaction& transaction) -> Result<void> {
            WEFT_ASSIGN(auto change, transaction.prepare(sql));
            return change.run();
        });
    };
    const auto refused = [&] {
        const auto begun = one.start();
        one.stop();
        return !begun && begun.error().code == ErrorCode::Corrupt &&
               begun.error().message.find("ipam/log/0") != std::string::npos &&
               begun.error().message.find("weftctl node forget") != std::string::npos;
    };
    ASSERT_TRUE(write("CREATE TABLE test_rows AS SELECT * FROM gossip_rows"));
    // One digit of the value, one of the frame, and a part.
    for (const char* change :
         {"UPDATE gossip_rows SET row = replace(row, '70726f6d697365', '71726f6d697365') WHERE key = 'ipam/log/0'",
          "UPDATE gossip_rows SET row = '09' || substr(row, 3) WHERE key = 'ipam/log/0'",
          "UPDATE gossip_rows SET row = substr(row, 1, 41) WHERE key = 'ipam/log/0'",
          "UPDATE gossip_rows SET row = 'x' || substr(row, 2) WHERE key = 'ipam/log/0'"}) {
        ASSERT_TRUE(write(change));
        EXPECT_TRUE(refused()) << change;
        ASSERT_TRUE(
            write("UPDATE gossip_rows SET row = (SELECT row FROM test_rows WHERE key = 'ipam/log/0')"
                  " WHERE key = 'ipam/log/0'"));
    }
    EXPECT_TRUE(one.start());
}

TEST_F(ServiceTest, FloodsDoNoHarm) {
    Host& one = started("one", key_);
    Host& two = started("two", key_);
    ASSERT_TRUE(eventually([this] { return allKnowAll(); }));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(one.service->advertised().port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const auto* name = reinterpret_cast<const sockaddr*>(&to);
    std::mt19937 random(1);
    const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM, 0));
    for (int i = 0; i < 5000; ++i) {
        std::string packet(random() % 2000, '\0');
        for (char& byte : packet) byte = static_cast<char>(random());
        ::sendto(udp.get(), packet.data(), packet.size(), 0, name, sizeof(to));
    }
    std::vector<UniqueFd> streams;
    for (int i = 0; i < 200; ++i) {
        streams.emplace_back(::socket(AF_INET, SOCK_STREAM, 0));
        ASSERT_EQ(::connect(streams.back().get(), name, sizeof(to)), 0);
        if (i % 2 == 0) [[maybe_unused]]
            const ssize_t sent = ::send(streams.back().get(), "junk", 4, MSG_NOSIGNAL);
    }
    ASSERT_TRUE(put(*two.service, "test/through", "all the same"));
    EXPECT_TRUE(eventually([&] { return sees(one, "test/", "all the same"); }));
    EXPECT_TRUE(eventually([&] { return counter(one, &Counters::unknownKey) > 0; }));
    EXPECT_TRUE(eventually([&] { return counter(one, &Counters::streamsRefused) > 0; }));
    EXPECT_EQ(living(one), 2U);
}

namespace {
class NoStorage final : public Storage {
public:
    void save(const Row&, Done done) override { done({}); }
    void saveEpoch(uint32_t) override {}
    void saveDoubt(bool, Done done) override { done({}); }
    void saveMembers(std::vector<MemberRecord>) override {}
};
}  // namespace

// C7: under a level-triggered epoll a connection that cannot be accepted is reported again at once.
TEST(SocketTransport, WaitsWithoutSpinningForADescriptor) {
    const Address loopback{*IpAddress::parse("127.0.0.1"), 0};
    const auto transport = SocketTransport::open(&loopback);
    ASSERT_TRUE(transport);
    Keyring ring;
    ASSERT_TRUE(ring.add(Key{{1}}));
    const Ed25519Signer signer({1});
    SystemClock clock;
    SystemRandom random;
    NoStorage storage;
    Node node({}, {}, ring, signer, clock, random, **transport, storage);
    const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const SocketAddress name(Address{loopback.ip, (*transport)->port()});
    ASSERT_EQ(::connect(client.get(), name.get(), name.size()), 0);
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    std::vector<UniqueFd> all;
    const rlimit few{64, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
    for (int fd; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) all.emplace_back(fd);
    const auto end = std::chrono::steady_clock::now() + 300ms;
    int rounds = 0;
    for (; std::chrono::steady_clock::now() < end; ++rounds) (*transport)->run(node, 1s);
    EXPECT_LT(rounds, 20);
    EXPECT_EQ(node.counters().streamsAccepted, 0U);
    all.clear();
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    for (int i = 0; i < 20 && node.counters().streamsAccepted == 0; ++i) (*transport)->run(node, 1s);
    EXPECT_EQ(node.counters().streamsAccepted, 1U);
}

TEST(EndpointText, IsAnAddressWithOrWithoutAPort) {
    for (const char* good : {"192.0.2.1", "192.0.2.1:7950", "[2001:db8::1]:7950", "[2001:db8::1]", "2001:db8::1"}) {
        EXPECT_TRUE(checkEndpointText(good, false)) << good;
    }
    for (const char* name : {"host", "host.example.com:7951"}) {
        EXPECT_TRUE(checkEndpointText(name, true)) << name;
        EXPECT_FALSE(checkEndpointText(name, false)) << name;
    }
    for (const char* bad :
         {"", ":7950", "192.0.2.1:", "192.0.2.1:99999", "[2001:db8::1", "[::1]x", "a b", "192.0.2.1:x"}) {
        EXPECT_FALSE(checkEndpointText(bad, true)) << bad;
    }
}

}  // namespace weft::kv
