# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/user/recipes.md, the sources of every number of the recipes, from backend/config/recipes.

python -m tools.docs.recipe_page
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamwright.backend.config.presets import RECIPES
from dreamwright.backend.config.recipes.recipe import FAMILY_TEXT, Recipe, Sourced
from dreamwright.shared.numbers import number_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "user" / "recipes.md"
FULL = "standard"  # the recipe of a family whose numbers are all listed; of the others, what differs from it
OWN = ("starter", "clip")  # families whose numbers are Dreamwright's
INTRODUCTION = """\
# Recipes

<!-- Written by `python -m tools.docs.recipe_page` from backend/config/recipes; edit the tables there. -->

A preset is a quality. What it means depends on the family of the model, which its `model_index.json` says. The run, the
server's log and Blender's panel name the recipe. `--preset latent/draft` is `draft` for a latent model, and an error
with a model of another family.

The numbers for the starter and for CLIP are Dreamwright's own ([method](../method.md)). Those of the families below are
published ones. They have not been run with published weights here.
"""
READING = """\
Values are in Dreamwright's units: omega is diffusers' guidance_scale - 1, losses are sums over a view's pixels, and
parts of a run are shares of its steps. A setting that a recipe does not list is as in the
[table of settings](settings.md); that of a `refine` recipe is as in the starter's.
"""


def recipes_page() -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION, _overview(), READING]
    for family, recipes in RECIPES.items():
        published = [recipe for recipe in recipes.values() if recipe.numbers]
        if not published:
            continue
        parts.append(f"## {family}\n\n{FAMILY_TEXT[family][0].upper()}{FAMILY_TEXT[family][1:]}.\n")
        parts += [_numbers(recipe, recipes[FULL]) for recipe in published]
    return "\n".join(parts).rstrip("\n") + "\n"


def _overview() -> str:
    rows = ["| recipe | what | steps | numbers of |", "| --- | --- | --- | --- |"]
    rows += [
        f"| `{recipe.path}` | {recipe.summary} | {recipe.config.total_steps} | {_basis(recipe)} |"
        for family, recipes in RECIPES.items()
        if family not in OWN
        for recipe in recipes.values()
    ]
    return "\n".join(rows) + "\n"


def _basis(recipe: Recipe) -> str:
    sources = dict.fromkeys(number.source for number in recipe.numbers)
    return ", ".join(f"[{source.name}]({source.url})" for source in sources) or recipe.basis


def _numbers(recipe: Recipe, full: Recipe) -> str:
    known = {(number.setting, number.value) for number in full.numbers}
    differs = recipe.name not in (FULL, "refine")
    listed = [n for n in recipe.numbers if not differs or (n.setting, n.value) not in known]
    lines = [f"### {recipe.path}\n"]
    if differs:
        lines.append(f"As `{full.path}`, except:\n")
    lines += ["| setting | value | published |", "| --- | --- | --- |", *(_row(number) for number in listed), ""]
    left = [text for text in recipe.left_out if not differs or text not in full.left_out]
    if left:
        lines += ["Not carried over:\n", *(f"- {text}" for text in left), ""]
    return "\n".join(lines)


def _row(number: Sourced) -> str:
    return f"| `{number.setting}` | {_value(number.value)} | {number.published} |".replace("\n", " ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return number_text(float(f"{value:.6g}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or only check that it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when the page is out of date")
    if parser.parse_args(arguments).check:
        return int(PAGE.read_text(encoding="utf-8") != recipes_page())
    PAGE.write_text(recipes_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
