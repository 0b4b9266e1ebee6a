# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators of encryption keys: paste a connection string, copy this computer's key, forget a server's key."""

from typing import Any

import bpy
from bpy.props import StringProperty

from . import addon_state, checks
from .wording import say


class DREAMWRIGHT_OT_paste_connection(bpy.types.Operator):
    """Use a connection string."""

    bl_idname = "dreamwright.paste_connection"
    bl_label = "Paste Connection String"
    bl_description = (
        "Use the server whose connection string was copied; dreamwright serve and dreamwright keys show print it"
    )
    bl_options = {"REGISTER"}

    text: StringProperty(
        name="Connection String", description="The string; empty: the clipboard", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while no connection is open."""
        return checks.allow(cls, say("Disconnect first") if addon_state.session().is_open else "")

    def execute(self, context: Any) -> set[str]:
        """Store the server's key and address."""
        try:
            server = addon_state.session().accept_connection_string(self.text or context.window_manager.clipboard)
        except ValueError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        addon_state.preferences().address = server.address
        self.report(
            {"INFO"},
            say(
                "The server's fingerprint is {fingerprint}; its administrator sees the same",
                fingerprint=server.fingerprint,
            ),
        )
        return {"FINISHED"}


class DREAMWRIGHT_OT_copy_key(bpy.types.Operator):
    """Copy this computer's public key."""

    bl_idname = "dreamwright.copy_key"
    bl_label = "Copy My Key"
    bl_description = "Copy this computer's public key, to send it to the server's administrator; it is not secret"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Create the key at its first use, and copy it."""
        keys = addon_state.session().keys
        try:
            context.window_manager.clipboard = keys.own_key_text()
        except (ValueError, ImportError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, say("Copied; its fingerprint is {fingerprint}", fingerprint=keys.own_fingerprint))
        return {"FINISHED"}


class DREAMWRIGHT_OT_forget_server_key(bpy.types.Operator):
    """Delete a server's stored key."""

    bl_idname = "dreamwright.forget_server_key"
    bl_label = "Forget Server Key"
    bl_description = (
        "Delete the stored key of the server above; a server on another machine is not contacted again until its "
        "connection string is pasted"
    )
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for a server with a stored key, while no connection is open."""
        session = addon_state.session()
        fault = "" if session.keys.server else say("No key of this server is stored")
        return checks.allow(cls, say("Disconnect first") if session.is_open else fault)

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Ask for confirmation: the connection string is needed again afterwards."""
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: Any) -> set[str]:
        """Delete it."""
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
