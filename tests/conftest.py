# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by all tests: one thread a process, so that sums are ordered alike and the machine is not oversubscribed."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import pytest
import torch
from hypothesis import settings

STATUS = pytest.StashKey[int]()

torch.set_num_threads(1)
settings.register_profile("house", deadline=None, max_examples=15, derandomize=True)
settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Embeddings of tests stay out of the user's cache folder."""
    before = os.environ.get("DREAMWRIGHT_CACHE")
    os.environ["DREAMWRIGHT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["DREAMWRIGHT_CACHE"]
    else:
        os.environ["DREAMWRIGHT_CACHE"] = before


@pytest.fixture
def generator() -> torch.Generator:
    """A freshly seeded generator."""
    return torch.Generator().manual_seed(0)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remembered for `pytest_unconfigure`, which is not told."""
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without C++'s static destructors where bpy was loaded.

    In Blender 4.5 one of them waits for ever for a thread of its own when anything still holds the module bpy at the
    interpreter's end (Blender's issue 146640, mended in 5.0); pytest holds much. Python's own handlers are run first.
    """
    if "bpy" in sys.modules:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash.get(STATUS, 1))
