# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's state in this Blender: preferences, user folder, session, panel properties. Imports no operators.

The session is plain Python, so neither undo nor loading a file changes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from . import compat, import_places
from .session import Session
from .shared.messages import JobSummary

_session: Session | None = None


def preferences() -> Any:
    """The add-on's preferences (`preferences.DreamwrightPreferences`)."""
    return bpy.context.preferences.addons[__package__].preferences


def properties() -> Any:
    """The panel's properties (`properties.DreamwrightProperties`), read anew: loading a file replaces WindowManager."""
    return bpy.context.window_manager.dreamwright


def user_folder() -> Path:
    """The folder in which this add-on may write. Raises OSError."""
    return compat.user_folder(__package__ or "")


def session() -> Session:
    """The session, created at its first use."""
    global _session
    if _session is None:
        _session = Session(user_folder(), here=import_places.here)
        _session.show_cached(preferences().address)
    return _session


def active_job() -> JobSummary | None:
    """The job that is selected in the panel's list."""
    mine = properties()
    if not 0 <= mine.job_index < len(mine.job_rows):
        return None
    return session().jobs.get(mine.job_rows[mine.job_index].job)


def active_group() -> str:
    """The group of the selected row, its heading or one of its jobs; "" for another row."""
    mine = properties()
    if not 0 <= mine.job_index < len(mine.job_rows):
        return ""
    return str(mine.job_rows[mine.job_index].group)


def on_address_changed(address: str) -> None:
    """Show the cached capabilities of another server, unless a connection is open or nothing was drawn yet."""
    if _session is not None and not _session.is_open:
        _session.show_cached(address)


def register() -> None:
    """Nothing is created before its first use."""


def unregister() -> None:
    """Close all sockets: an open socket would outlive the add-on, and on Windows keeps its library locked."""
    global _session
    if _session is not None:
        _session.disconnect()
        _session = None
