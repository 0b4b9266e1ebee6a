# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks every test of this folder with `gpu`, and skips it with the reason where CUDA is not available."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The hook receives the items of the whole run, so only those below this folder are changed."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(
                    pytest.mark.skip(reason="no CUDA device; run bash tests/run.sh tests/gpu on a machine with one")
                )


@pytest.fixture
def plain_float32() -> Iterator[None]:
    """No TF32, which keeps 10 bits of a factor. Undone here: pytest's monkeypatch deletes what it finds in no
    instance's dictionary, and these attributes are in none.
    """
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value
