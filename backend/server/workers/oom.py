# SPDX-License-Identifier: GPL-3.0-or-later
"""How many processes the Linux kernel has killed for lack of memory, in the server's cgroup or on the whole machine."""

from __future__ import annotations

from pathlib import Path

OWN_CGROUP, CGROUPS, VMSTAT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"), Path("/proc/vmstat")


def oom_kills(own: Path = OWN_CGROUP, cgroups: Path = CGROUPS, vmstat: Path = VMSTAT) -> int | None:
    """Processes killed so far; None where the system does not count them.

    A count that grew while a worker was killed makes lack of memory the likely reason; the count alone means nothing.
    """
    return _read_count(_events_file(own, cgroups) or vmstat)


def _events_file(own: Path, cgroups: Path) -> Path | None:
    """memory.events of this process's cgroup (v2); the root cgroup has none."""
    try:
        line = next(line for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    path = cgroups / line.removeprefix("0::").lstrip("/") / "memory.events"
    return path if path.is_file() else None


def _read_count(path: Path) -> int | None:
    """The number in the line `oom_kill NUMBER`; None without such a line."""
    try:
        return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("oom_kill "))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
