# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a later Blender without a window: what the earlier one asked for in vain waits, and becomes a job."""

from __future__ import annotations

import json
from typing import Any

from headless import connect, poll, session, until


def main() -> None:
    """Look before connecting, connect, and see the job."""
    report: dict[str, Any] = {"waiting": list(session.pending)}
    connect()
    until(lambda: not session.pending and bool(session.jobs), "the job that was asked for")
    poll(timeout_s=1.0)  # a second job would have come by now
    report |= {
        "jobs": [job.prompt for job in session.jobs.values()],
        "left": [path.name for path in (session.folder / "outbox").iterdir()],
    }
    print("REPORT " + json.dumps(report))


main()
