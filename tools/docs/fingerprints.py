# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of what a recipe's results depend on: commands, weights, presets and code."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from dreamwright.backend.config.presets import REFINE_PRESET, get_preset
from dreamwright.backend.config.recipes.starter import REFINE

from .recipe import ROOT, Recipe

PARTS = ("command", "weights", "presets", "code")


def fingerprints(recipe: Recipe, tiny: bool = False, root: Path = ROOT) -> dict[str, str]:
    """SHA-256 of each of PARTS, of the checkout `root`. Raises OSError for a file that cannot be read."""
    return {
        "command": _digest([step.words(tiny) for step in recipe.steps]),
        "weights": files_digest([root / path for path in recipe.weights], root),
        "presets": _digest([[name, _preset_settings(name)] for name in recipe.presets]),
        "code": code_digest(recipe.code, root),
    }


def joined(parts: dict[str, str]) -> str:
    """One SHA-256 of all parts."""
    return _digest([parts[name] for name in PARTS])


def files_digest(paths: Sequence[Path], root: Path) -> str:
    """SHA-256 of the weight files below the folders, by their names and contents."""
    files = sorted(file for folder in paths for file in folder.rglob("*") if file.suffix in (".safetensors", ".json"))
    return _digest([[file.relative_to(root).as_posix(), file_digest(file)] for file in files])


def code_digest(paths: Sequence[str], root: Path = ROOT) -> str:
    """SHA-256 of the Python modules at the paths, files or folders, without their comments and docstrings.

    So a module whose words alone change makes nothing stale. Python's own version of the syntax tree is part of it.
    """
    modules = sorted(
        {file for path in paths for file in ([root / path] if path.endswith(".py") else (root / path).rglob("*.py"))}
    )
    return _digest(
        [[file.relative_to(root).as_posix(), _module_digest(file, file.stat().st_mtime_ns)] for file in modules]
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _preset_settings(name: str) -> dict[str, Any]:
    return asdict(REFINE if name == REFINE_PRESET else get_preset(name).config)


@cache
def _module_digest(path: Path, changed_ns: int) -> str:
    """SHA-256 of a module's syntax tree. `changed_ns`, its time of change, has a run of hours see what is edited."""
    tree = ast.parse(path.read_bytes(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node, clean=False
        ):
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
