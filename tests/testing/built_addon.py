# SPDX-License-Identifier: GPL-3.0-or-later
"""Session fixtures: the built add-on, and each installed Blender."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pytest

import build_addon
from tests.testing.blenders import ROOT, Blender, blenders
from tools.addon_build.wheels import PUBLISHED


@dataclass(frozen=True)
class Built:
    """Files of one build."""

    out: Path
    universal: Path
    separate: dict[str, Path]
    validated: bool


def build_into(out: Path, source: Path = ROOT, cache: Path = ROOT / ".wheels") -> Built:
    """Build, and sort the zips by platform."""
    zips, validated = build_addon.build(source, out, cache)
    return Built(out, zips[0], dict(zip(PUBLISHED, zips[1:], strict=True)), validated)


build_once = functools.cache(build_into)  # pytest itself would build for each module that imports the fixture


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The add-on of this checkout."""
    return build_once(tmp_path_factory.getbasetemp() / "built-addon")


@pytest.fixture(params=blenders(), ids=lambda blender: blender.name)
def blender_install(request: pytest.FixtureRequest) -> Blender:
    """Each Blender in turn. A missing one skips with the reason."""
    if request.param.missing:
        pytest.skip(request.param.missing)
    return request.param
