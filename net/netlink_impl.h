// Private to net/: what the parts of Netlink share.
#pragma once

#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "net/netlink.h"
#include "net/nl_socket.h"

namespace weft::net {

struct Netlink::Impl {
    explicit Impl(NetNs ns);

    NlPool pool;
    UniqueFd probe;     // a socket of the namespace, for ioctls
    bool ipv6 = false;  // the kernel has it

    // Links to be removed in the background.
    struct Reaper {
        std::mutex mutex;
        std::condition_variable changed;
        std::vector<LinkIndex> doomed;
        bool busy = false;
        bool stopping = false;
        std::thread thread;  // started by the first
    } reaper;
    void reap(Netlink& netlink);

    Result<Link> getLink(Message message, const std::string& context);
    Result<void> makeLink(std::string_view name, Message creation, std::vector<Message> finish);
    template <typename Create>
    std::invoke_result_t<Create> recreate(Netlink& netlink,
                                          std::initializer_list<std::pair<std::string_view, std::string_view>> names,
                                          Create create);

    Result<void> request(Message message, std::string_view what) {
        return pool.with([&](NlSocket& socket) { return socket.request(message, what); });
    }

    // Dumps and decodes: decode(const nlmsghdr&) returns std::optional<T>.
    template <typename T, typename Decode>
    Result<std::vector<T>> list(Message message, std::string_view what, Decode decode) {
        std::vector<T> found;
        WEFT_TRY(pool.with([&](NlSocket& socket) {
            const auto collect = [&](const nlmsghdr& header) {
                if (std::optional<T> entry = decode(header)) found.push_back(*std::move(entry));
            };
            return socket.dump(message, what, collect, [&] { found.clear(); });
        }));
        return found;
    }

    // Sends one message an entry. Errors whose errno is in `ignored` count as success.
    template <typename Entry, typename Encode, typename Describe>
    Result<void> batch(std::span<const Entry> entries, std::string_view what, std::initializer_list<int> ignored,
                       Encode encode, Describe describe) {
        // Bounds the memory of the messages; a socket's batch is cut into sends below this anyway.
        constexpr size_t kChunk = 1024;
        size_t failures = 0;
        Error first;
        WEFT_TRY(pool.with([&](NlSocket& socket) -> Result<void> {
            std::vector<Message> messages;
            for (size_t start = 0; start < entries.size(); start += kChunk) {
                const auto chunk = entries.subspan(start, std::min(kChunk, entries.size() - start));
                messages.clear();
                for (const Entry& entry : chunk) messages.push_back(encode(entry));
                const auto onError = [&](size_t index, const Error& error) {
                    if (std::find(ignored.begin(), ignored.end(), error.sysErrno) != ignored.end()) return;
                    if (failures++ == 0) first = error.within(describe(chunk[index]));
                };
                WEFT_TRY(socket.batch(messages, what, onError));
            }
            return {};
        }));
        if (failures == 0) return {};
        if (failures > 1) first.message += " (and " + std::to_string(failures - 1) + " more)";
        return first;
    }
};

// The link in a RTM_NEWLINK or RTM_DELLINK message.
Link decodeLink(const nlmsghdr& message);
// The address in a RTM_NEWADDR or RTM_DELADDR message; none if it has none.
std::optional<Address> decodeAddress(const nlmsghdr& message);

}  // namespace weft::net
