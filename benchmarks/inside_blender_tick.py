# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender: times the add-on's ticks while previews stream, and while a large mesh is fetched and imported."""

from __future__ import annotations

import functools
import importlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import bpy

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]

QUIET_S = float(os.environ.get("QUIET_S", "10"))  # of previews alone, before the import and after it

ticking: Any = importlib.import_module(f"{ADDON}.timer")
mesh_downloads: Any = importlib.import_module(f"{ADDON}.mesh_downloads")
bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
session: Any = importlib.import_module(f"{ADDON}.addon_state").session()

ticks: list[dict[str, float]] = []  # milliseconds, by part
cpu_ticks: list[dict[str, float]] = []
parts: dict[str, float] = {}
cpu: dict[str, float] = {}  # the same without the time in which other programs ran
arrived: list[float] = []  # when each preview came


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its time added to the tick's part of this name."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        started, worked = time.perf_counter(), time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            parts[name] = parts.get(name, 0.0) + 1000 * (time.perf_counter() - started)
            cpu[name] = cpu.get(name, 0.0) + 1000 * (time.thread_time() - worked)

    return wrapper


def watch() -> None:
    """Put stopwatches around a tick and its costly parts."""
    tick = timed("tick", ticking.tick)

    def whole() -> None:
        parts.clear()
        cpu.clear()
        tick()
        ticks.append(dict(parts))
        cpu_ticks.append(dict(cpu))

    ticking.tick = whole
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


def until(happened: Callable[[], bool], what: str, seconds: float = 60.0) -> Iterator[float]:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen in {seconds:.0f} s; {session.reason}; {session.notices}")
        yield 0.05


def pause(seconds: float) -> Iterator[float]:
    """Let ticks happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield 0.05


def work() -> Iterator[float]:
    """One finished job with the large mesh, one that streams; then measure."""
    if not session.is_open:
        bpy.ops.dreamwright.connect()
    yield from until(lambda: session.is_online and session.capabilities is not None, "the connection")
    session.submit("a large ball", "", "starter", "quick", 0, {"run.steps": 1})
    yield from until(lambda: any(job.state == "succeeded" for job in session.jobs.values()), "the large mesh")
    large = next(job.job for job in session.jobs.values() if job.state == "succeeded")
    session.submit("a red mushroom", "", "starter", "quick", 0, {"run.steps": 10_000})
    if not bpy.app.background:
        bpy.ops.dreamwright.show_preview()
    yield from until(
        lambda: bool(session.previews.get(session.previewed_job)) and session.previewed_job != large, "the previews"
    )
    yield from pause(1.0)

    watch()
    started = time.monotonic()
    yield from pause(QUIET_S)
    fetching = time.monotonic()
    before, rate = len(ticks), len(arrived) / (fetching - started)
    session.download_mesh(large)
    yield from until(lambda: any("dreamwright_prompt" in one for one in bpy.data.objects), "the import")
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


STEPS = work()


def turn() -> float | None:
    """In a window: one step of the work, beside the add-on's own timer."""
    try:
        return next(STEPS)
    except StopIteration:
        finish(0)
    except Exception:
        traceback.print_exc()
        finish(1)
    return None


def main() -> None:
    """With a window Blender fires the timers; without one they are called as it would."""
    if not bpy.app.background:
        bpy.app.timers.register(turn, first_interval=1.0)
        return
    due = 0.0
    for wait in STEPS:
        end = time.monotonic() + wait
        while time.monotonic() < end:
            if time.monotonic() >= due:
                due = time.monotonic() + ticking._on_timer()
            time.sleep(0.005)


main()
