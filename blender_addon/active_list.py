# SPDX-License-Identifier: GPL-3.0-or-later
"""The list under way in this Blender: its texts, its props in the file, and the catalogs beside the saved file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import addon_state, dream_list, import_places, labels, server_settings
from .dream_list import DreamList, ListedProp
from .import_mesh import CATALOG, AssetLabel
from .provenance import PREFIX
from .shared.asset_catalogs import FILE_NAME, merged_catalogs
from .shared.atomic import write_atomically
from .shared.prompt_list import PromptListError, PromptRow, parse_list
from .wording import say

GAP = 1.25  # times a prop's width, from its middle to that of the next

_active: DreamList | None = None
_offset_m = 0.0  # of the next prop from the 3D cursor
_is_reported = True


def active() -> DreamList | None:
    """The list that was started last in this file, done or not."""
    return _active


def start(name: str, retry: bool) -> str:
    """Start the list of a Text datablock with the panel's settings; why it cannot be started, "" when it was."""
    global _active, _offset_m, _is_reported
    mine, session = addon_state.properties(), addon_state.session()
    if _active is not None and not _active.is_done:
        return say("The list “{name}” is under way; stop it first", name=_active.name)
    if not mine.model_name or not mine.preset_name:
        return say("The server has not sent its capabilities yet; try again in a moment")
    try:
        found = parse_list(bpy.data.texts[name].as_string(), mine.seed)
    except PromptListError as error:
        return say("The text “{name}” cannot be used: {error}", name=name, error=error)
    if fault := _rows_fault(found.rows):
        return say("The text “{name}” cannot be used: {fault}", name=name, fault=fault)
    try:
        settings = server_settings.collect(session.capabilities, mine)
    except ValueError as error:
        return str(error)
    negative = labels.clean_prompt(mine.negative)
    props = dream_list.listed_props(found.rows, negative, mine.model_name, mine.preset_name, settings)
    _active = DreamList(name, props, _is_here, retry, place=import_places.here())
    _offset_m, _is_reported = 0.0, False
    for notice in found.notices:
        session.notify(notice[:1].upper() + notice[1:], is_error=False)
    return ""


def _rows_fault(rows: tuple[PromptRow, ...]) -> str:
    """What is wrong with the prompts and presets of the rows; "" when nothing is."""
    mine, capabilities = addon_state.properties(), addon_state.session().capabilities
    offered = {name for name, _ in server_settings.offered_presets(capabilities, mine.model_name)}
    errors = []
    for row in rows:
        if row.preset and row.preset not in offered:
            errors.append(
                say(
                    "row {row} has the preset {preset}; allowed are {offered}",
                    row=row.row,
                    preset=repr(row.preset),
                    offered=", ".join(sorted(offered)),
                )
            )
        if fault := labels.vocabulary_fault(capabilities, mine.model_name, row.prompt):
            errors.append(say("row {row}: {fault}", row=row.row, fault=fault))
    return str(PromptListError(errors)) if errors else ""


def stop() -> None:
    """Stop the list; its jobs are paused."""
    if _active is not None:
        _active.stop()


def step() -> None:
    """Advance the list; called in every tick."""
    global _active, _is_reported
    session = addon_state.session()
    if _active is None or _is_reported:
        return
    before = _active.summary()
    _active.step(session)
    if _active.is_stopped:
        _active, session.revision = None, session.revision + 1
        return
    if _active.is_done:
        _is_reported = True
        _report(_active)
    percent, manager = 100 * _active.share(session), bpy.context.window_manager
    if _active.summary() != before or abs(manager.dreamwright_list_percent - percent) > 0.1:
        manager.dreamwright_list_percent = percent
        session.revision += 1


def owns(job: str) -> bool:
    """Whether a job belongs to the list, which imports its props itself."""
    return _active is not None and not _is_reported and _active.owns(addon_state.session(), job)


def arrived(job: str) -> None:
    """The mesh of a job is here; its import may wait until the user leaves Edit Mode."""
    prop = _listed(job)
    if prop is not None:
        prop.has_arrived = True


def label_of(job: str) -> AssetLabel | None:
    """How the prop of a job of the list is named and filed; None for another job."""
    prop = _listed(job)
    if prop is None:
        return None
    tile = addon_state.session().newest_previews.tiles.get(job)
    row = prop.row
    return AssetLabel(row.name, row.tags, row.catalog, _offset_m, tile.pixels if tile is not None else None)


def imported(job: str, made: Any) -> None:
    """The prop of a job of the list is in the file."""
    global _offset_m
    prop = _listed(job)
    if prop is not None:
        prop.state = dream_list.DONE
        _offset_m += GAP * max(made.dimensions.x / import_places.units_per_meter(bpy.context.scene), 0.01)


def not_imported(job: str, reason: str) -> None:
    """The mesh of a job of the list could not be imported."""
    prop = _listed(job)
    if prop is not None and _active is not None:
        _active.fail(prop, reason)


def _listed(job: str) -> ListedProp | None:
    return _active.find(job) if _active is not None and not _is_reported else None


def _is_here(job: str) -> bool:
    """Whether an asset of this file was made by the job."""
    return any(one.asset_data is not None and one.get(PREFIX + "job") == job for one in bpy.data.objects)


def failures_name(name: str) -> str:
    """The name of the Text datablock with the rows that failed."""
    return f"{name} failures"


def _report(done: DreamList) -> None:
    """Say that the list is done, and list its failures in a Text datablock."""
    name = failures_name(done.name)
    known = bpy.data.texts.get(name)
    if done.failures:
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["row", "prompt", "seed", "preset", "reason"])
        writer.writerows(
            [prop.row.row, prop.request.prompt, prop.request.seed, prop.request.preset, prop.reason]
            for prop in done.failures
        )
        text = known or bpy.data.texts.new(name)
        text.clear()
        text.write(stream.getvalue())
    elif known is not None:
        bpy.data.texts.remove(known)
    where = say("; the text “{name}” says why", name=name) if done.failures else ""
    addon_state.session().notify(
        say("The list “{name}” is done: {summary}{where}", name=done.name, summary=done.summary(), where=where),
        bool(done.failures),
    )
    write_catalogs()


def write_catalogs() -> None:
    """Add the catalogs of this file's assets to the catalog file that Blender reads for it; nothing while unsaved."""
    paths = {str(one[CATALOG]) for one in bpy.data.objects if one.asset_data is not None and one.get(CATALOG)}
    if not paths or not bpy.data.filepath:
        return
    folder = Path(bpy.data.filepath).parent
    # Blender takes the catalogs of the folder above, if it is an asset library.
    path = next(
        (one / FILE_NAME for one in (folder, *folder.parents) if (one / FILE_NAME).is_file()), folder / FILE_NAME
    )
    try:
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        after = merged_catalogs(before, paths)
        if after != before:
            write_atomically(path, after.encode())
    except (OSError, UnicodeError) as error:
        addon_state.session().notify(
            say(
                "The catalogs were not written to {path}: {error}; make the folder writable and save again",
                path=path,
                error=error,
            )
        )


@persistent
def _on_save(*_: Any) -> None:
    write_catalogs()


@persistent
def _on_load(*_: Any) -> None:
    """Another file: the list belongs to the one before, where it continues when it is started again."""
    global _active
    _active = None


def register() -> None:
    """Follow the loading and saving of files."""
    bpy.app.handlers.load_post.append(_on_load)
    bpy.app.handlers.save_post.append(_on_save)


def unregister() -> None:
    """Forget the list; its jobs stay on the server."""
    global _active
    _active = None
    for handlers, function in ((bpy.app.handlers.load_post, _on_load), (bpy.app.handlers.save_post, _on_save)):
        if function in handlers:
            handlers.remove(function)
