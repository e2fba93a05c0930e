// Service: the gossip store at work in a process. One thread of its own runs the Node over real sockets (UDP and TCP
// on one port), a real clock and the daemon's database.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/database.h"
#include "base/metrics.h"
#include "base/result.h"
#include "kv/runner.h"

namespace weft::kv {

// As the user typed it; the names are those of weftd's flags.
struct ServiceConfig {
    std::string nodeName;           // empty: the host's name
    std::string cluster = "weft";   // authenticated with every packet
    std::string bind;               // ADDR[:PORT]; empty: the advertised address
    std::string advertise;          // ADDR[:PORT]; empty: the source address of the route to the seeds, or the default
    std::vector<std::string> join;  // ADDR[:PORT] or NAME[:PORT], asked for ever; a name is resolved anew each time
    std::string keyFile;            // empty, and no key: a cluster of one, no socket is opened
    // In place of a key file: a key to begin with. The ring is kept in stateDir, and rotates there; another key than
    // the last time takes the ring's place.
    std::string key;
    std::string stateDir;  // holds node.key, the identity
    bool strict = false;   // refuse the wire of weft up to c52709e at once, not only when all members speak the later
};

// ADDR[:PORT], [V6]:PORT, or with `allowName` NAME[:PORT]: whether it is one. InvalidArgument with the shape expected.
Result<void> checkEndpointText(const std::string& text, bool allowName);

// One key of the ring, without its secret.
struct KeyInfo {
    KeyId id = 0;
    bool primary = false;
};

// The row of each node that says which keys it has; its value is secret.
inline constexpr std::string_view kKeyringRow = "weft/keyring";

class Service : public Runner {
public:
    // Its tables in the daemon's database: own rows, members, epoch.
    static SchemaComponent schema();

    // Loads or makes the identity, raises the epoch durably, opens the sockets and starts the thread. Errors name the
    // flag or file at fault and what to do: a key file others may read, an address that is not this host's, a port in
    // use. The references must outlive the service.
    static Result<std::unique_ptr<Service>> start(ServiceConfig config, Database& database, Metrics& metrics);

    // Says goodbye to the others (at most `patience`), then ends the thread. A daemon that restarts in a moment does
    // not call it: its rows must not be suspended for that.
    virtual void leave(std::chrono::milliseconds patience) = 0;

    // Set at start, any thread.
    [[nodiscard]] virtual const NodeId& id() const = 0;
    [[nodiscard]] virtual const std::string& nodeName() const = 0;
    [[nodiscard]] virtual const std::string& cluster() const = 0;
    // Where the others reach this node; its address is the host's VTEP. Without a key file: the address it would have.
    [[nodiscard]] virtual const Address& advertised() const = 0;
    // Addresses of --join; none while a name among them was never resolved.
    [[nodiscard]] virtual std::optional<std::vector<Address>> seeds() const = 0;
    // Hosts to ask beside those, until they are removed: somebody else knows of them. At this node's own port.
    virtual void addSeed(const IpAddress& host) = 0;
    virtual void removeSeed(const IpAddress& host) = 0;
    [[nodiscard]] virtual bool alone() const = 0;  // no key: a cluster of one

    // The ring, cluster-wide: each change is a row `weft/keyring` of a higher generation that every member adopts and
    // writes to its key file. `use` is refused while a living member lacks the key, `remove` while one still seals
    // with it: the error names them. Persisted here before they return; success only when every living member has taken
    // the change over. Busy names those that have not within five seconds: the change stands, they take it later.
    virtual Result<std::vector<KeyInfo>> keys() = 0;
    virtual Result<void> addKey(const Key& key) = 0;
    virtual Result<void> useKey(KeyId id) = 0;
    virtual Result<void> removeKey(KeyId id) = 0;

    // The operator's word that this host's old identity is not to come back: the next start has a new one, with this
    // host's leases and networks, and without what the old one held or promised. It joins the others' ledger and begins
    // none (Origin); with `first` it begins one, for no host of the old one is left. Durable when it returns.
    virtual Result<void> renewIdentity(bool first) = 0;

    // What a person should know: two nodes of one name, an identity running twice, seeds that never answered, members
    // of the old wire, who costs too much, clocks that are off.
    [[nodiscard]] virtual std::vector<std::string> warnings() = 0;
};

}  // namespace weft::kv
