#!/usr/bin/env bash
# Set up and run the tests on a machine that has Python 3.11 and pip: bash tests/run.sh [pytest arguments]
# Makes .venv-test (setup.sh), installs Node.js for the Khronos glTF validator where it is missing, then the other Blenders
# that the add-on is tested in.
set -euo pipefail
cd "$(dirname "$0")/.."

bash setup.sh .venv-test -e ".[test,blender]"
if ! { command -v node && command -v npm; } >/dev/null; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends nodejs npm >/dev/null
    else
        echo "tests/run.sh: Node.js and npm are missing; install them, or the glTF validator's tests will skip" >&2
    fi
fi
if command -v npm >/dev/null; then
    (cd tests/node && npm ci --silent --no-fund --no-audit)
fi
bash tests/blender/environments.sh
OMP_NUM_THREADS=1 exec .venv-test/bin/python -m pytest --durations=30 --durations-min=15 "$@"
