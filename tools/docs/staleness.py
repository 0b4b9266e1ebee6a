# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pictures and figures of the documents are not those of the weights and presets that ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .figure_blocks import blocks
from .figure_tables import Figures
from .fingerprints import file_digest, fingerprints, joined
from .manifest import Manifest, text_digest
from .recipe import PICTURES, Recipe

# A change of the code is told and does not count as stale: most changes leave results as they are.
NOTED = "code"


@dataclass(frozen=True)
class Finding:
    """Why pictures or figures differ from what the checkout would give, and whether that counts as stale."""

    name: str
    reason: str
    is_stale: bool = True


def recipe_findings(recipe: Recipe, manifest: Manifest, root: Path) -> list[Finding]:
    """What has changed since the recipe's pictures below `root` were made."""
    made = manifest.recipes.get(recipe.name)
    if made is None:
        return [Finding(recipe.name, "not made by this command yet")]
    present = fingerprints(recipe)
    changed = [part for part, value in present.items() if made.fingerprints.get(part) != value]
    stale = [part for part in changed if part != NOTED]
    found = [Finding(recipe.name, f"other {' and '.join(stale)} since it was made")] if stale else []
    if NOTED in changed and not stale:
        found.append(Finding(recipe.name, "the code has changed since it was made", is_stale=False))
    for picture in recipe.pictures:
        path = root / PICTURES / picture.path
        if not path.is_file():
            found.append(Finding(recipe.name, f"{picture.path} is missing"))
        elif made.pictures.get(picture.path) != file_digest(path):
            found.append(Finding(recipe.name, f"{picture.path} is another file than was made"))
    return found


def figure_findings(figures: Figures, manifest: Manifest, root: Path) -> list[Finding]:
    """Whether a block below `root` is as written, from what its recipes made last."""
    name = f"figures {figures.name}"
    text = blocks((root / figures.document).read_text(encoding="utf-8")).get(figures.name)
    if text is None:
        return [Finding(name, f"{figures.document} has no such block")]
    if not figures.recipes:
        return [] if text == figures.text({}).strip() else [Finding(name, "differ from the files that ship")]
    made = manifest.figures.get(figures.name)
    if made is None:
        return [Finding(name, "not written by this command yet")]
    if made.text != text_digest(text):
        return [Finding(name, f"were edited in {figures.document}")]
    for recipe in figures.recipes:
        last = manifest.recipes.get(recipe)
        if last is None or joined(last.fingerprints) != made.recipes.get(recipe):
            return [Finding(name, f"were written from another run of {recipe} than its pictures")]
    return []


def all_findings(
    recipes: Sequence[Recipe], figures: Sequence[Figures], manifest: Manifest, root: Path
) -> list[Finding]:
    """Findings of all recipes and blocks."""
    found = [finding for recipe in recipes for finding in recipe_findings(recipe, manifest, root)]
    return found + [finding for block in figures for finding in figure_findings(block, manifest, root)]
