#include "firewall/watch.h"

#include <netinet/in.h>  // before the kernel's own headers, which then leave its names alone

#include <linux/filter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "firewall/netlink_attributes.h"

namespace weft::firewall {

namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

struct Pace {
    milliseconds settle;  // from a change to the callback: a reload is many transactions
    milliseconds gap;     // between two callbacks
    milliseconds look;    // between two looks at the legacy tables
    int lookShare;        // which may take 1/lookShare of the time
};
constexpr Pace kUsual{milliseconds(100), milliseconds(1000), milliseconds(2000), 1000};
constexpr Pace kHurried{milliseconds(20), milliseconds(100), milliseconds(50), 20};
constexpr auto kHurry = milliseconds(2000);
constexpr auto kLookMax = milliseconds(4500);

// The kernel reports the thread that committed by its number in the first PID namespace.
bool inFirstPidNamespace() {
    struct stat info {};
    return ::stat("/proc/self/ns/pid", &info) == 0 && info.st_ino == 0xEFFFFFFC;  // PROC_PID_INIT_INO
}

// nf_tables: one NEWGEN message ends each transaction and tells who made it.
class NftNotices {
public:
    static Result<NftNotices> open() {
        UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER));
        if (!fd) return errnoError(errno, "nfnetlink socket");
        // Only NEWGEN wakes us up: a publish is dozens of messages otherwise. BPF loads are big-endian.
        constexpr uint32_t kNewGen = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN;
        constexpr uint32_t kSwapped = (kNewGen & 0xff) << 8 | kNewGen >> 8;
        const bool little = htons(1) != 1;
        std::array<sock_filter, 4> code = {{
            {BPF_LD | BPF_H | BPF_ABS, 0, 0, offsetof(nlmsghdr, nlmsg_type)},
            {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, little ? kSwapped : kNewGen},
            {BPF_RET | BPF_K, 0, 0, UINT32_MAX},
            {BPF_RET | BPF_K, 0, 0, 0},
        }};
        const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
        const int group = NFNLGRP_NFTABLES;
        sockaddr_nl address{};
        address.nl_family = AF_NETLINK;
        if (::setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0 ||
            ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
            ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0) {
            return errnoError(errno, "nfnetlink notifications");
        }
        return NftNotices(std::move(fd));
    }

    [[nodiscard]] int fd() const { return fd_.get(); }

    // Reads what has come; whether another process changed something.
    bool foreignChange() {
        bool foreign = false;
        alignas(nlmsghdr) std::array<char, 4096> buffer{};
        for (;;) {
            const auto size = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
            if (size < 0 && errno == EINTR) continue;
            if (size < 0) return foreign || errno == ENOBUFS;  // lost some: it may have been anything
            foreign = foreign || !isOurs(buffer.data(), static_cast<size_t>(size));
        }
    }

private:
    explicit NftNotices(UniqueFd fd) : fd_(std::move(fd)), knowsThreads_(inFirstPidNamespace()) {}

    [[nodiscard]] bool isOurs(const char* data, size_t size) const {
        constexpr size_t kHeader = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(nfgenmsg));
        if (!knowsThreads_) return false;
        if (size < kHeader) return false;
        bool ours = false;
        forEachAttribute({data + kHeader, size - kHeader}, [&](int type, std::string_view payload) {
            uint32_t thread = 0;
            if (type != NFTA_GEN_PROC_PID || payload.size() != sizeof thread) return;
            std::memcpy(&thread, payload.data(), sizeof thread);
            // A thread of ours that is gone already counts as foreign, which costs one comparison too many.
            ours = ::access(("/proc/self/task/" + std::to_string(ntohl(thread))).c_str(), F_OK) == 0;
        });
        return ours;
    }

    UniqueFd fd_;
    bool knowsThreads_;
};

// The legacy tables tell nobody: their entries are read and hashed, without the packet counters.
template <typename Info, typename Entries, typename Entry, int kLevel, int kGetInfo, int kGetEntries>
class LegacyTables {
public:
    LegacyTables(int family, const char* namesFile)
        : socket_(::socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)), namesFile_(namesFile) {}

    uint64_t hash() {
        uint64_t value = 0;
        if (!socket_) return value;
        std::ifstream names(namesFile_);
        for (std::string name; names >> name;) {
            if (name != "security") value ^= hashOf(name);  // that one we do not write
        }
        return value;
    }

private:
    uint64_t hashOf(const std::string& table) {
        Info info{};
        std::memcpy(info.name, table.c_str(), table.size() + 1);
        socklen_t size = sizeof info;
        if (::getsockopt(socket_.get(), kLevel, kGetInfo, &info, &size) != 0) return 0;
        buffer_.assign(sizeof(Entries) + info.size, 0);
        auto* entries = reinterpret_cast<Entries*>(buffer_.data());
        std::memcpy(entries->name, table.c_str(), table.size() + 1);
        entries->size = info.size;
        size = static_cast<socklen_t>(buffer_.size());
        // EAGAIN: it changes right now, so the next look will differ.
        if (::getsockopt(socket_.get(), kLevel, kGetEntries, entries, &size) != 0) return 0;
        uint64_t value = fnv(table.data(), table.size(), 14695981039346656037U);
        const char* begin = buffer_.data() + offsetof(Entries, entrytable);
        for (size_t at = 0; at + sizeof(Entry) <= info.size;) {
            const char* entry = begin + at;
            const size_t length = reinterpret_cast<const Entry*>(entry)->next_offset;
            if (length < sizeof(Entry) || at + length > info.size) break;
            constexpr size_t kCounters = offsetof(Entry, counters);
            constexpr size_t kAfter = kCounters + sizeof(xt_counters);
            value = fnv(entry, kCounters, value);
            value = fnv(entry + kAfter, length - kAfter, value);
            at += length;
        }
        return value;
    }

    // FNV-1a over words: nobody attacks it, and tables are large.
    static uint64_t fnv(const char* data, size_t size, uint64_t value) {
        for (; size >= sizeof value; data += sizeof value, size -= sizeof value) {
            uint64_t word = 0;
            std::memcpy(&word, data, sizeof word);
            value = (value ^ word) * 1099511628211U;
            value ^= value >> 32;
        }
        for (; size > 0; ++data, --size) value = (value ^ static_cast<uint8_t>(*data)) * 1099511628211U;
        return value;
    }

    UniqueFd socket_;
    const char* namesFile_;
    std::vector<char> buffer_;
};

using LegacyV4 = LegacyTables<ipt_getinfo, ipt_get_entries, ipt_entry, IPPROTO_IP, IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES>;
using LegacyV6 =
    LegacyTables<ip6t_getinfo, ip6t_get_entries, ip6t_entry, IPPROTO_IPV6, IP6T_SO_GET_INFO, IP6T_SO_GET_ENTRIES>;

}  // namespace

struct Watch::Impl {
    Impl(NftNotices opened, UniqueFd wakeFd, std::function<void()> callback)
        : notices(std::move(opened)), wake(std::move(wakeFd)), onDamage(std::move(callback)) {}

    void run() {
        auto looked = SteadyClock::now();
        SteadyClock::duration lookCost{};
        auto called = looked - kUsual.gap;
        constexpr auto kNever = SteadyClock::time_point::max();
        auto changed = kNever;  // since when a callback is due
        while (!stopping) {
            const Pace& pace = SteadyClock::now() < hurriedUntil.load() ? kHurried : kUsual;
            const auto nextLook =
                looked + std::clamp<SteadyClock::duration>(lookCost * pace.lookShare, pace.look, kLookMax);
            const auto due = [&] {
                return changed == kNever ? kNever : std::max(changed + pace.settle, called + pace.gap);
            };
            const auto wait = std::chrono::ceil<milliseconds>(std::min(due(), nextLook) - SteadyClock::now());
            std::array<pollfd, 2> fds = {{{wake.get(), POLLIN, 0}, {notices.fd(), POLLIN, 0}}};
            if (::poll(fds.data(), fds.size(), static_cast<int>(std::max(milliseconds(0), wait).count())) < 0 &&
                errno != EINTR) {
                return;
            }
            uint64_t count = 0;
            if (fds[0].revents != 0) (void)!::read(wake.get(), &count, sizeof count);
            bool foreign = fds[1].revents != 0 && notices.foreignChange();
            const auto now = SteadyClock::now();
            if (now >= nextLook) {
                const uint64_t seen = legacyHash();
                foreign = foreign || seen != legacy;
                legacy = seen;
                looked = SteadyClock::now();
                lookCost = looked - now;
            }
            if (foreign) changed = std::min(changed, now);
            if (now >= due()) {
                changed = kNever;
                onDamage();
                called = SteadyClock::now();
            }
        }
    }

    void ring() const {
        const uint64_t one = 1;
        (void)!::write(wake.get(), &one, sizeof one);
    }

    uint64_t legacyHash() { return v4.hash() ^ v6.hash() * 31; }

    NftNotices notices;
    UniqueFd wake;
    std::atomic<bool> stopping = false;
    std::atomic<SteadyClock::time_point> hurriedUntil{};
    std::function<void()> onDamage;
    LegacyV4 v4{AF_INET, "/proc/thread-self/net/ip_tables_names"};
    LegacyV6 v6{AF_INET6, "/proc/thread-self/net/ip6_tables_names"};
    uint64_t legacy = legacyHash();
    std::thread thread;
};

Result<std::unique_ptr<Watch>> Watch::start(std::function<void()> onDamage) {
    WEFT_ASSIGN(NftNotices notices, NftNotices::open());
    UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake) return errnoError(errno, "eventfd");
    auto impl = std::make_unique<Impl>(std::move(notices), std::move(wake), std::move(onDamage));
    impl->thread = std::thread([&watch = *impl] { watch.run(); });
    return std::unique_ptr<Watch>(new Watch(std::move(impl)));
}

Watch::Watch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Watch::~Watch() {
    impl_->stopping = true;
    impl_->ring();
    impl_->thread.join();
}

void Watch::hurry() {
    impl_->hurriedUntil = SteadyClock::now() + kHurry;
    impl_->ring();
}

}  // namespace weft::firewall
