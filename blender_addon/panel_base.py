# SPDX-License-Identifier: GPL-3.0-or-later
"""What the panels of the add-on's tab share: where they are, and lines of text that fit its width."""

from __future__ import annotations

from typing import Any

from . import labels


def columns(context: Any, margin: int = 0) -> int:
    """Characters of a label that fit into the sidebar, less a `margin` for an icon or a box."""
    if context.region is None:
        return labels.WIDTH
    return max(16, int((context.region.width / context.preferences.system.ui_scale - 48) / 6.4) - margin)


def draw_lines(layout: Any, text: str, width: int, icon: str) -> None:
    """Draw a wrapped text with an icon at its first line."""
    for index, line in enumerate(labels.wrapped(text, width)):
        layout.label(text=line, icon=icon if index == 0 else "BLANK1", translate=False)


class SidebarPanel:
    """Mix-in: a panel of the tab "Dreamwright" in the 3D view's sidebar."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Dreamwright"
