#!/bin/sh
# A bare Debian 12 in a chroot, a fresh clone of this checkout's HEAD in it, then `make test` and
# `make demo` as a user types them. Needs root and debootstrap (installed if it is missing).
# Usage: tools/test_fresh.sh [make targets; default: test demo]
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "make test-fresh needs root: it makes a chroot" >&2; exit 1; }
targets=${*:-test demo}

command -v debootstrap >/dev/null 2>&1 || {
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends debootstrap
}
# The mirror that this machine uses itself, so that no host has to be named here.
mirror=$(apt-get indextargets --format '$(URI)' 2>/dev/null |
    sed -n 's#\(.*/debian/\)dists/bookworm/main/.*#\1#p' | head -n 1)
[ -n "$mirror" ] || { echo "no Debian 12 mirror found in apt's sources" >&2; exit 1; }

root=$(mktemp -d "${TMPDIR:-/tmp}/peerd-fresh.XXXXXX")
clean() {
    umount "$root/proc" "$root/dev/shm" "$root/dev" 2>/dev/null || true
    rm -rf --one-file-system "$root"
}
trap clean EXIT INT TERM

debootstrap --variant=minbase --include=python3,python3-venv,make,git,ca-certificates \
    bookworm "$root" "$mirror"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
# What reaches the package registries here must reach them there: names, trust, settings.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
mkdir -p "$root/etc/ssl/certs" "$root/root/.config"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp -a /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
if cp -a /etc/apt/sources.list.d/. "$root/etc/apt/sources.list.d/" 2>/dev/null &&
    [ -n "$(ls "$root/etc/apt/sources.list.d")" ]; then
    rm -f "$root/etc/apt/sources.list"
fi
for settings in /etc/pip.conf "$HOME/.config/pip/pip.conf"; do
    [ -f "$settings" ] && cp "$settings" "$root/etc/pip.conf"
done
git clone -q --no-local . "$root/peerd"

chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} ${https_proxy:+https_proxy="$https_proxy"} \
    ${http_proxy:+http_proxy="$http_proxy"} ${no_proxy:+no_proxy="$no_proxy"} \
    make -C /peerd $targets
echo "fresh: $targets are green on a bare Debian 12"
