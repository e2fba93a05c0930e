// BroadcastQueue: messages that ride on other packets a limited number of times each (SWIM's dissemination).
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "kv/types.h"

namespace weft::kv {

class BroadcastQueue {
public:
    explicit BroadcastQueue(size_t limit) : limit_(limit) {}

    // A message replaces the queued one of the same name. Urgent ones (membership) go before others that were sent
    // as often and are never dropped for room.
    void push(std::string name, Bytes message, bool urgent);

    // Up to `room` bytes of messages, fewest transmissions first, then newest. Each counts as sent once more, and
    // leaves the queue after `maxTransmits`.
    std::vector<Bytes> take(size_t room, int maxTransmits);

    [[nodiscard]] bool contains(const std::string& name) const { return byName_.contains(name); }
    [[nodiscard]] bool empty() const { return items_.empty(); }
    [[nodiscard]] size_t size() const { return items_.size(); }
    [[nodiscard]] bool hasUnsent() const { return !items_.empty() && std::get<0>(items_.begin()->first) == 0; }
    [[nodiscard]] uint64_t dropped() const { return dropped_; }

    // retransmitMult * ceil(log10(n + 1)): enough for every one of n members with high probability.
    static int transmitLimit(int retransmitMult, size_t members);

private:
    using Rank = std::tuple<int, int, uint64_t>;  // transmissions, 0 urgent or 1, newest first
    struct Item {
        std::string name;
        Bytes message;
    };

    void erase(std::map<Rank, Item>::iterator item);

    size_t limit_;
    std::map<Rank, Item> items_;
    std::unordered_map<std::string, Rank> byName_;
    uint64_t countdown_ = UINT64_MAX;
    uint64_t dropped_ = 0;
};

}  // namespace weft::kv
