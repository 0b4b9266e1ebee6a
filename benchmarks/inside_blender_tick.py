# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender: times the add-on's ticks while previews stream, and while a large mesh is fetched and imported."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import bpy
from tick_stopwatch import cpu_ticks, pause, perform, ticks, timed, until, watch_ticks

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]

QUIET_S = float(os.environ.get("QUIET_S", "10"))  # of previews alone, before the import and after it

ticking: Any = importlib.import_module(f"{ADDON}.timer")
mesh_downloads: Any = importlib.import_module(f"{ADDON}.mesh_downloads")
bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
session: Any = importlib.import_module(f"{ADDON}.addon_state").session()
arrived: list[float] = []  # when each preview came


def watch() -> None:
    """Put stopwatches around a tick and its costly parts."""
    watch_ticks(ticking)
    ticking.preview.show_current = timed("show", ticking.preview.show_current)
    ticking.import_mesh.import_mesh = timed("import", ticking.import_mesh.import_mesh)
    ticking.properties.sync_rows = timed("rows", ticking.properties.sync_rows)
    session.tick = timed("receive", session.tick)
    mesh_downloads.decode_mesh = timed("decode", mesh_downloads.decode_mesh)
    take = session._take_preview

    def counted(frame: Any) -> None:
        arrived.append(time.monotonic())
        take(frame)

    session._take_preview = counted


def work() -> Iterator[float]:
    """One finished job with the large mesh, one that streams; then measure."""
    if not session.is_open:
        bpy.ops.dreamwright.connect()
    yield from until(session, lambda: session.is_online and session.capabilities is not None, "the connection")
    session.submit("a large ball", "", "starter", "quick", 0, {"run.steps": 1})
    yield from until(session, lambda: any(job.state == "succeeded" for job in session.jobs.values()), "the large mesh")
    large = next(job.job for job in session.jobs.values() if job.state == "succeeded")
    session.submit("a red mushroom", "", "starter", "quick", 0, {"run.steps": 10_000})
    if not bpy.app.background:
        bpy.ops.dreamwright.show_preview()
    yield from until(
        session,
        lambda: bool(session.previews.get(session.previewed_job)) and session.previewed_job != large,
        "the previews",
    )
    yield from pause(1.0)

    watch()
    started = time.monotonic()
    yield from pause(QUIET_S)
    fetching = time.monotonic()
    before, rate = len(ticks), len(arrived) / (fetching - started)
    session.download_mesh(large)
    yield from until(session, lambda: any("dreamwright_prompt" in one for one in bpy.data.objects), "the import")
    imported = len(ticks)
    took = time.monotonic() - fetching
    yield from pause(QUIET_S)
    made = next(one for one in bpy.data.objects if "dreamwright_prompt" in one)
    report = {
        "ticks": ticks,
        "cpu": cpu_ticks,
        "fetching": [before, imported],
        "fetch_s": took,
        "previews_per_s": rate,
        "size": list(bpy.data.images["Dreamwright Preview"].size),
        "triangles": len(made.data.polygons),
        "mesh_bytes": session.jobs[large].mesh_bytes,
        "notices": [notice.text for notice in session.notices],
    }
    print("REPORT " + json.dumps(report))


perform(work(), ticking, finish)
