# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL of a real server and its worker, and the end of a worker whose server is gone.

`tests/soak/kill_points.py` does the same at 20 random points; docs/operator/reliability.md has its figures.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.soak.kill_points import INTERVAL, soak
from tests.soak.worker_processes import children

GRACE_S = 1.0  # in place of ORPHAN_GRACE_S, whose five seconds prove nothing more
STUCK = f"""
import time
from dreamwright.backend.server.workers import worker
worker.ORPHAN_GRACE_S = {GRACE_S}
class Stuck(worker.Worker):
    def serve(self):
        print("stuck", flush=True)
        time.sleep(600)  # as in a kernel that does not return
worker.Worker = Stuck
worker.main()
"""


@pytest.mark.slow
def test_kills_lose_no_job_and_change_no_mesh(tmp_path: Path) -> None:
    """First the server alone, its worker standing still in a step so that it cannot notice; then a worker that
    writes.
    """
    outcome = soak(tmp_path, [("step", "orphan"), ("part", "worker")], 0, 120, (0,))
    assert outcome.faults == []
    assert outcome.identical == outcome.jobs == outcome.tickets >= 2
    assert outcome.waited == 1, "the next attempt waited until the one before was gone"
    assert outcome.interrupted == 2 == len(outcome.kills), "both kills hit a job that had started to step"
    assert max(outcome.steps_lost) <= INTERVAL


def test_stuck_worker_ends_with_its_server() -> None:
    settings = b'{"address": "tcp://127.0.0.1:1", "secret": "s", "device": "cpu"}\n'
    worker = subprocess.Popen([sys.executable, "-c", STUCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        worker.stdin.write(settings)
        worker.stdin.flush()
        assert worker.stdout.readline() == b"stuck\n"
        assert worker.pid in children(os.getpid())
        started = time.monotonic()
        worker.stdin.close()  # what the kernel does when the server dies, however it dies
        assert worker.wait(GRACE_S + 60.0) == 3
        # A lower bound, which a busy machine cannot miss. A tenth is for a grace period measured by another clock.
        assert time.monotonic() - started >= GRACE_S - 0.1, "the grace period was not cut short"
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
