# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks every test of this folder with `gpu`, and skips it with the reason where CUDA is not available."""

from __future__ import annotations

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
