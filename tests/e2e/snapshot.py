"""The leak check: what of a host's network state a test could leave behind."""

import json
import re


def take(place):
    """Everything of a host a test could leave behind, as a set of lines.

    Not the files in /run/docker/netns: the engine itself collects those of ended containers a minute later.
    """
    sections = {
        "link": "ip -j link", "address": "ip -j address", "route": "ip -j -4 route show table all",
        "route6": "ip -j -6 route show table all", "rule": "ip -j rule; ip -j -6 rule", "nft": "nft list ruleset",
        "legacy": "iptables-legacy-save", "legacy6": "ip6tables-legacy-save",
        "socket": "ss -Hltnu", "sysctl": "cd /proc/sys/net; grep . ipv4/ip_forward ipv6/conf/all/forwarding",
    }
    script = ";".join(f"echo '@@{name}'; {command}" for name, command in sections.items())
    lines = set()
    for part in place.run("sh", "-c", script).split("@@")[1:]:
        name, _, text = part.partition("\n")
        lines |= {f"{name}: {line}" for line in _SUMMARIES.get(name, str.splitlines)(text)}
    return lines


def leaks(before, after):
    """What is there now and was not, and the other way round; empty: nothing changed."""
    return [f"+ {line}" for line in sorted(after - before)] + [f"- {line}" for line in sorted(before - after)]


def _link_lines(text):
    return [f"{link['ifname']} mtu {link['mtu']} master {link.get('master')}" for link in json.loads(text)]


def _address_lines(text):
    return [f"{link['ifname']} {address['local']}/{address['prefixlen']}"
            for link in json.loads(text) for address in link["addr_info"] if address.get("scope") != "link"]


def _route_lines(text):
    """Routes that someone added: those of type local and the like follow addresses, and over IPv6 late."""
    return [f"{route['dst']} dev {route.get('dev')} via {route.get('gateway')}" for route in json.loads(text or "[]")
            if route.get("type", "unicast") == "unicast" and not route["dst"].startswith("fe80:")]


def _socket_lines(text):
    return [" ".join(words[:1] + words[4:5]) for words in map(str.split, text.splitlines())]


# What the iptables command leaves of a table when its last rule is removed; engines from 27 on use raw now and then.
_EMPTY_TABLE = re.compile(r"table ip6? raw( chain [A-Z]+( type .* policy accept;)?)?")


def _rule_lines(text):
    """nft or iptables-save text without counters and elements that expire, each line with the table and chain it stands in."""
    lines, path = [], []
    for line in text.splitlines():
        line = re.sub(r" ?(counter packets \d+ bytes \d+|\[\d+:\d+\])", "", line).strip()
        if line.endswith("{"):
            path.append(line[:-2])
            lines.append(" ".join(path))
        elif line == "}":
            path.pop()
        elif line.startswith("*"):
            path = [line]
        elif line and not line.startswith("#") and " expires " not in line:
            lines.append(" ".join([*path, line]))
    return [line for line in lines if not _EMPTY_TABLE.fullmatch(line)]


_SUMMARIES = {"link": _link_lines, "address": _address_lines, "route": _route_lines, "route6": _route_lines,
              "nft": _rule_lines, "legacy": _rule_lines, "legacy6": _rule_lines, "socket": _socket_lines}
