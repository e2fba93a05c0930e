#!/usr/bin/env python3
"""kill -9 at random moments while containers come and go; afterwards nothing may be left and nothing may have stopped.

`--containers` workers run and remove containers on a weft network without a pause. Each round kills weftd, dockerd or
both at a random moment and starts them again. After `--batch` rounds the workers end, and the host is compared with
what it was before: links, addresses, rules, bound ports, leases, endpoints, sandboxes.

Two containers run throughout and talk to each other and through a published port, beside two of Docker's own bridge. The
longest silence is printed, and is a failure on weft when it is over SILENCE_SECONDS. The server is not in its container's
cgroup: there it would wait 10 s for its share of the processors among all containers that come and go.
`--seed` repeats a run's choices.
"""

import argparse
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time

from lab import IMAGE, PLUGIN_COMMAND, REPOSITORY, CommandFailed, Container, Lab, Plugin, keepalive_report, leaks, sweep, wait_for

VICTIMS = ("weftd", "dockerd", "weftd+dockerd")
# What reconciliation may take: five minutes until a link that was joined and never moved is given up, the next sweep, a
# minute until the lease behind it is free, and some load.
SETTLE_SECONDS = 450
SILENCE_SECONDS = 1.0
SERVER_PORT = 90
# Who is watched: driver, network, what its containers' names begin with, published port.
PAIRS = (("weft", "chaos", "", 8080), ("Docker's bridge", "compared", "docker-", 8081))


class Chaos:
    def __init__(self, lab, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.lab = lab
        # live-restore: a killed engine that comes back takes its containers as they are.
        self.host = lab.add_host("chaos", iptables=options.iptables, engine_args=["--live-restore"],
                                 plugin=Plugin(PLUGIN_COMMAND, options.firewall))
        self.host.docker("network", "create", "-d", "weft-bridge", "--ipam-driver", "weft-bridge", "--subnet",
                         "10.60.0.0/16", "chaos")
        self.host.docker("network", "create", "-d", "bridge", "--subnet", "10.61.0.0/16", "compared")
        for _, network, prefix, port in PAIRS:
            self.host.docker("run", "-d", "--network", network, "-p", f"{port}:{SERVER_PORT}", "--name", f"{prefix}quiet",
                             IMAGE)
            self.host.docker("run", "-d", "--network", network, "--name", f"{prefix}asker", IMAGE)

    def ctl(self, what):
        return json.loads(self.host.run(f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "--json", what))

    def state(self):
        """All that a round must leave as it was."""
        lines = self.host.snapshot()
        for what in ("endpoints", "ports", "leases"):
            lines |= {f"{what}: {json.dumps(_stable(entry), sort_keys=True)}" for entry in self.ctl(what)}
        return lines

    def come_and_go(self, worker, stop):
        """Runs and removes one container after the other."""
        for number in itertools.count():
            if stop.is_set():
                return
            name = f"c{worker}-{number}"
            ports = ["-p", "80"] if self.random.random() < 0.5 else []
            try:
                ran = self.host.docker("run", "-d", "--network", "chaos", *ports, "--name", name, IMAGE, check=False,
                                       timeout=300)
                # An engine that is killed before it has removed them would pile them up.
                while not (removed := self.removed(name)) and not stop.wait(1):
                    pass
                self.finished[worker] += bool(ran) and removed
            except subprocess.TimeoutExpired:
                self.timed_out[worker] += 1
            stop.wait(1)  # of an engine that is away

    def removed(self, name):
        try:
            self.host.docker("rm", "-f", name, timeout=300)
        except CommandFailed as error:
            return "No such container" in str(error)
        return True

    def kill(self, victims):
        host = self.host
        self.kills.append(time.monotonic())
        if "weftd" in victims:
            host.kill_plugin()
        if "dockerd" in victims:
            host.kill_engine()
        time.sleep(self.random.random())
        if "weftd" in victims:
            host.start_plugin()
        if "dockerd" in victims:
            try:
                host.start_engine()
            except CommandFailed:  # it waits 15 s for its containerd, too little under this load: systemd would start it again
                host.start_engine()

    def rounds(self, victims, count):
        """Kills `count` times while all workers are busy, then lets them end."""
        stop = threading.Event()
        self.finished = [0] * self.options.containers
        self.timed_out = [0] * self.options.containers
        workers = [threading.Thread(target=self.come_and_go, args=(worker, stop), daemon=True)
                   for worker in range(self.options.containers)]
        for worker in workers:
            worker.start()
        for _ in range(count):
            time.sleep(self.random.uniform(0.5, self.options.spread))
            self.kill(victims)
        stop.set()
        for worker in workers:
            worker.join()
        # What the killed engine could not remove, a user would now.
        for name in self.host.docker("ps", "-aq", "--filter", "name=^c", timeout=300).split():
            self.removed(name)

    def run(self):
        """The rounds; returns for each batch and each of weft's connections whether it was well."""
        self.kills = []
        talks = self.talks()
        passed = []
        for victims in self.options.victims:
            for first in range(0, self.options.rounds, self.options.batch):
                count = min(self.options.batch, self.options.rounds - first)
                before, start = self.state(), time.monotonic()
                self.rounds(victims, count)
                try:
                    wait_for(lambda: not leaks(before, self.state()), "all as before", SETTLE_SECONDS, 1.0)
                    verdict = "ok" if any(self.finished) else "NO CONTAINER CAME AND WENT"
                except TimeoutError:
                    left = leaks(before, self.state())[:20]
                    verdict = "LEFT BEHIND\n    " + "\n    ".join(left + self.story_of(left))
                passed.append(verdict == "ok")
                print(f"{victims:14} rounds {first + 1:3} to {first + count:3} {time.monotonic() - start:6.1f} s "
                      f"{sum(self.finished):5} run/rm, "
                      f"{sum(self.timed_out)} timed out  {verdict}", flush=True)
        for name, process in talks.items():
            report = keepalive_report(process)
            silence = report["longest_gap_ms"] / 1000
            print(f"{name:45} longest silence {silence:5.2f} s {report['error']}")
            if name.startswith("weft"):
                passed.append(not report["error"] and silence <= SILENCE_SECONDS)
                if not passed[-1]:
                    print(f"    [until, ms]: {report['gaps']}, kills at {[int(moment * 1000) for moment in self.kills]}")
        return passed

    def talks(self):
        """The connections that live through it all, by name."""
        started = {}
        for driver, _, prefix, port in PAIRS:
            quiet, asker = Container(self.host, f"{prefix}quiet"), Container(self.host, f"{prefix}asker")
            quiet.spawn(quiet.tool, "serve", str(SERVER_PORT), log=subprocess.DEVNULL)
            wait_for(lambda: asker.ask("tcp", quiet.ip, SERVER_PORT), "the server answers")
            started[f"{driver}: container to container"] = asker.keepalive("tcp", quiet.ip, SERVER_PORT)
            started[f"{driver}: outside to published port"] = self.lab.outside.keepalive("tcp", self.host.ip, port)
        return started

    def story_of(self, left):
        """What the daemon's log says of the addresses and ids in these lines."""
        words = set(re.findall(r"\d+(?:\.\d+){3}|[0-9a-f]{12}", "\n".join(left)))
        with open(self.host.log("weftd"), encoding="utf-8", errors="replace") as log:
            return [line.rstrip() for line in log if any(word in line for word in words)][-40:]


def _stable(entry):
    """An entry without what changes by itself."""
    return {key: value for key, value in entry.items() if "age" not in key and "seconds" not in key}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="for each kind of victim")
    parser.add_argument("--containers", type=int, default=20, help="concurrent docker run/rm")
    parser.add_argument("--batch", type=int, default=1, help="rounds before the workers end and the host is compared")
    parser.add_argument("--spread", type=float, default=4.0, help="longest time between two kills, in seconds")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS)
    parser.add_argument("--iptables", default="nft")
    parser.add_argument("--firewall", default="auto")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    sweep()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"seed {options.seed}")
    with Lab() as lab:
        passed = Chaos(lab, options).run()
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
