# SPDX-License-Identifier: GPL-3.0-or-later
"""Export Finished to FBX: the levels and hulls of a finished collection as one file, through a file dialog."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty

from . import checks, compat, import_finished
from .datablocks import fbx_file
from .shared.atomic import write_atomically
from .wording import say

SUFFIX = ".fbx"


def finished_collection(context: Any) -> Any:
    """The finished collection that the active object is in, else the active collection if it is one; None else."""
    active, layer = getattr(context, "active_object", None), context.view_layer.active_layer_collection
    near = [*(active.users_collection if active is not None else ()), *([layer.collection] if layer else ())]
    return next((one for one in near if import_finished.FINISHED in one), None)


def export_fault(context: Any) -> str:
    """Why nothing can be exported now, as a sentence; "" when it can."""
    if not fbx_file.has_exporter():
        return say("Blender's FBX exporter is switched off; enable the add-on “FBX format” in the preferences")
    active, collection = getattr(context, "active_object", None), finished_collection(context)
    if active is not None and active.mode != "OBJECT":
        return say("Go to Object Mode first")
    if collection is None:
        return say("Select an object of a finished collection, such as Finish Selected Mesh makes")
    if not import_finished.levels_of(collection):
        return say("No level of detail is left in the collection “{name}”; finish the mesh again", name=collection.name)
    return ""


class DREAMWRIGHT_OT_export_finished(bpy.types.Operator):
    """Export a finished collection."""

    bl_idname = "dreamwright.export_finished"
    bl_label = "Export to FBX"
    bl_description = (
        "Write the levels of detail and the collision hulls of the finished collection to one FBX file, with textures"
    )
    bl_options = {"REGISTER"}

    filepath: StringProperty(name="File", description="FBX file to write", subtype="FILE_PATH")
    filter_glob: StringProperty(default="*.fbx", options={"HIDDEN"})
    check_existing: BoolProperty(default=True, options={"HIDDEN"})

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only in Object Mode, with a finished collection at hand and Blender's exporter switched on."""
        return checks.allow(cls, export_fault(context))

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Open the file dialog beside the .blend file, with the asset's name."""
        name = str(finished_collection(context)[import_finished.FINISHED])
        self.filepath = str(Path(bpy.data.filepath or Path.home() / "untitled").with_name(name + SUFFIX))
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def check(self, context: Any) -> bool:
        """Have the name in the dialog end in .fbx; whether it changed."""
        before, self.filepath = self.filepath, bpy.path.ensure_ext(self.filepath, SUFFIX)
        return bool(self.filepath != before)

    def execute(self, context: Any) -> set[str]:
        """Write the file, as a whole or not at all."""
        given = bpy.path.abspath(self.filepath.strip())
        if not given or Path(given).is_dir():
            self.report({"ERROR"}, say("No file is named; give the name of an FBX file"))
            return {"CANCELLED"}
        path, collection = Path(bpy.path.ensure_ext(given, SUFFIX)), finished_collection(context)
        levels, hulls = import_finished.levels_of(collection), import_finished.hulls_of(collection)
        try:
            with tempfile.TemporaryDirectory(prefix="dreamwright-") as folder:
                made = Path(folder) / path.name
                fbx_file.write_fbx(str(made), str(collection[import_finished.FINISHED]), levels, hulls)
                content = made.read_bytes()
            write_atomically(path, content)
        except OSError as error:
            reason = error.strerror or str(error)
            self.report(
                {"ERROR"}, say("“{path}” cannot be written: {reason}; choose another place", path=path, reason=reason)
            )
            return {"CANCELLED"}
        except RuntimeError as error:
            self.report({"ERROR"}, say("Blender wrote no FBX: {error}", error=compat.operator_fault(error)))
            return {"CANCELLED"}
        self.report(
            {"INFO"},
            say(
                "“{name}” is in {path}: levels {levels}, collision hulls {hulls}",
                name=collection.name, path=path.name, levels=len(levels), hulls=len(hulls),
            ),
        )  # fmt: skip
        return {"FINISHED"}
