# SPDX-License-Identifier: GPL-3.0-or-later
"""For scripts in a Blender without a window, which runs no timers: session, polling and connecting."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import bpy

ADDON = os.environ["DREAMWRIGHT_TEST_ADDON"]
WAIT_S = 60.0

preferences: Any = bpy.context.preferences.addons[ADDON].preferences
preferences.address = os.environ[
    "SERVER"
]  # first: what waits for a server, and what it offered, is known before it answers
session: Any = importlib.import_module(f"{ADDON}.addon_state").session()
poll: Any = importlib.import_module(f"{ADDON}.timer").poll


def until(condition: Callable[[], bool], what: str, seconds: float = WAIT_S) -> None:
    """Tick until the condition holds. Raises TimeoutError with the state of the session."""
    if not poll(condition, seconds):
        notices = [notice.text for notice in session.notices]
        raise TimeoutError(
            f"{what} did not happen in {seconds:.0f} s; {session.reason}; {notices}; {session.pending}; {session.jobs}"
        )


def connect() -> None:
    """Greet the test's server, and have the panel show what it offers."""
    preferences.address = os.environ["SERVER"]
    bpy.ops.dreamwright.connect()
    panel = bpy.context.window_manager.dreamwright
    until(lambda: session.is_online and session.capabilities is not None and bool(panel.model_name), "the connection")


def imported_jobs() -> list[str]:
    """The jobs whose objects are in the file."""
    return [one["dreamwright_job"] for one in bpy.data.objects if "dreamwright_prompt" in one]
