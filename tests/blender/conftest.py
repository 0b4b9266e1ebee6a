# SPDX-License-Identifier: GPL-3.0-or-later
"""An installed copy of the add-on, as a Blender would have it, and a server for it in another process."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "dreamwright_addon_under_test"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The add-on's folder, laid out as in the zip, importable as a package."""
    top = tmp_path_factory.mktemp("addons")
    folder = top / PACKAGE
    leave = shutil.ignore_patterns("__pycache__", "shared")
    shutil.copytree(ROOT / "blender_addon", folder, ignore=leave)
    shutil.copytree(ROOT / "shared", folder / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(top))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(top))


class ServerProcess:
    """A fake server in another process, whose address is known."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "tests.testing.fake_server", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts fake servers, and ends them."""
    started: list[ServerProcess] = []

    def start(*options: str) -> ServerProcess:
        started.append(ServerProcess(*options))
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

    from tests.testing.addon_driver import Artist

    for name in ("DATAFILES", "SCRIPTS", "CONFIG"):
        monkeypatch.setenv(f"BLENDER_USER_{name}", str(tmp_path / name.lower()))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    problems: list[BaseException] = []
    addon_utils.enable(PACKAGE, default_set=True, handle_error=problems.append)
    assert not problems, problems
    yield Artist()
    addon_utils.disable(PACKAGE, default_set=True)
    for name in [name for name in sys.modules if name == PACKAGE or name.startswith(PACKAGE + ".")]:
        del sys.modules[name]
