# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: the add-on in each language of Blender, and what is left when it is disabled."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import bpy

ADDON: str  # given by run_installed.py

LANGUAGES = {"de": ("de_DE",), "es": ("es", "es_ES"), "fr": ("fr_FR",), "ja": ("ja_JP",), "zh": ("zh_HANS", "zh_CN")}
translate = bpy.app.translations.pgettext_iface
view = bpy.context.preferences.view
wording: Any = importlib.import_module(f"{ADDON}.wording")
folder = Path(importlib.import_module(f"{ADDON}.translations").__file__).parent


def set_language(names: tuple[str, ...]) -> bool:
    """Set the first of these languages that this Blender has; False where it has none."""
    for name in names:
        try:
            view.language = name
        except TypeError:
            continue
        view.use_translate_interface = view.use_translate_tooltips = True
        return True
    return False


def untranslated(catalog: dict[str, str]) -> list[str]:
    """Texts that appear in English. A text that Blender itself translates may appear in its words."""
    return [
        text
        for text, wanted in catalog.items()
        for context in ("*", "Operator")
        if wanted != text and translate(text, context) == text
    ]


def seen() -> list[str]:
    """A sentence with a name, the name of an operator, a tooltip, and the reason of a disabled button."""
    try:
        bpy.ops.dreamwright.generate(prompt="a red mushroom")
        reason = ""
    except RuntimeError as error:
        reason = str(error)
    return [
        wording.say("Imported “{prompt}”", prompt="a red mushroom"),
        translate("Finish Selected Mesh", "Operator"),
        translate("Height of the finished prop"),
        reason.rpartition("\n")[2] or reason,
    ]


report: dict[str, Any] = {"english": seen(), "languages": {}}
for language, names in LANGUAGES.items():
    if set_language(names):
        catalog = json.loads((folder / f"{language}.json").read_text(encoding="utf-8"))
        found = {"untranslated": untranslated(catalog), "seen": seen(), "catalog": catalog["Finish Selected Mesh"]}
        report["languages"][language] = found
bpy.ops.preferences.addon_disable(module=ADDON)
report["left"] = [translate("Finish Selected Mesh", "Operator"), translate("Height of the finished prop")]
print("REPORT " + json.dumps(report))
