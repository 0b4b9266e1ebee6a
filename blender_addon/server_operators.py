# SPDX-License-Identifier: GPL-3.0-or-later
"""Buttons about the server on this machine, the prompt as a text, and dreaming an object again."""

from typing import Any

import bpy
from bpy.props import BoolProperty

from . import addon_state, import_mesh, labels, local_server, properties, server_settings
from .operators import submit
from .preferences import preferences

PROMPT_TEXT = "Dreamwright Prompt"


class DREAMWRIGHT_OT_start_server(bpy.types.Operator):
    """Start the local server."""

    bl_idname = "dreamwright.start_server"
    bl_label = "Start Server"
    bl_description = "Start the Dreamwright server on this machine and connect to it"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only where there is a command to run."""
        fault = local_server.start_fault()
        if fault:
            cls.poll_message_set(fault)
        return not fault

    def execute(self, context: Any) -> set[str]:
        """Start and connect; the connection comes about while the server gets ready."""
        try:
            local_server.start()
            local_server.note_preferences()
            addon_state.session().connect(preferences().address)
        except (OSError, ValueError, ImportError) as error:
            self.report({"ERROR"}, f"The local server was not started: {error}")
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_stop_server(bpy.types.Operator):
    """Stop the local server."""

    bl_idname = "dreamwright.stop_server"
    bl_label = "Stop Server"
    bl_description = (
        "Stop the server on this machine; its running job goes on from its last checkpoint when it is started again"
    )
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for a server of this machine."""
        local = labels.is_local(preferences().address)
        if not local:
            cls.poll_message_set("The server runs on another machine and cannot be stopped from here")
        return local

    def execute(self, context: Any) -> set[str]:
        """Stop and disconnect."""
        try:
            stopped = local_server.stop()
        except OSError as error:
            self.report({"ERROR"}, f"The local server was not stopped: {error.strerror or error}")
            return {"CANCELLED"}
        if not stopped:
            self.report(
                {"WARNING"}, "No server that Blender started is running; stop it where you started it, with Ctrl-C"
            )
            return {"CANCELLED"}
        addon_state.session().disconnect()
        return {"FINISHED"}


def _show_text(context: Any, text: Any) -> None:
    """Show a text in a Text Editor: one that is open, or a new window."""
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


class DREAMWRIGHT_OT_show_log(bpy.types.Operator):
    """Show the local server's log."""

    bl_idname = "dreamwright.show_log"
    bl_label = "Show Server Log"
    bl_description = "Show what the server on this machine has written, in a Text Editor"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Put the log's end into a Text datablock and show it."""
        text = bpy.data.texts.get(local_server.LOG_TEXT) or bpy.data.texts.new(local_server.LOG_TEXT)
        text.clear()
        text.write(local_server.read_log())
        _show_text(context, text)
        return {"FINISHED"}


class DREAMWRIGHT_OT_edit_prompt(bpy.types.Operator):
    """Write a long prompt in a Text Editor."""

    bl_idname = "dreamwright.edit_prompt"
    bl_label = "Edit Prompt as Text"
    bl_description = "Open the prompt in a Text Editor, for a long one; fetch it back with Use Text"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Put the prompt into a Text datablock and show it."""
        text = bpy.data.texts.get(PROMPT_TEXT) or bpy.data.texts.new(PROMPT_TEXT)
        text.clear()
        text.write(properties.artist().prompt)
        _show_text(context, text)
        return {"FINISHED"}


class DREAMWRIGHT_OT_use_text(bpy.types.Operator):
    """Take the prompt from the Text datablock."""

    bl_idname = "dreamwright.use_text"
    bl_label = "Use Text"
    bl_description = "Take the prompt from the text that was opened for it"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only when there is such a text."""
        found = bpy.data.texts.get(PROMPT_TEXT) is not None
        if not found:
            cls.poll_message_set(f"There is no text “{PROMPT_TEXT}”; open it with Edit Prompt as Text")
        return found

    def execute(self, context: Any) -> set[str]:
        """Copy it; the field itself cuts what is too long."""
        properties.artist().prompt = labels.clean_prompt(bpy.data.texts[PROMPT_TEXT].as_string())
        return {"FINISHED"}


class DREAMWRIGHT_OT_dream_again(bpy.types.Operator):
    """Dream the selected object again."""

    bl_idname = "dreamwright.dream_again"
    bl_label = "Dream Again"
    bl_description = "Take the prompt and settings that made the active object, with the next seed, and generate"
    bl_options = {"REGISTER"}

    same_seed: BoolProperty(
        name="Same Seed", description="Keep the seed, to get the same prop again", default=False, options={"SKIP_SAVE"}
    )
    only_fill: BoolProperty(
        name="Only Fill in", description="Fill in the panel without generating", default=False, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for an object that was dreamt."""
        known = import_mesh.remembered_request(context.active_object) is not None
        if not known:
            cls.poll_message_set("The active object was not made by Dreamwright; select one that was")
        return known

    def execute(self, context: Any) -> set[str]:
        """Fill in the panel and generate."""
        asked = import_mesh.remembered_request(context.active_object)
        offered, mine = addon_state.session().offered, properties.artist()
        mine.prompt, mine.negative = asked["prompt"], asked["negative"]
        mine.model_name, mine.preset_name = asked["model"], asked["preset"]
        mine.seed = max(0, asked["seed"] + (0 if self.same_seed else 1)) % 2**31
        for name, field in (("mesh.height_m", "height_m"), ("mesh.triangles", "triangles")):
            if isinstance(asked["settings"].get(name), (int, float)):
                setattr(mine, field, asked["settings"][name])
        size = asked["settings"].get(server_settings.TEXTURE, 0)
        mine.color_as = "IMAGE" if isinstance(size, int) and size > 0 else "VERTICES"
        if mine.color_as == "IMAGE":
            mine.texture_size = size
        unknown = server_settings.apply(offered, mine.preset_name, asked["settings"])
        if unknown and offered is not None:
            self.report({"WARNING"}, f"This server has no control for {', '.join(unknown[:5])}; left out")
        if self.only_fill:
            return {"FINISHED"}
        if not addon_state.session().is_online:
            self.report({"ERROR"}, "The panel is filled in; connect to a server to generate")
            return {"CANCELLED"}
        return {"FINISHED"} if submit(self, asked["prompt"]) else {"CANCELLED"}


register, unregister = bpy.utils.register_classes_factory(
    (
        DREAMWRIGHT_OT_start_server,
        DREAMWRIGHT_OT_stop_server,
        DREAMWRIGHT_OT_show_log,
        DREAMWRIGHT_OT_edit_prompt,
        DREAMWRIGHT_OT_use_text,
        DREAMWRIGHT_OT_dream_again,
    )
)
