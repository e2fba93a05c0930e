#!/bin/sh
# Removes what `make install` placed, by CMake's own list of it (which leaves DESTDIR out), and the link of no network.
# State and configuration stay; the last lines say where.
set -eu
manifest=$1/install_manifest.txt
stage=${DESTDIR:-}
if [ ! -f "$manifest" ]; then
    echo "uninstall: $manifest is missing: run this in the tree that 'make install' ran in" >&2
    exit 1
fi
live() { [ -z "$stage" ] && [ -d /run/systemd/system ]; }
if live; then
    systemctl disable --now weftd.service weftd.socket || true
fi
grep -v '/etc/weft/' "$manifest" | while IFS= read -r file; do rm -f "$stage$file"; done
if live; then
    systemctl daemon-reload
fi
# It outlives weftd, which answers by it for a host whose weftd is away, and belongs to no network.
if [ -z "$stage" ] && ip -o link show dev w-echo 2> /dev/null | grep -q 'alias weft kernel echo'; then
    ip link delete w-echo
fi
echo "weft is uninstalled. Its networks' records are in $stage/var/lib/weft and its configuration is in $stage/etc/weft;"
echo "remove them with: rm -rf $stage/var/lib/weft $stage/etc/weft"
