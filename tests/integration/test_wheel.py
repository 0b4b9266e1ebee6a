# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheel has the product and the starter's weights, and no training code, tests, benchmarks or tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77", reason="older ones do not read the license of pyproject.toml")
ROOT = Path(__file__).parents[2]
MODULES = ("backend", "blender_addon/datablocks", "shared")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", *MODULES)
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a wheel built from a copy of the sources."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    done = subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("dreamwright-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        return opened.namelist()


def test_every_module_is_in_the_wheel(files: list[str]) -> None:
    modules = {
        f"dreamwright/{path.relative_to(ROOT).as_posix()}" for top in MODULES for path in (ROOT / top).rglob("*.py")
    }
    assert {name for name in files if name.endswith(".py")} == modules


def test_weights_and_type_markers_are_in_the_wheel(files: list[str]) -> None:
    starter = ROOT / "backend" / "starter"
    weights = {f"dreamwright/{path.relative_to(ROOT).as_posix()}" for path in starter.rglob("*.safetensors")}
    assert weights and weights <= set(files)
    for needed in ("weights/model_index.json", "weights/domain.json"):
        assert f"dreamwright/backend/starter/{needed}" in files
    assert {"dreamwright/backend/py.typed", "dreamwright/shared/py.typed"} <= set(files)
    assert any(name.endswith("licenses/LICENSE") for name in files)


def test_training_code_is_not_in_the_wheel(files: list[str]) -> None:
    """No path and no source text of the wheel belongs to training of the starter's networks."""
    tops = {name.split("/")[0] for name in files}
    assert {top for top in tops if not top.startswith("dreamwright-")} == {"dreamwright"}
    own = {path.stem for path in (ROOT / "tools" / "starter_training").glob("*.py")} - {"__init__"}
    starter = {Path(name).stem for name in files if name.startswith("dreamwright/backend/starter/")}
    assert own and not own & starter
    for path in (ROOT / "backend" / "starter").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ".backward()" not in text and "torch.optim" not in text, path
