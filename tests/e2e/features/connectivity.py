"""Containers reach each other, their names, and the world."""

from harness import check, equal, feature
from lab import keepalive_report, wait_for

PROTOCOLS = ("tcp", "udp", "sctp")


@feature("container to container over IPv4: tcp, udp, sctp, ping")
def ipv4(t):
    pair = t.shared()
    for protocol in PROTOCOLS:
        t.reaches(pair.alpha, protocol, pair.beta.ip, 80, server="beta", client=pair.alpha.ip)
    t.pings(pair.alpha, pair.beta.ip)


@feature("container to container over IPv6: tcp, udp, sctp, ping")
def ipv6(t):
    pair = t.shared()
    for protocol in PROTOCOLS:
        t.reaches(pair.beta, protocol, pair.alpha.ip6, 80, server="alpha", client=pair.beta.ip6)
    t.pings(pair.beta, pair.alpha.ip6)


@feature("containers find each other by name and alias, and not from another network")
def names(t):
    net, other = t.network(), t.network()
    web = t.container(net, "web", "--network-alias", "www")
    client, stranger = t.container(net, "client"), t.container(other, "stranger")
    for name in ("web", "www"):
        t.reaches(client, "tcp", name, 80, server=web, client=client.ip)
    t.closed(stranger, "tcp", "web", 80)


@feature("a container and its network's gateway address reach each other")
def gateway(t):
    pair = t.shared()
    for address in (pair.network.gateway, pair.network.gateway6):
        t.pings(pair.alpha, address)
    t.reaches(t.host, "tcp", pair.alpha.ip, 80, server="alpha", client=pair.network.gateway)
    t.reaches(t.host, "tcp", pair.alpha.ip6, 80, server="alpha")


@feature("egress over IPv4 is masqueraded with the host's address")
def egress(t):
    pair = t.shared()
    for protocol in PROTOCOLS:
        t.reaches(pair.alpha, protocol, t.lab.router(t.host), 80, server="outside", client=t.host.ip)
    t.pings(pair.alpha, t.lab.router(t.host))


@feature("egress over IPv6 is masqueraded with the host's address")
def egress6(t):
    pair = t.shared()
    for protocol in PROTOCOLS:
        t.reaches(pair.alpha, protocol, t.lab.router(t.host, 6), 80, server="outside", client=t.host.ip6)
    t.pings(pair.alpha, t.lab.router(t.host, 6))


@feature("two megabytes pass whole in both directions between container and outside")
def bulk(t):
    net = t.network()
    web = t.container(net, "web", "-p", "8080:8080")
    web.run("/bin/busybox", "httpd", "-p", "8080", "-h", "/bin")
    size = int(web.run("/bin/busybox", "stat", "-c", "%s", "/bin/busybox"))
    fetched = t.outside.run("sh", "-c", f"busybox wget -q -O - http://{t.host.ip}:8080/busybox | wc -c")
    equal(int(fetched), size, "bytes downloaded")
    server = t.outside.spawn("busybox", "httpd", "-f", "-p", "8081", "-h", t.lab.directory)
    t.defer(server.end)
    local = "http://127.0.0.1:8081/weft-echo"
    wait_for(lambda: t.outside.succeeds("busybox", "wget", "-q", "-O", "/dev/null", local), "outside's httpd", timeout=3)
    fetch = f"/bin/busybox wget -q -O - http://{t.lab.router(t.host)}:8081/weft-echo | /bin/busybox wc -c"
    check(int(web.run("/bin/busybox", "sh", "-c", fetch)) > 500_000, "the upload was cut")


@feature("six containers start at once with addresses and MACs of their own")
def parallel_start(t):
    net = t.network(v6=True)
    containers = t.containers(net, *(f"c{i}" for i in range(6)))
    for what in ("IPAddress", "GlobalIPv6Address", "MacAddress"):
        equal(len({c.on(net)[what] for c in containers}), 6, f"different {what}")
    for one, next_one in zip(containers, containers[1:] + containers[:1]):
        t.reaches(one, "tcp", next_one.ip, 80, server=next_one)


@feature("a container keeps names, address and ports over a restart")
def restart(t):
    net = t.network()
    client = t.container(net, "client")
    web = t.container(net, "web", "--ip", net.address(77), "-p", "8080:80")
    t.host.docker("restart", "-t", "1", "web")
    wait_for(lambda: web.refresh().ask("tcp", "127.0.0.1", 80), "web serves again")
    equal(web.ip, net.address(77), "address")
    t.reaches(client, "tcp", "web", 80, server="web")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server="web")


@feature("a running container is connected to a second network and disconnected")
def live_connect(t):
    first, second = t.network(), t.network()
    one, two = t.container(first, "one"), t.container(second, "two")
    both = t.container(first, "both")
    t.closed(both, "tcp", two.ip, 80)
    t.host.docker("network", "connect", second.name, "both")
    both.refresh()
    t.reaches(both, "tcp", one.ip, 80, server="one")
    t.reaches(both, "tcp", "two", 80, server="two", client=both.on(second)["IPAddress"])
    equal(sorted(both.links()), ["eth0", "eth1", "lo"], "links")
    t.host.docker("network", "disconnect", second.name, "both")
    equal(sorted(both.refresh().links()), ["eth0", "lo"], "links")
    t.closed(both, "tcp", two.ip, 80)
    t.reaches(both, "tcp", one.ip, 80, server="one")
    t.reaches(both, "tcp", t.lab.router(t.host), 80, server="outside")


@feature("a long connection between containers survives others coming and going")
def undisturbed(t):
    pair = t.shared()
    keeper = pair.alpha.keepalive("tcp", pair.beta.ip, 80)
    net = t.network()
    t.remove(t.container(net, "visitor", "-p", "8080:80"))
    t.remove_network(net)
    report = keepalive_report(keeper)
    equal(report["error"], "", "error")
    check(report["longest_gap_ms"] < 500, f"longest gap {report['longest_gap_ms']} ms")


@feature("published ports follow when the gateway network is disconnected")
def gateway_moves(t):
    first, second = t.network(), t.network()
    web = t.container(first, "web", "-p", "8080:80")
    t.host.docker("network", "connect", second.name, "web")
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server="web")
    t.host.docker("network", "disconnect", first.name, "web")
    web.refresh()
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server="web")
    t.reaches(web, "tcp", t.lab.router(t.host), 80, server="outside")


@feature("a container that shares another's network is reached at its address")
def shared_sandbox(t):
    net = t.network()
    client = t.container(net, "client")
    web = t.container(net, "web", "-p", "8080:8080", command=("sleep", "1000"), serving=False)
    t.container("container:web", "server", command=("weft-echo", "serve", "8080"), serving=False)
    wait_for(lambda: client.ask("tcp", web.ip, 8080), "server answers", timeout=5)
    t.reaches(t.outside, "tcp", t.host.ip, 8080, server="web")
