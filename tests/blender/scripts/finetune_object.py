# SPDX-License-Identifier: GPL-3.0-or-later
"""Without a window: generate a prop, and fine-tune its object with another prompt."""

from __future__ import annotations

import json
from typing import Any

import bpy
from headless import connect, imported_jobs, session, until


def main() -> None:
    """Generate, import, fine-tune, import."""
    report: dict[str, Any] = {}
    connect()
    bpy.context.window_manager.dreamwright.prompt = "a red mushroom"
    try:
        bpy.ops.dreamwright.finetune_object(prompt="a blue mushroom")
    except RuntimeError as error:
        report["greyed"] = str(error)
    bpy.ops.dreamwright.generate()
    until(lambda: any(job.state == "succeeded" for job in session.jobs.values()), "the job")
    (first,) = session.jobs
    bpy.ops.dreamwright.import_mesh(job=first)
    until(lambda: imported_jobs() == [first], "the import")
    bpy.ops.dreamwright.finetune_object(prompt="a blue mushroom", share=0.25)
    until(
        lambda: len(session.jobs) == 2 and all(job.state == "succeeded" for job in session.jobs.values()),
        "the refined job",
    )
    second = next(job for job in session.jobs if job != first)
    refined = session.jobs[second]
    bpy.ops.dreamwright.import_mesh(job=second)
    until(lambda: len(imported_jobs()) == 2, "the second import")
    made = sorted(
        (one for one in bpy.data.objects if "dreamwright_prompt" in one),
        key=lambda one: one["dreamwright_job"] != first,
    )
    report |= {
        "jobs": [first, second],
        "refined": [refined.prompt, refined.parent_job, refined.settings],
        "objects": [[one["dreamwright_job"], one.get("dreamwright_parent_job")] for one in made],
    }
    print("REPORT " + json.dumps(report))


main()
