"""Network and endpoint options, and refusals that say why."""

import json

from harness import check, equal, feature

BRIDGE_NAME = "com.docker.network.bridge.name"
MTU = "com.docker.network.driver.mtu"
ROUTED = "com.docker.network.bridge.gateway_mode_ipv4"


@feature("--gateway, --ip-range and --aux-address")
def ranges(t):
    net = t.network("--subnet", "10.31.0.0/24", "--gateway", "10.31.0.254", "--ip-range", "10.31.0.64/30",
                    "--aux-address", "printer=10.31.0.65", subnet=False)
    containers = t.containers(net, "one", "two")
    check({c.ip for c in containers} <= {"10.31.0.64", "10.31.0.66", "10.31.0.67"}, f"addresses {[c.ip for c in containers]}")
    for container in containers:
        equal([r["gateway"] for r in container.routes() if r["dst"] == "default"], ["10.31.0.254"], "default route")
        t.reaches(container, "tcp", t.lab.router(t.host), 80, server="outside")


@feature("--ip, --ip6 and --mac-address")
def addresses(t):
    net = t.network(v6=True)
    web = t.container(net, "web", "--ip", net.address(77), "--ip6", net.address6(0x77), "--mac-address", "02:00:00:00:77:01")
    link = web.links()["eth0"]
    equal(link["address"], "02:00:00:00:77:01", "MAC")
    equal({a["local"] for a in link["addr_info"] if a["scope"] == "global"}, {net.address(77), net.address6(0x77)}, "addresses")
    equal(web.on(net)["MacAddress"], "02:00:00:00:77:01", "MAC in inspect")
    t.reaches(t.container(net, "client"), "tcp", net.address6(0x77), 80, server=web)


@feature("inspect shows the MAC address that the container's link has")
def mac_shown(t):
    pair = t.shared()
    equal(pair.alpha.on(pair.network)["MacAddress"], pair.alpha.links()["eth0"]["address"], "MAC")


@feature("bridge.name is the name of the bridge")
def bridge_name(t):
    net = t.network(options={BRIDGE_NAME: "br-mine"})
    equal(t.host.links()["br-mine"]["linkinfo"]["info_kind"], "bridge", "kind of br-mine")
    one, two = t.containers(net, "one", "two")
    t.reaches(one, "tcp", two.ip, 80, server=two)
    t.remove(one, two)
    t.remove_network(net)
    check("br-mine" not in t.host.links(), "the bridge outlived its network")


@feature("a bridge name that another network or link has is refused", differs="it shares a bridge between networks")
def bridge_name_conflict(t):
    t.network(options={BRIDGE_NAME: "br-mine"})
    error = t.refused_network("--subnet", "10.32.0.0/24", options={BRIDGE_NAME: "br-mine"})
    check("br-mine" in error, f"the error does not name the bridge: {error}")
    t.host.run("ip", "link", "add", "veth-theirs", "type", "veth", "peer", "name", "veth-other")
    t.defer(lambda: t.host.run("ip", "link", "del", "veth-theirs"))
    error = t.refused_network("--subnet", "10.32.0.0/24", options={BRIDGE_NAME: "veth-theirs"})
    check("veth-theirs" in error, f"the error does not name the link: {error}")
    check("veth-theirs" in t.host.links(), "the link was taken away")


@feature("a bridge that the user made is used by its name, and stays")
def bridge_adopted(t):
    t.host.run("ip", "link", "add", "br-theirs", "type", "bridge")
    t.defer(lambda: t.host.run("ip", "link", "del", "br-theirs"))
    net = t.network(options={BRIDGE_NAME: "br-theirs"})
    one, two = t.containers(net, "one", "two")
    t.reaches(one, "tcp", two.ip, 80, server=two)
    t.remove(one, two)
    t.remove_network(net)
    check("br-theirs" in t.host.links(), "the user's bridge was taken away")


@feature("an unknown or malformed option is refused with the list of known ones", differs="it ignores unknown options")
def bad_options(t):
    error = t.refused_network("--subnet", "10.32.0.0/24", options={"com.docker.network.bridge.nmae": "br-x"})
    check("nmae" in error and BRIDGE_NAME in error, f"not helpful: {error}")
    icc = "com.docker.network.bridge.enable_icc"
    for key, value in ((MTU, "many"), (MTU, "-1"), (icc, "perhaps"), (BRIDGE_NAME, "x" * 16)):
        error = t.refused_network("--subnet", "10.32.0.0/24", options={key: value})
        check(value in error and key in error, f"not helpful: {error}")


@feature("a subnet that another network has is refused")
def duplicate_subnet(t):
    net = t.network()
    for subnet in (net.subnet, net.subnet.replace("0/24", "128/25")):
        error = t.refused_network("--subnet", subnet)
        check("overlap" in error.lower() or subnet in error, f"not helpful: {error}")


@feature("a subnet that the host has a route into is refused", differs="it checks only subnets it chose itself")
def host_route(t):
    t.host.run("ip", "route", "add", "10.33.0.0/16", "via", t.lab.router(t.host))
    t.defer(lambda: t.host.run("ip", "route", "del", "10.33.0.0/16"))
    for subnet in ("10.33.7.0/24", "10.99.0.0/24", "10.99.0.128/25"):
        error = t.refused_network("--subnet", subnet)
        check(subnet.rpartition(".")[0] in error or "overlap" in error.lower(), f"not helpful: {error}")


@feature("the MTU follows the default route's link", differs="its default is 1500", own_host=True)
def default_mtu(t):
    t.host.run("ip", "link", "set", "eth0", "mtu", "1400")
    t.accept_changes()
    net = t.network()
    web = t.container(net, "web")
    equal(web.links()["eth0"]["mtu"], 1400, "MTU of the container's link")
    t.pings(web, t.lab.router(t.host), size=1372)


@feature("driver.mtu is the MTU of bridge and containers")
def driver_mtu(t):
    net = t.network(options={MTU: "1300", BRIDGE_NAME: "br-mine"})
    one, two = t.containers(net, "one", "two")
    equal(one.links()["eth0"]["mtu"], 1300, "MTU of the container's link")
    equal(t.host.links()["br-mine"]["mtu"], 1300, "MTU of the bridge")
    t.pings(one, two.ip, size=1272)
    t.pings(one, t.lab.router(t.host), size=1272)


@feature("container_iface_prefix names the container's link")
def iface_prefix(t):
    net = t.network(options={"com.docker.network.container_iface_prefix": "wan"})
    web = t.container(net, "web")
    equal(sorted(web.links()), ["lo", "wan0"], "links")
    t.reaches(web, "tcp", t.lab.router(t.host), 80, server="outside")


@feature("host_ipv4 is the address that egress shows")
def host_ipv4(t):
    t.host_address("10.99.0.211/24")
    net = t.network(options={"com.docker.network.host_ipv4": "10.99.0.211"})
    web = t.container(net, "web")
    t.reaches(web, "tcp", t.lab.router(t.host), 80, server="outside", client="10.99.0.211")
    t.reaches(web, "udp", t.lab.router(t.host), 80, server="outside", client="10.99.0.211")


@feature("gateway_mode routed: real addresses, only published ports", differs="came after release 20.10")
def routed(t):
    net = t.network(options={ROUTED: "routed"})
    web = t.container(net, "web", "-p", "8080:80")
    t.outside_route(net)
    t.reaches(t.outside, "tcp", web.ip, 80, server=web, client=t.lab.router(t.host))
    t.pings(t.outside, web.ip)
    t.closed(t.outside, "tcp", web.ip, 81)
    t.closed(t.outside, "tcp", t.host.ip, 8080)
    t.reaches(web, "tcp", t.lab.router(t.host), 80, server="outside", client=web.ip)


@feature("gateway_mode routed over IPv6 beside NAT over IPv4", differs="came after release 20.10")
def routed6(t):
    net = t.network(v6=True, options={"com.docker.network.bridge.gateway_mode_ipv6": "routed"})
    web = t.container(net, "web", "-p", "8080:80")
    t.outside_route(net)
    t.reaches(t.outside, "tcp", web.ip6, 80, server=web, client=t.lab.router(t.host, 6))
    t.closed(t.outside, "tcp", web.ip6, 81)
    t.closed(t.outside, "tcp", web.ip, 80)
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)
    t.reaches(web, "tcp", t.lab.router(t.host, 6), 80, server="outside", client=web.ip6)
    t.reaches(web, "tcp", t.lab.router(t.host), 80, server="outside", client=t.host.ip)


@feature("inhibit_ipv4 leaves the bridge without an IPv4 address", differs="came after release 20.10")
def inhibit_ipv4(t):
    t.network(options={"com.docker.network.bridge.inhibit_ipv4": "true", BRIDGE_NAME: "br-mine"})
    (bridge,) = json.loads(t.host.run("ip", "-j", "-4", "address", "show", "dev", "br-mine")) or [{}]
    equal(bridge.get("addr_info", []), [], "IPv4 addresses")
