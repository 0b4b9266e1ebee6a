# SPDX-License-Identifier: GPL-3.0-or-later
"""The timer that processes the server's messages within a time budget, imports results and redraws the panel.

Blender runs timers only in its window; scripts and tests without one call `poll`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

import bpy

from . import (
    active_list,
    addon_state,
    checks,
    contact_sheet,
    import_queue,
    live_mesh,
    local_server,
    model_rows,
    preview,
    properties,
    thumbnails,
)
from .session_events import JobEnded, JobStarted, PreviewReceived, ThumbnailReady
from .shared.job_states import JobState
from .wording import say

ACTIVE_S, ONLINE_S, IDLE_S = 0.05, 0.2, 1.0  # interval while a job runs, while connected, otherwise

_drawn_revision = -1  # revision of the session that the panel shows


def tick() -> None:
    """Process what has arrived."""
    global _drawn_revision
    started = time.perf_counter()
    session = addon_state.session()
    events = session.tick(addon_state.preferences().tick_budget_ms / 1000)
    local_server.check_exit()
    if session.revision != _drawn_revision:
        properties.sync_choices()
        properties.sync_rows()
        model_rows.sync()
        thumbnails.remove_others()
    has_new_preview = has_new_thumbnail = False
    for event in events:
        if isinstance(event, PreviewReceived):
            job = addon_state.active_job()
            has_new_preview |= job is not None and job.job == event.job
        elif isinstance(event, ThumbnailReady):
            thumbnails.update(event.job)  # one a tick at most
            has_new_thumbnail = True
        elif isinstance(event, JobStarted):
            _on_job_started(event)
        elif isinstance(event, JobEnded):
            import_queue.job_ended(event)
        else:
            import_queue.arrived(event)
    active_list.step()
    if has_new_preview and addon_state.properties().preview_position >= 1:
        preview.show_current()  # only the latest of this tick
    elif not has_new_thumbnail:
        contact_sheet.follow(time.perf_counter() - started)  # in a tick with little else to do
    live_mesh.follow(may_unpack=not has_new_preview and not has_new_thumbnail)
    import_queue.step()
    if has_new_preview or has_new_thumbnail or session.revision != _drawn_revision:
        _drawn_revision = session.revision
        _redraw_panels()


def _on_job_started(event: JobStarted) -> None:
    properties.sync_rows()
    if active_list.owns(event.job.job):
        return
    if event.job.group in addon_state.session().groups():
        properties.choose_group(event.job.group)
    else:
        properties.choose_job(event.job.job)
    if addon_state.properties().import_when_done and not event.job.group:  # of variations one is picked first
        import_queue.want_when_done(event)


def _redraw_panels() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "UI":
                        region.tag_redraw()


def poll(until: Callable[[], bool] = lambda: False, timeout_s: float = 1.0) -> bool:
    """Tick until `until()` is true or the time is up; the last result of `until`."""
    end = time.monotonic() + timeout_s
    while True:
        tick()
        if until():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)


def _on_timer() -> float:
    """Tick, and return the seconds until the next tick. Reports exceptions: Blender would drop the timer for ever."""
    try:
        tick()
    except Exception as error:
        traceback.print_exc()
        addon_state.session().notify(
            say(
                "Dreamwright had an internal error: {kind}: {error}; the system console has the details",
                kind=type(error).__name__,
                error=error,
            )
        )
        return IDLE_S
    session = addon_state.session()
    if not session.is_open:
        return IDLE_S
    is_active = session.downloads or any(job.state == JobState.RUNNING.value for job in session.jobs.values())
    is_active = is_active or session.newest_previews.is_busy
    return ACTIVE_S if is_active or session.pending or not session.is_online else ONLINE_S


def _connect_on_start() -> None:
    """Connect after Blender has started, where the preferences and the online access allow it."""
    preferences, session = addon_state.preferences(), addon_state.session()
    if preferences.connect_on_start and not session.is_open and not checks.connection_fault():
        try:
            session.connect(preferences.address)
        except (ValueError, ImportError) as error:
            session.notify(str(error))


def register() -> None:
    """Start the timer; persistent, so that loading a file does not end it."""
    bpy.app.timers.register(_on_timer, first_interval=0.5, persistent=True)
    if not bpy.app.background:
        bpy.app.timers.register(_connect_on_start, first_interval=0.3, persistent=True)


def unregister() -> None:
    """Stop the timer."""
    global _drawn_revision
    for timer in (_on_timer, _connect_on_start):
        if bpy.app.timers.is_registered(timer):
            bpy.app.timers.unregister(timer)
    import_queue.clear()
    _drawn_revision = -1
