#!/bin/sh -e
# mangle.sh LINK DIRECTORY: what arrives on LINK, in this network namespace, comes from a NIC as in mangle.c. The directory
# is for the object file.
object=$2/mangle.o
clang-14 -O2 -target bpf -I/usr/include/"$(uname -m)"-linux-gnu -c "$(dirname "$0")"/mangle.c -o "$object"
tc qdisc replace dev "$1" clsact
tc filter replace dev "$1" ingress prio 1 handle 1 bpf direct-action object-file "$object" section classifier
