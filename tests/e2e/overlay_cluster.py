"""Several Docker hosts on one underlay whose daemons know each other, and overlay networks on all of them."""

import itertools
import json
import os

from lab import IMAGE, PLUGIN_COMMAND, REPOSITORY, Container, Plugin, in_parallel, wait_for

WEB = "127.0.0.1:7980"
VXLAN_OVERHEAD = {4: 50, 6: 70}


class Overlay:
    """A network of one name on every host."""

    def __init__(self, cluster, number, options=(), hosts=None):
        self.cluster = cluster
        self.name = f"over{number}"
        self.number = number
        self.subnet, self.subnet6 = f"10.{100 + number}.0.0/16", f"fd{number:02x}::/64"
        self.options = options
        for host in hosts or cluster.hosts:
            self.create(host)

    def create(self, host):
        host.docker("network", "create", "-d", "weft-overlay", "--ipam-driver", "weft-overlay", "--ipv6", "--subnet",
                    self.subnet, "--subnet", self.subnet6, "-o", f"weft.network={self.name}", *self.options, self.name)


class Cluster:
    def __init__(self, lab, family, iptables, firewall, count, log_level="debug"):
        self.lab, self.family = lab, family
        self.numbers = itertools.count(1)
        key = lab.outside.run(f"{REPOSITORY}/build/bin/weftctl", "key", "generate")
        self.hosts = []
        for number in range(count):
            key_file = f"{lab.directory}/node{number + 1}.key"
            with open(os.open(key_file, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
                file.write(key + "\n")
            seed = f" --join {self.address(self.hosts[0])}" if self.hosts else ""
            address = lab.address_of(number + 1, family)
            command = (PLUGIN_COMMAND + f" --log-level {log_level} --node-name {{name}} --label {{name}} --web {WEB} --cluster e2e --key-file {key_file} "
                       f"--bind {bracketed(address)}{seed}")
            self.hosts.append(lab.add_host(f"node{number + 1}", iptables=iptables,
                                           plugin=Plugin(command, firewall)))
        wait_for(self.all_alive, "every host knows every host", 15)

    def begin(self):
        """Has the hosts make what comes with the first network after a boot and stays: base chains, sysctls."""
        self.overlay()
        self.clean_up()

    def address(self, host):
        return bracketed(self.lab.address(host, self.family))

    def ctl(self, host, *words):
        return json.loads(host.run(f"{REPOSITORY}/build/bin/weftctl", "--run-dir", "/run/weft", "--json", *words))

    def all_alive(self):
        return all(sum(member["state"] == "alive" for member in self.ctl(host, "members")) == len(self.hosts)
                   for host in self.hosts)

    def overlay(self, *options, hosts=None):
        return Overlay(self, next(self.numbers), options, hosts)

    def container(self, overlay, host, name, *args):
        return self.container_on(overlay.name, host, name, *args)

    @staticmethod
    def container_on(network, host, name, *args):
        host.docker("run", "-d", "--network", network, "--name", name, "--hostname", name, *args, IMAGE)
        container = Container(host, name)
        wait_for(lambda: container.ask("tcp", "127.0.0.1", 80, timeout=1), f"{name} serves", timeout=5)
        return container

    def one_each(self, overlay, prefix="c"):
        return in_parallel(*(lambda host=host, i=i: self.container(overlay, host, f"{prefix}{i}")
                             for i, host in enumerate(self.hosts)))

    def mtu(self):
        return 1500 - VXLAN_OVERHEAD[self.family]

    def clean_up(self):
        for network in self.ctl(self.hosts[0], "network", "ls"):
            if network["spec"]:  # else it is being removed
                self.ctl(self.hosts[0], "network", "rm", "--force", network["name"])
        for host in self.hosts:
            if containers := host.docker("ps", "-aq").split():
                host.docker("rm", "-f", *containers)
            networks = host.docker("network", "ls", "-q", "--filter", "name=over").split()
            if networks:
                host.docker("network", "rm", *networks)

    def restart(self):
        """Boots every host, whatever a failed feature left dead or stuck, so that the next finds them whole."""
        in_parallel(*(host.reboot for host in self.hosts))
        wait_for(self.all_alive, "every host knows every host", 30)
        self.clean_up()
        self.begin()

    def snapshot(self):
        return {f"{host.name}: {line}" for host in self.hosts for line in host.snapshot()}


def bracketed(address):
    return f"[{address}]" if ":" in address else address
