# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that operators, panels and preferences share. A `..._fault` is a sentence for a tooltip; "" means no fault."""

from __future__ import annotations

import shutil
from typing import Any

import bpy

from . import addon_state, addresses, compat, key_store
from .wording import say

COMMAND = "dreamwright"


def allow(operator: Any, fault: str) -> bool:
    """Result of an operator's `poll`; the fault becomes the tooltip of the disabled button."""
    if fault:
        operator.poll_message_set(say(fault))
    return not fault


def connection_fault() -> str:
    """Why the server of the preferences may not be contacted."""
    address = addon_state.preferences().address
    fault = addresses.address_fault(address)
    if addresses.is_local(address):
        return fault
    fault = fault or compat.online_fault()
    try:
        return fault or addresses.key_fault(
            address, key_store.server_key(addon_state.user_folder(), address) is not None
        )
    except ValueError as error:
        return str(error)


def offline_fault() -> str:
    """Why no request can be sent now."""
    session = addon_state.session()
    return "" if session.is_online else say("Not connected to a server: {reason}", reason=session.reason)


def command_path() -> str:
    """Path of the command that runs the server; "" when there is none."""
    chosen = bpy.path.abspath(addon_state.preferences().command.strip())
    return shutil.which(chosen or COMMAND) or ""


def command_fault() -> str:
    """Why there is no command to start the server with."""
    if command_path():
        return ""
    chosen = addon_state.preferences().command.strip()
    what = (
        say("The command {chosen} was not found", chosen=chosen)
        if chosen
        else say("The command {command} is not on the search path", command=COMMAND)
    )
    return say("{what}; install the backend, or choose the command in the add-on's preferences", what=what)
