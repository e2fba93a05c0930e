// Docker's JSON to typed requests, and typed replies to JSON. The only place that knows the field names.
//
// Decoders take the body as it came. Errors are InvalidArgument and name the field and what was expected there
// ("IPv4Data[0].Pool: expected a prefix such as 10.0.0.0/24, got \"10.0.0.0\""). Unknown fields are ignored; null
// counts as absent. Field names are the engine's, exact in case.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "drivers/network_driver.h"
#include "ipam/address_manager.h"

namespace weft::driver {

struct EndpointKey {
    NetworkId networkId;
    EndpointId endpointId;
};

struct ReleaseAddressRequest {
    ipam::PoolId poolId;
    IpAddress address;
};

// DiscoverNew, DiscoverDelete: a node of the swarm that this engine is part of.
struct DiscoveredNode {
    IpAddress address;
    bool self = false;
};

Result<CreateNetworkRequest> decodeCreateNetwork(std::string_view body);
Result<AllocateNetworkRequest> decodeAllocateNetwork(std::string_view body);
Result<std::optional<DiscoveredNode>> decodeDiscovery(std::string_view body);  // none: of another kind
Result<NetworkId> decodeNetworkId(std::string_view body);                      // DeleteNetwork, FreeNetwork
Result<CreateEndpointRequest> decodeCreateEndpoint(std::string_view body);
Result<EndpointKey> decodeEndpointKey(std::string_view body);  // DeleteEndpoint, Leave, Revoke, EndpointOperInfo
Result<JoinRequest> decodeJoin(std::string_view body);
Result<ProgramExternalConnectivityRequest> decodeProgramExternalConnectivity(std::string_view body);

Result<ipam::PoolRequest> decodePoolRequest(std::string_view body);
Result<ipam::PoolId> decodePoolId(std::string_view body);  // ReleasePool
Result<ipam::AddressRequest> decodeAddressRequest(std::string_view body);
Result<ReleaseAddressRequest> decodeReleaseAddress(std::string_view body);

// A field that is unset is left out: to the engine a field it sent and gets back counts as modified.
std::string encode(const CreateEndpointReply& reply);
std::string encode(const JoinReply& reply);
std::string encodeOptions(const std::map<std::string, std::string>& options);  // of AllocateNetwork
std::string encode(const ipam::PoolReply& reply);
std::string encodeAddress(const IpPrefix& address);
// {"Err":TEXT,"Error":TEXT}: the engine reads one or the other, by API and HTTP status.
std::string encodeError(std::string_view text);

}  // namespace weft::driver
