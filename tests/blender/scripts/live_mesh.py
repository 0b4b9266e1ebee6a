# SPDX-License-Identifier: GPL-3.0-or-later
"""Without a window: live meshes arrive and are unpacked, nothing is drawn, and the import ends it."""

from __future__ import annotations

import importlib
import os
from typing import Any

import bpy
from headless import connect, imported_jobs, session, until

live: Any = importlib.import_module(f"{os.environ['DREAMWRIGHT_TEST_ADDON']}.live_mesh")


def main() -> None:
    """Watch, import."""
    connect()
    bpy.context.window_manager.dreamwright.prompt = "a red mushroom"
    bpy.ops.dreamwright.generate()
    until(lambda: live.shown() is not None, "a live mesh")
    assert live._handler is None, "a background Blender draws nothing"
    until(lambda: any(job.state == "succeeded" for job in session.jobs.values()), "the job")
    job = next(iter(session.jobs))
    bpy.ops.dreamwright.import_mesh(job=job)
    until(lambda: imported_jobs() == [job], "the import")
    assert live.shown() is None
    print("SHOWN")


main()
