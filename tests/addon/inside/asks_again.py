# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a later Blender without a window: what the earlier one asked for in vain waits, and becomes a job."""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

import bpy

ADDON: str  # given by enter.py


def main() -> None:
    """Look before connecting, connect, and see the job."""
    bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
    session: Any = importlib.import_module(f"{ADDON}.live").session()
    pump = importlib.import_module(f"{ADDON}.ticking").pump
    report: dict[str, Any] = {"waiting": list(session.outbox)}
    bpy.ops.dreamwright.connect()
    if not pump(lambda: session.is_online and not session.outbox and bool(session.jobs), 30):
        raise TimeoutError(f"{session.reason}; {session.outbox}; {session.notices}")
    pump(timeout_s=1.0)  # a second job would have come by now
    report |= {"jobs": [job.prompt for job in session.jobs.values()], "left": [path.name for path in (session.folder / "outbox").iterdir()]}
    print("REPORT " + json.dumps(report))


main()
