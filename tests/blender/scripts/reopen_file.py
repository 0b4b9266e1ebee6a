# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a later Blender without a window: finds the earlier one's job, imports it, and loads another file mid-job."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bpy
from headless import connect, imported_jobs, session, until


def main() -> None:
    """Connect and look; wait for the end and import; then a second job, over the loading of a file."""

    def rows() -> list[str]:
        return [row.job for row in bpy.context.window_manager.dreamwright.job_rows]

    report: dict[str, Any] = {"drawn offline": session.capabilities is not None}
    connect()
    until(lambda: bool(session.jobs) and bool(rows()), "the list of jobs")
    job = next(iter(session.jobs.values()))
    report |= {"rows": rows(), "client": session._client.client_id, "came back to": [job.job, job.state, job.step]}
    until(lambda: len(session.previews.get(job.job, ())) >= 2, "previews of the job that was found")
    until(lambda: session.jobs[job.job].state == "succeeded", "the end of the job")
    bpy.ops.dreamwright.import_mesh(job=job.job)
    until(lambda: imported_jobs() == [job.job], "the import")

    bpy.ops.dreamwright.generate(prompt="a red chair")
    until(lambda: any(one.state == "running" and one.step >= 2 for one in session.jobs.values()), "a second job")
    second = next(one.job for one in session.jobs.values() if one.state == "running")
    bpy.context.window_manager.dreamwright.prompt = "a blue chair"
    path = str(Path(os.environ["BLENDER_USER_RESOURCES"]) / "other.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path, copy=True)
    bpy.ops.wm.read_homefile(use_empty=True)
    report |= {"after a new file": [rows(), bpy.context.window_manager.dreamwright.prompt, imported_jobs()]}
    bpy.ops.wm.open_mainfile(filepath=path)
    report |= {
        "after loading": [
            rows(),
            bpy.context.window_manager.dreamwright.prompt,
            session.jobs[second].state,
            imported_jobs(),
        ]
    }
    step = session.jobs[second].step
    until(lambda: session.jobs[second].step > step, "progress after the loading")
    until(lambda: session.jobs[second].state == "succeeded", "the end of the second job")
    bpy.ops.dreamwright.import_mesh(job=second)
    until(lambda: second in imported_jobs(), "the import into the loaded file")
    report |= {"second": second, "imported": imported_jobs(), "notices": [notice.text for notice in session.notices]}
    print("REPORT " + json.dumps(report))


main()
