#include "driver/dns_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <mutex>
#include <string>

#include "base/unique_fd.h"
#include "kv/socket_address.h"
#include "tests/must.h"

namespace weft::driver {
namespace {

using Bytes = std::vector<uint8_t>;

const IpAddress kLoopback = must(IpAddress::parse("127.0.0.1"));
// The header of a query with the id 0x0102, so that an error about it can be made.
const Bytes kQuery = {1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1};

UniqueFd open(int type, uint16_t port, bool listens = false, const IpAddress& from = kLoopback) {
    UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    if (from != kLoopback) {
        const kv::SocketAddress own({from, 0});
        EXPECT_EQ(::bind(fd.get(), own.get(), own.size()), 0);
    }
    const kv::SocketAddress address({kLoopback, port});
    const int done =
        listens ? ::bind(fd.get(), address.get(), address.size()) : ::connect(fd.get(), address.get(), address.size());
    EXPECT_EQ(done, 0);
    return fd;
}

std::optional<Bytes> receive(int fd, int patienceMs = 3000) {
    pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, patienceMs) != 1) return std::nullopt;
    Bytes bytes(70000);
    const ssize_t size = ::recv(fd, bytes.data(), bytes.size(), 0);
    if (size < 0) return std::nullopt;
    bytes.resize(static_cast<size_t>(size));
    return bytes;
}

Bytes framed(const Bytes& message) {
    Bytes bytes = {static_cast<uint8_t>(message.size() >> 8), static_cast<uint8_t>(message.size())};
    bytes.insert(bytes.end(), message.begin(), message.end());
    return bytes;
}

class DnsServerTest : public testing::Test {
protected:
    void SetUp() override {
        DnsHooks hooks;
        hooks.decide = [this](const DnsAsker& asker, std::span<const uint8_t> query) {
            EXPECT_EQ(asker.local, kLoopback);
            EXPECT_EQ(asker.tcp, asker.link == 0);
            const std::lock_guard lock(busy);
            return DnsVerdict{kind, Bytes(query.rbegin(), query.rend())};
        };
        hooks.admits = [](const DnsAsker&) { return true; };
        hooks.destinationOf = [this](const DnsAsker&, uint16_t) { return destination; };
        server = must(DnsServer::start(0, std::move(hooks), metrics));
    }
    void send(int fd, const Bytes& bytes) {
        EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    }

    std::mutex busy;  // who holds it keeps the server from going on
    Metrics metrics;
    std::atomic<DnsVerdict::Kind> kind = DnsVerdict::Kind::Answer;
    Result<kv::Address> destination = makeError(ErrorCode::NotFound, "no entry");
    std::unique_ptr<DnsServer> server;
};

TEST_F(DnsServerTest, AnswersDatagrams) {
    const UniqueFd asker = open(SOCK_DGRAM, server->port());
    send(asker.get(), kQuery);
    EXPECT_EQ(receive(asker.get()), Bytes(kQuery.rbegin(), kQuery.rend()));
    kind = DnsVerdict::Kind::Drop;
    send(asker.get(), kQuery);
    EXPECT_EQ(receive(asker.get(), 100), std::nullopt);
}

TEST_F(DnsServerTest, AnswersEachOfManyDatagramsThatWait) {
    const UniqueFd one = open(SOCK_DGRAM, server->port());
    const UniqueFd other = open(SOCK_DGRAM, server->port());
    std::unique_lock hold(busy);
    for (uint8_t i = 0; i < 100; ++i) {
        send(one.get(), {1, i});
        send(other.get(), {2, i, 0});
    }
    hold.unlock();
    for (uint8_t i = 0; i < 100; ++i) {
        EXPECT_EQ(receive(one.get()), (Bytes{i, 1}));
        EXPECT_EQ(receive(other.get()), (Bytes{0, i, 2}));
    }
}

TEST_F(DnsServerTest, AFloodFillsItsSendersQueueAlone) {
    const UniqueFd flooder = open(SOCK_DGRAM, server->port());
    const UniqueFd neighbour = open(SOCK_DGRAM, server->port(), false, must(IpAddress::parse("127.0.0.2")));
    std::unique_lock hold(busy);
    constexpr int kMoreThanWait = 20000;
    for (int i = 0; i < kMoreThanWait; ++i) send(flooder.get(), kQuery);
    send(neighbour.get(), kQuery);
    hold.unlock();
    EXPECT_EQ(receive(neighbour.get()), Bytes(kQuery.rbegin(), kQuery.rend()));
    int answers = 0;
    while (receive(flooder.get(), 200)) ++answers;
    EXPECT_GT(answers, 0);
    EXPECT_LT(answers, kMoreThanWait) << "nothing was dropped, so nothing was shown";
}

TEST_F(DnsServerTest, PassesDatagramsOnAndTheirAnswersBack) {
    const UniqueFd world = open(SOCK_DGRAM, 0, true);
    destination = must(kv::SocketAddress::ofSocket(world.get()));
    kind = DnsVerdict::Kind::PassOn;
    const UniqueFd asker = open(SOCK_DGRAM, server->port());
    send(asker.get(), kQuery);
    Bytes query(100);
    kv::SocketAddress from;
    socklen_t size = kv::SocketAddress::kRoom;
    ASSERT_EQ(::recvfrom(world.get(), query.data(), query.size(), 0, from.get(), &size),
              static_cast<ssize_t>(kQuery.size()));
    query.resize(kQuery.size());
    EXPECT_EQ(query, kQuery);
    const Bytes answer = {9, 8, 7};
    ::sendto(world.get(), answer.data(), answer.size(), 0, from.get(), size);
    EXPECT_EQ(receive(asker.get()), answer);
}

TEST_F(DnsServerTest, SaysSoWhenNobodyCanBeAsked) {
    kind = DnsVerdict::Kind::PassOn;
    const UniqueFd asker = open(SOCK_DGRAM, server->port());
    send(asker.get(), kQuery);
    const auto unknown = receive(asker.get());
    ASSERT_TRUE(unknown);
    EXPECT_EQ((*unknown)[3] & 15, 2) << "SERVFAIL";
    {
        const UniqueFd closed = open(SOCK_DGRAM, 0, true);
        destination = must(kv::SocketAddress::ofSocket(closed.get()));
    }
    send(asker.get(), kQuery);
    const auto refused = receive(asker.get());
    ASSERT_TRUE(refused) << "the kernel's word that nobody listens is not waited out";
    EXPECT_EQ((*refused)[3] & 15, 2);
}

TEST_F(DnsServerTest, OneAskersFloodIsItsOwn) {
    const UniqueFd world = open(SOCK_DGRAM, 0, true);  // never answers
    destination = must(kv::SocketAddress::ofSocket(world.get()));
    kind = DnsVerdict::Kind::PassOn;
    const UniqueFd asker = open(SOCK_DGRAM, server->port());
    for (size_t i = 0; i < DnsServer::kMaxPassedPerAsker + 50; ++i) send(asker.get(), kQuery);
    kind = DnsVerdict::Kind::PassOn;
    size_t arrived = 0;
    while (receive(world.get(), 300)) ++arrived;
    EXPECT_EQ(arrived, DnsServer::kMaxPassedPerAsker);
    kind = DnsVerdict::Kind::Answer;
    send(asker.get(), kQuery);
    EXPECT_TRUE(receive(asker.get()));
}

TEST_F(DnsServerTest, AnswersSeveralQueriesOfOneStreamInPieces) {
    const UniqueFd asker = open(SOCK_STREAM, server->port());
    Bytes both = framed(kQuery);
    const Bytes second = framed({1, 2, 3});
    both.insert(both.end(), second.begin(), second.end());
    for (const uint8_t byte : both) send(asker.get(), {byte});
    Bytes got;
    Bytes wanted = framed(Bytes(kQuery.rbegin(), kQuery.rend()));
    const Bytes last = framed({3, 2, 1});
    wanted.insert(wanted.end(), last.begin(), last.end());
    while (got.size() < wanted.size()) {
        const auto more = receive(asker.get());
        ASSERT_TRUE(more && !more->empty());
        got.insert(got.end(), more->begin(), more->end());
    }
    EXPECT_EQ(got, wanted);
}

TEST_F(DnsServerTest, DropsAStreamThatMayNotAsk) {
    kind = DnsVerdict::Kind::Drop;
    const UniqueFd asker = open(SOCK_STREAM, server->port());
    send(asker.get(), framed(kQuery));
    const auto end = receive(asker.get());
    EXPECT_TRUE(!end || end->empty());
}

TEST_F(DnsServerTest, ATakenPortIsNamed) {
    const auto second = DnsServer::start(server->port(), {}, metrics);
    ASSERT_FALSE(second);
    EXPECT_THAT(second.error().message, testing::HasSubstr("--dns-port"));
}

}  // namespace
}  // namespace weft::driver
