#!/usr/bin/env python3
"""weft-overlay beside Docker's Swarm overlay and weft-bridge: the same two engines, one run, interleaved.

Prints a table of medians, 95th percentiles and ratios, and ends with the acceptance limits that were met or missed.
"""

import argparse
import collections
import json
import os
import re
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "e2e"))

from measure import Http, limit, results, row, timed  # noqa: E402 (the path is set above)
from lab import IMAGE, Lab, in_parallel, sweep  # noqa: E402
from overlay_cluster import Cluster  # noqa: E402

RIVALS = ("docker", "weft")


class OverlayBench:
    def __init__(self, lab, options):
        self.options = options
        self.cluster = Cluster(lab, 4, "nft", "auto", count=2, log_level="info")
        self.hosts = self.cluster.hosts
        first, second = self.hosts
        first.docker("swarm", "init", "--advertise-addr", first.ip, "--data-path-port", "4790")
        token = first.docker("swarm", "join-token", "-q", "worker")
        second.docker("swarm", "join", "--token", token, "--advertise-addr", second.ip, f"{first.ip}:2377")
        first.docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.71.0.0/16", "docker")
        for host in self.hosts:
            host.docker("network", "create", "-d", "weft-overlay", "--ipam-driver", "weft-overlay", "--subnet",
                        "10.72.0.0/16", "-o", "weft.network=weft", "weft")
            host.docker("network", "create", "-d", "weft-bridge", "--subnet", "10.73.0.0/24", "bridged")
            host.docker("network", "create", "--internal", "base")

    def connect(self):
        print("network connect and disconnect of a running container")
        engine = Http(self.hosts[0].docker_socket)
        self.hosts[0].docker("run", "-d", "--network", "base", "--name", "walker", IMAGE)
        # A second container keeps Docker's overlay up between turns, as on a host in use.
        for network in RIVALS:
            self.hosts[0].docker("run", "-d", "--network", network, "--name", f"stay{network}", IMAGE)
        times = {(network, what): [] for network in (*RIVALS, "bridged") for what in ("connect", "disconnect")}
        for turn in range(self.options.rounds + 3):
            for network in (*RIVALS, "bridged"):
                for what in ("connect", "disconnect"):
                    took = timed(engine.call, "POST", f"/networks/{network}/{what}", {"Container": "walker"})
                    if turn >= 3:
                        times[network, what].append(took)
        for what in ("connect", "disconnect"):
            for network in (*RIVALS, "bridged"):
                row(f"{what} {network}", times[network, what], None if network == "docker" else times["docker", what])
        limit("connect: weft-overlay over weft-bridge",
              statistics.median(times["weft", "connect"]) - statistics.median(times["bridged", "connect"]), 5)
        self.hosts[0].docker("rm", "-f", "walker", *(f"stay{network}" for network in RIVALS))

    def data_path(self):
        print("between two hosts: TCP throughput with 1 and 4 streams, round trip; beside the bare underlay")
        places, targets = {"underlay": []}, {"underlay": self.hosts[1].ip}
        self.hosts[1].spawn("iperf3", "-s")
        for network in RIVALS:
            for host, end in zip(self.hosts, "ab"):
                host.docker("run", "-d", "--network", network, "--name", network + end, IMAGE)
            near, far = (host.inspect("container", network + end) for host, end in zip(self.hosts, "ab"))
            targets[network] = far["NetworkSettings"]["Networks"][network]["IPAddress"]
            places[network] = ["nsenter", "-t", str(near["State"]["Pid"]), "-n"]
            self.hosts[1].spawn("nsenter", "-t", str(far["State"]["Pid"]), "-n", "iperf3", "-s")
        time.sleep(1)
        rates, trips = {}, {}
        paths = collections.deque(("underlay", *RIVALS))
        for _ in range(self.options.data_rounds):
            paths.rotate()
            for path in paths:
                for streams in (1, 4):
                    report = json.loads(self.hosts[0].run(*places[path], "iperf3", "-J", "-t", "2", "-P", str(streams),
                                                          "-c", targets[path]))
                    rates.setdefault((path, streams), []).append(report["end"]["sum_received"]["bits_per_second"] / 1e9)
                # On one core: on two it is 20 or 50 us, by where the kernel wakes whom, whatever the path.
                text = self.hosts[0].run("taskset", "-c", "0", *places[path], "ping", "-q", "-c", "300", "-i", "0.002",
                                         targets[path])
                trips.setdefault(path, []).append(float(re.search(r"= [\d.]+/([\d.]+)/", text)[1]) * 1000)
        for streams, share in ((1, 0.95), (4, 0.90)):
            for path in ("underlay", *RIVALS):
                row(f"{streams} stream(s) {path}", rates[path, streams],
                    rates["docker", streams] if path == "weft" else None, "Gbit/s")
            medians = {path: statistics.median(rates[path, streams]) for path in ("underlay", *RIVALS)}
            limit(f"{streams} stream(s): Docker's overlay over weft's", medians["docker"] / medians["weft"], 1, "x")
            limit(f"{streams} stream(s): underlay over weft-overlay", medians["underlay"] / medians["weft"], 1 / share, "x")
        for path in ("underlay", *RIVALS):
            row(f"round trip {path}", trips[path], trips["docker"] if path == "weft" else None, "us")
        limit("round trip: weft over Docker's", statistics.median(trips["weft"]) / statistics.median(trips["docker"]), 1, "x")
        in_parallel(*(lambda host=host, end=end: host.docker("rm", "-f", *(network + end for network in RIVALS))
                      for host, end in zip(self.hosts, "ab")))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of connect and disconnect")
    parser.add_argument("--data-rounds", type=int, default=9)
    parser.add_argument("--only", default="connect,data_path", help="parts, by comma")
    options = parser.parse_args()
    sweep()
    with Lab() as lab:
        bench = OverlayBench(lab, options)
        for part in options.only.split(","):
            getattr(bench, part)()
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
