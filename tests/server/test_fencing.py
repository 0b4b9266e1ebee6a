# SPDX-License-Identifier: GPL-3.0-or-later
"""Of two attempts of a job only the later may write, and it waits until the earlier has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamwright.backend.server.workers.fencing import FENCE_FILE, SupersededError, check_fence, lock, raise_fence

HOLDER = """
import sys, time
from pathlib import Path
from dreamwright.backend.server.workers.fencing import lock
with lock(Path(sys.argv[1]), int(sys.argv[2]), lambda: False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_only_the_latest_attempt_passes_the_fence(tmp_path: Path) -> None:
    raise_fence(tmp_path / "job", 1)
    check_fence(tmp_path / "job", 1)
    raise_fence(tmp_path / "job", 2)
    with pytest.raises(SupersededError, match="given to attempt 2; this is attempt 1"):
        check_fence(tmp_path / "job", 1)
    assert [path.name for path in (tmp_path / "job").iterdir()] == [FENCE_FILE], "nothing half written stays"


@pytest.mark.parametrize("content", ["", "two", None])
def test_unreadable_fence_blocks_every_attempt(content: str | None, tmp_path: Path) -> None:
    raise_fence(tmp_path, 1)
    (tmp_path / FENCE_FILE).unlink()
    if content is not None:
        (tmp_path / FENCE_FILE).write_text(content)
    with pytest.raises(SupersededError):
        check_fence(tmp_path, 1)


def test_second_worker_waits_until_the_first_ends(tmp_path: Path) -> None:
    raise_fence(tmp_path, 1)
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), "1"], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        first.send_signal(signal.SIGSTOP)
        raise_fence(tmp_path, 2)
        looks: list[float] = []

        def waiting() -> bool:
            looks.append(time.monotonic())
            if len(looks) == 3:
                os.kill(first.pid, signal.SIGKILL)
            return False

        with lock(tmp_path, 2, waiting) as mine:
            assert mine and len(looks) >= 3 and first.wait(60) == -signal.SIGKILL
    finally:
        first.kill()
        first.wait()
        first.stdout.close()


def test_waiting_worker_can_be_stopped_or_superseded(tmp_path: Path) -> None:
    raise_fence(tmp_path, 1)
    with lock(tmp_path, 1, lambda: False) as first:
        assert first
        raise_fence(tmp_path, 2)
        with lock(tmp_path, 2, lambda: True) as second:
            assert not second

        def third() -> bool:
            raise_fence(tmp_path, 3)
            return False

        with pytest.raises(SupersededError), lock(tmp_path, 2, third):
            pass
