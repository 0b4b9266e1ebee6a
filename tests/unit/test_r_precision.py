# SPDX-License-Identifier: GPL-3.0-or-later
"""R-Precision of tables with known answers, and the commands that fill such tables."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamwright.backend.cli.main import main
from dreamwright.backend.errors import ExportError, PromptError
from dreamwright.backend.evaluation.captions import STARTER_CAPTIONS, read_prompts, same_color, slug
from dreamwright.backend.evaluation.r_precision import markdown, measure_row, picture
from dreamwright.backend.evaluation.retrieval import RPrecision, hits, r_precision
from dreamwright.backend.evaluation.retrievers import load_retriever
from dreamwright.backend.evaluation.samples import RenderedSample, samples_from_meshes, render_sample, starter_prop
from dreamwright.backend.io.gltf import glb_bytes
from dreamwright.backend.io.gltf_reader import read_glb
from tests.testing.tiny_clip import write_clip

PROMPTS = ("a red mushroom", "a blue chair", "a white house")


class Told:
    """A retrieval model that reads its embedding from the first pixels of a picture."""

    image_size = 4

    def __init__(self, captions: torch.Tensor) -> None:
        self.captions = captions

    def scores(self, pictures, captions):
        return pictures.flatten(1)[:, : self.captions.shape[1]] @ self.captions.T


def test_an_embedding_table_worked_out_by_hand():
    text = np.eye(3)
    images = np.array([[0.9, 0.1, 0.0], [0.2, 0.1, 0.8], [0.0, 0.6, 0.1], [0.0, 0.3, 0.4]])
    right = hits(images @ text.T, np.array([0, 0, 1, 1]))  # prompt 0: one of two views; prompt 1: one of two
    assert right.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert r_precision(right, [0, 0, 1, 1]) == RPrecision(0.5, 0.0, 2, 4)


def test_the_mean_is_over_prompts_and_its_error_too():
    found = r_precision(np.array([1, 1, 1, 1, 0, 1]), [0, 0, 0, 0, 1, 2])
    assert found.mean == pytest.approx(2 / 3) and found.prompts == 3 and found.pictures == 6
    assert found.standard_error == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3))  # of 1, 0, 1
    assert r_precision(np.array([1.0]), [0]).standard_error is None


def test_captions_that_tie_share_the_hit():
    assert hits(np.zeros((1, 4)), np.array([2])).tolist() == [0.25]
    assert hits(np.array([[1.0, 1.0, 0.0]]), np.array([2])).tolist() == [0.0]


def test_captions_that_are_not_allowed_cannot_win():
    scores, allowed = np.array([[0.2, 0.9, 0.1]]), np.array([[True, False, True]])
    assert hits(scores, np.array([0])).tolist() == [0.0] and hits(scores, np.array([0]), allowed).tolist() == [1.0]
    with pytest.raises(ValueError, match="allow every true caption"):
        hits(scores, np.array([1]), allowed)


def test_tables_that_do_not_fit_or_hold_no_numbers_are_refused():
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
def test_any_table_agrees_with_counting_and_does_not_care_for_order_or_scale(prompts, captions, views, seed):
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, captions, prompts), views)
    owners = np.repeat(np.arange(prompts), views)
    scores = rng.normal(size=(len(truth), captions))
    right = hits(scores, truth)
    counted = [float(all(row[t] >= other for other in row)) for row, t in zip(scores, truth)]
    assert right.tolist() == counted
    whole = r_precision(right, owners)
    assert whole.mean == pytest.approx(np.mean(counted))  # equally many views a prompt
    shuffled = rng.permutation(captions)
    assert hits(3 * scores[:, shuffled] + 1, np.argsort(shuffled)[truth]).tolist() == counted


def test_random_embeddings_retrieve_at_chance():
    rng = np.random.default_rng(0)
    right = hits(rng.normal(size=(4000, 16)) @ rng.normal(size=(10, 16)).T, rng.integers(0, 10, 4000))
    found = r_precision(right, np.arange(4000))
    assert abs(found.mean - 0.1) < 4 * found.standard_error < 0.03


def pictures(*firsts: list[float]) -> torch.Tensor:
    made = torch.zeros(len(firsts), 3, 4, 4)
    for row, first in enumerate(firsts):
        made[row].view(-1)[: len(first)] = torch.tensor(first)
    return made


def test_a_row_averages_views_and_seeds_and_counts_what_is_missing_as_wrong():
    model = {"told": Told(torch.eye(3))}
    samples = [
        RenderedSample(0, 0, pictures([1, 0, 0], [0, 1, 0]), pictures([1, 0, 0], [1, 0, 0])),
        RenderedSample(0, 1, pictures([1, 0, 0], [1, 0, 0]), pictures([0, 1, 0], [0, 0, 1])),
        RenderedSample(1, 0, pictures([0, 1, 0], [0, 1, 0]), pictures([0, 1, 0], [0, 1, 0])),
        RenderedSample(2, 0, None, None),
    ]
    names = ["an old bike", "two cats", "some bread"]  # no domain of ours: nothing is left out of the textureless table
    row = measure_row("ours", "told", samples, names, names, model)
    assert row.figures["told"]["color"].mean == pytest.approx((0.75 + 1 + 0) / 3) and row.missing == 1
    assert row.figures["told"]["textureless"].mean == pytest.approx((0.5 + 1 + 0) / 3)
    assert "| ours | (58.3 ± 30.0) | (50.0 ± 28.9) |" in markdown([row], ["told"])


def test_a_textureless_picture_of_the_starter_is_compared_with_props_of_its_prompts_color():
    allowed = same_color(STARTER_CAPTIONS, PROMPTS)
    assert allowed.shape == (3, 128) and allowed.sum(1).tolist() == [16, 16, 16]
    assert [STARTER_CAPTIONS[c] for c in np.flatnonzero(allowed[1])][0] == "a blue mushroom"
    assert same_color(["an old bike"], ["an old bike"]) is None


def test_the_judge_retrieves_the_true_props():
    judge = load_retriever("judge")
    samples = [render_sample(starter_prop(prompt, 0), n, 0, 64) for n, prompt in enumerate(PROMPTS)]
    row = measure_row("oracle", "", samples, PROMPTS, STARTER_CAPTIONS, {"judge": judge})
    wrong = [render_sample(starter_prop(prompt, 0), (n + 1) % 3, 0, 64) for n, prompt in enumerate(PROMPTS)]
    shifted = measure_row("shifted", "", wrong, PROMPTS, STARTER_CAPTIONS, {"judge": judge})
    assert row.figures["judge"]["color"].mean > 0.8 and row.figures["judge"]["textureless"].mean > 0.6
    assert shifted.figures["judge"]["color"].mean == 0.0


def test_a_glb_comes_back_as_it_was_written(tmp_path):
    mesh = starter_prop("a blue robot", 3)
    (tmp_path / "prop.glb").write_bytes(glb_bytes(mesh, {}))
    back = read_glb(tmp_path / "prop.glb")
    assert np.array_equal(back.vertices, mesh.vertices) and np.array_equal(back.faces, mesh.faces)
    assert np.allclose(back.albedo, mesh.albedo, atol=1e-6) and np.allclose(back.normals, mesh.normals, atol=1e-5)
    for damaged in (b"", b"glTF", (tmp_path / "prop.glb").read_bytes()[:-40]):
        (tmp_path / "bad.glb").write_bytes(damaged)
        with pytest.raises(ExportError, match="no .glb that Dreamwright wrote"):
            read_glb(tmp_path / "bad.glb")


def test_prompts_are_read_one_a_line_and_twice_the_same_is_refused(tmp_path):
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


def test_seeds_that_are_asked_for_and_missing_are_exhibits_without_pictures(tmp_path):
    (tmp_path / f"{slug(PROMPTS[0])}.1.glb").write_bytes(glb_bytes(starter_prop(PROMPTS[0], 0), {}))
    found = samples_from_meshes(tmp_path, PROMPTS, 16, 2, azimuths=2)
    assert [(e.prompt, e.seed, e.color is not None) for e in found] == [
        (0, 0, False), (0, 1, True), (1, 0, False), (1, 1, False), (2, 0, False), (2, 1, False),
    ]  # fmt: skip
    with pytest.raises(ExportError, match="holds nothing for these prompts"):
        samples_from_meshes(tmp_path, ["something else"], 16, None)


def test_the_picture_leaves_no_seed_out_and_says_which_mesh_is_missing():
    """One tile of 96 pixels under a line of 14 each: prompt 0 of seeds 0 and 1, then prompt 1; seed 1 of prompt 1 gave nothing."""

    def shown(prompt: int, seed: int, grey: float) -> RenderedSample:
        pictures = torch.full((4, 3, 8, 8), grey)
        return RenderedSample(prompt, seed, pictures, pictures)

    made = [shown(0, 0, 0.1), shown(1, 0, 0.3), shown(0, 1, 0.2), RenderedSample(1, 1, None, None)]
    sheet = np.asarray(picture({"dreamfusion": made}, ["a blue chair", "a white house"]))
    assert sheet.shape == (14 + 4 * 110, 4 + 3 * 96 + 4, 3)
    middles = [sheet[14 + row * 110 + 14 + 48, 4 + 2 * 96 + 48].tolist() for row in range(4)]
    assert middles == [[26] * 3, [51] * 3, [77] * 3, [255] * 3]
    one = picture({"dreamfusion": [shown(0, 0, 0.1)]}, ["a blue chair"])
    assert one.height == 14 + 110


def test_the_command_measures_meshes_and_pictures_with_several_models_and_an_oracle(tmp_path, capsys):
    clip, meshes, renders = write_clip(tmp_path / "clip"), tmp_path / "meshes", tmp_path / "renders"
    meshes.mkdir()
    for prompt in PROMPTS:
        mesh = starter_prop(prompt, 0)
        (meshes / f"{slug(prompt)}.glb").write_bytes(glb_bytes(mesh, {}))
        folder = renders / slug(prompt)
        folder.mkdir(parents=True)
        shown = render_sample(mesh, 0, 0, 64, azimuths=2)
        for look in ("color", "textureless"):
            for k, picture in enumerate(getattr(shown, look)):
                Image.fromarray((picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(
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
        "judge",
        str(clip),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--meshes", str(meshes), "--oracle", str(renders), "--azimuths", "4", "--seeds", "1"]) == 0
    told = json.loads((out / "r-precision.json").read_text())
    assert [row["method"] for row in told["rows"]] == ["oracle", "props"] and told["captions"] == 3
    figure = told["rows"][1]["figures"]["judge"]["color"]
    assert (
        figure["mean"] == 1.0
        and figure["pictures"] == 12
        and told["rows"][0]["figures"]["judge"]["color"]["pictures"] == 6
    )
    assert capsys.readouterr().out == (out / "r-precision.md").read_text()
    assert main([*arguments, "--renders", str(renders), "--seeds", "2"]) == 0
    assert "3 of 6 props are missing and count as wrong" in capsys.readouterr().err
    assert main([*arguments, "--renders", str(renders), "--azimuths", "0"]) == 2
