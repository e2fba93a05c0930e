#!/usr/bin/env python3
"""weft beside Docker's own bridge driver on a real engine, both in one run, interleaved. See ../README.md.

Prints a table of medians, 95th percentiles and ratios, and ends with the acceptance limits that were met or missed.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "e2e"))

from measure import Http, limit, results, row, timed  # noqa: E402 (the path is set above)
from lab import IMAGE, PLUGIN_COMMAND, Lab, Plugin, sweep, wait_for  # noqa: E402

REPOSITORY = os.path.dirname(os.path.dirname(HERE))
BIN = os.path.join(REPOSITORY, "build", "bin")
NETWORKS = {"docker": "bridge", "weft": "weft-bridge", "floor": "floor"}  # name: driver
FLOOR_LINKS = 3
# Each driver is measured on a container that has a network of the same driver already. The engine gives the default
# route to the network whose name comes first: it moves to NETWORKS from home(name, "z"), and stays with home(name, "a").
HOMES = {"z": "the default route moves to the new network", "a": "the default route stays where it is"}
# Run on a host: keeps that many connections in the kernel's table, two to each port, by UDP nobody answers.
CONNECTIONS = """
import contextlib, socket, sys, time
senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
while True:
    for sender in senders:
        for port in range(1000, 1000 + int(sys.argv[2]) // len(senders)):
            with contextlib.suppress(OSError):
                sender.sendto(b"", (sys.argv[1], port))
    time.sleep(10)
"""


def home(network, letter):
    """Name of the network that a container was on before it is connected to this one."""
    return f"{letter}-{network}"


class Bench:
    def __init__(self, lab, state, options):
        self.options = options
        self.lab = lab
        command = PLUGIN_COMMAND.replace("{state}", state) + " --log-level info"
        self.host = lab.add_host("bench", iptables=options.iptables, plugin=Plugin(command, options.firewall))
        self.engine = Http(self.host.docker_socket)
        # The floor plugin's links exist beforehand, on a bridge of their own.
        self.host.run("sh", "-ec", "ip link add floorbr type bridge; ip link set floorbr up;" + "".join(
            f"ip link add floor{i} type veth peer name floorp{i}; ip link set floorp{i} master floorbr up;"
            for i in range(FLOOR_LINKS)))
        self.host.spawn(f"{BIN}/floor_plugin", "/run/docker/plugins/floor.sock", str(FLOOR_LINKS))
        wait_for(lambda: Http(self.plugin_socket("floor")), "the floor plugin listens")
        for number, (name, driver) in enumerate(NETWORKS.items()):
            self.host.docker("network", "create", "-d", driver, "--subnet", f"10.40.{number}.0/24", name)
            for letter in HOMES:
                self.host.docker("network", "create", "-d", driver, home(name, letter))

    def plugin_socket(self, name):
        return f"/proc/{self.host.pid}/root/run/docker/plugins/{name}.sock"

    # --- acceptance 4: connect, disconnect, and weftd's own share ---

    def connect(self):
        print("network connect and disconnect of a running container, the engine's API, interleaved")
        for letter in HOMES:
            self.start_walkers(letter)
            self.connect_from(letter, self.options.rounds)
            self.host.docker("rm", "-f", *NETWORKS)
        self.own_time()

    def start_walkers(self, letter):
        """A container for each network, named like it, that is not yet on it."""
        for name in NETWORKS:
            self.host.docker("run", "-d", "--network", home(name, letter), "--name", name, IMAGE)

    def walk(self, what, name):
        self.engine.call("POST", f"/networks/{name}/{what}", {"Container": name})

    def connect_from(self, letter, rounds):
        print(f"{HOMES[letter]}:")
        times = {(what, name): [] for what in ("connect", "disconnect") for name in NETWORKS}
        for turn in range(rounds + 5):
            for name in NETWORKS:
                for what in ("connect", "disconnect"):
                    taken = timed(self.walk, what, name)
                    if turn >= 5:  # the first ones warm up
                        times[what, name].append(taken)
        for what in ("connect", "disconnect"):
            for name in NETWORKS:
                row(f"{what} {name}", times[what, name], None if name == "docker" else times[what, "docker"])
            medians = {name: statistics.median(times[what, name]) for name in NETWORKS}
            limit(f"{what}: weft over Docker's bridge", medians["weft"], medians["docker"])
            limit(f"{what}: weft over the floor", medians["weft"] - medians["floor"], 5)

    def own_time(self):
        """weftd's own durations, from its log, for a container with a published port."""
        self.host.docker("run", "-d", "--network", home("weft", "z"), "-p", "8085:80", "--name", "weft", IMAGE)
        mark = os.path.getsize(self.host.log("weftd"))
        for _ in range(self.options.rounds):
            for what in ("connect", "disconnect"):
                self.walk(what, "weft")
        self.host.docker("rm", "-f", "weft")
        with open(self.host.log("weftd"), encoding="utf-8") as log:
            log.seek(mark)
            calls = re.findall(r"method=NetworkDriver\.(\w+).*?duration_ms=([\d.]+)", log.read())
        durations = {}
        for method, duration in calls:
            durations.setdefault(method, []).append(float(duration))
        for method in ("CreateEndpoint", "Join", "ProgramExternalConnectivity", "RevokeExternalConnectivity", "Leave",
                       "DeleteEndpoint"):
            if method in durations:
                row(f"weftd: {method}", durations[method])
        start = sum(statistics.median(durations.get(method, [0]))
                    for method in ("CreateEndpoint", "Join", "ProgramExternalConnectivity"))
        limit("weftd's CreateEndpoint + Join + ProgramExternalConnectivity", start, 3)

    def busy_host(self, count=50000):
        talk = self.host.spawn(sys.executable, "-c", CONNECTIONS, self.lab.router(self.host), str(count))
        known = lambda: int(self.host.run("cat", "/proc/sys/net/netfilter/nf_conntrack_count"))  # noqa: E731
        wait_for(lambda: known() >= count, f"{count} connections")
        rounds = self.options.rounds // 3
        print(f"{known()} connections on the host, ", end="")
        self.start_walkers("z")
        self.connect_from("z", rounds)
        self.host.docker("rm", "-f", *NETWORKS)
        removals = {name: [] for name in ("docker", "weft")}
        for _ in range(rounds):
            for name, times in removals.items():
                self.host.docker("run", "-d", "--network", name, "--name", name, IMAGE)
                times.append(timed(self.engine.call, "DELETE", f"/containers/{name}?force=1"))
        for name, times in removals.items():
            row(f"rm {name}", times, None if name == "docker" else removals["docker"])
        talk.end()

    # --- acceptance 4: many ports ---

    def ports(self):
        print("container start and removal with 50 published ports and with none")
        times = {}
        for turn in range(self.options.port_rounds + 1):
            for network in ("docker", "weft"):
                for count in (0, 50):
                    name = f"p{network}{count}"
                    bindings = {f"{1000 + i}/tcp": [{"HostPort": str(20000 + i)}] for i in range(count)}
                    self.engine.call("POST", f"/containers/create?name={name}", {
                        "Image": IMAGE, "ExposedPorts": {port: {} for port in bindings},
                        "HostConfig": {"NetworkMode": network, "PortBindings": bindings}})
                    start = timed(self.engine.call, "POST", f"/containers/{name}/start")
                    remove = timed(self.engine.call, "DELETE", f"/containers/{name}?force=1")
                    if turn:
                        times.setdefault((network, "start", count), []).append(start)
                        times.setdefault((network, "rm", count), []).append(remove)
        for what in ("start", "rm"):
            for network in ("docker", "weft"):
                for count in (0, 50):
                    row(f"{what} {network}, {count} ports", times[network, what, count],
                        None if network == "docker" else times["docker", what, count])
            extra = statistics.median(times["weft", what, 50]) - statistics.median(times["weft", what, 0])
            limit(f"{what}: what 50 ports add on weft", extra, 10)

    # --- acceptance 4: the data path ---

    def data_path(self):
        print("two containers on one host: TCP throughput and round trip, interleaved")
        rates, trips = {}, {}
        pairs = {}
        for network in ("docker", "weft"):
            for end in ("a", "b"):
                self.host.docker("run", "-d", "--network", network, "--name", network + end, IMAGE)
                state = self.host.inspect("container", network + end)
                pairs[network, end] = (str(state["State"]["Pid"]),
                                       state["NetworkSettings"]["Networks"][network]["IPAddress"])
            self.host.spawn("nsenter", "-t", pairs[network, "b"][0], "-n", "iperf3", "-s")
        time.sleep(0.5)
        for _ in range(self.options.data_rounds):
            for network in ("docker", "weft"):
                enter = ["nsenter", "-t", pairs[network, "a"][0], "-n"]
                target = pairs[network, "b"][1]
                report = json.loads(self.host.run(*enter, "iperf3", "-J", "-t", "2", "-c", target))
                rates.setdefault(network, []).append(report["end"]["sum_received"]["bits_per_second"] / 1e9)
                text = self.host.run(*enter, "ping", "-q", "-c", "400", "-i", "0.002", target)
                trips.setdefault(network, []).append(float(re.search(r"= [\d.]+/([\d.]+)/", text)[1]) * 1000)
        for network in ("docker", "weft"):
            row(f"throughput {network}", rates[network], None if network == "docker" else rates["docker"], "Gbit/s")
        for network in ("docker", "weft"):
            row(f"round trip {network}", trips[network], None if network == "docker" else trips["docker"], "us")
        # The path is the same kernel's bridge and veth: a few per cent either way are this machine's noise.
        limit("Docker's throughput over weft's", statistics.median(rates["docker"]) / statistics.median(rates["weft"]),
              1.05, "")
        limit("weft's round trip over Docker's", statistics.median(trips["weft"]) / statistics.median(trips["docker"]),
              1.05, "")
        self.host.docker("rm", "-f", *(network + end for network, end in pairs))

    # --- acceptance 4 and 5: many endpoints, straight through the plugin API ---

    def many(self, count=1000):
        print(f"{count} endpoints with a published port each through the plugin API, back end {self.options.firewall}")
        plugin = Http(self.plugin_socket("weft-bridge"))
        network = "f" * 64
        call = lambda method, **body: plugin.call("POST", f"/{method}", body)  # noqa: E731
        pool = call("IpamDriver.RequestPool", AddressSpace="weft-local", Pool="10.50.0.0/16", SubPool="", Options={}, V6=False)
        gateway = call("IpamDriver.RequestAddress", PoolID=pool["PoolID"], Address="",
                       Options={"RequestAddressType": "com.docker.network.gateway"})["Address"]
        call("NetworkDriver.CreateNetwork", NetworkID=network, Options={"com.docker.network.generic": {}}, IPv6Data=[],
             IPv4Data=[{"AddressSpace": "weft-local", "Pool": "10.50.0.0/16", "Gateway": gateway}])
        made, up, down = [], [], []

        def create(number):
            address = call("IpamDriver.RequestAddress", PoolID=pool["PoolID"], Address="", Options=None)["Address"]
            endpoint = f"{number:012x}" + "0" * 52  # links are named after the first twelve digits
            ports = {"com.docker.network.portmap": [{"Proto": 6, "IP": "", "Port": 80, "HostIP": "",
                                                     "HostPort": 10000 + number, "HostPortEnd": 10000 + number}],
                     "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}]}
            where = {"NetworkID": network, "EndpointID": endpoint}
            call("NetworkDriver.CreateEndpoint", **where, Options=ports,
                 Interface={"Address": address, "AddressIPv6": "", "MacAddress": ""})
            call("NetworkDriver.Join", **where, SandboxKey=f"/run/docker/netns/{number:012x}", Options=ports)
            call("NetworkDriver.ProgramExternalConnectivity", **where, Options=ports)
            made.append((where, address))

        def remove(where, address):
            for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
                call(f"NetworkDriver.{method}", **where)
            call("IpamDriver.ReleaseAddress", PoolID=pool["PoolID"], Address=address.split("/")[0])

        for number in range(count):
            up.append(timed(create, number))
        self.resident()
        for where, address in made:
            down.append(timed(remove, where, address))
        flat = self.options.firewall != "iptc"  # the legacy tables are replaced whole at every change
        for what, times in (("create", up), ("remove", down)):
            first, last = statistics.median(times[:100]), statistics.median(times[-100:])
            row(f"{what}, first 100", times[:100])
            row(f"{what}, last 100", times[-100:])
            if flat:
                limit(f"{what}: last 100 over first 100", last / first, 1.5, "x")
        call("NetworkDriver.DeleteNetwork", NetworkID=network)
        call("IpamDriver.ReleasePool", PoolID=pool["PoolID"])

    def resident(self):
        """Memory and idle processor time of weftd as it stands."""
        pid = self.host.plugin_process.pid
        ticks = lambda: sum(int(field) for field in open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[11:13])  # noqa: E731,SIM115

        def resident():
            with open(f"/proc/{pid}/status", encoding="ascii") as status:
                return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024

        print(f"  weftd resident right after: {resident():.1f} MiB")
        time.sleep(15)  # within which it gives back what the burst needed
        limit("weftd resident 15 s later", resident(), 15, "MiB")
        before, seconds = ticks(), self.options.idle_seconds
        time.sleep(seconds)
        limit("weftd idle processor", 100 * (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds, 0.1, "%")

    def connection_rate(self, count=10000):
        print(f"new connections a second from outside, with 1 and with {count} published ports")
        self.host.docker("run", "-d", "--network", "weft", "--name", "served", "-p", "8080:8000", IMAGE)
        inside = str(self.host.inspect("container", "served")["State"]["Pid"])
        self.host.spawn("nsenter", "-t", inside, "-n", f"{BIN}/connect_rate", "serve", "8000")
        plugin = Http(self.plugin_socket("weft-bridge"))
        network = json.loads(self.host.docker("network", "inspect", "weft"))[0]["Id"]
        where = {"NetworkID": network, "EndpointID": "e" * 64}
        ports = {"com.docker.network.portmap": [
            {"Proto": 6, "IP": "", "Port": 1 + i, "HostIP": "", "HostPort": 10000 + i, "HostPortEnd": 10000 + i}
            for i in range(count - 1)]}
        rates = {"1": [], "many": []}
        for _ in range(self.options.data_rounds):
            rates["1"].append(self.rate())
            plugin.call("POST", "/NetworkDriver.CreateEndpoint", {
                **where, "Options": {}, "Interface": {"Address": "10.40.1.200/24", "AddressIPv6": "", "MacAddress": ""}})
            plugin.call("POST", "/NetworkDriver.Join", {**where, "SandboxKey": "/run/docker/netns/eeeeeeeeeeee", "Options": {}})
            plugin.call("POST", "/NetworkDriver.ProgramExternalConnectivity", {**where, "Options": ports})
            rates["many"].append(self.rate())
            for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
                plugin.call("POST", f"/NetworkDriver.{method}", where)
        row("with 1 port", rates["1"], unit="/s")
        row(f"with {count} ports", rates["many"], unit="/s")
        ratio = statistics.median(rates["1"]) / statistics.median(rates["many"])
        limit(f"rate with 1 over rate with {count}", ratio, 1.05, "x")
        self.host.docker("rm", "-f", "served")

    def rate(self):
        return float(self.lab.outside.run(f"{BIN}/connect_rate", self.host.ip, "8080", "2"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="of connect and disconnect")
    parser.add_argument("--port-rounds", type=int, default=7)
    parser.add_argument("--data-rounds", type=int, default=5)
    parser.add_argument("--idle-seconds", type=int, default=30)
    parser.add_argument("--iptables", default="nft", help="the engine's flavour: nft or legacy")
    parser.add_argument("--firewall", default="nft", help="weft's back end: nft or iptc")
    parser.add_argument("--only", default="connect,busy_host,ports,data_path,connection_rate,many", help="parts, by comma")
    options = parser.parse_args()
    sweep()
    # On a disk, not in memory: a write's way to the disk is part of what is measured.
    state = tempfile.mkdtemp(prefix="weft-bench-", dir="/var/tmp")
    try:
        with Lab() as lab:
            bench = Bench(lab, state, options)
            for part in options.only.split(","):
                getattr(bench, part)()
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(state)
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
