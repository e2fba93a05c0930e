"""weftctl trace tells where a packet stops, and is right."""

import json

from harness import check, equal, feature
from lab import REPOSITORY, wait_for


def trace(t, container, destination):
    """The steps, as (name, health, found, fix)."""
    steps = json.loads(t.host.run(f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "--json", "trace",
                                  container, destination, check=False))["steps"]
    return [(step["name"], step["health"], step["found"], step["fix"]) for step in steps]


def passes(t, container, destination):
    steps = trace(t, container, destination)
    equal([step for step in steps if step[1] == "bad"], [], f"stops from {container} to {destination}")
    return steps


def stops(t, container, destination, at, why, fix=""):
    last = trace(t, container, destination)[-1]
    equal(last[:2], (at, "bad"), f"last step from {container} to {destination} ({last[2]})")
    check(why in last[2], f"{why!r} is not in {last[2]!r}")
    check(fix in last[3], f"{fix!r} is not in {last[3]!r}")


@feature("a packet that arrives has no step that stops it", plugin=True)
def arrives(t):
    net = t.network(v6=True)
    one, two = t.containers(net, "one", "two")
    web = t.container(t.network(), "web", "-p", "8080:80")
    t.reaches(one, "tcp", two.ip, 80)
    for destination in (two.ip, f"{two.ip}:80", "two:80", f"[{two.ip6}]:80", "8.8.8.8:53/udp", t.lab.router(t.host),
                        t.host.ip, f"{t.host.ip}:8080"):
        passes(t, "one", destination)
    passes(t, one.ip, two.ip)
    steps = {step[0]: step[2] for step in passes(t, "one", f"{t.host.ip}:8080")}
    check(f"{web.ip} port 80" in steps["nat"], steps["nat"])
    check(t.host.ip in {step[0]: step[2] for step in passes(t, "one", "8.8.8.8:53")}["nat"], "not seen as the host")


@feature("foreign rule: in FORWARD", plugin=True)
def foreign_iptables(t):
    one = t.container(t.network(), "one")
    router = t.lab.router(t.host)
    rule = ["FORWARD", "-s", one.ip, "-p", "tcp", "--dport", "80", "-j", "DROP"]
    passes(t, "one", f"{router}:80")
    t.host.run("iptables", "-I", *rule)
    t.defer(lambda: t.host.run("iptables", "-D", *rule, check=False))
    t.closed(one, "tcp", router, 80)
    stops(t, "one", f"{router}:80", "rules", one.ip)
    passes(t, "one", f"{router}:81")
    fix = trace(t, "one", f"{router}:80")[-1][3]
    t.host.run(*fix.split())  # what it says to type helps
    t.reaches(one, "tcp", router, 80)
    passes(t, "one", f"{router}:80")


@feature("foreign rule: in a table of somebody's at the forward hook", plugin=True)
def foreign_nft(t):
    one = t.container(t.network(), "one")
    router = t.lab.router(t.host)
    t.host.run("nft", "-f", "-", stdin="""
        table inet guard {
            chain way { type filter hook forward priority 5; policy accept; jump more; }
            chain more { meta mark 7 drop; ip saddr %s tcp dport { 80, 443 } ct state new counter drop; }
        }""" % one.ip)
    t.defer(lambda: t.host.run("nft", "delete", "table", "inet", "guard"))
    t.closed(one, "tcp", router, 80)
    stops(t, "one", f"{router}:80", "rules", "nft inet guard more: ip saddr", "nft delete rule inet guard more handle")
    steps = passes(t, "one", f"{router}:81")  # and of the mark it cannot know
    check(any(step[1] == "warning" and "mark" in step[2] for step in steps), f"no doubt: {steps}")


@feature("unpublished port: of the host and of another network's container", plugin=True)
def unpublished(t):
    one, web = t.container(t.network(), "one"), t.container(t.network(), "web", "-p", "8080:80")
    t.closed(one, "tcp", t.host.ip, 8081)
    stops(t, "one", f"{t.host.ip}:8081", "port", "not published", "docker run -p 8081")
    t.closed(one, "tcp", web.ip, 81)
    stops(t, "one", f"{web.ip}:81", "port", "not published")
    stops(t, "one", f"{web.ip}:80", "network", "host's addresses only")
    server = t.host.spawn(t.host.tool, "serve", "8083")
    t.defer(server.end)
    wait_for(lambda: t.host.ask("tcp", "127.0.0.1", 8083), "the host serves")
    passes(t, "one", f"{t.host.ip}:8083")


@feature("internal network", plugin=True)
def internal(t):
    net = t.network("--internal")
    one, two = t.containers(net, "one", "two")
    t.closed(one, "tcp", t.lab.router(t.host), 80)
    stops(t, "one", f"{t.lab.router(t.host)}:80", "network", "internal", "docker network connect")
    passes(t, "one", f"{two.ip}:80")


@feature("icc off", plugin=True)
def icc(t):
    net = t.network(options={"com.docker.network.bridge.enable_icc": "false"})
    two, one = t.container(net, "two", "-p", "8080:80"), t.container(net, "one")
    t.closed(one, "tcp", two.ip, 81)
    stops(t, "one", f"{two.ip}:81", "icc", "enable_icc=false")
    stops(t, "one", two.ip, "icc", "ping")
    t.reaches(one, "tcp", t.host.ip, 8080, server=two)
    passes(t, "one", f"{t.host.ip}:8080")


@feature("the engine's FORWARD DROP, with weft's passage taken away", plugin=True)
def engine_drop(t):
    t.container(t.network(), "one")
    router = t.lab.router(t.host)
    passes(t, "one", router)

    def caught():  # before weftd puts it back
        text = t.host.run("sh", "-c", f"""iptables -S FORWARD | sed -n 's/-A\\(.*WEFT-FORWARD\\)/-D\\1/p' | xargs iptables
            {REPOSITORY}/build/bin/weftctl --run-dir /run/weft trace one {router}""", check=False)
        return "stop" in text and text

    text = wait_for(caught, "a trace without the passage", 10, 0.5)
    check("policy drop" in text and "WEFT-FORWARD" in text and "weftctl reconcile" in text, text)
    wait_for(lambda: passes(t, "one", router), "the passage is back", 5, 0.2)
    wait_for(lambda: t.reaches(t.host, "tcp", router, 80), "all is well")


@feature("stale neighbour in the container", plugin=True)
def stale_cache(t):
    one, two = t.containers(t.network(), "one", "two")
    netns = ["nsenter", "-t", str(one.state["State"]["Pid"]), "-n"]
    t.host.run(*netns, "ip", "neighbour", "replace", two.ip, "lladdr", "02:00:00:00:00:99", "dev", "eth0")
    t.closed(one, "tcp", two.ip, 80)
    stops(t, "one", f"{two.ip}:80", "neighbour", "02:00:00:00:00:99", "ip neighbour delete")
    t.host.run(*trace(t, "one", two.ip)[-1][3].split())
    t.reaches(one, "tcp", two.ip, 80, server=two)
    passes(t, "one", f"{two.ip}:80")
