#!/usr/bin/env python3
"""Runs the end-to-end features and prints one line each. See README.md."""

import argparse
import importlib
import os
import pkgutil
import shutil
import signal
import sys
import time
import traceback

import features
from harness import FEATURES, Test, check
from lab import PLUGIN_COMMAND, Lab, Plugin, sweep

FEATURE_LIMIT_SECONDS = 120


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="TEXT", default="", help="only features with TEXT in group or name ('a|b': either)")
    parser.add_argument("--driver", default="weft-bridge", help="the driver under test; 'bridge' proves the tests themselves")
    parser.add_argument("--iptables", default="nft,legacy", help="iptables flavours of the hosts, by comma")
    parser.add_argument("--firewall", default="auto", help="the plugin's back end: auto, iptc or nft")
    parser.add_argument("--plugin-cmd", default=f"{PLUGIN_COMMAND} --log-level debug", help="how to start the plugin; {state} {firewall} {name} are filled in")
    parser.add_argument("--retries", type=int, default=0, help="how often a failed feature is tried again, on a fresh host")
    parser.add_argument("--keep", action="store_true", help="after a failure keep the lab, as it is, until Enter is pressed")
    parser.add_argument("--list", action="store_true", help="print the features and end")
    parser.add_argument("--sweep", action="store_true", help="only remove what killed runs left behind")
    return parser.parse_args()


class Run:
    """All features on one iptables flavour."""

    def __init__(self, options, iptables, chosen):
        self.options = options
        self.iptables = iptables
        self.chosen = chosen
        self.counts = {"PASS": 0, "FAIL": 0, "DIFF": 0, "AGAIN": 0}
        bridge = options.driver == "bridge"
        # Docker's bridge filters and masquerades IPv6 only if told to; the plugin must not need that.
        self.host_options = {"iptables": iptables, "engine_args": ["--experimental", "--ip6tables"] if bridge else [],
                             "plugin": Plugin("" if bridge else options.plugin_cmd, options.firewall)}

    def __call__(self):
        with Lab() as lab:
            self.lab = lab
            self.shared_host, self.shared_slot = None, {}
            for feature in self.chosen:
                tries_left = self.options.retries
                while self._run(feature, tries_left) == "AGAIN":
                    tries_left -= 1
        return self.counts

    def _run(self, feature, tries_left):
        """Runs one feature and prints its row; returns the row's word."""
        start = time.monotonic()
        signal.alarm(FEATURE_LIMIT_SECONDS)
        host = test = problem = None
        marks, report, remains = {}, "", []
        try:
            host = self._host(feature)
            marks = {name: _size(host.log(name)) for name in ("dockerd", "weftd")}
            test = Test(self.lab, host, self.options.driver, self.shared_slot if host is self.shared_host else {})
            feature.function(test)
        except Exception as error:
            problem = error
            if not self._expected(feature):
                report = _report(host, marks)  # now: cleaning up changes the rules
                if self.options.keep:
                    self._hold(feature, host, problem)
        try:
            remains = test.clean_up() if test else []
            if not problem:
                check(not remains, "left behind:\n  " + "\n  ".join(remains[:20]))
        except Exception as error:
            problem = problem or error
            report = report or _report(host, marks)
        signal.alarm(0)
        word = self._row(feature, problem, time.monotonic() - start, tries_left)
        if problem and not self._expected(feature):
            print("".join(traceback.format_exception(problem)[-3:]), report, sep="\n")
        self._give_back(host, spoiled=remains or problem and not self._expected(feature))
        return word

    def _host(self, feature):
        number = len(self.lab.hosts) + 1
        if feature.own_host is not False:
            extra = dict(feature.own_host) if isinstance(feature.own_host, dict) else {}
            engine_args = [*self.host_options["engine_args"], *extra.pop("engine_args", [])]
            return self._boot(f"own{number}", **{**self.host_options, "engine_args": engine_args, **extra})
        if not self.shared_host:
            self.shared_host = self._boot(f"host{number}", **self.host_options)
        return self.shared_host

    def _boot(self, name, **options):
        """A host whose base chains and sysctls, which come with the first network and stay, are in place."""
        host = self.lab.add_host(name, **options)
        test = Test(self.lab, host, self.options.driver, {})
        test.network(v6=True)
        test.clean_up()
        return host

    def _give_back(self, host, spoiled):
        """A host of one's own is switched off; so is a shared one that a failure may have spoiled."""
        if not host or (host is self.shared_host and not spoiled):
            return
        host.power_off()
        if host is self.shared_host:
            self.shared_host, self.shared_slot = None, {}

    def _expected(self, feature):
        return self.options.driver == "bridge" and feature.differs

    def _row(self, feature, problem, seconds, tries_left):
        word = "PASS" if not problem else "DIFF" if self._expected(feature) else "AGAIN" if tries_left else "FAIL"
        self.counts[word] += 1
        note = f"  ({feature.differs}; seen: {str(problem).partition(chr(10))[0]})" if word == "DIFF" else ""
        print(f"{word:5} {self.iptables:6}  {seconds:5.1f} s  {feature.group}: {feature.name}{note}", flush=True)
        return word

    def _hold(self, feature, host, problem):
        print(f"\n{feature.name} failed: {problem}\n"
              f"host:    nsenter -t {host and host.pid} -m -u -n -p bash   (docker works inside)\n"
              f"outside: nsenter -t {self.lab.outside.pid} -m -u -n -p bash\n"
              f"logs:    {host and host.directory}\nPress Enter to go on.", flush=True)
        signal.alarm(0)
        sys.stdin.readline()


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def _report(host, marks):
    """What a reader of a failure needs: the daemons' words since the test began, links and rules."""
    sections = {}
    for name, mark in marks.items():
        if os.path.exists(host.log(name)):
            with open(host.log(name), encoding="utf-8", errors="replace") as log:
                log.seek(mark)
                sections[name] = log.read().splitlines()[-30:]
    if host:
        for command in ("ip -br address", "nft list ruleset", "iptables-legacy-save", "ip6tables-legacy-save"):
            sections[command] = host.run(*command.split(), check=False).splitlines()[:150]
    return "\n".join(f"--- {name}\n" + "\n".join(lines) for name, lines in sections.items() if lines)


def main():
    options = arguments()
    swept = sweep()
    if swept:
        print("removed what killed runs left:", *swept)
    if options.sweep:
        return 0
    for module in pkgutil.iter_modules(features.__path__):
        importlib.import_module(f"features.{module.name}")
    wanted = options.k.lower().split("|")
    chosen = [feature for feature in FEATURES
              if any(word in f"{feature.group}: {feature.name}".lower() for word in wanted)
              and not (feature.plugin and options.driver == "bridge")]
    if options.list:
        print(*(f"{feature.group}: {feature.name}" for feature in chosen), sep="\n")
        return 0

    program = options.plugin_cmd.split()[0]
    if options.driver != "bridge" and not shutil.which(program):
        sys.exit(f"there is no {program}: build it, or give --plugin-cmd or --driver bridge")

    def give_up(*_):
        raise TimeoutError(f"the feature took more than {FEATURE_LIMIT_SECONDS} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    totals = {"PASS": 0, "FAIL": 0, "DIFF": 0, "AGAIN": 0}
    for iptables in options.iptables.split(","):
        for word, count in Run(options, iptables, chosen)().items():
            totals[word] += count
    if totals["DIFF"]:
        print(f"{totals['DIFF']} known differences of Docker's bridge")
    if totals["AGAIN"]:
        print(f"{totals['AGAIN']} failed first and were tried again")
    print(f"{totals['PASS']} passed, {totals['FAIL']} failed")
    return 1 if totals["FAIL"] or not totals["PASS"] else 0


if __name__ == "__main__":
    sys.exit(main())
