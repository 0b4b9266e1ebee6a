# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators of the preview: show it in an Image Editor, step through its history."""

from typing import Any

import bpy
from bpy.props import IntProperty

from . import addon_state, checks, preview
from .wording import say


class DREAMWRIGHT_OT_show_preview(bpy.types.Operator):
    """Show the preview."""

    bl_idname = "dreamwright.show_preview"
    bl_label = "Show Preview"
    bl_description = "Show the live preview in an Image Editor; pinned images stay"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Reuse or open an Image Editor."""
        preview.show_current()
        if not preview.open_editor(context):
            self.report(
                {"WARNING"},
                say("No editor could be opened; choose the image “{image}” in an Image Editor", image=preview.IMAGE),
            )
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_step_preview(bpy.types.Operator):
    """Step through the previews of the run."""

    bl_idname = "dreamwright.step_preview"
    bl_label = "Step Preview"
    bl_description = "Show an earlier or later preview of this job"
    bl_options = {"REGISTER"}

    offset: IntProperty(
        name="Offset",
        description="Number of previews to step; 0 shows the latest, live",
        default=0,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only when there are previews."""
        fault = say("No preview of this job has arrived in this session")
        return checks.allow(cls, "" if preview.current_frame() else fault)

    def execute(self, context: Any) -> set[str]:
        """Move the slider."""
        mine, job = addon_state.properties(), addon_state.active_job()
        history = addon_state.session().previews.get(job.job) if job else None
        if history is None:
            return {"CANCELLED"}
        mine.preview_position = history.neighbor(mine.preview_position, self.offset) if self.offset else 1.0
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory((DREAMWRIGHT_OT_show_preview, DREAMWRIGHT_OT_step_preview))
