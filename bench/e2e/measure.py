"""Timing, rows of the table, and limits, for the benchmarks beside."""

import http.client
import json
import socket
import statistics
import time

results = []  # (what, limit, value as text, met)


class Http:
    """One keep-alive HTTP connection to a unix socket."""

    def __init__(self, path):
        self._connection = http.client.HTTPConnection("localhost", timeout=120)
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(path)

    def call(self, method, path, body=None):
        self._connection.request(method, path, None if body is None else json.dumps(body),
                                 {"Content-Type": "application/json"})
        reply = self._connection.getresponse()
        text = reply.read()
        if reply.status >= 300:
            raise RuntimeError(f"{method} {path}: {reply.status} {text.decode()}")
        return json.loads(text) if text else None


def timed(function, *args):
    """Milliseconds that the call took."""
    start = time.perf_counter()
    function(*args)
    return (time.perf_counter() - start) * 1000


def p95(values):
    return sorted(values)[int(len(values) * 0.95)]


def row(name, values, base=None, unit="ms"):
    ratio = f"   {statistics.median(values) / statistics.median(base):5.2f} of Docker's" if base else ""
    print(f"  {name:34} p50 {statistics.median(values):9.2f} {unit}   p95 {p95(values):9.2f} {unit}{ratio}", flush=True)


def limit(what, value, bound, unit="ms"):
    met = value <= bound
    results.append(met)
    print(f"  {'MET   ' if met else 'MISSED'} {what}: {value:.2f} {unit} (limit {bound:.2f})", flush=True)
