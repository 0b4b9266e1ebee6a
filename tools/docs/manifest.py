# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/pictures/manifest.json: what each picture and block of figures in the documents was made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dreamwright.shared.atomic import write_atomically

from .recipe import PICTURES

PATH = f"{PICTURES}/manifest.json"


@dataclass(frozen=True)
class MadeRecipe:
    """Fingerprints of a recipe's inputs by part, minutes that it took, and SHA-256 of its pictures by their path."""

    fingerprints: dict[str, str]
    minutes: float
    pictures: dict[str, str]


@dataclass(frozen=True)
class MadeFigures:
    """SHA-256 of a block's text, and the joined fingerprints of the recipes that it was written from."""

    text: str
    recipes: dict[str, str]


@dataclass
class Manifest:
    """All that was made, by name of the recipe and of the block."""

    recipes: dict[str, MadeRecipe] = field(default_factory=dict)
    figures: dict[str, MadeFigures] = field(default_factory=dict)


def read_manifest(root: Path) -> Manifest:
    """The manifest of the documents below `root`; an empty one without a file.

    Raises ValueError, TypeError and KeyError for a damaged one.
    """
    try:
        record = json.loads((root / PATH).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Manifest()
    return Manifest(
        {name: MadeRecipe(**made) for name, made in record["recipes"].items()},
        {name: MadeFigures(**made) for name, made in record["figures"].items()},
    )


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest. Raises OSError."""
    text = json.dumps(asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(root / PATH, text.encode())


def text_digest(text: str) -> str:
    """SHA-256 of a block's text."""
    return hashlib.sha256(text.strip().encode()).hexdigest()
