#!/bin/sh
# Makes .venv with the locked dependencies and peerd itself, from nothing but Debian's packages.
# libp2p's pinned fastecdsa has no wheel: it needs a C compiler, Python's headers and GMP's.
# `setup.sh lab` also installs what the network lab and the benchmarks in it run: Debian's packages
# (as root) and the extra "lab". Tests that need them are skipped, and say so, where they are missing.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

have_header() {
    printf '#include <%s>\n' "$1" | cc $("$PYTHON" -c \
        'import sysconfig; print("-I" + sysconfig.get_paths()["include"])') -E - >/dev/null 2>&1
}

missing=""
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "peerd needs Python 3.11 or later; $PYTHON is $("$PYTHON" --version 2>&1)" >&2
    exit 1
}
"$PYTHON" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
if [ -z "$missing" ] || command -v cc >/dev/null 2>&1; then
    have_header Python.h || missing="$missing python3-dev"
    have_header gmp.h || missing="$missing libgmp-dev"
else
    missing="$missing python3-dev libgmp-dev"
fi
extras=dev
if [ "${1:-}" = lab ]; then
    extras=dev,lab
    for pair in ip:iproute2 nft:nftables ping:iputils-ping nginx:nginx-light aria2c:aria2 curl:curl \
        faketime:faketime; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 ||
            missing="$missing ${pair##*:}"
    done
fi
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing$missing"
        apt-get update -q
        # RUNLEVEL: Debian starts nginx as a service otherwise, which nobody asked for.
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
    else
        echo "missing:$missing" >&2
        echo "type: sudo apt-get install -y$missing" >&2
        exit 1
    fi
fi

[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
# The constraints hold for the isolated builds too, so that a source package builds as it was tested.
PIP_CONSTRAINT="$PWD/constraints.txt"
export PIP_CONSTRAINT PIP_DISABLE_PIP_VERSION_CHECK=1
.venv/bin/python -m pip install -q --upgrade pip setuptools wheel
.venv/bin/python -m pip install -q -e ".[$extras]"
# libp2p pulls in trio-typing, whose stubs are of a much older trio and hide trio's own types.
rm -rf .venv/lib/python3*/site-packages/trio-stubs
touch .venv/.ready
[ "$extras" = dev ] || touch .venv/.lab-ready
