# SPDX-License-Identifier: GPL-3.0-or-later
"""The growing prop of the selected job in the 3D views, drawn over the scene at its 3D cursor: no datablock is made.

It is drawn where the prop would be imported now, until it is imported or its job ends without a mesh.
"""

from __future__ import annotations

import traceback
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import addon_state, compat, import_places
from .live_mesh_shading import DrawnMesh, drawn
from .shared.job_states import ENDED, JobState
from .shared.messages import JobSummary
from .wording import say

_mesh: DrawnMesh | None = None
_batch: Any = None  # of `_mesh`, made when it is first drawn: only then is there a graphics context
_handler: Any = None
_fault = ""  # of the drawing
_is_overdue = False  # a live mesh has waited for a tick


def shown() -> DrawnMesh | None:
    """What is drawn now."""
    return _mesh


def follow(may_unpack: bool = True) -> None:
    """Ask for the live meshes of the selected job while it runs, draw the newest, and remove what is over.

    A new one is left for the next tick where `may_unpack` is false, as this one has had its share of work. It waits for
    one tick only: on a slow machine every tick has a preview.
    """
    global _is_overdue
    session, job = addon_state.session(), addon_state.active_job()
    if _fault:
        _give_up()
    is_wanted = bool(addon_state.properties().watch_in_view)
    # A refined mesh is not shown: the object that it comes from stands there already.
    watched = job if is_wanted and job is not None and not job.mesh and JobState(job.state) not in ENDED else None
    session.watch_mesh_of(watched.job if watched is not None else "")
    if _mesh is not None and not (is_wanted and job is not None and job.job == _mesh.job and _may_stay(job)):
        clear()
    if not may_unpack and not _is_overdue:
        _is_overdue = session.has_live_mesh
        return
    _is_overdue = False
    frame = session.take_live_mesh()
    if frame is None or watched is None or frame.job != watched.job:
        return
    try:
        _show(drawn(frame))
    except ValueError as error:  # also ProtocolError
        session.notify(say("The prop cannot be shown in the 3D view: {reason}", reason=error))


def _give_up() -> None:
    """Draw nothing until the user wants it again."""
    global _fault
    reason, _fault = _fault, ""
    addon_state.properties().watch_in_view = False
    addon_state.session().notify(
        say("The prop cannot be drawn in the 3D view: {reason}; the system console has the details", reason=reason)
    )


def _may_stay(job: JobSummary) -> bool:
    """Whether the prop is still to be imported."""
    return JobState(job.state) not in ENDED or bool(job.mesh_bytes)


def imported(job: str) -> None:
    """The prop of a job is an object now."""
    if _mesh is not None and _mesh.job == job:
        clear()


def clear() -> None:
    """Draw nothing any more."""
    global _mesh, _batch, _handler
    was_drawn = _mesh is not None
    _mesh = _batch = None
    if _handler is not None:
        bpy.types.SpaceView3D.draw_handler_remove(_handler, "WINDOW")
        _handler = None
    if was_drawn:
        _redraw()


def _show(mesh: DrawnMesh) -> None:
    global _mesh, _batch, _handler
    _mesh, _batch = mesh, None
    if _handler is None and not bpy.app.background:  # which has no graphics
        _handler = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")
    _redraw()


def _draw() -> None:
    """Draw the mesh in one region; an exception is kept for the next tick, or each redraw would raise it again."""
    global _fault
    if _fault:
        return
    try:
        _draw_mesh()
    except Exception as error:
        traceback.print_exc()
        _fault = str(error) or type(error).__name__


def _draw_mesh() -> None:
    global _batch
    if _mesh is None:
        return
    import gpu
    from gpu_extras.batch import batch_for_shader

    shader = compat.smooth_color_shader()
    if _batch is None:
        content = {"pos": _mesh.positions, "color": _mesh.colors}
        _batch = batch_for_shader(shader, "TRIS", content, indices=_mesh.corners)
    scene = bpy.context.scene
    gpu.state.depth_test_set("LESS_EQUAL")
    gpu.state.depth_mask_set(True)
    try:
        with gpu.matrix.push_pop():
            gpu.matrix.translate(scene.cursor.location)
            gpu.matrix.scale_uniform(import_places.units_per_meter(scene))
            _batch.draw(shader)
    finally:
        gpu.state.depth_mask_set(False)
        gpu.state.depth_test_set("NONE")


def _redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "WINDOW":
                        region.tag_redraw()


@persistent
def _before_load(*_: Any) -> None:
    clear()


def register() -> None:
    """Nothing is drawn before the first live mesh."""
    bpy.app.handlers.load_pre.append(_before_load)


def unregister() -> None:
    """Remove what is drawn."""
    bpy.app.handlers.load_pre.remove(_before_load)
    clear()
