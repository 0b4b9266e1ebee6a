# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's folder as a Blender has it installed, importable in the test's own process."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "dreamwright_addon_under_test"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The add-on's folder, laid out as in the zip, importable as the package `PACKAGE`."""
    top = tmp_path_factory.mktemp("addons")
    folder = top / PACKAGE
    shutil.copytree(ROOT / "blender_addon", folder, ignore=shutil.ignore_patterns("__pycache__", "shared"))
    shutil.copytree(ROOT / "shared", folder / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(top))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(top))
