# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker processes found in /proc, and the attempts in worker logs."""

from __future__ import annotations

import re
from pathlib import Path


def is_process_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(parent: int) -> list[int]:
    """Process ids of the running children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def read_attempts(state: Path) -> dict[str, list[tuple[int, int]]]:
    """By job, (attempt, first step) in order of their start, from the worker logs."""
    attempts: dict[str, list[tuple[int, int]]] = {}
    for path in (state / "logs").glob("worker-*.log"):
        for job, attempt, step in re.findall(
            r" attempt begins job=(\w+) attempt=(\d+) step=(\d+)", path.read_text(errors="replace"), re.MULTILINE
        ):
            attempts.setdefault(job, []).append((int(attempt), int(step)))
    return attempts
