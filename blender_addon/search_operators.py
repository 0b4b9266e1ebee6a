# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that search for announced servers on the local network, and choose one; the rows that show them."""

from typing import Any

import bpy
from bpy.props import StringProperty

from . import addon_state, checks, compat, key_store, server_search
from .wording import say

FOLLOW_S = 0.1  # between two steps of a running search

_search = server_search.ServerSearch()


def _fault() -> str:
    """Why no search can be made now."""
    if addon_state.session().is_open:
        return say("Disconnect first")
    return compat.online_fault() or server_search.package_fault()


def follow() -> float | None:
    """Go on with the search, show what is found, say how it ended. A timer's function: the seconds until the next."""
    session = addon_state.session()
    _search.step()
    session.revision += 1  # a row of the panel, or the end of the search
    if _search.is_running:
        return FOLLOW_S
    if _search.fault:
        session.notify(say("The local network cannot be searched: {reason}", reason=_search.fault))
    elif not _search.found:
        session.notify(
            say(
                "No server answered on the local network; one that is started with dreamwright serve --announce does, "
                "unless a firewall blocks UDP port 5353"
            ),
            False,
        )
    return None


class DREAMWRIGHT_OT_find_servers(bpy.types.Operator):
    """Search the local network."""

    bl_idname = "dreamwright.find_servers"
    bl_label = "Find Servers"
    bl_description = "Ask the local network for servers that announce themselves; takes three seconds"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only where the network may be used, while no connection is open."""
        return checks.allow(cls, _fault())

    def execute(self, context: Any) -> set[str]:
        """Start the search; `follow` shows what is found."""
        _search.start(key_store.known_fingerprints(addon_state.user_folder()))
        if not bpy.app.timers.is_registered(follow):
            bpy.app.timers.register(follow, first_interval=FOLLOW_S)
        return {"FINISHED"}


class DREAMWRIGHT_OT_use_server(bpy.types.Operator):
    """Choose a server that was found."""

    bl_idname = "dreamwright.use_server"
    bl_label = "Use Server"
    bl_description = "Use this server; its connection string is needed once, since anybody can announce a server"
    bl_options = {"REGISTER"}

    address: StringProperty(name="Address", description="As tcp://host:port", options={"SKIP_SAVE"})
    fingerprint: StringProperty(name="Fingerprint", description="Of the server's key", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while no connection is open."""
        return checks.allow(cls, say("Disconnect first") if addon_state.session().is_open else "")

    def execute(self, context: Any) -> set[str]:
        """Use the address, with the key that is known for the fingerprint."""
        session = addon_state.session()
        try:
            is_known = session.keys.use_known_key(self.address, self.fingerprint)
        except ValueError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        addon_state.preferences().address = self.address
        if not is_known:
            self.report(
                {"INFO"},
                say(
                    "Ask the server's operator for its connection string, with the fingerprint {fingerprint}, and "
                    "paste it",
                    fingerprint=self.fingerprint,
                ),
            )
        return {"FINISHED"}


def draw_found(layout: Any) -> None:
    """Draw a row for each server that was found: its address is the button, beside it its fingerprint."""
    if _search.is_running:
        layout.label(text="Searching the local network", icon="VIEWZOOM")
    if not _search.found:
        return
    column = layout.column(align=True)
    for server in _search.found:
        symbol = "LOCKED" if server.fingerprint in _search.known else "UNLOCKED"
        chosen = column.operator(
            "dreamwright.use_server", text=server.address.removeprefix("tcp://"), translate=False, icon=symbol
        )
        chosen.address, chosen.fingerprint = server.address, server.fingerprint
        column.label(text=server.fingerprint, translate=False, icon="BLANK1")


_register, _unregister = bpy.utils.register_classes_factory((DREAMWRIGHT_OT_find_servers, DREAMWRIGHT_OT_use_server))


def register() -> None:
    """Register the operators."""
    _register()


def unregister() -> None:
    """End a running search."""
    if bpy.app.timers.is_registered(follow):
        bpy.app.timers.unregister(follow)
    _search.stop()
    _unregister()
