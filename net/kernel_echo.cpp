#include "net/kernel_echo.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "net/kernel_echo_object.h"

namespace weft::net {

namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kAsk = 1;
constexpr uint8_t kAnswer = 2;

struct __attribute__((packed)) Frame {
    std::array<uint8_t, 6> destination;
    std::array<uint8_t, 6> source;
    uint16_t protocol;
    uint8_t version;
    uint8_t kind;
    uint64_t number;
    uint64_t proof;
    std::array<uint8_t, 28> padding;  // to the least size of Ethernet
};

Error failed(int error, std::string_view what) {
    return errnoError(-error, "kernel echo: " + std::string(what));
}

sockaddr_ll linkAddress(LinkIndex link) {
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_802_EX1);
    address.sll_ifindex = link;
    return address;
}

}  // namespace

Result<void> answerAt(const NetNs& ns, LinkIndex link, const EchoKey& key) {
    libbpf_set_print(nullptr);  // errors come back as errno
    bpf_object_open_opts options{};
    options.sz = sizeof options;
    options.object_name = "weft_echo";
    const std::unique_ptr<bpf_object, void (*)(bpf_object*)> object(
        bpf_object__open_mem(kKernelEchoObject, sizeof kKernelEchoObject, &options), bpf_object__close);
    if (!object) return failed(-errno, "open its program");
    if (const int error = bpf_object__load(object.get()); error != 0) {
        return makeError(ErrorCode::Unsupported, failed(error, "the kernel takes no BPF program").message);
    }
    const uint32_t first = 0;
    const int secret = bpf_object__find_map_fd_by_name(object.get(), "secret");
    if (const int error = bpf_map_update_elem(secret, &first, key.data(), BPF_ANY); error != 0) {
        return failed(error, "its key");
    }
    const int program = bpf_program__fd(bpf_object__find_program_by_name(object.get(), "echo"));
    return runIn(ns, std::function<Result<void>()>([&]() -> Result<void> {
                     bpf_tc_hook hook{};
                     hook.sz = sizeof hook;
                     hook.ifindex = link;
                     hook.attach_point = BPF_TC_INGRESS;
                     if (const int error = bpf_tc_hook_create(&hook); error != 0 && error != -EEXIST) {
                         return failed(error, "clsact on link " + std::to_string(link));
                     }
                     bpf_tc_opts filter{};
                     filter.sz = sizeof filter;
                     filter.prog_fd = program;
                     filter.flags = BPF_TC_F_REPLACE;
                     filter.handle = 1;
                     filter.priority = 1;
                     if (const int error = bpf_tc_attach(&hook, &filter); error != 0) {
                         return failed(error, "filter on link " + std::to_string(link));
                     }
                     return {};
                 }));
}

Result<EchoAsker> EchoAsker::open(const NetNs& ns, LinkIndex link, MacAddress own, uint32_t mark) {
    WEFT_ASSIGN(UniqueFd fd, socketIn(ns, AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0));
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) return errnoError(errno, "SO_MARK");
    const sockaddr_ll address = linkAddress(link);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return errnoError(errno, "kernel echo: listen on link " + std::to_string(link));
    }
    return EchoAsker(std::move(fd), link, own);
}

Result<void> EchoAsker::ask(MacAddress whom, uint64_t number) {
    Frame frame{};
    frame.destination = whom.bytes();
    frame.source = own_.bytes();
    frame.protocol = htons(ETH_P_802_EX1);
    frame.version = kVersion;
    frame.kind = kAsk;
    frame.number = number;
    const sockaddr_ll address = linkAddress(link_);
    if (::sendto(fd_.get(), &frame, sizeof frame, 0, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
        return errnoError(errno, "kernel echo: ask " + whom.str());
    }
    return {};
}

std::optional<EchoAsker::Answer> EchoAsker::next() {
    for (;;) {
        Frame frame{};
        const ssize_t size = ::recv(fd_.get(), &frame, sizeof frame, 0);
        if (size < 0) return std::nullopt;
        const bool whole = static_cast<size_t>(size) >= offsetof(Frame, padding);
        if (!whole || frame.version != kVersion || frame.kind != kAnswer) continue;
        return Answer{MacAddress(frame.source), frame.number, frame.proof};
    }
}

}  // namespace weft::net
