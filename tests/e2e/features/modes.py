"""The other modes: weft-host and weft-none."""

from harness import check, equal, feature
from lab import wait_for


def lan_network(t, *options):
    """A weft-host network on a second NIC of the host, on the LAN's own subnet, clear of the hosts' addresses."""
    t.lab.attach(t.host, "eth1")
    t.accept_changes()
    return t.network("--subnet", "10.99.0.0/24", "--gateway", "10.99.0.1", "--ip-range", "10.99.0.128/26", "-o", "parent=eth1",
                     *options, subnet=False, driver="weft-host")


@feature("weft-host: containers are neighbours on the LAN of the parent NIC", plugin=True, own_host=True)
def host_macvlan(t):
    net = lan_network(t)
    one, two = t.containers(net, "one", "two")
    t.reaches(one, "tcp", t.lab.router(t.host), 80, server="outside", client=one.ip)
    t.reaches(t.outside, "tcp", one.ip, 80, server=one, client=t.lab.router(t.host))
    t.reaches(one, "tcp", two.ip, 80, server=two, client=one.ip)
    t.reaches(one, "tcp", "two", 80, server=two)
    check("eth1" in t.host.links(), "the parent left the host")


@feature("weft-host: exclusive=true moves the NIC into the container and back", plugin=True, own_host=True)
def host_exclusive(t):
    net = lan_network(t, "-o", "exclusive=true")
    mac = t.host.mac("eth1")
    # The LAN knows the address at the MAC of who had it before.
    t.outside.run("ip", "neigh", "replace", "10.99.0.128", "lladdr", "02:00:00:00:00:99", "dev", "lan0", "nud", "reachable")
    web = t.container(net, "web")
    equal(web.ip, "10.99.0.128", "address")
    check("eth1" not in t.host.links(), "the NIC is still in the host")
    equal(web.links()["eth0"]["address"], mac, "MAC of the container's link")
    # The LAN sees a link that went down and up again: the first packets may be lost.
    wait_for(lambda: t.outside.ask("tcp", web.ip, 80), "the LAN reaches the container", timeout=15)
    t.refused_container(net)
    t.host.docker("rm", "-f", "refused")
    t.remove(web)
    equal(t.host.mac("eth1"), mac, "MAC of the NIC that came back")
    again = t.container(net, "again")
    wait_for(lambda: t.outside.ask("tcp", again.ip, 80), "the LAN reaches the next container", timeout=15)


@feature("weft-host: the NIC comes back when its container is killed", plugin=True, own_host=True)
def host_exclusive_kill(t):
    net = lan_network(t, "-o", "exclusive=true")
    t.container(net, "web")
    t.host.docker("kill", "web")
    check("eth1" in t.host.links(), "the NIC did not come back")


@feature("weft-none: loopback only", plugin=True)
def none(t):
    net = t.network(driver="weft-none")
    one, two = t.containers(net, "one", "two")
    equal(sorted(one.links()), ["lo"], "links")
    equal(one.routes(), [], "routes")
    t.reaches(one, "tcp", "127.0.0.1", 80, server=one)
    t.closed(one, "tcp", t.host.ip, 80)


@feature("weft-none: publishing is refused", plugin=True)
def none_publish(t):
    net = t.network(driver="weft-none")
    error = t.refused_container(net, "-p", "8080:80")
    check("publish" in error.lower() or "port" in error.lower(), f"not helpful: {error}")
