#!/usr/bin/env python3
"""`make demo`: a Docker host in a network namespace with weftd, and what it does, shown command by command."""

import shlex
import sys

from lab import IMAGE, PLUGIN_COMMAND, REPOSITORY, Lab, Plugin, sweep

BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


def say(text):
    print(f"\n{BOLD}# {text}{PLAIN}", flush=True)


def show(place, prompt, *argv, stdin=None):
    """Prints a command and what it prints."""
    print(f"{BOLD}{prompt}$ {shlex.join(argv)}{PLAIN}", flush=True)
    print(place.run(*argv, stdin=stdin), flush=True)


def main():
    sweep()
    say("A machine of its own: a namespace with a Docker Engine and weftd, and another that plays the outside")
    with Lab() as lab:
        host = lab.add_host("demo", plugin=Plugin(PLUGIN_COMMAND))
        weftctl = f"{REPOSITORY}/build/bin/weftctl"
        print(f"the host is {host.ip}, the outside {lab.router(host)}; both end with this demo")

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

        say("Clean up: containers and network, then the whole machine")
        show(host, "host", "docker", "rm", "-f", "server", "client")
        show(host, "host", "docker", "network", "rm", "web")
    print("\nThat was weft. `make test` runs its tests, README.md says how to install it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
