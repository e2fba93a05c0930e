#include "driver/daemon.h"

#include <fmt/format.h>
#include <malloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/database.h"
#include "base/log.h"
#include "base/metrics.h"
#include "driver/control_api.h"
#include "driver/doctor.h"
#include "driver/http_server.h"
#include "driver/instance_lock.h"
#include "driver/modes.h"
#include "driver/name_service.h"
#include "driver/plugin_api.h"
#include "driver/shared_networks.h"
#include "driver/socket.h"
#include "driver/trace_reader.h"
#include "driver/web_server.h"
#include "drivers/bridge/bridge_driver.h"
#include "drivers/context.h"
#include "drivers/host/host_driver.h"
#include "drivers/host_state.h"
#include "drivers/names.h"
#include "drivers/none/none_driver.h"
#include "drivers/overlay/overlay_driver.h"
#include "drivers/overlay/overlay_rows.h"
#include "drivers/record_store.h"
#include "firewall/select.h"
#include "firewall/watch.h"
#include "ipam/cluster_ipam.h"
#include "ipam/database_lease_store.h"
#include "ipam/local_ipam.h"
#include "kv/service.h"
#include "net/monitor.h"
#include "net/netlink.h"
#include "net/ports.h"
#include "net/sysctl.h"

namespace weft::driver {
namespace {

using Time = std::chrono::steady_clock::time_point;

constexpr std::chrono::seconds kReconcileEvery{60};
// Any user of the host may connect there.
constexpr size_t kMetricsConnections = 32;
constexpr size_t kMetricsWorkers = 2;
constexpr std::chrono::seconds kMetricsIdle{120};  // longer than the interval of a scrape
// After one that could not look at a mode's state, or not write its rules.
constexpr std::chrono::seconds kReconcileAgain{5};
constexpr std::chrono::seconds kCollectEvery{10};
constexpr size_t kPastRepairs = 20;
constexpr size_t kGrownPages = 1536;  // since memory was given back: a burst, not what each sweep needs again
// A plugin's call: the engine has no timeout of its own, and holds a network's lock meanwhile.
constexpr std::chrono::milliseconds kAnswerWithin{9500};
// Of links that vanished: time for the engine to take leave of them itself.
constexpr std::chrono::seconds kLinkPatience{2};

void logRepair(const Repair& repair) {
    const std::string line = fmt::format("repair kind={} object={} action={}", logValue(repair.kind),
                                         logValue(repair.object), logValue(repair.action));
    if (repair.error) {
        logLine(LogLevel::Warn, fmt::format("{} err={}", line, logValue(repair.error->message)));
    } else {
        logLine(LogLevel::Info, line);
    }
}

// Gives back the memory that the start or a burst of calls needed. Code and constants of libraries are half of it
// (OpenSSL, which httplib brings along and we never use, sets itself up); what is still needed comes back from the page
// cache at the next use. Only mappings without anonymous pages, resident or swapped: relocations are not in the file.
void trimMemory() {
    ::malloc_trim(0);
    std::ifstream maps("/proc/self/smaps");
    uintptr_t first = 0;
    uintptr_t last = 0;
    bool isFile = false;
    unsigned long anonymous = 0;
    for (std::string line; std::getline(maps, line);) {
        uintptr_t begin = 0;  // also of a line that begins with a letter of hexadecimal digits
        std::array<char, 5> access{};
        unsigned long swapped = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &last, access.data()) == 3) {
            first = begin;
            isFile = access[1] == '-' && line.find('/') != std::string::npos;
        } else if (std::sscanf(line.c_str(), "Anonymous: %lu", &anonymous) != 1 &&
                   std::sscanf(line.c_str(), "Swap: %lu", &swapped) == 1 && isFile && anonymous + swapped == 0) {
            // NOLINTNEXTLINE(performance-no-int-to-ptr)
            ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
        }
    }
}

// Pages of memory.
size_t residentPages() {
    std::ifstream statm("/proc/self/statm");
    size_t all = 0;
    size_t resident = 0;
    statm >> all >> resident;
    return resident;
}

// What others' threads tell the main thread: that there is work.
class Alarm {
public:
    Result<void> open() {
        fd_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        if (!fd_) return errnoError(errno, "eventfd");
        return {};
    }
    [[nodiscard]] int fd() const { return fd_.get(); }

    void rulesChanged() {
        rulesChanged_ = true;
        ring();
    }
    // Empty name: some were missed.
    void linkGone(const std::string& name) {
        {
            const std::lock_guard lock(mutex_);
            gone_.insert(name);
        }
        ring();
    }

    bool takeRulesChanged() { return rulesChanged_.exchange(false); }
    std::set<std::string> takeGone() {
        const std::lock_guard lock(mutex_);
        return std::exchange(gone_, {});
    }
    void silence() const {
        uint64_t count = 0;
        [[maybe_unused]] const ssize_t size = ::read(fd_.get(), &count, sizeof(count));
    }

private:
    void ring() const {
        const uint64_t one = 1;
        [[maybe_unused]] const ssize_t size = ::write(fd_.get(), &one, sizeof(one));
    }

    UniqueFd fd_;
    std::atomic<bool> rulesChanged_{false};
    std::mutex mutex_;
    std::set<std::string> gone_;
};

// Half of what systemd allows between two signs of life; none if it does not ask for them.
std::optional<std::chrono::microseconds> watchdogInterval() {
    const char* text = std::getenv("WATCHDOG_USEC");
    int64_t microseconds = 0;
    if (text == nullptr || std::from_chars(text, text + std::strlen(text), microseconds).ec != std::errc()) return {};
    if (microseconds <= 0) return {};
    return std::chrono::microseconds(microseconds / 2);
}

class Daemon {
public:
    Daemon(const Config& config, const std::function<std::variant<Config, Exit>()>& reread)
        : config_(config), reread_(reread) {}

    Result<void> start();
    void run();

private:
    Result<void> chooseFirewall();
    Result<void> makeDrivers();
    ipam::LocalIpamHooks sharedHooks();
    Result<void> makeOverlay(const DriverContext& context);
    Result<void> startNames();
    Result<void> startSharedNetworks();
    PluginTraits swarmTraits();
    Result<void> startServing();
    Result<ListeningSocket> pluginSocket(const std::string& name);
    Result<std::vector<Repair>> reconcile(bool dryRun);
    // When to do it again.
    std::chrono::seconds reconcileAndLog();
    void linkChanged(const net::LinkEvent& event);
    bool repairRules();
    void count(const std::vector<Repair>& repairs);
    std::vector<Check> doctor();
    [[nodiscard]] std::vector<std::string> rowWarnings() const;
    std::vector<ForgingPort> forgingPorts();
    [[nodiscard]] net::DropCounts dropsOf(const std::string& link) const;
    Result<std::vector<Check>> trace(TraceQuestion question);
    [[nodiscard]] bool isWanted(const std::set<std::string>& links) const;
    void reload();

    // In order of making; destroyed in reverse.
    const Config& config_;
    const std::function<std::variant<Config, Exit>()>& reread_;
    SystemClock clock_;
    Metrics metrics_;
    Alarm alarm_;
    UniqueFd signals_;
    std::vector<ListeningSocket> inherited_;
    std::optional<InstanceLock> lock_;
    std::unique_ptr<Database> database_;
    std::unique_ptr<kv::Service> gossip_;
    std::string firewallReason_;
    std::unique_ptr<firewall::Firewall> firewall_;
    std::unique_ptr<net::Netlink> netlink_;
    std::unique_ptr<net::PortAllocator> ports_;
    std::unique_ptr<net::PortProgram> portProgram_;  // null: the kernel takes none, for portProgramTrouble_
    std::string portProgramTrouble_;
    std::unique_ptr<RecordStore> records_;
    std::unique_ptr<ipam::DatabaseLeaseStore> leases_;
    std::unique_ptr<ipam::LocalIpam> ipam_;
    std::unique_ptr<ipam::DatabaseLeaseStore> sharedLeases_;
    std::unique_ptr<ipam::ClusterIpam> sharedIpam_;
    std::unique_ptr<BridgeDriver> bridge_;
    std::unique_ptr<OverlayDriver> overlay_;
    std::unique_ptr<NameService> names_;              // null: none
    std::unique_ptr<SharedNetworks> sharedNetworks_;  // null: a swarm makes them
    std::unique_ptr<HostDriver> host_;
    std::unique_ptr<NoneDriver> none_;
    std::vector<Mode> modes_;
    std::chrono::seconds nextReconcile_ = kReconcileEvery;  // of the first
    std::unique_ptr<firewall::Watch> rulesWatch_;
    std::set<net::LinkIndex> foreignBridges_;  // of the link monitor's thread
    std::unique_ptr<net::LinkMonitor> linkMonitor_;
    std::vector<std::unique_ptr<PluginApi>> plugins_;
    DockerNames dockerNames_{config_.dockerSocket, clock_};
    std::mutex pastRepairsMutex_;
    std::deque<PastRepair> pastRepairs_;  // the latest first
    std::unique_ptr<ControlApi> control_;
    std::vector<ListeningSocket> sockets_;
    std::unique_ptr<HttpServer> server_;
    std::unique_ptr<WebServer> web_;  // null: none
};

Result<void> Daemon::start() {
    // Before any thread: all of them inherit the mask, and only signalfd gets the signals.
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
    if (::pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return errnoError(errno, "signal mask");
    signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
    if (!signals_) return errnoError(errno, "signalfd");
    // Each arena keeps what its threads once used; two serve handlers that mostly wait for the kernel.
    ::mallopt(M_ARENA_MAX, 2);
    if (const auto limit = net::raiseFileLimit(); !limit) logWarn("{}", limit.error().message);
    WEFT_TRY(alarm_.open());
    inherited_ = inheritedSockets();

    if (config_.swarm) WEFT_TRY(net::makeSysctlsWritable());
    WEFT_TRY(ownDirectory(config_.runDir, 0755));
    WEFT_TRY(ownDirectory(config_.stateDir, 0700));
    WEFT_TRY(ownDirectory(config_.pluginDir, 0755));
    WEFT_ASSIGN(InstanceLock lock, InstanceLock::take(config_.runDir));
    lock_.emplace(std::move(lock));
    const std::array components{RecordStore::schema(), ipam::schemaComponent(), kv::Service::schema(),
                                HostMemory::schema()};
    WEFT_ASSIGN(database_, Database::open(config_.stateDir + "/weft.db", components));

    WEFT_ASSIGN(gossip_, kv::Service::start(config_.gossip, *database_, metrics_));
    WEFT_TRY(chooseFirewall());
    WEFT_TRY(makeDrivers());
    WEFT_TRY(startNames());
    WEFT_TRY(startSharedNetworks());

    // Before the rules are read: what others change from then on is noticed.
    WEFT_ASSIGN(rulesWatch_, firewall::Watch::start([this] { alarm_.rulesChanged(); }));
    const auto begin = clock_.now();
    nextReconcile_ = reconcileAndLog();
    if (auto cleared = firewall::clearOther(firewall_->backend()); !cleared) {
        logWarn("remove what another firewall back end left: {}", cleared.error().message);
    }
    logInfo("kernel reconciled duration_ms={}",
            std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - begin).count());

    WEFT_ASSIGN(linkMonitor_, net::LinkMonitor::start(netlink_->netns(),
                                                      [this](const net::LinkEvent& event) { linkChanged(event); }));
    WEFT_TRY(startServing());
    trimMemory();
    return {};
}

void Daemon::linkChanged(const net::LinkEvent& event) {
    const net::Link& link = event.link;
    switch (event.kind) {
        case net::LinkEvent::Kind::Changed: {
            // The engine's rules for a bridge of its own follow the bridge.
            const bool foreign = link.kind == "bridge" && !markedNetwork(link.alias) && !net::isHalfMade(link);
            if (foreign && foreignBridges_.insert(link.index).second) rulesWatch_->hurry();
            return;
        }
        case net::LinkEvent::Kind::Removed:
            foreignBridges_.erase(link.index);
            return alarm_.linkGone(link.name);
        case net::LinkEvent::Kind::Lost:
            return alarm_.linkGone("");
        default:
            return;
    }
}

Result<void> Daemon::chooseFirewall() {
    firewall::Backend backend = config_.firewall == "iptc" ? firewall::Backend::Iptc : firewall::Backend::Nft;
    std::string reason = "as configured";
    if (config_.firewall == "auto") {
        WEFT_ASSIGN(const firewall::Choice choice, firewall::chooseBackend());
        backend = choice.backend;
        reason = choice.reason;
    }
    firewallReason_ = fmt::format("{} ({})", firewall::toString(backend), reason);
    logInfo("firewall backend={} reason={}", firewall::toString(backend), logValue(reason));
    WEFT_ASSIGN(firewall_, firewall::makeFirewall(backend));
    return {};
}

Result<void> Daemon::makeDrivers() {
    WEFT_ASSIGN(netlink_, net::Netlink::open());
    WEFT_ASSIGN(ports_, net::PortAllocator::open());
    WEFT_ASSIGN(records_, RecordStore::open(*database_));

    ipam::LocalIpamConfig ranges;
    for (const ipam::DefaultRange& range : config_.addressPools) {
        (range.base.family() == IpFamily::V4 ? ranges.defaultsV4 : ranges.defaultsV6).push_back(range);
    }
    ipam::LocalIpamHooks hooks = sharedHooks();
    hooks.occupied = [this] { return occupiedByHost(*netlink_); };
    leases_ = std::make_unique<ipam::DatabaseLeaseStore>(*database_);
    WEFT_ASSIGN(ipam_, ipam::LocalIpam::create(*leases_, clock_, std::move(ranges), std::move(hooks)));

    if (auto loaded = net::PortProgram::load(netlink_->netns())) {
        portProgram_ = *std::move(loaded);
    } else {
        portProgramTrouble_ = loaded.error().message;
        logWarn("msg=\"containers' senders are not checked, and there is no fast path\" why={}",
                logValue(portProgramTrouble_));
    }
    const DriverContext context{*records_, *netlink_, *ports_, *firewall_, *ipam_, clock_, portProgram_.get()};
    WEFT_ASSIGN(bridge_, BridgeDriver::create(context));
    WEFT_ASSIGN(host_, HostDriver::create(context));
    none_ = std::make_unique<NoneDriver>(*records_, clock_);
    WEFT_TRY(makeOverlay(context));
    modes_.emplace_back("weft-bridge", *bridge_);
    modes_.emplace_back("weft-host", *host_);
    modes_.emplace_back("weft-none", *none_);
    modes_.emplace_back("weft-overlay", *overlay_);
    return {};
}

// Of what both kinds of pools ask.
ipam::LocalIpamHooks Daemon::sharedHooks() {
    ipam::LocalIpamHooks hooks;
    hooks.endpointIsAlive = [this](const EndpointId& id) { return records_->endpoint(id) != nullptr; };
    hooks.bindingReleased = [](const EndpointId& id, const IpAddress& address) {
        logInfo("lease of a dead endpoint freed endpoint={} address={}", id.brief(), address.str());
    };
    return hooks;
}

Result<void> Daemon::makeOverlay(const DriverContext& context) {
    sharedLeases_ = std::make_unique<ipam::DatabaseLeaseStore>(*database_, "ipam_cluster");
    ipam::ClusterIpamConfig pools;
    pools.alone = gossip_->alone();
    pools.evidence.prefix = "overlay/ep/";
    pools.evidence.addresses = [](const kv::Row& row) {
        std::vector<IpAddress> addresses;
        if (const auto endpoint = decodeEndpoint(row.value)) {
            if (endpoint->v4) addresses.push_back(*endpoint->v4);
            if (endpoint->v6) addresses.push_back(*endpoint->v6);
        }
        return addresses;
    };
    pools.seeds = [this] { return gossip_->seeds(); };
    WEFT_ASSIGN(sharedIpam_,
                ipam::ClusterIpam::create(*gossip_, *sharedLeases_, clock_, std::move(pools), sharedHooks()));
    OverlayConfig overlay;
    overlay.vtep = gossip_->advertised().ip;
    overlay.port = config_.vxlanPort;
    overlay.swarm = config_.swarm;
    overlay.clustered = !gossip_->alone();
    overlay.ledger = [this] { return sharedIpam_->facts(); };
    if (overlay.clustered) {
        WEFT_ASSIGN(overlay.memory, HostMemory::open(*database_, clock_));
        overlay.memory->start();
    }
    WEFT_ASSIGN(overlay_, OverlayDriver::create(context, *bridge_, *gossip_, overlay, *sharedIpam_));
    return {};
}

// A swarm's engines tell each other the names of services, tasks and containers themselves.
Result<void> Daemon::startNames() {
    if (config_.dnsPort == 0 || config_.swarm) return {};
    NameConfig names{config_.dnsPort, config_.domain, config_.dockerSocket, [this] { firewall_->vouch(); }};
    auto started = NameService::start(std::move(names), *gossip_, *overlay_, netlink_->netns(), metrics_);
    if (!started && started.error().code == ErrorCode::Unsupported) {
        logWarn("no names across hosts: {}", started.error().message);
        return {};
    }
    WEFT_ASSIGN(names_, std::move(started));
    return firewall_->setResolver(config_.dnsPort);
}

Result<void> Daemon::startSharedNetworks() {
    if (config_.swarm) return {};
    SharedNetworksConfig shared{config_.dockerSocket, config_.labels, {}};
    shared.removeForgotten = [this](const std::string& name, const EngineKnows& known) {
        return overlay_->removeForgotten(name, known);
    };
    WEFT_ASSIGN(sharedNetworks_, SharedNetworks::start(std::move(shared), *gossip_, clock_));
    return {};
}

PluginTraits Daemon::swarmTraits() {
    PluginTraits traits;
    traits.global = true;
    traits.discovered = [this](const DiscoveredNode& node, bool isThere) {
        if (!node.self) {
            isThere ? gossip_->addSeed(node.address) : gossip_->removeSeed(node.address);
        } else if (isThere && node.address != gossip_->advertised().ip) {
            logWarn("the swarm sends this node's frames to {}, weft to {}: set WEFT_ADVERTISE unless that is meant",
                    node.address.str(), gossip_->advertised().ip.str());
        }
    };
    return traits;
}

// systemd's if it passed one of that name, wherever it lies; else one of our own.
Result<ListeningSocket> Daemon::pluginSocket(const std::string& name) {
    const std::string file = name + ".sock";
    const auto found = std::find_if(inherited_.begin(), inherited_.end(), [&file](const ListeningSocket& socket) {
        return std::filesystem::path(socket.path()).filename() == file;
    });
    if (found == inherited_.end()) return listenUnix(config_.pluginDir + "/" + file, 0660);
    return std::move(*found);
}

Result<void> Daemon::startServing() {
    ControlSources sources;
    sources.modes = modes_;
    sources.pools = [this] {
        auto all = ipam_->listPools();
        for (auto& pool : sharedIpam_->listPools()) all.push_back(std::move(pool));
        return all;
    };
    sources.leases = [this] {
        auto all = ipam_->listLeases();
        for (auto& lease : sharedIpam_->listLeases()) all.push_back(std::move(lease));
        return all;
    };
    sources.gossip = gossip_.get();
    sources.sharedNetworks = sharedNetworks_.get();
    sources.overlay = [this] { return overlay_->status(); };
    sources.rowWarnings = [this] { return rowWarnings(); };
    sources.tunnels = [this] { return overlay_->tunnels(); };
    sources.hosts = [this] { return overlay_->hosts(); };
    sources.blocks = [this] { return sharedIpam_->describe(); };
    sources.ledgerWarnings = [this] { return sharedIpam_->facts()->warnings; };
    sources.forget = [this](const std::string& node, bool force) { return sharedIpam_->forgetNode(node, force); };
    sources.metrics = &metrics_;
    sources.clock = &clock_;
    sources.firewall = firewallReason_;
    if (!config_.swarm) sources.pluginDir = config_.pluginDir;
    sources.stateDir = config_.stateDir;
    sources.reconcile = [this](bool dryRun) { return reconcile(dryRun); };
    sources.lastRepairs = [this] {
        const std::lock_guard lock(pastRepairsMutex_);
        return std::vector<PastRepair>(pastRepairs_.begin(), pastRepairs_.end());
    };
    sources.traffic = [this] { return netlink_->linkTraffic(); };
    sources.drops = [this](const std::string& link) { return dropsOf(link); };
    sources.allDrops = [this] { return portProgram_ ? portProgram_->allDrops() : net::DropCounts{}; };
    sources.names = [this] { return dockerNames_.get(); };
    sources.doctor = [this] { return doctor(); };
    sources.trace = [this](TraceQuestion question) { return trace(std::move(question)); };
    control_ = std::make_unique<ControlApi>(std::move(sources));

    std::vector<HttpListener> listeners;
    const auto listen = [&](ListeningSocket socket, HttpHandler handler, std::optional<uint32_t> onlyUser,
                            HttpErrorBody errorBody, std::optional<std::chrono::milliseconds> answerWithin) {
        HttpListener& listener = listeners.emplace_back();
        listener.socket = UniqueFd(::dup(socket.fd()));
        listener.handler = std::move(handler);
        listener.errorBody = std::move(errorBody);
        listener.onlyUser = onlyUser;
        listener.answerWithin = answerWithin;
        logInfo("listening path={} from={}", socket.path(), socket.inherited() ? "systemd" : "weftd");
        sockets_.push_back(std::move(socket));
    };
    for (const Mode& mode : modes_) {
        const bool isOverlay = mode.driver == overlay_.get();
        // A managed plugin is one driver.
        if (config_.swarm && !isOverlay) continue;
        const std::string name = config_.swarm ? "weft" : mode.name;
        WEFT_ASSIGN(ListeningSocket socket, pluginSocket(name));
        ipam::AddressManager* addresses = ipam_.get();
        if (isOverlay) addresses = sharedIpam_.get();
        PluginTraits traits = config_.swarm ? swarmTraits() : PluginTraits{};
        traits.onHostNetwork = mode.driver == host_.get();
        plugins_.push_back(
            std::make_unique<PluginApi>(name, *mode.driver, *addresses, metrics_, clock_, std::move(traits)));
        PluginApi& plugin = *plugins_.back();
        listen(
            std::move(socket), [&plugin](const HttpRequest& request) { return plugin.handle(request); }, {},
            pluginErrorBody, kAnswerWithin);
    }
    WEFT_ASSIGN(ListeningSocket control, listenUnix(config_.runDir + "/weft.sock", 0600));
    listen(std::move(control), [this](const HttpRequest& request) { return control_->handle(request); }, ::geteuid(),
           controlErrorBody, {});
    if (!config_.metrics.empty()) {
        WEFT_ASSIGN(UniqueFd socket, listenLoopback(config_.metrics));
        HttpListener& metrics = listeners.emplace_back();
        metrics.socket = std::move(socket);
        metrics.handler = [this](const HttpRequest& request) { return control_->handleMetrics(request); };
        metrics.errorBody = controlErrorBody;
        metrics.maxConnections = kMetricsConnections;
        metrics.maxWorkers = kMetricsWorkers;
        metrics.idleTimeout = kMetricsIdle;
        logInfo("listening address={}", config_.metrics);
    }
    WEFT_ASSIGN(server_, HttpServer::start(std::move(listeners)));
    if (!config_.web.empty()) {
        WEFT_ASSIGN(web_, WebServer::start(config_.web, [this] {
                        return control_->handle({"GET", "/v1/live", "", ""}).body;
                    }));
        logInfo("web page url=http://{}/", config_.web);
    }
    return {};
}

Result<std::vector<Repair>> Daemon::reconcile(bool dryRun) {
    std::vector<Repair> all;
    for (const Mode& mode : modes_) {
        if (mode.reconcilable == nullptr) continue;
        auto repairs = mode.reconcilable->reconcile(dryRun);
        // One mode's trouble must not keep the others from being healed.
        if (!repairs) {
            all.push_back({"mode", mode.name, "not reconciled", repairs.error()});
            continue;
        }
        std::move(repairs->begin(), repairs->end(), std::back_inserter(all));
    }
    if (!dryRun) count(all);
    return all;
}

void Daemon::count(const std::vector<Repair>& repairs) {
    const std::lock_guard lock(pastRepairsMutex_);
    for (const Repair& repair : repairs) {
        logRepair(repair);
        pastRepairs_.push_front({clock_.wall(), repair});
        if (pastRepairs_.size() > kPastRepairs) pastRepairs_.pop_back();
        metrics_
            .counter("weft_repairs_total", "Differences between records and kernel found by reconciling, by kind.",
                     {{"kind", repair.kind}, {"result", repair.error ? "failed" : "ok"}})
            .add();
    }
}

std::chrono::seconds Daemon::reconcileAndLog() {
    const auto repairs = reconcile(false);
    if (!repairs) {
        logError("reconcile: {}", repairs.error().message);
        return kReconcileAgain;
    }
    const bool failed = std::any_of(repairs->begin(), repairs->end(), [](const Repair& repair) {
        return repair.error && (repair.kind == "mode" || repair.kind == "rule");
    });
    return failed ? kReconcileAgain : kReconcileEvery;
}

bool Daemon::repairRules() {
    const auto repairs = bridge_->reconcileFirewall(false);
    if (!repairs) {
        logError("repair rules: {}", repairs.error().message);
    } else {
        count(*repairs);
    }
    return repairs.has_value();
}

std::vector<ForgingPort> Daemon::forgingPorts() {
    std::vector<ForgingPort> ports;
    for (const Mode& mode : modes_) {
        if (mode.inspectable == nullptr) continue;
        for (const EndpointInfo& endpoint : mode.inspectable->endpoints()) {
            ForgingPort port{endpoint.id, endpoint.networkId, dropsOf(endpoint.link)};
            port.drops[kDropFlood] = 0;  // its own, only too many
            ports.push_back(std::move(port));
        }
    }
    return ports;
}

net::DropCounts Daemon::dropsOf(const std::string& link) const {
    if (portProgram_ == nullptr || link.empty()) return {};
    const auto index = netlink_->linkIndex(link);
    return index ? portProgram_->drops(*index) : net::DropCounts{};
}

std::vector<std::string> Daemon::rowWarnings() const {
    std::vector<std::string> warnings = overlay_->warnings();
    if (names_ != nullptr) std::ranges::move(names_->warnings(), std::back_inserter(warnings));
    return warnings;
}

std::vector<Check> Daemon::doctor() {
    std::vector<NetworkInfo> networks;
    for (const Mode& mode : modes_) {
        if (mode.inspectable == nullptr) continue;
        for (NetworkInfo& network : mode.inspectable->networks()) networks.push_back(std::move(network));
    }
    std::vector<Check> checks{{"firewall", Health::Good, firewallReason_, ""}};
    const auto differences = reconcile(true);
    if (!differences) {
        checks.push_back({"kernel state", Health::Bad, differences.error().message, "journalctl -u weftd"});
    } else if (!differences->empty()) {
        checks.push_back({"kernel state", Health::Warning,
                          fmt::format("{} differences from weft's records", differences->size()), "weftctl reconcile"});
    } else {
        checks.push_back({"kernel state", Health::Good, "as in weft's records", ""});
    }
    for (const auto& [id, error] : bridge_->unreadable()) {
        checks.push_back({"network " + id.brief(), Health::Bad,
                          "its record cannot be read, so nothing gets in or out of it: " + error.message,
                          "install the weftd that made it, or remove the network and create it again"});
    }
    for (std::string& warning : gossip_->warnings()) {
        checks.push_back({"cluster", Health::Warning, std::move(warning), ""});
    }
    const auto ledger = sharedIpam_->facts();
    for (const std::string& warning : ledger->warnings) {
        checks.push_back({"ledger", Health::Warning, warning, "weftctl overlay"});
    }
    for (std::string& warning : sharedNetworks_ ? sharedNetworks_->warnings() : std::vector<std::string>()) {
        checks.push_back({"networks of all hosts", Health::Warning, std::move(warning), "weftctl network ls"});
    }
    if (names_ != nullptr) {
        const std::string trouble = names_->trouble();
        if (trouble.empty()) {
            checks.push_back({"names", Health::Good, "the engine tells them", ""});
        } else {
            checks.push_back({"names", Health::Warning, "the engine does not tell its containers' names: " + trouble,
                              "see --docker-socket"});
        }
    }
    for (const OverlayStatus& network : overlay_->status()) {
        if (network.conflict.empty()) continue;
        checks.push_back({"overlay " + network.name, Health::Bad, network.conflict, network.advice});
    }
    for (const std::string& warning : rowWarnings()) {
        checks.push_back({"rows", Health::Bad, warning, "make room on the disk of " + config_.stateDir});
    }
    if (const auto trouble = overlay_->hostWatchTrouble()) checks.push_back(silentHostsCheck(*trouble));
    for (Check& check : senderChecks(forgingPorts(), portProgramTrouble_)) checks.push_back(std::move(check));
    const std::string nic = linkWith(*netlink_, gossip_->advertised().ip);
    for (Check& check : tunnelChecks(overlay_->tunnels(), nic, config_.vxlanPort)) checks.push_back(std::move(check));
    for (Check& check : examineHost(*netlink_, networks)) checks.push_back(std::move(check));
    return checks;
}

Result<std::vector<Check>> Daemon::trace(TraceQuestion question) {
    const auto resolve = [this](const std::string& network, const std::string& name) -> std::optional<IpAddress> {
        if (names_ == nullptr) return std::nullopt;
        const auto found = names_->names().find(network, name);
        return found.empty() ? std::nullopt : found.front().v4 ? found.front().v4 : found.front().v6;
    };
    const TraceSources sources{modes_, *netlink_, *bridge_, *overlay_, *gossip_, resolve, portProgram_.get()};
    WEFT_ASSIGN(const TraceFacts facts, readTrace(sources, std::move(question)));
    return composeTrace(facts);
}

// Whether some network or endpoint still needs one of these links.
bool Daemon::isWanted(const std::set<std::string>& links) const {
    if (links.contains("")) return true;
    for (const Mode& mode : modes_) {
        if (mode.inspectable == nullptr) continue;
        const auto wants = [&links](const auto& info) { return !info.link.empty() && links.contains(info.link); };
        const auto networks = mode.inspectable->networks();
        const auto endpoints = mode.inspectable->endpoints();
        if (std::any_of(networks.begin(), networks.end(), wants) ||
            std::any_of(endpoints.begin(), endpoints.end(), wants)) {
            return true;
        }
    }
    return false;
}

void Daemon::reload() {
    const auto asked = reread_();
    if (const auto* exit = std::get_if<Exit>(&asked)) {
        logError("settings not read again: {}", exit->text);
        return;
    }
    setLogLevel(std::get<Config>(asked).logLevel);
    logInfo("log level={}", toString(logLevel()));
}

void Daemon::run() {
    notifyManager("READY=1\nSTATUS=Serving");
    logInfo("weftd {} serves pid={}", WEFT_VERSION, ::getpid());
    const auto watchdog = watchdogInterval();
    const auto now = [] { return std::chrono::steady_clock::now(); };
    Time reconcileAt = now() + nextReconcile_;
    Time collectAt = now() + kCollectEvery;
    Time watchdogAt = watchdog ? now() : Time::max();
    std::set<std::string> gone;
    Time linksAt = Time::max();
    size_t trimmedPages = residentPages();

    for (;;) {
        const Time next = std::min({reconcileAt, collectAt, watchdogAt, linksAt});
        const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next - now());
        std::array<pollfd, 2> fds{{{signals_.get(), POLLIN, 0}, {alarm_.fd(), POLLIN, 0}}};
        ::poll(fds.data(), fds.size(), static_cast<int>(std::max<int64_t>(wait.count(), 0)));

        if (fds[0].revents != 0) {
            signalfd_siginfo info{};
            if (::read(signals_.get(), &info, sizeof(info)) == sizeof(info) && info.ssi_signo != SIGHUP) {
                logInfo("stopping signal={}", ::sigabbrev_np(static_cast<int>(info.ssi_signo)));
                break;
            }
            reload();
        }
        if (fds[1].revents != 0) alarm_.silence();
        if (alarm_.takeRulesChanged() && !repairRules()) reconcileAt = std::min(reconcileAt, now() + kReconcileAgain);
        gone.merge(alarm_.takeGone());
        if (!gone.empty() && linksAt == Time::max()) linksAt = now() + kLinkPatience;
        if (now() >= linksAt) {
            linksAt = Time::max();
            if (isWanted(std::exchange(gone, {}))) reconcileAt = now();
        }
        if (now() >= reconcileAt) {
            reconcileAt = now() + reconcileAndLog();
            ::malloc_trim(0);
        }
        if (now() >= collectAt) {
            for (const auto& freed : {ipam_->collect(), sharedIpam_->collect()}) {
                if (!freed) logWarn("collect leases: {}", freed.error().message);
            }
            if (residentPages() > trimmedPages + kGrownPages) {
                trimMemory();
                trimmedPages = residentPages();
            }
            collectAt = now() + kCollectEvery;
        }
        if (now() >= watchdogAt) {
            notifyManager("WATCHDOG=1");
            watchdogAt = now() + *watchdog;
        }
    }
    notifyManager("STOPPING=1");
    web_.reset();
    server_->stop();
    // Nobody will answer, so queries go to where they are sent again.
    if (names_ != nullptr) {
        if (const auto cleared = firewall_->setResolver(0); !cleared) logWarn("{}", cleared.error().message);
    }
    logInfo("stopped");
}

}  // namespace

int runDaemon(const Config& config, const std::function<std::variant<Config, Exit>()>& reread) {
    setLogLevel(config.logLevel);
    Daemon daemon(config, reread);
    if (const auto started = daemon.start(); !started) {
        logError("weftd cannot start: {}", started.error().message);
        return 1;
    }
    daemon.run();
    return 0;
}

}  // namespace weft::driver
