#!/bin/sh
# Removes what `make install` placed, by CMake's own list of it. State and configuration stay; the last lines say where.
set -eu
manifest=$1/install_manifest.txt
if [ ! -f "$manifest" ]; then
    echo "uninstall: $manifest is missing: run this in the tree that 'make install' ran in" >&2
    exit 1
fi
if [ -d /run/systemd/system ]; then
    systemctl disable --now weftd.service weftd.socket || true
fi
grep -v '/etc/weft/' "$manifest" | while IFS= read -r file; do rm -f "$file"; done
[ ! -d /run/systemd/system ] || systemctl daemon-reload
echo "weft is uninstalled. Its networks' records are in /var/lib/weft and its configuration is in /etc/weft;"
echo "remove them with: rm -rf /var/lib/weft /etc/weft"
