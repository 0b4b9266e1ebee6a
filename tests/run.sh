#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Set up and run the tests on a machine that has Python 3.11 and pip: bash tests/run.sh [--fast] [pytest arguments]
# Makes .venv-test (setup.sh) and, as root, installs the system packages that tests use: a C++ compiler, network
# namespaces, Node.js for the Khronos glTF validator and axe-core, Chromium for the web page, and the Blenders that the
# add-on is tested in. What cannot be installed is named in one line, and its tests skip.
# --fast: the unit and integration tests that take no more than a few seconds each, without the Blenders and Node.js.
# WORKERS=1 runs the tests in one process. The default is a process a core, at most 8, and one more for the whole suite,
# many of whose tests wait for a time to pass.
set -euo pipefail
cd "$(dirname "$0")/.."

fast=
if [ "${1:-}" = --fast ]; then
    fast=yes
    shift
fi

install_packages() {
    # install_packages TOOL PACKAGE...: with apt where TOOL is not on PATH.
    command -v "$1" >/dev/null && return
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${@:2}" >/dev/null && return
    fi
    echo "tests/run.sh: $1 is missing; install it (Debian: apt-get install ${*:2}), or the tests that need it will skip" >&2
}

if [ -n "$fast" ]; then
    bash setup.sh .venv-test -e ".[test]"
else
    bash setup.sh .venv-test -e ".[test,blender]"
    install_packages g++ g++
    install_packages unshare util-linux
    install_packages ip iproute2
    install_packages openssl openssl
    install_packages chromium chromium fonts-dejavu-core
    install_packages npm nodejs npm
    if command -v npm >/dev/null; then
        (cd tests/node && npm ci --silent --no-fund --no-audit) || echo "tests/run.sh: npm ci failed; the tests with the glTF validator and axe-core will skip" >&2
    fi
    bash tests/blender/environments.sh
fi

WORKERS=${WORKERS:-}
workers=${WORKERS:-$(.venv-test/bin/python -c 'import os; print(min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))')}
options=(--durations=30 --durations-min=5)
[ -n "$fast$WORKERS" ] || workers=$((workers + 1))
[ "$workers" -gt 1 ] && options+=(-n "$workers")
if [ -n "$fast" ]; then
    options+=(-m "not slow")
    named=
    for argument in "$@"; do
        [ -e "${argument%%::*}" ] && named=yes
    done
    [ -n "$named" ] || options+=(tests/unit tests/integration)
fi
OMP_NUM_THREADS=1 exec .venv-test/bin/python -m pytest "${options[@]}" "$@"
