# SPDX-License-Identifier: GPL-3.0-or-later
"""In any Blender: variations from the submission to the import of the picked one, and Blender closed midway."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bpy
from headless import ADDON, connect, imported_jobs, session, until

contact_sheet = importlib.import_module(f"{ADDON}.contact_sheet")
thumbnails = importlib.import_module(f"{ADDON}.thumbnails")
storage = importlib.import_module(f"{ADDON}.storage")
panel = bpy.context.window_manager.dreamwright

connect()
panel.variations = 3
bpy.ops.dreamwright.generate(prompt="a red mushroom")
until(lambda: len(session.jobs) == 3 and not session.pending, "the variations")
until(lambda: all(job.state == "succeeded" for job in session.jobs.values()), "their end")
(group,) = session.groups()
bpy.ops.dreamwright.toggle_group(group=group)
contact_sheet.open_editor(bpy.context, group)
until(lambda: thumbnails.count() == 3, "the thumbnails")
until(lambda: not contact_sheet.follow() and session.newest_previews.tiles, "the sheet")
report = {
    "rows": [[bool(row.job), row.group == group] for row in panel.job_rows],
    "sheet": list(bpy.data.images[contact_sheet.IMAGE].size),
    "thumbnails": thumbnails.count(),
}
bpy.ops.dreamwright.pick_variation(group=group, number=2)
report["picked"] = session.picked[group]
bpy.ops.dreamwright.import_picked(group=group)
until(lambda: bool(imported_jobs()), "the import")
bpy.ops.dreamwright.discard_others(group=group)
until(lambda: len(session.jobs) == 1, "the discarding")
report["imported"], report["left"] = imported_jobs(), list(session.jobs)

# Closed midway: the answers never arrive, and the next start finds the requests on disk.
address = session.address
bpy.ops.dreamwright.generate(prompt="a blue chair", count=2)
report["closed midway"] = len(storage.load_submissions(session.folder, address))
print("REPORT " + json.dumps(report))
