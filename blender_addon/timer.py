# SPDX-License-Identifier: GPL-3.0-or-later
"""The heartbeat: a timer that takes in what the server sent, within a budget of time, and has the panel redrawn.

Timers do not fire without a window; scripts and tests call `pump`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

import bpy

from . import addon_state, import_mesh, import_refined, labels, local_server, preview, properties
from .preferences import preferences
from .session_events import JobEnded, JobStarted, MeshArrived, NewFrame
from .shared.job_states import JobState

BUSY_S, CALM_S, IDLE_S = 0.05, 0.2, 1.0  # between ticks: a job runs, connected, not connected

_drawn = -1  # the session's revision that the panel shows
_auto_import: set[str] = set()  # jobs started here that are to be imported when done
_waiting: list[MeshArrived] = []  # meshes that wait until the artist is out of Edit Mode


def tick() -> None:
    """Take in what is there and act on it."""
    global _drawn
    session = addon_state.session()
    happened = session.tick(preferences().tick_budget_ms / 1000)
    local_server.watch()
    if session.revision != _drawn:
        properties.sync_choices()
        properties.sync_rows()
    fresh = False
    for event in happened:
        if isinstance(event, NewFrame):
            job = properties.active_job()
            fresh |= job is not None and job.job == event.job
        elif isinstance(event, JobStarted):
            _started(event)
        elif isinstance(event, JobEnded):
            _ended(event)
        elif isinstance(event, MeshArrived):
            _arrived(event)
    if fresh and properties.artist().scrub >= 1:
        preview.show_current()  # only the newest: pictures that came in one tick would not be seen
    if _waiting and _is_free():
        _deliver(_waiting.pop(0))
    if fresh or session.revision != _drawn:
        _drawn = session.revision
        _redraw_panels()


def _started(event: JobStarted) -> None:
    properties.sync_rows()
    properties.choose_job(event.job.job)
    if properties.artist().import_when_done:
        _auto_import.add(event.job.job)


def _ended(event: JobEnded) -> None:
    wanted = event.job.job in _auto_import
    _auto_import.discard(event.job.job)
    if wanted and event.job.state == JobState.SUCCEEDED.value and event.job.mesh_bytes:
        addon_state.session().fetch(event.job.job, by_itself=True)


def _is_free() -> bool:
    active = bpy.context.view_layer.objects.active
    return active is None or active.mode == "OBJECT"


def _arrived(event: MeshArrived) -> None:
    # An import that was pressed leaves Edit Mode at once; it asked for that by its tooltip. One that comes by itself waits.
    if event.by_itself and not _is_free():
        _waiting.append(event)
        addon_state.session().say(
            f"“{labels.short(event.job.prompt)}” is imported when you leave Edit Mode", is_error=False
        )
    else:
        _deliver(event)


def _deliver(event: MeshArrived) -> None:
    session, ring = addon_state.session(), addon_state.session().frames.get(event.job.job)
    try:
        picture = ring.at(1.0) if ring else None
        told = f"Imported “{labels.short(event.job.prompt)}”"
        if event.job.mesh:
            told = import_refined.deliver(
                event.job, event.mesh, session.address, properties.artist().mark_as_asset, picture
            )
        else:
            import_mesh.deliver(event.job, event.mesh, session.address, properties.artist().mark_as_asset, picture)
    except (ValueError, RuntimeError, MemoryError) as error:
        session.say(f"“{labels.short(event.job.prompt)}” was not imported: {str(error).strip() or 'out of memory'}")
    else:
        session.say(told, is_error=False)


def _redraw_panels() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "UI":
                        region.tag_redraw()


def pump(until: Callable[[], bool] = lambda: False, timeout_s: float = 1.0) -> bool:
    """Tick by hand until `until` says yes or the time is up; returns what `until` said last."""
    end = time.monotonic() + timeout_s
    while True:
        tick()
        if until():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)


def _on_timer() -> float:
    """The timer; Blender would drop it for ever after one exception, so a fault is told and the next tick comes."""
    try:
        tick()
    except Exception as error:
        traceback.print_exc()
        addon_state.session().say(
            f"Dreamwright stumbled: {type(error).__name__}: {error}; the system console says more"
        )
        return IDLE_S
    session = addon_state.session()
    if not session.is_open:
        return IDLE_S
    busy = session.downloads or any(job.state == JobState.RUNNING.value for job in session.jobs.values())
    return BUSY_S if busy or session.outbox or not session.is_online else CALM_S


def _first_tick() -> None:
    """Once Blender is up: connect when the preferences say so, where that may be done without asking."""
    from .operators import connection_fault

    if preferences().connect_on_start and not addon_state.session().is_open and not connection_fault():
        try:
            addon_state.session().connect(preferences().address)
        except (ValueError, ImportError) as error:
            addon_state.session().say(str(error))


def register() -> None:
    """Start the heartbeat; persistent, or the loading of a file would end it."""
    bpy.app.timers.register(_on_timer, first_interval=0.5, persistent=True)
    if not bpy.app.background:
        bpy.app.timers.register(_first_tick, first_interval=0.3, persistent=True)


def unregister() -> None:
    """Stop it."""
    global _drawn
    for timer in (_on_timer, _first_tick):
        if bpy.app.timers.is_registered(timer):
            bpy.app.timers.unregister(timer)
    _auto_import.clear()
    _waiting.clear()
    _drawn = -1
