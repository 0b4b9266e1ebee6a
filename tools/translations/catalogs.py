# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogs of translations, one JSON file a language, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

from .extraction import ADDON, addon_texts, placeholders, server_texts

FOLDER = ADDON / "translations"
LANGUAGES = ("de", "es", "fr", "ja", "zh")
HOW = (
    "To translate a text, run `python -m tools.translations --write`: it adds each missing text to every "
    "blender_addon/translations/LANGUAGE.json with an empty translation, and removes obsolete ones. Fill in the empty "
    "ones, with the same {placeholders}, in the words of Blender's own translation. Run it again to check."
)


def path_of(language: str) -> Path:
    """The file of a language."""
    return FOLDER / f"{language}.json"


def read_catalog(language: str) -> dict[str, str]:
    """English text -> translation. Raises OSError, ValueError."""
    content = json.loads(path_of(language).read_text(encoding="utf-8"))
    return {str(text): str(translation) for text, translation in content.items()}


def all_texts() -> dict[str, str]:
    """Every text with the place that needs it."""
    return server_texts() | addon_texts()


def faults(language: str, texts: dict[str, str]) -> list[str]:
    """What is missing, obsolete or wrong in the catalog of a language, each with its place."""
    catalog = read_catalog(language)
    found = [f"{language}: missing: {text!r} ({place})" for text, place in texts.items() if not catalog.get(text)]
    found += [f"{language}: obsolete: {text!r}" for text in catalog if text not in texts]
    for text, translation in catalog.items():
        if translation and placeholders(text) != placeholders(translation):
            found.append(f"{language}: other placeholders than the text: {text!r} -> {translation!r}")
        if translation.endswith(" ") and not text.endswith(" "):
            found.append(f"{language}: a space at the end: {translation!r}")
    return found


def write_catalog(language: str, texts: dict[str, str]) -> None:
    """Add missing texts with an empty translation, remove obsolete ones, and sort."""
    known = read_catalog(language) if path_of(language).is_file() else {}
    content = {text: known.get(text, "") for text in sorted(texts)}
    path_of(language).write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
