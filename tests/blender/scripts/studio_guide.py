# SPDX-License-Identifier: GPL-3.0-or-later
"""An artist of the studio guide: paste the connection string, connect, send the key, generate a prop, import it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bpy
from headless import imported_jobs, poll, preferences, session, until

DESK, NAME = Path(os.environ["DESK"]), os.environ["NAME"]  # a folder for what people send each other
OTHERS = os.environ["OTHERS"].split(",")


def send(what: str, text: str = "") -> None:
    """Leave something on the desk, whole."""
    (DESK / f"{NAME}.part").write_text(text)
    (DESK / f"{NAME}.part").replace(DESK / f"{NAME}.{what}")


bpy.context.preferences.system.use_online_access = True
bpy.ops.dreamwright.paste_connection(text=os.environ["STRING"])
bpy.ops.dreamwright.connect()
until(lambda: session.connection_state == "unauthorized", "the refusal")
report: dict[str, Any] = {"reason": session.reason, "address": preferences.address}
bpy.ops.dreamwright.copy_key()
send("key", session.keys.own_key_text())
panel = bpy.context.window_manager.dreamwright
until(lambda: session.is_online and bool(panel.model_name), "the operator's permission")
bpy.ops.dreamwright.generate(prompt=os.environ["PROMPT"])
until(lambda: any(job.state == "succeeded" for job in session.jobs.values()), "the prop")
bpy.ops.dreamwright.import_mesh(job=next(iter(session.jobs)))
until(lambda: bool(imported_jobs()), "the import")
send("done")
until(lambda: all((DESK / f"{other}.done").exists() for other in OTHERS), "the other artists")
poll(timeout_s=0.5)
report |= {
    "jobs": [(job.prompt, job.owner) for job in session.jobs.values()],
    "objects": [one["dreamwright_prompt"] for one in bpy.data.objects if "dreamwright_prompt" in one],
}
print("REPORT " + json.dumps(report))
