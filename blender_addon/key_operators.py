# SPDX-License-Identifier: GPL-3.0-or-later
"""Buttons about keys: take a server's connection string, copy this computer's key for who runs the server, forget a server."""

from typing import Any

import bpy
from bpy.props import StringProperty

from . import addon_state
from .preferences import preferences


class DREAMWRIGHT_OT_paste_connection(bpy.types.Operator):
    """Take a connection string."""

    bl_idname = "dreamwright.paste_connection"
    bl_label = "Paste Connection String"
    bl_description = (
        "Use the server whose connection string was copied; dreamwright serve and dreamwright keys show print it"
    )
    bl_options = {"REGISTER"}

    text: StringProperty(
        name="Connection String", description="The string; the clipboard's when empty", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while no connection is open."""
        is_open = addon_state.session().is_open
        if is_open:
            cls.poll_message_set("Disconnect first")
        return not is_open

    def execute(self, context: Any) -> set[str]:
        """Know the server's key from now on."""
        try:
            invited = addon_state.session().pair(self.text or context.window_manager.clipboard)
        except ValueError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        preferences().address = invited.address
        self.report({"INFO"}, f"The server's fingerprint is {invited.fingerprint}; who runs it sees the same")
        return {"FINISHED"}


class DREAMWRIGHT_OT_copy_key(bpy.types.Operator):
    """Copy this computer's key."""

    bl_idname = "dreamwright.copy_key"
    bl_label = "Copy My Key"
    bl_description = "Copy this computer's public key, to send it to who runs the server; it is no secret"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Make the key at the first need, and copy it."""
        keys = addon_state.session().keys
        try:
            context.window_manager.clipboard = keys.own_text()
        except (ValueError, ImportError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"Copied; its fingerprint is {keys.own_mark}")
        return {"FINISHED"}


class DREAMWRIGHT_OT_forget_server_key(bpy.types.Operator):
    """Forget a server's key."""

    bl_idname = "dreamwright.forget_server_key"
    bl_label = "Forget Server Key"
    bl_description = "Forget the key of the server above; on another machine it is then not talked to until its connection string is pasted"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for a server whose key is known, while no connection is open."""
        session = addon_state.session()
        fault = (
            "Disconnect first" if session.is_open else "" if session.keys.server else "No key of this server is known"
        )
        if fault:
            cls.poll_message_set(fault)
        return not fault

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Ask first: the string must be had from the server's keeper again."""
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Any) -> set[str]:
        """Forget it."""
        session = addon_state.session()
        try:
            session.keys.forget(session.address)
        except ValueError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_OT_paste_connection, DREAMWRIGHT_OT_copy_key, DREAMWRIGHT_OT_forget_server_key)
)
