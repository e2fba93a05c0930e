#!/usr/bin/env python3
"""clang-tidy over the program's sources, two or more at a time. A file that passed is not looked at again while it, what it
includes, the settings and the tool stay as they are: the cache holds an empty file for each such state.

    cmake/tidy.py [--analyze] [FILE ...]    all sources without a name; needs build/compile_commands.json
                  --analyze                 with clang's static analyzer, which takes thrice as long
"""

import concurrent.futures
import hashlib
import json
import os
import shlex
import subprocess
import sys

FOLDERS = ("base", "net", "kv", "ipam", "firewall", "drivers", "driver", "ctl")
TIDY, CLANG = "clang-tidy-14", "clang++-14"
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "weft-tidy")


def state(command, directory, settings):
    """A name for what the tool would read: the preprocessed text with its comments, and how it is asked."""
    words = shlex.split(command)
    compiler = next(i for i, word in enumerate(words) if word.endswith(("c++", "g++", "clang++-14")))
    words = words[compiler + 1:]
    flags = [word for i, word in enumerate(words)
             if word not in ("-c", "-o", "-MD", "-MT", "-MF") and words[i - 1] not in ("-o", "-MT", "-MF")]
    text = subprocess.run([CLANG, *flags, "-E", "-C", "-P", "-w"], cwd=directory, stdout=subprocess.PIPE, check=True).stdout
    return hashlib.sha256(settings + b"\0" + text).hexdigest()


def check(entry, settings, options):
    name = os.path.join(CACHE, state(entry["command"], entry["directory"], settings))
    if os.path.exists(name):
        return None
    done = subprocess.run([TIDY, "--quiet", "-p", "build", *options, entry["file"]], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    if done.returncode:
        return done.stdout
    with open(name, "w", encoding="ascii"):
        return None


def main():
    os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    os.makedirs(CACHE, exist_ok=True)
    with open(".clang-tidy", "rb") as file:
        settings = file.read() + subprocess.run([TIDY, "--version"], stdout=subprocess.PIPE, check=True).stdout
    with open("build/compile_commands.json", encoding="utf-8") as file:
        entries = {os.path.relpath(entry["file"]): entry for entry in json.load(file)}
    ours = [name for name in sorted(entries) if name.split(os.sep)[0] in FOLDERS]
    words = sys.argv[1:]
    options = [] if "--analyze" in words else ["--checks=-clang-analyzer-*"]
    settings += " ".join(options).encode()
    names = [word for word in words if word != "--analyze"] or ours
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        complaints = list(filter(None, pool.map(lambda name: check(entries[name], settings, options), names)))
    print("".join(complaints), end="")
    sys.exit(1 if complaints else 0)


main()
