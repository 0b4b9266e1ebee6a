# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for UILayout that checks properties, operators and icons, and records all texts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bpy


class RecordingLayout:
    """Stands in for bpy.types.UILayout."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def _same(self, **options: Any) -> RecordingLayout:
        return self

    row = column = box = split = _same

    def _icon(self, icon: str) -> None:
        known = bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items
        assert icon in known, f"no icon {icon}"

    def label(self, text: str = "", icon: str = "NONE", translate: bool = True) -> None:
        assert isinstance(text, str)
        self._icon(icon)
        self.texts.append(text)

    def prop(
        self, data: Any, name: str, text: str = "", icon: str = "NONE", slider: bool = False, placeholder: str = "",
        toggle: bool = False,
    ) -> None:  # fmt: skip
        assert name in data.bl_rna.properties, f"{data} has no {name}"
        self._icon(icon)
        self.texts.append(text)
        getattr(data, name)

    def operator(
        self, name: str, text: str = "", icon: str = "NONE", depress: bool = False, emboss: bool = True
    ) -> Any:
        group, _, verb = name.partition(".")
        assert verb in dir(getattr(bpy.ops, group)), f"no operator {name}"
        self._icon(icon)
        return SimpleNamespace()

    def operator_menu_enum(self, name: str, choice: str, text: str = "", icon: str = "NONE") -> None:
        self.operator(name, text, icon)
        kind = getattr(bpy.types, "DREAMWRIGHT_OT_" + name.partition(".")[2])
        assert choice in kind.__annotations__, f"{name} has no {choice}"

    def template_icon(self, icon_value: int, scale: float = 1.0) -> None:
        assert icon_value > 0 and scale > 0

    def template_list(self, kind: str, name: str, data: Any, items: str, active: Any, index: str, **shown: Any) -> None:
        assert hasattr(bpy.types, kind)
        lister = SimpleNamespace(filter_name="", bitflag_filter_item=1)
        draw = getattr(bpy.types, kind).draw_item
        for position, item in enumerate(getattr(data, items)):
            draw(lister, bpy.context, self, data, item, 0, active, index, position)
        getattr(bpy.types, kind).filter_items(lister, bpy.context, data, items)

    def context_pointer_set(self, name: str, data: Any) -> None:
        assert isinstance(data, bpy.types.bpy_struct), name

    def popover(self, panel: str, icon: str = "NONE", text: str = "") -> None:
        assert hasattr(bpy.types, panel)
        self._icon(icon)


class ModernRecordingLayout(RecordingLayout):
    """With the functions that 4.0 (progress) and 5.2 (textbox) added."""

    def textbox(self, data: Any, name: str, initial_visible_lines: int = 1, placeholder: str = "") -> None:
        self.prop(data, name, placeholder=placeholder)

    def progress(self, factor: float, text: str, type: str) -> None:
        assert 0 <= factor <= 1
        self.texts.append(text)


def draw_all(module: Any, modern: bool = True) -> list[str]:
    """Draw every panel of a module, as a new or an old Blender does; all texts."""
    texts: list[str] = []
    for name in dir(module):
        kind = getattr(module, name)
        if isinstance(kind, type) and issubclass(kind, bpy.types.Panel):
            stand_in = SimpleNamespace(layout=(ModernRecordingLayout if modern else RecordingLayout)(texts))
            for part in dir(kind):
                if part.startswith("_draw_"):
                    setattr(stand_in, part, getattr(kind, part).__get__(stand_in))
            kind.draw(stand_in, bpy.context)
            if hasattr(kind, "draw_header_preset"):
                kind.draw_header_preset(stand_in, bpy.context)
    return texts
