#!/usr/bin/env bash
# Set up and run the tests on a machine that has Python 3.11 and pip: bash tests/run.sh [pytest arguments]
# Makes .venv-test, installs the pinned packages, Node.js for the Khronos glTF validator where it is missing, and Blender
# as a module (bpy) with the system libraries that it opens; then the other Blenders that the add-on is tested in.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}

packages=()
command -v node >/dev/null && command -v npm >/dev/null || packages+=(nodejs npm)
for library in libXi.so.6 libXxf86vm.so.1 libXfixes.so.3 libXrender.so.1 libGL.so.1 libSM.so.6 libxkbcommon.so.0 libEGL.so.1; do
    ldconfig -p | grep -q "$library" || { packages+=(libxi6 libxxf86vm1 libxfixes3 libxrender1 libgl1 libsm6 libxkbcommon0 libegl1); break; }
done
if [ ${#packages[@]} -gt 0 ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
    else
        echo "tests/run.sh: missing system packages: ${packages[*]}; install them, or some tests will skip" >&2
    fi
fi

[ -x .venv-test/bin/python ] || "$python" -m venv .venv-test
.venv-test/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[test,blender]"
if command -v npm >/dev/null; then
    (cd tests/node && npm ci --silent --no-fund --no-audit)
fi
bash tests/addon/environments.sh
OMP_NUM_THREADS=1 exec .venv-test/bin/python -m pytest "$@"
