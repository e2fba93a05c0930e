#include "net/port_program.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "net/port_program_object.h"

namespace weft::net {

namespace {

// Behind what tc gives a filter without a preference, so that users' own filters come first.
constexpr uint32_t kPriority = 0xC000;
constexpr uint32_t kHandle = 1;
constexpr const char* kDropsMap = "drops";

Error failed(int error, std::string_view what) {
    return errnoError(-error, "port program: " + std::string(what));
}

bpf_tc_hook hookOf(LinkIndex link) {
    bpf_tc_hook hook{};
    hook.sz = sizeof hook;
    hook.ifindex = link;
    hook.attach_point = BPF_TC_INGRESS;
    return hook;
}

bpf_tc_opts filterOptions() {
    bpf_tc_opts filter{};
    filter.sz = sizeof filter;
    filter.handle = kHandle;
    filter.priority = kPriority;
    return filter;
}

// The ID of the program that is there; 0: none.
uint32_t attachedProgram(LinkIndex link) {
    const bpf_tc_hook hook = hookOf(link);
    bpf_tc_opts filter = filterOptions();
    return bpf_tc_query(&hook, &filter) == 0 ? filter.prog_id : 0;
}

// The map of that name of a program that somebody loaded, if its values are like ours.
UniqueFd mapOf(uint32_t programId, std::string_view name, uint32_t valueSize) {
    const UniqueFd program(bpf_prog_get_fd_by_id(programId));
    if (!program) return {};
    std::array<uint32_t, 16> ids{};
    bpf_prog_info info{};
    info.nr_map_ids = ids.size();
    info.map_ids = reinterpret_cast<uint64_t>(ids.data());
    uint32_t length = sizeof info;
    if (bpf_obj_get_info_by_fd(program.get(), &info, &length) != 0) return {};
    for (size_t i = 0; i < std::min<size_t>(info.nr_map_ids, ids.size()); ++i) {
        UniqueFd map(bpf_map_get_fd_by_id(ids[i]));
        bpf_map_info found{};
        length = sizeof found;
        if (!map || bpf_obj_get_info_by_fd(map.get(), &found, &length) != 0) continue;
        if (name == found.name && found.key_size == sizeof(uint32_t) && found.value_size == valueSize) return map;
    }
    return {};
}

PortEntry entryOf(const PortRules& rules) {
    PortEntry entry{};
    entry.segment = static_cast<uint32_t>(rules.segment);
    if (rules.fastPath) entry.flags |= kPortFast;
    if (rules.fewFloods) entry.flags |= kPortFewFloods;
    if (!rules.sender) return entry;
    entry.flags |= kPortChecked;
    if (rules.sender->anyAddress) entry.flags |= kPortAnyAddress;
    std::memcpy(entry.mac, rules.sender->mac.bytes().data(), sizeof entry.mac);
    if (rules.sender->v4) std::memcpy(&entry.v4, rules.sender->v4->bytes().data(), sizeof entry.v4);
    if (rules.sender->v6) std::memcpy(entry.v6, rules.sender->v6->bytes().data(), sizeof entry.v6);
    return entry;
}

// Those that it is to have for itself.
std::vector<IpAddress> addressesOf(const PortRules& rules) {
    std::vector<IpAddress> addresses;
    if (!rules.sender || !rules.sender->anyAddress) return addresses;
    for (const auto& address : {rules.sender->v4, rules.sender->v6}) {
        if (address) addresses.push_back(*address);
    }
    return addresses;
}

SegmentMac keyOf(LinkIndex segment, const MacAddress& mac) {
    SegmentMac key{};
    key.segment = static_cast<uint32_t>(segment);
    std::memcpy(key.mac, mac.bytes().data(), sizeof key.mac);
    return key;
}

SegmentAddress keyOf(LinkIndex segment, const IpAddress& address) {
    SegmentAddress key{};
    key.segment = static_cast<uint32_t>(segment);
    auto* bytes = reinterpret_cast<uint8_t*>(key.address);
    if (address.isV4()) {
        bytes[10] = bytes[11] = 0xff;
        std::memcpy(bytes + 12, address.bytes().data(), 4);
    } else {
        std::memcpy(bytes, address.bytes().data(), sizeof key.address);
    }
    return key;
}

}  // namespace

std::string_view dropName(PortDrop reason) {
    switch (reason) {
        case kDropMac:
            return "mac";
        case kDropIpv4:
            return "ipv4";
        case kDropIpv6:
            return "ipv6";
        case kDropArp:
            return "arp";
        case kDropNeighbour:
            return "nd";
        case kDropRouter:
            return "router";
        case kDropVlan:
            return "vlan";
        case kDropControl:
            return "control";
        case kDropMalformed:
            return "malformed";
        case kDropFlood:
            return "flood";
        case kPortDrops:
            break;
    }
    return "";
}

uint64_t sum(const DropCounts& counts) {
    return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

std::string describe(const DropCounts& counts) {
    std::string text;
    for (size_t i = 0; i < counts.size(); ++i) {
        if (counts[i] == 0) continue;
        text += text.empty() ? "" : ", ";
        text += std::string(dropName(static_cast<PortDrop>(i))) + " " + std::to_string(counts[i]);
    }
    return text;
}

void PortProgram::Close::operator()(bpf_object* object) const {
    bpf_object__close(object);
}

PortProgram::PortProgram(const NetNs& ns, bpf_object* object)
    : ns_(&ns),
      object_(object),
      program_(bpf_program__fd(bpf_object__find_program_by_name(object, "ingress"))),
      portsMap_(bpf_object__find_map_fd_by_name(object, "ports")),
      dropsMap_(bpf_object__find_map_fd_by_name(object, kDropsMap)),
      floodedMap_(bpf_object__find_map_fd_by_name(object, "flooded")),
      ownersMap_(bpf_object__find_map_fd_by_name(object, "owners")),
      macsMap_(bpf_object__find_map_fd_by_name(object, "macs")),
      linksMap_(bpf_object__find_map_fd_by_name(object, "links")) {}

PortProgram::~PortProgram() = default;

Result<std::unique_ptr<PortProgram>> PortProgram::load(const NetNs& ns, uint32_t mostMacs) {
    libbpf_set_print(nullptr);  // errors come back as errno
    bpf_object_open_opts options{};
    options.sz = sizeof options;
    options.object_name = "weft_port";
    std::unique_ptr<bpf_object, Close> object(
        bpf_object__open_mem(kPortProgramObject, sizeof kPortProgramObject, &options));
    if (!object) return failed(-errno, "open it");
    bpf_map__set_max_entries(bpf_object__find_map_by_name(object.get(), "macs"), mostMacs);
    if (const int error = bpf_object__load(object.get()); error != 0) {
        return makeError(ErrorCode::Unsupported, failed(error, "the kernel takes no BPF program").message);
    }
    std::unique_ptr<PortProgram> made(new PortProgram(ns, object.release()));
    bpf_prog_info info{};
    uint32_t length = sizeof info;
    if (bpf_obj_get_info_by_fd(made->program_, &info, &length) != 0) return failed(-errno, "look at it");
    made->programId_ = info.id;
    return made;
}

Result<bool> PortProgram::makeClsact(LinkIndex link) {
    bpf_tc_hook hook = hookOf(link);
    const int error = bpf_tc_hook_create(&hook);
    if (error != 0 && error != -EEXIST) return failed(error, "clsact on link " + std::to_string(link));
    return error == 0;
}

Result<void> PortProgram::attach(LinkIndex link) const {
    bpf_tc_hook hook = hookOf(link);
    bpf_tc_opts filter = filterOptions();
    filter.prog_fd = program_;
    filter.flags = BPF_TC_F_REPLACE;
    if (const int error = bpf_tc_attach(&hook, &filter); error != 0) {
        return failed(error, "filter on link " + std::to_string(link));
    }
    return {};
}

Result<void> PortProgram::setPort(LinkIndex link, const PortRules& rules) {
    const std::lock_guard lock(mutex_);
    const auto known = ports_.find(link);
    if (known != ports_.end() && known->second.rules == rules) return {};
    return runIn(*ns_, std::function<Result<void>()>([&]() -> Result<void> {
        for (const auto& address : addressesOf(rules)) WEFT_TRY(reserve(rules.segment, address, link));
        const PortEntry entry = entryOf(rules);
        if (const int error = bpf_map_update_elem(portsMap_, &link, &entry, BPF_ANY); error != 0) {
            return failed(error, "enter link " + std::to_string(link));
        }
        if (known != ports_.end()) {
            known->second.rules = rules;
            return {};
        }
        Port port{rules};
        PortDropCounts counts{};
        WEFT_ASSIGN(const bool isNew, makeClsact(link));
        if (const uint32_t earlier = isNew ? 0 : attachedProgram(link); earlier != 0 && earlier != programId_) {
            const UniqueFd map = mapOf(earlier, kDropsMap, sizeof counts);
            if (map && bpf_map_lookup_elem(map.get(), &link, &counts) == 0)
                std::copy(std::begin(counts.by), std::end(counts.by), port.before.begin());
        }
        int error = bpf_map_update_elem(dropsMap_, &link, &counts, BPF_ANY);
        if (error != 0) return failed(error, "enter link " + std::to_string(link));
        WEFT_TRY(attach(link));
        ports_.emplace(link, port);
        return {};
    }));
}

void PortProgram::removePort(LinkIndex link) {
    const std::lock_guard lock(mutex_);
    forget(link);
}

void PortProgram::prune() {
    const std::lock_guard lock(mutex_);
    std::set<LinkIndex> gone;
    const auto look = [&](LinkIndex link) {
        char name[IF_NAMESIZE];
        if (::if_indextoname(static_cast<unsigned>(link), name) == nullptr && errno == ENXIO) gone.insert(link);
    };
    static_cast<void>(runIn(*ns_, std::function<Result<bool>()>([&]() -> Result<bool> {
        for (const auto& [link, port] : ports_) look(link);
        for (const auto& [segment, macs] : macs_) look(segment);
        return true;
    })));
    for (const LinkIndex link : gone) {
        forget(link);
        while (macs_.contains(link)) eraseMac(link, macs_.at(link).begin()->first);
    }
}

void PortProgram::forget(LinkIndex link) {
    const auto known = ports_.find(link);
    if (known == ports_.end()) return;
    const DropCounts counts = read(link);
    for (size_t i = 0; i < counts.size(); ++i) past_[i] += counts[i] - known->second.before[i];
    for (const auto& address : addressesOf(known->second.rules)) {
        static_cast<void>(reserve(known->second.rules.segment, address, std::nullopt));
    }
    bpf_map_delete_elem(portsMap_, &link);
    bpf_map_delete_elem(dropsMap_, &link);
    bpf_map_delete_elem(floodedMap_, &link);
    ports_.erase(known);
}

bool PortProgram::isAttached(LinkIndex link) const {
    const auto look = [&] { return Result<bool>(attachedProgram(link) == programId_); };
    return runIn(*ns_, std::function<Result<bool>()>(look)).value_or(false);
}

Result<void> PortProgram::restore(LinkIndex link) {
    const std::lock_guard lock(mutex_);
    return runIn(*ns_, std::function<Result<void>()>([&]() -> Result<void> {
        WEFT_TRY(makeClsact(link));
        return attach(link);
    }));
}

Result<void> PortProgram::reserve(LinkIndex segment, const IpAddress& address, std::optional<LinkIndex> owner) const {
    const SegmentAddress key = keyOf(segment, address);
    const int error =
        owner ? bpf_map_update_elem(ownersMap_, &key, &*owner, BPF_ANY) : bpf_map_delete_elem(ownersMap_, &key);
    if (error == 0 || (!owner && error == -ENOENT)) return {};
    return failed(error, "reserve " + address.str());
}

// The device map takes links of the caller's namespace.
Result<void> PortProgram::enterMac(LinkIndex segment, const MacAddress& mac, LinkIndex port) {
    Macs& macs = macs_[segment];
    const auto known = macs.find(mac);
    if (known != macs.end() && known->second == port) return {};
    const SegmentMac key = keyOf(segment, mac);
    int error = bpf_map_update_elem(linksMap_, &port, &port, BPF_ANY);
    if (error == 0) error = bpf_map_update_elem(macsMap_, &key, &port, BPF_ANY);
    if (error == 0) {
        macs[mac] = port;
        return {};
    }
    eraseMac(segment, mac);
    return failed(error, "enter " + mac.str());
}

void PortProgram::eraseMac(LinkIndex segment, const MacAddress& mac) {
    const auto macs = macs_.find(segment);
    if (macs == macs_.end()) return;
    if (macs->second.erase(mac) != 0) {
        const SegmentMac key = keyOf(segment, mac);
        bpf_map_delete_elem(macsMap_, &key);
    }
    if (macs->second.empty()) macs_.erase(macs);
}

Result<void> PortProgram::setMac(LinkIndex segment, const MacAddress& mac, LinkIndex port) {
    const std::lock_guard lock(mutex_);
    return runIn(*ns_, std::function<Result<void>()>([&] { return enterMac(segment, mac, port); }));
}

void PortProgram::removeMac(LinkIndex segment, const MacAddress& mac) {
    const std::lock_guard lock(mutex_);
    eraseMac(segment, mac);
}

Result<void> PortProgram::setMacs(LinkIndex segment, const Macs& macs) {
    const std::lock_guard lock(mutex_);
    if (const auto known = macs_.find(segment); known != macs_.end()) {
        for (const auto& [mac, port] : Macs(known->second)) {
            if (!macs.contains(mac)) eraseMac(segment, mac);
        }
    }
    return runIn(*ns_, std::function<Result<void>()>([&] {
        Result<void> outcome;
        for (const auto& [mac, port] : macs) {
            auto done = enterMac(segment, mac, port);
            if (!done && outcome) outcome = std::move(done);
        }
        return outcome;
    }));
}

DropCounts PortProgram::read(LinkIndex link) const {
    DropCounts all{};
    PortDropCounts counts{};
    if (bpf_map_lookup_elem(dropsMap_, &link, &counts) == 0)
        std::copy(std::begin(counts.by), std::end(counts.by), all.begin());
    return all;
}

std::optional<PortRules> PortProgram::rules(LinkIndex link) const {
    const std::lock_guard lock(mutex_);
    const auto known = ports_.find(link);
    return known == ports_.end() ? std::nullopt : std::optional(known->second.rules);
}

DropCounts PortProgram::drops(LinkIndex link) const {
    const std::lock_guard lock(mutex_);
    return read(link);
}

DropCounts PortProgram::allDrops() const {
    const std::lock_guard lock(mutex_);
    DropCounts all = past_;
    for (const auto& [link, port] : ports_) {
        const DropCounts counts = read(link);
        for (size_t i = 0; i < all.size(); ++i) all[i] += counts[i] - port.before[i];
    }
    return all;
}

}  // namespace weft::net
