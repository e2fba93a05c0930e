#!/bin/sh
# Makes BUILD/plugin, a directory for `docker plugin create weft:latest BUILD/plugin`: the programs with the libraries
# that they are linked to, and nothing else.
set -eu
here=$(dirname "$0")
build=$1
root=$build/plugin/rootfs

rm -rf "$build/plugin"
mkdir -p "$root/usr/bin" "$root/run" "$root/tmp" "$root/var/lib/weft"
for program in weftd weftctl; do
    strip -o "$root/usr/bin/$program" "$build/bin/$program"
    # "name => path (address)", and the loader's bare "path (address)"
    ldd "$build/bin/$program" | sed -n 's/^.*[[:space:]]\(\/[^ ]*\) (.*/\1/p'
done | sort -u | while IFS= read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
# libnftables asks libxtables to read rules that iptables-nft wrote, and that loads what each rule is made of.
for extensions in /usr/lib/*/xtables; do
    mkdir -p "$root${extensions%/*}"
    cp -a "$extensions" "$root$extensions"
done
cp "$here/plugin/config.json" "$build/plugin/config.json"
du -sh "$build/plugin"
