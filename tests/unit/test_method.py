# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/method.md matches the code: its functions exist, its equations are complete, and its preset table is right."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

from dreamwright.backend.config.parsing import apply_settings, config_to_mapping
from dreamwright.backend.config.presets import PAPER
from dreamwright.backend.config.recipes.starter import DRAFT, FINE, STANDARD

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "method.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:backend|tests|tools)/[\w/]+)\.py::([\w.]+)`", PAGE)))
EQUATIONS, _, AFTER = PAGE.partition("## What else the paper fixes")


@pytest.mark.parametrize(("module", "name"), NAMED, ids=lambda part: part)
def test_named_functions_exist(module: str, name: str) -> None:
    found = reduce(
        getattr,
        name.split("."),
        importlib.import_module(("dreamwright." if module.startswith("backend") else "") + module.replace("/", ".")),
    )
    assert callable(found) or isinstance(found, property)


def test_all_names_are_checked() -> None:
    assert len(NAMED) > 35
    assert len(re.findall("::", PAGE)) == len(re.findall(r"`(?:backend|tests|tools)/[\w/]+\.py::[\w.]+`", PAGE)) + 1, (
        "one entry explains the notation"
    )


def test_all_sixteen_equations_are_listed() -> None:
    rows = [[cell.strip() for cell in row.split(" | ")] for row in EQUATIONS.splitlines() if row.startswith("| ")]
    assert {len(row) for row in rows} == {3}, "no cell has a stray bar"
    numbers = [
        int(number) for row in rows for number in re.findall(r"^\| ([\d, ]+)$", row[0]) for number in number.split(", ")
    ]
    assert numbers == list(range(1, 17))
    for row in rows[2:]:
        assert "`backend/" in row[2] or "`tools/" in row[2] or "no code" in row[2], row


def listed(heading: str) -> list[str]:
    """The settings in a section's text."""
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    return re.findall(r"`(\w+\.\w+=[^`]+)`", section)


def test_listed_settings_convert_between_presets() -> None:
    draft, standard, fine = (listed(f"Differences of `{name}`") for name in ("draft", "standard", "fine"))
    assert len(draft) > 40 and len(standard) == 7 and len(fine) == 3
    assert apply_settings(PAPER, draft) == DRAFT
    assert apply_settings(DRAFT, standard) == STANDARD
    assert apply_settings(STANDARD, fine) == FINE
    values = [config_to_mapping(config) for config in (PAPER, DRAFT, STANDARD, FINE)]
    for names, one, other in ((draft, *values[:2]), (standard, *values[1:3]), (fine, *values[2:])):
        differing = {
            f"{section}.{key}" for section in one for key in one[section] if one[section][key] != other[section][key]
        }
        assert sorted(name.partition("=")[0] for name in names) == sorted(differing), (
            "no listed setting is equal in both presets"
        )
