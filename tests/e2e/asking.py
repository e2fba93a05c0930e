"""What containers and machines ask of each other, checked: the words that features of several hosts are written in."""

import itertools

from harness import equal
from lab import CommandFailed, NoAnswer, wait_for


def reaches(place, protocol, address, port, server, client=None, timeout=3.0):
    reply = place.ask(protocol, address, port, timeout=timeout)
    equal(reply.server, server.name, f"{place.name} to {protocol} {address}:{port} answered by")
    if client:
        equal(reply.client, client, f"{place.name} to {protocol} {address}:{port} seen as")


def soon_reaches(place, protocol, address, port, server, within, timeout=0.2):
    wait_for(lambda: reaches(place, protocol, address, port, server, timeout=timeout) or True,
             f"{place.name} reaches {server.name}", within, 0.01)


def refused(run, *argv):
    """What a command says that has to fail."""
    try:
        run(*argv)
    except CommandFailed as refusal:
        return str(refusal)
    raise AssertionError(f"{argv} was not refused")


def closed(place, address, port=80):
    try:
        reply = place.ask("tcp", address, port, timeout=0.5)
    except NoAnswer:
        return
    raise AssertionError(f"{place.name} to {address}:{port} should be closed, {reply} came")


def ping(place, address, size=56):
    place.run(place.busybox, "ping", "-c", "1", "-W", "3", "-s", str(size), address)


def pairs(containers):
    return itertools.permutations(containers, 2)


def resolve(container, name, kind="a"):
    """What the container's own resolver finds, sorted; nothing if there is no such name."""
    text = container.run(container.busybox, "nslookup", f"-type={kind}", name, check=False, timeout=20)
    answers = text.split("\n\n", 1)[-1]
    return sorted(line.split(": ", 1)[-1].split(" = ")[-1].strip() for line in answers.splitlines()
                  if line.startswith("Address") or "name = " in line or "service = " in line)


def soon_resolves(container, name, addresses, within, kind="a"):
    wait_for(lambda: resolve(container, name, kind) == sorted(addresses),
             f"{container.name} finds {addresses} as {name}", within, 0.01)
