"""Published ports: who reaches them, from where, and who else may have them."""

from harness import check, equal, feature
from lab import keepalive_report, wait_for

NO_SCTP = "its port reservation and proxy need SCTP sockets, which this kernel may lack"

PROXY_UDP = "its proxy answers from another address than was asked"


def open_ports(t, address):
    """TCP ports of the host that accept, as the outside sees them."""
    return {int(port) for port in t.outside.run(t.outside.tool, "scan", address, "1024", "65535").split()}


@feature("published tcp and udp over IPv4 keep the client's address")
def ipv4(t):
    net = t.network()
    web = t.container(net, "web", "-p", "8080:80", "-p", "8080:80/udp")
    for protocol in ("tcp", "udp"):
        t.reaches(t.outside, protocol, t.host.ip, 8080, server=web, client=t.lab.router(t.host))


@feature("published tcp and udp over IPv6 keep the client's address")
def ipv6(t):
    net = t.network(v6=True)
    web = t.container(net, "web", "-p", "8080:80", "-p", "8080:80/udp")
    for protocol in ("tcp", "udp"):
        t.reaches(t.outside, protocol, t.host.ip6, 8080, server=web, client=t.lab.router(t.host, 6))
        t.reaches(t.outside, protocol, t.host.ip, 8080, server=web, client=t.lab.router(t.host))


@feature("published sctp over IPv4 and IPv6", differs=NO_SCTP)
def sctp(t):
    net = t.network(v6=True)
    web = t.container(net, "web", "-p", "8080:80/sctp")
    t.reaches(t.outside, "sctp", t.host.ip, 8080, server=web, client=t.lab.router(t.host))
    t.reaches(t.outside, "sctp", t.host.ip6, 8080, server=web, client=t.lab.router(t.host, 6))
    t.closed(t.outside, "tcp", t.host.ip, 8080)


@feature("a port published on one host address is closed on the others")
def host_ip(t):
    t.host_address("10.99.0.211/24")
    net = t.network()
    web = t.container(net, "web", "-p", "10.99.0.211:8080:80", "-p", "10.99.0.211:8080:80/udp")
    for protocol in ("tcp", "udp"):
        t.reaches(t.outside, protocol, "10.99.0.211", 8080, server=web)
    for address in (t.host.ip, t.host.ip6):
        t.closed(t.outside, "tcp udp", address, 8080)


@feature("a port published on one IPv6 host address only")
def host_ip6(t):
    net = t.network(v6=True)
    web = t.container(net, "web", "-p", f"[{t.host.ip6}]:8080:80")
    t.reaches(t.outside, "tcp", t.host.ip6, 8080, server=web)
    t.closed(t.outside, "tcp", t.host.ip, 8080)


@feature("two containers have the same port on different host addresses")
def same_port_two_addresses(t):
    t.host_address("10.99.0.211/24")
    net = t.network()
    one = t.container(net, "one", "-p", f"{t.host.ip}:8080:80")
    two = t.container(net, "two", "-p", "10.99.0.211:8080:80")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=one)
    t.reaches(t.outside, "tcp", "10.99.0.211", 8080, server=two)


@feature("host port 0: a free one is chosen, the same for both families")
def any_port(t):
    net = t.network(v6=True)
    before = open_ports(t, t.host.ip)
    web = t.container(net, "web", "-p", "80")
    opened = open_ports(t, t.host.ip) - before
    equal(len(opened), 1, f"ports opened {opened}")
    (port,) = opened
    t.reaches(t.outside, "tcp", t.host.ip, port, server=web)
    t.reaches(t.outside, "tcp", t.host.ip6, port, server=web)


@feature("-P publishes every exposed port on ports of their own")
def publish_all(t):
    net = t.network()
    before = open_ports(t, t.host.ip)
    web = t.container(net, "web", "-P", "--expose", "80", "--expose", "81", "--expose", "82/udp")
    opened = open_ports(t, t.host.ip) - before
    equal(len(opened), 2, f"tcp ports opened {opened}")
    for port in opened:
        t.reaches(t.outside, "tcp", t.host.ip, port, server=web)


@feature("a range of ports maps one to one")
def port_range(t):
    net = t.network()
    web = t.container(net, "web", "-p", "8000-8002:80-82")
    for offset in range(3):
        t.reaches(t.outside, "tcp", t.host.ip, 8000 + offset, server=web)
    check("tcp 82 from" in web.log(), "port 8002 did not lead to port 82")


@feature("one port published in a range: each container takes the next free one")
def choose_in_range(t):
    net = t.network()
    one = t.container(net, "one", "-p", "8000-8001:80")
    two = t.container(net, "two", "-p", "8000-8001:80")
    t.reaches(t.outside, "tcp", t.host.ip, 8000, server=one)
    t.reaches(t.outside, "tcp", t.host.ip, 8001, server=two)
    error = t.refused_container(net, "-p", "8000-8001:80")
    check("800" in error, f"the error does not name the port: {error}")


@feature("the host reaches a published port on 127.0.0.1 and on its own addresses")
def from_host(t):
    net = t.network(v6=True)
    web = t.container(net, "web", "-p", "8080:80", "-p", "8080:80/udp")
    for protocol in ("tcp", "udp"):
        for address in ("127.0.0.1", t.host.ip, net.gateway, t.host.ip6):
            t.reaches(t.host, protocol, address, 8080, server=web)


@feature("a port published on 127.0.0.1 is reached from the host")
def loopback(t):
    net = t.network()
    web = t.container(net, "web", "-p", "127.0.0.1:8080:80", "-p", "127.0.0.1:8080:80/udp")
    for protocol in ("tcp", "udp"):
        t.reaches(t.host, protocol, "127.0.0.1", 8080, server=web)
    for place in (t.outside, t.host):
        t.closed(place, "tcp udp", t.host.ip, 8080)


@feature("a port published on 127.0.0.1 is closed to neighbours that route or forge 127/8",
         differs="release 20.10 lets forged datagrams in")
def loopback_neighbour(t):
    net = t.network()
    web = t.container(net, "web", "-p", "127.0.0.1:8080:80", "-p", "127.0.0.1:8080:80/udp", "-p", "8081:81/udp")
    forge = (t.outside.tool, "forge", "lan0", t.host.mac())
    t.outside.run(*forge, "10.99.0.1", t.host.ip, "8081", "honest")
    t.outside.run(*forge, "10.99.0.1", "127.0.0.1", "8080", "forged-to")
    t.outside.run(*forge, "127.0.0.1", "127.0.0.1", "8080", "forged-both")
    t.outside.run("sh", "-ec", """
        echo 1 > /proc/sys/net/ipv4/conf/lan0/route_localnet
        ip route del local 127.0.0.0/8 dev lo table local; ip route del local 127.0.0.1 dev lo table local
    """)
    t.defer(lambda: t.outside.run("sh", "-ec", """
        ip route flush 127.0.0.0/8
        ip route add local 127.0.0.0/8 dev lo table local; ip route add local 127.0.0.1 dev lo table local
        echo 0 > /proc/sys/net/ipv4/conf/lan0/route_localnet
    """))
    t.outside.run("ip", "route", "add", "127.0.0.0/8", "via", t.host.ip)
    t.closed(t.outside, "tcp udp", "127.0.0.1", 8080, source="10.99.0.1", text="routed")
    log = web.log()
    check("honest" in log, "the forged datagram that should arrive did not")
    for word in ("forged-to", "forged-both", "routed"):
        check(word not in log, f"a {word} datagram reached the container")


def hairpin(t, protocol):
    """From a neighbour and from the container itself, at the host's address and at the gateway's."""
    net = t.network()
    web = t.container(net, "web", "-p", f"8080:80/{protocol}")
    for place in (t.container(net, "client"), web):
        for address in (t.host.ip, net.gateway):
            t.reaches(place, protocol, address, 8080, server=web)


@feature("a container reaches a neighbour's published tcp port at the host's address, and its own")
def hairpin_tcp(t):
    hairpin(t, "tcp")


@feature("the same at the host's address over udp", differs=PROXY_UDP)
def hairpin_udp(t):
    hairpin(t, "udp")


@feature("the same at the host's address over tcp and IPv6")
def hairpin6(t):
    net = t.network(v6=True)
    web = t.container(net, "web", "-p", "8080:80")
    client = t.container(net, "client")
    for place in (client, web):
        t.reaches(place, "tcp", t.host.ip6, 8080, server=web)


@feature("a container of another network reaches a published port at the host's address")
def from_other_network(t):
    net, other = t.network(), t.network()
    web = t.container(net, "web", "-p", "8080:80")
    stranger = t.container(other, "stranger")
    t.reaches(stranger, "tcp", t.host.ip, 8080, server=web)
    t.closed(stranger, "tcp", web.ip, 80)


@feature("the same from another network over udp", differs=PROXY_UDP)
def from_other_network_udp(t):
    net, other = t.network(), t.network()
    web = t.container(net, "web", "-p", "8080:80/udp")
    t.reaches(t.container(other, "stranger"), "udp", t.host.ip, 8080, server=web)


@feature("a port that another container has is refused, and its holder named")
def conflict(t):
    net = t.network()
    web = t.container(net, "web", "-p", "8080:80")
    error = t.refused_container(net, "-p", "8080:80")
    check("8080" in error, f"the error does not name the port: {error}")
    if t.with_plugin:
        endpoint = web.on(net)["EndpointID"][:12]
        check(web.ip in error or endpoint in error, f"the error does not name the holder: {error}")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)
    t.host.docker("rm", "-f", "refused")
    t.container(net, "second", "-p", "8081:80")


@feature("a port that a process of the host has is refused, and works once that is gone")
def conflict_process(t):
    net = t.network()
    process = t.host.spawn(t.host.tool, "serve", "8080")
    t.defer(process.end)
    wait_for(lambda: t.host.ask("tcp", "127.0.0.1", 8080), "the process serves", timeout=3)
    for binding in ("8080:80", "8080:80/udp"):
        error = t.refused_container(net, "-p", binding)
        check("8080" in error, f"the error does not name the port: {error}")
        t.host.docker("rm", "-f", "refused")
    process.end()
    web = t.container(net, "web", "-p", "8080:80")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)


@feature("a published port stays reserved on the host, and is free after rm")
def reserved(t):
    def can_serve():
        process = t.host.spawn("timeout", "0.3", t.host.tool, "serve", "8080")
        return "port 8080" not in process.wait()

    net = t.network()
    check(can_serve(), "the port was not free to begin with")
    web = t.container(net, "web", "-p", "8080:80")
    check(not can_serve(), "a process of the host could take the port")
    t.remove(web)
    check(can_serve(), "the port was not free after rm")


@feature("a stopped container's port is closed and free for another")
def stop_frees(t):
    net = t.network()
    t.container(net, "one", "-p", "8080:80")
    t.host.docker("stop", "-t", "1", "one")
    t.closed(t.outside, "tcp", t.host.ip, 8080)
    two = t.container(net, "two", "-p", "8080:80")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=two)


@feature("a UDP flow moves to the port's new container at once")
def udp_flow_moves(t):
    net = t.network()
    one = t.container(net, "one", "--ip", net.address(11), "-p", "8080:80/udp")
    flow = t.outside.keepalive("udp", t.host.ip, 8080, source_port=5555)
    wait_for(lambda: "udp 80" in one.log(), "the flow reaches one")
    t.remove(one)
    two = t.container(net, "two", "--ip", net.address(12), "-p", "8080:80/udp")
    wait_for(lambda: "udp 80" in two.log(), "the flow moves to two", timeout=1)
    equal(keepalive_report(flow)["servers"], ["one", "two"], "who answered")


@feature("host_binding_ipv4 is the default address to publish on")
def default_binding(t):
    t.host_address("10.99.0.211/24")
    net = t.network(options={"com.docker.network.bridge.host_binding_ipv4": "10.99.0.211"})
    web = t.container(net, "web", "-p", "8080:80")
    t.reaches(t.outside, "tcp", "10.99.0.211", 8080, server=web)
    t.closed(t.outside, "tcp", t.host.ip, 8080)


@feature("ports the host does not publish stay its own")
def host_ports_untouched(t):
    net = t.network()
    web = t.container(net, "web", "-p", "8080:80")
    process = t.host.spawn(t.host.tool, "serve", "9090")
    t.defer(process.end)
    wait_for(lambda: t.host.ask("tcp", "127.0.0.1", 9090), "the process serves", timeout=3)
    t.reaches(t.outside, "tcp", t.host.ip, 9090, server=t.host)
    t.reaches(web, "tcp", t.lab.router(t.host), 80, server="outside")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server=web)
