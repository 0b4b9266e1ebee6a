# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that start and stop the server on this machine."""

from typing import Any

import bpy

from . import addon_state, addresses, checks, local_server
from .wording import say


class DREAMWRIGHT_OT_start_server(bpy.types.Operator):
    """Start the local server."""

    bl_idname = "dreamwright.start_server"
    bl_label = "Start Server"
    bl_description = "Start the Dreamwright server on this machine and connect to it"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only where there is a command to run."""
        return checks.allow(cls, local_server.start_fault())

    def execute(self, context: Any) -> set[str]:
        """Start the server and connect; the connection opens once the server is ready."""
        try:
            local_server.start()
            local_server.note_preferences()
            addon_state.session().connect(addon_state.preferences().address)
        except (OSError, ValueError, ImportError) as error:
            self.report({"ERROR"}, say("The local server was not started: {error}", error=error))
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_stop_server(bpy.types.Operator):
    """Stop the local server."""

    bl_idname = "dreamwright.stop_server"
    bl_label = "Stop Server"
    bl_description = (
        "Stop the server on this machine; its running job resumes from the last checkpoint when the server starts again"
    )
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for a server on this machine."""
        is_local = addresses.is_local(addon_state.preferences().address)
        return checks.allow(cls, "" if is_local else say("The server runs on another machine; stop it there"))

    def execute(self, context: Any) -> set[str]:
        """Stop the server and disconnect."""
        try:
            was_running = local_server.stop()
        except OSError as error:
            self.report({"ERROR"}, say("The local server was not stopped: {error}", error=error.strerror or error))
            return {"CANCELLED"}
        if not was_running:
            self.report(
                {"WARNING"}, say("No server that Blender started is running; stop it where it was started, with Ctrl-C")
            )
            return {"CANCELLED"}
        addon_state.session().disconnect()
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory((DREAMWRIGHT_OT_start_server, DREAMWRIGHT_OT_stop_server))
