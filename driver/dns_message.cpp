#include "driver/dns_message.h"

#include <arpa/nameser.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>

namespace weft::driver {
namespace {

// The header's second number (RFC 1035, 4.1.1).
constexpr uint16_t kResponse = 0x8000;
constexpr uint16_t kOpcode = 0x7800;
constexpr uint16_t kAuthoritative = 0x0400;
constexpr uint16_t kTruncated = 0x0200;
constexpr uint16_t kRecursionDesired = 0x0100;
constexpr uint16_t kRecursionAvailable = 0x0080;
constexpr uint16_t kCode = 0x000f;

// Where the header's numbers are.
constexpr size_t kFlagsAt = 2;
constexpr size_t kQuestionsAt = 4;
constexpr size_t kAnswersAt = 6;
constexpr size_t kAuthoritiesAt = 8;
constexpr size_t kAdditionalAt = 10;

constexpr uint16_t kQuestionName = 0xc000 | NS_HFIXEDSZ;  // a pointer to it

constexpr size_t kOptSize = 1 + NS_RRFIXEDSZ;  // root, no options
constexpr unsigned kBadVersion = 16;           // RFC 6891, 9: its upper bits are in OPT
constexpr size_t kMaxRecord = NS_MAXCDNAME + NS_RRFIXEDSZ + 3 * NS_INT16SZ + NS_MAXCDNAME;  // SRV is the longest

bool isPlain(uint8_t octet) {
    return octet > ' ' && octet < 0x7f && octet != '.' && octet != '\\';
}

// `wire` is an uncompressed name.
std::optional<std::string> textOf(const uint8_t* wire) {
    std::string text;
    text.reserve(NS_MAXCDNAME);
    while (const uint8_t length = *wire++) {
        if (!text.empty()) text += '.';
        for (const uint8_t* end = wire + length; wire != end; ++wire) {
            if (!isPlain(*wire)) return std::nullopt;
            text += static_cast<char>(*wire >= 'A' && *wire <= 'Z' ? *wire - 'A' + 'a' : *wire);
        }
    }
    return text;
}

Error malformed(const char* what) {
    return makeError(ErrorCode::InvalidArgument, std::string("DNS query: ") + what);
}

uint16_t flagsOf(std::span<const uint8_t> message) {
    return static_cast<uint16_t>(ns_get16(&message[kFlagsAt]));
}

// Writes past the limit, then takes the record back: there is room for one more than the limit allows.
class AnswerWriter {
public:
    AnswerWriter(const DnsQuery& query, std::chrono::seconds ttl, size_t limit)
        : limit_(limit), ttl_(static_cast<uint32_t>(ttl.count())) {
        out_.reserve(limit + kMaxRecord);  // names_ points into it
        out_.resize(NS_HFIXEDSZ);
        put(0, query.id);
        put(kQuestionsAt, 1);
        out_.insert(out_.end(), query.question.begin(), query.question.end());
        names_ = {out_.data(), &out_[NS_HFIXEDSZ]};
    }

    // False if there is no room.
    bool addAnswer(const DnsRecord& record) {
        const size_t start = out_.size();
        u16(kQuestionName);
        const bool sound = std::visit([this](const auto& data) { return rest(data); }, record);
        return keep(sound, start, answers_);
    }

    bool addAdditional(const DnsAddress& record) {
        const size_t start = out_.size();
        const bool sound = name(record.name, names_.data()) && rest(record.address);
        return keep(sound, start, additional_);
    }

    // Has room in any case.
    void addOpt(unsigned code) {
        u8(0);  // root
        u16(ns_t_opt);
        u16(kDnsUdpMaximum);
        u8(code >> 4);
        u8(0);   // version
        u16(0);  // flags
        u16(0);  // octets of options
        ++additional_;
    }

    std::vector<uint8_t> finish(unsigned flags) && {
        put(kFlagsAt, flags);
        put(kAnswersAt, answers_);
        put(kAdditionalAt, additional_);
        return std::move(out_);
    }

private:
    void u8(unsigned value) { out_.push_back(static_cast<uint8_t>(value)); }
    void u16(unsigned value) {
        u8(value >> 8);
        u8(value);
    }
    void put(size_t at, size_t value) { ns_put16(static_cast<unsigned>(value), &out_[at]); }

    // With a list of names: points back to one where it can, and joins it. False, with nothing written, if `text` is
    // no name.
    bool name(const std::string& text, const uint8_t** known) {
        const auto sound = [](char c) { return c == '.' || isPlain(static_cast<uint8_t>(c)); };
        std::array<uint8_t, NS_MAXCDNAME> wire;
        if (!std::all_of(text.begin(), text.end(), sound)) return false;
        if (ns_name_pton(text.c_str(), wire.data(), wire.size()) < 0) return false;
        const size_t at = out_.size();
        out_.resize(at + wire.size());
        const int size = ns_name_pack(wire.data(), &out_[at], wire.size(), known, names_.data() + names_.size());
        out_.resize(at + static_cast<size_t>(std::max(size, 0)));
        return size > 0;
    }

    // A record from its type on.
    template <typename Data>
    bool rest(const Data& data) {
        u16(typeOf(data));
        u16(ns_c_in);
        u16(ttl_ >> 16);
        u16(ttl_);
        u16(0);
        const size_t start = out_.size();
        const bool sound = write(data);
        put(start - NS_INT16SZ, out_.size() - start);
        return sound;
    }

    static ns_type typeOf(const IpAddress& address) { return address.isV4() ? ns_t_a : ns_t_aaaa; }
    bool write(const IpAddress& address) {
        const auto bytes = address.bytes();
        out_.insert(out_.end(), bytes.data(), bytes.data() + address.size());
        return true;
    }

    static ns_type typeOf(const DnsPointer&) { return ns_t_ptr; }
    bool write(const DnsPointer& pointer) { return name(pointer.name, names_.data()); }

    static ns_type typeOf(const DnsService&) { return ns_t_srv; }
    bool write(const DnsService& service) {
        u16(service.priority);
        u16(service.weight);
        u16(service.port);
        return name(service.target, nullptr);  // RFC 2782: not compressed
    }

    bool keep(bool sound, size_t start, size_t& count) {
        const bool fits = out_.size() <= limit_;
        if (sound && fits) {
            ++count;
        } else {
            out_.resize(start);
        }
        return fits;
    }

    size_t limit_;
    uint32_t ttl_;
    std::vector<uint8_t> out_;
    std::array<const uint8_t*, 32> names_{};  // ns_name_pack()'s: the message, names in it, null
    size_t answers_ = 0;
    size_t additional_ = 0;
};

}  // namespace

Result<DnsQuery> parseDnsQuery(std::span<const uint8_t> message) {
    if (message.size() < NS_HFIXEDSZ) return malformed("too short");
    const uint16_t flags = flagsOf(message);
    if ((flags & kResponse) != 0) return malformed("a response");
    if ((flags & kOpcode) != 0) return makeError(ErrorCode::Unsupported, "DNS query: opcode is not QUERY");
    if (ns_get16(&message[kQuestionsAt]) != 1) return malformed("not exactly one question");

    DnsQuery query;
    query.id = static_cast<uint16_t>(ns_get16(message.data()));
    query.recursionDesired = (flags & kRecursionDesired) != 0;

    const uint8_t* const end = message.data() + message.size();
    const uint8_t* at = message.data() + NS_HFIXEDSZ;
    const int questionSize = ns_skiprr(at, end, ns_s_qd, 1);
    if (questionSize < 0) return malformed("the question is cut off");
    query.question.assign(at, at + questionSize);
    std::array<uint8_t, NS_MAXCDNAME> name;
    const int nameSize = ns_name_unpack(message.data(), end, at, name.data(), name.size());
    // As no name is before it, a pointer in it is an error; the name would not be the same in the answer.
    if (nameSize < 0 || !std::equal(at, at + nameSize, name.begin())) return malformed("bad name");
    at += questionSize;
    query.type = DnsType(ns_get16(at - NS_QFIXEDSZ));
    if (ns_get16(at - NS_INT16SZ) == ns_c_in) query.name = textOf(name.data());

    for (const size_t section : {kAnswersAt, kAuthoritiesAt}) {
        const int size = ns_skiprr(at, end, ns_s_an, static_cast<int>(ns_get16(&message[section])));
        if (size < 0) return malformed("records are cut off");
        at += size;
    }
    for (unsigned left = ns_get16(&message[kAdditionalAt]); left > 0; --left) {
        const int size = ns_skiprr(at, end, ns_s_ar, 1);
        if (size < 0) return malformed("records are cut off");
        if (*at == 0 && ns_get16(at + 1) == ns_t_opt) {
            if (query.ednsSize) return malformed("two OPT records");
            query.ednsSize = static_cast<uint16_t>(std::max<size_t>(ns_get16(at + 3), kDnsUdpMinimum));
            query.ednsVersion = at[6];
        }
        at += size;
    }
    if (at != end) return malformed("octets after the last record");
    return query;
}

std::vector<uint8_t> composeDnsAnswer(const DnsQuery& query, const DnsAnswer& answer, size_t limit) {
    assert(limit >= kDnsUdpMinimum);
    const bool badVersion = query.ednsVersion != 0;
    const unsigned code = badVersion ? kBadVersion : static_cast<unsigned>(answer.code);
    unsigned flags = kResponse | kRecursionAvailable | (code & kCode);
    if (query.recursionDesired) flags |= kRecursionDesired;
    if (answer.authoritative) flags |= kAuthoritative;

    AnswerWriter out(query, answer.ttl, query.ednsSize ? limit - kOptSize : limit);
    if (!badVersion) {
        const bool whole = std::all_of(answer.answers.begin(), answer.answers.end(),
                                       [&](const DnsRecord& record) { return out.addAnswer(record); });
        if (!whole) flags |= kTruncated;
        // The first that does not fit is the last one tried.
        static_cast<void>(whole && std::all_of(answer.additional.begin(), answer.additional.end(),
                                               [&](const DnsAddress& record) { return out.addAdditional(record); }));
    }
    if (query.ednsSize) out.addOpt(code);
    return std::move(out).finish(flags);
}

size_t dnsUdpLimit(const DnsQuery& query) {
    return std::clamp<size_t>(query.ednsSize.value_or(kDnsUdpMinimum), kDnsUdpMinimum, kDnsUdpMaximum);
}

std::vector<uint8_t> composeDnsError(std::span<const uint8_t> query, DnsCode code) {
    if (query.size() < NS_HFIXEDSZ) return {};
    const uint16_t flags = flagsOf(query);
    if ((flags & kResponse) != 0) return {};
    std::vector<uint8_t> out(NS_HFIXEDSZ);
    std::copy_n(query.begin(), NS_INT16SZ, out.begin());
    ns_put16(kResponse | (flags & (kOpcode | kRecursionDesired)) | kRecursionAvailable | static_cast<unsigned>(code),
             &out[kFlagsAt]);
    return out;
}

std::optional<IpAddress> addressOfReverseName(std::string_view name) {
    constexpr std::string_view kV4Zone = ".in-addr.arpa";
    constexpr std::string_view kV6Zone = ".ip6.arpa";
    if (name.ends_with(kV4Zone)) {
        const auto reversed = IpAddress::parse(name.substr(0, name.size() - kV4Zone.size()));
        if (!reversed || !reversed->isV4()) return std::nullopt;
        return IpAddress(IpFamily::V4, __builtin_bswap32(static_cast<uint32_t>(reversed->bits())));
    }
    if (!name.ends_with(kV6Zone) || name.size() != 2 * 32 - 1 + kV6Zone.size()) return std::nullopt;
    Uint128 bits = 0;
    for (size_t i = 0; i < 32; ++i) {
        uint8_t nibble = 0;
        const char* digit = &name[2 * i];
        if (std::from_chars(digit, digit + 1, nibble, 16).ec != std::errc{} || digit[1] != '.') return std::nullopt;
        bits |= Uint128{nibble} << (4 * i);
    }
    return IpAddress(IpFamily::V6, bits);
}

}  // namespace weft::driver
