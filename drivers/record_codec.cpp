#include "drivers/record_codec.h"

#include <charconv>

namespace weft {

FieldWriter& FieldWriter::add(std::string_view text) {
    out_ += std::to_string(text.size()) + ":";
    out_ += text;
    out_ += ",";
    return *this;
}

std::string FieldReader::text() {
    size_t size = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), size);
    const auto digits = static_cast<size_t>(end - rest_.data());
    const size_t left = rest_.size() - digits;
    // left holds ':' text ','
    if (failed_ || error != std::errc() || left < 2 || *end != ':' || size > left - 2 ||
        rest_[digits + 1 + size] != ',') {
        failed_ = true;
        rest_ = {};
        return {};
    }
    std::string field(rest_.substr(digits + 1, size));
    rest_.remove_prefix(digits + size + 2);
    return field;
}

uint64_t FieldReader::number(uint64_t high) {
    const std::string field = text();
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), number);
    if (error != std::errc() || end != field.data() + field.size() || number > high) {
        failed_ = true;
        return 0;
    }
    return number;
}

size_t FieldReader::count() {
    return number(rest_.size() / 3);  // the shortest field is "0:,"
}

Result<void> FieldReader::finish() const {
    if (failed_ || !rest_.empty()) return makeError(ErrorCode::Corrupt, "damaged field list");
    return {};
}

namespace {

constexpr uint64_t kFormat = 1;

IpPrefix readPrefix(FieldReader& in) {
    auto parsed = IpPrefix::parse(in.text());
    if (!parsed) in.fail();
    return parsed.value_or(IpPrefix());
}

IpAddress readAddress(FieldReader& in) {
    auto parsed = IpAddress::parse(in.text());
    if (!parsed) in.fail();
    return parsed.value_or(IpAddress());
}

IpProtocol readProtocol(FieldReader& in) {
    const auto number = in.number(255);
    switch (number) {
        case 1:
        case 6:
        case 17:
        case 132:
            return static_cast<IpProtocol>(number);
        default:
            in.fail();
            return IpProtocol::Tcp;
    }
}

void writeIpam(FieldWriter& out, const std::vector<IpamData>& list) {
    out.add(list.size());
    for (const IpamData& data : list) {
        out.add(data.addressSpace).add(data.pool.str()).add(data.gateway ? data.gateway->str() : "");
        out.add(data.auxAddresses.size());
        for (const auto& [name, prefix] : data.auxAddresses) out.add(name).add(prefix.str());
    }
}

std::vector<IpamData> readIpam(FieldReader& in) {
    std::vector<IpamData> list;
    for (size_t left = in.count(); left > 0 && !in.failed(); --left) {
        IpamData data;
        data.addressSpace = in.text();
        data.pool = readPrefix(in);
        if (const std::string gateway = in.text(); !gateway.empty()) {
            auto parsed = IpPrefix::parse(gateway);
            if (!parsed) in.fail();
            data.gateway = parsed.value_or(IpPrefix());
        }
        for (size_t aux = in.count(); aux > 0 && !in.failed(); --aux) {
            std::string name = in.text();
            data.auxAddresses.emplace(std::move(name), readPrefix(in));
        }
        list.push_back(std::move(data));
    }
    return list;
}

void expectFormat(FieldReader& in) {
    if (in.number() != kFormat) in.fail();
}

}  // namespace

std::string encodeNetwork(const CreateNetworkRequest& request) {
    FieldWriter out;
    out.add(kFormat).add(request.networkId.str());
    out.add(request.internal ? 1 : 0).add(request.enableIpv4 ? 1 : 0).add(request.enableIpv6 ? 1 : 0);
    out.add(request.options.size());
    for (const auto& [name, value] : request.options) out.add(name).add(value);
    writeIpam(out, request.ipv4);
    writeIpam(out, request.ipv6);
    return out.take();
}

Result<CreateNetworkRequest> decodeNetwork(std::string_view text) {
    FieldReader in(text);
    expectFormat(in);
    CreateNetworkRequest request;
    request.networkId = NetworkId(in.text());
    request.internal = in.number(1) == 1;
    request.enableIpv4 = in.number(1) == 1;
    request.enableIpv6 = in.number(1) == 1;
    for (size_t left = in.count(); left > 0 && !in.failed(); --left) {
        std::string name = in.text();
        request.options.emplace(std::move(name), in.text());
    }
    request.ipv4 = readIpam(in);
    request.ipv6 = readIpam(in);
    WEFT_TRY(in.finish());
    return request;
}

std::string encodePorts(const PortOptions& ports) {
    FieldWriter out;
    out.add(kFormat).add(ports.bindings.size());
    for (const PortBinding& binding : ports.bindings) {
        out.add(static_cast<uint64_t>(binding.protocol)).add(binding.containerPort);
        out.add(binding.hostIp ? binding.hostIp->str() : "").add(binding.hostPort).add(binding.hostPortEnd);
    }
    out.add(ports.exposed.size());
    for (const ExposedPort& port : ports.exposed) out.add(static_cast<uint64_t>(port.protocol)).add(port.port);
    return out.take();
}

Result<PortOptions> decodePorts(std::string_view text) {
    FieldReader in(text);
    expectFormat(in);
    PortOptions ports;
    for (size_t left = in.count(); left > 0 && !in.failed(); --left) {
        PortBinding binding;
        binding.protocol = readProtocol(in);
        binding.containerPort = static_cast<uint16_t>(in.number(UINT16_MAX));
        if (const std::string hostIp = in.text(); !hostIp.empty()) {
            auto parsed = IpAddress::parse(hostIp);
            if (!parsed) in.fail();
            binding.hostIp = parsed.value_or(IpAddress());
        }
        binding.hostPort = static_cast<uint16_t>(in.number(UINT16_MAX));
        binding.hostPortEnd = static_cast<uint16_t>(in.number(UINT16_MAX));
        ports.bindings.push_back(binding);
    }
    for (size_t left = in.count(); left > 0 && !in.failed(); --left) {
        ExposedPort port;
        port.protocol = readProtocol(in);
        port.port = static_cast<uint16_t>(in.number(UINT16_MAX));
        ports.exposed.push_back(port);
    }
    WEFT_TRY(in.finish());
    return ports;
}

std::string encodePublished(const std::vector<firewall::PublishedPort>& ports) {
    FieldWriter out;
    out.add(kFormat).add(ports.size());
    for (const firewall::PublishedPort& port : ports) {
        out.add(port.protocol).add(port.hostIp.str()).add(port.hostPort);
        out.add(port.containerIp.str()).add(port.containerPort);
    }
    return out.take();
}

Result<std::vector<firewall::PublishedPort>> decodePublished(std::string_view text) {
    FieldReader in(text);
    expectFormat(in);
    std::vector<firewall::PublishedPort> ports;
    for (size_t left = in.count(); left > 0 && !in.failed(); --left) {
        firewall::PublishedPort port;
        port.protocol = static_cast<uint8_t>(in.number(UINT8_MAX));
        port.hostIp = readAddress(in);
        port.hostPort = static_cast<uint16_t>(in.number(UINT16_MAX));
        port.containerIp = readAddress(in);
        port.containerPort = static_cast<uint16_t>(in.number(UINT16_MAX));
        if (port.hostIp.family() != port.containerIp.family()) in.fail();
        ports.push_back(port);
    }
    WEFT_TRY(in.finish());
    return ports;
}

}  // namespace weft
