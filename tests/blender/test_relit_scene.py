# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright demo --scene` in real Blenders: pictures in three lightings, and a measure that holds and can fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dreamwright.backend.cli.main import main
from dreamwright.backend.config.schema import BackgroundConfig
from dreamwright.backend.fields import build_background
from dreamwright.backend.geometry.color import display_to_linear
from dreamwright.backend.io.blender_program import blender_command
from dreamwright.backend.library import blend_file
from dreamwright.backend.library.collecting import read_mesh_file
from dreamwright.backend.library.library_folder import LibraryFolder
from dreamwright.backend.relighting import lit_scene
from dreamwright.backend.relighting.learned_background import background_image
from dreamwright.backend.relighting.lit_scene import LIGHTINGS, Prop, Size
from dreamwright.backend.relighting.measurement import LIMIT
from dreamwright.backend.relighting.scene_description import parse_scene
from dreamwright.backend.server import local_queue
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from tests.testing.ball_runner import BallRunner
from tests.testing.blender_reports import INSIDE, report_of
from tests.testing.blenders import ROOT, Blender, blenders, environment
from tests.testing.fake_props import RED

SCENE = [
    {"name": "table", "prompt": "a white table", "height_m": 0.7},
    {"name": "lamp", "prompt": "a yellow lamp", "height_m": 0.4, "at": [0.6, -0.2], "turn_deg": 30, "lamp": True},
    {"name": "mug", "prompt": "a blue mug", "height_m": 0.2, "on": "table"},
]
# Under direct light the quotient has no noise: both renders have the same random numbers. 16 samples of float32 are
# added and divided, and Blender's colors are 32 bits as well.
EXACT = 1e-3


def write_scene(folder: Path, content: Any = SCENE) -> Path:
    path = folder / "scene.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def demo(folder: Path, *extra: str, content: Any = SCENE) -> int:
    scene = write_scene(folder, content)
    return main(["demo", "--scene", str(scene), "--out", str(folder / "out"), "--size", "96", "--samples", "2", *extra])


@pytest.fixture
def balls(monkeypatch: pytest.MonkeyPatch) -> type[BallRunner]:
    monkeypatch.setattr(local_queue, "LocalRunner", BallRunner)
    monkeypatch.setattr(BallRunner, "made", [])
    monkeypatch.setattr(BallRunner, "fail_words", ())
    return BallRunner


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "relighting.json").read_text(encoding="utf-8"))


def errors_of(record: dict[str, Any], bounces: int) -> list[float]:
    return [one["p95_error"] for one in record["errors"] if one["bounces"] == bounces]


@pytest.mark.slow
@pytest.mark.timeout(900)  # four runs of Blender, with some twenty small renders each
def test_scene_is_lit_measured_and_not_made_twice(
    balls: type[BallRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bpy")
    monkeypatch.setattr(BallRunner, "textured_words", ("mug",))
    assert demo(tmp_path) == 0
    out, record = tmp_path / "out", record_of(tmp_path)
    images = {name: np.asarray(Image.open(out / f"{name}.png").convert("RGB"), float) for name in LIGHTINGS}
    assert {image.shape for image in images.values()} == {(54, 96, 3)}
    means = {name: image.mean((0, 1)) for name, image in images.items()}
    assert means["lamp"].mean() < 0.7 * min(means["sun"].mean(), means["sky"].mean()), "at night it is darker"
    assert (out / "scene.blend").stat().st_size > 10_000
    assert len(record["errors"]) == 3 * 3 * 2 and record["agrees"]
    vertex_colors = [one for one in record["errors"] if one["prop"] != "mug" and one["bounces"] == 0]
    assert max(one["p95_error"] for one in vertex_colors) < EXACT
    spreads = {one["prop"]: one["p95"] for one in record["spreads"] if one["bounces"] == 0}
    # The mug has an image, which the render filters over a pixel's samples.
    assert max(spreads["table"], spreads["lamp"]) < EXACT and spreads["mug"] < LIMIT
    # Light that comes from other props depends on their albedo, which is gray in the reference.
    assert max(errors_of(record, 4)) > EXACT
    sizes = {prop["name"]: prop["size_m"] for prop in record["props"]}
    assert [sizes[prop["name"]][2] for prop in SCENE] == pytest.approx([prop["height_m"] for prop in SCENE], abs=1e-3)
    mug = next(prop for prop in record["props"] if prop["name"] == "mug")
    assert mug["location_m"][2] == pytest.approx(0.7, abs=0.01), "on top of the ball that stands for the table"
    assert "error of the albedo" in capsys.readouterr().out

    made, times = list(balls.made), {name: (out / "renders" / f"{name}.png").stat().st_mtime_ns for name in LIGHTINGS}
    (out / "renders" / "lamp.png").unlink()  # as if the first run had been killed before it
    assert demo(tmp_path) == 0
    again = {name: (out / "renders" / f"{name}.png").stat().st_mtime_ns for name in LIGHTINGS}
    assert balls.made == made and {name for name in LIGHTINGS if again[name] != times[name]} == {"lamp"}


@pytest.mark.slow
@pytest.mark.timeout(900)  # four runs of Blender, with some twenty small renders each
def test_scene_goes_on_without_a_prop_that_failed(
    balls: type[BallRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bpy")
    monkeypatch.setattr(BallRunner, "fail_words", ("table",))
    assert demo(tmp_path) == 1
    said = capsys.readouterr().err
    assert "the scene is without table: the density is empty; --retry makes it again" in said
    assert "mug stands on the ground, as there is no table" in said
    assert [prop["name"] for prop in record_of(tmp_path)["props"]] == ["lamp", "mug"]
    monkeypatch.setattr(BallRunner, "fail_words", ())
    assert demo(tmp_path, "--retry") == 0
    assert [prop["name"] for prop in record_of(tmp_path)["props"]] == ["table", "lamp", "mug"]


def measured(folder: Path, albedo: Sequence[float] | None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The record of a scene of one ball, shaded in its file, against a known albedo (None: that of its file)."""
    content = [{"name": "ball", "prompt": "a red mushroom", "height_m": 0.5}]
    listed = folder / "list.txt"
    listed.write_text("a red mushroom\n", encoding="utf-8")
    assert main(["batch", str(listed), "--library", str(folder / "library")]) == 0
    library = LibraryFolder(folder / "library")
    (entry,) = library.read().props.values()
    mesh = read_mesh_file(library.jobs / "jobs" / entry.job / MESH_FILE)
    if albedo is not None:
        mesh = replace(mesh, albedo=np.tile(np.float32(albedo), (len(mesh.albedo), 1)))
    props = {"ball": Prop(entry.job, mesh)}
    placed = lit_scene.placed_props(parse_scene(content), props)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    list(lit_scene.render_scene(out, library.blend, placed, props, Size(96, 54, 1), None))
    return lit_scene.finish_scene(out, placed)


def use(blender: Blender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a module of another version write the library and render the scene."""
    for module in (blend_file, lit_scene):
        monkeypatch.setattr(module, "blender_command", lambda given: list(blender.command))
    monkeypatch.setattr("dreamwright.backend.io.blender_program.blender_command", lambda given: list(blender.command))


@pytest.mark.slow
@pytest.mark.parametrize("blender", [one for one in blenders() if one.kind == "module"], ids=lambda one: one.name)
def test_albedo_of_the_file_is_what_the_renders_show(
    blender: Blender, balls: type[BallRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if blender.missing:
        pytest.skip(blender.missing)
    use(blender, monkeypatch)
    record = measured(tmp_path, None, monkeypatch)
    assert record["agrees"] and max(errors_of(record, 0)) < EXACT
    for one in record["errors"]:
        assert one["pixels"] > 300 and one["lit"] > 0.3, "the ball fills the picture, and some of it is in the light"


@pytest.mark.slow
def test_measure_fails_for_shading_in_the_colors(
    balls: type[BallRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ball's true albedo is RED everywhere, and its colors are darker towards the base, down to a half."""
    pytest.importorskip("bpy")
    record = measured(tmp_path, RED, monkeypatch)
    assert not record["agrees"]
    assert min(errors_of(record, 0)) > 5 * LIMIT
    # The same wrong colors in every lighting: equality between lightings alone would not have shown it.
    assert max(one["p95"] for one in record["spreads"] if one["bounces"] == 0) < EXACT


@pytest.mark.slow
def test_learned_background_is_seen_in_its_directions(tmp_path: Path) -> None:
    """A World of the image shows along each direction the color that the background has there, in linear light."""
    pytest.importorskip("bpy")
    learned = build_background(
        BackgroundConfig(kind="mlp", encoding_levels=0, hidden_width=16), torch.Generator().manual_seed(5)
    )
    for parameter in learned.parameters():
        parameter.data *= 3.0  # so that directions differ in color
    Image.fromarray(background_image(learned)).save(tmp_path / "world.png")
    directions = [[0.8, 0.6, 0.0], [-0.6, 0.0, 0.8], [0.0, -0.8, -0.6]]
    script = INSIDE / "world_directions.py"
    variables = environment(
        tmp_path,
        script,
        None,
        {
            "WORLD": str(tmp_path / "world.png"),
            "DIRECTIONS": json.dumps(directions),
            "RELIGHTING": str(ROOT / "backend" / "relighting"),
        },
    )
    command = [*blender_command(None), str(script)]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    colors = learned(torch.tensor(directions)).detach().numpy()
    assert np.ptp(colors, axis=0).max() > 0.2
    # 8 bits of display sRGB, half precision and a hundredth of a radian of the network.
    np.testing.assert_allclose(report_of(done)["seen"], display_to_linear(colors), atol=0.01)


@pytest.mark.parametrize(
    ("content", "extra", "words"),
    [
        (SCENE, ["a red mushroom"], "the prompt 'a red mushroom' and --scene were given"),
        (SCENE, ["--blender", "/no/such/blender"], "no Blender at /no/such/blender"),
        (SCENE, ["--seed", "-1"], "--seed -1; allowed are 0 to"),
        (SCENE, ["--size", "0"], "--size is 0"),
        (SCENE, ["--library", "/proc/library"], "--library: cannot"),
        ([{**SCENE[0], "prompt": "a white pot"}], [], "the scene cannot be made: row 1: .*pot"),
        ([], [], "must be a list of 1 to 50 props"),
        (SCENE, ["--world", "/no/such/run"], "--world /no/such/run cannot be used: no field"),
    ],
    ids=["prompt", "blender", "seed", "size", "library", "word", "empty", "world"],
)
def test_unusable_input_is_refused_in_one_line_before_anything_is_made(
    content: Any, extra: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--blender" not in extra:
        pytest.importorskip("bpy")
    assert demo(tmp_path, *extra, content=content) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(words, error) and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_takes_no_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bpy")
    tmp_path.chmod(0o500)
    try:
        assert main(["demo", "--scene", "--out", str(tmp_path / "out")]) == 2
    finally:
        tmp_path.chmod(0o700)
    assert "takes no files" in capsys.readouterr().err
