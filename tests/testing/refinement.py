# SPDX-License-Identifier: GPL-3.0-or-later
"""Refine the active mesh against a fake server that lifts it, and import the result."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from tests.testing.addon_driver import AddonDriver

STRENGTH = 0.25


def lifted(where: np.ndarray) -> np.ndarray:
    """(V, 3) what the fake server makes of vertices: it moves them up by the strength."""
    return where + np.array([0, 0, STRENGTH])


def refine(blender: AddonDriver, result: str = "OBJECT", **options: Any) -> str:
    """Refine the active mesh, wait for the end of the job, and return it."""
    known = set(blender.session.jobs)
    options = {"prompt": "a red chair", "strength": STRENGTH, "result": result} | options
    assert bpy.ops.dreamwright.refine_mesh(**options) == {"FINISHED"}
    is_submitted = blender.poll(lambda: bool(set(blender.session.jobs) - known) and not blender.session.pending)
    assert is_submitted, blender.notices()
    job = (set(blender.session.jobs) - known).pop()
    assert blender.poll(lambda: blender.session.jobs[job].state == "succeeded"), blender.session.jobs[job]
    return job


def import_result(blender: AddonDriver, job: str) -> str:
    """Import a job's mesh; the notice about it."""
    blender.session.notices.clear()
    assert bpy.ops.dreamwright.import_mesh(job=job) == {"FINISHED"}
    assert blender.poll(lambda: bool(blender.session.notices))
    return blender.notices()
