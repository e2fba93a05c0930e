"""What a feature is written with: the registry, and the Test that makes networks and containers and cleans them up."""

import contextlib
import itertools
from dataclasses import dataclass, field

from lab import IMAGE, CommandFailed, Container, DockerHost, NoAnswer, in_parallel, leaks, wait_for

FEATURES = []
CLOSED = 0.5  # seconds without an answer that count as closed; an open path answers within a few milliseconds
_subnet_numbers = itertools.count(1)


@dataclass(frozen=True)
class Feature:
    """One line of the table."""

    name: str
    function: callable
    group: str
    differs: str  # why Docker's own bridge driver is expected to fail it; empty: it passes too
    plugin: bool  # only means something with the plugin
    own_host: object  # False: the shared host; else constructor options for a host of its own


def feature(name, differs="", plugin=False, own_host=False):
    """Registers a test function as a feature. It is called with a Test and fails by raising."""

    def register(function):
        FEATURES.append(Feature(name, function, function.__module__.rpartition(".")[2], differs, plugin, own_host))
        return function

    return register


def equal(actual, wanted, what):
    if actual != wanted:
        raise AssertionError(f"{what}: {actual!r}, wanted {wanted!r}")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


@dataclass
class Network:
    """A Docker network and the subnets it was asked to have."""

    host: DockerHost
    name: str
    number: int
    subnet: str = ""
    subnet6: str = ""

    @property
    def gateway(self):
        return self.address(1)

    @property
    def gateway6(self):
        return self.address6(1)

    def address(self, last):
        return f"10.30.{self.number}.{last}"

    def address6(self, last):
        return f"fd30:0:0:{self.number:x}::{last:x}"

    def inspect(self):
        return self.host.inspect("network", self.name)


@dataclass
class Shared:
    """Two containers on a dual-stack network that features use without changing them."""

    network: Network
    alpha: Container
    beta: Container


@dataclass
class Test:
    """One feature's run on one host. Everything made through it is removed by clean_up()."""

    lab: object
    host: DockerHost
    driver: str
    shared_slot: dict  # holds the Shared of the shared host across tests
    _undo: list = field(default_factory=list)
    _containers: list = field(default_factory=list)
    _networks: list = field(default_factory=list)

    def __post_init__(self):
        self.outside = self.lab.outside
        self._before = self.host.snapshot()

    def accept_changes(self):
        """Takes the host as it is now for the clean one: for tests that change a host of their own on purpose."""
        self._before = self.host.snapshot()

    # --- making things ---

    def network(self, *args, v6=False, subnet=True, driver=None, name=None, options=None):
        """Creates a network on a subnet no other test uses; with subnet=False the caller or IPAM says which."""
        number = next(_subnet_numbers)
        network = Network(self.host, name or f"net{number}", number)
        command = ["network", "create", "-d", driver or self.driver]
        if subnet:
            network.subnet = f"10.30.{number}.0/24"
            command += ["--subnet", network.subnet]
        if v6:
            network.subnet6 = f"fd30:0:0:{number:x}::/64"
            command += ["--ipv6", "--subnet", network.subnet6]
        for key, value in (options or {}).items():
            command += ["-o", f"{key}={value}"]
        self.host.docker(*command, *args, network.name)
        self._networks.append(network.name)
        return network

    def container(self, network, name, *args, command=(), serving=True):
        """Starts a container, by default one that answers on the served ports, and waits until it does."""
        self._containers.append(name)
        network = getattr(network, "name", network)
        host_name = [] if network.startswith("container:") else ["--hostname", name]
        self.host.docker("run", "-d", "--network", network, "--name", name, *host_name, *args, IMAGE, *command)
        container = Container(self.host, name)
        if serving:
            wait_for(lambda: container.ask("tcp", "127.0.0.1", 80, timeout=1), f"{name} serves", timeout=5)
        return container

    def containers(self, network, *names):
        """Several plain containers, started at once."""
        return in_parallel(*(lambda name=name: self.container(network, name) for name in names))

    def shared(self):
        """The shared pair of containers. To be called before the test makes anything of its own."""
        if not self.shared_slot:
            maker = Test(self.lab, self.host, self.driver, self.shared_slot)  # not us: they outlive this test
            network = maker.network(v6=True, name="shared")
            self.shared_slot["pair"] = Shared(network, *maker.containers(network, "alpha", "beta"))
            self._before = self.host.snapshot()
        return self.shared_slot["pair"]

    def defer(self, action):
        """Has `action` called at the end of the test, the last one first."""
        self._undo.append(action)

    def outside_route(self, network):
        """Gives the outside machine routes to the network's subnets through the host, until the test ends."""
        for family, subnet, via in (("-4", network.subnet, self.host.ip), ("-6", network.subnet6, self.host.ip6)):
            if subnet:
                self.outside.run("ip", family, "route", "add", subnet, "via", via)
                self.defer(lambda family=family, subnet=subnet: self.outside.run("ip", family, "route", "del", subnet))

    def host_address(self, address):
        """Gives the host one more address until the test ends."""
        self.host.run("ip", "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
        self.defer(lambda: self.host.run("ip", "address", "del", address, "dev", "eth0"))

    def skip_leak_check(self):
        """For tests that destroy rules of the engine, which nobody brings back."""
        self._before = None

    def remove(self, *containers):
        for container in containers:
            self.host.docker("rm", "-f", container.name)
            self._containers.remove(container.name)

    def remove_network(self, network):
        self.host.docker("network", "rm", network.name)
        self._networks.remove(network.name)

    # --- checking ---

    def reaches(self, place, protocol, host, port, server=None, client=None, timeout=3.0, **how):
        """Asks, and checks who answered and whom they saw asking."""
        reply = place.ask(protocol, host, port, timeout=timeout, **how)
        path = f"{place.name} to {protocol} {host}:{port}"
        if server:
            equal(reply.server, getattr(server, "name", server), f"{path}: answered by")
        if client:
            equal(reply.client, client, f"{path}: source address seen")
        return reply

    def closed(self, place, protocols, host, port, **how):
        """Checks that nobody answers over any of the protocols. A positive check of a like path belongs beside it."""

        def one(protocol):
            with contextlib.suppress(NoAnswer):
                reply = place.ask(protocol, host, port, timeout=CLOSED, **how)
                raise AssertionError(f"{place.name} to {protocol} {host}:{port} should be closed, but {reply} came")

        in_parallel(*(lambda protocol=protocol: one(protocol) for protocol in protocols.split()))

    def pings(self, place, address, size=56, wait=3):
        place.run(place.busybox, "ping", "-c", "1", "-W", str(wait), "-s", str(size), address)

    def does_not_ping(self, place, address):
        with contextlib.suppress(CommandFailed):
            self.pings(place, address, wait=1)
            raise AssertionError(f"{place.name} should not be able to ping {address}")

    def refused(self, *args):
        """Runs a docker command that must fail; returns the error text."""
        try:
            self.host.docker(*args)
        except CommandFailed as failure:
            return str(failure)
        raise AssertionError(f"docker {' '.join(args)} should have been refused")

    def refused_network(self, *args, options=None, driver=None):
        """A network create that must fail; returns the error text."""
        pairs = [word for key, value in (options or {}).items() for word in ("-o", f"{key}={value}")]
        try:
            return self.refused("network", "create", "-d", driver or self.driver, *pairs, *args, "refused")
        except AssertionError:
            self._networks.append("refused")
            raise

    def refused_container(self, network, *args):
        """A docker run whose start must fail; returns the error text and removes what was created."""
        self._containers.append("refused")
        return self.refused("run", "-d", "--network", network.name, "--name", "refused", *args, IMAGE)

    @property
    def with_plugin(self):
        return bool(self.host.plugin.command)

    # --- the end ---

    def clean_up(self):
        """Removes everything, then returns what is left that was not there before."""
        problems = []

        def attempt(action):
            try:
                action()
            except Exception as problem:
                problems.append(str(problem))

        while self._undo:
            attempt(self._undo.pop())
        if self._containers:
            in_parallel(*(lambda name=name: self.host.docker("rm", "-f", name, check=False)
                          for name in self._containers))
        if self._networks:
            attempt(lambda: self.host.docker("network", "rm", *self._networks))
        self._containers, self._networks = [], []
        return problems + self._leaks()

    def _leaks(self):
        if self._before is None:
            return []
        with contextlib.suppress(TimeoutError):  # the plugin may clean up after it has answered
            wait_for(lambda: self.host.snapshot() == self._before, "no leaks", timeout=2, interval=0.2)
            return []
        return leaks(self._before, self.host.snapshot())
