# SPDX-License-Identifier: GPL-3.0-or-later
"""Every text of the add-on has a translation in every language, with the same placeholders."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools.translations import catalogs, extraction


@pytest.mark.parametrize("language", catalogs.LANGUAGES)
def test_catalogs_are_complete(language: str) -> None:
    found = catalogs.faults(language, catalogs.all_texts())
    assert not found, "\n".join([*found, catalogs.HOW])


def texts_of(source: str) -> set[str]:
    return {text for _, text in extraction.texts_in(source)}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('say("“{prompt}” is here", prompt=prompt)', "“{prompt}” is here"),
        ('WHY = mark("Select a job")', "Select a job"),
        ('class A:\n    bl_label = "Import"', "Import"),
        ('class A:\n    bl_description = (\n        "Import "\n        "it"\n    )', "Import it"),
        ('class A:\n    refusal = "Not yet"', "Not yet"),
        ('layout.label(text="Jobs", icon="X")', "Jobs"),
        ('row.operator("a.b", text="Again" if again else "Once")', "Once"),
        ('class A:\n    seed: IntProperty(name="Seed", description="Another")', "Another"),
        ('class A:\n    kind: EnumProperty(items=[("A", "Even", "Equal sizes")])', "Equal sizes"),
    ],
)
def test_texts_are_found_in_source(source: str, text: str) -> None:
    assert text in texts_of(source)


def test_identifiers_are_no_texts() -> None:
    source = 'class A:\n    bl_idname = "a.b"\nlayout.prop(mine, "seed", icon="X")\n'
    source += 'EnumProperty(items=[("ID", "Name", "Tip")])'
    assert texts_of(source) == {"Name", "Tip"}


def test_faults_name_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogs, "FOLDER", tmp_path)
    (tmp_path / "de.json").write_text('{"Step {step}": "Schritt", "Old": "Alt", "Empty": ""}', encoding="utf-8")
    texts = {"Step {step}": "here:1", "Empty": "here:2", "New": "here:3"}
    found = catalogs.faults("de", texts)
    assert [fault.split(":")[1].strip() for fault in found] == [
        "missing", "missing", "obsolete", "other placeholders than the text",
    ]  # fmt: skip
    catalogs.write_catalog("de", texts)
    assert catalogs.read_catalog("de") == {"Empty": "", "New": "", "Step {step}": "Schritt"}


def test_every_sentence_is_said_as_a_constant() -> None:
    """A text that is composed before it is looked up is never found."""
    for path in sorted(extraction.ADDON.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name in extraction.TRANSLATED and node.args:
                assert not isinstance(node.args[0], ast.JoinedStr), f"{path.name}:{node.lineno}"
