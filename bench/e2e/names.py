#!/usr/bin/env python3
"""Names across two hosts: queries a second, how soon a new container's name is known, and what a flood costs others.

Asked are weftd directly, at the name server's address that is redirected to it; weftd through Docker's resolver, as programs
do; and Docker's resolver alone, for a name that it knows itself. weftd has the first core, who asks the second.
"""

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "e2e"))

from measure import limit, results, row  # noqa: E402 (the path is set above)
from lab import IMAGE, REPOSITORY, Lab, sweep  # noqa: E402
from overlay_cluster import Cluster  # noqa: E402

DNS_LOAD = f"{REPOSITORY}/build/bin/dns_load"
DOCKERS = "127.0.0.11"
WANTED_RATE = 20000


class NamesBench:
    def __init__(self, lab, options):
        self.options = options
        self.cluster = Cluster(lab, 4, "nft", "auto", count=2, log_level="info")
        self.near, self.far = self.cluster.hosts
        self.server = lab.router(self.near)  # nobody serves there: weftd answers all that is asked here
        net = self.cluster.overlay()
        self.network = net.name
        self.asker, self.loud, _ = (self.cluster.container(net, self.near, name, "--dns", self.server)
                                    for name in ("asker", "loud", "mate"))
        self.cluster.container(net, self.far, "db")
        self.watcher = self.cluster.container(net, self.far, "watcher", "--dns", lab.router(self.far))
        subprocess.run(["taskset", "-a", "-p", "-c", "0", str(self.near.plugin_process.pid)], check=True,
                       stdout=subprocess.DEVNULL)
        if options.realtime:
            for process in (self.near.plugin_process, self.near.engine):
                subprocess.run(["chrt", "-a", "-f", "-p", "10", str(process.pid)], check=True)

    def load(self, container, *words):
        """The command line that runs dns_load on the second core, in the container's network."""
        priority = ("chrt", "-f", "10") if self.options.realtime else ()
        return (*priority, "taskset", "-c", "1", "nsenter", "-t", str(container.state["State"]["Pid"]), "-n", DNS_LOAD, *words)

    def ask(self, server, name, rate):
        """Queries for some seconds; the answers, with weftd's processor time for each."""
        def ticks():
            with open(f"/proc/{self.near.plugin_process.pid}/stat", encoding="ascii") as stat:
                return sum(int(field) for field in stat.read().rpartition(")")[2].split()[11:13])
        before = ticks()
        report = json.loads(self.near.run(*self.load(self.asker, "ask", server, name, str(self.options.seconds), str(rate))))
        report["processor_us"] = (ticks() - before) / os.sysconf("SC_CLK_TCK") * 1e6 / max(report["answered"], 1)
        return report

    def rates(self):
        print(f"queries from one container, at {WANTED_RATE} a second and as many as are answered, interleaved")
        paths = {"Docker, own name": (DOCKERS, "mate"), "weft, directly": (self.server, "db.weft"),
                 "weft, through Docker": (DOCKERS, "db.weft")}
        reports = {(path, rate): [] for path in paths for rate in (WANTED_RATE, 0)}
        for _ in range(self.options.rounds):
            for path, rate in reports:
                reports[path, rate].append(self.ask(*paths[path], rate))
        medians = {key: {field: statistics.median(one[field] for one in of_key) for field in of_key[0]}
                   for key, of_key in reports.items()}
        for (path, rate), ours in medians.items():
            docker = medians["Docker, own name", rate]
            ratios = "" if ours is docker else "   of Docker's: " + ", ".join(
                f"{ours[field] / docker[field]:.2f}" for field in ("rate", "p50_us", "p99_us"))
            print(f"  {path + (' at 20,000/s' if rate else ' flat out'):34} {ours['rate']:9.0f} /s   p50 {ours['p50_us']:9.2f} us"
                  f"   p99 {ours['p99_us']:9.2f} us{ratios}", flush=True)
        directly = "weft, directly", WANTED_RATE
        row("weftd's processor time a query", [one["processor_us"] for one in reports[directly]], unit="us")
        limit("20,000 queries a second over those answered", WANTED_RATE / medians[directly]["rate"], 1.01, "x")
        limit("p99 at 20,000 a second", medians[directly]["p99_us"] / 1000, 1)
        limit("wrong answers", sum(one["wrong"] for of_key in reports.values() for one in of_key), 0, "")

    def new_name(self):
        print(f"from `docker run`'s return on one host to the right answer on the other, {self.options.runs} times")
        # One process asks all the time; its standard input and output are the only way to it.
        watch = subprocess.Popen(self.far.entered(self.load(self.watcher, "await", DOCKERS)), stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
        times = []
        try:
            for number in range(self.options.runs):
                name = f"n{number}"
                watch.stdin.write(f"{name}.weft\n")
                watch.stdin.flush()
                self.near.docker("run", "-d", "--network", self.network, "--name", name, IMAGE)
                returned = time.monotonic()
                if not select.select([watch.stdout], [], [], 10)[0]:
                    raise TimeoutError(f"nothing was said of {name}")
                answer = watch.stdout.readline().split()
                if len(answer) != 3:
                    raise TimeoutError(f"{name} was not found within 90 s")
                networks = self.near.inspect("container", name)["NetworkSettings"]["Networks"]
                if answer[2] != networks[self.network]["IPAddress"]:
                    raise AssertionError(f"{name} is at {networks}, found was {answer}")
                times.append(max(0.0, float(answer[1]) - returned) * 1000)
                self.near.docker("rm", "-f", name)
        finally:
            watch.kill()
            watch.wait()
        row("new name", times)
        limit("new name, the slowest", max(times), 300)

    def flooded(self):
        print("100 queries a second beside a neighbour that sends what it can")
        alone = self.ask(self.server, "db.weft", 100)
        print(f"  {'alone':34} p50 {alone['p50_us']:9.2f} us   p99 {alone['p99_us']:9.2f} us")
        for what, words in (("garbage", ()), ("queries", ("db.weft",))):
            flood = self.near.spawn(*self.load(self.loud, "flood", self.server, str(self.options.seconds + 1), *words))
            time.sleep(0.5)
            beside = self.ask(self.server, "db.weft", 100)
            rate = json.loads(flood.wait())["rate"]
            print(f"  {f'beside {rate}/s of {what}':34} p50 {beside['p50_us']:9.2f} us   p99 {beside['p99_us']:9.2f} us")
            limit(f"lost beside {what}", 100 * (1 - beside["answered"] / beside["sent"]), 1, "%")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of queries")
    parser.add_argument("--seconds", type=int, default=3, help="of each round")
    parser.add_argument("--runs", type=int, default=50, help="of new containers")
    parser.add_argument("--realtime", action="store_true",
                        help="weftd, engine and asker go before all other processes, on a machine that does other things")
    parser.add_argument("--only", default="rates,new_name,flooded", help="parts, by comma")
    options = parser.parse_args()
    sweep()
    with Lab() as lab:
        bench = NamesBench(lab, options)
        for part in options.only.split(","):
            getattr(bench, part)()
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
