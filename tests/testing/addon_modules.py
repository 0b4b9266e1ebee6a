# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of the add-on that know nothing of Blender, loaded without it: their `shared` is this checkout's."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import dreamwright.shared
from tests.testing.blenders import ROOT

PACKAGE = "dreamwright_loose"


def load(name: str) -> ModuleType:
    """blender_addon/<name>.py; whatever it imports from `.shared` is the same object as dreamwright.shared's."""
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(ROOT / "blender_addon")]
        sys.modules[PACKAGE] = package
        sys.modules[f"{PACKAGE}.shared"] = dreamwright.shared
        for own in (
            "arrays",
            "errors",
            "limits",
            "messages",
            "mesh_file",
            "schema",
            "job_states",
            "credentials",
            "private_files",
            "connection_monitor",
            "capabilities",
            "prompt_words",
            "client",
            "download",
        ):
            sys.modules[f"{PACKAGE}.shared.{own}"] = importlib.import_module(f"dreamwright.shared.{own}")
    return importlib.import_module(f"{PACKAGE}.{name}")
