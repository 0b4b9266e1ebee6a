# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: starts a job, and is killed while it runs."""

from __future__ import annotations

import importlib
import json
import os
import signal
from typing import Any

import bpy

ADDON: str  # given by enter.py


def main() -> None:
    """Generate, see the job run, and end without a goodbye."""
    session: Any = importlib.import_module(f"{ADDON}.live").session()
    pump = importlib.import_module(f"{ADDON}.ticking").pump
    bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
    bpy.ops.dreamwright.connect()
    if not pump(lambda: session.is_online and bool(bpy.context.window_manager.dreamwright.model_name), 30):
        raise TimeoutError(session.reason)
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    if not pump(lambda: any(job.step >= 3 and session.frames.get(job.job) for job in session.jobs.values()), 30):
        raise TimeoutError(f"no running job: {session.jobs}, {session.notices}")
    job = next(iter(session.jobs.values()))
    seen = {"job": job.job, "state": job.state, "step": job.step, "client": session._client.client_id}
    print("REPORT " + json.dumps(seen), flush=True)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


main()
