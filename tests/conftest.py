# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by all tests. One thread a process, so that sums have one order and the cores are not oversubscribed."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

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
    """Keep the text embeddings of tests out of the user's cache folder."""
    before = os.environ.get("DREAMWRIGHT_CACHE")
    os.environ["DREAMWRIGHT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["DREAMWRIGHT_CACHE"]
    else:
        os.environ["DREAMWRIGHT_CACHE"] = before


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command run in this process does to the log: its handler writes to a stream that is closed then."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for variable in ("DREAMWRIGHT_LOG_FORMAT", "DREAMWRIGHT_LOG_LEVEL"):
        # Setting it first makes monkeypatch take back what the test sets.
        value = os.environ.get(variable)
        monkeypatch.setenv(variable, value or "")
        if value is None:
            monkeypatch.delenv(variable)
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def generator() -> torch.Generator:
    """A freshly seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: whole files, and the longest first."""
    from tests.testing.scheduling import GroupScheduling

    return GroupScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests for several processes; all of them must collect alike."""
    if hasattr(config, "workerinput"):
        from tests.testing.scheduling import longest_first

        longest_first(items)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the exit status for `pytest_unconfigure`, which does not receive it."""
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Exit without running C++ static destructors where bpy was loaded.

    In Blender 4.5 one of them waits forever for a thread when anything still refers to the module bpy at interpreter
    exit
    (Blender issue 146640, fixed in 5.0), and pytest keeps such references. Python's own exit handlers run first.
    """
    if "bpy" in sys.modules:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash.get(STATUS, 1))
