#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Set up Dreamwright on a machine that has Python 3.11 and pip: bash setup.sh [FOLDER [PIP ARGUMENTS]]
# Makes the environment FOLDER (.venv), installs this checkout with Blender as a module (bpy) at the pinned versions, and
# as root the system libraries that bpy opens. A second run brings it up to date. PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3.11}
folder=${1:-.venv}
shift || true
[ $# -gt 0 ] || set -- ".[blender]"

if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    echo "setup.sh: $python is not Python 3.11, which bpy 4.5 needs; install it, or name one: PYTHON=/path/to/python3.11 bash setup.sh" >&2
    exit 2
fi

if command -v ldconfig >/dev/null; then
    for library in libXi.so.6 libXxf86vm.so.1 libXfixes.so.3 libXrender.so.1 libGL.so.1 libSM.so.6 libxkbcommon.so.0 libEGL.so.1; do
        ldconfig -p | grep -q "$library" && continue
        packages=(libxi6 libxxf86vm1 libxfixes3 libxrender1 libgl1 libsm6 libxkbcommon0 libegl1)
        if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
            apt-get -qq update
            DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
        else
            echo "setup.sh: $library is missing, and Blender needs it; on Debian and Ubuntu: sudo apt-get install ${packages[*]}" >&2
        fi
        break
    done
fi

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt "$@"
