# SPDX-License-Identifier: GPL-3.0-or-later
"""Figure 2's cells: result once, result anew when what they depend on changed, and whole or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dreamwright.backend.errors import NonFiniteError, StoppedError
from dreamwright.backend.evaluation import samplers
from dreamwright.backend.evaluation.results_table import ResultsTable
from dreamwright.backend.evaluation.sample_metrics import BOTH, CHROMA, COLUMNS, add_image_metrics
from dreamwright.backend.evaluation.samplers import SAMPLERS, SampleSpec, SamplerSettings, run_sampler, sample_specs, spec_fingerprint, load_result
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.starter import domain
from dreamwright.backend.starter.classifier import Classification
from tests.testing.tiny_model import save_tiny_model

SETTINGS = SamplerSettings(samples=2, ancestral_steps=2, sds_steps=2, sds_learning_rate=0.1, sds_t_max_end=0.5)
PLAN = {"model": "tiny"}


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    return load_denoiser(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny"), "cpu")


def test_cells_of_one_prompt_lie_side_by_side_so_that_a_short_run_compares_samplers():
    planned = sample_specs([1.0, 10.0], ["a red mug", "a blue chair"])
    assert len(planned) == 12 and {cell.prompt for cell in planned[:6]} == {"a red mug"}
    assert [(cell.omega, cell.sampler) for cell in planned[:4]] == [
        (1.0, "ancestral"),
        (1.0, "sds"),
        (1.0, "sds-symmetric"),
        (10.0, "ancestral"),
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_cell_is_kept_with_its_pictures_and_they_are_the_same_again(sampler, denoiser, tmp_path):
    cell = SampleSpec(sampler, 3.0, "a red mug")
    wanted, folder = spec_fingerprint(cell, PLAN), cell.folder(tmp_path)
    result, pictures = run_sampler(cell, SETTINGS, denoiser, folder, wanted)
    assert pictures.shape == (2, 3, 64, 64) and float(pictures.min()) >= 0 and float(pictures.max()) <= 1
    mirrored = bool(torch.equal(pictures, pictures.flip(-1)))
    assert mirrored == (sampler == "sds-symmetric")
    assert not torch.equal(pictures[0], pictures[1]), "two seeds"
    again, same = load_result(folder, wanted)
    assert again == result and torch.equal(same, pictures)
    assert torch.equal(run_sampler(cell, SETTINGS, denoiser, tmp_path / "anew", wanted)[1], pictures)
    assert load_result(folder, spec_fingerprint(cell, {"model": "another"})) is None
    assert load_result(folder, spec_fingerprint(replace(cell, omega=4.0), PLAN)) is None


def test_a_cell_without_its_last_file_or_with_a_damaged_one_counts_as_missing(denoiser, tmp_path):
    cell = SampleSpec("ancestral", 0.0, "a red mug")
    wanted = spec_fingerprint(cell, PLAN)
    run_sampler(cell, SETTINGS, denoiser, tmp_path, wanted)
    whole = (tmp_path / "pictures.safetensors").read_bytes()
    (tmp_path / "pictures.safetensors").write_bytes(whole[:100])
    assert load_result(tmp_path, wanted) is None
    (tmp_path / "pictures.safetensors").write_bytes(whole)
    assert load_result(tmp_path, wanted) is not None
    (tmp_path / "cell.json").unlink()
    assert load_result(tmp_path, wanted) is None


def test_a_stopped_cell_leaves_nothing_half_done(denoiser, tmp_path):
    cell, steps = SampleSpec("sds", 3.0, "a red mug"), []
    wanted = spec_fingerprint(cell, PLAN)
    with pytest.raises(StoppedError, match="draws that one anew"):
        run_sampler(
            cell,
            SETTINGS,
            denoiser,
            tmp_path,
            wanted,
            lambda: len(steps) == 1,
            lambda step, steps_: steps.append((step, steps_)),
        )
    assert steps == [(1, 2)] and load_result(tmp_path, wanted) is None
    assert run_sampler(cell, SETTINGS, denoiser, tmp_path, wanted, clock=iter((5.0, 12.5)).__next__)[0].seconds == 7.5


def test_a_cell_that_diverges_is_kept_as_failed_and_is_wrong_in_the_table(denoiser, tmp_path, monkeypatch):
    def diverging(*_):
        raise NonFiniteError("the denoiser answered NaN")
        yield

    monkeypatch.setattr(samplers, "distill_image", diverging)
    cell = SampleSpec("sds", 1000.0, "a red mug")
    wanted = spec_fingerprint(cell, PLAN)
    result, pictures = run_sampler(cell, SETTINGS, denoiser, tmp_path, wanted)
    assert pictures is None and result.error == "the denoiser answered NaN" and load_result(tmp_path, wanted) == (result, None)
    results = ResultsTable(COLUMNS)
    add_image_metrics(results, "row", cell.prompt, pictures, 2, Told([]))
    assert results.figure("row", BOTH.name).mean == 0 and results.figure("row", CHROMA.name) is None


class Told:
    """A judge that was told what to see: (prop, color) of each picture."""

    def __init__(self, seen: list[tuple[str, str]]) -> None:
        self.seen = seen

    def stages(self, images: torch.Tensor) -> torch.Tensor:
        return torch.eye(len(images)).view(len(images), -1, 1, 1)

    def __call__(self, images: torch.Tensor) -> Classification:
        prop, color = torch.zeros(len(images), 16), torch.zeros(len(images), 8)
        for row, (name, shade) in enumerate(self.seen):
            prop[row, [known.name for known in domain.PROPS].index(name)] = 1
            color[row, list(domain.COLORS).index(shade)] = 1
        return Classification(prop, color, torch.zeros(len(images), 4))


def test_the_judge_s_agreement_is_the_share_of_pictures_that_show_prop_and_color():
    results = ResultsTable(COLUMNS)
    judge = Told([("mug", "red"), ("mug", "blue"), ("chair", "red"), ("mug", "red")])
    pictures = torch.stack([torch.full((3, 16, 16), level) for level in (0.0, 0.0, 0.0, 0.4)])
    add_image_metrics(results, "row", "a red mug", pictures, 4, judge)
    figures = {column.name: results.figure("row", column.name).mean for column in COLUMNS}
    assert figures == pytest.approx({
        "prop": 0.75, "color": 0.75, "prop and color": 0.5, "mean chroma": 0.0, "detail": 0.0,
        "distance of seeds": 0.2, "in the judge's features": 1.0,  # three pairs of six are 0.4 apart
    }, abs=1e-4)  # fmt: skip
    add_image_metrics(results, "props", "a red mug", pictures, 4, judge, alike=False)
    assert results.figure("props", "distance of seeds") is None
