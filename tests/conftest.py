# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by all tests: one thread a process, so that sums are ordered alike and the machine is not oversubscribed."""

from __future__ import annotations

import os
from typing import Iterator

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import pytest
import torch
from hypothesis import settings

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
