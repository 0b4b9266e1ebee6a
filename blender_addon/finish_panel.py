# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel of Finish Selected Mesh: the button, or progress and cancel, and the export of what was made."""

from typing import Any

import bpy

from . import compat, finish_export, finish_operators, labels
from .wording import say


class DREAMWRIGHT_PT_finish(bpy.types.Panel):
    """Finishing of the selected mesh."""

    bl_idname = "DREAMWRIGHT_PT_finish"
    bl_label = "Finish"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Dreamwright"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Any) -> None:
        """Draw the button, or progress and cancel, and the button of the export."""
        self._draw_run(self.layout)
        self.layout.operator(finish_export.DREAMWRIGHT_OT_export_finished.bl_idname, icon="EXPORT")

    def _draw_run(self, layout: Any) -> None:
        run = finish_operators.current_run()
        if run is None:
            layout.operator(
                finish_operators.DREAMWRIGHT_OT_finish_mesh.bl_idname, icon=compat.icon("MOD_REMESH", "MESH_DATA")
            )
            return
        label = say(finish_operators.STEPS[run.step][0]) if run.step in finish_operators.STEPS else say("Starting")
        left = run.seconds_left
        text = f"{label}, {100 * run.done:.0f} %" + (
            say(", {time} left", time=labels.duration(left)) if left >= 0 else ""
        )
        row = layout.row(align=True)
        if hasattr(row, "progress"):
            row.progress(factor=run.done, text=say("Stopping") if run.stopped_at else text, type="BAR")
        else:
            row.label(text=say("Stopping") if run.stopped_at else text, icon="TIME")
        row.operator(finish_operators.DREAMWRIGHT_OT_cancel_finish.bl_idname, text="", icon="X")


register, unregister = bpy.utils.register_classes_factory(
    (finish_export.DREAMWRIGHT_OT_export_finished, DREAMWRIGHT_PT_finish)
)
