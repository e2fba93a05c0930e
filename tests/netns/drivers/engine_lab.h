// A Docker host in a namespace, without Docker: EngineLab makes the calls that the engine makes, in its order, and
// moves links as it does.
//
//     outside 192.0.2.2, 2001:db8::2 --- eth0 192.0.2.1, 2001:db8::1, host (this thread) --- containers
//
// All daemon objects live on a state directory; restart() makes them anew on it, as a killed daemon's successor does.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "drivers/bridge/bridge_driver.h"
#include "drivers/host/host_driver.h"
#include "drivers/none/none_driver.h"
#include "ipam/database_lease_store.h"
#include "ipam/local_ipam.h"
#include "tests/unit/drivers/recording_firewall.h"
#include "tests/unit/drivers/scratch.h"

namespace weft {

// Runs in the namespace by nsenter and returns the output: eyes independent of the code under test.
std::string shellInside(const net::NetNs& ns, const std::string& command);

IpAddress ip(const std::string& text);
IpPrefix prefix(const std::string& text);
NetworkId networkId(int number);
EndpointId endpointId(int number);

struct Container {
    NetworkId networkId;
    EndpointId endpointId;
    std::optional<IpPrefix> address;
    std::optional<IpPrefix> addressV6;
    std::optional<MacAddress> mac;
    std::string sourceName;
    JoinReply join;
    net::NetNs ns;
};

// What the daemon is made of.
struct Daemon {
    std::unique_ptr<Database> database;
    std::unique_ptr<net::Netlink> netlink;
    std::unique_ptr<net::PortAllocator> ports;
    std::unique_ptr<net::PortProgram> portProgram;
    std::unique_ptr<ipam::DatabaseLeaseStore> leases;
    std::unique_ptr<ipam::LocalIpam> ipam;
    std::unique_ptr<RecordStore> records;
    std::unique_ptr<BridgeDriver> bridge;
    std::unique_ptr<HostDriver> host;
    std::unique_ptr<NoneDriver> none;
};

enum class RulesBy { Recorder, Iptc, Nft };

class EngineLab : public ::testing::Test {
protected:
    explicit EngineLab(RulesBy rules = RulesBy::Recorder) : rulesBy_(rules) {}

    void SetUp() override;
    // Nothing but the outside's wire may be left.
    void TearDown() override;

    // Kills nothing: destroys the objects and makes new ones. `reconciled` also does what the daemon does at start.
    void stop();
    void start(bool reconciled = true);
    void restart(bool reconciled = true) {
        stop();
        start(reconciled);
    }
    Daemon make(firewall::Firewall& firewall);

    // As `docker network create`, with addresses by weft's IPAM unless the request brings its own.
    CreateNetworkRequest networkRequest(int number, const std::string& subnet, const std::string& subnetV6 = {},
                                        std::map<std::string, std::string> options = {});
    void createNetwork(const CreateNetworkRequest& request) { must(d.bridge->createNetwork(request)); }

    CreateEndpointRequest endpointRequest(const CreateNetworkRequest& network, int number, const std::string& address,
                                          const std::string& addressV6 = {});
    // As `docker run -p`: CreateEndpoint, Join, move, ProgramExternalConnectivity.
    Container connect(NetworkDriver& driver, const CreateEndpointRequest& request,
                      std::vector<PortBinding> bindings = {});
    Container connect(const CreateEndpointRequest& request, std::vector<PortBinding> bindings = {}) {
        return connect(*d.bridge, request, std::move(bindings));
    }
    void enter(Container& container);         // the engine moves the link in and configures it
    void leaveSandbox(Container& container);  // the engine moves the link back
    // Revoke, Leave, the link comes back, DeleteEndpoint.
    void disconnect(NetworkDriver& driver, Container& container);
    void disconnect(Container& container) { disconnect(*d.bridge, container); }

    // One TCP or UDP exchange; the address the server saw, or nothing within the patience.
    static std::optional<IpAddress> reach(const net::NetNs& from, const IpAddress& to, uint16_t port,
                                          const net::NetNs& server, uint16_t serverPort, uint8_t protocol = 6,
                                          std::chrono::milliseconds patience = std::chrono::milliseconds(2000));
    static bool closed(const net::NetNs& from, const IpAddress& to, uint16_t port, const net::NetNs& server,
                       uint16_t serverPort, uint8_t protocol = 6) {
        return !reach(from, to, port, server, serverPort, protocol, std::chrono::milliseconds(200));
    }

    // Links with weft's names or marks on the host.
    std::vector<std::string> weftLinks();
    // Leases of endpoints (not gateways).
    size_t endpointLeases();
    std::vector<std::string> reconcile(bool dryRun = false);  // of the bridge: "kind object: action"

    RulesBy rulesBy_;
    std::optional<net::NetNs> host_;
    std::optional<net::NetNs> outside_;
    Scratch scratch_;
    ManualClock clock_;
    RecordingFirewall recorder_;
    std::unique_ptr<firewall::Firewall> backend_;
    Daemon d;
};

}  // namespace weft
