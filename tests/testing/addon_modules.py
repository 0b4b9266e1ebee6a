# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of the add-on that do not import bpy, loaded without Blender; their `shared` is `dreamwright.shared`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import ModuleType

import dreamwright.shared
from tests.testing.blenders import ROOT

PACKAGE = "dreamwright_without_blender"


def load(name: str) -> ModuleType:
    """blender_addon/<name>.py; what it imports from `.shared` is the same object as dreamwright.shared's."""
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(ROOT / "blender_addon")]
        sys.modules[PACKAGE] = package
        sys.modules[f"{PACKAGE}.shared"] = dreamwright.shared
        for module in pkgutil.iter_modules(dreamwright.shared.__path__):
            own = importlib.import_module(f"dreamwright.shared.{module.name}")
            sys.modules[f"{PACKAGE}.shared.{module.name}"] = own
    return importlib.import_module(f"{PACKAGE}.{name}")
