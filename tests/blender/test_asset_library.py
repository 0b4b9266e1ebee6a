# SPDX-License-Identifier: GPL-3.0-or-later
"""library.blend of `dreamwright batch` in real Blenders: assets with thumbnails, catalogs, tags and provenance."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamwright.backend.cli.main import main
from dreamwright.backend.io.blender_program import own_folder_first
from dreamwright.backend.server import local_queue
from dreamwright.shared.asset_catalogs import FILE_NAME, catalog_id, catalog_ids
from tests.testing.ball_runner import BallRunner
from tests.testing.blender_reports import INSIDE, report_of
from tests.testing.blenders import Blender, blenders, environment
from tests.testing.fake_props import ball

NAMES = {"Toadstool", "a blue mug", "a blue mug.001"}
TABLE = """prompt,name,seed,tags,catalog
a red mushroom,Toadstool,0,plant;red,Garden/Plants
a blue mug,,1,,
a blue mug,,2,cup,Kitchen
"""
NO_CATALOG = "00000000-0000-0000-0000-000000000000"


def batch(listed: Path, library: Path, *extra: str) -> int:
    return main(["batch", str(listed), "--library", str(library), *extra])


def make_library(folder: Path, *extra: str) -> Path:
    """A library of three balls, one with a texture, written by the Blender of this Python or a named one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local_queue, "LocalRunner", BallRunner)
        patched.setattr(BallRunner, "textured_words", ("mushroom",))
        listed = folder / "list.csv"
        listed.write_text(TABLE)
        assert batch(listed, folder / "library", *extra) == 0
    return folder / "library"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("bpy")
    return make_library(tmp_path_factory.mktemp("made"))


def look(blender: Blender, library: Path, home: Path) -> dict[str, Any]:
    """What asset_library.py reports of the library in a Blender."""
    script = INSIDE / "asset_library.py"
    arguments = ["--background", "--factory-startup", "--python-exit-code", "1", "--python"]
    command = [*blender.command, *(arguments if blender.kind == "program" else []), str(script)]
    variables = own_folder_first(command[0], environment(home, script, None, {"LIBRARY": str(library)}))
    for part in ("config", "scripts", "datafiles"):
        Path(variables["BLENDER_USER_RESOURCES"], part).mkdir(parents=True, exist_ok=True)
    return report_of(subprocess.run(command, env=variables, cwd=home, capture_output=True, text=True, timeout=200))


def check(report: dict[str, Any], library: Path) -> None:
    """The promises of a library."""
    assert set(report["offered"]["objects"]) == NAMES and report["offered"]["materials"] == []
    toadstool, mug = report["assets"]["Toadstool"], report["assets"]["a blue mug"]
    assert (toadstool["description"], toadstool["author"]) == ("a red mushroom", "Dreamwright")
    assert sorted(toadstool["tags"]) == ["dreamwright", "plant", "red"] and mug["tags"] == ["dreamwright"]
    assert toadstool["catalog_id"] == catalog_id("Garden/Plants") and mug["catalog_id"] == NO_CATALOG
    ids = catalog_ids((library / FILE_NAME).read_text())
    assert list(ids) == ["Garden", "Garden/Plants", "Kitchen"] and ids["Garden/Plants"] == toadstool["catalog_id"]
    for name, asset in report["assets"].items():
        assert asset["polygons"] == 960, name
        # Linear colors of float32, as the job made them.
        np.testing.assert_allclose(np.array(asset["colors"])[:, :3], ball().albedo[:3], atol=1e-6)
        assert asset["properties"]["dreamwright_prompt"] == asset["description"]
    with Image.open(library / "thumbnails" / "toadstool.0.png") as image:
        shown = np.asarray(image.convert("RGB"), int)[::32, ::32]
    np.testing.assert_array_equal(np.array(toadstool["thumbnail"]), shown)
    assert (toadstool["color_from"], toadstool["packed"]) == ("ShaderNodeTexImage", True)
    assert (mug["color_from"], mug["packed"]) == ("ShaderNodeVertexColor", False)
    assert toadstool["properties"]["dreamwright_seed"] == 0 and mug["properties"]["dreamwright_seed"] == 1
    # A drop brings one object with its mesh and material, and its image where it has one.
    images = 1 if report["dropped"] == "Toadstool" else 0
    assert report["counts"] == {"objects": 1, "meshes": 1, "materials": 1, "images": images} and report["local"]
    assert min(report["dimensions"]) > 0.2, "meters"


@pytest.mark.slow
@pytest.mark.parametrize("blender", [one for one in blenders() if one.kind == "module"], ids=lambda one: one.name)
def test_assets_in_blender(blender: Blender, library: Path, tmp_path: Path) -> None:
    if blender.missing:
        pytest.skip(blender.missing)
    check(look(blender, library, tmp_path), library)


@pytest.mark.slow
def test_library_of_the_oldest_blender_opens_in_all(library: Path, tmp_path: Path) -> None:
    """Written by Debian's Blender, which is older than 4.2, and dropped in it and in 4.2."""
    program = next(one for one in blenders() if one.kind == "program")
    if program.missing:
        pytest.skip(program.missing)
    copy = tmp_path / "library"
    shutil.copytree(library, copy)
    record = json.loads((copy / "library.json").read_text())
    (copy / "library.json").write_text(json.dumps({**record, "blend_of": ""}))
    assert batch(library.parent / "list.csv", copy, "--blender", program.command[0]) == 0
    for blender in (program, *(one for one in blenders() if one.name == "bpy-4.2.23" and not one.missing)):
        check(look(blender, copy, tmp_path), copy)


@pytest.mark.slow
def test_blend_file_is_written_again_only_when_something_changed(library: Path, tmp_path: Path) -> None:
    copy, listed = tmp_path / "library", tmp_path / "list.csv"
    shutil.copytree(library, copy)
    listed.write_text(TABLE)
    before = (copy / "library.blend").stat().st_ino
    assert batch(listed, copy) == 0 and (copy / "library.blend").stat().st_ino == before
    (copy / "library.blend").unlink()
    assert batch(listed, copy) == 0 and (copy / "library.blend").is_file()
    assert not list(copy.glob(".*")) and not list(copy.glob("*.blend1")), "no other files are left"


@pytest.mark.slow
def test_failing_blender_leaves_the_old_file(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy, listed = tmp_path / "library", tmp_path / "list.csv"
    shutil.copytree(library, copy)
    before = (copy / "library.blend").read_bytes()
    listed.write_text(TABLE.replace("plant;red", "fungus"))
    broken = tmp_path / "blender"
    broken.write_text("#!/bin/sh\necho no display\nexit 3\n")
    broken.chmod(0o755)
    assert batch(listed, copy, "--blender", str(broken)) == 1
    assert "ended with status 3 (no display); the props are kept" in capsys.readouterr().err
    assert (copy / "library.blend").read_bytes() == before and not list(copy.glob(".*"))
    assert batch(listed, copy) == 0 and (copy / "library.blend").read_bytes() != before
