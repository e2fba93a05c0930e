#include "driver/dns_message.h"

#include <arpa/nameser.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <resolv.h>

#include <memory>

namespace weft::driver {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Octets = std::vector<uint8_t>;

Octets octets(std::string_view text) {
    return {text.begin(), text.end()};
}

template <size_t N>
constexpr std::string_view raw(const char (&text)[N]) {
    return {text, N - 1};
}

Octets operator+(Octets left, const Octets& right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

Octets number(size_t value) {
    return {static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)};
}

// Recursion desired unless told otherwise.
Octets header(uint8_t additional = 0, uint16_t flags = 0x0100, uint8_t questions = 1) {
    return Octets{0xbe, 0xef} + number(flags) + Octets{0, questions, 0, 0, 0, 0, 0, additional};
}

Octets question(std::string_view name, uint16_t type, uint16_t dnsClass = 1) {
    return octets(name) + number(type) + number(dnsClass);
}

Octets opt(uint16_t size, uint8_t version = 0) {
    return Octets{0, 0, 41} + number(size) + Octets{0, version, 0x80, 0, 0, 0};
}

constexpr std::string_view kWebNet = raw("\3WeB\3nEt\0");

Octets query(uint16_t type = ns_t_a) {
    return header() + question(kWebNet, type);
}

DnsQuery parsed(const Octets& message) {
    Result<DnsQuery> result = parseDnsQuery(message);
    EXPECT_TRUE(result) << (result ? "" : result.error().message);
    return std::move(result).value_or(DnsQuery{});
}

void expectRefused(const Octets& message, ErrorCode code = ErrorCode::InvalidArgument) {
    // Exactly as large as the message, so that ASan sees a read past its end.
    const std::unique_ptr<uint8_t[]> copy(new uint8_t[message.size()]);
    std::copy(message.begin(), message.end(), copy.get());
    const Result<DnsQuery> result = parseDnsQuery({copy.get(), message.size()});
    ASSERT_FALSE(result) << ::testing::PrintToString(message);
    EXPECT_EQ(result.error().code, code);
}

struct Record {
    std::string name;
    unsigned type;
    uint32_t ttl;
    std::string data;  // numbers and names

    bool operator==(const Record&) const = default;
    friend std::ostream& operator<<(std::ostream& out, const Record& record) {
        return out << record.name << ' ' << record.type << ' ' << record.ttl << ' ' << record.data;
    }
};

// A message as glibc reads it.
struct Message {
    explicit Message(Octets from) : bytes(std::move(from)) {
        if (ns_initparse(bytes.data(), static_cast<int>(bytes.size()), &handle) != 0) {
            ADD_FAILURE() << "not a message: " << ::testing::PrintToString(bytes);
            handle = {};
            return;
        }
        flags = static_cast<uint16_t>(ns_get16(&bytes[2]));
        answers = section(ns_s_an);
        additional = section(ns_s_ar);
        EXPECT_EQ(ns_msg_count(handle, ns_s_ns), 0);
    }

    std::vector<Record> section(ns_sect part) {
        std::vector<Record> records;
        for (int i = 0; i < ns_msg_count(handle, part); ++i) {
            ns_rr record;
            if (ns_parserr(&handle, part, i, &record) != 0) {
                ADD_FAILURE() << "record " << i;
                break;
            }
            records.push_back({ns_rr_name(record), record.type, record.ttl, text(record)});
            EXPECT_TRUE(record.type == ns_t_opt || record.rr_class == ns_c_in);
        }
        return records;
    }

    std::string text(const ns_rr& record) const {
        switch (record.type) {
            case ns_t_a:
                EXPECT_EQ(record.rdlength, 4);
                return IpAddress::fromBytes(IpFamily::V4, record.rdata).str();
            case ns_t_aaaa:
                EXPECT_EQ(record.rdlength, 16);
                return IpAddress::fromBytes(IpFamily::V6, record.rdata).str();
            case ns_t_ptr:
                return nameAt(record, 0);
            case ns_t_srv:
                return std::to_string(ns_get16(record.rdata)) + " " + std::to_string(ns_get16(record.rdata + 2)) + " " +
                       std::to_string(ns_get16(record.rdata + 4)) + " " + nameAt(record, 6);
            case ns_t_opt:
                EXPECT_EQ(record.rdlength, 0);
                return std::to_string(record.rr_class);
            default:
                return "?";
        }
    }

    std::string nameAt(const ns_rr& record, int offset) const {
        std::array<char, NS_MAXDNAME> name{};
        const int size = dn_expand(bytes.data(), bytes.data() + bytes.size(), record.rdata + offset, name.data(),
                                   static_cast<int>(name.size()));
        EXPECT_EQ(size, record.rdlength - offset);
        return name.data();
    }

    Octets bytes;
    ns_msg handle{};
    uint16_t flags = 0;
    std::vector<Record> answers;
    std::vector<Record> additional;
};

Message answered(const Octets& message, const DnsAnswer& answer, size_t limit = kDnsTcpMaximum) {
    Octets composed = composeDnsAnswer(parsed(message), answer, limit);
    EXPECT_LE(composed.size(), limit);
    return Message(std::move(composed));
}

IpAddress ip(std::string_view text) {
    return IpAddress::parse(text).value_or(IpAddress());
}

TEST(DnsMessage, ReadsAQuery) {
    const DnsQuery result = parsed(query(ns_t_aaaa));
    EXPECT_EQ(result.id, 0xbeef);
    EXPECT_EQ(result.name, "web.net");
    EXPECT_EQ(result.type, DnsType::Aaaa);
    EXPECT_TRUE(result.recursionDesired);
    EXPECT_EQ(result.ednsSize, std::nullopt);
    EXPECT_EQ(result.question, question(kWebNet, ns_t_aaaa));
    EXPECT_FALSE(parsed(header(0, 0) + question(kWebNet, ns_t_a)).recursionDesired);
    EXPECT_EQ(parsed(header() + question(kWebNet, 65280)).type, DnsType(65280));
}

TEST(DnsMessage, ReadsTheSizeThatTheAskerTakes) {
    const Octets plain = header(1) + question(kWebNet, ns_t_a);
    EXPECT_EQ(parsed(plain + opt(4096)).ednsSize, 4096);
    EXPECT_EQ(dnsUdpLimit(parsed(plain + opt(4096))), kDnsUdpMaximum);
    EXPECT_EQ(dnsUdpLimit(parsed(plain + opt(1000))), 1000U);
    EXPECT_EQ(parsed(plain + opt(0)).ednsSize, 512);
    EXPECT_EQ(dnsUdpLimit(parsed(query())), 512U);
    EXPECT_EQ(parsed(plain + opt(4096, 1)).ednsVersion, 1);
    // After another record, and with options.
    const Octets other = Octets{1, 'x', 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 2, 1, 'y'};
    Octets cookie = opt(1400) + Octets{0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8};
    cookie[10] = 12;
    EXPECT_EQ(parsed(header(2) + question(kWebNet, ns_t_a) + other + cookie).ednsSize, 1400);
    expectRefused(header(2) + question(kWebNet, ns_t_a) + opt(4096) + opt(4096));
}

TEST(DnsMessage, TakesNamesToTheirLimits) {
    EXPECT_EQ(parsed(header() + question(raw("\0"), ns_t_a)).name, "");
    const std::string label = '\x3f' + std::string(63, 'a');
    const std::string longest = label + label + label + '\x3d' + std::string(61, 'a') + '\0';
    ASSERT_EQ(longest.size(), 255U);
    EXPECT_EQ(parsed(header() + question(longest, ns_t_a)).name->size(), 253U);
    expectRefused(header() + question(label + label + label + '\x3e' + std::string(62, 'a') + '\0', ns_t_a));
    expectRefused(header() + question('\x40' + std::string(64, 'a') + '\0', ns_t_a));
    expectRefused(header() + question('\x80' + std::string(128, 'a') + '\0', ns_t_a));
}

TEST(DnsMessage, GivesNoNameWhereTextWouldBeAmbiguous) {
    for (const std::string_view name : {raw("\3a.b\3net\0"), raw("\3a\0b\0"), raw("\3a b\0"), raw("\3a\\b\0"),
                                        raw("\3a\nb\0"), raw("\2\xc3\xb6\0"), raw("\1\x7f\0")}) {
        const DnsQuery result = parsed(header() + question(name, ns_t_a));
        EXPECT_EQ(result.name, std::nullopt) << name;
        EXPECT_EQ(Message(composeDnsAnswer(result, {.code = DnsCode::ServerFailure}, 512)).flags & 15, 2);
    }
    EXPECT_EQ(parsed(header() + question(raw("\4_A-@\0"), ns_t_a)).name, "_a-@");
    EXPECT_EQ(parsed(header() + question(kWebNet, ns_t_a, ns_c_chaos)).name, std::nullopt);
}

TEST(DnsMessage, RefusesPointersInTheQuestion) {
    for (const std::string_view name :
         {raw("\xc0\x0c"), raw("\xc0\x0d"), raw("\1a\xc0\x0c"), raw("\xc0\x0e\xc0\x0c"), raw("\xc0\x04"),
          raw("\xc0\x12"), raw("\xc0\xff"), raw("\xff\xff"), raw("\1a\xc0\x06")}) {
        expectRefused(header() + question(name, ns_t_a));
        expectRefused(header() + question(name, 0));
        expectRefused(header() + question(name, ns_t_a) + Octets(300));
    }
}

TEST(DnsMessage, RefusesWhatIsNoQuery) {
    expectRefused({});
    expectRefused(header(0, 0x8100) + question(kWebNet, ns_t_a));
    expectRefused(header(0, 0x2900) + question(kWebNet, ns_t_a), ErrorCode::Unsupported);
    expectRefused(header(0, 0, 0));
    expectRefused(header(0, 0, 2) + question(kWebNet, ns_t_a) + question(kWebNet, ns_t_aaaa));
    expectRefused(query() + Octets{0});
    expectRefused(Octets(12, 0xff));
    expectRefused(Octets(600, 0xff));
    for (const size_t count : {4, 6, 8, 10}) {  // that lie
        Octets message = query();
        message[count] = message[count + 1] = 0xff;
        expectRefused(message);
        expectRefused(message + Octets(4000));
    }
    Octets longOptions = header(1) + question(kWebNet, ns_t_a) + opt(512);
    longOptions.back() = 1;
    expectRefused(longOptions);
}

TEST(DnsMessage, RefusesEveryPrefixOfAQuery) {
    const Octets whole = header(1) + question(kWebNet, ns_t_a) + opt(1232);
    parsed(whole);
    for (size_t size = 0; size < whole.size(); ++size)
        expectRefused({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)});
}

TEST(DnsMessage, AnswersOctetForOctet) {
    const Octets expected = Octets{0xbe, 0xef, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 1} + question(kWebNet, ns_t_a) +
                            Octets{0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 10, 32, 0, 5} +
                            Octets{0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0};
    EXPECT_EQ(composeDnsAnswer(parsed(header(1) + question(kWebNet, ns_t_a) + opt(4096)),
                               {.ttl = std::chrono::minutes(10), .answers = {ip("10.32.0.5")}}, 512),
              expected);
}

TEST(DnsMessage, AnswersWithEveryType) {
    const Message message = answered(
        query(ns_t_any), {.authoritative = false,
                          .ttl = std::chrono::seconds(70000),
                          .answers = {ip("10.0.0.1"), ip("fd00::1"), DnsPointer{"a.net"}, DnsPointer{""},
                                      DnsService{1, 2, 8080, "b.net"}},
                          .additional = {{"b.net", ip("10.0.0.2")}, {"b.net", ip("fd00::2")}, {"", ip("10.0.0.3")}}});
    EXPECT_EQ(message.flags, 0x8180);
    EXPECT_THAT(
        message.answers,
        ElementsAre(Record{"WeB.nEt", ns_t_a, 70000, "10.0.0.1"}, Record{"WeB.nEt", ns_t_aaaa, 70000, "fd00::1"},
                    Record{"WeB.nEt", ns_t_ptr, 70000, "a.nEt"}, Record{"WeB.nEt", ns_t_ptr, 70000, ""},
                    Record{"WeB.nEt", ns_t_srv, 70000, "1 2 8080 b.net"}));
    EXPECT_THAT(message.additional,
                ElementsAre(Record{"b.nEt", ns_t_a, 70000, "10.0.0.2"}, Record{"b.nEt", ns_t_aaaa, 70000, "fd00::2"},
                            Record{".", ns_t_a, 70000, "10.0.0.3"}));
}

TEST(DnsMessage, AnswersWithACodeAlone) {
    const Message message = answered(header(0, 0) + question(kWebNet, ns_t_a), {.code = DnsCode::NameError});
    EXPECT_EQ(message.flags, 0x8483);
    EXPECT_THAT(message.answers, IsEmpty());
    EXPECT_THAT(message.additional, IsEmpty());
}

TEST(DnsMessage, PacksTheNamesOfPointersButNotOfServices) {
    const auto sizeWith = [](const DnsRecord& record, size_t count) {
        return composeDnsAnswer(parsed(query(ns_t_any)), {.answers = {count, record}}, kDnsTcpMaximum).size();
    };
    EXPECT_EQ(sizeWith(DnsPointer{"host.example"}, 2) - sizeWith(DnsPointer{"host.example"}, 1), 12U + 2);
    EXPECT_EQ(sizeWith(DnsService{0, 0, 0, "web.net"}, 1) - sizeWith(DnsPointer{""}, 0), 12U + 6 + 9);
}

TEST(DnsMessage, PointsToTheRootToo) {
    const Message message =
        answered(header() + question(raw("\0"), ns_t_a), {.answers = {ip("10.0.0.1"), DnsPointer{"a.net"}}});
    EXPECT_THAT(message.answers, ElementsAre(Record{".", ns_t_a, 0, "10.0.0.1"}, Record{".", ns_t_ptr, 0, "a.net"}));
}

TEST(DnsMessage, LeavesOutWhatIsNoName) {
    const std::string label(63, 'a');
    const std::string longest = label + "." + label + "." + label + "." + std::string(61, 'a');
    DnsAnswer answer;
    for (const std::string& name : {std::string("a..b"), std::string(".a"), std::string("a b"), std::string("a\\065"),
                                    std::string("a\0b", 3), label + "a", longest + "a", std::string("\xc3\xb6")}) {
        answer.answers.emplace_back(DnsPointer{name});
        answer.answers.emplace_back(DnsService{0, 0, 0, name});
        answer.additional.push_back({name, ip("10.0.0.1")});
    }
    answer.answers.emplace_back(DnsPointer{longest});
    answer.answers.emplace_back(DnsService{0, 0, 0, longest});
    answer.additional.push_back({longest, ip("10.0.0.1")});
    const Message message = answered(query(), answer);
    EXPECT_EQ(message.flags & 0x0200, 0);
    EXPECT_THAT(message.answers, ElementsAre(Record{"WeB.nEt", ns_t_ptr, 0, longest},
                                             Record{"WeB.nEt", ns_t_srv, 0, "0 0 0 " + longest}));
    EXPECT_THAT(message.additional, ElementsAre(Record{longest, ns_t_a, 0, "10.0.0.1"}));
}

TEST(DnsMessage, TruncatesAtWholeRecords) {
    const DnsAnswer answer{.answers = {100, ip("10.0.0.1")}, .additional = {{"x", ip("10.0.0.2")}}};
    const size_t fixed = query().size();

    const Message plain = answered(query(), answer, 512);
    EXPECT_EQ(plain.flags & 0x0200, 0x0200);
    EXPECT_EQ(plain.answers.size(), (512 - fixed) / 16);
    EXPECT_THAT(plain.additional, IsEmpty());

    const DnsQuery edns = parsed(header(1) + question(kWebNet, ns_t_a) + opt(4096));
    const Message larger(composeDnsAnswer(edns, answer, dnsUdpLimit(edns)));
    EXPECT_LE(larger.bytes.size(), kDnsUdpMaximum);
    EXPECT_EQ(larger.flags & 0x0200, 0x0200);
    EXPECT_EQ(larger.answers.size(), (kDnsUdpMaximum - fixed - 11) / 16);
    EXPECT_THAT(larger.additional, ElementsAre(Record{".", ns_t_opt, 0, "1232"}));

    const Message whole = answered(query(), answer);
    EXPECT_EQ(whole.flags & 0x0200, 0);
    EXPECT_EQ(whole.answers.size(), 100U);
    EXPECT_EQ(whole.additional.size(), 1U);
}

TEST(DnsMessage, FillsTheLimitToTheLastOctet) {
    // A name for which 512 octets are header, question and 30 records of 16.
    const Octets exact = header() + question(raw("\16abcdefghijklmn\0"), ns_t_a);
    ASSERT_EQ(exact.size(), 32U);
    const Message message = answered(exact, {.answers = {30, ip("10.0.0.1")}}, 512);
    EXPECT_EQ(message.bytes.size(), 512U);
    EXPECT_EQ(message.flags & 0x0200, 0);
    EXPECT_EQ(message.answers.size(), 30U);
}

TEST(DnsMessage, LeavesOutAdditionalRecordsWithoutTruncation) {
    const Message message =
        answered(query(), {.answers = {ip("10.0.0.1")}, .additional = {100, DnsAddress{"other", ip("10.0.0.2")}}}, 512);
    EXPECT_EQ(message.flags & 0x0200, 0);
    EXPECT_EQ(message.answers.size(), 1U);
    EXPECT_GT(message.additional.size(), 10U);
    EXPECT_LT(message.additional.size(), 100U);
}

TEST(DnsMessage, WritesNamesBeyondTheReachOfPointers) {
    DnsAnswer answer;
    for (int i = 0; i < 4000; ++i) answer.answers.emplace_back(DnsPointer{"host" + std::to_string(i) + ".example"});
    const Message message = answered(query(ns_t_ptr), answer);
    EXPECT_GT(message.bytes.size(), 65000U);
    for (size_t i = 0; i < message.answers.size(); ++i) {
        EXPECT_EQ(message.answers[i].data, "host" + std::to_string(i) + ".example");
    }
}

TEST(DnsMessage, AnswersOtherVersionsOfEdnsWithBadVersion) {
    const Message message = answered(header(1) + question(kWebNet, ns_t_a) + opt(4096, 3),
                                     {.answers = {ip("10.0.0.1")}, .additional = {{"x", ip("10.0.0.2")}}});
    EXPECT_EQ(message.flags & 15, 0);
    EXPECT_THAT(message.answers, IsEmpty());
    EXPECT_THAT(message.additional, ElementsAre(Record{".", ns_t_opt, 1U << 24, "1232"}));
}

TEST(DnsMessage, AnswersWhatItCannotReadWithAHeader) {
    EXPECT_EQ(composeDnsError(header(0, 0x2900, 7) + Octets{1, 2, 3}, DnsCode::NotImplemented), header(0, 0xa984, 0));
    EXPECT_EQ(composeDnsError(header(9, 0x06ff), DnsCode::FormatError), header(0, 0x8081, 0));
    EXPECT_THAT(composeDnsError(Octets(11), DnsCode::FormatError), IsEmpty());
    EXPECT_THAT(composeDnsError(header(0, 0x8000), DnsCode::FormatError), IsEmpty());
}

TEST(DnsMessage, ReadsReverseNames) {
    EXPECT_EQ(addressOfReverseName("5.0.32.10.in-addr.arpa"), ip("10.32.0.5"));
    EXPECT_EQ(addressOfReverseName("255.255.255.255.in-addr.arpa"), ip("255.255.255.255"));
    EXPECT_EQ(addressOfReverseName("f.e.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.2.d.f.ip6.arpa"),
              ip("fd21::ef"));
    for (const std::string_view name :
         {std::string_view(), raw("in-addr.arpa"), raw(".in-addr.arpa"), raw("32.10.in-addr.arpa"),
          raw("5.0.32.10.in-addr.arpa."), raw("1.5.0.32.10.in-addr.arpa"), raw("5.0.032.10.in-addr.arpa"),
          raw("5.0.256.10.in-addr.arpa"), raw("5..32.10.in-addr.arpa"), raw("::1.in-addr.arpa"),
          raw("5.0.32.10.ip6.arpa"), raw("ip6.arpa"), raw("e.0.0.0.ip6.arpa"), raw("5.0.32.10.in-addr.arpa.net"),
          raw("ef.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.2.d.f.ip6.arpa"),
          raw("g.e.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.2.d.f.ip6.arpa"),
          raw("-.e.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.2.d.f.ip6.arpa")}) {
        EXPECT_EQ(addressOfReverseName(name), std::nullopt) << name;
    }
}

}  // namespace
}  // namespace weft::driver
