# SPDX-License-Identifier: GPL-3.0-or-later
"""Translations of the add-on's texts: one JSON file a language, English text -> translation, given to Blender."""

from __future__ import annotations

import json
from pathlib import Path

import bpy

from .. import wording

# Blender's names of each language; they differ between versions.
LOCALES = {
    "de": ("de_DE",),
    "es": ("es", "es_ES"),
    "fr": ("fr_FR",),
    "ja": ("ja_JP",),
    "zh": ("zh_HANS", "zh_CN"),
}
CONTEXTS = ("*", "Operator")  # of Blender's texts: names of operators have one of their own

_DOMAIN = __name__


def read_catalogs() -> dict[str, dict[tuple[str, str], str]]:
    """The translations as Blender takes them, by locale. Raises OSError, ValueError."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for language, locales in LOCALES.items():
        path = Path(__file__).with_name(f"{language}.json")
        texts = json.loads(path.read_text(encoding="utf-8"))
        catalog = {(context, text): done for text, done in texts.items() if done for context in CONTEXTS}
        found |= dict.fromkeys(locales, catalog)
    return found


def register() -> None:
    """Give the translations to Blender, and have the add-on's own sentences looked up there."""
    try:
        bpy.app.translations.register(_DOMAIN, read_catalogs())
    except (OSError, ValueError) as error:
        print(f"Dreamwright is shown in English: its translations cannot be read: {error}")
    wording.translate_with(bpy.app.translations.pgettext_iface)


def unregister() -> None:
    """Take them back."""
    wording.translate_with(None)
    bpy.app.translations.unregister(_DOMAIN)
