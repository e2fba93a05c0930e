#!/usr/bin/env python3
"""Checks that relative links in the Markdown files lead somewhere, that every top folder has its README, that man pages,
the default configuration and the completion say what the programs' own --help does, and that the tests that
docs/security.md names are there."""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
NEED_README = ["driver", "drivers", "ipam", "kv", "net", "firewall", "base", "ctl", "systemd", "tests", "bench",
               "packaging"]

HELP_FLAG = re.compile(r"^ +(?:-\w, ?)?--([a-z-]+)(?: \S*?=(\S+))?", re.M)
NOT_KEYS = {"help", "version", "config", "check-config"}


def ask(program, *arguments):
    return subprocess.run([ROOT / "build/bin" / program, *arguments], text=True, capture_output=True, check=False)


def flags(help_text):
    """Long flags with their defaults."""
    return {name: default.strip('"[]') for name, default in HELP_FLAG.findall(help_text)}


def page(name):
    """A man page's option paragraphs by flag, and its whole text, without roff's escapes."""
    text = (ROOT / "docs/man" / name).read_text().replace("\\-", "-")
    described = {}
    for paragraph in text.split("\n.TP\n")[1:]:
        title, _, body = paragraph.partition("\n")
        for flag in re.findall(r"--([a-z-]+)", title):
            described[flag] = body.split("\n.SH")[0]
    return described, text


def compare_flags(program, manual):
    """What the help has and the manual's options have not, or the other way."""
    in_help = flags(ask(program, "--help").stdout)
    described, text = page(manual)
    for flag, default in in_help.items():
        if flag not in described:
            yield f"{manual} does not describe --{flag}"
        elif default and default not in described[flag]:
            yield f"{manual} does not say that --{flag} is {default} by default"
    known = set(in_help) | set(flags("\n".join(helps(program))))
    for flag in sorted(set(described) - known):
        yield f"{manual} describes --{flag}, which {program} does not take"
    for command in commands(program):
        if not re.search(rf"^\.BR? {command}\b", text, re.M):
            yield f"{manual} does not describe the command {command}"


def commands(program, *parents):
    _, _, listed = ask(program, *parents, "--help").stdout.partition("Subcommands:\n")
    return re.findall(r"^  (\S+) ", listed.split("\n\n")[0], re.M)


def helps(program, *parents):
    """The help of every command and of those below it."""
    for command in commands(program, *parents):
        yield ask(program, *parents, command, "--help").stdout
        yield from helps(program, *parents, command)


def compare_completion():
    completion = (ROOT / "packaging/completion/weftctl").read_text()
    wanted = commands("weftctl") + [f"--{flag}" for flag in flags(ask("weftctl", "--help").stdout)]
    return [f"completion/weftctl does not offer {word}" for word in wanted
            if not re.search(rf"(?<![\w-]){word}(?![\w-])", completion)]


def compare_keys():
    in_help = flags(ask("weftd", "--help").stdout)
    manual = page("weftd.toml.5")[1]
    settings = (ROOT / "packaging/weftd.toml").read_text()
    for key in sorted(set(in_help) - NOT_KEYS):
        if not re.search(rf"^\.B {key}$", manual, re.M):
            yield f"weftd.toml.5 does not describe {key}"
        line = re.search(rf"^#{key} = (.*)$", settings, re.M)
        if not line:
            yield f"weftd.toml does not show {key}"
        elif in_help[key] and line[1] != f'"{in_help[key]}"':
            yield f"weftd.toml shows {key} = {line[1]}, the default is {in_help[key]}"
    for text in (settings, re.sub(r"^#(?=[a-z-]+ = )", "", settings, flags=re.M)):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            checked = ask("weftd", "--check-config", "--config", file.name)
            if checked.returncode != 0:
                yield f"weftd refuses packaging/weftd.toml: {checked.stderr.strip()}"


def compare_programs():
    for program, compare in (("weftctl", compare_completion), ("weftd", compare_keys)):
        if not (ROOT / "build/bin" / program).exists():
            yield f"build/bin/{program} is missing, and its manual is not checked: make build"
            continue
        yield from compare_flags(program, f"{program}.8")
        yield from compare()


def missing_tests():
    """Tests that docs/security.md names and nobody wrote; `.Name` is of the suite named before, `Name…` the beginning of one."""
    written = set()
    for source in (ROOT / "tests").glob("*/*/*.cpp"):
        written |= {f"{suite}.{name}" for suite, name in re.findall(r"TEST(?:_F|_P)?\((\w+), (\w+)\)", source.read_text())}
    suite = ""
    for named, name, more in re.findall(r"`(\w*)\.(\w+)([…*]?)`", (ROOT / "docs/security.md").read_text()):
        if named and not named[0].isupper():
            continue
        suite = named or suite
        test = f"{suite}.{name}"
        if test not in written and not (more and any(other.startswith(test) for other in written)):
            yield f"docs/security.md: no test {test}"


def main():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, text=True, capture_output=True, check=True)
    offences = []
    for name in listed.stdout.split():
        markdown = ROOT / name
        if not markdown.exists():
            continue
        for target in LINK.findall(markdown.read_text()):
            if "://" not in target and not (markdown.parent / target).exists():
                offences.append(f"{name}: dead link {target}")
    for folder in NEED_README:
        if not (ROOT / folder / "README.md").exists():
            offences.append(f"{folder}/ has no README.md")
    offences += compare_programs()
    offences += missing_tests()
    print("\n".join(offences) or "docs: links lead somewhere, manuals match the programs, the tests named are there")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
