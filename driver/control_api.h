// ControlApi: what weftctl and Prometheus ask, on the control socket. JSON under /v1/, and GET /metrics.
//
//     GET  /v1/version status networks endpoints ports pools leases doctor log-level
//     GET  /v1/members overlay tunnels keys
//     GET  /v1/graph               see graph.h
//     GET  /v1/live                what the web page shows (web_page.html)
//     GET  /v1/kv?PREFIX
//     GET  /v1/network             networks of all hosts, and how far each host is
//     POST /v1/network             body: toJson() of a NetworkSpec
//     POST /v1/network/remove      body {"name": NAME, "force": bool}
//     POST /v1/reconcile    body {"dryRun": bool}
//     POST /v1/keys         body {"add": BASE64}, {"use": ID} or {"remove": ID}
//     POST /v1/trace        body {"container": ID, "destination": ADDRESS, "protocol": "tcp", "port": 80}
//     POST /v1/forget       body {"node": NAME, "force": bool}
//     POST /v1/renew        {"first": bool?}: this host's identity, from the next start on
//     PUT  /v1/log-level    body {"level": "debug"}
//
// Failures are {"error": TEXT} with status 400, 404, 405, 409 or 500.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "driver/docker_names.h"
#include "driver/doctor.h"
#include "driver/graph.h"
#include "driver/http_server.h"
#include "driver/modes.h"
#include "driver/shared_networks.h"
#include "driver/trace.h"
#include "drivers/overlay/overlay_driver.h"
#include "ipam/local_ipam.h"
#include "kv/service.h"
#include "net/netlink.h"
#include "net/port_program.h"

namespace weft::driver {

std::string controlErrorBody(int status, std::string_view text);

// A repair that was done, or failed.
struct PastRepair {
    Clock::Wall time;
    Repair repair;
};

struct ControlSources {
    std::vector<Mode> modes;
    std::function<std::vector<ipam::PoolInfo>()> pools;
    std::function<std::vector<ipam::LeaseInfo>()> leases;
    kv::Service* gossip = nullptr;
    SharedNetworks* sharedNetworks = nullptr;  // null: a swarm makes them
    std::function<std::vector<OverlayStatus>()> overlay;
    std::function<std::vector<std::string>()> rowWarnings = {};  // of rows that the other hosts do not hear
    std::function<TunnelReport()> tunnels;
    std::function<std::map<kv::NodeId, OverlayView::KnownHost>()> hosts = [] {
        return std::map<kv::NodeId, OverlayView::KnownHost>();
    };
    std::function<Result<std::string>()> blocks;  // who holds which addresses
    std::function<Result<std::string>(const std::string& node, bool force)> forget;
    std::function<std::vector<std::string>()> ledgerWarnings;  // of shared pools; may be empty
    Metrics* metrics = nullptr;
    const Clock* clock = nullptr;
    std::string firewall;  // "nft", "iptc" and why
    std::string pluginDir;
    std::string stateDir;
    std::function<Result<std::vector<Repair>>(bool dryRun)> reconcile;
    std::function<std::vector<PastRepair>()> lastRepairs;  // the latest first
    std::function<Result<std::map<std::string, net::LinkTraffic>>()> traffic;
    std::function<net::DropCounts(const std::string& link)> drops;  // of frames that the container may not send
    std::function<net::DropCounts()> allDrops;                      // since the start
    std::function<NamesById()> names;
    std::function<std::vector<Check>()> doctor;
    std::function<Result<std::vector<Check>>(TraceQuestion)> trace;
};

class ControlApi {
public:
    explicit ControlApi(ControlSources sources);

    // Any thread.
    HttpResponse handle(const HttpRequest& request);
    // Only GET /metrics: for the TCP port.
    HttpResponse handleMetrics(const HttpRequest& request);

    struct Routes;

private:
    [[nodiscard]] std::chrono::seconds uptime() const;

    ControlSources sources_;
    Clock::Monotonic started_;
    ClusterGraph graph_;
};

}  // namespace weft::driver
