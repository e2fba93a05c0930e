#!/usr/bin/env python3
"""Checks that includes between folders run one way, and that a few libraries stay behind their one door.

The table is the architecture: a folder may include itself and what its row names. Prints each offence and exits 1.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

MAY_INCLUDE = {
    "base": [],
    "net": ["base"],
    "kv": ["base"],
    "ipam": ["kv", "base"],
    "firewall": ["net", "base"],
    "drivers": ["firewall", "ipam", "kv", "net", "base"],
    "driver": ["drivers", "firewall", "ipam", "kv", "net", "base"],
    "ctl": ["kv", "base"],
}

# Library header prefix -> the folders (or files) that may include it.
DOORS = {
    "netlink/": ["net/"],
    "bpf/": ["net/"],
    "libiptc/": ["firewall/"],
    "nftables/": ["firewall/"],
    "sqlite3.h": ["base/database.cpp"],
    "httplib.h": ["driver/", "ctl/"],
    "nlohmann/": ["driver/", "ctl/"],
    "sodium": ["kv/"],
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def offences():
    for folder, allowed in MAY_INCLUDE.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in (".h", ".cpp"):
                continue
            name = path.relative_to(ROOT).as_posix()
            for quote, target in INCLUDE.findall(path.read_text()):
                if quote == '"':
                    top = target.split("/")[0]
                    if top not in MAY_INCLUDE:
                        yield f"{name}: \"{target}\": write includes from the top of the tree"
                    elif top != folder and top not in allowed:
                        yield f"{name}: {folder}/ may not include {top}/ ({target})"
                    elif folder == "drivers":
                        modes = {"bridge", "overlay", "host", "none"}
                        mine, theirs = name.split("/")[1], target.split("/")[1] if "/" in target else ""
                        # An overlay network is a bridge network with one port more.
                        if (mine, theirs) == ("overlay", "bridge"):
                            continue
                        if top == "drivers" and theirs in modes and theirs != mine:
                            yield f"{name}: modes never include each other ({target})"
                for prefix, doors in DOORS.items():
                    if target.startswith(prefix) and not any(name.startswith(door) for door in doors):
                        yield f"{name}: <{target}> belongs behind {' or '.join(doors)}"


def main():
    found = list(offences())
    print("\n".join(found) or "includes: one way")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
