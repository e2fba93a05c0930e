"""What must not get through."""

from harness import check, equal, feature
from lab import wait_for

MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"


@feature("two networks do not reach each other's containers, over IPv4 and IPv6")
def networks(t):
    first, second = t.network(v6=True), t.network(v6=True)
    one, two = t.container(first, "one", "-p", "8080:80"), t.container(second, "two")
    t.closed(two, "tcp udp sctp", one.ip, 80)
    t.closed(two, "tcp udp sctp", one.ip6, 80)
    t.closed(one, "tcp", two.ip6, 80)
    t.does_not_ping(two, one.ip)
    for container in (one, two):
        t.reaches(container, "tcp", t.lab.router(t.host), 80, server="outside")


@feature("unpublished ports are closed to an outside that routes to the subnet")
def unpublished(t):
    net = t.network(v6=True)
    web = t.container(net, "web", "-p", "8080:80")
    t.outside_route(net)
    for address in (web.ip, web.ip6):
        t.closed(t.outside, "tcp udp sctp", address, 81)
        t.does_not_ping(t.outside, address)
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)


@feature("a published port is closed to direct access at the container's own address",
         differs="release 20.10 has no guard against direct access")
def direct_access(t):
    net = t.network(v6=True)
    web = t.container(net, "web", "-p", "8080:80")
    t.outside_route(net)
    t.closed(t.outside, "tcp", web.ip, 80)
    t.closed(t.outside, "tcp", web.ip6, 80)
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)


@feature("enable_icc=false: neighbours see only each other's published ports")
def icc(t):
    net = t.network(v6=True, options={"com.docker.network.bridge.enable_icc": "false"})
    one, two = t.container(net, "one", "-p", "8080:80"), t.container(net, "two")
    for place, other in ((one, two), (two, one)):
        t.closed(place, "tcp", other.ip, 81)
        t.closed(place, "udp", other.ip6, 81)
        t.does_not_ping(place, other.ip)
        t.reaches(place, "tcp", t.lab.router(t.host), 80, server="outside")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=one)
    t.reaches(two, "tcp", t.host.ip, 8080, server=one)


@feature("an internal network reaches itself and nothing else")
def internal(t):
    net, other = t.network("--internal"), t.network()
    one, two = t.containers(net, "one", "two")
    stranger = t.container(other, "stranger")
    t.reaches(one, "tcp", two.ip, 80, server=two, client=one.ip)
    t.reaches(one, "udp", "two", 80, server=two)
    if t.with_plugin:  # Docker's own gives a default route that leads nowhere
        equal([route for route in one.routes() if route["dst"] == "default"], [], "default routes")
    t.outside_route(net)
    t.closed(t.outside, "tcp", one.ip, 80)
    t.closed(stranger, "tcp", one.ip, 80)
    for address in (t.lab.router(t.host), t.host.ip):
        t.closed(one, "tcp", address, 80)
    # A container that makes itself a default route still gets no further.
    t.host.run("nsenter", "-t", str(one.state["State"]["Pid"]), "-n", "ip", "route", "replace", "default", "via", net.gateway)
    t.closed(one, "tcp", t.lab.router(t.host), 80)


@feature("an internal network reaches itself over IPv6 and nothing else", differs="it drops neighbour discovery there")
def internal6(t):
    net = t.network("--internal", v6=True)
    one, two = t.containers(net, "one", "two")
    t.reaches(one, "tcp", two.ip6, 80, server=two, client=one.ip6)
    t.outside_route(net)
    t.closed(t.outside, "tcp", one.ip6, 80)
    t.closed(one, "tcp", t.lab.router(t.host, 6), 80)


@feature("an internal network publishes nothing")
def internal_publish(t):
    net = t.network("--internal")
    t.container(net, "web", "-p", "8080:80")
    t.closed(t.outside, "tcp", t.host.ip, 8080)


@feature("a rule in DOCKER-USER applies to the network's traffic")
def docker_user(t):
    net = t.network()
    web, free = t.container(net, "web", "-p", "8080:80"), t.container(net, "free", "-p", "8081:80")
    rule = ["DOCKER-USER", "-s", web.ip, "-j", "DROP"]
    t.host.run("iptables", "-I", *rule)
    t.defer(lambda: t.host.run("iptables", "-D", *rule))
    t.closed(web, "tcp", t.lab.router(t.host), 80)
    t.closed(t.outside, "tcp", t.host.ip, 8080)
    t.reaches(free, "tcp", t.lab.router(t.host), 80, server="outside")
    t.reaches(t.outside, "tcp", t.host.ip, 8081, server=free)


@feature("Docker's own bridge networks work beside it and stay apart, both ways")
def beside_docker(t):
    ours, dockers = t.network(), t.network(driver="bridge")
    one, two = t.container(ours, "one", "-p", "8080:80"), t.container(dockers, "two", "-p", "8081:80")
    plain = t.container("bridge", "plain", "-p", "8082:80")
    # 80 is published: engines before 28 open that at the container's own address to everybody.
    for container in (two, plain):
        for port in (80, 81):
            t.closed(one, "tcp", container.ip, port)
            t.closed(container, "tcp", one.ip, port)
    for container, port in ((one, 8080), (two, 8081), (plain, 8082)):
        t.reaches(t.outside, "tcp", t.host.ip, port, server=container, client=t.lab.router(t.host))
        t.reaches(container, "tcp", t.lab.router(t.host), 80, server="outside", client=t.host.ip)
    t.reaches(two, "tcp", t.host.ip, 8080, server=one)
    t.reaches(one, "tcp", t.host.ip, 8081, server=two)


@feature("a container cannot be reached with a forged source of its own subnet")
def forged_source(t):
    net = t.network()
    web = t.container(net, "web", "-p", "8080:80/udp")
    forge = (t.outside.tool, "forge", "lan0", t.host.mac())
    t.outside.run(*forge, "10.99.0.1", t.host.ip, "8080", "honest")
    t.outside.run(*forge, net.address(99), web.ip, "81", "forged")
    t.outside.run(*forge, net.gateway, web.ip, "81", "forged")
    check("honest" in web.log(), "the datagram that should arrive did not")
    check("forged" not in web.log(), "a forged datagram reached the container")


@feature("a container sends as itself; with weft.spoof=allow as others too", plugin=True)
def spoof(t):
    net = t.network(options={"weft.spoof": "deny"})
    victim, thief = t.containers(net, "victim", "thief")
    router = t.container(f"name={net.name},driver-opt=weft.spoof=allow", "router")
    forge = (thief.tool, "forge", "eth0", victim.on(net)["MacAddress"])
    thief.run(*forge, router.ip, victim.ip, "81", "forged")
    thief.run(*forge, thief.ip, victim.ip, "81", "honest")
    wait_for(lambda: "honest" in victim.log(), "the honest datagram")
    check("forged" not in victim.log(), "a forged datagram reached the container")

    # As VRRP does: an address that comes and goes.
    for container, last, works in ((thief, 201, False), (router, 202, True)):
        address = net.address(last)
        container.run(container.busybox, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        (t.pings if works else t.does_not_ping)(victim, address)
    check("must be allow or deny" in t.refused_network(options={"weft.spoof": "yes"}), "refusal")


@feature("enable_ip_masquerade=false shows the container's own address")
def no_masquerade(t):
    net = t.network(options={MASQUERADE: "false"})
    web = t.container(net, "web")
    t.closed(web, "tcp", t.lab.router(t.host), 80)  # no way back yet
    t.outside_route(net)
    t.reaches(web, "tcp", t.lab.router(t.host), 80, server="outside", client=web.ip)
