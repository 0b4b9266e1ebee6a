# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender: offline, without a 3D view; where the add-on writes, and what its controls say about themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bpy
from headless import connect, imported_jobs, poll, preferences, session, until

ELSEWHERE = "tcp://192.0.2.1:47630"  # an address that belongs to nobody
RESOURCES = Path(os.environ["BLENDER_USER_RESOURCES"])


def files() -> set[Path]:
    """Everything in the user's folder but what Python compiles."""
    return {path for path in RESOURCES.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def why_not(operator: Any) -> str:
    """Blender's message when an operator is disabled."""
    try:
        operator()
    except RuntimeError as error:
        return str(error)
    return ""


def operators() -> Iterable[tuple[str, Any]]:
    """The add-on's operators by their name in bpy.ops."""
    for name in dir(bpy.types):
        if name.startswith("DREAMWRIGHT_OT_"):
            verb = getattr(bpy.types, name).bl_idname.partition(".")[2]
            yield verb, getattr(bpy.ops.dreamwright, verb)


def undocumented() -> list[str]:
    """Operators, and properties that are shown, without a name or a tooltip."""
    inherited = {"rna_type", "name", "properties", "remove_name", "remove_active"} | set(
        bpy.types.Operator.bl_rna.properties.keys()
    )
    manager = bpy.context.window_manager
    groups = [type(manager.dreamwright), type(manager.dreamwright_settings), type(preferences)]
    kinds = [(verb, operator.get_rna_type()) for verb, operator in operators()] + [
        (kind.__name__, kind.bl_rna) for kind in groups
    ]
    undocumented_names = [verb for verb, rna in kinds[: -len(groups)] if not rna.name or not rna.description]
    for owner, rna in kinds:
        known = [one for one in rna.properties if one.identifier not in inherited and not one.is_hidden]
        undocumented_names += [f"{owner}.{one.identifier}" for one in known if not one.name or not one.description]
    return undocumented_names


def greyed() -> dict[str, str]:
    """Operators that cannot be used now, as in the panel, and the reason that each gives."""
    with bpy.context.temp_override(dreamwright_panel=bpy.context.window_manager.dreamwright):
        return {verb: why_not(operator) for verb, operator in operators() if not operator.poll()}


def preview_beside_a_picture(pinned: bool) -> tuple[list[str], str]:
    """Ask for the preview where the only Image Editor shows the user's image: the result, and what it shows."""
    area = bpy.context.window_manager.windows[0].screen.areas[0]
    area.type = "IMAGE_EDITOR"
    editor = area.spaces.active
    editor.image = bpy.data.images.new("Reference", 4, 4)
    editor.use_image_pin = pinned
    given = sorted(bpy.ops.dreamwright.show_preview())
    shown = editor.image.name.partition(".")[0]
    area.type = "OUTLINER"
    return given, shown


def main() -> None:
    """Check offline, generate and import without a 3D view, then list the written files."""
    before = files()
    report: dict[str, Any] = {"online": getattr(bpy.app, "online_access", True), "greyed at first": greyed()}
    preferences.address = ELSEWHERE
    report["elsewhere"] = why_not(bpy.ops.dreamwright.connect) if not bpy.ops.dreamwright.connect.poll() else ""
    if hasattr(bpy.context.preferences.system, "use_online_access"):
        bpy.context.preferences.system.use_online_access = True
        report["elsewhere once allowed"] = (
            why_not(bpy.ops.dreamwright.connect) if not bpy.ops.dreamwright.connect.poll() else ""
        )
        bpy.context.preferences.system.use_online_access = False
    connect()
    poll(timeout_s=0.1)
    report["undocumented"], report["operators"] = undocumented(), len(list(operators()))
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            area.type = "OUTLINER"
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    until(lambda: any(job.state == "succeeded" for job in session.jobs.values()), "the end of the job")
    report["preview without an editor"] = sorted(bpy.ops.dreamwright.show_preview())
    report["preview beside a pinned picture"] = preview_beside_a_picture(pinned=True)
    report["preview beside a picture"] = preview_beside_a_picture(pinned=False)
    job = next(iter(session.jobs))
    bpy.ops.dreamwright.import_mesh(job=job)
    until(lambda: imported_jobs() == [job], "the import")
    report["greyed later"] = greyed()
    report["notices"] = [notice.text for notice in session.notices]
    report["folder"] = str(session.folder.relative_to(RESOURCES))
    report["written"] = sorted(str(path.relative_to(RESOURCES)) for path in files() - before)
    print("REPORT " + json.dumps(report))


main()
