# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports of downloaded meshes: at once where Blender can take them, else when it can; each into its place."""

from __future__ import annotations

import bpy

from . import active_list, addon_state, import_mesh, import_places, import_refined, labels, live_mesh, placement
from .session_events import JobEnded, JobStarted, MeshDownloaded
from .shared.job_states import JobState
from .wording import say

_wanted: dict[str, import_places.Place] = {}  # by job of this Blender that is imported when done: where
_waiting: list[MeshDownloaded] = []  # until Blender can take them


def want_when_done(event: JobStarted) -> None:
    """Import the prop of a job as soon as it is ready, unless another Blender has submitted it."""
    if event.place is not None:
        _wanted[event.job.job] = event.place


def job_ended(event: JobEnded) -> None:
    """Download the prop of a job that is imported when done."""
    place = _wanted.pop(event.job.job, None)
    if place is not None and event.job.state == JobState.SUCCEEDED.value and event.job.mesh_bytes:
        addon_state.session().download_mesh(event.job.job, is_automatic=True, place=place)


def arrived(event: MeshDownloaded) -> None:
    """Import a mesh, or say what its import waits for."""
    active_list.arrived(event.job.job)
    when = import_places.delay()
    # The Import button leaves Edit Mode at once, as its tooltip states. An automatic import waits.
    must_wait = event.is_automatic or bpy.app.is_job_running("RENDER") or not import_places.is_shown(event.place)
    if not when or not must_wait:
        _import(event)
        return
    _waiting.append(event)
    addon_state.session().notify(
        say("“{prompt}” will be imported when {when}", prompt=labels.short(event.job.prompt), when=when), is_error=False
    )


def step() -> None:
    """Import one of the waiting meshes, once Blender can take it."""
    if _waiting and not import_places.delay():
        _import(_waiting.pop(0))


def clear() -> None:
    """Forget all; the props stay on the server."""
    _wanted.clear()
    _waiting.clear()


def _import(event: MeshDownloaded) -> None:
    session, prompt = addon_state.session(), labels.short(event.job.prompt)
    if event.place is not None and not event.place.is_open:
        session.notify(
            say(
                "“{prompt}” was not imported, as another file is open now; press Import to have it in this one",
                prompt=prompt,
            ),
            is_error=False,
        )
        return
    label = active_list.label_of(event.job.job)
    try:
        with import_places.entered(event.place) as (stage, scene_clause):
            done, collection_clause = _import_on(stage, event, label)
    except (ValueError, RuntimeError, MemoryError) as error:
        reason = str(error).strip() or say("out of memory")
        session.notify(say("“{prompt}” was not imported: {reason}", prompt=prompt, reason=reason))
        active_list.not_imported(event.job.job, reason)
    else:
        live_mesh.imported(event.job.job)
        if label is None:  # a list says once that it is done
            session.notify("; ".join(part for part in (done, scene_clause, collection_clause) if part), is_error=False)


def _import_on(
    stage: import_places.Stage, event: MeshDownloaded, label: import_mesh.AssetLabel | None
) -> tuple[str, str]:
    """What was done, as a sentence, and a clause about the collection; "" when it is the active one."""
    session, as_asset = addon_state.session(), addon_state.properties().mark_as_asset
    history = session.previews.get(event.job.job)
    thumbnail = history.at(1.0) if history else None
    if event.job.mesh:
        done = import_refined.import_refined(event.job, event.mesh, session.address, as_asset, thumbnail, stage)
        return done, ""
    if label is None:
        made = import_mesh.import_mesh(event.job, event.mesh, session.address, as_asset, thumbnail, stage=stage)
    else:
        made = import_mesh.import_mesh(event.job, event.mesh, session.address, True, thumbnail, label, stage)
        active_list.imported(event.job.job, made)
    return say("Imported “{prompt}”", prompt=labels.short(event.job.prompt)), placement.collection_clause(stage, made)
