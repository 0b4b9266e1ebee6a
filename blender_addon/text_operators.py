# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that use a Text Editor: long prompts, and the log of the local server."""

from typing import Any

import bpy

from . import addon_state, checks, labels, local_server
from .wording import say

PROMPT_TEXT = "Dreamwright Prompt"


def _show_text(context: Any, text: Any) -> None:
    """Show a Text datablock in an open Text Editor, else in a new window."""
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "TEXT_EDITOR":
                area.spaces.active.text = text
                return
    if bpy.app.background:
        return
    bpy.ops.wm.window_new()
    area = context.window_manager.windows[-1].screen.areas[0]
    area.type = "TEXT_EDITOR"
    area.spaces.active.text = text


def _replace_text(name: str, content: str) -> Any:
    text = bpy.data.texts.get(name) or bpy.data.texts.new(name)
    text.clear()
    text.write(content)
    return text


class DREAMWRIGHT_OT_show_log(bpy.types.Operator):
    """Show the local server's log."""

    bl_idname = "dreamwright.show_log"
    bl_label = "Show Server Log"
    bl_description = "Show the log of the server on this machine in a Text Editor"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Copy the end of the log to a Text datablock and show it."""
        _show_text(context, _replace_text(local_server.LOG_TEXT, local_server.read_log()))
        return {"FINISHED"}


class DREAMWRIGHT_OT_edit_prompt(bpy.types.Operator):
    """Edit a long prompt in a Text Editor."""

    bl_idname = "dreamwright.edit_prompt"
    bl_label = "Edit Prompt as Text"
    bl_description = "Open the prompt in a Text Editor; Use Text copies it back"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Copy the prompt to a Text datablock and show it."""
        _show_text(context, _replace_text(PROMPT_TEXT, addon_state.properties().prompt))
        return {"FINISHED"}


class DREAMWRIGHT_OT_use_text(bpy.types.Operator):
    """Copy the prompt from the Text datablock."""

    bl_idname = "dreamwright.use_text"
    bl_label = "Use Text"
    bl_description = "Copy the prompt from its text"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only when there is such a text."""
        fault = say("There is no text “{prompt_text}”; open it with Edit Prompt as Text", prompt_text=PROMPT_TEXT)
        return checks.allow(cls, "" if PROMPT_TEXT in bpy.data.texts else fault)

    def execute(self, context: Any) -> set[str]:
        """Copy it; the property cuts a text that is too long."""
        addon_state.properties().prompt = labels.clean_prompt(bpy.data.texts[PROMPT_TEXT].as_string())
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_OT_show_log, DREAMWRIGHT_OT_edit_prompt, DREAMWRIGHT_OT_use_text)
)
