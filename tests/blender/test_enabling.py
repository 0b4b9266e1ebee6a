# SPDX-License-Identifier: GPL-3.0-or-later
"""Enabling the add-on starts nothing, and disabling it removes everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

bpy = pytest.importorskip("bpy")
import addon_utils

from tests.testing.addon_driver import AddonDriver
from tests.testing.installed_addon import PACKAGE


@pytest.mark.skipif(bpy.app.binary_path != "", reason="inside a Blender program its Python cannot be started alone")
def test_enabling_loads_no_zeromq_and_starts_no_thread(installed: Path) -> None:
    script = (
        f"import sys, threading; sys.path.insert(0, {str(installed.parent)!r}); import bpy, addon_utils;"
        f"addon_utils.enable({PACKAGE!r}, default_set=True);"
        "print('zmq' in sys.modules, threading.active_count(), hasattr(bpy.types, 'DREAMWRIGHT_PT_jobs'))"
    )
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(installed.parent)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.split()[-3:] == ["False", "1", "True"], done.stdout + done.stderr


def test_disabling_removes_everything(blender: AddonDriver, serve: Any) -> None:
    server = serve("--size", "8")
    blender.connect(server.address)
    blender.generate()
    timer = blender.module("timer")._on_timer
    handlers = (bpy.app.handlers.load_pre, bpy.app.handlers.load_post)
    assert bpy.app.timers.is_registered(timer)
    addon_utils.disable(PACKAGE, default_set=True)
    assert not [name for name in dir(bpy.types) if "DREAMWRIGHT" in name.upper()]
    assert not [name for name in dir(bpy.types.WindowManager) if name.startswith("dreamwright")]
    assert "generate" not in dir(bpy.ops.dreamwright)
    assert not bpy.app.timers.is_registered(timer)
    assert not [f for found in handlers for f in found if f.__module__.startswith(PACKAGE)]
    addon_utils.enable(PACKAGE, default_set=True)
    assert blender.panel.prompt == ""
