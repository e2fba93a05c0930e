#include "firewall/nft_elements.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <vector>

#include "base/unique_fd.h"
#include "firewall/netlink_attributes.h"

namespace weft::firewall::nft {

namespace {

constexpr int kAttempts = 5;  // a dump that another change cut through is repeated
constexpr size_t kReceiveBytes = 32768;
constexpr size_t kRegister = 4;  // fields of a concatenation start at whole registers

size_t widthOf(std::string_view type) {
    if (type == "ifname") return 16;
    if (type == "ipv6_addr") return 16;
    if (type == "ipv4_addr") return 4;
    if (type == "inet_service" || type == "ether_type") return 2;
    return 1;  // inet_proto, nf_proto
}

unsigned prefixLength(std::string_view first, std::string_view last) {
    unsigned length = 0;
    for (size_t i = 0; i < first.size(); ++i) {
        const auto differing = static_cast<uint8_t>(first[i] ^ last[i]);
        length += static_cast<unsigned>(std::countl_zero(differing));
        if (differing != 0) break;
    }
    return length;
}

std::string spellEtherType(const uint8_t* bytes) {
    std::array<char, 8> text{};
    std::snprintf(text.data(), text.size(), "0x%02x%02x", bytes[0], bytes[1]);
    return text.data();
}

std::string spellField(std::string_view type, std::string_view first, std::string_view last) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(first.data());
    if (type == "ifname") return '"' + std::string(first.substr(0, first.find('\0'))) + '"';
    if (type == "ipv4_addr" || type == "ipv6_addr") {
        std::string text = IpAddress::fromBytes(type == "ipv4_addr" ? IpFamily::V4 : IpFamily::V6, bytes).str();
        if (!last.empty() && last != first) text += '/' + std::to_string(prefixLength(first, last));
        return text;
    }
    if (type == "inet_service") return std::to_string(bytes[0] << 8 | bytes[1]);
    if (type == "ether_type") return spellEtherType(bytes);
    return std::to_string(bytes[0]);
}

std::string spellFields(std::string_view types, std::string_view first, std::string_view last) {
    std::string text;
    for (size_t at = 0;;) {
        const auto dot = types.find(" . ");
        const auto type = types.substr(0, dot);
        const size_t width = widthOf(type);
        if (at + width > first.size()) return text;  // not of this type: it will differ from all that is wanted
        if (!text.empty()) text += " . ";
        text += spellField(type, first.substr(at, width), last.size() < at + width ? "" : last.substr(at, width));
        if (dot == std::string_view::npos) return text;
        types.remove_prefix(dot + 3);
        at += (width + kRegister - 1) / kRegister * kRegister;
    }
}

std::string spellVerdict(std::string_view attributes) {
    uint32_t code = 0;
    std::string chain;
    forEachAttribute(attributes, [&](int type, std::string_view payload) {
        if (type == NFTA_VERDICT_CODE && payload.size() == sizeof code) {
            std::memcpy(&code, payload.data(), sizeof code);
            code = ntohl(code);
        } else if (type == NFTA_VERDICT_CHAIN) {
            chain = payload.substr(0, payload.find('\0'));
        }
    });
    switch (static_cast<int>(code)) {
        case NF_ACCEPT:
            return "accept";
        case NF_DROP:
            return "drop";
        case NFT_JUMP:
            return "jump " + chain;
        case NFT_GOTO:
            return "goto " + chain;
        default:
            return "verdict " + std::to_string(static_cast<int>(code));
    }
}

std::string_view valueOf(std::string_view data) {
    std::string_view value;
    forEachAttribute(data, [&](int type, std::string_view payload) {
        if (type == NFTA_DATA_VALUE) value = payload;
    });
    return value;
}

RawElement parseElement(std::string_view attributes) {
    RawElement element;
    forEachAttribute(attributes, [&](int type, std::string_view payload) {
        if (type == NFTA_SET_ELEM_KEY) element.key = valueOf(payload);
        if (type == NFTA_SET_ELEM_KEY_END) element.keyEnd = valueOf(payload);
        if (type != NFTA_SET_ELEM_DATA) return;
        forEachAttribute(payload, [&](int kind, std::string_view value) {
            if (kind == NFTA_DATA_VALUE) element.data = value;
            if (kind == NFTA_DATA_VERDICT) element.verdict = spellVerdict(value);
        });
    });
    return element;
}

void appendAttribute(std::vector<char>& message, uint16_t type, std::string_view text) {
    const nlattr header{static_cast<uint16_t>(NLA_HDRLEN + text.size() + 1), type};
    const auto* bytes = reinterpret_cast<const char*>(&header);
    message.insert(message.end(), bytes, bytes + sizeof header);
    message.insert(message.end(), text.begin(), text.end());
    message.resize(NLMSG_ALIGN(message.size() + 1));
}

Result<void> requestDump(int fd, const std::string& set) {
    struct {
        nlmsghdr header;
        nfgenmsg family;
    } head{};
    head.header.nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM;
    head.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    head.family.nfgen_family = NFPROTO_INET;
    const auto* bytes = reinterpret_cast<const char*>(&head);
    std::vector<char> message(bytes, bytes + sizeof head);
    const std::string table = kTable;
    appendAttribute(message, NFTA_SET_ELEM_LIST_TABLE, table.substr(table.find(' ') + 1));
    appendAttribute(message, NFTA_SET_ELEM_LIST_SET, set);
    const auto size = static_cast<uint32_t>(message.size());
    std::memcpy(message.data() + offsetof(nlmsghdr, nlmsg_len), &size, sizeof size);
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    if (::sendto(fd, message.data(), message.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0) {
        return errnoError(errno, "ask for the elements of " + set);
    }
    return {};
}

// True: complete. False: the rules changed meanwhile.
Result<bool> readSet(int fd, const std::string& set, const std::string& type,
                     std::map<std::string, std::string>& into) {
    WEFT_TRY(requestDump(fd, set));
    bool interrupted = false;
    std::vector<char> buffer(kReceiveBytes);
    for (;;) {
        const auto received = ::recv(fd, buffer.data(), buffer.size(), 0);
        if (received < 0 && errno == EINTR) continue;
        if (received < 0) return errnoError(errno, "read the elements of " + set);
        std::string_view data(buffer.data(), static_cast<size_t>(received));
        while (data.size() >= sizeof(nlmsghdr)) {
            nlmsghdr header{};
            std::memcpy(&header, data.data(), sizeof header);
            if (header.nlmsg_len < sizeof header || header.nlmsg_len > data.size()) break;
            const auto body = data.substr(NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN);
            data.remove_prefix(std::min<size_t>(NLMSG_ALIGN(header.nlmsg_len), data.size()));
            if ((header.nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
            if (header.nlmsg_type == NLMSG_ERROR || header.nlmsg_type == NLMSG_DONE) {
                int code = 0;
                if (body.size() >= sizeof code) std::memcpy(&code, body.data(), sizeof code);
                if (code == 0 || code == -ENOENT) return !interrupted;
                if (code == -EINTR) return false;
                return errnoError(-code, "read the elements of " + set);
            }
            if (body.size() < NLMSG_ALIGN(sizeof(nfgenmsg))) continue;
            forEachAttribute(body.substr(NLMSG_ALIGN(sizeof(nfgenmsg))), [&](int kind, std::string_view list) {
                if (kind != NFTA_SET_ELEM_LIST_ELEMENTS) return;
                forEachAttribute(list, [&](int, std::string_view one) { into.insert(spell(type, parseElement(one))); });
            });
        }
    }
}

}  // namespace

Result<uint32_t> readGeneration() {
    const UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
    if (!fd) return errnoError(errno, "nfnetlink socket");
    struct {
        nlmsghdr header;
        nfgenmsg family;
    } request{};
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN;
    request.header.nlmsg_flags = NLM_F_REQUEST;
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    std::array<char, 512> answer{};
    if (::sendto(fd.get(), &request, sizeof request, 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0) {
        return errnoError(errno, "ask for the rules' generation");
    }
    const ssize_t size = ::recv(fd.get(), answer.data(), answer.size(), 0);  // the kernel answered while we sent
    if (size < 0) return errnoError(errno, "read the rules' generation");
    constexpr size_t kHead = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(nfgenmsg));
    std::optional<uint32_t> generation;
    if (static_cast<size_t>(size) > kHead) {
        forEachAttribute({answer.data() + kHead, static_cast<size_t>(size) - kHead},
                         [&](int type, std::string_view payload) {
                             uint32_t number = 0;
                             if (type != NFTA_GEN_ID || payload.size() != sizeof number) return;
                             std::memcpy(&number, payload.data(), sizeof number);
                             generation = ntohl(number);
                         });
    }
    if (!generation) return makeError(ErrorCode::Kernel, "the kernel does not tell the rules' generation");
    return *generation;
}

std::pair<std::string, std::string> spell(const std::string& type, const RawElement& element) {
    constexpr std::string_view kType = "type ";
    std::string_view types = std::string_view(type).substr(kType.size(), type.find('\n') - kType.size());
    const auto colon = types.find(" : ");
    std::string value = element.verdict;
    if (!element.data.empty() && colon != std::string_view::npos) {
        value = spellFields(types.substr(colon + 3), element.data, {});
    }
    return {spellFields(types.substr(0, colon), element.key, element.keyEnd), std::move(value)};
}

Result<Elements> readElements(const std::map<std::string, std::string>& sets) {
    const UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
    if (!fd) return errnoError(errno, "nfnetlink socket");
    Elements elements;
    for (const auto& [set, type] : sets) {
        for (int attempt = 1;; ++attempt) {
            std::map<std::string, std::string> found;
            WEFT_ASSIGN(const bool complete, readSet(fd.get(), set, type, found));
            if (complete) {
                if (!found.empty()) elements.emplace(set, std::move(found));
                break;
            }
            if (attempt == kAttempts) {
                return makeError(ErrorCode::Busy, "set " + set + " keeps changing while it is read");
            }
        }
    }
    return elements;
}

}  // namespace weft::firewall::nft
