# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the add-on's tests: the installed and the built add-on, Blenders, and fake servers in other processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.testing.addon_session import bench
from tests.testing.blenders import ROOT
from tests.testing.built_addon import blender_install, built
from tests.testing.client_pair import pair
from tests.testing.installed_addon import PACKAGE, installed
from tests.testing.network_namespaces import networks

__all__ = ["bench", "blender_install", "built", "installed", "networks", "pair"]


class FakeServerProcess:
    """A fake server in another process, whose address is known."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "tests.testing.fake_server", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def kill(self) -> None:
        """Kill it, as a crash would end it."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts fake servers, and ends them."""
    started: list[FakeServerProcess] = []

    def start(*options: str) -> FakeServerProcess:
        started.append(FakeServerProcess(*options))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def blender(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A fresh Blender, in this process, with the add-on enabled."""
    bpy = pytest.importorskip("bpy")
    import addon_utils  # Blender's own, there once bpy is

    from tests.testing.addon_driver import AddonDriver

    for name in ("DATAFILES", "SCRIPTS", "CONFIG"):
        monkeypatch.setenv(f"BLENDER_USER_{name}", str(tmp_path / name.lower()))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    problems: list[BaseException] = []
    addon_utils.enable(PACKAGE, default_set=True, handle_error=problems.append)
    assert not problems, problems
    yield AddonDriver()
    addon_utils.disable(PACKAGE, default_set=True)
    for name in [name for name in sys.modules if name == PACKAGE or name.startswith(PACKAGE + ".")]:
        del sys.modules[name]
