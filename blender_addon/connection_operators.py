# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators of the connection: connect, disconnect, dismiss notices."""

from typing import Any

import bpy

from . import addon_state, checks
from .wording import say


class DREAMWRIGHT_OT_connect(bpy.types.Operator):
    """Connect to the server of the preferences."""

    bl_idname = "dreamwright.connect"
    bl_label = "Connect"
    bl_description = "Connect to the server and list its jobs"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only where the network may be used."""
        return checks.allow(cls, checks.connection_fault())

    def execute(self, context: Any) -> set[str]:
        """Start connecting."""
        try:
            addon_state.session().connect(addon_state.preferences().address)
        except ImportError as error:
            self.report(
                {"ERROR"},
                say(
                    "ZeroMQ or msgpack cannot be loaded ({error}); reinstall the add-on from its zip and "
                    "restart Blender",
                    error=error,
                ),
            )
            return {"CANCELLED"}
        except ValueError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_disconnect(bpy.types.Operator):
    """Close the connection."""

    bl_idname = "dreamwright.disconnect"
    bl_label = "Disconnect"
    bl_description = "Close the connection; jobs continue on the server and are listed again after the next connection"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while a connection is open."""
        return checks.allow(cls, "" if addon_state.session().is_open else say("There is no connection"))

    def execute(self, context: Any) -> set[str]:
        """Disconnect."""
        addon_state.session().disconnect()
        return {"FINISHED"}


class DREAMWRIGHT_OT_dismiss_notices(bpy.types.Operator):
    """Remove the messages from the panel."""

    bl_idname = "dreamwright.dismiss_notices"
    bl_label = "Dismiss"
    bl_description = "Remove the messages"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Clear all notices."""
        addon_state.session().notices.clear()
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_OT_connect, DREAMWRIGHT_OT_disconnect, DREAMWRIGHT_OT_dismiss_notices)
)
