# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server is alive and whether it can take and run jobs, for the checks of containers and load balancers."""

from __future__ import annotations

from .status_reporter import MetricsSnapshot

SILENT_S = 60.0  # without a turn of the server's loop after which it counts as hung; a turn takes milliseconds
MIN_FREE_BYTES = 100_000_000  # on the state folder's disk; below it a checkpoint may not fit


def liveness_fault(silent_s: float) -> str:
    """Why the server should be restarted; "" if it should not. `silent_s`: since its loop last turned."""
    return f"the server has done nothing for {silent_s:.0f} seconds" if silent_s > SILENT_S else ""


def readiness_faults(snapshot: MetricsSnapshot | None, silent_s: float) -> tuple[str, ...]:
    """Why the server cannot take a job and run it; () if it can. None: it has not begun to serve."""
    if snapshot is None:
        return ("the server is starting",)
    faults = [liveness_fault(silent_s)]
    if snapshot.is_closing:
        faults.append("the server is stopping")
    if snapshot.disk_free_bytes < MIN_FREE_BYTES:
        faults.append(f"the disk of the state folder has {snapshot.disk_free_bytes // 10**6} MB free")
    if not snapshot.busy:
        faults.append("there is no device")
    elif all(snapshot.drained.get(device) for device in snapshot.busy):
        faults.append("every device is drained")
    return tuple(fault for fault in faults if fault)
