#include "kv/broadcast_queue.h"

#include <cmath>
#include <tuple>

namespace weft::kv {

namespace {

constexpr int kMaxMisses = 16;  // messages too large for the room left that one take() steps over

}  // namespace

void BroadcastQueue::push(std::string name, Bytes message, bool urgent) {
    if (const auto old = byName_.find(name); old != byName_.end()) erase(items_.find(old->second));
    if (items_.size() >= limit_) {
        auto last = std::prev(items_.end());  // sent most often, or oldest
        while (std::get<1>(last->first) == 0 && last != items_.begin()) --last;
        if (std::get<1>(last->first) != 0) {
            erase(last);
            ++dropped_;
        }
    }
    const Rank rank{0, urgent ? 0 : 1, --countdown_};
    byName_.emplace(name, rank);
    items_.emplace(rank, Item{std::move(name), std::move(message)});
}

std::vector<Bytes> BroadcastQueue::take(size_t room, int maxTransmits) {
    std::vector<Bytes> taken;
    std::vector<std::pair<Rank, Item>> again;
    int misses = 0;
    for (auto item = items_.begin(); item != items_.end() && misses < kMaxMisses;) {
        if (item->second.message.size() > room) {
            ++misses;
            ++item;
            continue;
        }
        room -= item->second.message.size();
        taken.push_back(item->second.message);
        auto next = std::next(item);
        auto node = items_.extract(item);
        if (++std::get<0>(node.key()) < maxTransmits) {
            again.emplace_back(node.key(), std::move(node.mapped()));
        } else {
            byName_.erase(node.mapped().name);
        }
        item = next;
    }
    for (auto& [rank, item] : again) {
        byName_[item.name] = rank;
        items_.emplace(rank, std::move(item));
    }
    return taken;
}

void BroadcastQueue::erase(std::map<Rank, Item>::iterator item) {
    byName_.erase(item->second.name);
    items_.erase(item);
}

int BroadcastQueue::transmitLimit(int retransmitMult, size_t members) {
    return retransmitMult * static_cast<int>(std::ceil(std::log10(static_cast<double>(members + 1))));
}

}  // namespace weft::kv
