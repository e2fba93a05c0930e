#!/usr/bin/env python3
"""Tries to put frames into an overlay from everywhere they must not come from. One line each, see README.md.

Every line first shows that its packet arrives while weft's rules are away (its daemons stopped meanwhile), and then that it
does not with them. `nested` lines show that VXLAN to others passes. Lines that weft at c52709e also holds are marked `=`.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

from harness import check
from lab import HERE, Container, Lab, child_of, in_parallel, sweep, wait_for
from overlay_cluster import Cluster

WORKER = os.path.join(HERE, "tools", "attack_worker.py")
PORT = 4789
NOBODY = 65534
GRACE = 0.4  # seconds for what should not arrive, behind a packet that did
MANY = {4: ("255.255.255.255", "224.0.0.1"), 6: ("ff02::1",)}

# Called with the Cluster, each returns more attackers for its lab: hosts that were restored, cloned, rolled back.
EXTRA_ATTACKERS = []


@dataclass(frozen=True)
class Way:
    name: str
    to: str
    source: str = ""  # of a frame that is written whole, which takes NET_RAW; empty: a plain UDP socket
    victim: str = "far"  # whose container should get it: the one on this host or on the other one
    outcome: str = "held"  # else "passes", or "told": docs/security.md says that it is not held


@dataclass
class Attacker:
    name: str
    place: object  # a Machine, or the DockerHost of a container
    link: str
    ways: list
    pid: int = 0  # of the container
    uid: int = 0
    via: str = ""  # the neighbour's MAC that frames go to

    def send(self, packets):
        argv = ["python3", WORKER, "send", *([str(self.uid)] if self.uid else [])]
        if self.pid:
            argv = ["nsenter", "-t", str(self.pid), "-n", *argv]
        return json.loads(self.place.run(*argv, stdin=json.dumps(packets)))


class Listener:
    """Collects the tokens that arrive at one place."""

    def __init__(self, argv):
        self.tokens = set()
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        check(self._process.stdout.readline() == "ready\n", "a listener starts")
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        for line in self._process.stdout:
            self.tokens.add(line.strip())

    def close(self):
        os.kill(child_of(self._process.pid), signal.SIGKILL)  # nsenter stands between, and takes its leave
        self._process.wait()


@dataclass
class Victim:
    """A container of an overlay network, and what a frame for it needs."""

    host: object
    container: Container
    vni: int
    listener: Listener = field(default=None)

    @property
    def mac(self):
        return next(iter(self.container.state["NetworkSettings"]["Networks"].values()))["MacAddress"]


def pid_of(container):
    return container.state["State"]["Pid"]


def in_container(container, *argv):
    return container.host.entered(["nsenter", "-t", str(pid_of(container)), "-n", *argv])


def known_at_c52709e(attacker, way, rp_filter, family):
    """What the old guard holds too: unicast from an address that is no member's, and what the kernel drops itself."""
    if way.outcome != "held":
        return True
    if way.name in ("own host", "own gateway", "own loopback"):
        return True
    if way.name.startswith("as a member") and family == 4 and rp_filter == 1:
        return True
    return attacker.name == "stranger" and way.name in ("unicast", "another address")


class Battle:
    """One lab: two hosts, an attacker of each kind on the first, a container in an overlay on each."""

    def __init__(self, lab, family, flavour, firewall):
        self.lab, self.family = lab, family
        self.title = f"{firewall:4} v{family}"
        self.cluster = Cluster(lab, family, flavour, firewall, 2)
        self.near, self.far = self.cluster.hosts
        self.addresses = {host: lab.address(host, family) for host in self.cluster.hosts}
        self.second = "10.99.0.211" if family == 4 else "fd99::211"
        self.far.run("ip", "address", "add", self.second + ("/24" if family == 4 else "/64"), "dev", "eth0",
                     *(["nodad"] if family == 6 else []))
        self.victims = {}
        for fast, options in ((True, ()), (False, ("-o", "weft.fastpath=false"))):
            overlay = self.cluster.overlay(*options)
            pair = self.cluster.one_each(overlay, f"victim{fast}".lower())
            vni = next(network["vni"] for network in self.cluster.ctl(self.near, "overlay") if network["name"] == overlay.name)
            for side, container in zip(("near", "far"), pair):
                self.victims[side, fast] = Victim(container.host, container, vni)
            if fast:
                self.friend = pair[0]
        for victim in self.victims.values():
            victim.listener = Listener(in_container(victim.container, "python3", WORKER, "listen", "9999"))
        self.nested = Listener(lab.outside.entered(["python3", WORKER, "listen", str(PORT)]))
        self.attackers = self._attackers()
        for more in EXTRA_ATTACKERS:
            self.attackers += more(self.cluster)

    def close(self):
        for listener in (*(victim.listener for victim in self.victims.values()), self.nested):
            listener.close()

    # --- who and how ---

    def _attackers(self):
        near, far = self.addresses[self.near], self.addresses[self.far]
        outside = self.lab.router(self.near, self.family)
        wire = [Way("unicast", far), Way("another address", self.second),
                *([Way("broadcast", "10.99.0.255")] if self.family == 4 else []), *(Way(to, to) for to in MANY[self.family])]
        stranger = Attacker("stranger", self.lab.outside, "lan0",
                            [*wire, Way("as a member", far, source=near, outcome="told")], via=self.far.mac())
        user = Attacker("host user nobody", self.near, "eth0", [
            *wire, Way("own host", near, victim="near"), Way("own loopback", "127.0.0.1" if self.family == 4 else "::1", victim="near"),
            Way("nested", outside, outcome="passes")], uid=NOBODY)
        member = Attacker("member with the key", self.near, "eth0", [Way("unicast", far, source=near, outcome="told")],
                          via=self.far.mac())
        attackers = [stranger, user, member]
        # What a container writes into its frames is for the guard alone to see here, not for its port's own check.
        spoof = "-o", "weft.spoof=allow"
        weft = "-d", "weft-bridge", *spoof
        for name, network, args, uid in (
                ("container", self._network(1, *weft), (), 0),
                ("container without NET_RAW", self._network(2, *weft), ("--cap-drop", "NET_RAW"), NOBODY),
                ("container of an internal network", self._network(3, *weft, "--internal"), (), 0),
                ("container of the engine's bridge", self._network(4, "-d", "bridge"), (), 0),
                ("container of another overlay", self.cluster.overlay(*spoof).name, (), 0)):
            attackers.append(self._contained(name, network, args, uid))
        return attackers

    def _network(self, number, *args):
        name = f"attack{number}"
        self.near.docker("network", "create", *args, "--subnet", f"10.60.{number}.0/24", "--gateway", f"10.60.{number}.1",
                         "--ipv6", "--subnet", f"fd60:{number}::/64", "--gateway", f"fd60:{number}::1", name)
        return name

    def _contained(self, name, network, args, uid):
        container = self.cluster.container_on(network, self.near, "attacker-of-" + network, *args)
        state = container.state["NetworkSettings"]["Networks"][network]
        inspect = self.near.inspect("network", network)["IPAM"]["Config"]
        subnets = [config["Subnet"] for config in inspect]
        gateway = state["Gateway"] if self.family == 4 else state["IPv6Gateway"]
        if not gateway:  # an internal network
            gateway = next(config["Gateway"] for config in inspect if (":" in config["Gateway"]) == (self.family == 6))
        near, far = self.addresses[self.near], self.addresses[self.far]
        internal = "internal" in name
        ways = [Way("own gateway", gateway, victim="near")]
        if not internal:  # that has no way out at all, with the guard or without
            ways += [Way("unicast", far), Way("own host", near, victim="near"), Way("another address", self.second),
                     Way("nested", self.lab.router(self.near, self.family), outcome="passes")]
        if self.family == 4 and subnets[0].endswith(".0/24"):
            ways.append(Way("broadcast", subnets[0].replace(".0/24", ".255"), victim="near"))
        ways += [Way(to, to, victim="near") for to in MANY[self.family]]
        if not uid:
            ways += [Way("as a member", near, source=far, victim="near"), Way("as a member, gateway", gateway, source=far, victim="near")]
        self.near.run("nsenter", "-t", str(pid_of(container)), "-n", "ping", "-c1", "-W2", gateway, check=False)
        # It is a neighbour now.
        neighbours = json.loads(self.near.run("nsenter", "-t", str(pid_of(container)), "-n", "ip", "-j", "neigh", "show", gateway))
        return Attacker(name, self.near, "eth0", ways, pid=pid_of(container), uid=uid, via=neighbours[0]["lladdr"])

    # --- the rules away and back ---

    @contextlib.contextmanager
    def without_rules(self):
        """The daemons stand still, nothing filters; addresses are translated as before where the engine's tool does it."""
        for host in self.cluster.hosts:
            host.plugin_process.pause()
            host.run("sh", "-ec", """
                nft list table inet weft > /run/weft-table 2>/dev/null || true
                nft delete table inet weft 2>/dev/null || true
                for tool in iptables ip6tables; do
                    $tool-save > /run/$tool
                    $tool -P FORWARD ACCEPT
                    for table in raw mangle filter; do $tool -t $table -F; done
                done""")
        try:
            yield
        finally:
            for host in self.cluster.hosts:
                host.run("sh", "-ec", """
                    for tool in iptables ip6tables; do $tool-restore < /run/$tool; done
                    nft -f /run/weft-table""")
                host.plugin_process.resume()
            wait_for(self.cluster.all_alive, "every host knows every host", 30)
            wait_for(lambda: not any(self.cluster.ctl(host, "reconcile", "--dry-run")["repairs"] for host in self.cluster.hosts),
                     "every rule is back", 30)

    # --- fighting ---

    def lines(self, rp_filter):
        return [(attacker, way, fast, rp_filter) for attacker in self.attackers for way in attacker.ways
                for fast in (True, False)]

    def _set_rp_filter(self, value):
        for host in self.cluster.hosts:
            host.run("sh", "-c", f"for link in /proc/sys/net/ipv4/conf/*/rp_filter; do echo {value} > $link; done")

    def volley(self, phase, rp_filter):
        """Sends every packet once; returns the set of (attacker's, way's names, fast) that arrived."""
        self._set_rp_filter(rp_filter)

        def token(attacker, way, fast):
            return f"<attack:{phase}:{rp_filter}:{attacker.name}:{way.name}:{fast}>"

        def shoot(attacker):
            packets = []
            for way, fast in itertools.product(attacker.ways, (True, False)):
                victim = self.victims[way.victim, fast]
                packet = {"token": token(attacker, way, fast), "vni": victim.vni, "mac": victim.mac,
                          "address": victim.container.ip, "to": way.to, "port": PORT, "link": attacker.link}
                if way.source:
                    packet |= {"source": way.source, "via": attacker.via}
                packets.append(packet)
            attacker.send(packets)

        in_parallel(*(lambda attacker=attacker: shoot(attacker) for attacker in self.attackers))
        # The tunnel itself works, and what was sent before this has been through.
        last = f"<attack:{phase}:{rp_filter}:last>"
        target = self.victims["far", True]

        def last_arrives():
            self.near.run("nsenter", "-t", str(pid_of(self.friend)), "-n", "python3", "-c",
                          f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'{last}', ('{target.container.ip}', 9999))")
            return last in target.listener.tokens

        wait_for(last_arrives, "the tunnel carries a container's packet", 10, 0.1)
        time.sleep(GRACE)
        by_victims = set.union(*(victim.listener.tokens for victim in self.victims.values()))
        return {(attacker.name, way.name, fast) for attacker, way, fast, _ in self.lines(rp_filter)
                if token(attacker, way, fast) in (self.nested.tokens if way.outcome == "passes" else by_victims)}

    def fight(self):
        """Prints the lines; returns how many passed, failed, and held before as well."""
        with self.without_rules():
            bare = {mode: self.volley("bare", mode) for mode in (0, 1, 2)}
        passed = failed = known = 0
        for mode in (0, 1, 2):
            arrived = self.volley("guarded", mode)
            for attacker, way, fast, _ in self.lines(mode):
                key = attacker.name, way.name, fast
                word = self._word(attacker, way, mode, key in bare[mode], key in arrived)
                old = known_at_c52709e(attacker, way, mode, self.family)
                bad = word.startswith("FAILED")
                passed, failed, known = passed + (not bad), failed + bad, known + (old and not bad)
                print(f"{self.title} rp_filter={mode} {'fast' if fast else 'slow'} {'=' if old else ' '} {attacker.name:33} "
                      f"{way.name:22} {word}", flush=True)
        return passed, failed, known

    def _word(self, attacker, way, rp_filter, bare, arrived):
        if way.outcome == "passes":
            return "passes" if arrived else "FAILED: does not pass"
        if way.outcome == "told":
            return "arrives, as docs/security.md says" if bare and arrived else "FAILED: does not arrive, docs/security.md says it does"
        if arrived:
            return "FAILED: arrives"
        if bare:
            return "held"
        # Strict filtering is the kernel's own; there is none for IPv6.
        if rp_filter == 1 and self.family == 4:
            if way.name.startswith("as a member"):
                return "held by rp_filter alone"
            if attacker.name == "container of another overlay" and way.victim == "far":
                return "held by rp_filter alone"  # not translated now: its subnet is behind a bridge there, too
        if way.name == "own loopback" and attacker.uid:
            return "held by the kernel alone"
        return "FAILED: does not arrive without the rules either"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--firewall", default="nft,iptc")
    parser.add_argument("--family", default="4,6", help="of the underlay")
    options = parser.parse_args()
    sweep()
    start, totals = time.monotonic(), [0, 0, 0]
    for firewall, family in itertools.product(options.firewall.split(","), map(int, options.family.split(","))):
        with Lab() as lab:
            battle = Battle(lab, family, {"nft": "nft", "iptc": "legacy"}[firewall], firewall)
            with contextlib.closing(battle):
                totals = [sum(pair) for pair in zip(totals, battle.fight())]
    passed, failed, known = totals
    print(f"{known} of them hold at c52709e as well; {time.monotonic() - start:.0f} s")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
