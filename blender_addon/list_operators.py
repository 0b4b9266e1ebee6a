# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators and panel of a list of props: a text with one prompt a line, or a table, becomes assets of this file."""

from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty

from . import active_list, addon_state, checks, compat
from .panel_base import SidebarPanel
from .wording import mark, say

NO_TEXT = mark("Choose a text with one prompt a line, or a table with a column prompt")


class DREAMWRIGHT_OT_dream_list(bpy.types.Operator):
    """Make the props of a list."""

    bl_idname = "dreamwright.dream_list"
    bl_label = "Dream List"
    bl_description = (
        "Make a prop of every row of the text, and import each as an asset; rows that are done are left out"
    )
    bl_options = {"REGISTER"}

    text: StringProperty(
        name="Text", description="Name of the text; empty: the one chosen in the panel", options={"SKIP_SAVE"}
    )
    retry: BoolProperty(
        name="Retry",
        description="Make the rows again whose jobs have failed or were cancelled",
        default=False,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while connected."""
        return checks.allow(cls, checks.offline_fault())

    def execute(self, context: Any) -> set[str]:
        """Start the list; later ticks send its rows and import their props."""
        name = self.text or context.window_manager.dreamwright_list_text
        fault = active_list.start(name, self.retry) if name in bpy.data.texts else say(NO_TEXT)
        if fault:
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_stop_list(bpy.types.Operator):
    """Stop the list."""

    bl_idname = "dreamwright.stop_list"
    bl_label = "Stop List"
    bl_description = "Send no more rows, and pause the list's jobs; Dream List continues"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while a list is under way."""
        found = active_list.active()
        return checks.allow(cls, "" if found is not None and not found.is_done else say("No list is under way"))

    def execute(self, context: Any) -> set[str]:
        """Stop it."""
        active_list.stop()
        addon_state.session().revision += 1
        return {"FINISHED"}


class DREAMWRIGHT_PT_list(SidebarPanel, bpy.types.Panel):
    """The list of props."""

    bl_idname = "DREAMWRIGHT_PT_list"
    bl_parent_id = "DREAMWRIGHT_PT_prompt"
    bl_label = "List"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Any) -> None:
        """Draw the text, the buttons and how far the list is."""
        layout, manager, found = self.layout, context.window_manager, active_list.active()
        layout.prop_search(manager, "dreamwright_list_text", bpy.data, "texts", text="", icon="TEXT")
        row = layout.row(align=True)
        row.operator("dreamwright.dream_list", icon=compat.icon("ASSET_MANAGER", "FILE_TEXT"))
        row.operator("dreamwright.dream_list", text="", icon="FILE_REFRESH").retry = True
        if found is None:
            return
        row = layout.row(align=True)
        share = manager.dreamwright_list_percent / 100
        compat.progress(row, manager, "dreamwright_list_percent", share, found.summary())
        if not found.is_done:
            row.operator("dreamwright.stop_list", text="", icon="X")


CLASSES = (DREAMWRIGHT_OT_dream_list, DREAMWRIGHT_OT_stop_list, DREAMWRIGHT_PT_list)
_register, _unregister = bpy.utils.register_classes_factory(CLASSES)


def register() -> None:
    """Register the classes, and the choice of a text, which undo does not change."""
    bpy.types.WindowManager.dreamwright_list_text = StringProperty(
        name="Text", description="The text whose rows Dream List makes"
    )
    bpy.types.WindowManager.dreamwright_list_percent = bpy.props.FloatProperty(
        name="Progress", description="Completed share of the list", min=0, max=100, precision=0, subtype="PERCENTAGE"
    )
    _register()


def unregister() -> None:
    """Undo `register`."""
    _unregister()
    del bpy.types.WindowManager.dreamwright_list_text
    del bpy.types.WindowManager.dreamwright_list_percent
