#include "net/sysctl.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "base/unique_fd.h"

namespace weft::net {

namespace {

// /proc/sys/net shows the namespace of the thread that opens it, unlike /proc/net (the process leader's).
Result<UniqueFd> openSysctl(const std::string& name, int flags) {
    UniqueFd fd(::open(("/proc/sys/" + name).c_str(), flags | O_CLOEXEC));
    if (!fd) return errnoError(errno, "sysctl " + name);
    return fd;
}

bool parsePort(std::string_view text, uint16_t& port) {
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), port);
    return failure == std::errc() && end == text.data() + text.size();
}

}  // namespace

Result<std::string> readSysctl(const std::string& name) {
    WEFT_ASSIGN(const UniqueFd fd, openSysctl(name, O_RDONLY));
    std::string value;
    char buffer[4096];
    for (;;) {
        const ssize_t length = ::read(fd.get(), buffer, sizeof buffer);
        if (length < 0) return errnoError(errno, "sysctl " + name);
        if (length == 0) break;
        value.append(buffer, static_cast<size_t>(length));
    }
    while (!value.empty() && value.back() == '\n') value.pop_back();
    return value;
}

Result<bool> setSysctl(const std::string& name, std::string_view value) {
    WEFT_ASSIGN(const std::string now, readSysctl(name));
    if (now == value) return false;
    WEFT_ASSIGN(const UniqueFd fd, openSysctl(name, O_WRONLY));
    // One write: the kernel takes the value from the first.
    if (::write(fd.get(), value.data(), value.size()) < 0) {
        return errnoError(errno, "sysctl " + name + "=" + std::string(value));
    }
    return true;
}

Result<void> makeSysctlsWritable() {
    constexpr unsigned long kFlags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (::mount(nullptr, "/proc/sys", nullptr, kFlags, nullptr) == 0) return {};
    // Not a mount of its own, so as writable as /proc.
    if (errno == EINVAL) return {};
    return errnoError(errno, "make /proc/sys writable");
}

std::string linkSysctl(IpFamily family, std::string_view link, std::string_view setting) {
    std::string name = family == IpFamily::V4 ? "net/ipv4/conf/" : "net/ipv6/conf/";
    return name.append(link).append("/").append(setting);
}

Result<std::vector<PortRange>> parsePortList(std::string_view text) {
    std::vector<PortRange> ranges;
    while (!text.empty()) {
        const size_t comma = text.find(',');
        const std::string_view item = text.substr(0, comma);
        text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
        const size_t dash = item.find('-');
        PortRange range;
        const bool good = parsePort(item.substr(0, dash), range.first) &&
                          (dash == std::string_view::npos ? (range.last = range.first, true)
                                                          : parsePort(item.substr(dash + 1), range.last)) &&
                          range.first <= range.last;
        if (!good) return makeError(ErrorCode::InvalidArgument, "port list: bad item \"" + std::string(item) + "\"");
        ranges.push_back(range);
    }
    return ranges;
}

Result<PortRange> ephemeralPorts() {
    WEFT_ASSIGN(std::string text, readSysctl("net/ipv4/ip_local_port_range"));
    for (char& c : text) {
        if (c == '\t' || c == ' ') c = '-';
    }
    WEFT_ASSIGN(const std::vector<PortRange> ranges, parsePortList(text));
    if (ranges.size() != 1) return makeError(ErrorCode::Kernel, "ip_local_port_range: \"" + text + "\"");
    return ranges.front();
}

Result<std::vector<PortRange>> reservedPorts() {
    WEFT_ASSIGN(const std::string text, readSysctl("net/ipv4/ip_local_reserved_ports"));
    return parsePortList(text);
}

bool bridgeCallsIptables(IpFamily family) {
    const auto value = readSysctl(family == IpFamily::V4 ? "net/bridge/bridge-nf-call-iptables"
                                                         : "net/bridge/bridge-nf-call-ip6tables");
    return value && *value == "1";
}

}  // namespace weft::net
