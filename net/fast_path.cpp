#include "net/fast_path.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <functional>
#include <string>

#include "net/fast_path_object.h"

namespace weft::net {

namespace {

// Behind what tc gives a filter without a preference, so that users' own filters come first.
constexpr uint32_t kPriority = 0xC000;

Error failed(int error, std::string_view what) {
    return errnoError(-error, "fast path: " + std::string(what));
}

}  // namespace

void FastPath::Close::operator()(bpf_object* object) const {
    bpf_object__close(object);
}

FastPath::FastPath(const NetNs& ns, bpf_object* object)
    : ns_(&ns),
      object_(object),
      table_(bpf_object__find_map_fd_by_name(object, "ports")),
      links_(bpf_object__find_map_fd_by_name(object, "links")),
      program_(bpf_program__fd(bpf_object__find_program_by_name(object, "forward"))) {}

Result<FastPath> FastPath::load(const NetNs& ns) {
    libbpf_set_print(nullptr);  // errors come back as errno
    bpf_object_open_opts options{};
    options.sz = sizeof options;
    options.object_name = "weft_fast_path";
    std::unique_ptr<bpf_object, Close> object(bpf_object__open_mem(kFastPathObject, sizeof kFastPathObject, &options));
    if (!object) return failed(-errno, "open its program");
    if (const int error = bpf_object__load(object.get()); error != 0) {
        return makeError(ErrorCode::Unsupported, failed(error, "the kernel takes no BPF program").message);
    }
    return FastPath(ns, object.release());
}

Result<void> FastPath::setPorts(const Ports& ports) {
    return runIn(*ns_, std::function<Result<void>()>([&] { return enter(ports); }));
}

Result<void> FastPath::enter(const Ports& ports) {
    Result<void> outcome;
    for (auto entry = ports_.begin(); entry != ports_.end();) {
        if (ports.contains(entry->first)) {
            ++entry;
            continue;
        }
        bpf_map_delete_elem(table_, entry->first.bytes().data());
        entry = ports_.erase(entry);
    }
    for (const auto& [mac, link] : ports) {
        const auto known = ports_.find(mac);
        if (known != ports_.end() && known->second == link) continue;
        int error = bpf_map_update_elem(links_, &link, &link, BPF_ANY);
        if (error == 0) error = bpf_map_update_elem(table_, mac.bytes().data(), &link, BPF_ANY);
        if (error == 0) {
            ports_[mac] = link;
            continue;
        }
        if (known != ports_.end()) {
            bpf_map_delete_elem(table_, mac.bytes().data());
            ports_.erase(known);
        }
        if (outcome) outcome = failed(error, "enter " + mac.str());
    }
    return outcome;
}

Result<void> FastPath::attach(LinkIndex link) {
    return runIn(*ns_, std::function<Result<void>()>([&]() -> Result<void> {
        bpf_tc_hook hook{};
        hook.sz = sizeof hook;
        hook.ifindex = link;
        hook.attach_point = BPF_TC_INGRESS;
        if (const int error = bpf_tc_hook_create(&hook); error != 0 && error != -EEXIST) {
            return failed(error, "clsact on link " + std::to_string(link));
        }
        bpf_tc_opts filter{};
        filter.sz = sizeof filter;
        filter.prog_fd = program_;
        filter.flags = BPF_TC_F_REPLACE;
        filter.handle = 1;
        filter.priority = kPriority;
        if (const int error = bpf_tc_attach(&hook, &filter); error != 0) {
            return failed(error, "filter on link " + std::to_string(link));
        }
        return {};
    }));
}

}  // namespace weft::net
