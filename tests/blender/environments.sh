#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Set up the Blenders that the add-on is tested in: bash tests/blender/environments.sh
# Makes .blenders/bpy-VERSION for each module (4 GB), and installs Debian's Blender with a virtual display. A second run
# changes nothing and takes a fraction of a second. What cannot be had is said in one line, and the tests of that Blender
# skip; the exit status is 0 all the same, so that a laptop with one Blender still tests that one. DREAMWRIGHT_BLENDERS
# names the folder, PYTHON311 and PYTHON313 the interpreters.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${DREAMWRIGHT_BLENDERS:-.blenders}
python311=${PYTHON311:-$(command -v python3.11 || true)}
python313=${PYTHON313:-/root/.pyenv/versions/3.13.0/bin/python}
[ -x "$python313" ] || python313=$(command -v python3.13 || true)

missing() {
    echo "environments.sh: $1" >&2
}

runs() {
    # A pyenv shim exists for versions that are not switched on, so only running it tells.
    [ -n "$1" ] && "$1" -c "import sys; sys.exit(sys.version_info[:2] != ($2))" 2>/dev/null
}

module() {
    # One Blender as a Python module, alone in its environment: zmq and msgpack must come from the add-on's wheels.
    local version=$1 python=$2 wanted=$3 place="$folder/bpy-$1" log="$folder/bpy-$1.log"
    local packages=("bpy==$version" "${@:4}")
    [ "$(cat "$place/ready" 2>/dev/null)" = "${packages[*]}" ] && { echo "bpy $version: here"; return; }
    if ! runs "$python" "${wanted/./, }"; then
        missing "bpy $version: needs Python $wanted, which is not here (set PYTHON${wanted/./}); its tests skip"
        return
    fi
    rm -rf "$place"
    mkdir -p "$folder"
    if "$python" -m venv "$place" >"$log" 2>&1 && "$place/bin/python" -m pip install -q --disable-pip-version-check --only-binary=:all: "${packages[@]}" >>"$log" 2>&1; then
        echo "${packages[*]}" >"$place/ready"
        echo "bpy $version: installed"
    else
        missing "bpy $version: could not be installed (see $log); its tests skip"
    fi
}

debian() {
    # Debian's own Blender: 3.4 on Debian 12. Its Python is the system's, hence the system's packages.
    local packages=(blender xvfb python3-zmq python3-msgpack python3-numpy python3-dnspython python3-ifaddr) wanted=() package log="$folder/debian.log"
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        missing "Debian's Blender: this machine has no apt; its tests skip"
        return
    fi
    for package in "${packages[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || wanted+=("$package")
    done
    if [ ${#wanted[@]} -eq 0 ]; then
        echo "Debian's Blender: here"
    elif [ "$(id -u)" != 0 ]; then
        missing "Debian's Blender: run as root: apt-get install --no-install-recommends ${wanted[*]}; its tests skip"
    else
        mkdir -p "$folder"
        if apt-get -qq update >"$log" 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${wanted[@]}" >>"$log" 2>&1; then
            echo "Debian's Blender: installed"
        else
            missing "Debian's Blender: apt-get failed (see $log); its tests skip"
        fi
    fi
}

mkdir -p "$folder"
if command -v flock >/dev/null; then # two at once would install into one environment
    exec 9>"$folder/lock"
    flock 9
fi
# 4.2 was built for numpy 1, but its wheel does not say so.
module 4.2.23 "$python311" 3.11 "numpy<2"
module 4.5.15 "$python311" 3.11
module 5.0.1 "$python311" 3.11
module 5.2.3 "$python313" 3.13
debian
