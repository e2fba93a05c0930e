#!/usr/bin/env python3
"""Where the time of a `network connect` goes: the engine's netlink requests, by the kernel's syscall tracepoints.

Prints the median of each step for the networks of run.py, interleaved in one run.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

from run import HOMES, NETWORKS, Bench, Lab, sweep

MOVE, DUMP = 40, 20  # bytes of the requests: a link goes to another namespace; all connections are listed
STEPS = ("request to move: IPAM, records, CreateEndpoint, Join", "move of the link into the container's namespace",
         "its settings and the default route", "list of all connections",
         "rest: ports, EndpointOperInfo, the container's record")


class Trace:
    """The sendto calls of one process, in a trace buffer of our own; call mark() at the events between."""

    def __init__(self, pid):
        self._top = tempfile.mkdtemp(prefix="weft-trace-")
        subprocess.run(["mount", "-t", "tracefs", "tracefs", self._top], check=True)
        self._buffer = os.path.join(self._top, "instances", f"weft-{os.getpid()}")
        os.mkdir(self._buffer)
        self._put("options/event-fork", "1")  # threads to come as well
        self._put("set_event_pid", " ".join(os.listdir(f"/proc/{pid}/task")))
        self._put("trace_clock", "mono")
        self._put("buffer_size_kb", "16384")
        for edge in ("enter", "exit"):
            self._put(f"events/syscalls/sys_{edge}_sendto/enable", "1")
        self._marks = open(os.path.join(self._buffer, "trace_marker"), "w", encoding="ascii")

    def _put(self, name, text):
        with open(os.path.join(self._buffer, name), "w", encoding="ascii") as file:
            file.write(text)

    def mark(self, text):
        self._marks.write(text)
        self._marks.flush()

    def end(self):
        """The recorded lines as (thread, milliseconds, what)."""
        self._put("tracing_on", "0")
        self._marks.close()
        with open(os.path.join(self._buffer, "trace"), encoding="utf-8") as file:
            found = [re.match(r".*-(\d+) +\[\d+\] \S+ +([\d.]+): (.*)", line) for line in file]
        os.rmdir(self._buffer)
        subprocess.run(["umount", self._top], check=True)
        os.rmdir(self._top)
        return [(match[1], float(match[2]) * 1000, match[3]) for match in found if match]


def connects(lines):
    """Yields the network, the beginning, the end and the requests (begin, end, bytes) of each connect."""
    name, begin, requests, open_ = None, 0, [], {}
    for thread, time, what in lines:
        if mark := re.match(r"tracing_mark_write: (\w+) ?(\w*)", what):
            if mark[1] == "begin":
                name, begin, requests = mark[2], time, []
            else:
                yield name, begin, time, sorted(requests)
        elif entry := re.match(r"sys_sendto\(.* len: (\w+),", what):
            open_[thread] = (time, int(entry[1], 16))
        elif what.startswith("sys_sendto -> ") and thread in open_:
            start, size = open_.pop(thread)
            requests.append((start, time, size))


def split(begin, end, requests):
    """Milliseconds of each of STEPS."""
    move = max((entry for entry in requests if entry[2] == MOVE), key=lambda entry: entry[1] - entry[0])
    after = [entry for entry in requests if entry[0] > move[1]]
    dump = next((entry for entry in after if entry[2] == DUMP), None)
    settled = dump[0] if dump else after[-1][1]
    listed = dump[1] if dump else settled
    return move[0] - begin, move[1] - move[0], settled - move[1], listed - settled, end - listed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--iptables", default="nft", help="the engine's flavour: nft or legacy")
    parser.add_argument("--firewall", default="nft", help="weft's back end: nft or iptc")
    options = parser.parse_args()
    if "WEFT_TRACE" not in os.environ:  # the trace file system is mounted for us alone
        os.execvpe("unshare", ["unshare", "--mount", sys.executable, *sys.argv], {**os.environ, "WEFT_TRACE": "1"})
    sweep()
    state = tempfile.mkdtemp(prefix="weft-bench-", dir="/var/tmp")
    times = {(letter, name): [] for letter in HOMES for name in NETWORKS}
    try:
        with Lab() as lab:
            bench = Bench(lab, state, options)
            for letter in HOMES:
                bench.start_walkers(letter)
                trace = Trace(bench.host.engine.pid)
                try:
                    for _ in range(options.rounds + 5):
                        for name in NETWORKS:
                            trace.mark(f"begin {name}")
                            bench.walk("connect", name)
                            trace.mark("end")
                            bench.walk("disconnect", name)
                finally:
                    lines = trace.end()
                bench.host.docker("rm", "-f", *NETWORKS)
                for name, begin, end, requests in connects(lines):
                    times[letter, name].append((*split(begin, end, requests), end - begin))
    finally:
        shutil.rmtree(state, ignore_errors=True)
    for letter, where in HOMES.items():
        print(f"{'ms, medians; ' + where:56}" + "".join(f"{name:>8}" for name in NETWORKS))
        for number, step in enumerate((*STEPS, "all")):
            print(f"{step:56}" + "".join(
                f"{statistics.median(entry[number] for entry in times[letter, name][5:]):8.2f}" for name in NETWORKS))


if __name__ == "__main__":
    main()
