# SPDX-License-Identifier: GPL-3.0-or-later
"""One tiny pipeline of each latent family on disk, and copies that a test may damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.testing.tiny_families import FAMILIES, write_family


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("families")
    return {name: write_family(name, work / name) for name in FAMILIES}


@pytest.fixture
def copy(folders, tmp_path):
    """Copies that a test may damage."""
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
