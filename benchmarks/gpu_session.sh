#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# All that a CUDA machine with torch is needed for, in under 12 minutes and without a network:
#   bash benchmarks/gpu_session.sh [--minutes 11.5] [--out DIR] [--data DIR] [--tiny]
# gpu_session.py lists the parts. PYTHON names the Python that has torch (python3). Packages that it lacks are installed
# from .whl into SITE (/tmp/dreamwright-site); before, where there is a package index:
#   .venv-test/bin/python benchmarks/gpu_wheels.py collect --python 3.12
#   tar -cJf .whl/starter-data.tar.xz -C runs/multi-view-data .  # only to train the starter there
# The whole tree and .whl may weigh 64 MiB there: 28 are tracked, and the wheels have 30 unless --mebibytes says less.
# On a lent machine whose tool sends the working tree and carries ignored folders, with 10 minutes for a command:
#   run(command="bash benchmarks/gpu_session.sh --minutes 9.5 --commit COMMIT", carry=[".whl"], timeout_s=600)
# where COMMIT is what `git describe --always --dirty` prints here. The section comes back as $OUT/section.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
site=${SITE:-/tmp/dreamwright-site}

if ! "$python" -c 'import torch' 2>/dev/null; then
    echo "gpu_session.sh: $python has no torch; name one that has it: PYTHON=/path/to/python bash benchmarks/gpu_session.sh" >&2
    exit 2
fi
if [ -d .whl ]; then
    "$python" benchmarks/gpu_wheels.py install --target "$site"
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
if ! "$python" -c 'import diffusers, dreamwright.backend' 2>/dev/null; then
    echo "gpu_session.sh: $python has no diffusers or no dreamwright; collect .whl first (gpu_wheels.py), or name an environment that has them" >&2
    exit 2
fi
export PYTHONUNBUFFERED=1 MAX_JOBS="${MAX_JOBS:-$(nproc)}"
exec "$python" benchmarks/gpu_session.py "$@"
