"""A laboratory of real Docker Engines: one machine plays a router, a LAN and several Docker hosts.

Each Machine is a set of fresh namespaces (network, mounts, processes, host name) held by one process, its pid 1. That
process ends when its standard input closes, and the kernel then ends everything inside: so when a test run is killed,
even with SIGKILL, its engines, containers, links and mounts go with it. What can stay behind is one directory and a
few empty cgroups, both named after the run's process; the next run's sweep() removes them.

Nothing here touches the machine's own network namespace.
"""

import contextlib
import glob
import http.client
import ipaddress
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
from dataclasses import dataclass, field

import snapshot
from snapshot import leaks  # noqa: F401 (a part of this module's interface)

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
# {state}, {firewall} and {name} are filled in for each host.
PLUGIN_COMMAND = (f"{REPOSITORY}/build/bin/weftd --plugin-dir /run/docker/plugins --state-dir {{state}} --run-dir /run/weft"
                  " --firewall {firewall}")
DOCKER = "/usr/bin/docker"
# Another engine than the installed one: a folder of dockerd, containerd and what they start.
ENGINE_DIRECTORY = os.path.abspath(os.environ.get("WEFT_ENGINE_DIRECTORY", "/usr/bin"))
IMAGE = "weft-test"
PREFIX = "weft-t"  # of every directory and cgroup a run makes
ROOT = "/dev/shm"  # memory: an engine's image store and SQLite files should not wait for a disk
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/*")  # version 2, version 1
SERVED_PORTS = ("80", "81", "82")  # what every test container and the outside machine answer on


class CommandFailed(Exception):
    """A command ended with an error; the text holds its output."""


class NoAnswer(Exception):
    """Nobody answered a request, or the connection was refused."""


@dataclass(frozen=True)
class Reply:
    """What an echo server says: who it is, and whom it saw asking."""

    server: str
    client: str
    client_port: int


def wait_for(condition, what, timeout=10.0, interval=0.02):
    """Polls until `condition()` is true and returns its value. An exception that it raises counts as not yet."""
    end = time.monotonic() + timeout
    last = None
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except Exception as error:  # whatever it is, it is shown when time is up
            last = error
        time.sleep(interval)
    raise TimeoutError(f"not within {timeout:g} s: {what}" + (f" ({last})" if last else ""))


def child_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        return int(children.read().split()[0])


class Process:
    """A command running in a Place. nsenter stands between us and it, so signals go to nsenter's child."""

    def __init__(self, argv, log):
        self._entered = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                         text=True)
        try:
            self.pid = wait_for(lambda: child_of(self._entered.pid), f"{argv} starts", timeout=5, interval=0.002)
        except TimeoutError:
            self.pid = None  # it ended at once

    def running(self):
        return self._entered.poll() is None

    def end(self, with_signal=signal.SIGTERM, timeout=20):
        """Sends the signal, waits for the end, and returns the output when it was not sent to a log."""
        if self.running() and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, with_signal)
            if with_signal == signal.SIGKILL:
                self._entered.send_signal(signal.SIGCONT)  # it may be paused, and would not take the child's leave
        return self.wait(timeout)

    def pause(self):
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.pid, signal.SIGCONT)
        self._entered.send_signal(signal.SIGCONT)  # nsenter stops with its child

    def wait(self, timeout=20):
        """Waits until it ends of itself; returns the output."""
        return self._entered.communicate(timeout=timeout)[0]


class Place:
    """Where commands and test traffic can start: a machine or a container."""

    name = ""
    tool = "weft-echo"
    busybox = "busybox"

    def entered(self, argv):
        """The command line that runs `argv` there."""
        raise NotImplementedError

    def run(self, *argv, check=True, timeout=30, stdin=None):
        """Runs a command to its end; returns its output, or raises CommandFailed."""
        done = subprocess.run(
            self.entered(argv), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout
        )
        if check and done.returncode:
            words = done.stderr.strip() or done.stdout.strip() or done.returncode
            raise CommandFailed(f"{self.name}: {' '.join(argv)}: {words}")
        return done.stdout.strip()

    def succeeds(self, *argv, timeout=30):
        try:
            self.run(*argv, timeout=timeout)
        except CommandFailed:
            return False
        return True

    def spawn(self, *argv, log=subprocess.PIPE):
        return Process(self.entered(argv), log)

    def ask(self, protocol, host, port, timeout=3.0, source=None, source_port=None, text="hi"):
        """Sends one request and returns the Reply, or raises NoAnswer."""
        options = ["-t", str(int(timeout * 1000)), "-m", text]
        options += ["-b", source] if source else []
        options += ["-s", str(source_port)] if source_port else []
        try:
            words = self.run(self.tool, "ask", *options, protocol, host, str(port)).split()
        except CommandFailed as error:
            raise NoAnswer(str(error)) from None
        return Reply(words[0], words[1], int(words[2]))

    def keepalive(self, protocol, host, port, source_port=None):
        """Starts one connection with a message each 10 ms; keepalive_report() ends it."""
        options = ["-s", str(source_port)] if source_port else []
        return self.spawn(self.tool, "keepalive", *options, protocol, host, str(port))


def keepalive_report(process):
    """Ends a keepalive and returns its counts, longest gap in ms, servers and error."""
    output = process.end()
    try:
        return json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        raise NoAnswer(f"keepalive: {output.strip()}") from None


class Machine(Place):
    """A booted set of namespaces. Files in `directory` outlive a power cut; /run does not."""

    def __init__(self, lab, name):
        self.lab = lab
        self.name = name
        self.directory = os.path.join(lab.directory, name)
        self.tool = lab.tool
        self._holder = None
        self.pid = None
        os.makedirs(self.directory)
        self.power_on()

    def power_on(self):
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "private",
             self.tool, "init"],
            stdin=subprocess.PIPE,
        )
        self.pid = wait_for(lambda: child_of(self._holder.pid), f"{self.name} boots", interval=0.002)
        wait_for(lambda: _command_name(self.pid) == "weft-t-init", f"{self.name} boots", interval=0.002)
        # A fresh /sys shows this network namespace's links; the cgroups are carried over from the machine's.
        self.run("sh", "-ec", """
            mkdir -p "$1/cgroup" "$1/etc-docker"
            mount -t proc proc /proc
            mount --rbind /sys/fs/cgroup "$1/cgroup"
            mount -t sysfs sysfs /sys
            mount --move "$1/cgroup" /sys/fs/cgroup
            mount -t tmpfs -o mode=755 tmpfs /run
            mkdir -p /run/docker/plugins /run/weft
            [ ! -d /etc/docker ] || mount --bind "$1/etc-docker" /etc/docker
            printf "nameserver 10.99.0.1\\noptions timeout:1 attempts:1\\n" > "$1/resolv.conf"  # nobody serves there
            mount --bind "$1/resolv.conf" /etc/resolv.conf
            hostname "$2"
            ip link set lo up
        """, "sh", self.directory, self.name)

    def power_off(self):
        """Ends every process at once, as a power cut does."""
        if self._holder:
            self._holder.stdin.close()
            self._holder.wait(20)
            self._holder = None

    def entered(self, argv):
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-n", "-p", "--", *argv]

    def sysctl(self, **values):
        """Sets sysctls given as net_ipv4_ip_forward=1."""
        for name, value in values.items():
            path = name.replace("__", "/") if "__" in name else name.replace("_", "/", 2)
            self.run("sh", "-c", f"echo {value} > /proc/sys/{path}")

    def mac(self, link="eth0"):
        return self.links()[link]["address"]

    def links(self):
        return {link["ifname"]: link for link in json.loads(self.run("ip", "-j", "-d", "link"))}


def _command_name(pid):
    with open(f"/proc/{pid}/comm", encoding="ascii") as comm:
        return comm.read().strip()


@dataclass
class Plugin:
    """How to start the daemon under test."""

    command: str = ""  # with {state}, {firewall}, {name}; empty: no plugin
    firewall: str = "auto"
    sockets: tuple = ("weft-bridge", "weft-host", "weft-none", "weft-overlay")  # served when it is ready


class DockerHost(Machine):
    """A machine with its own Docker Engine and, if wanted, the plugin."""

    def __init__(self, lab, name, index, iptables="nft", engine_args=(), plugin=Plugin()):
        self.index = index
        self.iptables = iptables
        self.engine_args = tuple(engine_args)
        self.plugin = plugin
        self.engine = self.plugin_process = None
        super().__init__(lab, name)
        self.docker_socket = os.path.join(self.directory, "docker.sock")
        self.start_plugin()
        self.start_engine()
        lab.load_image(self)

    def power_on(self):
        super().power_on()
        self._choose_iptables()
        self.lab.attach(self, "eth0")

    def power_off(self):
        super().power_off()
        self.engine = self.plugin_process = None

    def reboot(self):
        """A power cut and a boot: kernel state and /run are gone, disks are not."""
        self.power_off()
        self.power_on()
        self.start_plugin()
        self.start_engine()

    @property
    def ip(self):
        return self.lab.address(self, 4)

    @property
    def ip6(self):
        return self.lab.address(self, 6)

    def _choose_iptables(self):
        """Points this machine's /etc/alternatives, not the real one, at the wanted flavour."""
        private = os.path.join(self.directory, "alternatives")
        if not os.path.isdir(private):
            shutil.copytree("/etc/alternatives", private, symlinks=True)
            for family, suffix in itertools.product(("iptables", "ip6tables"), ("", "-save", "-restore")):
                link = os.path.join(private, family + suffix)
                if os.path.lexists(link):
                    os.remove(link)
                os.symlink(f"/usr/sbin/{family}-{self.iptables}{suffix}", link)
        self.run("mount", "--bind", private, "/etc/alternatives")

    def log(self, name):
        return os.path.join(self.directory, f"{name}.log")

    def _daemon(self, name, argv):
        with open(self.log(name), "a", encoding="utf-8") as log:
            log.write(f"--- {' '.join(argv)}\n")
            log.flush()
            return self.spawn(*argv, log=log)

    # --- engine ---

    def start_engine(self, *extra):
        """Starts dockerd and waits until it answers."""
        self.engine = self._daemon("dockerd", [
            "env", f"PATH={ENGINE_DIRECTORY}:{os.environ['PATH']}", "dockerd", "--data-root", os.path.join(self.directory, "docker"), "--exec-root", "/run/docker",
            "--pidfile", "/run/docker.pid", "--storage-driver", "overlay2",
            "--cgroup-parent", f"/{self.lab.name}-{self.name}",
            "-H", "unix:///run/docker.sock", "-H", f"unix://{self.docker_socket}", *self.engine_args, *extra])
        self._wait_until_ready(self.engine, self._engine_answers, "dockerd")

    def _wait_until_ready(self, process, condition, name):
        def ready_or_ended():
            return not process.running() or condition()
        wait_for(ready_or_ended, f"{name} of {self.name} is ready", timeout=40)
        if not process.running():
            raise CommandFailed(f"{name} of {self.name} ended: {tail(self.log(name), 15)}")

    def _engine_answers(self):
        connection = http.client.HTTPConnection("docker", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.connect(self.docker_socket)
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200

    def stop_engine(self):
        self.engine.end(signal.SIGTERM, timeout=40)

    def kill_engine(self):
        self.engine.end(signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.docker_socket)

    def docker(self, *args, check=True, timeout=60):
        """Runs the docker client; returns its standard output."""
        done = subprocess.run([DOCKER, "-H", f"unix://{self.docker_socket}", *args], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=timeout)
        if check and done.returncode:
            raise CommandFailed(f"docker {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def inspect(self, kind, name):
        return json.loads(self.docker(kind, "inspect", name))[0]

    # --- plugin ---

    def start_plugin(self):
        """Starts the plugin, if there is one, and waits until its sockets accept."""
        if not self.plugin.command:
            return
        values = {"state": os.path.join(self.directory, "weft"), "firewall": self.plugin.firewall, "name": self.name}
        argv = [word.format(**values) for word in self.plugin.command.split()]
        self.plugin_process = self._daemon("weftd", argv)
        self._wait_until_ready(self.plugin_process, self._plugin_accepts, "weftd")

    def _plugin_accepts(self):
        for name in self.plugin.sockets:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"/proc/{self.pid}/root/run/docker/plugins/{name}.sock")
        return True

    def stop_plugin(self):
        self.plugin_process.end(signal.SIGTERM)

    def kill_plugin(self):
        self.plugin_process.end(signal.SIGKILL)

    def snapshot(self):
        """What of this host a test could leave behind, as a set of lines; see leaks()."""
        return snapshot.take(self)


def tail(path, count):
    """The last lines of a file, or a word that there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as text:
            return "".join(text.readlines()[-count:])
    except FileNotFoundError:
        return "(none)\n"


@dataclass
class Container(Place):
    """A running container; commands enter its namespaces directly, which is ten times faster than docker exec."""

    host: DockerHost
    name: str
    tool = "/bin/weft-echo"
    busybox = "/bin/busybox"
    _state: dict = field(default=None, repr=False)

    def refresh(self):
        """Reads its state anew: after a restart, connect or disconnect."""
        self._state = self.host.inspect("container", self.name)
        return self

    @property
    def state(self):
        return self._state or self.refresh()._state

    def entered(self, argv):
        return self.host.entered(["nsenter", "-t", str(self.state["State"]["Pid"]), "-m", "-u", "-n", "--", *argv])

    def on(self, network):
        """Its settings on a network: IPAddress, GlobalIPv6Address, MacAddress, Gateway, ..."""
        return self.state["NetworkSettings"]["Networks"][network.name]

    @property
    def _only(self):
        networks = list(self.state["NetworkSettings"]["Networks"].values())
        assert len(networks) == 1, f"{self.name} is on several networks"
        return networks[0]

    @property
    def ip(self):
        return self._only["IPAddress"]

    @property
    def ip6(self):
        return self._only["GlobalIPv6Address"]

    def links(self):
        """Its links by name, read by a host's ip command inside its network namespace."""
        text = self.host.run("nsenter", "-t", str(self.state["State"]["Pid"]), "-n", "ip", "-j", "-d", "address")
        return {link["ifname"]: link for link in json.loads(text)}

    def routes(self, family=4):
        text = self.host.run("nsenter", "-t", str(self.state["State"]["Pid"]), "-n", "ip", "-j", f"-{family}", "route")
        return json.loads(text or "[]")

    def log(self):
        return self.host.docker("logs", self.name)


class Lab:
    """A router called `outside` and the hosts attached to it.

    Flat: all hosts are neighbours on the bridge lan0, where outside is .1. Routed: each host has a subnet of its own
    behind outside. Either way hosts have a default route to it, and it has no route to their containers.
    """

    def __init__(self, routed=False, suffix=""):
        self.name = _run_name() + suffix
        self.directory = os.path.join(ROOT, self.name)
        self.routed = routed
        self.hosts = []
        self.tool = os.path.join(self.directory, "weft-echo")
        self._image = os.path.join(self.directory, "image.tar")
        os.makedirs(self.directory)
        _build_tool(self.tool)
        _build_image(self._image, self.tool)
        self.outside = Machine(self, "outside")
        self.outside.run("sh", "-ec", """
            cd /proc/sys/net
            echo 1 > ipv4/ip_forward; echo 1 > ipv6/conf/all/forwarding; echo 0 > ipv4/conf/all/rp_filter
            ip link add lan0 address 02:00:00:00:00:01 type bridge  # else it changes as hosts come and go
            ip link set lan0 up
        """)
        if not routed:
            self._address("lan0", 0)
        self.outside.spawn(self.tool, "serve", *SERVED_PORTS, log=subprocess.DEVNULL)

    def _address(self, link, subnet):
        for address in (f"10.99.{subnet}.1/24", f"fd99:0:0:{subnet}::1/64"):
            self.outside.run("ip", "address", "add", address, "dev", link, *(["nodad"] if ":" in address else []))

    def _numbered(self, index, family, number):
        """The address with this last part in the subnet of the host with this index."""
        subnet = index if self.routed else 0
        text = f"10.99.{subnet}.{number}" if family == 4 else f"fd99:0:0:{subnet:x}::{number:x}"
        return str(ipaddress.ip_address(text))  # as kernels print it

    def address_of(self, index, family):
        """Of the host with this index, which need not be there yet: the first has 1."""
        return self._numbered(index, family, 10 + index)

    def address(self, host, family):
        return self.address_of(host.index, family)

    def router(self, host, family=4):
        """Outside's address as `host` sees it."""
        return self._numbered(host.index, family, 1)

    def attach(self, host, link, mtu=1500):
        """Gives a host a NIC on the LAN. eth0 gets addresses and the default routes, others are left bare."""
        far = f"{host.name}-{link}"
        # Only the network namespace is entered, so that the pid means the same to ip as to us.
        ip = ["nsenter", "-t", str(self.outside.pid), "-n", "ip", "link"]
        near = ["name", link, "mtu", str(mtu), "netns", str(host.pid)]
        # The kernel takes a moment to remove what a host had when its power went.
        wait_for(lambda: far not in self.outside.links(), f"the old {far} is gone", 5)
        subprocess.run([*ip, "add", far, "mtu", str(mtu), "type", "veth", "peer", *near], check=True)
        subprocess.run([*ip, "set", far, "up", *([] if self.routed else ["master", "lan0"])], check=True)
        host.run("ip", "link", "set", link, "up")
        if link != "eth0":
            return
        if self.routed:
            self._address(far, host.index)
        host.run("sh", "-ec", f"""
            ip address add {self.address(host, 4)}/24 dev eth0
            ip -6 address add {self.address(host, 6)}/64 dev eth0 nodad
            ip route add default via {self.router(host)}
            ip -6 route add default via {self.router(host, 6)}
        """)

    def add_host(self, name, **options):
        """Boots a DockerHost; options as in its constructor."""
        host = DockerHost(self, name, len(self.hosts) + 1, **options)
        self.hosts.append(host)
        return host

    def load_image(self, host):
        command = json.dumps(["/bin/weft-echo", "serve", *SERVED_PORTS])
        host.docker("import", "--change", f"CMD {command}", self._image, IMAGE)

    def close(self):
        """Ends every machine and removes what they left on disk."""
        for machine in (*self.hosts, self.outside):
            machine.power_off()
        _remove(self.name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def _build_tool(target):
    source = os.path.join(HERE, "tools", "echo.c")
    subprocess.run(["gcc", "-O1", "-static", "-w", "-o", target, source], check=True, stderr=subprocess.DEVNULL)


def _build_image(target, tool):
    """A root file system of busybox and the echo tool."""
    applets = subprocess.run(["busybox", "--list"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    with tarfile.open(target, "w") as image:
        for source, name in ((os.path.realpath(shutil.which("busybox")), "bin/busybox"), (tool, "bin/weft-echo")):
            image.add(source, name, filter=_executable)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                image.addfile(link)


def _executable(entry):
    entry.mode = 0o755
    return entry


# --- names of runs, and the sweep of dead ones ---

def _start_time(pid):
    """A process's start in clock ticks, which with the pid names one process even after pids wrap. None: it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _run_name():
    return f"{PREFIX}{os.getpid()}-{_start_time(os.getpid())}"


def _remove(run):
    """Removes the directory and the cgroups of one ended run."""
    for top in itertools.chain(*(glob.glob(f"{folder}/{run}*") for folder in CGROUPS)):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    shutil.rmtree(os.path.join(ROOT, run), ignore_errors=True)


def sweep():
    """Removes what runs that were killed left behind; returns their names."""
    dead = set()
    for path in itertools.chain(*(glob.glob(f"{folder}/{PREFIX}*") for folder in (ROOT, *CGROUPS))):
        if match := re.match(rf"({PREFIX}(\d+)-(\d+))", os.path.basename(path)):
            if _start_time(match[2]) != match[3]:
                dead.add(match[1])
    for run in dead:
        for path in glob.glob(f"{ROOT}/{run}*"):
            _remove(os.path.basename(path))
        _remove(run)
    return sorted(dead)


def in_parallel(*jobs):
    """Runs the callables at once and returns their results in order; the first error is raised."""
    results, errors = [None] * len(jobs), []

    def call(index, job):
        try:
            results[index] = job()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=pair) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
