#include "kv/service.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <sodium.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "base/deadline.h"
#include "base/log.h"
#include "base/printable.h"
#include "kv/database_storage.h"
#include "kv/keyring_row.h"
#include "kv/own_rows.h"
#include "kv/socket_address.h"
#include "kv/socket_transport.h"
#include "kv/wire.h"

namespace weft::kv {

namespace {

using namespace std::chrono_literals;

constexpr const char* kGivenKeySetting = "given-key";  // ServiceConfig::key as of the last start
constexpr const char* kFirstSetting = "first";         // the next identity, if it is to be Origin::First
constexpr const char* kKeyringSetting = "keyring";     // "generation ring" as of the last change by this service
constexpr auto kResolveEvery = 30s;
constexpr auto kPatience = 5s;
constexpr const char* kKeyringIntent = "keyring-intent";  // the same, of a change that is being written to the file
constexpr auto kPublishEvery = 1s;
constexpr auto kClockSlack = 300s;    // told when a clock is off by more
constexpr size_t kMemberLines = 100;  // in the log, each kMemberLinesFor; the rest is counted
constexpr auto kMemberLinesFor = 60s;
constexpr size_t kMaxHolders = 8192;  // names remembered, beside those of members
constexpr const char* kDoubtWarning =
    "this host's memory is not what others heard of it: its state was lost or put back from a copy, or another host "
    "uses "
    "its identity. It gives no addresses of overlays out until the others have told it what it promised";
constexpr size_t kSmallestPacket = 1280 - 48;  // the smallest MTU of IPv6, RFC 8200
constexpr size_t kLargestPacket = 1500 - 28;

// Counts the time that the host slept: suspicion, leases and tombstones are about the world's time.
class BootClock final : public Clock {
public:
    [[nodiscard]] Monotonic now() const override {
        timespec time{};
        ::clock_gettime(CLOCK_BOOTTIME, &time);
        return Monotonic(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
    }
    [[nodiscard]] Wall wall() const override { return std::chrono::system_clock::now(); }
};

struct EndpointText {
    std::string host;  // an address or a name
    uint16_t port = kDefaultPort;
};

Result<EndpointText> split(const std::string& text, uint16_t defaultPort = kDefaultPort) {
    EndpointText parts;
    parts.port = defaultPort;
    std::optional<std::string> port;
    if (text.starts_with('[')) {
        const size_t end = text.find(']');
        parts.host = text.substr(1, end == std::string::npos ? end : end - 1);
        const std::string rest = end == std::string::npos ? "?" : text.substr(end + 1);
        if (!rest.empty() && !rest.starts_with(':')) parts.host.clear();
        if (!rest.empty()) port = rest.substr(1);
    } else if (const size_t colon = text.find(':'); colon != text.rfind(':')) {
        parts.host = text;  // IPv6 without a port
    } else {
        parts.host = text.substr(0, colon);
        if (colon != std::string::npos) port = text.substr(colon + 1);
    }
    if (port) {
        const std::string_view digits = *port;
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), parts.port);
        if (error != std::errc() || end != digits.data() + digits.size()) parts.host.clear();
    }
    if (parts.host.empty()) {
        return makeError(ErrorCode::InvalidArgument,
                         "\"" + text + "\": expected ADDR[:PORT], with IPv6 as [ADDR]:PORT, such as 192.0.2.1:7950");
    }
    return parts;
}

Result<Address> parseAddress(const std::string& text, uint16_t defaultPort = kDefaultPort) {
    WEFT_ASSIGN(const EndpointText parts, split(text, defaultPort));
    const auto ip = IpAddress::parse(parts.host);
    if (!ip) {
        return makeError(ErrorCode::InvalidArgument,
                         "\"" + text + "\": expected ADDR[:PORT], such as 192.0.2.1 or [2001:db8::1]:7950");
    }
    return Address{*ip, parts.port};
}

bool isHostName(const std::string& text) {
    return std::all_of(text.begin(), text.end(),
                       [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_'; });
}

// Blocks on DNS.
std::vector<Address> resolve(const EndpointText& seed) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_DGRAM;
    addrinfo* found = nullptr;
    if (::getaddrinfo(seed.host.c_str(), nullptr, &hints, &found) != 0) return {};
    std::vector<Address> all;
    for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
        SocketAddress name;
        std::copy_n(reinterpret_cast<const uint8_t*>(one->ai_addr), std::min(one->ai_addrlen, SocketAddress::kRoom),
                    reinterpret_cast<uint8_t*>(name.get()));
        if (const auto address = name.address()) all.push_back({address->ip, seed.port});
    }
    ::freeaddrinfo(found);
    return all;
}

// The content of a file of secrets. PermissionDenied when anybody but us and root may read it.
Result<std::string> readSecret(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return errnoError(errno, "open " + path);
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return errnoError(errno, "stat " + path);
    if ((info.st_mode & 077) != 0) {
        return makeError(ErrorCode::PermissionDenied, path + ": others may read this secret: chmod 600 " + path);
    }
    if (info.st_uid != 0 && info.st_uid != ::geteuid()) {
        return makeError(ErrorCode::PermissionDenied, path + ": this secret is another user's: chown root " + path);
    }
    constexpr size_t kLargest = 64 << 10;
    std::string text(kLargest, '\0');
    const ssize_t size = ::read(fd.get(), text.data(), text.size());
    if (size < 0) return errnoError(errno, "read " + path);
    text.resize(static_cast<size_t>(size));
    return text;
}

std::string directoryOf(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// Whole or not at all, also over a crash.
Result<void> writeSecret(const std::string& path, const std::string& text) {
    const std::string fresh = path + ".new";
    ::unlink(fresh.c_str());
    UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd) return errnoError(errno, "create " + fresh);
    if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) || ::fsync(fd.get()) != 0) {
        return errnoError(errno, "write " + fresh);
    }
    fd.reset();
    if (::rename(fresh.c_str(), path.c_str()) != 0) return errnoError(errno, "rename " + fresh);
    const UniqueFd parent(::open(directoryOf(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (parent) ::fsync(parent.get());
    return {};
}

// node.key: the seed in base64, and since version 2 a line "database NAME EPOCH": whose memory goes with it, and up to
// where. Either file alone put back thus does not fit the other.
struct KeyFile {
    Ed25519Signer::Seed seed{};
    std::string database;  // empty: of a weft before there was one, or new
    uint32_t epoch = 0;

    [[nodiscard]] std::string text() const {
        return Key{seed}.base64() + "\n" + "database " + database + " " + std::to_string(epoch) + "\n";
    }
    static std::optional<KeyFile> parse(const std::string& text) {
        std::istringstream in(text);
        std::string seed, word, more;
        KeyFile file;
        if (!(in >> seed)) return {};
        const auto key = Key::parse(seed);
        if (!key) return {};
        file.seed = key->bytes;
        if (in >> word && (word != "database" || !(in >> file.database >> file.epoch) || in >> more)) return {};
        return file;
    }
};

std::string randomName() {
    NodeId name;
    randombytes_buf(name.bytes.data(), name.bytes.size());
    return name.str();
}

// Why the database is not the memory of this identity; empty: it is. `fresh`: the key was made just now.
std::string mismatch(const KeyFile& key, const DatabaseStorage::Binding& database, bool fresh) {
    if (fresh) return "";
    if (database.epoch == 0) return "node.key is of a host whose state file is gone";
    if (key.database.empty() && database.database.empty()) return "";  // both of a weft before version 2
    if (key.database != database.database) return "node.key and the state file are not of one host";
    if (key.epoch > database.epoch) return "the state file is older than node.key";
    // One later: weftd was killed before it wrote the key file.
    if (key.epoch + 1 < database.epoch) return "node.key is older than the state file";
    return "";
}

Result<Keyring> ringOf(const std::vector<Key>& keys) {
    Keyring ring;
    for (const Key& key : keys) WEFT_TRY(ring.add(key));
    return ring;
}

constexpr std::array kCounters = {
    std::pair("packets_sent", &Counters::packetsSent),
    std::pair("packets_received", &Counters::packetsReceived),
    std::pair("bytes_sent", &Counters::bytesSent),
    std::pair("bytes_received", &Counters::bytesReceived),
    std::pair("unknown_key", &Counters::unknownKey),
    std::pair("forged", &Counters::forged),
    std::pair("replayed", &Counters::replayed),
    std::pair("outdated", &Counters::outdated),
    std::pair("old_wire", &Counters::oldWire),
    std::pair("malformed", &Counters::malformed),
    std::pair("bad_signature", &Counters::badSignature),
    std::pair("unknown_owner", &Counters::unknownOwner),
    std::pair("unknown_message", &Counters::unknownMessage),
    std::pair("streams_accepted", &Counters::streamsAccepted),
    std::pair("streams_refused", &Counters::streamsRefused),
    std::pair("streams_failed", &Counters::streamsFailed),
    std::pair("stream_bytes_sent", &Counters::streamBytesSent),
    std::pair("probes", &Counters::probes),
    std::pair("probes_failed", &Counters::probesFailed),
    std::pair("suspected", &Counters::suspected),
    std::pair("declared_dead", &Counters::declaredDead),
    std::pair("refuted", &Counters::refuted),
    std::pair("rows_applied", &Counters::rowsApplied),
    std::pair("rows_stale", &Counters::rowsStale),
    std::pair("rows_reasserted", &Counters::rowsReasserted),
    std::pair("rows_beyond_quota", &Counters::rowsBeyondQuota),
    std::pair("members_refused", &Counters::membersRefused),
    std::pair("broadcasts_dropped", &Counters::broadcastsDropped),
    std::pair("syncs_started", &Counters::syncsStarted),
    std::pair("syncs_equal", &Counters::syncsEqual),
    std::pair("syncs_finished", &Counters::syncsFinished),
};

// Resolves seeds that are names, again and again, on a thread that nobody waits for: getaddrinfo may take its time.
class SeedResolver {
public:
    using Deliver = std::function<void(std::vector<Address>)>;

    SeedResolver(std::vector<EndpointText> names, Deliver deliver) : shared_(std::make_shared<Shared>()) {
        shared_->deliver = std::move(deliver);
        std::thread([shared = shared_, names = std::move(names)] {
            std::unique_lock lock(shared->mutex);
            while (!shared->ended) {
                for (const EndpointText& name : names) {
                    lock.unlock();
                    auto found = resolve(name);
                    lock.lock();
                    const auto [known, first] = shared->found.try_emplace(name.host);
                    if (found.empty() && first)
                        logWarn("gossip seed does not resolve yet name={}", logValue(name.host));
                    if (!found.empty()) known->second = std::move(found);  // else the last ones may still do
                }
                std::vector<Address> all;
                for (const auto& [name, found] : shared->found) all.insert(all.end(), found.begin(), found.end());
                if (!shared->ended && !all.empty()) shared->deliver(std::move(all));
                shared->changed.wait_for(lock, kResolveEvery, [&shared] { return shared->ended; });
            }
        }).detach();
    }
    ~SeedResolver() { stop(); }
    void stop() {
        {
            const std::lock_guard lock(shared_->mutex);
            shared_->ended = true;
        }
        shared_->changed.notify_all();
    }
    // Of each name its addresses, none while it did not resolve.
    [[nodiscard]] std::map<std::string, std::vector<Address>> found() const {
        const std::lock_guard lock(shared_->mutex);
        return shared_->found;
    }
    SeedResolver(const SeedResolver&) = delete;
    SeedResolver& operator=(const SeedResolver&) = delete;

private:
    struct Shared {
        std::mutex mutex;
        std::condition_variable changed;
        bool ended = false;
        Deliver deliver;
        std::map<std::string, std::vector<Address>> found;
    };
    std::shared_ptr<Shared> shared_;
};

class SocketService final : public Service {
public:
    SocketService(ServiceConfig config, Database& database, Metrics& metrics)
        : config_(std::move(config)), database_(database) {
        for (const auto& [name, member] : kCounters) {
            counters_.push_back(&metrics.counter(std::string("weft_gossip_") + name + "_total",
                                                 "Of the gossip store; see docs/gossip.md."));
        }
        for (const auto state : kStates) {
            members_.push_back(&metrics.gauge("weft_gossip_members", "Members of the cluster by state, this one too.",
                                              {{"state", std::string(toString(state))}}));
        }
        health_ = &metrics.gauge("weft_gossip_health_score", "0: well; more: this node answers late itself.");
    }
    ~SocketService() override { end(); }

    Result<void> begin();

    void post(std::function<void(Node&)> work) override {
        {
            const std::lock_guard lock(mutex_);
            if (ended_) return;
            posted_.push_back(std::move(work));
        }
        transport_->wake();
    }
    Result<void> call(std::function<void(Node&)> work, std::chrono::milliseconds patience) override;
    void leave(std::chrono::milliseconds patience) override;

    [[nodiscard]] const NodeId& id() const override { return id_; }
    [[nodiscard]] const std::string& nodeName() const override { return config_.nodeName; }
    [[nodiscard]] const std::string& cluster() const override { return config_.cluster; }
    [[nodiscard]] const Address& advertised() const override { return advertised_; }
    [[nodiscard]] std::optional<std::vector<Address>> seeds() const override {
        const std::lock_guard lock(mutex_);
        return seeds_;
    }
    void addSeed(const IpAddress& host) override {
        changeSeeds(
            [seed = Address{host, advertised_.port}](SocketService& service) { service.toldSeeds_.insert(seed); });
    }
    void removeSeed(const IpAddress& host) override {
        changeSeeds(
            [seed = Address{host, advertised_.port}](SocketService& service) { service.toldSeeds_.erase(seed); });
    }
    [[nodiscard]] bool alone() const override { return config_.keyFile.empty(); }

    Result<std::vector<KeyInfo>> keys() override;
    Result<void> addKey(const Key& key) override;
    Result<void> useKey(KeyId id) override;
    Result<void> removeKey(KeyId id) override;
    Result<void> renewIdentity(bool first) override;
    [[nodiscard]] std::vector<std::string> warnings() override;

private:
    static constexpr std::array kStates = {MemberState::Alive, MemberState::Suspect, MemberState::Dead,
                                           MemberState::Left};

    Result<void> loadIdentity();
    Result<Persisted> takeUpMemory(const std::vector<std::string>& keptPrefixes);
    Result<void> writeKeyFile(uint32_t epoch);
    Result<Address> chooseAdvertised(const std::optional<Address>& firstSeed) const;
    Result<void> takeGivenKey();
    Result<void> loadKeyring();
    void changeSeeds(const std::function<void(SocketService&)>& change);
    void work();
    void runPosted();
    void publishMetrics();
    void end();

    // On the node's thread.
    void onMember(const Member& member);
    void logMember(const Member& member);
    void logExcess();
    void onKeyringRow(const Row& row);
    void reviewKeyring(Node& node);
    [[nodiscard]] bool isBelievable(Node& node, const KeyringRow& row) const;
    [[nodiscard]] uint64_t clockGeneration(const Node& node) const;
    [[nodiscard]] static std::optional<KeyringRow> keyringOf(const Node& node, const NodeId& member);
    Result<void> awaitOthers(uint64_t generation);
    Result<void> adopt(const KeyringRow& row);
    using KeyringChange = std::function<Result<void>(Node&, KeyringRow&)>;
    Result<void> changeKeyring(const KeyringChange& change);
    // Names of living members for which `lacks` holds of their row, or that have none.
    std::string membersThat(Node& node, const std::function<bool(const KeyringRow&)>& lacks) const;

    ServiceConfig config_;
    bool keyFileFixed_ = false;  // we cannot write beside the key file, so its keys cannot change
    Database& database_;
    std::vector<Counter*> counters_;
    std::vector<Gauge*> members_;
    Gauge* health_ = nullptr;
    Counters shown_;
    Clock::Monotonic published_{};
    std::map<std::string, NodeId> holders_;  // of each name, the last to be seen alive under it
    size_t memberLines_ = 0;                 // since memberLinesSince_
    Clock::Monotonic memberLinesSince_{};
    std::set<NodeId> loggedBeyondQuota_;
    uint64_t loggedRefused_ = 0;
    bool keyringDoubted_ = false;  // a later ring was not believed; looked at again

    BootClock clock_;
    SystemRandom random_;
    NodeId id_;
    Address advertised_;
    std::vector<Address> literalSeeds_;
    std::unique_ptr<Ed25519Signer> signer_;
    KeyFile key_;
    std::string mismatch_;        // of node.key and database
    bool renewed_ = false;        // the database is of an identity that this host had
    std::vector<Row> inherited_;  // of it
    std::mutex keyFileMutex_;     // key_.epoch, replaced_ and the file
    bool replaced_ = false;       // the file is of this host's next identity
    Keyring keyring_;
    KeyringRow ring_;
    std::unique_ptr<SocketTransport> transport_;
    // What threads of the members below take and change.
    mutable std::mutex mutex_;
    std::optional<std::vector<Address>> seeds_;
    std::set<Address> toldSeeds_;
    std::deque<std::function<void(Node&)>> posted_;
    bool ended_ = false;

    std::unique_ptr<DatabaseStorage> storage_;
    std::unique_ptr<Node> node_;

    uint64_t keyringEvents_ = 0;
    std::condition_variable keyringEvent_;

    OwnRows rows_{*this};  // the ring's
    std::unique_ptr<SeedResolver> resolver_;
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

Result<Address> SocketService::chooseAdvertised(const std::optional<Address>& firstSeed) const {
    uint16_t port = kDefaultPort;
    std::optional<Address> bind;
    if (!config_.bind.empty()) {
        WEFT_ASSIGN(bind, parseAddress(config_.bind).within("--bind"));
        port = bind->port;
    }
    if (!config_.advertise.empty()) return parseAddress(config_.advertise, port).within("--advertise");
    if (bind && !bind->ip.isAny()) return *bind;
    // No packet is sent: these are only asked for the way there (RFC 5737, RFC 3849: addresses of documentation).
    std::vector<IpAddress> targets;
    if (firstSeed) targets.push_back(firstSeed->ip);
    for (const char* text : {"192.0.2.1", "2001:db8::1"}) targets.push_back(IpAddress::parse(text).value());
    for (const IpAddress& target : targets) {
        if (const auto route = routeTo(target)) return Address{route->source, port};
    }
    if (alone()) return Address{IpAddress::parse("127.0.0.1").value(), port};
    return makeError(
        ErrorCode::Unavailable,
        "no route to the other hosts to take an address from; set --advertise ADDR or wait for the network");
}

Result<void> SocketService::takeGivenKey() {
    if (config_.key.empty()) return {};
    if (!config_.keyFile.empty()) {
        return makeError(ErrorCode::InvalidArgument, "give --key-file or WEFT_KEY, not both");
    }
    const auto key = Key::parse(config_.key);
    if (!key) {
        return makeError(ErrorCode::InvalidArgument, "WEFT_KEY is no key; make one with: weftctl key generate");
    }
    config_.keyFile = config_.stateDir + "/cluster.key";
    WEFT_ASSIGN(const std::string last, DatabaseStorage::readSetting(database_, kGivenKeySetting));
    if (last == key->base64()) return {};
    WEFT_TRY(writeSecret(config_.keyFile, key->base64() + "\n"));
    return DatabaseStorage::writeSetting(database_, kGivenKeySetting, key->base64());
}

Result<void> SocketService::loadKeyring() {
    if (alone()) return {};
    auto text = readSecret(config_.keyFile);
    if (!text && text.error().code == ErrorCode::NotFound) {
        return makeError(ErrorCode::NotFound, "--key-file " + config_.keyFile +
                                                  ": no such file; make one with: umask 077 && weftctl key "
                                                  "generate > " +
                                                  config_.keyFile + ", and copy it to every host");
    }
    if (!text) return text.error().within("--key-file");
    WEFT_ASSIGN(const Keyring read, Keyring::parse(*text).within("--key-file " + config_.keyFile));
    if (read.empty()) {
        return makeError(ErrorCode::InvalidArgument,
                         "--key-file " + config_.keyFile + ": no key in it; add one with: weftctl key generate");
    }
    ring_.keys = read.keys();
    WEFT_ASSIGN(const std::string known, DatabaseStorage::readSetting(database_, kKeyringSetting));
    if (const size_t space = known.find(' '); space != std::string::npos) {
        ring_.generation = std::strtoull(known.c_str(), nullptr, 10);
        WEFT_ASSIGN(const std::string intent, DatabaseStorage::readSetting(database_, kKeyringIntent));
        const size_t intentSpace = std::min(intent.find(' '), intent.size());
        // Somebody changed the file by hand since: that is the cluster's latest wish. (A file that this service never
        // wrote about has generation 0: a host that joins with an old file must not undo a rotation.)
        if (known.substr(space + 1) == ring_.text()) {
            // As left.
        } else if (intentSpace != intent.size() && intent.substr(intentSpace + 1) == ring_.text()) {
            ring_.generation = std::strtoull(intent.c_str(), nullptr, 10);  // we died right after writing the file
        } else {
            const auto now = clock_.wall().time_since_epoch();
            ring_.generation =
                std::max(ring_.generation + 1,
                         static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()));
        }
    }
    WEFT_TRY(DatabaseStorage::writeSetting(database_, kKeyringSetting, ring_.setting()));
    WEFT_ASSIGN(keyring_, ringOf(ring_.keys));
    keyFileFixed_ = ::access(directoryOf(config_.keyFile).c_str(), W_OK) != 0;
    return {};
}

Result<void> SocketService::begin() {
    if (::sodium_init() < 0) return makeError(ErrorCode::Internal, "libsodium does not start");
    if (config_.nodeName.empty()) {
        std::array<char, 256> name{};
        ::gethostname(name.data(), name.size() - 1);
        config_.nodeName = std::string(name.data()).substr(0, kMaxNameBytes);
    }
    if (config_.nodeName.size() > kMaxNameBytes) {
        return makeError(ErrorCode::InvalidArgument,
                         "--node-name: at most " + std::to_string(kMaxNameBytes) + " characters");
    }
    if (!isPrintable(config_.nodeName)) {
        return makeError(ErrorCode::InvalidArgument,
                         "--node-name: control characters and marks of direction are not taken");
    }
    WEFT_TRY(takeGivenKey());
    std::vector<EndpointText> names;
    for (const std::string& seed : config_.join) {
        WEFT_ASSIGN(const EndpointText parts, split(seed).within("--join"));
        if (const auto ip = IpAddress::parse(parts.host)) {
            literalSeeds_.push_back({*ip, parts.port});
        } else {
            names.push_back(parts);
        }
    }
    WEFT_ASSIGN(advertised_,
                chooseAdvertised(literalSeeds_.empty() ? std::nullopt : std::optional(literalSeeds_.front())));
    if (advertised_.ip.isAny()) return makeError(ErrorCode::InvalidArgument, "--advertise: not the any address");
    WEFT_TRY(loadKeyring());
    WEFT_TRY(loadIdentity());

    std::optional<Address> bind;
    if (!alone()) {
        bind = advertised_;
        if (!config_.bind.empty()) {
            WEFT_ASSIGN(bind, parseAddress(config_.bind).within("--bind"));
        }
    }
    WEFT_ASSIGN(transport_, SocketTransport::open(bind ? &*bind : nullptr));
    if (advertised_.port == 0) advertised_.port = transport_->port();

    Config node;
    WEFT_ASSIGN(Persisted persisted, takeUpMemory(node.keptPrefixes));
    node.cluster = config_.cluster;
    node.nodeName = config_.nodeName;
    node.advertise = advertised_;
    node.seeds = literalSeeds_;
    if (config_.strict) node.wire = WirePolicy::Two;
    const auto route = routeTo(literalSeeds_.empty() ? advertised_.ip : literalSeeds_.front().ip);
    const size_t headers = advertised_.ip.isV4() ? 28 : 48;
    node.packetBytes = std::clamp<size_t>(route ? route->mtu - headers : 0, kSmallestPacket, kLargestPacket);
    storage_ = std::make_unique<DatabaseStorage>(
        database_, node.keptPrefixes,
        [this](std::function<void()> done) { post([done = std::move(done)](Node&) { done(); }); },
        [this](uint32_t epoch) {
            if (const auto written = writeKeyFile(epoch); !written) logError("{}", written.error().message);
        });
    node_ = std::make_unique<Node>(std::move(node), std::move(persisted), keyring_, *signer_, clock_, random_,
                                   *transport_, *storage_);
    node_->watch(std::string(kKeyringRow), [this](RowEvent event, const Row& row) {
        if (event == RowEvent::Put) onKeyringRow(row);
    });
    for (Row& row : inherited_) {
        node_->put(std::move(row.key), std::move(row.value), [](const Result<void>&) {});
    }
    inherited_.clear();
    node_->onDoubt([] { logWarn("{}", kDoubtWarning); });
    if (node_->inDoubt() && !alone()) logWarn("{}", kDoubtWarning);
    holders_[config_.nodeName] = id_;
    node_->onMember([this](const Member& member) { onMember(member); });
    if (alone()) {
        logInfo("gossip node={} id={} cluster of one: no --key-file, so nothing listens and other hosts cannot join",
                logValue(config_.nodeName), id_.brief());
    } else {
        rows_.put(std::string(kKeyringRow), ring_.encode());
        node_->start();
        logInfo("gossip node={} id={} cluster={} address={} seeds={}", logValue(config_.nodeName), id_.brief(),
                logValue(config_.cluster), advertised_.str(), config_.join.size());
    }
    if (names.empty()) seeds_ = literalSeeds_;
    publishMetrics();
    thread_ = std::thread([this] { work(); });
    if (!names.empty() && !alone()) {
        resolver_ = std::make_unique<SeedResolver>(std::move(names), [this](std::vector<Address> found) {
            found.insert(found.end(), literalSeeds_.begin(), literalSeeds_.end());
            changeSeeds([&found](SocketService& service) { service.seeds_ = std::move(found); });
        });
    }
    return {};
}

Result<void> SocketService::loadIdentity() {
    const std::string path = config_.stateDir + "/node.key";
    WEFT_ASSIGN(const auto database, DatabaseStorage::readBinding(database_));
    auto text = readSecret(path);
    if (!text && text.error().code != ErrorCode::NotFound) return text.error();
    const bool fresh = !text;
    if (fresh) {
        key_.seed = Ed25519Signer::generateSeed();
    } else if (auto read = KeyFile::parse(*text)) {
        key_ = *std::move(read);
    } else {
        return makeError(ErrorCode::Corrupt,
                         path +
                             " is no node key. Put it back from a copy of this host; or remove it, and this host "
                             "joins as a new node: let the others forget the old one (weftctl node forget)");
    }
    signer_ = std::make_unique<Ed25519Signer>(key_.seed);
    id_ = NodeId::of(signer_->publicKey());
    mismatch_ = mismatch(key_, database, fresh);
    renewed_ = database.epoch != 0 && (fresh || key_.database == database.database) && !database.node.empty() &&
               database.node != id_.str();
    if (renewed_) mismatch_.clear();
    key_.database = database.database.empty() ? randomName() : database.database;
    // Killed twice in a row between the two writes: still no more than one apart.
    if (mismatch_.empty() && !fresh && key_.epoch + 1 == database.epoch) WEFT_TRY(writeKeyFile(database.epoch));
    return {};
}

Result<void> SocketService::writeKeyFile(uint32_t epoch) {
    const std::lock_guard lock(keyFileMutex_);
    if (replaced_) return {};
    key_.epoch = std::max(key_.epoch, epoch);
    return writeSecret(config_.stateDir + "/node.key", key_.text());
}

// The doubt is durable before the two files are made to fit each other again.
Result<Persisted> SocketService::takeUpMemory(const std::vector<std::string>& keptPrefixes) {
    std::optional<Origin> origin;  // as it was
    if (renewed_) {
        WEFT_ASSIGN(const std::string first, DatabaseStorage::readSetting(database_, kFirstSetting));
        origin = first == id_.str() ? Origin::First : Origin::Heir;
    }
    WEFT_ASSIGN(Persisted persisted, DatabaseStorage::beginEpoch(database_, {key_.database, id_.str(), key_.epoch},
                                                                 !mismatch_.empty(), origin));
    WEFT_TRY(writeKeyFile(persisted.epoch));
    if (!mismatch_.empty() && !alone()) logWarn("{}: {}", config_.stateDir, mismatch_);
    // Of an identity that this host had: what it said is said again, what it promised is nobody's promise now.
    const auto foreign = [&](const Row& row) { return row.owner != id_; };
    std::vector<std::string> dropped;
    for (Row& row : persisted.rows) {
        if (!foreign(row)) {
            if (!signer_->verify(signer_->publicKey(), signedBytes(row, config_.cluster), row.signature)) {
                return makeError(ErrorCode::Corrupt, "row " + row.key + " is not as this node signed it" +
                                                         std::string(DatabaseStorage::kDamageAdvice));
            }
            continue;
        }
        dropped.push_back(row.key);
        const bool kept =
            std::ranges::any_of(keptPrefixes, [&](const std::string& prefix) { return row.key.starts_with(prefix); });
        if (!kept && !row.deleted && !row.key.starts_with("ipam/")) inherited_.push_back(row);
    }
    std::erase_if(persisted.rows, foreign);
    if (renewed_ || !dropped.empty()) {
        WEFT_TRY(DatabaseStorage::dropRows(database_, dropped));
        if (renewed_) persisted.doubt = false;
        logWarn("this host has a new identity id={}; let the others forget the old one: weftctl node forget",
                id_.brief());
    }
    return persisted;
}

Result<void> SocketService::renewIdentity(bool first) {
    const std::lock_guard lock(keyFileMutex_);
    KeyFile fresh = key_;
    fresh.seed = Ed25519Signer::generateSeed();
    const std::string id = NodeId::of(Ed25519Signer(fresh.seed).publicKey()).str();
    WEFT_TRY(DatabaseStorage::writeSetting(database_, kFirstSetting, first ? id : ""));
    WEFT_TRY(writeSecret(config_.stateDir + "/node.key", fresh.text()));
    replaced_ = true;
    return {};
}

void SocketService::changeSeeds(const std::function<void(SocketService&)>& change) {
    std::vector<Address> all;
    {
        const std::lock_guard lock(mutex_);
        change(*this);
        all = seeds_.value_or(literalSeeds_);
        all.insert(all.end(), toldSeeds_.begin(), toldSeeds_.end());
    }
    post([all = std::move(all)](Node& node) { node.setSeeds(all); });
}

void SocketService::work() {
    while (!stopping_) {
        node_->tick();
        runPosted();
        const auto deadline = node_->nextDeadline();
        const auto now = clock_.now();
        const auto patience = deadline == Clock::Monotonic::max()
                                  ? Clock::Monotonic::duration(std::chrono::hours(1))
                                  : std::max(deadline - now, Clock::Monotonic::duration::zero());
        transport_->run(*node_, patience);
        runPosted();
        publishMetrics();
    }
}

void SocketService::onMember(const Member& member) {
    const std::string& name = member.record.name;
    logMember(member);
    if (member.state != MemberState::Alive) return;
    if (holders_.size() >= kMaxHolders) {
        std::erase_if(holders_, [this](const auto& entry) { return !node_->member(entry.second); });
    }
    const NodeId before = std::exchange(holders_.try_emplace(name, member.id).first->second, member.id);
    if (before == member.id) return;
    const auto other = node_->member(before);
    if (other && !other->gone() && other->record.name == name) {
        logWarn("two nodes of one name={} id={} address={} id={} address={}; give each its own --node-name",
                logValue(name), before.brief(), other->record.address.str(), member.id.brief(),
                member.record.address.str());
    }
}

void SocketService::logMember(const Member& member) {
    if (clock_.now() - memberLinesSince_ >= kMemberLinesFor) {
        if (memberLines_ > kMemberLines) logWarn("members changed {} times more", memberLines_ - kMemberLines);
        memberLinesSince_ = clock_.now();
        memberLines_ = 0;
    }
    if (++memberLines_ > kMemberLines) return;
    logInfo("member name={} id={} address={} state={}", logValue(member.record.name), member.id.brief(),
            member.record.address.str(), toString(member.state));
}

void SocketService::logExcess() {
    for (const NodeId& id : node_->beyondQuota()) {
        if (!loggedBeyondQuota_.insert(id).second) continue;
        const auto member = node_->member(id);
        logWarn("member name={} id={} says more rows than are taken of one host; the rest is left out",
                logValue(member ? member->record.name : ""), id.brief());
    }
    std::erase_if(loggedBeyondQuota_, [this](const NodeId& id) { return !node_->member(id); });
    const MemberExcess& excess = node_->membersExcess();
    if (excess.count != 0 && loggedRefused_ == 0) {
        logWarn("more new members than are taken told by={}; see weftctl status", excess.teller.str());
    }
    loggedRefused_ = excess.count;
}

void SocketService::runPosted() {
    std::deque<std::function<void(Node&)>> batch;
    {
        const std::lock_guard lock(mutex_);
        batch.swap(posted_);
    }
    for (const auto& work : batch) work(*node_);
}

// Counting thousands of members at each packet would cost more than the packet.
void SocketService::publishMetrics() {
    if (!alone() && clock_.now() - published_ < kPublishEvery) return;
    published_ = clock_.now();
    const Counters now = node_->counters();
    for (size_t i = 0; i < kCounters.size(); ++i) {
        const auto field = kCounters[i].second;
        if (now.*field != shown_.*field) counters_[i]->add(now.*field - shown_.*field);
    }
    shown_ = now;
    logExcess();
    if (keyringDoubted_) reviewKeyring(*node_);
    health_->set(node_->healthScore());
    std::array<int, kStates.size()> byState{};
    for (const Member& member : node_->roster()) ++byState[static_cast<size_t>(member.state)];
    for (size_t i = 0; i < kStates.size(); ++i) members_[i]->set(byState[i]);
}

void SocketService::end() {
    if (resolver_) resolver_->stop();
    if (thread_.joinable()) {
        stopping_ = true;
        transport_->wake();
        thread_.join();
    }
    std::deque<std::function<void(Node&)>> dropped;
    {
        const std::lock_guard lock(mutex_);
        ended_ = true;
        dropped.swap(posted_);
    }
}

Result<void> SocketService::call(std::function<void(Node&)> work, std::chrono::milliseconds patience) {
    auto promise = std::make_shared<std::promise<void>>();
    auto done = promise->get_future();
    post([promise, work = std::move(work)](Node& node) {
        work(node);
        promise->set_value();
    });
    promise.reset();
    if (done.wait_for(withinCall(patience)) != std::future_status::ready) {
        return makeError(ErrorCode::Timeout, "the gossip store does not answer");
    }
    try {
        done.get();
    } catch (const std::future_error&) {
        return makeError(ErrorCode::Unavailable, "the gossip store has ended");
    }
    return {};
}

void SocketService::leave(std::chrono::milliseconds patience) {
    auto promise = std::make_shared<std::promise<void>>();
    auto gone = promise->get_future();
    post([promise](Node& node) { node.leave([promise] { promise->set_value(); }); });
    promise.reset();
    gone.wait_for(patience);
    end();
}

// --- the cluster's keys ---

std::optional<KeyringRow> SocketService::keyringOf(const Node& node, const NodeId& member) {
    const Row* row = node.table().find(member, std::string(kKeyringRow));
    return row == nullptr ? std::nullopt : KeyringRow::decode(row->value);
}

uint64_t SocketService::clockGeneration(const Node& node) const {
    const auto since = std::min(node.medianClock(), Clock::Wall(std::chrono::seconds(int64_t{1} << 33)));
    return static_cast<uint64_t>(
        std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(since.time_since_epoch()).count()));
}

bool SocketService::isBelievable(Node& node, const KeyringRow& row) const {
    std::vector<std::optional<KeyringRow>> others;
    for (const Member& member : node.members()) {
        if (!member.gone() && member.id != id_) others.push_back(keyringOf(node, member.id));
    }
    return kv::isBelievable(row, ring_.generation, clockGeneration(node), others);
}

void SocketService::onKeyringRow(const Row& row) {
    if (alone() || row.owner == id_) return;
    // Not from within the table's callback.
    post([this](Node& node) { reviewKeyring(node); });
    {
        const std::lock_guard lock(mutex_);
        ++keyringEvents_;
    }
    keyringEvent_.notify_all();
}

void SocketService::reviewKeyring(Node& node) {
    std::optional<std::pair<KeyringRow, Member>> latest;
    const bool doubtedBefore = std::exchange(keyringDoubted_, false);
    uint64_t othersHighest = 0;
    for (const Member& member : node.members()) {
        const auto theirs = keyringOf(node, member.id);
        if (member.gone() || member.id == id_ || !theirs) continue;
        othersHighest = std::max(othersHighest, theirs->generation);
        if (!theirs->supersedes(latest ? latest->first : ring_)) continue;
        if (isBelievable(node, *theirs)) {
            latest = {*theirs, member};
            continue;
        }
        keyringDoubted_ = true;
        if (!doubtedBefore) {
            logWarn("cluster keys of member name={} are not taken over: their generation is ahead of all clocks",
                    logValue(member.record.name));
        }
    }
    // Ours, made when this host's clock was ahead: nobody would take it, nor we anybody's.
    const uint64_t clock = clockGeneration(node);
    const bool ahead = ring_.generation > clock + KeyringRow::kSlack && othersHighest < ring_.generation;
    if (!latest && ahead && node.clocks().size() > 2) {
        latest = {ring_, *node.member(id_)};
        latest->first.generation = std::max(clock, othersHighest + 1);
    }
    if (!latest) return;
    if (const auto adopted = adopt(latest->first); !adopted) {
        logError("cluster keys changed, but are not taken over: {}", adopted.error().message);
        return;
    }
    logInfo("cluster keys taken over from={} keys={}", latest->second.id.brief(), latest->first.keys.size());
    rows_.put(std::string(kKeyringRow), ring_.encode());
}

Result<void> SocketService::adopt(const KeyringRow& row) {
    WEFT_ASSIGN(Keyring ring, ringOf(row.keys));
    // Intent, file, fact: whenever we die, the next start can tell our own change of the file from a person's.
    WEFT_TRY(DatabaseStorage::writeSetting(database_, kKeyringIntent, row.setting()));
    WEFT_TRY(writeSecret(config_.keyFile,
                         "# Keys of the cluster, the first seals. Kept by weftd: weftctl key --help\n" + row.text()));
    WEFT_TRY(DatabaseStorage::writeSetting(database_, kKeyringSetting, row.setting()));
    ring_ = row;
    keyring_ = std::move(ring);
    return {};
}

std::string SocketService::membersThat(Node& node, const std::function<bool(const KeyringRow&)>& lacks) const {
    std::string names;
    for (const Member& member : node.members()) {
        if (member.id == id_ || member.gone()) continue;
        const auto theirs = keyringOf(node, member.id);
        if (!theirs || lacks(*theirs)) names += (names.empty() ? "" : ", ") + member.record.name;
    }
    return names;
}

Result<void> SocketService::changeKeyring(const KeyringChange& change) {
    if (alone()) {
        return makeError(ErrorCode::Unsupported, "this daemon has no cluster keys: start it with --key-file");
    }
    const auto result = std::make_shared<Result<uint64_t>>(uint64_t{0});
    WEFT_TRY(call(
        [this, result, change](Node& node) {
            KeyringRow next = ring_;
            *result = [&]() -> Result<uint64_t> {
                WEFT_TRY(change(node, next));
                if (next.keys == ring_.keys) return ring_.generation;
                next.generation = std::max(ring_.generation + 1, clockGeneration(node));
                WEFT_TRY(adopt(next));
                rows_.put(std::string(kKeyringRow), ring_.encode());
                return next.generation;
            }();
        },
        kPatience));
    WEFT_ASSIGN(const uint64_t generation, *result);
    return awaitOthers(generation);
}

Result<void> SocketService::awaitOthers(uint64_t generation) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    for (;;) {
        uint64_t seen = 0;
        {
            const std::lock_guard lock(mutex_);
            seen = keyringEvents_;
        }
        const auto lacking = std::make_shared<std::string>();
        WEFT_TRY(call(
            [this, lacking, generation](Node& node) {
                *lacking =
                    membersThat(node, [generation](const KeyringRow& row) { return row.generation < generation; });
            },
            kPatience));
        if (lacking->empty()) return {};
        std::unique_lock lock(mutex_);
        if (!keyringEvent_.wait_until(lock, deadline, [&] { return keyringEvents_ != seen; })) {
            return makeError(ErrorCode::Busy,
                             "done here, but not yet taken over by " + *lacking +
                                 "; they follow once they hear of it, so ask again before the next step");
        }
    }
}

Result<std::vector<KeyInfo>> SocketService::keys() {
    const auto found = std::make_shared<std::vector<KeyInfo>>();
    WEFT_TRY(call(
        [this, found](Node&) {
            for (const Key& key : ring_.keys) found->push_back({key.id(), found->empty()});
        },
        kPatience));
    return std::move(*found);
}

Result<void> SocketService::addKey(const Key& key) {
    return changeKeyring([key](Node&, KeyringRow& next) -> Result<void> {
        WEFT_ASSIGN(Keyring ring, ringOf(next.keys));
        WEFT_TRY(ring.add(key));
        next.keys = ring.keys();
        return {};
    });
}

Result<void> SocketService::useKey(KeyId id) {
    return changeKeyring([this, id](Node& node, KeyringRow& next) -> Result<void> {
        WEFT_ASSIGN(Keyring ring, ringOf(next.keys));
        WEFT_TRY(ring.use(id));
        const std::string lacking = membersThat(node, [id](const KeyringRow& row) { return !row.has(id); });
        if (!lacking.empty()) {
            return makeError(ErrorCode::Busy, "not everybody has that key yet: " + lacking + "; try again in a moment");
        }
        next.keys = ring.keys();
        return {};
    });
}

Result<void> SocketService::removeKey(KeyId id) {
    return changeKeyring([this, id](Node& node, KeyringRow& next) -> Result<void> {
        WEFT_ASSIGN(Keyring ring, ringOf(next.keys));
        WEFT_TRY(ring.remove(id));
        const std::string sealing =
            membersThat(node, [id](const KeyringRow& row) { return row.keys.front().id() == id; });
        if (!sealing.empty()) {
            return makeError(ErrorCode::Busy, "still in use by " + sealing + "; try again in a moment");
        }
        next.keys = ring.keys();
        return {};
    });
}

std::vector<std::string> SocketService::warnings() {
    std::vector<std::string> lines;
    if (alone()) {
        if (!config_.join.empty()) lines.emplace_back("--join without --key-file: this is a cluster of one");
        return lines;
    }
    if (keyFileFixed_) {
        lines.push_back("weftd cannot write beside " + config_.keyFile +
                        ", so the cluster's keys cannot change: keep the file in the state directory");
    }
    struct Seen {
        std::vector<Member> members;
        std::vector<std::string> wire1, beyondQuota, refused;
        MemberExcess excess;
        Clock::Monotonic now;
        std::vector<std::pair<std::string, std::chrono::seconds>> clocksOff;
        std::optional<std::chrono::seconds> ownClockOff;
        bool doubt = false, twin = false;
    };
    const auto seen = std::make_shared<Seen>();
    const auto look = [this, seen](Node& node) {
        const auto nameOf = [&node](const NodeId& id) {
            const auto member = node.member(id);
            return member ? member->record.name : id.brief();
        };
        seen->members = node.members();
        seen->doubt = node.inDoubt();
        seen->twin = node.hasTwin();
        for (const NodeId& id : node.speakersOfWire1()) seen->wire1.push_back(nameOf(id));
        for (const NodeId& id : node.beyondQuota()) seen->beyondQuota.push_back(nameOf(id));
        for (const IpAddress& host : node.refusedForTheirWire()) seen->refused.push_back(host.str());
        seen->excess = node.membersExcess();
        seen->now = node.now();
        const auto clocks = node.clocks();
        for (const auto& [id, ahead] : clocks) {
            if (clocks.size() < 2 || std::chrono::abs(ahead) < kClockSlack) continue;
            if (id == id_) {
                seen->ownClockOff = ahead;
            } else {
                seen->clocksOff.emplace_back(nameOf(id), ahead);
            }
        }
    };
    if (!call(look, 2s)) return lines;
    if (seen->twin) {
        lines.emplace_back(
            "another host uses this host's identity now: one of them is a clone. Neither gives addresses out. On the "
            "clone: weftctl node renew");
    } else if (seen->doubt) {
        lines.emplace_back(kDoubtWarning);
    }
    const auto listed = [](const std::vector<std::string>& all) {
        constexpr size_t kMost = 10;
        std::string text;
        for (size_t i = 0; i < std::min(all.size(), kMost); ++i) text += (i == 0 ? "" : ", ") + all[i];
        return all.size() > kMost ? text + " and " + std::to_string(all.size() - kMost) + " more" : text;
    };
    if (!seen->wire1.empty()) {
        lines.push_back("the cluster is mixed: " + listed(seen->wire1) +
                        " speak the wire of an older weft, which is accepted until all are upgraded, or forgotten by "
                        "weftctl node forget; --strict refuses it at once");
    }
    if (!seen->refused.empty()) {
        lines.push_back("refused for the wire of an older weft: " + listed(seen->refused) + "; upgrade weftd there");
    }
    if (!seen->beyondQuota.empty()) {
        lines.push_back("more rows than are taken of one host come from " + listed(seen->beyondQuota) +
                        "; the rest is left out");
    }
    if (seen->excess.count != 0 && seen->now - seen->excess.last < std::chrono::hours(1)) {
        lines.push_back(std::to_string(seen->excess.count) + " new members were not taken, the last told by " +
                        seen->excess.teller.str() + ": too many at once, in all, or at one address");
    }
    const auto off = [](std::chrono::seconds ahead) {
        const auto minutes = std::chrono::abs(std::chrono::duration_cast<std::chrono::minutes>(ahead)).count();
        const std::string much = minutes < int64_t{24} * 60 ? std::to_string(minutes) + " minutes"
                                                            : std::to_string(minutes / 24 / 60) + " days";
        return much + (ahead.count() > 0 ? " ahead of" : " behind");
    };
    if (seen->ownClockOff) {
        lines.push_back("this host's clock is " + off(*seen->ownClockOff) + " what most members' show: set it");
    }
    for (const auto& [name, ahead] : seen->clocksOff) {
        lines.push_back("the clock of " + name + " is " + off(ahead) + " what most members' show: set it there");
    }
    std::map<std::string, std::vector<std::string>> byName;
    std::set<Address> heard;
    for (const Member& member : seen->members) {
        heard.insert(member.record.address);
        if (!member.gone()) byName[member.record.name].push_back(member.id.brief());
    }
    for (const auto& [name, ids] : byName) {
        if (ids.size() < 2) continue;
        std::string all;
        for (const std::string& one : ids) all += " " + one;
        lines.push_back("several nodes are called " + name + ":" + all + "; give each its own --node-name");
    }
    const auto silent = [&](const Address& seed) {
        return !heard.contains(seed) && seed != advertised_ && seed.ip.isLoopback() == advertised_.ip.isLoopback();
    };
    const auto complain = [&lines](const std::string& seed) {
        lines.push_back("no member answers at the seed " + seed +
                        ": is weftd up there, with the same --cluster and key, and is the port open for udp and tcp?");
    };
    for (const Address& seed : literalSeeds_) {
        if (silent(seed)) complain(seed.str());
    }
    if (!resolver_) return lines;
    for (const auto& [name, addresses] : resolver_->found()) {
        if (addresses.empty()) {
            lines.push_back("the seed " + name + " does not resolve to an address");
        } else if (std::all_of(addresses.begin(), addresses.end(), silent)) {
            complain(name);
        }
    }
    return lines;
}

}  // namespace

Result<void> checkEndpointText(const std::string& text, bool allowName) {
    WEFT_ASSIGN(const EndpointText parts, split(text));
    if (IpAddress::parse(parts.host) || (allowName && isHostName(parts.host))) return {};
    return makeError(ErrorCode::InvalidArgument, "\"" + text + "\": expected " + (allowName ? "ADDR or NAME" : "ADDR") +
                                                     "[:PORT], such as 192.0.2.1 or [2001:db8::1]:7950");
}

SchemaComponent Service::schema() {
    return DatabaseStorage::schema();
}

Result<std::unique_ptr<Service>> Service::start(ServiceConfig config, Database& database, Metrics& metrics) {
    auto service = std::make_unique<SocketService>(std::move(config), database, metrics);
    WEFT_TRY(service->begin().within("gossip"));
    return std::unique_ptr<Service>(std::move(service));
}

}  // namespace weft::kv
