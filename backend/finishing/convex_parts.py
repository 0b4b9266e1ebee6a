# SPDX-License-Identifier: GPL-3.0-or-later
"""Nearly convex parts of a mesh by CoACD, in a child process: its search can take minutes and cannot be interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import RunError, StoppedError
from ..geometry.topology import FloatArray, Surface
from ..io.child_process import close_stdin, end_with_parent, start_child

LIMIT_S = 180.0  # after which the search is given up; it takes seconds on an idle machine
POLL_S = 0.1
# A tenth of CoACD's default time; its parts are as many and nearly as tight on coarse meshes.
SEARCH = {"mcts_nodes": 8, "mcts_iterations": 20, "mcts_max_depth": 1, "resolution": 300}


def convex_parts(
    surface: Surface, count: int, concavity: float, should_stop: Callable[[], bool], limit_s: float = LIMIT_S
) -> list[FloatArray] | None:
    """Corners (m, 3) of the hulls of at most `count` parts; None where that takes longer than `limit_s`.

    surface: of a few hundred triangles. Raises StoppedError, and RunError where CoACD fails.
    """
    with tempfile.TemporaryDirectory(prefix="dreamwright-") as folder:
        source, made, log = (Path(folder) / name for name in ("mesh.npz", "parts.npz", "log.txt"))
        np.savez(source, vertices=surface.vertices, faces=surface.faces)
        request = {"source": str(source), "made": str(made), "count": count, "concavity": concavity}
        with open(log, "wb") as output:
            child = start_child(__name__, request, output)
            try:
                end = time.monotonic() + limit_s
                while child.poll() is None:
                    if should_stop():
                        raise StoppedError("stopped; nothing was written")
                    if time.monotonic() > end:
                        return None
                    time.sleep(POLL_S)
            finally:
                _end(child)
        if child.returncode or not made.is_file():
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise RunError(
                f"CoACD found no collision hulls ({said[0] if said else f'exit status {child.returncode}'}); set "
                "finish.hulls=1 for one hull"
            )
        with np.load(made) as parts:
            return [parts[name] for name in parts.files]


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
    child.wait()
    close_stdin(child)


def main() -> None:
    """In the child: read the request, search, write the parts."""
    request = json.loads(sys.stdin.buffer.readline())
    end_with_parent()
    import coacd

    with np.load(request["source"]) as mesh:
        vertices, faces = mesh["vertices"], mesh["faces"]
    low = vertices.min(axis=0)
    size = float(np.ptp(vertices, axis=0).max())
    coacd.set_log_level("error")
    found = coacd.run_coacd(
        coacd.Mesh((vertices - low) / size, faces.astype(np.int32)),
        threshold=request["concavity"],
        max_convex_hull=request["count"],
        seed=0,
        **SEARCH,
    )
    np.savez(request["made"], *(low + size * np.asarray(points, np.float64) for points, _ in found))


if __name__ == "__main__":
    main()
