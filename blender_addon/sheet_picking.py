# SPDX-License-Identifier: GPL-3.0-or-later
"""Operator that picks a variation by a click on its tile in the contact sheet."""

from __future__ import annotations

from typing import Any

import bpy

from . import addon_state, checks, contact_sheet
from .group_operators import NO_GROUP
from .shared.contact_grid import tile_at
from .wording import mark, say

NOT_SHOWN = mark("The contact sheet is in no Image Editor; press the button that shows it first")


def sheet_areas(context: Any) -> list[Any]:
    """The Image Editors of the window that show the contact sheet."""
    areas = context.window.screen.areas if context.window is not None else ()
    return [
        area
        for area in areas
        if area.type == "IMAGE_EDITOR" and getattr(area.spaces.active.image, "name", "") == contact_sheet.IMAGE
    ]


def tile_under(context: Any, x: int, y: int, count: int) -> int | None:
    """The tile of a sheet of `count` under a point of the window, in pixels from its lower left; None beside them."""
    for area in sheet_areas(context):
        for region in area.regions:
            inside = region.x <= x < region.x + region.width and region.y <= y < region.y + region.height
            if region.type == "WINDOW" and inside:
                across, up = region.view2d.region_to_view(x - region.x, y - region.y)
                return tile_at(across, 1 - up, count)
    return None


class DREAMWRIGHT_OT_pick_in_sheet(bpy.types.Operator):
    """Pick a variation by a click."""

    bl_idname = "dreamwright.pick_in_sheet"
    bl_label = "Pick in Contact Sheet"
    bl_description = "Click a variation in the contact sheet to pick it; Escape or the right button ends this"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only where the sheet of a group is shown."""
        fault = "" if contact_sheet.shown_group() in addon_state.session().groups() else NO_GROUP
        return checks.allow(cls, fault or ("" if sheet_areas(context) else NOT_SHOWN))

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Wait for one click."""
        context.window.cursor_modal_set("EYEDROPPER")
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: Any, event: Any) -> set[str]:
        """Pick on a click; everything else but the keys that end this is the editors' own, such as zooming."""
        if event.type in {"ESC", "RIGHTMOUSE"}:
            return self._end(context, {"CANCELLED"})
        if event.type != "LEFTMOUSE" or event.value != "PRESS":
            return {"PASS_THROUGH"}
        group = contact_sheet.shown_group()
        members = addon_state.session().groups().get(group, [])
        tile = tile_under(context, event.mouse_x, event.mouse_y, len(members)) if members else None
        if tile is None:
            self.report({"WARNING"}, say("There is no variation at that place; nothing was picked"))
            return self._end(context, {"CANCELLED"})
        bpy.ops.dreamwright.pick_variation(group=group, number=tile + 1)
        return self._end(context, {"FINISHED"})

    def _end(self, context: Any, result: set[str]) -> set[str]:
        context.window.cursor_modal_restore()
        return result


register, unregister = bpy.utils.register_classes_factory((DREAMWRIGHT_OT_pick_in_sheet,))
