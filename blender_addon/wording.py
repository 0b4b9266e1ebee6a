# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences of the add-on in the user's language. Does not import bpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _as_written(text: str) -> str:
    return text


_translated: Callable[[str], str] = _as_written


def say(text: str, /, **values: Any) -> str:
    """An English text in the user's language, its {placeholders} filled in.

    Blender itself translates constant names, tooltips and labels; this is for texts that it does not see as a whole:
    with placeholders, wrapped to lines, in messages and in the reasons of disabled buttons.
    """
    return _translated(text).format(**values) if values else _translated(text)


def mark(text: str) -> str:
    """The text itself: a constant that is shown elsewhere. `tools.translations` finds it by this call."""
    return text


def translate_with(translated: Callable[[str], str] | None) -> None:
    """Look texts up with this function from now on; None leaves them as they are written."""
    global _translated
    _translated = translated or _as_written
