#include "drivers/overlay/overlay_names.h"

#include <algorithm>

#include "base/log.h"
#include "kv/row.h"
#include "kv/wire.h"

namespace weft {

namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kMaxName = 253;
constexpr size_t kMaxCount = 255;
// With a key of the longest network name it stays below the store's limit of a row.
constexpr size_t kMaxValue = kv::kMaxRowBytes - kv::kMaxKeyBytes;

size_t encodedSize(const NameRow& row) {
    size_t size = 3 + 3 * row.ports.size();
    for (const std::string& name : row.names) size += 1 + name.size();
    return size;
}

// names/NETWORK/ENDPOINT
std::optional<OverlayKey> parseNameKey(std::string_view key) {
    if (!key.starts_with(kNamesPrefix)) return std::nullopt;
    key.remove_prefix(kNamesPrefix.size());
    const size_t slash = key.find('/');
    if (slash == 0 || slash == std::string_view::npos || slash + 1 == key.size()) return std::nullopt;
    return OverlayKey{std::string(key.substr(0, slash)), EndpointId(std::string(key.substr(slash + 1)))};
}

}  // namespace

std::string nameKey(const std::string& network, const EndpointId& id) {
    return std::string(kNamesPrefix) + network + "/" + id.str();
}

NameRow fitting(NameRow row) {
    std::vector<std::string> names;
    for (std::string& name : row.names) {
        std::transform(name.begin(), name.end(), name.begin(),
                       [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
        if (name.empty() || name.size() > kMaxName) continue;
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
    }
    row.names = std::move(names);
    std::sort(row.ports.begin(), row.ports.end());
    row.ports.erase(std::unique(row.ports.begin(), row.ports.end()), row.ports.end());
    if (row.names.size() > kMaxCount) row.names.resize(kMaxCount);
    if (row.ports.size() > kMaxCount) row.ports.resize(kMaxCount);
    while (encodedSize(row) > kMaxValue) {
        if (row.ports.empty()) {
            row.names.pop_back();
        } else {
            row.ports.pop_back();
        }
    }
    return row;
}

std::string encode(const NameRow& row) {
    kv::Writer out;
    out.u8(kVersion);
    out.u8(static_cast<uint8_t>(row.names.size()));
    for (const std::string& name : row.names) out.text8(name);
    out.u8(static_cast<uint8_t>(row.ports.size()));
    for (const ServicePort& port : row.ports) {
        out.u8(port.protocol);
        out.u16(port.port);
    }
    return {out.view().begin(), out.view().end()};
}

Result<NameRow> decodeNames(std::string_view value) {
    kv::Reader in(kv::asBytes(value));
    NameRow row;
    if (in.u8() != kVersion) in.fail();
    for (size_t left = in.u8(); left > 0 && in.ok(); --left) {
        row.names.push_back(in.text8(kMaxName));
        if (row.names.back().empty()) in.fail();
    }
    for (size_t left = in.u8(); left > 0 && in.ok(); --left) {
        const uint8_t protocol = in.u8();
        row.ports.push_back({protocol, in.u16()});
    }
    if (!in.done() || row.names.empty()) return makeError(ErrorCode::Corrupt, "malformed row of names");
    return row;
}

void OverlayNames::unindex(Network& network, const Owned& owned, const Entry& entry) {
    const auto drop = [&owned](auto& index, const auto& key) {
        const auto found = index.find(key);
        if (found == index.end()) return;
        found->second.erase(owned);
        if (found->second.empty()) index.erase(found);
    };
    if (entry.names) {
        for (const std::string& name : entry.names->names) drop(network.byName, name);
    }
    if (!entry.endpoint) return;
    if (entry.endpoint->v4) drop(network.byAddress, *entry.endpoint->v4);
    if (entry.endpoint->v6) drop(network.byAddress, *entry.endpoint->v6);
}

void OverlayNames::index(Network& network, const Owned& owned, const Entry& entry) {
    if (!entry.names || !entry.endpoint) return;
    for (const std::string& name : entry.names->names) network.byName[name].insert(owned);
    if (entry.endpoint->v4) network.byAddress[*entry.endpoint->v4].insert(owned);
    if (entry.endpoint->v6) network.byAddress[*entry.endpoint->v6].insert(owned);
}

void OverlayNames::apply(kv::RowEvent event, const kv::Row& row) {
    if (event == kv::RowEvent::Forgotten) return;
    const auto nameOf = parseNameKey(row.key);
    const auto key = nameOf ? nameOf : parseOverlayKey(row.key);
    if (!key || !key->endpoint) return;
    const Owned owned{row.owner, *key->endpoint};
    const std::lock_guard lock(mutex_);
    Network& network = networks_[key->network];
    Entry& entry = network.entries[owned];
    unindex(network, owned, entry);
    const bool there = event != kv::RowEvent::Deleted;
    if (nameOf) {
        entry.names.reset();
        if (there) {
            if (auto names = decodeNames(row.value)) {
                entry.names = *std::move(names);
            } else {
                logWarn("msg=\"ignore row\" key={} owner={} error={}", row.key, row.owner.brief(),
                        logValue(names.error().message));
            }
        }
    } else {
        entry.endpoint.reset();
        // The driver speaks of what is damaged.
        if (auto endpoint = there ? decodeEndpoint(row.value) : makeError(ErrorCode::NotFound, "")) {
            entry.endpoint = *endpoint;
        }
    }
    index(network, owned, entry);
    if (!entry.endpoint && !entry.names) network.entries.erase(owned);
    if (network.entries.empty()) networks_.erase(key->network);
}

void OverlayNames::onMember(const kv::Member& member) {
    const std::lock_guard lock(mutex_);
    if (member.state != kv::MemberState::Alive) {
        suspected_.insert(member.id);
    } else {
        suspected_.erase(member.id);
    }
}

void OverlayNames::forget(const kv::NodeId& host) {
    const std::lock_guard lock(mutex_);
    suspected_.erase(host);
    for (auto& [name, network] : networks_) {
        auto entry = network.entries.lower_bound({host, {}});
        while (entry != network.entries.end() && entry->first.first == host) {
            unindex(network, entry->first, entry->second);
            entry = network.entries.erase(entry);
        }
    }
    std::erase_if(networks_, [](const auto& network) { return network.second.entries.empty(); });
}

OverlayNames::Container OverlayNames::describe(const Owned& owned, const Entry& entry) const {
    return {owned.first,        entry.names->names.front(),       entry.endpoint->v4,  entry.endpoint->v6,
            entry.names->ports, suspected_.contains(owned.first), isAway_(owned.first)};
}

std::vector<OverlayNames::Container> OverlayNames::find(const std::string& network, std::string_view name) const {
    const std::lock_guard lock(mutex_);
    const auto found = networks_.find(network);
    if (found == networks_.end()) return {};
    const auto owners = found->second.byName.find(name);
    if (owners == found->second.byName.end()) return {};
    std::vector<Container> containers;
    containers.reserve(owners->second.size());
    for (const Owned& owned : owners->second) containers.push_back(describe(owned, found->second.entries.at(owned)));
    return containers;
}

std::optional<OverlayNames::Container> OverlayNames::at(const std::string& network, const IpAddress& address) const {
    const std::lock_guard lock(mutex_);
    const auto found = networks_.find(network);
    if (found == networks_.end()) return std::nullopt;
    const auto owners = found->second.byAddress.find(address);
    if (owners == found->second.byAddress.end()) return std::nullopt;
    // Of two that have one address the later is right, as for the tunnel's tables, and a host that is there.
    const auto later =
        std::max_element(owners->second.begin(), owners->second.end(), [&](const Owned& one, const Owned& other) {
            const auto rank = [&](const Owned& owned) {
                return std::tuple(!suspected_.contains(owned.first), found->second.entries.at(owned).endpoint->stamp,
                                  owned.first);
            };
            return rank(one) < rank(other);
        });
    return describe(*later, found->second.entries.at(*later));
}

}  // namespace weft
