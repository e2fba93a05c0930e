#!/usr/bin/env python3
"""The managed plugin in a swarm of two real Docker Engines: one line a step. Each step builds on those before it.

    tests/e2e/swarm.py
    tests/e2e/swarm.py --iptables legacy
"""

import argparse
import json
import re
import signal
import sys
import time
import traceback

from asking import pairs, ping, reaches, refused, resolve
from harness import check, equal
from lab import IMAGE, REPOSITORY, Container, Lab, Plugin, in_parallel, keepalive_report, leaks, sweep, \
    tail, wait_for

STEP_LIMIT_SECONDS = 240
CTL = f"{REPOSITORY}/build/bin/weftctl"
DRIVER = "weft:latest"
STEPS = []


def step(name):
    def register(function):
        STEPS.append((name, function))
        return function

    return register


class Task(Container):
    """A task's container, named by its hostname: SERVICE-SLOT."""

    def __init__(self, host, container):
        service, slot, _ = container.split(".")
        super().__init__(host, f"{service}-{slot}")
        self.container = container

    def refresh(self):
        self._state = self.host.inspect("container", self.container)
        return self


class Swarm:
    def __init__(self, lab, iptables):
        self.lab = lab
        self.key = lab.outside.run(CTL, "key", "generate")
        self.nodes = [lab.add_host(f"node{number}", iptables=iptables, plugin=Plugin()) for number in (1, 2)]
        self.manager, self.worker = self.nodes  # who is what changes

    def ctl(self, node, *words):
        return json.loads(node.run(CTL, "--json", *words))

    def install(self, node):
        node.docker("plugin", "create", DRIVER, f"{REPOSITORY}/build/plugin")
        # auto would choose anew after a boot, when the engine has no rules yet that it could go by.
        firewall = "iptc" if node.iptables == "legacy" else "nft"
        node.docker("plugin", "set", DRIVER, f"WEFT_KEY={self.key}", "WEFT_LOG_LEVEL=debug", f"WEFT_FIREWALL={firewall}")
        node.docker("plugin", "enable", DRIVER)

    def members(self, node):
        return {member["name"]: member["state"] for member in self.ctl(node, "members")}

    def all_alive(self):
        return all(self.members(node) == {"node1": "alive", "node2": "alive"} for node in self.nodes)

    def status_of(self, node):
        """Of a node, by a manager: Leader, Reachable, Unreachable or nothing."""
        lines = self.manager.docker("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").splitlines()
        return dict((line + " ").split(" ", 1) for line in lines)[node.name].strip()

    def ready(self, node):
        return self.manager.docker("node", "inspect", node.name, "--format", "{{.Status.State}}") == "ready"

    def tasks(self, service):
        """Those that run and shall."""
        listed = self.manager.docker("service", "ps", service, "--no-trunc", "--filter", "desired-state=running",
                                     "--format", "{{.Name}}.{{.ID}} {{.Node}} {{.CurrentState}}")
        by_name = {node.name: node for node in self.nodes}
        return [Task(by_name[node], name) for name, node, state, *_ in map(str.split, listed.splitlines())
                if state == "Running"]

    def settled(self, service, count, nodes=None, within=90):
        """The tasks, once there are so many, on just these nodes, and all are heard of by name."""
        def complete():
            tasks = self.tasks(service)
            where = {task.host.name for task in tasks}
            wanted = {node.name for node in nodes or self.nodes}
            return len(tasks) == count and where == wanted and tasks
        tasks = wait_for(complete, f"{count} tasks of {service} run", within, 0.3)
        for task in tasks:
            wait_for(lambda task=task: task.ask("tcp", "127.0.0.1", 80, timeout=1), f"{task.name} serves", 20)
        return tasks

    def serve(self, service, replicas, *options):
        self.manager.docker("service", "create", "-d", "--name", service, "--network", "back", "--endpoint-mode", "dnsrr",
                            "--no-resolve-image", "--replicas", str(replicas), "--hostname",
                            "{{.Service.Name}}-{{.Task.Slot}}",
                            *options, IMAGE)

    def renew(self, service):
        """Has every task of a service replaced, and waits until that is done."""
        self.manager.docker("service", "update", "--quiet", "--no-resolve-image", "--force", service, timeout=120)

    def vni(self, node, network="back"):
        return node.inspect("network", network)["Options"]["weft.vni"]


def all_reach_all(tasks):
    for a, b in pairs(tasks):
        for protocol in ("tcp", "udp"):
            wait_for(lambda a=a, b=b, protocol=protocol: reaches(a, protocol, b.ip, 80, b, client=a.ip) or True,
                     f"{a.name} reaches {b.name}", 10, 0.1)


def all_find_all(name, tasks):
    wanted = sorted(task.ip for task in tasks)
    for task in tasks:
        wait_for(lambda task=task: equal(resolve(task, name), wanted, "found") or True, f"{task.name} finds {name}", 60, 0.3)


@step("the plugin is installed from local files; without a swarm it says what to do")
def install(s):
    in_parallel(*(lambda node=node: s.install(node) for node in s.nodes))
    why = refused(s.manager.docker, "network", "create", "-d", DRIVER, "--subnet", "10.60.0.0/24", "alone")
    check("docker swarm init" in why, f"the refusal does not say what to do: {why}")
    text = s.manager.run(CTL, "status")
    check("managed by the engine" in text, f"status: {text}")
    why = refused(s.manager.run, CTL, "network", "create", "wrong", "--subnet", "10.61.0.0/24")
    check("docker network create" in why, f"the refusal does not say what to do: {why}")


@step("the nodes' daemons find each other by the engine's discovery, without a seed")
def discovery(s):
    s.manager.docker("swarm", "init", "--advertise-addr", s.manager.ip)
    token = s.manager.docker("swarm", "join-token", "-q", "worker")
    s.worker.docker("swarm", "join", "--token", token, "--advertise-addr", s.worker.ip, f"{s.manager.ip}:2377")
    wait_for(s.all_alive, "both are members", 20)
    # What comes with the first networks and stays: docker_gwbridge, base chains, sysctls.
    s.manager.docker("network", "create", "-d", DRIVER, "--attachable", "--subnet", "10.62.0.0/24", "first")
    for node in s.nodes:
        node.docker("run", "--rm", "--network", "first", IMAGE, "/bin/busybox", "true")
    s.manager.docker("network", "rm", "first")
    time.sleep(2)
    s.before = {node.name: node.snapshot() for node in s.nodes}


@step("an unknown option is refused by the manager, with the nearest name in the engine's log")
def unknown_option(s):
    s.manager.docker("network", "create", "-d", DRIVER, "-o", "weft.vnj=5", "--subnet", "10.63.0.0/24", "wrong")
    wait_for(lambda: 'did you mean \\"weft.vni' in tail(s.manager.log("dockerd"), 200), "the engine's log says so")
    s.manager.docker("network", "rm", "wrong")


@step("four tasks on both nodes reach each other by address, and find each other by tasks.NAME and NAME")
def service(s):
    s.manager.docker("network", "create", "-d", DRIVER, "--attachable", "--subnet", "10.60.0.0/16", "-o",
                     "weft.broadcast=false", "back")
    s.serve("web", 4)
    tasks = s.settled("web", 4)
    all_reach_all(tasks)
    all_find_all("tasks.web", tasks)
    all_find_all("web", tasks)
    for node in s.nodes:
        options = node.inspect("network", "back")["Options"]
        equal(options["weft.broadcast"], "false", "the user's option")
        equal(s.vni(node), s.vni(s.manager), f"the VNI on {node.name}")
        equal([overlay["fastPath"] for overlay in s.ctl(node, "overlay")], [True], f"the fast path on {node.name}")


@step("large packets pass; a port published on the node is reached from outside, and tasks reach the outside")
def ways_out(s):
    a, b = next((a, b) for a, b in pairs(s.settled("web", 4)) if a.host != b.host)
    ping(a, b.ip, 1450 - 28)
    reaches(a, "tcp", s.lab.router(a.host), 80, s.lab.outside, client=a.host.ip)
    s.serve("door", 2, "--publish", "mode=host,published=8088,target=80", "--mode", "replicated")
    for door in s.settled("door", 2):
        reaches(s.lab.outside, "tcp", door.host.ip, 8088, door, client=s.lab.router(door.host))
    s.manager.docker("service", "rm", "door")


@step("scaled to eight and down to six")
def scale(s):
    for count in (8, 6):
        s.manager.docker("service", "scale", "-d", f"web={count}")
        tasks = s.settled("web", count)
        all_reach_all(tasks)
        all_find_all("tasks.web", tasks)
    s.manager.docker("service", "scale", "-d", "web=4")
    s.settled("web", 4)


@step("a rolling update replaces every task")
def update(s):
    old = {task.container for task in s.settled("web", 4)}
    s.manager.docker("service", "update", "-d", "--no-resolve-image", "--update-parallelism", "2", "--env-add", "ROUND=2",
                     "web")
    wait_for(lambda: s.manager.inspect("service", "web").get("UpdateStatus", {}).get("State") == "completed",
             "the update is completed", 120, 0.5)
    tasks = s.settled("web", 4)
    check(not old & {task.container for task in tasks}, "a task is still the old one")
    all_reach_all(tasks)
    all_find_all("tasks.web", tasks)


@step("docker run on both nodes, with an address of the manager's or one's own, reaches the tasks")
def attached(s):
    tasks = s.settled("web", 4)
    for node, more in zip(s.nodes, ((), ("--ip", "10.60.9.9"))):
        node.docker("run", "-d", "--network", "back", "--name", f"own-{node.name}", "--hostname", f"own-{node.name}", *more,
                    IMAGE)
    own = [Container(node, f"own-{node.name}") for node in s.nodes]
    equal(own[1].ip, "10.60.9.9", "the address asked for")
    for container in own:
        for task in tasks:
            reaches(container, "tcp", task.ip, 80, task, client=container.ip)
            reaches(task, "tcp", container.ip, 80, container, client=task.ip)
    wait_for(lambda: resolve(own[0], own[1].name) == [own[1].ip], "one finds the other by name", 20, 0.3)
    for container in own:
        container.host.docker("rm", "-f", container.name)


@step("a drained node loses its tasks and its network; back, it takes part again")
def drain(s):
    s.manager.docker("node", "update", "--availability", "drain", s.worker.name)
    tasks = s.settled("web", 4, [s.manager])
    all_reach_all(tasks)
    wait_for(lambda: not s.ctl(s.worker, "networks") and s.ctl(s.manager, "overlay")[0]["hosts"] == [],
             "the network is gone from the drained node", 30, 0.3)
    s.manager.docker("node", "update", "--availability", "active", s.worker.name)
    s.renew("web")
    tasks = s.settled("web", 4)
    all_reach_all(tasks)


@step("the plugin is disabled and enabled: containers talk on meanwhile, and new tasks come after")
def disable(s):
    a, b = next((a, b) for a, b in pairs(s.settled("web", 4)) if a.host != b.host)
    stream = a.keepalive("tcp", b.ip, 80)
    vni = s.vni(s.manager)
    for node in s.nodes:
        node.docker("plugin", "disable", "-f", DRIVER)
    time.sleep(1)
    reaches(a, "udp", b.ip, 80, b, client=a.ip)
    for node in s.nodes:
        node.docker("plugin", "enable", DRIVER)
    wait_for(s.all_alive, "both are members again", 20)
    report = keepalive_report(stream)
    check(report["longest_gap_ms"] < 1000 and not report.get("error"), f"a connection stood still: {report}")
    s.manager.docker("service", "scale", "-d", "web=6")
    tasks = s.settled("web", 6)
    all_reach_all(tasks)
    equal(s.vni(s.manager), vni, "the VNI")
    s.manager.docker("service", "scale", "-d", "web=4")
    s.settled("web", 4)


@step("the leader's engine is stopped, killed and started: the service is there again, with the same VNI")
def leader_restart(s):
    vni = s.vni(s.worker)
    for end in (s.manager.stop_engine, s.manager.kill_engine):
        end()
        s.manager.start_engine()
        wait_for(lambda: s.status_of(s.manager) == "Leader" and s.ready(s.worker), "the leader leads", 90, 0.5)
        wait_for(s.all_alive, "both are members again", 30)
        s.renew("web")
        tasks = s.settled("web", 4)
        all_reach_all(tasks)
        all_find_all("tasks.web", tasks)
        equal([s.vni(node) for node in s.nodes], [vni, vni], "the VNI")


@step("a node is lost: its tasks are made anew on the other; back, it takes part again")
def node_loss(s):
    s.worker.power_off()
    tasks = s.settled("web", 4, [s.manager], within=120)
    all_reach_all(tasks)
    all_find_all("tasks.web", tasks)
    s.worker.power_on()
    s.worker.start_engine()
    wait_for(lambda: s.ready(s.worker) and s.all_alive(), "the node is back", 90, 0.5)
    s.renew("web")
    tasks = s.settled("web", 4, within=120)
    all_reach_all(tasks)
    all_find_all("tasks.web", tasks)


# After the loss: for a while one that was demoted still counts for the majority.
@step("another node leads: the network keeps its VNI, tasks and new networks are made by the new leader")
def leader_moves(s):
    vni = s.vni(s.manager)
    s.manager.docker("node", "promote", s.worker.name)
    wait_for(lambda: s.status_of(s.worker) == "Reachable", "the second manager is reachable", 60, 0.5)
    time.sleep(3)  # a demotion that leaves a majority that has not caught up ends the swarm
    s.manager.docker("node", "demote", s.manager.name)
    s.manager, s.worker = s.worker, s.manager
    wait_for(lambda: s.status_of(s.manager) == "Leader" and s.status_of(s.worker) == "" and s.ready(s.worker),
             "the other node leads alone", 90, 0.5)
    s.manager.docker("service", "scale", "-d", "web=6")
    tasks = s.settled("web", 6)
    all_reach_all(tasks)
    all_find_all("tasks.web", tasks)
    equal([s.vni(node) for node in s.nodes], [vni, vni], "the VNI")
    s.manager.docker("network", "create", "-d", DRIVER, "--attachable", "--subnet", "10.64.0.0/24", "later")
    wait_for(lambda: s.vni(s.manager, "later") not in (None, vni), "the new network has a VNI of its own", 20)
    s.manager.docker("network", "rm", "later")


@step("service and network are removed, and nothing is left")
def removed(s):
    s.manager.docker("service", "rm", "web")
    wait_for(lambda: not any(node.docker("ps", "-q") for node in s.nodes), "no task is left", 60, 0.5)
    wait_for(lambda: "back" not in s.manager.docker("network", "rm", "back", check=False)
             and "back" not in s.manager.docker("network", "ls", "--format", "{{.Name}}").split() or None,
             "the network is gone", 60, 0.5)
    for node in s.nodes:
        for what in ("networks", "endpoints"):
            wait_for(lambda node=node, what=what: s.ctl(node, what) == [], f"{what} of {node.name} are gone", 20, 0.3)
        equal(s.ctl(node, "overlay"), [], f"overlays of {node.name}")
        for kind in ("net", "ep"):
            wait_for(lambda node=node, kind=kind: s.ctl(node, "kv", "get", f"overlay/{kind}/") == [],
                     "no row of the network is left", 20, 0.3)
        # A node that was booted anew has no ingress yet, and the other's stays.
        foreign = re.compile(r"ingress|docker_gwbridge|gwbridge|veth|DOCKER|socket|172\.1[89]")
        wait_for(lambda node=node: equal([line for line in leaks(s.before[node.name], node.snapshot())
                                          if not foreign.search(line)], [], "what is left") or True,
                 f"nothing is left on {node.name}", 20, 0.5)


def run(options):
    """Whether all steps passed, and how many did."""
    passed = 0
    with Lab() as lab:
        swarm = Swarm(lab, options.iptables)
        for name, function in STEPS:
            begin = time.monotonic()
            signal.alarm(STEP_LIMIT_SECONDS)
            try:
                function(swarm)
            except Exception as problem:
                signal.alarm(0)
                print(f"FAIL swarm {time.monotonic() - begin:6.1f} s  {name}")
                print("".join(traceback.format_exception(problem)[-3:]))
                for node in swarm.nodes:
                    print(f"--- {node.name}\n{tail(node.log('dockerd'), 40)}")
                print(swarm.manager.docker("service", "ps", "web", "--no-trunc", check=False), flush=True)
                return False, passed
            finally:
                signal.alarm(0)
            passed += 1
            print(f"PASS swarm {time.monotonic() - begin:6.1f} s  {name}", flush=True)
    return True, passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iptables", default="nft")
    parser.add_argument("--retries", type=int, default=0, help="how often the whole is tried again after a failure")
    options = parser.parse_args()
    sweep()

    def give_up(*_):
        raise TimeoutError("the step took too long")

    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for attempt in range(options.retries + 1):
        good, passed = run(options)
        if good:
            break
        if attempt < options.retries:
            print("again from the start", flush=True)
    print(f"{passed} passed, {0 if good else 1} failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
