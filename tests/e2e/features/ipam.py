"""Addresses: the plugin's own IPAM driver, and Docker's."""

import ipaddress

from harness import check, equal, feature

OWN = ("--ipam-driver", "weft-bridge")


def subnet_of(net):
    return ipaddress.ip_network(net.inspect()["IPAM"]["Config"][0]["Subnet"])


@feature("Docker's own IPAM chooses a subnet")
def engine_chooses(t):
    net = t.network(subnet=False)
    one, two = t.containers(net, "one", "two")
    check(ipaddress.ip_address(one.ip) in subnet_of(net), f"{one.ip} is not in {subnet_of(net)}")
    t.reaches(one, "tcp", two.ip, 80, server=two)


@feature("an exhausted subnet refuses a container and says so; a freed address is used again")
def exhausted(t):
    net = t.network("--subnet", "10.34.0.0/30", subnet=False)
    one = t.container(net, "one")
    equal(one.ip, "10.34.0.2", "the only address")
    error = t.refused_container(net)
    check("no available" in error, f"not helpful: {error}")
    t.remove(one)
    t.host.docker("rm", "-f", "refused")
    equal(t.container(net, "two").ip, "10.34.0.2", "the freed address")


@feature("weft's IPAM chooses subnets that nothing on the host uses", plugin=True)
def own_chooses(t):
    first, second = t.network(*OWN, subnet=False), t.network(*OWN, subnet=False)
    subnets = [subnet_of(first), subnet_of(second)]
    check(not subnets[0].overlaps(subnets[1]), f"{subnets} overlap")
    check(not any(ipaddress.ip_address(t.host.ip) in subnet for subnet in subnets), f"{subnets} hold the host's address")
    one, two = t.containers(first, "one", "two")
    check(ipaddress.ip_address(one.ip) in subnets[0], f"{one.ip} is not in {subnets[0]}")
    t.reaches(one, "tcp", two.ip, 80, server=two)
    t.reaches(one, "tcp", t.lab.router(t.host), 80, server="outside", client=t.host.ip)


@feature("weft's IPAM gives the asked subnet, gateway, range and addresses, both families", plugin=True)
def own_asked(t):
    net = t.network(*OWN, "--subnet", "10.35.0.0/24", "--gateway", "10.35.0.254", "--ip-range", "10.35.0.128/25",
                    "--ipv6", "--subnet", "fd35::/64", subnet=False)
    web = t.container(net, "web", "--ip", "10.35.0.200", "--ip6", "fd35::200")
    equal((web.ip, web.ip6), ("10.35.0.200", "fd35::200"), "addresses")
    client = t.container(net, "client")
    check(ipaddress.ip_address(client.ip) in ipaddress.ip_network("10.35.0.128/25"), f"{client.ip} is out of range")
    t.reaches(client, "tcp", web.ip6, 80, server=web)
    error = t.refused_container(net, "--ip", "10.35.0.200")
    check("10.35.0.200" in error, f"the error does not name the address: {error}")


@feature("weft's IPAM says which subnet is exhausted and reuses freed addresses", plugin=True)
def own_exhausted(t):
    net = t.network(*OWN, "--subnet", "10.36.0.0/30", subnet=False)
    one = t.container(net, "one")
    error = t.refused_container(net)
    check("10.36.0.0/30" in error, f"the error does not name the subnet: {error}")
    t.remove(one)
    t.host.docker("rm", "-f", "refused")
    equal(t.container(net, "two").ip, "10.36.0.2", "the freed address")


@feature("weft's IPAM refuses overlapping subnets", plugin=True)
def own_overlap(t):
    t.network(*OWN, "--subnet", "10.37.0.0/16", subnet=False)
    error = t.refused_network(*OWN, "--subnet", "10.37.5.0/24")
    check("10.37.0.0/16" in error or "overlap" in error.lower(), f"not helpful: {error}")


@feature("weft's IPAM remembers what it gave over a restart", plugin=True, own_host=True)
def own_restart(t):
    net = t.network(*OWN, "--subnet", "10.38.0.0/29", subnet=False)
    one = t.container(net, "one")
    t.host.kill_plugin()
    t.host.start_plugin()
    two = t.container(net, "two")
    check(one.ip != two.ip, f"{one.ip} was given twice")
    t.reaches(two, "tcp", one.ip, 80, server=one)
