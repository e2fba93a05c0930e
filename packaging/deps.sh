#!/bin/sh
# Installs what building, checking and testing weft needs from Debian 12. Idempotent.
set -eu

build="build-essential cmake ninja-build pkg-config ccache git libcpp-httplib-dev nlohmann-json3-dev
libnl-3-dev libnl-route-3-dev libnl-genl-3-dev libnl-nf-3-dev libip4tc-dev libip6tc-dev libxtables-dev
libnftables-dev libspdlog-dev libsqlite3-dev libsodium-dev libbpf-dev clang-14 libcli11-dev libgtest-dev libgmock-dev libbenchmark-dev"
hosts="docker.io iproute2 iptables nftables busybox-static curl procps iputils-ping python3"
tests="chromium chromium-driver docker-compose conntrack iperf3 tcpdump jq systemd clang-format-14 clang-tidy-14 libclang-rt-14-dev cppcheck man-db"

if [ "$(id -u)" != 0 ]; then
    echo "deps.sh: run as root (it calls apt-get install)" >&2
    exit 1
fi

missing=""
for package in $build $hosts $tests; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

# Tests want the engine's programs, not a running engine: keep docker.io from starting one.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
fi
apt-get update -qq
# shellcheck disable=SC2086 # a list of package names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
