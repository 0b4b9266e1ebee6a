# SPDX-License-Identifier: GPL-3.0-or-later
"""Every English text of the add-on that a user reads, found in its source: {text: where it is}."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADDON = ROOT / "blender_addon"

PROPERTIES = {"BoolProperty", "CollectionProperty", "EnumProperty", "FloatProperty", "IntProperty", "StringProperty"}
CLASS_TEXTS = {"bl_label", "bl_description", "refusal"}  # attributes of classes
CALL_TEXTS = {"text", "placeholder"}  # keywords of Blender's drawing functions
TRANSLATED = {"say", "mark"}  # functions of blender_addon/wording.py
# Tables of the protocol whose texts the panel shows.
TABLES = {"failure_causes.py": "CAUSE_DESCRIPTIONS", "durations.py": "TIME_RANGES", "job_states.py": "JobState"}
UNTRANSLATED = {"Dreamwright", "LoRAs", "LoRA"}  # names


def addon_texts() -> dict[str, str]:
    """The texts of the add-on's own code and of the tables of the protocol that its panel shows."""
    found: dict[str, str] = {}
    for path in sorted(ADDON.glob("*.py")):
        for line, text in texts_in(path.read_text(encoding="utf-8")):
            found.setdefault(text, f"blender_addon/{path.name}:{line}")
    for name, table in TABLES.items():
        for line, text in _table_texts(ast.parse((ROOT / "shared" / name).read_text(encoding="utf-8")), table):
            found.setdefault(text, f"shared/{name}:{line}")
    return {text: place for text, place in found.items() if _has_words(text) and text not in UNTRANSLATED}


def server_texts() -> dict[str, str]:
    """Names and tooltips of the settings that this version's server describes to the panel."""
    from dreamwright.backend.server.offered_settings import setting_infos

    found = {}
    for setting in setting_infos():
        for text in (setting.label, setting.tip.rstrip(".")):
            found[text] = f"setting {setting.name}"
    return {text: place for text, place in found.items() if _has_words(text) and text not in UNTRANSLATED}


def placeholders(text: str) -> list[str]:
    """The names in braces, sorted."""
    return sorted(re.findall(r"{(\w+)}", text))


def _has_words(text: str) -> bool:
    return any(letter.isalpha() for letter in re.sub(r"{\w+}", "", text))


def texts_in(source: str) -> Iterator[tuple[int, str]]:
    """The texts of a module of the add-on, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for one in node.body:
                if isinstance(one, ast.Assign) and getattr(one.targets[0], "id", "") in CLASS_TEXTS:
                    yield from _constant(one.value)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
            if name in TRANSLATED and node.args:
                yield from _constant(node.args[0])
            for keyword in node.keywords:
                if name in PROPERTIES and keyword.arg in ("name", "description"):
                    yield from _constant(keyword.value)
                elif name in PROPERTIES and keyword.arg == "items" and isinstance(keyword.value, ast.List):
                    for item in keyword.value.elts:
                        for part in item.elts[1:3] if isinstance(item, ast.Tuple) else ():
                            yield from _constant(part)
                elif name not in PROPERTIES and keyword.arg in CALL_TEXTS:
                    yield from _choices(keyword.value)


def _constant(node: ast.expr) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value


def _choices(node: ast.expr) -> Iterator[tuple[int, str]]:
    """A constant, or the constants between which a condition chooses."""
    if isinstance(node, ast.IfExp):
        yield from _choices(node.body)
        yield from _choices(node.orelse)
    else:
        yield from _constant(node)


def _table_texts(tree: ast.Module, table: str) -> Iterator[tuple[int, str]]:
    """All texts in a module's constant, or the values of an Enum."""
    for node in tree.body:
        named = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", node)
        if getattr(named, "id", getattr(named, "name", "")) == table:
            for part in node.body[1:] if isinstance(node, ast.ClassDef) else [node]:
                for one in ast.walk(part):
                    if isinstance(one, ast.expr):
                        yield from _constant(one)
