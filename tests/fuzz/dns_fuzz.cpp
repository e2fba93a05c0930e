// Any bytes as a DNS query, and answers to it that hold parts of it: never over the limit, always readable.
#include <arpa/nameser.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "driver/dns_message.h"

using namespace weft;
using namespace weft::driver;

namespace {

constexpr size_t kRoom = 64U << 10;

void check(const std::vector<uint8_t>& answer, size_t limit) {
    ns_msg message;
    if (answer.size() > limit || ns_initparse(answer.data(), static_cast<int>(answer.size()), &message) != 0) {
        std::abort();
    }
    for (const ns_sect section : {ns_s_qd, ns_s_an, ns_s_ar}) {
        for (int i = 0; i < ns_msg_count(message, section); ++i) {
            ns_rr record;
            if (ns_parserr(&message, section, i, &record) != 0) std::abort();
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    // Followed by a page that may not be touched: the library that parses is not instrumented.
    static uint8_t* const guard = [] {
        void* const room = mmap(nullptr, kRoom + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED) std::abort();
        uint8_t* const end = static_cast<uint8_t*>(room) + kRoom;
        if (mprotect(end, 4096, PROT_NONE) != 0) std::abort();
        return end;
    }();
    if (size > kRoom) return 0;
    const std::span<const uint8_t> message(std::copy_n(data, size, guard - size) - size, size);

    const std::vector<uint8_t> error = composeDnsError(message, DnsCode::FormatError);
    if (!error.empty()) check(error, NS_HFIXEDSZ);
    const Result<DnsQuery> query = parseDnsQuery(message);
    if (!query) return 0;

    // A name from the end of the query, where EDNS's options may be anything.
    const size_t length = std::min<size_t>(size, data[size - 1]);
    const std::string any(data + size - length, data + size);
    const std::string name = query->name.value_or(any);
    static_cast<void>(addressOfReverseName(name));
    const IpAddress v4(IpFamily::V4, size);
    const IpAddress v6(IpFamily::V6, size);
    const std::array<DnsRecord, 6> kinds{
        v4, v6, DnsPointer{name}, DnsPointer{any}, DnsService{1, 2, 3, name}, DnsService{1, 2, 3, any}};
    DnsAnswer answer{.ttl = std::chrono::seconds(size)};
    const size_t count = data[0] == 255 ? 6000 : data[0];  // the id is any number
    for (size_t i = 0; i < count; ++i) answer.answers.push_back(kinds[i % kinds.size()]);
    answer.additional = {{name, v4}, {any, v6}, {"sub." + name, v6}};
    for (const size_t limit : {kDnsUdpMinimum, dnsUdpLimit(*query), kDnsTcpMaximum}) {
        check(composeDnsAnswer(*query, answer, limit), limit);
    }
    return 0;
}
