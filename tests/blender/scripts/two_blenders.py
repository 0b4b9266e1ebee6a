# SPDX-License-Identifier: GPL-3.0-or-later
"""One of two Blenders of the same user on one server: the first asks for a prop, the second watches, then imports."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bpy
from headless import connect, imported_jobs, poll, session, until

SHARED = Path(os.environ["BLENDER_USER_RESOURCES"])
IS_FIRST = os.environ["ROLE"] == "first"


def told(name: str) -> bool:
    """Whether the other Blender has come so far."""
    return (SHARED / name).exists()


def tell(name: str) -> None:
    (SHARED / name).write_text("")


connect()
report: dict[str, Any] = {"client": session._client.client_id}
if IS_FIRST:
    until(lambda: told("second is here"), "the second Blender")
    bpy.context.window_manager.dreamwright.import_when_done = True
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    until(lambda: len(imported_jobs()) == 1, "the import when done")
    tell("first has it")
    until(lambda: told("second has it"), "the second Blender's import")
    poll(timeout_s=0.2)
else:
    bpy.context.window_manager.dreamwright.import_when_done = True
    tell("second is here")
    until(lambda: told("first has it"), "the first Blender's import")
    until(lambda: any(job.state == "succeeded" for job in session.jobs.values()), "the job in the list")
    poll(timeout_s=0.2)
    report["by itself"] = imported_jobs()
    bpy.ops.dreamwright.import_mesh(job=next(iter(session.jobs)))
    until(lambda: len(imported_jobs()) == 1, "the import by button")
    tell("second has it")
report |= {"jobs": len(session.jobs), "imported": len(imported_jobs())}
print("REPORT " + json.dumps(report))
