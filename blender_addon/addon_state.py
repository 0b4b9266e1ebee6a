# SPDX-License-Identifier: GPL-3.0-or-later
"""The one session of this Blender. Plain Python: neither undo nor the loading of a file touches it."""

from __future__ import annotations

from .preferences import preferences, user_folder
from .session import Session

_session: Session | None = None


def session() -> Session:
    """The session, made at its first use."""
    global _session
    if _session is None:
        _session = Session(user_folder())
        _session.show_offline(preferences().address)
    return _session


def address_changed(address: str) -> None:
    """Draw what another server offered, where a session is drawn already and no connection is open."""
    if _session is not None and not _session.is_open:
        _session.show_offline(address)


def unregister() -> None:
    """Close every socket: Windows keeps a loaded library locked, and an open one would outlive the add-on."""
    global _session
    if _session is not None:
        _session.disconnect()
        _session = None


def register() -> None:
    """Nothing to do before the first use."""
