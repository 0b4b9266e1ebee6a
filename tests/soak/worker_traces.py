# SPDX-License-Identifier: GPL-3.0-or-later
"""What workers show to one who looks from outside: their processes in /proc, and the attempts in their logs."""

from __future__ import annotations

import re
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(parent: int) -> list[int]:
    """Processes whose parent is this one, by /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if int(told[1]) == parent and told[0] != "Z":
            found.append(int(path.parent.name))
    return found


def read_attempts(state: Path) -> dict[str, list[tuple[int, int]]]:
    """By job, (attempt, first step) in the order in which workers began them, from the workers' log."""
    attempts: dict[str, list[tuple[int, int]]] = {}
    for path in (state / "logs").glob("worker-*.log"):
        for job, attempt, step in re.findall(
            r" attempt begins job=(\w+) attempt=(\d+) step=(\d+)", path.read_text(errors="replace"), re.MULTILINE
        ):
            attempts.setdefault(job, []).append((int(attempt), int(step)))
    return attempts
