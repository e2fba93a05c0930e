"""Restarts, crashes and damage from others: traffic goes on, or comes back within seconds."""

import itertools
import signal
import threading
import time

from harness import check, equal, feature
from lab import keepalive_report, wait_for

LIVE_RESTORE = {"engine_args": ["--live-restore"]}
REPAIR_SECONDS = 5


class Traffic:
    """Connections through all of a network's paths that are held while something happens."""

    def __init__(self, t):
        self.t = t
        self.net = t.network(v6=True)
        self.web = t.container(self.net, "web", "-p", "8080:80", "-p", "8080:80/udp")
        self.client = t.container(self.net, "client")
        self.flows = {
            "between containers": self.client.keepalive("tcp", self.web.ip, 80),
            "between containers over IPv6": self.client.keepalive("tcp", self.web.ip6, 80),
            "egress": self.client.keepalive("tcp", t.lab.router(t.host), 80),
            "published tcp": t.outside.keepalive("tcp", t.host.ip, 8080),
            "published udp": t.outside.keepalive("udp", t.host.ip, 8080),
        }

    def unbroken(self, gap_ms=300):
        """Ends the flows and checks that none was cut or waited."""
        for name, flow in self.flows.items():
            report = keepalive_report(flow)
            equal(report["error"], "", f"{name}: error")
            check(report["received"] > 0 and report["longest_gap_ms"] < gap_ms, f"{name}: {report}")

    def all_paths_work(self):
        """New connections on every path, and what should be closed is."""
        t = self.t
        for protocol in ("tcp", "udp"):
            t.reaches(t.outside, protocol, t.host.ip, 8080, server="web", client=t.lab.router(t.host), timeout=1)
        t.reaches(t.outside, "tcp", t.host.ip6, 8080, server="web", timeout=1)
        t.reaches(self.client, "tcp", self.web.ip, 80, server="web", timeout=1)
        t.reaches(self.client, "tcp", t.lab.router(t.host), 80, server="outside", client=t.host.ip, timeout=1)
        t.reaches(self.client, "tcp", t.lab.router(t.host, 6), 80, server="outside", client=t.host.ip6, timeout=1)
        t.reaches(t.host, "tcp", "127.0.0.1", 8080, server="web", timeout=1)
        return True

    def newcomer(self):
        """A new container works, its ports too, and leaves nothing: the daemons agree on what there is."""
        t = self.t
        late = t.container(self.net, "late", "-p", "8081:80")
        t.reaches(late, "tcp", "web", 80, server="web")
        t.reaches(t.outside, "tcp", t.host.ip, 8081, server=late)
        error = t.refused_container(self.net, "-p", "8080:80")
        check("8080" in error, f"a port in use was not refused: {error}")


@feature("running containers do not notice a dockerd restart with live-restore", own_host=LIVE_RESTORE)
def dockerd_restart(t):
    traffic = Traffic(t)
    t.host.stop_engine()
    t.host.start_engine()
    traffic.unbroken()
    traffic.all_paths_work()
    traffic.newcomer()


@feature("nor dockerd killed with SIGKILL", own_host=LIVE_RESTORE)
def dockerd_killed(t):
    traffic = Traffic(t)
    t.host.kill_engine()
    t.host.start_engine()
    traffic.unbroken()
    traffic.all_paths_work()
    traffic.newcomer()


@feature("containers with a restart policy are back after a dockerd restart without live-restore", own_host=True)
def dockerd_restart_policy(t):
    net = t.network(v6=True)  # else the engine drops its IPv6 base rules as it starts
    web = t.container(net, "web", "--restart", "always", "-p", "8080:80")
    for stop in (t.host.stop_engine, t.host.kill_engine):
        stop()
        t.host.start_engine()
        wait_for(lambda: web.refresh().ask("tcp", "127.0.0.1", 80), "web is back")
        t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)
        t.reaches(web, "tcp", t.lab.router(t.host), 80, server="outside")


@feature("iptables -F in every table is repaired within 5 s", differs="it does not repair", own_host=True)
def iptables_flush(t):
    t.skip_leak_check()
    traffic = Traffic(t)
    for command, table in itertools.product(("iptables", "ip6tables"), ("filter", "nat", "mangle", "raw")):
        t.host.run(command, "-t", table, "-F")
    wait_for(traffic.all_paths_work, "all paths work again", timeout=REPAIR_SECONDS)
    traffic.newcomer()


@feature("nft flush ruleset is repaired within 5 s", differs="it does not repair", own_host=True)
def nft_flush(t):
    t.skip_leak_check()
    traffic = Traffic(t)
    stranger = t.container(t.network(), "stranger")
    t.host.run("nft", "flush", "ruleset")
    wait_for(traffic.all_paths_work, "all paths work again", timeout=REPAIR_SECONDS)
    time.sleep(1)
    t.closed(stranger, "tcp", traffic.web.ip, 80)
    traffic.newcomer()


@feature("a deleted bridge is repaired within 5 s", differs="it does not repair", own_host=True)
def bridge_deleted(t):
    net = t.network(options={"com.docker.network.bridge.name": "br-mine"})
    web, client = t.container(net, "web", "-p", "8080:80"), t.container(net, "client")
    t.host.run("ip", "link", "del", "br-mine")
    wait_for(lambda: t.outside.ask("tcp", t.host.ip, 8080, timeout=1), "web is reached again", timeout=REPAIR_SECONDS)
    t.reaches(client, "tcp", web.ip, 80, server=web)


@feature("running containers do not notice a plugin restart", plugin=True, own_host=True)
def plugin_restart(t):
    traffic = Traffic(t)
    t.host.stop_plugin()
    t.host.start_plugin()
    traffic.unbroken(gap_ms=100)
    traffic.all_paths_work()
    traffic.newcomer()


@feature("nor the plugin killed with SIGKILL", plugin=True, own_host=True)
def plugin_killed(t):
    traffic = Traffic(t)
    t.host.kill_plugin()
    traffic.all_paths_work()
    t.host.start_plugin()
    traffic.unbroken(gap_ms=100)
    traffic.all_paths_work()
    traffic.newcomer()


@feature("a docker run while the plugin is down waits for it and succeeds", plugin=True, own_host=True)
def run_while_down(t):
    net = t.network()
    t.container(net, "first")
    t.host.kill_plugin()
    restart = threading.Timer(1.5, t.host.start_plugin)
    restart.start()
    web = t.container(net, "web", "-p", "8080:80")
    restart.join()
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)


@feature("a container that dies while the plugin is down leaves nothing behind", plugin=True, own_host=True)
def dies_while_down(t):
    net = t.network()
    before = t.host.snapshot()
    web = t.container(net, "web", "-p", "8080:80")
    t.host.kill_plugin()
    t.host.run("kill", "-9", str(web.state["State"]["Pid"]))
    time.sleep(1)
    t.host.start_plugin()
    wait_for(lambda: t.host.snapshot() == before, "only the network is left", timeout=30, interval=0.5)
    web = t.container(net, "second", "-p", "8080:80")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)


@feature("stale endpoints of a dirty kill of both daemons are cleaned up", plugin=True, own_host=True)
def both_killed(t):
    net = t.network()
    before = t.host.snapshot()
    web = t.container(net, "web", "-p", "8080:80")
    t.host.kill_engine()
    t.host.kill_plugin()
    t.host.run("kill", "-9", str(web.state["State"]["Pid"]))
    t.host.start_plugin()
    t.host.start_engine()
    wait_for(lambda: t.host.snapshot() == before, "only the network is left", timeout=30, interval=0.5)


@feature("after a reboot of the host networks and restarting containers are back", own_host=True)
def reboot(t):
    net = t.network(v6=True)
    web = t.container(net, "web", "--restart", "always", "-p", "8080:80")
    t.host.reboot()
    # An engine sets it only where it is the first to turn forwarding on, and weftd starts before it.
    check("-P FORWARD DROP" in t.host.run("iptables", "-S", "FORWARD"), "the engine left FORWARD open")
    wait_for(lambda: web.refresh().ask("tcp", "127.0.0.1", 80), "web is back")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)
    t.reaches(web, "tcp", t.lab.router(t.host), 80, server="outside", client=t.host.ip)
    client = t.container(net, "client")
    t.reaches(client, "tcp", "web", 80, server=web)
    t.reaches(client, "tcp", web.ip6, 80, server=web)


@feature("SIGTERM ends the plugin at once and leaves the rules of running containers", plugin=True, own_host=True)
def plugin_stop(t):
    traffic = Traffic(t)
    start = time.monotonic()
    t.host.plugin_process.end(signal.SIGTERM)
    check(time.monotonic() - start < 3, "the plugin took more than 3 s to end")
    traffic.all_paths_work()
    traffic.unbroken(gap_ms=100)
    t.host.start_plugin()
