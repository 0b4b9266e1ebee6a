# SPDX-License-Identifier: GPL-3.0-or-later
"""R-Precision of score tables with known answers, samples from files, and `dreamwright evaluate r-precision`."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from dreamwright.backend.cli.main import main
from dreamwright.backend.errors import ConfigError, ExportError, PromptError
from dreamwright.backend.evaluation.captions import STARTER_CAPTIONS, read_prompts, same_color, slug
from dreamwright.backend.evaluation.classifier_metrics import BACKGROUND
from dreamwright.backend.evaluation.r_precision import markdown, measure_method, method_sheet
from dreamwright.backend.evaluation.retrieval import RPrecision, hits, r_precision
from dreamwright.backend.evaluation.retrievers import load_retriever
from dreamwright.backend.evaluation.samples import (
    HELD_OUT_ELEVATION,
    RenderedSample,
    arrays_of,
    check_elevation,
    render_sample,
    render_sample_with_albedo,
    samples_from_meshes,
    starter_prop,
)
from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.io.gltf_writer import glb_bytes
from tests.testing.tiny_clip import write_clip

PROMPTS = ("a red mushroom", "a blue chair", "a white house")


class PixelRetriever:
    """A retrieval model that reads its embedding from the first pixels of an image."""

    image_size = 4

    def __init__(self, captions: torch.Tensor) -> None:
        self.captions = captions

    def scores(self, images, captions):
        return images.flatten(1)[:, : self.captions.shape[1]] @ self.captions.T


def test_hits_by_hand():
    text = np.eye(3)
    images = np.array([[0.9, 0.1, 0.0], [0.2, 0.1, 0.8], [0.0, 0.6, 0.1], [0.0, 0.3, 0.4]])
    right = hits(images @ text.T, np.array([0, 0, 1, 1]))  # prompt 0: one of two views; prompt 1: one of two
    assert right.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert r_precision(right, [0, 0, 1, 1]) == RPrecision(0.5, 0.0, 2, 4)


def test_mean_and_error_are_over_prompts():
    found = r_precision(np.array([1, 1, 1, 1, 0, 1]), [0, 0, 0, 0, 1, 2])
    assert found.mean == pytest.approx(2 / 3) and found.prompts == 3 and found.images == 6
    assert found.standard_error == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3))  # of 1, 0, 1
    assert r_precision(np.array([1.0]), [0]).standard_error is None


def test_tied_captions_share_the_hit():
    assert hits(np.zeros((1, 4)), np.array([2])).tolist() == [0.25]
    assert hits(np.array([[1.0, 1.0, 0.0]]), np.array([2])).tolist() == [0.0]


def test_disallowed_captions_are_never_retrieved():
    scores, allowed = np.array([[0.2, 0.9, 0.1]]), np.array([[True, False, True]])
    assert hits(scores, np.array([0])).tolist() == [0.0] and hits(scores, np.array([0]), allowed).tolist() == [1.0]
    with pytest.raises(ValueError, match="allow every true caption"):
        hits(scores, np.array([1]), allowed)


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="allowed are"):
        hits(np.zeros((2, 3)), np.array([0]))
    with pytest.raises(ValueError, match="finite"):
        hits(np.array([[np.nan, 1.0]]), np.array([0]))
    with pytest.raises(ValueError, match="columns"):
        hits(np.zeros((1, 2)), np.array([2]))
    with pytest.raises(ValueError, match="at least one"):
        r_precision(np.array([]), [])


@given(st.integers(1, 6), st.integers(2, 9), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_hits_agree_with_counting_for_any_order_and_scale(prompts, captions, views, seed):
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, captions, prompts), views)
    owners = np.repeat(np.arange(prompts), views)
    scores = rng.normal(size=(len(truth), captions))
    right = hits(scores, truth)
    counted = [float(all(row[t] >= other for other in row)) for row, t in zip(scores, truth, strict=True)]
    assert right.tolist() == counted
    whole = r_precision(right, owners)
    assert whole.mean == pytest.approx(np.mean(counted))  # equally many views a prompt
    shuffled = rng.permutation(captions)
    assert hits(3 * scores[:, shuffled] + 1, np.argsort(shuffled)[truth]).tolist() == counted


def test_random_embeddings_score_at_chance():
    rng = np.random.default_rng(0)
    right = hits(rng.normal(size=(4000, 16)) @ rng.normal(size=(10, 16)).T, rng.integers(0, 10, 4000))
    found = r_precision(right, np.arange(4000))
    # four standard errors of 4000 draws at 1/10: sqrt(0.09 / 4000) = 0.0047; the seed is fixed
    assert abs(found.mean - 0.1) < 4 * found.standard_error < 0.03


def images_of(*firsts: list[float]) -> torch.Tensor:
    made = torch.zeros(len(firsts), 3, 4, 4)
    for row, first in enumerate(firsts):
        made[row].view(-1)[: len(first)] = torch.tensor(first)
    return made


def test_views_and_seeds_are_averaged():
    model = {"model": PixelRetriever(torch.eye(3))}
    samples = [
        RenderedSample(0, 0, images_of([1, 0, 0], [0, 1, 0]), images_of([1, 0, 0], [1, 0, 0])),
        RenderedSample(0, 1, images_of([1, 0, 0], [1, 0, 0]), images_of([0, 1, 0], [0, 0, 1])),
        RenderedSample(1, 0, images_of([0, 1, 0], [0, 1, 0]), images_of([0, 1, 0], [0, 1, 0])),
        RenderedSample(2, 0, None, None),
    ]
    names = ["an old bike", "two cats", "some bread"]  # outside the starter's domain no caption is excluded
    row = measure_method("ours", "model", samples, names, names, model)
    assert row.values["model"]["color"].mean == pytest.approx((0.75 + 1 + 0) / 3) and row.missing == 1
    assert row.values["model"]["textureless"].mean == pytest.approx((0.5 + 1 + 0) / 3)
    assert "| ours | (58.3 ± 30.0) | (50.0 ± 28.9) |" in markdown([row], ["model"])


def test_textureless_renders_compete_within_one_color():
    allowed = same_color(STARTER_CAPTIONS, PROMPTS)
    assert allowed.shape == (3, 128) and allowed.sum(1).tolist() == [16, 16, 16]
    assert STARTER_CAPTIONS[int(np.flatnonzero(allowed[1])[0])] == "a blue mushroom"
    assert same_color(["an old bike"], ["an old bike"]) is None


def test_classifier_retrieves_the_reference_props():
    models = {"classifier": load_retriever("classifier")}
    props = [starter_prop(prompt, 0) for prompt in PROMPTS]
    for elevation in (30.0, HELD_OUT_ELEVATION):
        samples = [render_sample(prop, n, 0, 64, elevation) for n, prop in enumerate(props)]
        row = measure_method("oracle", "", samples, PROMPTS, STARTER_CAPTIONS, models)
        wrong = [render_sample(prop, (n + 1) % 3, 0, 64, elevation) for n, prop in enumerate(props)]
        shifted = measure_method("shifted", "", wrong, PROMPTS, STARTER_CAPTIONS, models)
        # A classifier that guesses has 1 / 128. The renders are the same on every processor to float rounding, which is
        # far below the classifier's margins; a share changes by 4% with a view.
        assert row.values["classifier"]["color"].mean > 0.8 and row.values["classifier"]["textureless"].mean > 0.65
        assert shifted.values["classifier"]["color"].mean == 0.0


@pytest.mark.parametrize("elevation", [-91.0, 90.5, float("nan"), float("inf")])
def test_elevations_outside_an_orbit_are_refused(elevation):
    with pytest.raises(ConfigError, match="--elevation .*; allowed are -90 to 90 degrees"):
        check_elevation(elevation)


def test_elevation_changes_the_renders():
    """A cube of side 2 a: its silhouette is 2 a high at the horizon and 2 a sqrt(2) at 45 degrees, seen face on."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    faces = np.array([
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ], np.int32)  # fmt: skip
    cube = Mesh(corners, faces, np.ones((8, 3), np.float32), corners / np.float32(math.sqrt(3)))
    heights = []
    for elevation in (0.0, 45.0):
        image = render_sample_with_albedo(cube, 0, 0, 64, elevation, azimuths=1).albedo[0, 0]
        heights.append(int((image > 0.9).any(dim=1).sum()))
    # Scaled to radius 0.5, a = 0.5 / sqrt(3) = 0.289, seen from 1.9 with focal length 0.8 * 1.9 image widths. At the
    # horizon the near face is 2 a * 1.52 / (1.9 - a) = 0.545 images high, 35 rows of 64; at 45 degrees the upper far
    # and the lower near edge, at a sqrt(2) and depth 1.9, are 2 a sqrt(2) * 1.52 / 1.9 = 0.653 apart, 42 rows.
    # Each end of a silhouette may round by a pixel.
    assert heights == pytest.approx([35, 42], abs=2)


def test_stored_and_exported_meshes_are_read(tmp_path):
    mesh = starter_prop("a blue robot", 3)
    (tmp_path / "a-blue-robot.glb").write_bytes(glb_bytes(mesh, {}))
    save_file(arrays_of(mesh), tmp_path / "a-blue-robot.1.safetensors")
    exported, kept = samples_from_meshes(tmp_path, ["a blue robot"], 32, None, 30.0, azimuths=2)
    direct = render_sample_with_albedo(mesh, 0, 0, 32, 30.0, azimuths=2)
    assert torch.equal(kept.color, direct.color) and (kept.seed, exported.seed) == (1, 0)
    # A file has smooth normals across welded edges, so only the silhouette is the same to the last pixel.
    background = render_sample(mesh, 0, 0, 32, 30.0, azimuths=2).textureless == BACKGROUND
    assert torch.equal(exported.textureless == BACKGROUND, background)


@pytest.mark.parametrize("damaged", [b"", b"glTF", b"{}"])
def test_damaged_meshes_are_named(tmp_path, damaged):
    for name in ("a-red-mushroom.glb", "a-red-mushroom.safetensors"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(damaged)
        with pytest.raises(ExportError, match="a-red-mushroom") as caught:
            samples_from_meshes(folder, PROMPTS, 16, None, 45.0)
        assert "\n" not in str(caught.value)


@given(st.text(min_size=1, max_size=1000), st.text(min_size=1, max_size=1000))
def test_slugs_are_short_file_names(prompt, other):
    name = slug(prompt)
    assert name and len(name.encode()) <= 110 and "/" not in name and not name.startswith(".")
    if slug(other) == name:  # only what differs in case, punctuation or blanks alone
        assert re.sub(r"[\W_]+", "", prompt.lower()) == re.sub(r"[\W_]+", "", other.lower())


def test_slugs_of_other_scripts_differ():
    assert slug("红蘑菇") == "红蘑菇" and slug("A red mushroom.") == "a-red-mushroom"
    assert slug("!?") != slug("??") != ""


def test_prompts_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# chosen ones\n\n a red mushroom \na blue chair.\n")
    assert read_prompts(path) == ("a red mushroom", "a blue chair.")
    path.write_text("a red mushroom\nA red mushroom.\n")
    with pytest.raises(PromptError, match="each prompt once"):
        read_prompts(path)
    path.write_text("a red mushroom\n")
    with pytest.raises(PromptError, match="two or more"):
        read_prompts(path)
    with pytest.raises(PromptError, match="cannot read"):
        read_prompts(tmp_path / "none.txt")


def test_missing_seeds_are_samples_without_images(tmp_path):
    (tmp_path / f"{slug(PROMPTS[0])}.1.glb").write_bytes(glb_bytes(starter_prop(PROMPTS[0], 0), {}))
    found = samples_from_meshes(tmp_path, PROMPTS, 16, 2, 45.0, azimuths=2)
    assert [(e.prompt, e.seed, e.color is not None) for e in found] == [
        (0, 0, False), (0, 1, True), (1, 0, False), (1, 1, False), (2, 0, False), (2, 1, False),
    ]  # fmt: skip
    with pytest.raises(ExportError, match="holds nothing for these prompts"):
        samples_from_meshes(tmp_path, ["something else"], 16, None, 45.0)


def test_sheet_shows_every_seed_and_names_missing_meshes():
    """A tile of 96 pixels under a line of 14 each: prompt 0 of seeds 0 and 1, then prompt 1; its seed 1 is missing."""

    def shown(prompt: int, seed: int, grey: float) -> RenderedSample:
        images = torch.full((4, 3, 8, 8), grey)
        return RenderedSample(prompt, seed, images, images)

    made = [shown(0, 0, 0.1), shown(1, 0, 0.3), shown(0, 1, 0.2), RenderedSample(1, 1, None, None)]
    sheet = np.asarray(method_sheet({"dreamfusion": made}, ["a blue chair", "a white house"]))
    assert sheet.shape == (14 + 4 * 110, 4 + 3 * 96 + 4, 3)
    middles = [sheet[14 + row * 110 + 14 + 48, 4 + 2 * 96 + 48].tolist() for row in range(4)]
    assert middles == [[26] * 3, [51] * 3, [77] * 3, [255] * 3]
    one = method_sheet({"dreamfusion": [shown(0, 0, 0.1)]}, ["a blue chair"])
    assert one.height == 14 + 110


def test_command_measures_meshes_and_images(tmp_path, capsys):
    clip, meshes, renders = write_clip(tmp_path / "clip"), tmp_path / "meshes", tmp_path / "renders"
    meshes.mkdir()
    for prompt in PROMPTS:
        mesh = starter_prop(prompt, 0)
        (meshes / f"{slug(prompt)}.glb").write_bytes(glb_bytes(mesh, {}))
        folder = renders / slug(prompt)
        folder.mkdir(parents=True)
        shown = render_sample(mesh, 0, 0, 64, HELD_OUT_ELEVATION, azimuths=2)
        for look in ("color", "textureless"):
            for k, image in enumerate(getattr(shown, look)):
                Image.fromarray((image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(
                    folder / f"{look}-{k}.png"
                )
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    out = tmp_path / "out"
    arguments = [
        "evaluate",
        "r-precision",
        "--prompts",
        str(tmp_path / "prompts.txt"),
        "--models",
        "classifier",
        str(clip),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--meshes", str(meshes), "--oracle", str(renders), "--azimuths", "4", "--seeds", "1"]) == 0
    record = json.loads((out / "r-precision.json").read_text())
    assert [row["method"] for row in record["rows"]] == ["oracle", "props"] and record["captions"] == 3
    assert record["elevation_deg"] == 45.0
    value = record["rows"][1]["values"]["classifier"]["color"]
    assert value["mean"] == 1.0 and value["images"] == 12
    assert record["rows"][0]["values"]["classifier"]["color"]["images"] == 6
    assert capsys.readouterr().out == (out / "r-precision.md").read_text()
    assert main([*arguments, "--renders", str(renders), "--seeds", "2"]) == 0
    assert "3 of 6 props are missing and count as wrong" in capsys.readouterr().err
    assert main([*arguments, "--renders", str(renders), "--azimuths", "0"]) == 2
    assert main([*arguments, "--meshes", str(meshes), "--elevation", "100"]) == 2
    assert "--elevation 100.0; allowed are -90 to 90" in capsys.readouterr().err
