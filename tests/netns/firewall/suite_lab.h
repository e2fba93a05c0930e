// The lab of the firewall suite: a Docker host with bridges, containers and an outside, each a namespace of its own.
//
//                     +-- br-a (nat)            a1, a2
//     outside -- host +-- br-b (nat)            b1
//                     +-- br-i (internal)       i1, i2
//                     +-- br-r (routed)         r1
//                     +-- br-p (nat, no masq.)  p1
//
// All are dual stack. The outside routes every subnet to the host, as a hostile neighbour would. The namespaces have
// no names: they end with the test, however it ends.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/unique_fd.h"
#include "firewall/firewall.h"

namespace weft::firewall::suite {

enum class Place : uint8_t { Host, Outside, A1, A2, B1, I1, I2, R1, P1 };
constexpr size_t kPlaces = 9;

enum class Net : uint8_t { A, B, I, R, P };

constexpr uint8_t kTcp = 6, kUdp = 17, kSctp = 132;
constexpr uint16_t kResolverPort = 7953;
inline constexpr std::array kFamilies = {IpFamily::V4, IpFamily::V6};

IpAddress ip(const std::string& text);
IpAddress address(Place place, IpFamily family);  // Host: its address on the uplink
IpAddress secondHostAddress(IpFamily family);
IpAddress gateway(Net net, IpFamily family);
IpAddress loopback(IpFamily family);

// A network as the driver would describe it to the firewall, and an endpoint in it that publishes one port.
Network network(Net net);
Endpoint endpoint(const std::string& id, Net net, std::vector<PublishedPort> ports);

// An exchange of packets: a client at `from` asks `to`:`port` while `server` listens on `serverPort`.
struct Probe {
    Place from;
    IpAddress to;
    uint16_t port;
    Place server;
    uint16_t serverPort;
    uint8_t protocol = kTcp;
    std::optional<IpAddress> bind = std::nullopt;    // the client's source address
    std::optional<IpAddress> listen = std::nullopt;  // the server's address; none: any
    uint16_t bindPort = 0;                           // with `bind`: the client's port; 0: any
};

class Lab {
public:
    explicit Lab(bool bridgeNetfilter);  // enters the host's namespace
    ~Lab();                              // and goes back
    Lab(const Lab&) = delete;
    Lab& operator=(const Lab&) = delete;

    // Runs a shell command there and returns what it printed; the test fails if the command does.
    std::string run(Place place, const std::string& command);

    // The client's address as the server saw it, once request and reply both arrived; none if they did not. With
    // `oneWay` a request that reaches the server is enough.
    std::optional<IpAddress> exchange(const Probe& probe, std::chrono::milliseconds patience, bool oneWay);

    // Whether an echo request is answered.
    bool ping(Place from, const IpAddress& to);

private:
    void build(bool bridgeNetfilter);
    void inside(Place place, const std::function<void()>& work);

    UniqueFd home_;
    std::array<UniqueFd, kPlaces> namespaces_;
};

// A back end and how to hurt it from outside.
struct Subject {
    std::string name;
    std::function<std::unique_ptr<Firewall>()> make;
    std::string dump;  // a command that prints its rules; equal rule sets print equal texts, but for [1:40] counters
    struct Damage {
        std::string what;
        std::string command;
    };
    std::vector<Damage> damages;
};
const std::vector<Subject>& subjects();

}  // namespace weft::firewall::suite
