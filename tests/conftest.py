# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by all tests: one thread a process, so that sums are ordered alike and the machine is not oversubscribed."""

from __future__ import annotations

import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("house", deadline=None, max_examples=15, derandomize=True)
settings.load_profile("house")


@pytest.fixture
def generator() -> torch.Generator:
    """A freshly seeded generator."""
    return torch.Generator().manual_seed(0)
