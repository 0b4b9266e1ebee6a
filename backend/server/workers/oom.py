# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the kernel ended processes for want of memory? Counted by Linux for the server's own cgroup, or the whole machine."""

from __future__ import annotations

from pathlib import Path

OWN_CGROUP, CGROUPS, VMSTAT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"), Path("/proc/vmstat")


def oom_kills(own: Path = OWN_CGROUP, cgroups: Path = CGROUPS, vmstat: Path = VMSTAT) -> int | None:
    """How many processes so far; None where nobody counts.

    One number alone says nothing; a number that has grown while a worker was killed makes want of memory the likely reason.
    """
    return _counted(_events_file(own, cgroups) or vmstat)


def _events_file(own: Path, cgroups: Path) -> Path | None:
    """memory.events of the cgroup (v2) that this process is in; the root has none."""
    try:
        line = next(line for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    path = cgroups / line.removeprefix("0::").lstrip("/") / "memory.events"
    return path if path.is_file() else None


def _counted(path: Path) -> int | None:
    """The line `oom_kill NUMBER` of a file."""
    try:
        return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("oom_kill "))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
