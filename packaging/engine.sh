#!/bin/sh
# Unpacks the Docker Engine of another Debian release into a folder, for tests: engine.sh SUITE DIRECTORY
# (trixie has 26.1, sid 28.5). It starts the installed runc. Nothing is installed.
set -eu

[ $# = 2 ] || { echo "usage: engine.sh SUITE DIRECTORY" >&2; exit 2; }
suite=$1
mkdir -p "$2"
directory=$(cd "$2" && pwd)
[ ! -x "$directory/dockerd" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/lists/partial" "$work/archives/partial"
: > "$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" > "$work/sources.list"
cd "$work"
apt="apt-get -qq -o Dir::Etc::SourceList=$work/sources.list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$work/lists
    -o Dir::State::Status=$work/status -o Dir::Cache=$work -o Acquire::Languages=none
    -o APT::Sandbox::User=root"
$apt update
$apt download docker.io containerd
for package in *.deb; do dpkg-deb -x "$package" "$work/root"; done
# dockerd last: with it the folder is complete.
cp root/usr/bin/containerd* root/usr/sbin/docker-proxy "$directory/"
cp root/usr/sbin/dockerd "$directory/"
