// The ideas of the protocol one by one: merge, messages, sealed boxes, streams, replay window, suspicion, queue, table.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/printable.h"
#include "kv/awareness.h"
#include "kv/broadcast_queue.h"
#include "kv/context.h"
#include "kv/membership.h"
#include "kv/message.h"
#include "kv/prober.h"
#include "kv/replay_window.h"
#include "kv/secure_stream.h"
#include "kv/suspicion.h"
#include "kv/timers.h"
#include "tests/unit/kv/simulator.h"

namespace weft::kv {
namespace {

using namespace std::chrono_literals;
using sim::SeededRandom;

Row randomRow(Random& random) {  // few values, so that ties are common
    Row row{.owner = NodeId{{1}}, .key = "k", .version = random.below(3), .deleted = random.below(2) == 0};
    if (!row.deleted) row.value = std::string(1, static_cast<char>('a' + random.below(2)));
    row.signature[0] = static_cast<uint8_t>(random.below(2));
    if (row.deleted) row.ageSeconds = static_cast<uint32_t>(random.below(3));
    return row;
}

TEST(Merge, IsCommutativeAssociativeIdempotent) {
    SeededRandom random(1);
    for (int i = 0; i < 20'000; ++i) {
        const Row a = randomRow(random), b = randomRow(random), c = randomRow(random);
        ASSERT_EQ(merge(a, b), merge(b, a));
        ASSERT_EQ(merge(merge(a, b), c), merge(a, merge(b, c)));
        ASSERT_EQ(merge(a, a), a);
        ASSERT_EQ(merge(merge(a, b), b), merge(a, b));
    }
}

TEST(Table, AppliesLikeMergeInAnyOrder) {
    SeededRandom random(2);
    ManualClock clock;
    for (int i = 0; i < 2000; ++i) {
        std::vector<Row> rows(1 + random.below(6));
        for (Row& row : rows) row = randomRow(random);
        Row expected = rows[0];
        for (const Row& row : rows) expected = merge(expected, row);
        for (int order = 0; order < 3; ++order) {
            for (size_t k = rows.size(); k > 1; --k) std::swap(rows[k - 1], rows[random.below(k)]);
            Table table(clock, 1h);
            for (const Row& row : rows) table.apply(row);
            ASSERT_EQ(table.rowsAt(expected.owner, Table::hashKey("k")), std::vector{expected});
        }
    }
}

TEST(Table, TombstonesRetireThenGo) {
    ManualClock clock;
    Table table(clock, 800s);
    const NodeId owner{{1}};
    table.apply({.owner = owner, .key = "k", .version = 1, .value = "v"});
    table.apply({.owner = owner, .key = "k", .version = 2, .deleted = true});
    EXPECT_NE(table.digest(owner), 0U);
    clock.advance(701s);
    table.collectTombstones();
    EXPECT_EQ(table.digest(owner), 0U);                                                   // no longer told
    EXPECT_FALSE(table.apply({.owner = owner, .key = "k", .version = 1, .value = "v"}));  // still refused
    clock.advance(100s);
    table.collectTombstones();
    EXPECT_EQ(table.size(), 0U);
    EXPECT_FALSE(table.apply({.owner = owner, .key = "k", .version = 2, .deleted = true, .ageSeconds = 700}));
}

TEST(Table, ListsByPrefixInOrderWholeOrInPieces) {
    SeededRandom random(3);
    ManualClock clock;
    Table table(clock, 1h);
    std::map<std::pair<std::string, NodeId>, std::optional<std::string>> wanted;  // nothing: deleted
    for (int i = 0; i < 3000; ++i) {
        Row row{.owner = NodeId{{static_cast<uint8_t>(random.below(3))}}, .version = static_cast<uint64_t>(i) + 1};
        row.key = std::string(1, static_cast<char>('a' + random.below(3))) + "/" + std::to_string(random.below(40));
        row.deleted = random.below(3) == 0;
        if (!row.deleted) row.value = std::to_string(i);
        wanted[{row.key, row.owner}] = row.deleted ? std::nullopt : std::optional(row.value);
        table.apply(row);
    }
    const NodeId hidden{{1}};
    const NodeId forgotten{{2}};
    const auto check = [&](const std::set<NodeId>& unseen) {
        for (const std::string prefix : {"", "a/", "b/1", "c", "d"}) {
            std::vector<std::string> values;
            for (const auto& [at, value] : wanted) {
                if (value && at.first.starts_with(prefix) && !unseen.contains(at.second)) values.push_back(*value);
            }
            std::vector<std::string> whole;
            for (const Row& row : table.list(prefix)) whole.push_back(row.value);
            EXPECT_EQ(whole, values) << prefix;
            std::vector<std::string> pieces;
            std::optional<Table::Place> place;
            do {
                place = table.scan(prefix, place, 7, [&](const Row& row) { pieces.push_back(row.value); });
            } while (place);
            EXPECT_EQ(pieces, values) << prefix;
        }
    };
    check({});
    table.suspend(hidden);
    table.forget(forgotten);
    check({hidden, forgotten});
    table.resume(hidden);
    check({forgotten});
}

TEST(Table, WatchesByPrefixSurviveReentry) {
    ManualClock clock;
    Table table(clock, 1h);
    const NodeId owner{{1}};
    std::vector<std::string> seen;
    WatchId id = 0;
    id = table.watch("ep/", [&](RowEvent, const Row& row) {
        seen.push_back(row.key);
        if (row.key == "ep/1") table.apply({.owner = owner, .key = "ep/2", .version = 2});
        if (row.key == "ep/2") table.unwatch(id);
    });
    table.apply({.owner = owner, .key = "other", .version = 1});
    table.apply({.owner = owner, .key = "ep/1", .version = 1});
    table.apply({.owner = owner, .key = "ep/3", .version = 3});
    EXPECT_THAT(seen, testing::ElementsAre("ep/1", "ep/2"));
}

TEST(Table, TellsOfRowsOfWhoIsAway) {
    ManualClock clock;
    Table table(clock, 1h);
    const NodeId owner{{1}};
    std::vector<std::pair<RowEvent, std::string>> seen;
    table.watch("", [&](RowEvent event, const Row& row) { seen.emplace_back(event, row.key + row.value); });
    const auto take = [&] { return std::exchange(seen, {}); };
    using Seen = std::vector<std::pair<RowEvent, std::string>>;
    table.apply({.owner = owner, .key = "a", .version = 1, .value = "1"});
    table.suspend(owner);
    EXPECT_EQ(take(), (Seen{{RowEvent::Put, "a1"}, {RowEvent::Suspended, "a1"}}));
    table.apply({.owner = owner, .key = "a", .version = 2, .value = "2"});
    table.apply({.owner = owner, .key = "b", .version = 3, .value = "1"});
    table.apply({.owner = owner, .key = "b", .version = 4, .deleted = true});
    EXPECT_EQ(take(), (Seen{{RowEvent::Suspended, "a2"}, {RowEvent::Suspended, "b1"}, {RowEvent::Deleted, "b"}}));
    table.forget(owner);
    EXPECT_EQ(take(), (Seen{{RowEvent::Forgotten, "a2"}}));
    table.apply({.owner = owner, .key = "c", .version = 5, .deleted = true});
    EXPECT_EQ(take(), (Seen{{RowEvent::Deleted, "c"}})) << "a watch may remember it from an earlier life";
}

TEST(Messages, SurviveTheWireAndEveryCutIsMalformed) {
    MemberRecord record{.name = "host", .address = {*IpAddress::parse("2001:db8::1"), 7950}, .incarnation = 7};
    const std::vector<Message> all{
        Ping{1, NodeId{{2}}, 3},
        PingRequest{1, NodeId{{2}}, {*IpAddress::parse("192.0.2.1"), 7950}},
        Ack{1, 2},
        Nack{1},
        record,
        SuspectNotice{NodeId{{1}}, 2, NodeId{{3}}},
        DeadNotice{NodeId{{1}}, 2, NodeId{{3}}},
        Row{.owner = NodeId{{1}}, .key = "k", .version = 2, .value = "v"},
        Row{.owner = NodeId{{1}}, .key = "k", .version = 2, .deleted = true, .ageSeconds = 9},
        ClockNotice{1'700'000'000},
        Introduce{},
    };
    for (const Message& message : all) {
        const Bytes bytes = encode(message);
        Message read;
        Reader whole(bytes);
        ASSERT_EQ(decodeNext(whole, read), Decoded::Ok);
        EXPECT_EQ(read, message);
        EXPECT_EQ(decodeNext(whole, read), Decoded::End);
        for (size_t cut = 1; cut < bytes.size(); ++cut) {
            Reader in(BytesView(bytes).first(cut));
            EXPECT_EQ(decodeNext(in, read), Decoded::Malformed);
        }
        Bytes longer = bytes;  // a body with a byte too many
        longer.push_back(0);
        longer[2] = static_cast<uint8_t>(longer[2] + 1);
        Reader in(longer);
        EXPECT_EQ(decodeNext(in, read), Decoded::Malformed);
    }
}

// D3: names go into logs, listings and prompts of others.
TEST(Messages, ANameThatIsUnfitToPrintIsRefusedOrHiddenIfOld) {
    for (const std::string bad :
         {"a\nb", "a\x1b[2J", "\x7f", "\xc2\x9b", "\xe2\x80\xae", "\xe2\x81\xa6", "\xff", "a\xc3"}) {
        MemberRecord record{.name = bad, .address = {*IpAddress::parse("192.0.2.1"), 7950}, .incarnation = kWire2Bit};
        const auto decode = [](const Bytes& bytes, Message& read) {
            Reader in(bytes);
            return decodeNext(in, read);
        };
        Message read;
        EXPECT_EQ(decode(encode(record), read), Decoded::Malformed) << bad;
        record.incarnation = 7;
        const Bytes old = encode(record);
        ASSERT_EQ(decode(old, read), Decoded::Ok);
        const auto& shown = std::get<MemberRecord>(read);
        EXPECT_EQ(shown.name, NodeId::of(record.publicKey).brief());
        EXPECT_EQ(encode(shown), old) << "passed on as it was signed";
        EXPECT_EQ(signedBytes(shown, "weft"), signedBytes(record, "weft"));
    }
    EXPECT_TRUE(
        isPrintable("host-1.example b\xc3\xbc"
                    "cher \xe6\x97\xa5"));
}

TEST(Messages, LargestRowFitsTheSmallestIpv6Packet) {
    const Row row{.owner = NodeId{{1}}, .key = "k", .version = 1, .value = std::string(kMaxRowBytes - 1, 'x')};
    EXPECT_LE(Keyring::kOverhead + 28 + encode(row).size(), 1280U - 48U);
}

TEST(Keys, ParseNamesTheLine) {
    const Key key = Key::generate();
    const auto ring = Keyring::parse("# weft\n\n" + key.base64() + "  # first\r\n");
    ASSERT_TRUE(ring);
    EXPECT_EQ(ring->primary(), key.id());
    const auto broken = Keyring::parse(key.base64() + "\nnonsense\n");
    ASSERT_FALSE(broken);
    EXPECT_THAT(broken.error().message, testing::StartsWith("line 2"));
}

TEST(Keys, EveryFlippedBitIsNoticed) {
    SeededRandom random(1);
    Keyring ring;
    ASSERT_TRUE(ring.add(Key{{1}}));
    Bytes box, plain;
    ring.seal(Wire::Two, random, asBytes("context"), asBytes("hello"), box);
    ASSERT_EQ(ring.open(box, asBytes("context"), plain), Keyring::Opened::Ok);
    EXPECT_EQ(std::string(plain.begin(), plain.end()), "hello");
    EXPECT_EQ(ring.open(box, asBytes("other"), plain), Keyring::Opened::Forged);
    for (size_t bit = 0; bit < box.size() * 8; ++bit) {
        Bytes bent = box;
        bent[bit / 8] = static_cast<uint8_t>(bent[bit / 8] ^ (1 << (bit % 8)));
        EXPECT_NE(ring.open(bent, asBytes("context"), plain), Keyring::Opened::Ok) << bit;
    }
}

TEST(Keys, TheRingKeepsItsPrimary) {
    Keyring ring;
    const Key first{{1}}, second{{2}};
    ASSERT_TRUE(ring.add(first));
    ASSERT_TRUE(ring.add(second));
    EXPECT_EQ(ring.remove(first.id()).error().code, ErrorCode::Busy);
    ASSERT_TRUE(ring.use(second.id()));
    ASSERT_TRUE(ring.remove(first.id()));
    EXPECT_THAT(ring.keys(), testing::ElementsAre(second));
    EXPECT_EQ(ring.use(first.id()).error().code, ErrorCode::NotFound);
}

TEST(Ed25519, SignsForItsOwnKeyOnly) {
    const Ed25519Signer a({1}), b({2});
    const Signature signature = a.sign(asBytes("row"));
    EXPECT_TRUE(b.verify(a.publicKey(), asBytes("row"), signature));
    EXPECT_FALSE(b.verify(b.publicKey(), asBytes("row"), signature));
    EXPECT_FALSE(b.verify(a.publicKey(), asBytes("wor"), signature));
}

class Streams : public testing::TestWithParam<Wire> {
protected:
    void SetUp() override { ASSERT_TRUE(ring.add(Key{{1}})); }
    static SecureStream::Send into(Bytes& bytes) {
        return [&bytes](BytesView view) { bytes.insert(bytes.end(), view.begin(), view.end()); };
    }
    SecureStream connect(Wire wire, const NodeId& receiver, Bytes& sent) {
        return SecureStream::initiate(ring, random, "weft", {NodeId{{1}}, 5}, StreamPurpose::Sync, wire, receiver,
                                      into(sent));
    }
    SecureStream accept(const NodeId& self, Bytes& sent, bool wire1 = true) {
        const auto isNew = [this](const SecureStream::Nonce& nonce) { return nonces.insert(nonce).second; };
        return SecureStream::accept(ring, random, "weft", {self, 6}, {.wire1 = wire1, .wire2 = true, .isNew = isNew},
                                    into(sent));
    }
    SeededRandom random{1};
    Keyring ring;
    std::set<SecureStream::Nonce> nonces;
    int frames = 0;
    std::function<bool(BytesView)> count = [this](BytesView) { return ++frames, true; };
};
INSTANTIATE_TEST_SUITE_P(Wires, Streams, testing::Values(Wire::One, Wire::Two));

// C1: the hello alone proves nothing.
TEST_P(Streams, OnlyTheFirstFrameProvesWhoConnected) {
    Bytes toServer, toClient;
    auto client = connect(GetParam(), NodeId{{2}}, toServer);
    auto server = accept(NodeId{{2}}, toClient);
    for (const uint8_t byte : toServer) ASSERT_TRUE(server.receive({&byte, 1}, count));  // however it is cut
    EXPECT_TRUE(server.established());
    EXPECT_FALSE(server.proven());
    ASSERT_TRUE(client.receive(toClient, count));
    EXPECT_TRUE(client.proven());
    EXPECT_EQ(server.peer(), NodeId{{1}});
    EXPECT_EQ(client.peer(), NodeId{{2}});
    if (GetParam() == Wire::Two) {
        EXPECT_EQ(client.peerEpoch(), 6U);
        EXPECT_EQ(server.peerEpoch(), 5U);
    }
    const size_t hello = toServer.size();
    client.send(asBytes("one"));
    client.send(Bytes(SecureStream::kMaxFrameBytes));
    ASSERT_TRUE(server.receive(BytesView(toServer).subspan(hello), count));
    EXPECT_TRUE(server.proven());
    EXPECT_EQ(frames, 2);

    // Played back: known by its nonce, or, once that is forgotten, by the first frame.
    Bytes answer;
    auto victim = accept(NodeId{{2}}, answer);
    EXPECT_FALSE(victim.receive(toServer, count));
    EXPECT_EQ(victim.refusal(), SecureStream::Refusal::Replayed);
    nonces.clear();
    auto later = accept(NodeId{{2}}, answer);
    EXPECT_FALSE(later.receive(toServer, count));
    EXPECT_FALSE(later.proven());
    EXPECT_EQ(frames, 2);
    // An announced length beyond the limit is refused before anything is gathered.
    auto other = accept(NodeId{{2}}, answer);
    const Bytes huge{0x7f, 0xff, 0xff, 0xff};
    EXPECT_FALSE(other.receive(huge, count));
    EXPECT_EQ(other.refusal(), SecureStream::Refusal::Stranger);
}

TEST_F(Streams, AHelloIsForItsReceiverOnly) {
    Bytes toServer, toClient;
    connect(Wire::Two, NodeId{{2}}, toServer);
    auto other = accept(NodeId{{3}}, toClient);
    EXPECT_FALSE(other.receive(toServer, count));
    EXPECT_EQ(other.refusal(), SecureStream::Refusal::Replayed);
    EXPECT_TRUE(toClient.empty());
    toServer.clear();
    connect(Wire::Two, {}, toServer);  // a seed: whoever answers there
    auto seed = accept(NodeId{{3}}, toClient);
    EXPECT_TRUE(seed.receive(toServer, count));
}

TEST_F(Streams, TheOldWireIsToldFromNoiseWhenItIsRefused) {
    Bytes toServer, toClient;
    connect(Wire::One, NodeId{{2}}, toServer);
    auto strict = accept(NodeId{{2}}, toClient, false);
    EXPECT_FALSE(strict.receive(toServer, count));
    EXPECT_EQ(strict.refusal(), SecureStream::Refusal::OldWire);
    toServer.back() ^= 1;
    auto again = accept(NodeId{{2}}, toClient, false);
    EXPECT_FALSE(again.receive(toServer, count));
    EXPECT_EQ(again.refusal(), SecureStream::Refusal::Stranger);
    EXPECT_TRUE(toClient.empty());
}

TEST(ReplayWindow, TakesEachNumberOnce) {
    ReplayWindow window;
    EXPECT_TRUE(window.accept(1, 5));
    EXPECT_FALSE(window.accept(1, 5));
    EXPECT_TRUE(window.accept(1, 3));
    EXPECT_FALSE(window.accept(1, 3));
    EXPECT_TRUE(window.accept(1, 5 + ReplayWindow::kSize));
    EXPECT_FALSE(window.accept(1, 5));  // too old to tell
    EXPECT_TRUE(window.accept(1, 6));
    EXPECT_TRUE(window.accept(2, 1));  // restarted
    EXPECT_FALSE(window.accept(1, 1'000'000));
}

TEST(Suspicion, ShrinksWithWitnesses) {
    Config config;
    const Clock::Monotonic start{};
    Suspicion suspicion(config, 10, NodeId{{1}}, start);
    EXPECT_EQ(suspicion.deadline() - start, 24s);
    EXPECT_FALSE(suspicion.confirm(NodeId{{1}}));
    EXPECT_TRUE(suspicion.confirm(NodeId{{2}}));
    EXPECT_LT(suspicion.deadline() - start, 12s);
    EXPECT_TRUE(suspicion.confirm(NodeId{{3}}));
    EXPECT_EQ(suspicion.deadline() - start, 4s);
    EXPECT_FALSE(suspicion.confirm(NodeId{{4}}));
    // Nobody else could confirm: no waiting for it.
    EXPECT_EQ(Suspicion(config, 2, NodeId{{1}}, start).deadline() - start, 4s);
}

TEST(BroadcastQueue, FewestSentFirstAndReplacedByName) {
    BroadcastQueue queue(3);
    queue.push("a", {1}, false);
    queue.push("b", {2}, false);
    queue.push("a", {3}, false);
    EXPECT_EQ(queue.size(), 2U);
    EXPECT_THAT(queue.take(1, 2), testing::ElementsAre(Bytes{3}));  // newest
    EXPECT_THAT(queue.take(1, 2), testing::ElementsAre(Bytes{2}));
    queue.push("u", {4}, true);
    EXPECT_THAT(queue.take(3, 2), testing::ElementsAre(Bytes{4}, Bytes{3}, Bytes{2}));
    EXPECT_EQ(queue.size(), 1U);  // the others were sent twice
    for (uint8_t i = 0; i < 9; ++i) queue.push("r" + std::to_string(i), {i}, false);
    EXPECT_EQ(queue.size(), 3U);
    EXPECT_TRUE(queue.contains("u"));
    EXPECT_EQ(BroadcastQueue::transmitLimit(4, 1000), 16);
}

TEST(Awareness, StaysWithinItsBounds) {
    Awareness awareness(8);
    awareness.apply(-1);
    EXPECT_EQ(awareness.scale(1s), 1s);
    awareness.apply(100);
    EXPECT_EQ(awareness.scale(1s), 8s);
}

TEST(Membership, HearsOfAnotherRunOfItsIdentity) {
    const Ed25519Signer signer(Ed25519Signer::generateSeed());
    const ManualClock clock;
    SystemRandom random;
    uint32_t outdated = 0;
    const Membership::Events events{.changed = [](const Member&, std::optional<MemberState>) {},
                                    .forgotten = [](const Member&) {},
                                    .broadcast = [](const NodeId&, const Message&) {},
                                    .refuted = [] {},
                                    .epochOutdated = [&outdated](uint32_t epoch) { outdated = epoch; }};
    const auto context = [&](uint16_t port) {
        Config config;
        config.advertise = {*IpAddress::parse("192.0.2.1"), port};
        return Context{config, clock, random, signer, Timers(clock), {}};
    };
    Context here = context(1);
    Context there = context(2);
    Membership original(here, 7, events);
    Membership clone(there, 7, events);
    ASSERT_NE(original.self().record.incarnation, clone.self().record.incarnation);
    original.applyRecord(original.self().record, {});
    clone.applyRecord(clone.self().record, {});
    EXPECT_EQ(outdated, 0U) << "its own word";
    const bool behind = original.self().record.incarnation < clone.self().record.incarnation;
    Membership& lower = behind ? original : clone;
    Membership& higher = behind ? clone : original;
    higher.applyRecord(lower.self().record, {});
    EXPECT_EQ(outdated, 7U) << "another's word, though an older one";
    outdated = 0;
    MemberRecord forged = higher.self().record;
    forged.address.port = 3;
    lower.applyRecord(forged, {});
    EXPECT_EQ(outdated, 0U) << "not signed";
    lower.applyRecord(higher.self().record, {});
    EXPECT_EQ(outdated, 7U);
}

// C7: an ack counts from whom it was asked, by the number that one was given.
TEST(Prober, OnlyWhoWasAskedAnswers) {
    enum class Answer { Nobody, Target, TargetsNumberByHelper, HelpersNumberByOther, Helper };
    for (const auto answer : {Answer::Nobody, Answer::Target, Answer::TargetsNumberByHelper,
                              Answer::HelpersNumberByOther, Answer::Helper}) {
        const sim::FastSigner signer(1);
        ManualClock clock;
        SeededRandom random(3);
        Context context{{}, clock, random, signer, Timers(clock), {}};
        Membership membership(context, 1,
                              {.changed = [](const Member&, std::optional<MemberState>) {},
                               .forgotten = [](const Member&) {},
                               .broadcast = [](const NodeId&, const Message&) {},
                               .refuted = [] {},
                               .epochOutdated = [](uint32_t) {}});
        for (uint64_t number = 2; number < 5; ++number) {
            const sim::FastSigner other(number);
            MemberRecord record;
            record.publicKey = other.publicKey();
            record.address = sim::hostAddress(number);
            record.incarnation = kWire2Bit;
            record.signature = other.sign(signedBytes(record, context.config.cluster));
            ASSERT_TRUE(membership.applyRecord(record, {}));
        }
        std::optional<std::pair<NodeId, uint32_t>> ping;
        std::map<NodeId, uint32_t> requests;
        Prober prober(context, membership,
                      {.send =
                           [&](const Address&, const NodeId& id, const std::vector<Message>& messages) {
                               const auto* asked = std::get_if<PingRequest>(&messages.front());
                               if (asked != nullptr) requests[id] = asked->sequence;
                               const auto* pinged = std::get_if<Ping>(&messages.front());
                               if (pinged != nullptr && !ping) ping = {id, pinged->sequence};
                           },
                       .streamProbe = [](const Member&, uint32_t) {},
                       .root = [] { return uint64_t{1}; }});
        prober.start();
        const auto advance = [&](std::chrono::milliseconds by) {
            for (; by.count() > 0; by -= 1ms) {
                clock.advance(1ms);
                context.timers.run();
            }
        };
        while (!ping) advance(1ms);
        advance(501ms);
        ASSERT_EQ(requests.size(), 2U);
        const auto [helper, number] = *requests.begin();
        const NodeId other = requests.rbegin()->first;
        EXPECT_NE(number, ping->second);
        EXPECT_NE(number, requests.at(other));
        if (answer == Answer::Target) prober.onAck(ping->first, {ping->second, 0});
        if (answer == Answer::TargetsNumberByHelper) prober.onAck(helper, {ping->second, 0});
        if (answer == Answer::HelpersNumberByOther) prober.onAck(other, {number, 0});
        if (answer == Answer::Helper) prober.onAck(helper, {number, 0});
        const NodeId target = ping->first;
        advance(500ms);
        const bool believed = answer == Answer::Target || answer == Answer::Helper;
        EXPECT_EQ(membership.find(target)->state, believed ? MemberState::Alive : MemberState::Suspect);
    }
}

}  // namespace
}  // namespace weft::kv
