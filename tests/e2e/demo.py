#!/usr/bin/env python3
"""`make demo`: two Docker hosts in network namespaces with weftd, and what it does, shown command by command."""

import shlex
import sys

from lab import IMAGE, REPOSITORY, Container, Lab, sweep
from overlay_cluster import Cluster

BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


def say(text):
    print(f"\n{BOLD}# {text}{PLAIN}", flush=True)


def show(place, prompt, *argv, stdin=None):
    """Prints a command and what it prints."""
    print(f"{BOLD}{prompt}$ {shlex.join(argv)}{PLAIN}", flush=True)
    print(place.run(*argv, stdin=stdin), flush=True)


def main():
    sweep()
    say("Two machines of their own, namespaces with a Docker Engine and weftd each, and one that plays the outside")
    with Lab() as lab:
        host, second = Cluster(lab, 4, "nft", "auto", count=2, log_level="info").hosts
        weftctl = f"{REPOSITORY}/build/bin/weftctl"
        print(f"the hosts are {host.ip} and {second.ip}, the outside {lab.router(host)}; all end with this demo")

        say("A network and two containers, one with a published port")
        show(host, "host", "docker", "network", "create", "-d", "weft-bridge", "--ipam-driver", "weft-bridge",
             "--subnet", "10.20.0.0/24", "web")
        show(host, "host", "docker", "run", "-d", "--network", "web", "--name", "server", "-p", "8080:8000", IMAGE,
             "sh", "-c", "echo hello from a weft network > /index.html; exec httpd -f -p 8000 -h /")
        show(host, "host", "docker", "run", "-d", "--network", "web", "--name", "client", IMAGE, "sleep", "600")

        say("They reach each other, by name")
        show(host, "host", "docker", "exec", "client", "ping", "-c", "2", "server")
        show(host, "host", "docker", "exec", "client", "nslookup", "server")

        say("The published port: from the outside, from the host, from the other container")
        show(lab.outside, "outside", "curl", "-sS", f"http://{host.ip}:8080/")
        show(host, "host", "curl", "-sS", "http://127.0.0.1:8080/")
        show(host, "host", "docker", "exec", "client", "wget", "-qO-", f"http://{host.ip}:8080/")

        say("And the containers reach the outside")
        show(host, "host", "docker", "exec", "client", "ping", "-c", "2", lab.router(host))

        say("What weft knows")
        for what in ("status", "networks", "endpoints", "ports", "leases"):
            show(host, "host", weftctl, "--run-dir", "/run/weft", what)

        say("The same over two hosts: one network, made on each")
        for place, prompt in ((host, "host"), (second, "second")):
            show(place, prompt, "docker", "network", "create", "-d", "weft-overlay", "--ipam-driver", "weft-overlay",
                 "--subnet", "10.32.0.0/16", "-o", "weft.network=backend", "backend")
        show(second, "second", "docker", "run", "-d", "--network", "backend", "--name", "database", "-p", "9090:8000",
             IMAGE, "sh", "-c", "echo hello from another host > /index.html; exec httpd -f -p 8000 -h /")
        show(host, "host", "docker", "run", "-d", "--network", "backend", "--name", "app", IMAGE, "sleep", "600")
        database = Container(second, "database").ip

        say("Containers reach each other from host to host, and the published port is where it was published")
        show(host, "host", "docker", "exec", "app", "ping", "-c", "2", database)
        show(host, "host", "docker", "exec", "app", "wget", "-qO-", f"http://{database}:8000/")
        show(lab.outside, "outside", "curl", "-sS", f"http://{second.ip}:9090/")
        for what in (("members",), ("overlay",), ("ping", second.name)):
            show(host, "host", weftctl, "--run-dir", "/run/weft", *what)

        say("Clean up: containers and networks, then the machines")
        show(host, "host", "docker", "rm", "-f", "server", "client", "app")
        show(second, "second", "docker", "rm", "-f", "database")
        show(host, "host", "docker", "network", "rm", "web", "backend")
        show(second, "second", "docker", "network", "rm", "backend")
    print("\nThat was weft. `make test` runs its tests, README.md says how to install it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
