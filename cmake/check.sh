#!/bin/sh
# `make check`: formatting, include direction, docs, units, cppcheck, clang-tidy. All run; fails if any failed.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=""
sources=$(git ls-files '*.h' '*.cpp' '*.bpf.c')
run() {
    name=$1
    shift
    echo "== $name"
    "$@" || failed="$failed $name"
}
# shellcheck disable=SC2086 # a list of files
run format clang-format-14 --dry-run --Werror $sources
run includes python3 cmake/check_includes.py
run docs python3 cmake/check_docs.py
# The daemon need not be installed for its units to be right. An unknown key is but a warning to systemd.
run units sh -c 'units=$(mktemp -d) && cp systemd/weftd.socket "$units" &&
    sed "s|^ExecStart=weftd|ExecStart=/bin/true|" systemd/weftd.service > "$units/weftd.service" &&
    complaints=$(systemd-analyze verify --man=no "$units/weftd.socket" "$units/weftd.service" 2>&1); status=$?
    rm -r "$units"; echo "$complaints"; [ "$status" = 0 ] && [ -z "$complaints" ]'
# The list of what was installed leaves DESTDIR out: a staged tree must not cost the live one its files.
run uninstall sh -c 'tree=$(mktemp -d) && mkdir -p "$tree/stage$tree" && touch "$tree/live" "$tree/stage$tree/live" &&
    echo "$tree/live" > "$tree/install_manifest.txt" && DESTDIR="$tree/stage" packaging/uninstall.sh "$tree" > /dev/null &&
    [ -e "$tree/live" ] && [ ! -e "$tree/stage$tree/live" ]; status=$?
    rm -r "$tree"; exit $status'
# And takes away the one link that stays when the networks are gone, nobody else's of that name. In a namespace of its own.
# shellcheck disable=SC2016 # the inner shell's
run uninstall-link unshare --map-root-user --net sh -c 'tree=$(mktemp -d) && touch "$tree/install_manifest.txt" &&
    ip link add w-echo type bridge && packaging/uninstall.sh "$tree" > /dev/null && ip link show w-echo > /dev/null &&
    ip link set w-echo alias "weft kernel echo" && packaging/uninstall.sh "$tree" > /dev/null &&
    ! ip link show w-echo 2> /dev/null; status=$?; rm -r "$tree"; exit $status'
run python python3 -m compileall -q tests bench cmake
# Off: passedByValue misses moves in initialisers, returnStdMoveLocal and iterators3 misread structured and map access.
run cppcheck cppcheck --quiet --error-exitcode=1 --std=c++20 --language=c++ -j "$(nproc)" -I . \
    --enable=warning,performance,portability --inline-suppr --suppress=missingIncludeSystem --suppress=unknownMacro \
    --suppress=*:/usr/* --suppress=passedByValue --suppress=returnStdMoveLocal --suppress=iterators3 base net kv ipam firewall drivers driver ctl
run tidy cmake/tidy.py
[ -z "$failed" ] || { echo "check failed:$failed"; exit 1; }
echo "check: all good"
