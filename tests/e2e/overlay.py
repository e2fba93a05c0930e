#!/usr/bin/env python3
"""Overlay networks between three real Docker Engines: one line a feature, over bridged and routed underlays.

    tests/e2e/overlay.py                       every underlay
    tests/e2e/overlay.py --underlay routed -k cable

The hosts of one underlay stay up for all features; each feature makes its own networks and removes them, and then no
host may hold anything it did not hold before.
"""

import argparse
import contextlib
import glob
import ipaddress
import json
import os
import random
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
import traceback

from asking import closed, pairs, ping, reaches, refused, resolve, soon_reaches, soon_resolves
from harness import check, equal
from lab import IMAGE, REPOSITORY, Container, Lab, in_parallel, keepalive_report, leaks, sweep, wait_for
from overlay_cluster import VXLAN_OVERHEAD, WEB, Cluster

HOSTS = 3
FEATURE_LIMIT_SECONDS = 180
TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tools")
BROWSE, MANGLE = os.path.join(TOOLS, "browse.py"), os.path.join(TOOLS, "mangle.sh")
FEATURES = []
# name: routed?, address family of the underlay
UNDERLAYS = {"bridged": (False, 4), "routed": (True, 4), "bridged6": (False, 6)}


def feature(name):
    def register(function):
        FEATURES.append((name, function))
        return function

    return register


@contextlib.contextmanager
def world_dns(c):
    """A name server for the world on `outside`; gives the arguments of `docker run` that make a host's containers ask it."""
    server = c.lab.outside.spawn("python3", f"{REPOSITORY}/tests/e2e/tools/dns_server.py", "0.0.0.0",
                                 f"{c.lab.directory}/dns.log", log=subprocess.DEVNULL)
    try:
        yield lambda i: ("--dns", c.lab.router(c.hosts[i]))
    finally:
        server.end(signal.SIGKILL)


@feature("every container reaches every other: tcp, udp, ping, IPv4 and IPv6, as themselves")
def all_pairs(c):
    for a, b in pairs(c.one_each(c.overlay())):
        for ours, theirs in ((a.ip, b.ip), (a.ip6, b.ip6)):
            for protocol in ("tcp", "udp"):
                reaches(a, protocol, theirs, 80, b, client=ours)
            ping(a, theirs)


@feature("packets of the full MTU pass between hosts, IPv4 and IPv6, and the MTU is the underlay's less the overhead")
def full_size(c):
    a, b, _ = c.one_each(c.overlay())
    equal(a.links()["eth0"]["mtu"], c.mtu(), "MTU")
    ping(a, b.ip, c.mtu() - 28)
    ping(a, b.ip6, c.mtu() - 48)


@feature("megabytes pass between hosts unharmed")
def bulk(c):
    a, b, _ = c.one_each(c.overlay())
    bulk_between(a, b)


def bulk_between(a, b):
    b.run("/bin/busybox", "httpd", "-p", "8080", "-h", "/bin")
    wanted = b.run("/bin/busybox", "md5sum", "/bin/busybox").split()[0]
    for address in (b.ip, f"[{b.ip6}]"):
        got = a.run("/bin/busybox", "sh", "-c", f"/bin/busybox wget -q -O - http://{address}:8080/busybox | "
                    "/bin/busybox md5sum").split()[0]
        equal(got, wanted, "checksum of what came")


@feature("addresses are unique on all hosts while twelve containers start at once")
def unique(c):
    net = c.overlay()
    made = in_parallel(*(lambda host=host, i=i: c.container(net, host, f"u{host.name}{i}")
                         for host in c.hosts for i in range(4)))
    equal(len({one.ip for one in made}), len(made), "different IPv4 addresses")
    equal(len({one.ip6 for one in made}), len(made), "different IPv6 addresses")
    equal(len({one.links()["eth0"]["address"] for one in made}), len(made), "different MACs")


@feature("an overlay on Docker's own IPAM is refused, with the command to type")
def default_ipam(c):
    why = refused(c.hosts[0].docker, "network", "create", "-d", "weft-overlay", "--subnet", "10.99.128.0/24", "-o",
                  "weft.network=wrong", "overwrong")
    check("--ipam-driver weft-overlay" in why, f"the refusal does not say what to type: {why}")


@feature("the same network with another subnet is refused with both subnets")
def other_subnet(c):
    net = c.overlay(hosts=c.hosts[:1])
    why = refused(c.hosts[1].docker, "network", "create", "-d", "weft-overlay", "--ipam-driver", "weft-overlay",
                  "--subnet", "10.250.0.0/16", "-o", f"weft.network={net.name}", net.name)
    check("10.250.0.0/16" in why and net.subnet in why, f"not both subnets: {why}")


@feature("a published port is reached from outside, from its own host and from another host")
def published(c):
    net = c.overlay()
    web = c.container(net, c.hosts[1], "web", "-p", "8088:80")
    for place in (c.lab.outside, c.hosts[1], c.hosts[2]):
        reaches(place, "tcp", c.hosts[1].ip, 8088, web)


@feature("containers reach the outside, seen as their host; docker_gwbridge is not there")
def egress(c):
    a, *_ = c.one_each(c.overlay())
    reply = a.ask("tcp", c.lab.router(a.host), 80)
    equal((reply.server, reply.client), ("outside", a.host.ip), "who answered, whom it saw")
    check("docker_gwbridge" not in a.host.links(), "docker_gwbridge is there")
    equal([name for name in a.links() if name.startswith("eth")], ["eth0"], "one interface")


@feature("frames between containers meet no rules of the host, or with weft.fastpath=false those of DOCKER-USER")
def fast_path(c):
    for options, fast in ((), True), (("-o", "weft.fastpath=false"), False):
        a, b, _ = c.one_each(c.overlay(*options), "fast" if fast else "slow")
        reaches(a, "tcp", b.ip, 80, b)
        rule = ("DOCKER-USER", "-s", a.ip, "-d", b.ip, "-j", "DROP")
        a.host.run("iptables", "-I", *rule)
        try:
            if not fast:
                closed(a, b.ip)
                continue
            soon_reaches(a, "tcp", b.ip, 80, b, within=3)
            a.host.kill_plugin()
            reaches(a, "tcp", b.ip, 80, b)
            a.host.start_plugin()
            reaches(a, "tcp", b.ip, 80, b)
        finally:
            a.host.run("iptables", "-D", *rule)


@feature("an internal overlay reaches its own on other hosts and nothing else")
def internal(c):
    a, b, _ = c.one_each(c.overlay("--internal"))
    reaches(a, "tcp", b.ip, 80, b)
    closed(a, c.lab.router(a.host))


@feature("containers of another overlay are out of reach, on the same host and on others")
def isolated(c):
    mine, theirs = c.one_each(c.overlay(), "m"), c.one_each(c.overlay(), "t")
    reaches(mine[0], "tcp", mine[1].ip, 80, mine[1])
    for stranger in theirs[:2]:
        closed(mine[0], stranger.ip)


@feature("a new container is soon reached from another host, thirty times")
def new_container(c):
    net = c.overlay()
    far = c.container(net, c.hosts[2], "far")
    times = []
    for number in range(30):
        c.hosts[0].docker("create", "--network", net.name, "--name", f"n{number}", "--hostname", f"n{number}", IMAGE)
        c.hosts[0].docker("start", f"n{number}")
        begin = time.monotonic()  # the engine's answer comes after Join's
        new = Container(c.hosts[0], f"n{number}")
        soon_reaches(far, "tcp", new.ip, 80, new, 3)
        times.append((time.monotonic() - begin) * 1000)
        c.hosts[0].docker("rm", "-f", new.name)
    print(f"      from start's return to the answer: p50 {statistics.median(times):.0f} ms, worst {max(times):.0f} ms")
    check(max(times) < c.options.reach_limit, f"worst {max(times):.0f} ms")


@feature("an address that moves to another host is reached there within a second")
def moved(c):
    net = c.overlay()
    far = c.container(net, c.hosts[2], "far")
    old = c.container(net, c.hosts[0], "old")
    address = old.ip
    reaches(far, "tcp", address, 80, old)
    c.hosts[0].docker("rm", "-f", "old")
    c.hosts[1].docker("run", "-d", "--network", net.name, "--ip", address, "--name", "new", "--hostname", "new", IMAGE)
    soon_reaches(far, "tcp", address, 80, Container(c.hosts[1], "new"), 1)


@feature("forwarding and neighbour entries of a container that is gone are gone on every host")
def no_stale_entries(c):
    net = c.overlay()
    keep, gone, _ = c.one_each(net)
    mac, address = gone.links()["eth0"]["address"], gone.ip

    def mentioned(host):
        return [line for line in (host.run("bridge", "fdb", "show") + "\n" + host.run("ip", "neigh", "show")).splitlines()
                if mac in line or line.startswith(address + " ")]

    ping(keep, address)
    check(mentioned(c.hosts[0]), "no entry for a living one")
    gone.host.docker("rm", "-f", gone.name)
    wait_for(lambda: not any(mentioned(host) for host in c.hosts), "no entry anywhere", 2)


@feature("a cable pulled for a while: both sides go on inside, and all is well within 2 s of contact")
def cable(c):
    net = c.overlay()
    a, b, lone = c.one_each(net)
    host = lone.host
    mate = c.container(net, host, "mate")
    host.run("ip", "link", "set", "eth0", "down")
    time.sleep(c.options.cable)
    reaches(lone, "tcp", mate.ip, 80, mate)
    reaches(a, "tcp", b.ip, 80, b)
    host.run("sh", "-ec", f"""
        ip link set eth0 up
        ip -6 address replace {host.ip6}/64 dev eth0 nodad
        ip route replace default via {c.lab.router(host)}
        ip -6 route replace default via {c.lab.router(host, 6)}
    """)
    begin = time.monotonic()
    for one in (a, b):
        soon_reaches(one, "tcp", lone.ip, 80, lone, 20)
        soon_reaches(lone, "tcp", one.ip, 80, one, 20)
    print(f"      all reached {time.monotonic() - begin:.1f} s after the cable was back")
    wait_for(c.all_alive, "all members alive again", 20)


@feature("weftd killed many times at random: connections stay, new containers are reached")
def killed(c):
    net = c.overlay()
    a, b, _ = c.one_each(net)
    stream = a.keepalive("tcp", b.ip, 80)
    for _ in range(c.options.kills):
        host = random.choice(c.hosts)
        time.sleep(random.uniform(0, 0.3))
        host.kill_plugin()
        host.start_plugin()
    wait_for(c.all_alive, "all members alive", 20)
    report = keepalive_report(stream)
    check(not report.get("error"), f"the connection broke: {report}")
    new = c.container(net, c.hosts[2], "new")
    soon_reaches(a, "tcp", new.ip, 80, new, 3)


def soon_presence(c, host, other, presence, within=30):
    wait_for(lambda: any(member["name"] == other.name and member["presence"] == presence
                         for member in c.ctl(host, "members")), f"{host.name} says: {other.name}'s {presence}", within, 0.1)


@contextlib.contextmanager
def unplugged(c, host):
    host.run("ip", "link", "set", "eth0", "down")
    try:
        yield
    finally:
        host.run("sh", "-ec", f"""
            ip link set eth0 up
            ip -6 address replace {host.ip6}/64 dev eth0 nodad
            ip route replace default via {c.lab.router(host)}
            ip -6 route replace default via {c.lab.router(host, 6)}
        """)


@feature("a host without its weftd, killed or stopped, is as before for its containers; then the host itself is cut")
def daemon_away(c):
    net = c.overlay()
    with world_dns(c) as dns:
        a = c.container(net, c.hosts[0], "near", *dns(0))
        b = c.container(net, c.hosts[1], "far", "-p", "8090:80", "-p", "8090:80/udp", *dns(1))
        soon_resolves(a, "far.weft", [b.ip], 2)
        soon_resolves(b, "near.weft", [a.ip], 2)
        others = [host for host in c.hosts if host is not b.host]
        lost_before = {}
        for away in (None, signal.SIGKILL, signal.SIGSTOP):
            streams = {f"{one.name} to {address} by {protocol}": one.keepalive(protocol, address, port)
                       for protocol in ("tcp", "udp")
                       for one, address, port in ((a, b.ip, 80), (b, a.ip, 80), (b, a.ip6, 80),
                                                  (c.lab.outside, b.host.ip, 8090))}
            if away:
                os.kill(b.host.plugin_process.pid, away)
                dead = time.monotonic()
                time.sleep(1)
                equal(resolve(b, "www.example.com"), ["203.0.113.7"], "a name of the world, a second after weftd's end")
                for host in others:
                    soon_presence(c, host, b.host, "daemon away")
                print(f"      told {time.monotonic() - dead:.1f} s after signal {away}")
                for protocol in ("tcp", "udp"):
                    reaches(c.lab.outside, protocol, b.host.ip, 8090, b, client=c.lab.router(b.host))
                    reaches(b, protocol, a.ip, 80, a, client=b.ip)
            time.sleep(c.options.away)
            for what, stream in streams.items():
                report = keepalive_report(stream)
                lost = report["sent"] - report["received"] if what.endswith("udp") else 0  # TCP repeats it
                lost_before.setdefault(what, lost)
                check(not report.get("error") and report["longest_gap_ms"] < 1000 and lost <= lost_before[what],
                      f"{what}, signal {away}: {report}, lost before: {lost_before[what]}")
            equal(resolve(a, "far.weft"), [b.ip], "its container's name")
            equal(resolve(b, "www.example.com"), ["203.0.113.7"], "a name of the world")
            if not away:
                continue
            if away == signal.SIGKILL:
                why = refused(b.host.docker, "run", "-d", "--network", net.name, IMAGE)
                check("weft" in why, f"a new container fails without a reason: {why}")
            else:
                with unplugged(c, b.host):
                    cut = time.monotonic()
                    for host in others:
                        soon_presence(c, host, b.host, "host away", within=10)
                    print(f"      told {time.monotonic() - cut:.1f} s after the host was cut")
            b.host.kill_plugin()
            b.host.start_plugin()
            wait_for(c.all_alive, "all members alive", 20)
            soon_reaches(a, "tcp", b.ip, 80, b, 3)


@feature("a host that reboots has its network again and reaches the others")
def rebooted(c):
    net = c.overlay()
    a, b, _ = c.one_each(net)
    b.host.reboot()
    wait_for(c.all_alive, "all members alive", 20)
    again = c.container(net, b.host, "again")
    soon_reaches(a, "tcp", again.ip, 80, again, 3)
    soon_reaches(again, "tcp", a.ip, 80, a, 3)


@feature("all hosts lose power at once: the network is there again for new containers, each with an address of its own")
def blackout(c):
    net = c.overlay()
    c.one_each(net)
    for host in c.hosts:
        host.power_off()
    in_parallel(*(host.reboot for host in c.hosts))
    wait_for(c.all_alive, "all members alive", 20)
    made = c.one_each(net, "again")
    equal(len({one.ip for one in made}), len(made), "different addresses")
    for a, b in pairs(made):
        soon_reaches(a, "tcp", b.ip, 80, b, 3)


@feature("the cluster key is exchanged from any host while a connection lasts")
def key_exchanged(c):
    a, b, _ = c.one_each(c.overlay())
    stream = a.keepalive("tcp", b.ip, 80)

    def keys():
        """As every host lists them, the one that seals first; nothing while they differ."""
        lists = [[key["id"] for key in sorted(c.ctl(host, "key", "list"), key=lambda key: not key["primary"])]
                 for host in c.hosts]
        return lists[0] if all(one == lists[0] for one in lists) else []

    def soon(host, *words):
        # Refused while that host has not heard from all others how far they are.
        wait_for(lambda: c.ctl(host, "key", *words) or True, f"key {words}", 10, 0.2)

    (old,) = keys()
    ctl = f"{REPOSITORY}/build/bin/weftctl"
    c.hosts[0].run("sh", "-c", f"{ctl} key generate | {ctl} --run-dir /run/weft key add -")
    new = next(key for key in wait_for(lambda: len(keys()) == 2 and keys(), "every host has both keys") if key != old)
    soon(c.hosts[1], "use", new)
    wait_for(lambda: keys() == [new, old], "every host seals with the new key")
    soon(c.hosts[2], "remove", old)
    wait_for(lambda: keys() == [new], "no host has the old key")
    c.hosts[1].kill_plugin()
    c.hosts[1].start_plugin()  # reads the key from its file
    wait_for(c.all_alive, "all members alive", 20)
    report = keepalive_report(stream)
    check(not report.get("error"), f"the connection broke: {report}")
    late = c.container(c.overlay(), c.hosts[2], "late")
    check(late.ip, "an address by the new key")


@feature("a host forgotten while it is dead: its addresses go to others, and it comes back only with an empty state")
def forgotten(c):
    net = c.overlay()
    keep, near, gone = c.one_each(net)
    host, address = gone.host, gone.ip

    forget = (f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "node", "forget", host.name)
    check("alive" in refused(keep.host.run, *forget), "a living host was not protected")
    host.power_off()
    wait_for(lambda: any(member["name"] == host.name and member["state"] == "dead" for member in
                         c.ctl(keep.host, "members")), "the host is declared dead", 30)
    keep.host.run(*forget)
    keep.host.run(*forget)  # twice is once
    wait_for(lambda: all(member["name"] != host.name for member in c.ctl(near.host, "members")), "it is not listed", 10)
    near.host.docker("run", "-d", "--network", net.name, "--ip", address, "--name", "heir", "--hostname", "heir", IMAGE)
    soon_reaches(keep, "tcp", address, 80, Container(near.host, "heir"), 1)

    host.power_on()
    host.start_plugin()
    host.start_engine()
    why = refused(host.docker, "run", "-d", "--network", net.name, IMAGE)
    check("forgotten" in why, f"the refusal does not say why: {why}")
    host.docker("rm", "-f", *host.docker("ps", "-aq").split())
    host.docker("network", "rm", net.name)
    host.stop_plugin()
    shutil.rmtree(os.path.join(host.directory, "weft"))
    host.start_plugin()
    wait_for(c.all_alive, "all members alive", 20)
    net.create(host)
    again = c.container(net, host, "again")
    soon_reaches(again, "tcp", address, 80, Container(near.host, "heir"), 3)


@feature("a host whose state or database was put back gives nothing out until every other has told it, and no address twice")
def put_back(c):
    net = c.overlay()
    first, second, third = c.one_each(net)
    host = third.host
    state = os.path.join(host.directory, "weft")
    host.stop_plugin()
    shutil.copytree(state, state + "-copy")
    host.start_plugin()
    wait_for(c.all_alive, "all members alive", 20)
    # Since the copy: an address of the host's own block is another host's.
    given = str(ipaddress.ip_address(third.ip) + 1)
    first.host.docker("run", "-d", "--network", net.name, "--ip", given, "--name", "given", "--hostname", "given", IMAGE)
    holders = {first.ip, second.ip, given}

    def whole():
        shutil.rmtree(state)
        shutil.copytree(state + "-copy", state)

    def database():
        for file in glob.glob(f"{state}/weft.db*"):
            os.remove(file)
        for file in glob.glob(f"{state}-copy/weft.db*"):
            shutil.copy(file, state)

    for number, change in enumerate((whole, database)):
        second.host.kill_plugin()
        host.power_off()
        change()
        host.power_on()
        host.start_plugin()
        host.start_engine()
        wait_for(lambda: any("memory" in line for line in c.ctl(host, "status")["warnings"]), "the host says it", 20)
        why = refused(host.docker, "run", "-d", "--network", net.name, IMAGE)
        check(second.host.name in why, f"the refusal does not name who is missing: {why}")
        host.docker("rm", "-f", *host.docker("ps", "-aq").split())
        second.host.start_plugin()
        wait_for(c.all_alive, "all members alive", 20)
        wait_for(lambda: not any("memory" in line for line in c.ctl(host, "status")["warnings"]), "it knows again", 20)
        again = c.container(net, host, f"again{number}")
        check(again.ip not in holders, f"{again.ip} is held twice")
        holders.add(again.ip)
        check("in use" in refused(host.docker, "run", "-d", "--network", net.name, "--ip", given, IMAGE), "given twice")
        soon_reaches(again, "tcp", first.ip, 80, first, 3)
        soon_reaches(again, "tcp", given, 80, Container(first.host, "given"), 3)
        holders.remove(again.ip)
    shutil.rmtree(state + "-copy")


@feature("frames that a stranger sends to the tunnel's port do not get in")
def stranger(c):
    net = c.overlay()
    a, b, _ = c.one_each(net)
    vni = next(link["linkinfo"]["info_data"]["id"] for name, link in a.host.links().items() if name.startswith("wx"))
    mac, gateway = a.links()["eth0"]["address"], c.address(a.host).strip("[]")
    outside = c.lab.outside
    outside.run("sh", "-ec", f"""
        ip link add forged type vxlan id {vni} remote {gateway} dstport 4789 {'udp6zerocsumrx' if c.family == 6 else ''}
        ip link set forged up
        ip address add {net.subnet.split('.')[0]}.{net.subnet.split('.')[1]}.250.250/16 dev forged
        ip neigh replace {a.ip} lladdr {mac} dev forged
    """)
    try:
        counter = f"cat /proc/{a.state['State']['Pid']}/net/snmp"
        def received():
            lines = [line.split() for line in a.host.run("sh", "-c", counter).splitlines() if line.startswith("Icmp:")]
            return int(lines[1][lines[0].index("InEchos")])
        before = received()
        ping(b, a.ip)
        equal(received(), before + 1, "the counter counts a member's ping")
        outside.run("busybox", "ping", "-c", "2", "-W", "1", "-I", "forged", a.ip, check=False)
        equal(received(), before + 1, "pings that came in")
    finally:
        outside.run("ip", "link", "del", "forged")


@feature("names: containers find each other by name, alias, hostname, with network and domain, forwards and backwards")
def names(c):
    net = c.overlay()
    with world_dns(c) as dns:
        a = c.container(net, c.hosts[0], "web", *dns(0), "--network-alias", "shop")
        b = c.container(net, c.hosts[1], "db", *dns(1), "--network-alias", "data", "--expose", "5432",
                        "--label", "com.docker.compose.service=store")
        d = c.container(net, c.hosts[2], "db2", *dns(2), "--network-alias", "data")
        for name in ("db", "DB", "store", f"db.{net.name}", "db.weft", f"db.{net.name}.weft", b.state["Id"][:12]):
            soon_resolves(a, name, [b.ip], 2)
            equal(resolve(a, name, "aaaa"), [b.ip6], f"IPv6 address of {name}")
        soon_resolves(a, "data", [b.ip, d.ip], 2)
        soon_resolves(b, "shop", [a.ip], 2)
        equal(resolve(a, ipaddress.ip_address(b.ip).reverse_pointer, "ptr"), [f"db.{net.name}"], "the address backwards")
        check(any(f"5432 db.{net.name}" in line for line in resolve(a, "_5432._tcp.db", "srv")), "the exposed port")
        reaches(a, "tcp", resolve(a, "db")[0], 80, b)
        equal(resolve(a, "nobody.weft"), [], "a name under the domain that nobody has")


@feature("names: those of outside are found as before, and seen as asked by the host")
def outside_names(c):
    net = c.overlay()
    with world_dns(c) as dns:
        a = c.container(net, c.hosts[0], "web", *dns(0))
        equal(resolve(a, "www.example.com"), ["203.0.113.7"], "a name of the world")
        equal(resolve(a, "www"), ["203.0.113.7"], "a name without dots that no container has")
        over_tcp = ("import socket,struct;s=socket.create_connection((%r,53),3);q=bytes([1,2,1,0,0,1,0,0,0,0,0,0,3])+b'www'"
                    "+bytes([0,0,1,0,1]);s.sendall(struct.pack('>H',len(q))+q);print(s.recv(512)[-4:].hex())"
                    % c.lab.router(a.host))
        equal(a.host.run("nsenter", "-t", str(a.state["State"]["Pid"]), "-n", "python3", "-c", over_tcp).strip(),
              "cb007107", "over TCP")
        with open(f"{c.lab.directory}/dns.log", encoding="ascii") as log:
            equal(set(log.read().split()), {a.host.ip}, "who asked")


@feature("names: none of another network, unless the container is on it too")
def foreign_names(c):
    net, other = c.overlay(), c.overlay()
    with world_dns(c) as dns:
        a = c.container(net, c.hosts[0], "web", *dns(0))
        b = c.container(other, c.hosts[1], "secret", *dns(1))
        soon = c.container(other, c.hosts[2], "friend", *dns(2))
        soon_resolves(soon, "secret", [b.ip], 2)
        for name in ("secret", f"secret.{other.name}"):
            equal(resolve(a, name), ["203.0.113.7"], f"{name}, which is passed on")
        equal(resolve(a, "secret.weft"), [], "secret.weft")
        a.host.docker("network", "connect", other.name, "web")
        soon_resolves(a, "secret", [b.on(other)["IPAddress"]], 2)


@feature("names: a stopped or renamed container is found no longer; that of a host that is away, unless another has the name")
def gone_names(c):
    net = c.overlay()
    with world_dns(c) as dns:
        a = c.container(net, c.hosts[0], "web", *dns(0))
        b = c.container(net, c.hosts[1], "db", *dns(1))
        soon_resolves(a, "db.weft", [b.ip], 2)
        b.host.docker("rename", "db", "main")
        soon_resolves(a, "main.weft", [b.ip], 1)
        b.host.docker("kill", "main")
        soon_resolves(a, "main.weft", [], 1)
        b.host.docker("start", "main")
        b.name = "main"
        soon_resolves(a, "main.weft", [b.refresh().ip], 2)
        b.host.kill_plugin()
        soon_presence(c, a.host, b.host, "daemon away")
        equal(resolve(a, "main.weft"), [b.ip], "of a host whose daemon is away")
        with unplugged(c, b.host):
            soon_presence(c, a.host, b.host, "host away")
            equal(resolve(a, "main.weft"), [b.ip], "of a host that is away")
            heir = c.container(net, c.hosts[2], "heir", "--network-alias", "main")
            soon_resolves(a, "main.weft", [heir.ip], 2)
        b.host.start_plugin()
        wait_for(lambda: sorted(resolve(a, "main.weft")) == sorted([b.ip, heir.ip]), "both are there", 10, 0.2)


@feature("names: on an internal overlay too, asked at its gateway; and no query gets out by it")
def internal_names(c):
    net = c.overlay("--internal")
    gateway = str(next(ipaddress.ip_network(net.subnet).hosts()))
    with world_dns(c):
        a, b = (c.container(net, host, name, "--dns", gateway) for host, name in zip(c.hosts, ("web", "db")))
        soon_resolves(a, "db", [b.ip], 2)
        equal(resolve(b, "web.weft"), [a.ip], "the other way")
        equal(resolve(a, "www.example.com"), [], "a name of the world")
        # A container that sends to the bridge what no route of its own would.
        inside = ("nsenter", "-t", str(a.state["State"]["Pid"]), "-n")
        a.host.run(*inside, "ip", "route", "add", "default", "via", gateway)
        server = c.lab.router(a.host)
        told = a.run(a.busybox, "nslookup", "-type=a", "www.example.com", server, check=False, timeout=20)
        check("REFUSED" in told, f"not refused: {told}")
        equal(json.loads(a.host.run(*dns_load(a, "ask", server, "db", "0.1", "10")))["wrong"], 0, "wrong answers of weftd")
        with open(f"{c.lab.directory}/dns.log", encoding="ascii") as log:
            equal(log.read(), "", "who asked the world")


def dns_load(container, *words):
    """The command line that runs build/bin/dns_load in the container's network."""
    return "nsenter", "-t", str(container.state["State"]["Pid"]), "-n", f"{REPOSITORY}/build/bin/dns_load", *words


@feature("names: a neighbour floods with garbage or queries: of the others' queries a hundredth is lost at most, IPv4 and IPv6")
def flooded_names(c):
    net, host = c.overlay(), c.hosts[0]
    with world_dns(c) as dns:
        far = c.container(net, c.hosts[1], "db", *dns(1))
        a, loud = (c.container(net, host, name, *dns(0)) for name in ("web", "loud"))
        soon_resolves(a, "db.weft", [far.ip], 2)
        for family, what in ((4, ()), (4, ("db.weft",)), (4, ("www.example.com",)), (6, ()), (6, ("db.weft",))):
            server = c.lab.router(host, family)
            flood = host.spawn(*dns_load(loud, "flood", server, "4", *what))
            time.sleep(0.5)
            asked = json.loads(host.run(*dns_load(a, "ask", server, "db.weft", "2", "100")))
            flood = json.loads(flood.wait())
            lost = 1 - asked["answered"] / asked["sent"]
            print(f"      IPv{family}, {flood['rate']}/s of {' '.join(what) or 'garbage'}: lost {lost:.1%}, p99 {asked['p99_us'] / 1000} ms")
            check(flood["rate"] > 20000, f"no flood: {flood}")
            check(asked["sent"] == 200 and lost <= 0.01 and not asked["wrong"], f"beside {flood}: {asked}")


def shared_subnets(number):
    return "--ipv6", "--subnet", f"10.{200 + number}.0.0/16", "--subnet", f"fd{number}::/64"


def on_engine(host, name):
    """The host's Docker network of that name, if there is one."""
    found = host.docker("network", "ls", "-q", "--filter", f"name=^{name}$").split()
    return host.inspect("network", found[0]) if found else None


def soon_everywhere(c, name, there=True, hosts=None, within=5):
    for host in hosts or c.hosts:
        wait_for(lambda host=host: bool(on_engine(host, name)) == there,
                 f"{name} is {'on' if there else 'gone from'} {host.name}", within, 0.1)


@feature("a network made once is on every host; it is not removed while in use, and then from every host")
def made_once(c):
    first, name = c.hosts[0], "once"
    c.ctl(first, "network", "create", name, *shared_subnets(1), "--mtu", "1400", "--label", "team=blue")
    soon_everywhere(c, name, within=1)
    with world_dns(c) as dns:
        containers = in_parallel(*(lambda i=i, host=host: c.container_on(name, host, f"c{i}", *dns(i))
                                   for i, host in enumerate(c.hosts)))
        for a, b in pairs(containers):
            soon_resolves(a, b.name, [b.ip], 2)
            reaches(a, "tcp", b.ip, 80, b)
            reaches(a, "tcp", b.ip6, 80, b)
        for host in c.hosts:
            network = on_engine(host, name)
            equal([subnet["Subnet"] for subnet in network["IPAM"]["Config"]], ["10.201.0.0/16", "fd1::/64"], "subnets")
            equal(network["Options"]["com.docker.network.driver.mtu"], "1400", "MTU")
            equal(network["Labels"]["team"], "blue", "label")
        check("is there already" in refused(c.ctl, first, "network", "create", name, *shared_subnets(2)), "made twice")
        graph = c.ctl(first, "graph")
        drawn = next(network for network in graph["networks"] if network["name"] == name)
        equal({(e["host"], e["name"], *e["addresses"]) for e in drawn["endpoints"]},
              {(f"node{i + 1}", f"c{i}", one.ip, one.ip6) for i, one in enumerate(containers)}, "containers drawn")
        equal({host["state"] for host in graph["hosts"]}, {"alive"}, "hosts drawn")
        why = refused(c.ctl, c.hosts[1], "network", "rm", name)
        check(all(f"c{i} on node{i + 1}" in why for i in range(HOSTS)), f"users are not named: {why}")
    for one in containers:
        one.host.docker("rm", "-f", one.name)
    by_hand = first.run(f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "network", "export", name)
    made = on_engine(first, name)
    c.ctl(c.hosts[1], "network", "rm", name)
    soon_everywhere(c, name, there=False)
    first.docker(*shlex.split(by_hand)[1:])
    for field in ("IPAM", "Options", "Internal", "EnableIPv6"):
        equal(on_engine(first, name)[field], made[field], f"{field} by the exported command")
    first.docker("network", "rm", name)


@feature("networks made, removed and made anew while a host was away, its daemon or its engine")
def made_while_away(c):
    first, last = c.hosts[0], c.hosts[2]
    for number, name in ((1, "kept"), (2, "dropped"), (3, "anew")):
        c.ctl(first, "network", "create", name, *shared_subnets(number))
    soon_everywhere(c, "anew")
    last.kill_plugin()
    wait_for(lambda: any(member["state"] == "dead" for member in c.ctl(first, "members")), "it is declared dead", 30)
    c.ctl(first, "network", "rm", "dropped")
    c.ctl(first, "network", "rm", "anew")
    c.ctl(first, "network", "create", "anew", *shared_subnets(4))
    c.ctl(first, "network", "create", "late", *shared_subnets(5))
    last.start_plugin()
    soon_everywhere(c, "late", within=20)
    soon_everywhere(c, "dropped", there=False)
    wait_for(lambda: on_engine(last, "anew")["IPAM"]["Config"][0]["Subnet"] == "10.204.0.0/16", "the new subnet", 5, 0.1)
    a, b = (c.container_on("anew", host, f"c{host.name}") for host in (first, last))
    soon_reaches(b, "tcp", a.ip, 80, a, 3)

    last.kill_engine()
    c.ctl(first, "network", "rm", "late")
    c.ctl(first, "network", "create", "later", *shared_subnets(6))
    states = {host["host"]: host["state"] for host in c.ctl(first, "network", "inspect", "later")["hosts"]}
    equal(states, {"node1": "ready", "node2": "ready", "node3": "waiting"}, "states while an engine is away")
    last.start_engine()
    soon_everywhere(c, "later", within=20)
    soon_everywhere(c, "late", there=False)


@feature("a network of labelled hosts only; one made by hand of that name is left alone and told of")
def labelled(c):
    first, second, third = c.hosts
    second.docker("network", "create", "-d", "weft-bridge", "mine")
    by_hand = on_engine(second, "mine")
    told = json.loads(first.run(f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "--json", "network", "create",
                                "mine", *shared_subnets(1), check=False))
    equal({host["host"]: host["state"] for host in told["hosts"]},
          {"node1": "ready", "node2": "by hand", "node3": "ready"}, "what the hosts did")
    check(any("mine" in warning for warning in c.ctl(second, "status")["warnings"]), "its host does not tell of it")
    c.ctl(first, "network", "rm", "mine")
    soon_everywhere(c, "mine", there=False, hosts=(first, third))
    equal(on_engine(second, "mine")["Id"], by_hand["Id"], "the network made by hand")
    second.docker("network", "rm", "mine")

    c.ctl(first, "network", "create", "only2", *shared_subnets(2), "--hosts", "node2")
    soon_everywhere(c, "only2", hosts=(second,))
    check(not on_engine(first, "only2") and not on_engine(third, "only2"), "it is on hosts without the label")


@feature("weftd killed while it makes or removes a network: then it is on every host, or on none")
def killed_making(c):
    first = c.hosts[0]
    names = [f"torn{number}" for number in range(4)]
    for number, name in enumerate(names):
        removing = number % 2
        if removing:
            c.ctl(first, "network", "create", name, *shared_subnets(number))
        verb = ("rm", name) if removing else ("create", name, *shared_subnets(number))
        asked = first.spawn(f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "network", *verb)
        time.sleep(number * 0.03)
        first.kill_plugin()
        asked.wait()
        first.start_plugin()
        wait_for(c.all_alive, "all members alive", 20)

    def decided(name):
        rows = c.ctl(first, "kv", "get", f"networks/{name}")
        engines = {bool(on_engine(host, name)) for host in c.hosts}
        drivers = {any(network["name"] == name for network in c.ctl(host, "overlay")) for host in c.hosts}
        return len(engines | drivers) == 1 and not any('"draft"' in row["value"] for row in rows)

    # What an engine forgot is removed after a minute.
    wait_for(lambda: all(decided(name) for name in names), "all hosts agree", 90, 0.3)
    for name in names:
        if on_engine(first, name):
            c.ctl(first, "network", "rm", name)
            soon_everywhere(c, name, there=False)


def traced(c, a, destination):
    """The last step of weftctl trace, after checking that those before it let the packet pass."""
    steps = json.loads(a.host.run(f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "--json", "trace", a.name,
                                  destination, check=False))["steps"]
    check(all(step["health"] != "bad" for step in steps[:-1]), f"goes on behind a stop: {steps}")
    return steps[-1]


def stops(c, a, destination, at, why, fix):
    step = traced(c, a, destination)
    equal((step["name"], step["health"]), (at, "bad"), f"last step of the trace ({step['found']})")
    check(why in step["found"] and fix in step["fix"], f"{why!r} and {fix!r} are not in {step}")


COMPOSE = """
version: "3.8"
services:
  {service}:
    image: {image}
    hostname: {service}-{host}
    restart: always
    dns: {dns}
    networks: {{shop: {{aliases: [any]}}}}
networks:
  shop: {{external: true}}
"""


def compose_up(c, i, service):
    """Brings up the host's part of the application; returns its container."""
    host = c.hosts[i]
    path = f"{c.lab.directory}/compose-{host.name}.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(COMPOSE.format(service=service, image=IMAGE, host=host.name, dns=c.lab.router(host)))
    done = subprocess.run(["docker-compose", "--no-ansi", "-H", f"unix://{host.docker_socket}", "-p", "app", "-f", path, "up", "-d"],
                          capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, f"docker-compose up on {host.name}: {done.stderr}")
    return Container(host, f"app_{service}_1")


@feature("a compose application over three hosts finds itself by service names, also after a host is killed and back")
def compose(c):
    c.ctl(c.hosts[0], "network", "create", "shop", *shared_subnets(9))
    soon_everywhere(c, "shop")

    def whole(one, other, db, within):
        for web in one, other:
            soon_resolves(web, "db", [db.ip], within)
            wait_for(lambda web=web: web.ask("tcp", "db", 80).server == f"db-{db.host.name}", f"{web.host.name} reaches db", within)
        soon_resolves(db, "web", [one.ip, other.ip], within)
        soon_resolves(db, "any.weft", [one.ip, other.ip, db.ip], within)
        for web in one, other:
            wait_for(lambda web=web: db.ask("tcp", web.ip, 80).server == f"web-{web.host.name}", "db reaches web", within)

    with world_dns(c):
        one, other, db = in_parallel(*(lambda i=i, service=service: compose_up(c, i, service)
                                       for i, service in enumerate(("web", "web", "db"))))
        whole(one, other, db, 3)
        for victim in db, other:
            victim.host.reboot()
            wait_for(lambda victim=victim: victim.refresh().state["State"]["Running"] and victim.ip, "compose's container runs", 20)
            whole(one, other, db, 20)


@feature("the web page follows the cluster: a container that comes, traffic, a repair, a host that dies")
def web_page(c):
    net, host, far = c.overlay(), c.hosts[0], c.hosts[2]
    a = c.container(net, host, "web")
    output = f"{c.lab.directory}/browse"
    patterns = {"start": r"node1 \(this one\)\t\S+\talive\t.*node3\t\S+\talive\t.*web on node1",
                "container": f"late on node2.*{net.name}\tweft-overlay", "traffic": r"\nweb\tover\d+\t[^\n]+\t\d\S* kbit/s\t\d\S* kbit/s",
                "repair": r"Last repairs.*\tfdb\t", "death": r"node3\t\S+\tdaemon away\t"}
    with open(output, "w", encoding="utf-8") as log:
        browser = host.spawn("python3", BROWSE, "--pictures", f"{c.lab.directory}/page", f"http://{WEB}/", *patterns.values(), log=log)

    def shown(step):
        with open(output, encoding="utf-8") as log:
            told = log.read()
        check(browser.running() or f"matched {patterns[step]}" in told, f"the browser ended: {told}")
        return f"matched {patterns[step]}" in told

    wait_for(lambda: shown("start"), "the page shows hosts and container", 60)  # a browser starts, perhaps beside a compiler
    late = c.container(net, c.hosts[1], "late")
    wait_for(lambda: shown("container"), "the page shows a new container", 10)
    talk = a.keepalive("tcp", late.ip, 80)
    wait_for(lambda: shown("traffic"), "the page shows traffic", 10)
    keepalive_report(talk)
    tunnel = next(name for name in host.links() if name.startswith("wx"))
    host.run("bridge", "fdb", "del", late.links()["eth0"]["address"], "dev", tunnel, "self")
    c.ctl(host, "reconcile")
    wait_for(lambda: shown("repair"), "the page shows the repair", 10)
    far.kill_plugin()
    wait_for(lambda: shown("death"), "the page shows the death", 30)
    browser.wait()
    far.start_plugin()
    with open(output, encoding="utf-8") as log:
        check("console" not in (told := log.read()), f"the browser complains: {told}")
    for scheme in "light", "dark":
        check(os.path.getsize(f"{c.lab.directory}/page-{scheme}.png") > 10000, "the picture is empty")


@feature("weftctl trace names what stops a packet: tables, MTU, a dead host, another key")
def trace(c):
    # With broadcast what is missing is flooded, and arrives; with the fast path it is not missed.
    a, b, far = c.one_each(c.overlay("-o", "weft.broadcast=false", "-o", "weft.fastpath=false"))
    host = a.host
    for destination in (b.ip, f"{b.ip6}", f"{b.name}:80", f"{c.lab.router(host)}:80"):
        equal(traced(c, a, destination)["health"], "good", f"trace to {destination}")
    tunnel, mac = next(name for name in host.links() if name.startswith("wx")), b.links()["eth0"]["address"]
    bridge = host.links()[tunnel]["master"]
    stranger = "02:00:00:00:00:99"

    def forget():
        host.run("nsenter", "-t", str(a.state["State"]["Pid"]), "-n", "ip", "neighbour", "flush", "dev", "eth0")

    def damaged(command, at, why):
        host.run(*command.split())
        closed(a, b.ip)
        stops(c, a, f"{b.ip}:80", at, why, "weftctl reconcile")
        c.ctl(host, "reconcile")
        forget()
        reaches(a, "tcp", b.ip, 80, b)
        equal(traced(c, a, f"{b.ip}:80")["health"], "good", "trace after the repair")

    damaged(f"bridge fdb del {mac} dev {tunnel} self", "fdb", f"no entry for {mac} on {tunnel}")
    damaged(f"bridge fdb del {mac} dev {tunnel} master", "fdb", f"no entry for {mac} on the bridge")
    damaged(f"bridge fdb replace {mac} dev {tunnel} dst {c.lab.address(c.hosts[2], c.family)} self", "fdb", "stale")
    forget()
    damaged(f"ip neighbour replace {b.ip} lladdr {stranger} dev {bridge} nud permanent", "neighbour", "stale")
    small = c.mtu() + VXLAN_OVERHEAD[c.family] - 100
    host.run("ip", "link", "set", "eth0", "mtu", str(small))
    try:
        check("1" in a.run("sh", "-c", f"/bin/busybox ping -c 1 -W 1 -s {c.mtu() - 28} {b.ip} > /dev/null; echo $?"),
              "a full packet passed")
        stops(c, a, f"{b.ip}:80", "mtu", f"more than {c.mtu() - 100} bytes", f"ip link set eth0 mtu {small + 100}")
    finally:
        host.run("ip", "link", "set", "eth0", "mtu", str(small + 100))
    equal(traced(c, a, f"{b.ip}:80")["health"], "good", "trace with the old MTU")

    far.host.run("ip", "link", "delete", "w-echo")  # its kernel answers no more, as that of a host that is away
    far.host.kill_plugin()
    wait_for(lambda: traced(c, a, f"{far.ip}:80")["name"] == "host", "the death is known", 30, 0.2)
    stops(c, a, f"{far.ip}:80", "host", far.host.name, "systemctl status weftd")
    key_file = f"{c.lab.directory}/{far.host.name}.key"
    with open(key_file, encoding="ascii") as file:
        key = file.read()
    with open(key_file, "w", encoding="ascii") as file:
        file.write(host.run(f"{REPOSITORY}/build/bin/weftctl", "key", "generate") + "\n")
    try:
        far.host.start_plugin()
        wait_for(lambda: traced(c, a, f"{far.ip}:80")["name"] == "key", "the other key is noticed", 15, 0.2)
        stops(c, a, f"{far.ip}:80", "key", "does not open", "--key-file")
        far.host.kill_plugin()
    finally:
        with open(key_file, "w", encoding="ascii") as file:
            file.write(key)
    far.host.start_plugin()
    wait_for(lambda: traced(c, a, f"{far.ip}:80")["health"] == "good", "the host is back", 15, 0.2)
    soon_reaches(a, "tcp", far.ip, 80, far, 5)


def tunnels(c, host):
    """The states of the ways from a host to the others, by their names."""
    return {tunnel["host"]: tunnel["state"] for tunnel in c.ctl(host, "tunnels")}


def offload(c, host):
    """Whether a host's tunnels leave checksums to its NIC."""
    return all(tunnel["checksumOffload"] for tunnel in c.ctl(host, "tunnels"))


def doctor(host):
    """What weftctl doctor finds, by name."""
    found = host.run(f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "--json", "doctor", check=False)
    return {check["name"]: check for check in json.loads(found)}


def soon_tunnels(c, host, state, within=30):
    wait_for(lambda: set(tunnels(c, host).values()) == {state} and len(tunnels(c, host)) == HOSTS - 1,
             f"{host.name}'s tunnels are {state}", within, 0.2)


def restart_plugin(c, host):
    host.kill_plugin()
    host.start_plugin()
    wait_for(c.all_alive, "all members alive", 20)


@feature("tunnel probes: TCP that a NIC damages is found and healed at start, stays so, and is told with what to type")
def damaged_nic(c):
    a, b, _ = c.one_each(c.overlay())
    host, outside = a.host, c.lab.outside
    for one in c.hosts:
        soon_tunnels(c, one, "good")
    check(offload(c, host), "offload is off before there is a reason")
    # Only the network namespace is entered: tc wants the BPF file system, which the machine's /sys has not.
    subprocess.run(["nsenter", "-t", str(outside.pid), "-n", MANGLE, f"{host.name}-eth0", c.lab.directory], check=True)
    try:
        ping(a, b.ip)
        closed(a, b.ip)
        closed(a, b.ip6)
        begin = time.monotonic()
        restart_plugin(c, host)
        soon_reaches(a, "tcp", b.ip, 80, b, 40)
        print(f"      healed {time.monotonic() - begin:.1f} s after weftd was started")
        reaches(a, "tcp", b.ip6, 80, b)
        reaches(a, "udp", b.ip, 80, b)
        bulk_between(a, b)
        soon_tunnels(c, host, "healed")
        soon_tunnels(c, b.host, "good")
        check("ethtool -K eth0 tx-udp_tnl-segmentation off" in doctor(host)["tunnel offload"]["fix"], "what to type")
        check(any("checksum offload" in line for line in c.ctl(host, "status")["warnings"]), "status does not tell")
        equal({h["name"]: h["tunnel"] for h in c.ctl(host, "graph")["hosts"]},
              {"node1": "", "node2": "healed", "node3": "healed"}, "graph")
        metrics = host.run(f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "metrics")
        check('weft_tunnels{state="healed"} 2' in metrics and "weft_tunnel_checksum_offload 0" in metrics, metrics)
        check(offload(c, b.host), "offload is off on a host whose NIC is well")
        host.kill_plugin()
        reaches(a, "tcp", b.ip, 80, b)
        host.start_plugin()
        reaches(a, "tcp", b.ip, 80, b)
    finally:
        outside.run("tc", "qdisc", "del", "dev", f"{host.name}-eth0", "clsact")
        restart_plugin(c, host)
    for one in c.hosts:
        soon_tunnels(c, one, "good")


@feature("tunnel probes: a closed port is told, and that it is open again")
def closed_port(c):
    host = c.hosts[0]
    soon_tunnels(c, host, "good")
    host.run("nft", "add table inet closed; add chain inet closed out { type filter hook output priority 0; }; "
             "add rule inet closed out udp dport 4789 drop")
    try:
        restart_plugin(c, host)
        soon_tunnels(c, host, "closed")
        check(offload(c, host), "offload was turned off for nothing")
        check("UDP port 4789" in doctor(host)["tunnel to node2"]["fix"], "doctor does not say what to open")
    finally:
        host.run("nft", "delete", "table", "inet", "closed")
    soon_tunnels(c, host, "good", 60)


@feature("tunnel port: open to hosts that are there only, also without networks and after restarts of weftd")
def tunnel_port(c):
    host, mortal = c.hosts[0], c.hosts[2]
    command = "iptables-legacy-save; ip6tables-legacy-save" if c.options.iptables == "legacy" else "nft list table inet weft"
    others = [c.lab.address(other, c.family) for other in c.hosts[1:]]

    def admitted():
        rules = host.run("sh", "-c", command)
        check("4789" in rules, f"no rule about the port: {rules}")
        return [address for address in others if re.search(rf"\b{address}\b", rules)]

    for _ in range(2):
        wait_for(lambda: admitted() == others, "the other hosts are admitted", 5)
        restart_plugin(c, host)
    mortal.kill_plugin()
    soon_presence(c, host, mortal, "daemon away")
    equal(admitted(), others, "admitted while a daemon is away")
    with unplugged(c, mortal):
        wait_for(lambda: admitted() == others[:1], "the host that is away is shut out", 10)
    mortal.start_plugin()
    wait_for(lambda: admitted() == others, "it is back", 20)


def attempt(cluster, function):
    """Runs a feature and cleans up after it: nothing, or the problem and what to know of it."""
    def logs(host):
        with open(host.log("weftd"), encoding="utf-8", errors="replace") as file:
            return file.read()

    marks = {host.name: len(logs(host)) for host in cluster.hosts}
    before = cluster.snapshot()
    problem, report = None, []
    signal.alarm(FEATURE_LIMIT_SECONDS + round(cluster.options.cable + 2 * cluster.options.away) + cluster.options.kills)
    try:
        function(cluster)
    except Exception as error:
        problem = error
        report = [f"--- {host.name}\n" + "".join(logs(host)[marks[host.name]:].splitlines(True)[-25:])
                  + host.run("sh", "-c", "ip -br address; bridge fdb show | grep -v '^eth0\\|33:33\\|01:00'; ip neigh", check=False)
                  for host in cluster.hosts]
    signal.alarm(0)
    try:
        cluster.clean_up()
        if function not in (rebooted, blackout, forgotten):
            wait_for(lambda: not leaks(before, cluster.snapshot()), "nothing left behind", 5, 0.3)
    except Exception as error:
        if not problem:
            problem, report = error, leaks(before, cluster.snapshot())[:30]
        cluster.restart()
    return problem and "\n".join(["".join(traceback.format_exception(problem)[-3:]), *report])


def run(underlay, options):
    routed, family = UNDERLAYS[underlay]
    counts = {"PASS": 0, "FAIL": 0}
    with Lab(routed=routed) as lab:
        cluster = Cluster(lab, family, options.iptables, options.firewall, HOSTS)
        cluster.options = options
        cluster.begin()
        for name, function in FEATURES:
            if options.k.lower() not in name.lower():
                continue
            begin = time.monotonic()
            problem = attempt(cluster, function)
            for _ in range(options.retries):
                if problem:
                    print(f"again {underlay:8} {name}\n{problem}", flush=True)
                    problem = attempt(cluster, function)
            word = "FAIL" if problem else "PASS"
            counts[word] += 1
            print(f"{word} {underlay:8} {time.monotonic() - begin:6.1f} s  {name}", flush=True)
            if problem:
                print(problem, flush=True)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="", help="only features with this in their name")
    parser.add_argument("--underlay", default=",".join(UNDERLAYS))
    parser.add_argument("--reach-limit", type=float, default=300, metavar="MS",
                        help="within which a new container must be reached; a machine that does other things needs more")
    parser.add_argument("--cable", type=float, default=5, metavar="SECONDS", help="how long a host's cable is pulled")
    parser.add_argument("--away", type=float, default=5, metavar="SECONDS",
                        help="how long a host is without its weftd, once that is told")
    parser.add_argument("--kills", type=int, default=20, help="how often weftd is killed")
    parser.add_argument("--retries", type=int, default=0, help="how often a failed feature is tried again")
    parser.add_argument("--iptables", default="nft")
    parser.add_argument("--firewall", default="auto")
    options = parser.parse_args()
    sweep()

    def give_up(*_):
        raise TimeoutError("the feature took too long")

    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    totals = {"PASS": 0, "FAIL": 0}
    for underlay in options.underlay.split(","):
        for word, count in run(underlay, options).items():
            totals[word] += count
    print(f"{totals['PASS']} passed, {totals['FAIL']} failed")
    return 1 if totals["FAIL"] or not totals["PASS"] else 0


if __name__ == "__main__":
    sys.exit(main())
