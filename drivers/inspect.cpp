#include "drivers/inspect.h"

namespace weft {

std::vector<NetworkInfo> networkInfos(const RecordStore& records, std::string_view mode) {
    std::vector<NetworkInfo> infos;
    for (const NetworkPtr& record : records.networks(mode)) {
        NetworkInfo info;
        info.id = record->request.networkId;
        info.link = record->link;
        for (const auto* family : {&record->request.ipv4, &record->request.ipv6}) {
            for (const IpamData& data : *family) info.subnets.push_back(data.pool.network());
        }
        info.mtu = record->mtu;
        info.internal = record->request.internal;
        if (mode == "bridge" || mode == "overlay") {
            const auto option = record->request.options.find(kSpoofOption);
            info.spoof = option != record->request.options.end() && option->second == "allow";
        }
        info.created = record->created;
        info.endpoints = records.endpointCount(info.id);
        infos.push_back(std::move(info));
    }
    return infos;
}

std::vector<EndpointInfo> endpointInfos(const RecordStore& records, std::string_view mode) {
    std::vector<EndpointInfo> infos;
    for (const NetworkPtr& network : records.networks(mode)) {
        for (const EndpointPtr& record : records.endpoints(network->request.networkId)) {
            EndpointInfo info;
            info.id = record->endpointId;
            info.networkId = record->networkId;
            info.link = record->link;
            info.address = record->address;
            info.addressV6 = record->addressV6;
            info.mac = record->mac;
            info.sandboxKey = record->sandboxKey;
            info.ports = record->published;
            info.phase = record->phase;
            info.created = record->created;
            infos.push_back(std::move(info));
        }
    }
    return infos;
}

}  // namespace weft
