# SPDX-License-Identifier: GPL-3.0-or-later
"""2D samples of figure 2: stored, sampled again when their settings change, never incomplete; and their metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dreamwright.backend.errors import NonFiniteError, StoppedError
from dreamwright.backend.evaluation import samplers
from dreamwright.backend.evaluation.results_table import ResultsTable
from dreamwright.backend.evaluation.sample_metrics import BOTH, CHROMA, COLUMNS, add_image_metrics
from dreamwright.backend.evaluation.samplers import (
    SAMPLERS,
    SamplerSettings,
    SampleSpec,
    load_result,
    run_sampler,
    sample_specs,
    spec_fingerprint,
)
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.starter import domain
from dreamwright.backend.starter.classifier import Classification
from tests.testing.tiny_model import save_tiny_model

SETTINGS = SamplerSettings(samples=2, ancestral_steps=2, sds_steps=2, sds_learning_rate=0.1, sds_t_max_end=0.5)
PLAN = {"model": "tiny"}


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    return load_denoiser(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny"), "cpu")


def test_specs_are_ordered_by_prompt():
    planned = sample_specs([1.0, 10.0], ["a red mug", "a blue chair"])
    assert len(planned) == 12 and {spec.prompt for spec in planned[:6]} == {"a red mug"}
    assert [(spec.omega, spec.sampler) for spec in planned[:4]] == [
        (1.0, "ancestral"),
        (1.0, "sds"),
        (1.0, "sds-symmetric"),
        (10.0, "ancestral"),
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_results_are_kept_and_reproducible(sampler, denoiser, tmp_path):
    spec = SampleSpec(sampler, 3.0, "a red mug")
    wanted, folder = spec_fingerprint(spec, PLAN), spec.folder(tmp_path)
    result, images = run_sampler(spec, SETTINGS, denoiser, folder, wanted)
    assert images.shape == (2, 3, 64, 64) and float(images.min()) >= 0 and float(images.max()) <= 1
    mirrored = bool(torch.equal(images, images.flip(-1)))
    assert mirrored == (sampler == "sds-symmetric")
    assert not torch.equal(images[0], images[1]), "two seeds"
    again, same = load_result(folder, wanted)
    assert again == result and torch.equal(same, images)
    assert torch.equal(run_sampler(spec, SETTINGS, denoiser, tmp_path / "second", wanted)[1], images)
    assert load_result(folder, spec_fingerprint(spec, {"model": "another"})) is None
    assert load_result(folder, spec_fingerprint(replace(spec, omega=4.0), PLAN)) is None


def test_incomplete_results_count_as_missing(denoiser, tmp_path):
    spec = SampleSpec("ancestral", 0.0, "a red mug")
    wanted = spec_fingerprint(spec, PLAN)
    run_sampler(spec, SETTINGS, denoiser, tmp_path, wanted)
    whole = (tmp_path / "images.safetensors").read_bytes()
    (tmp_path / "images.safetensors").write_bytes(whole[:100])
    assert load_result(tmp_path, wanted) is None
    (tmp_path / "images.safetensors").write_bytes(whole)
    assert load_result(tmp_path, wanted) is not None
    (tmp_path / "result.json").unlink()
    assert load_result(tmp_path, wanted) is None


def test_stopped_sampler_leaves_nothing(denoiser, tmp_path):
    spec, steps = SampleSpec("sds", 3.0, "a red mug"), []
    wanted = spec_fingerprint(spec, PLAN)
    with pytest.raises(StoppedError, match="draws that one anew"):
        run_sampler(
            spec,
            SETTINGS,
            denoiser,
            tmp_path,
            wanted,
            lambda: len(steps) == 1,
            lambda step, steps_: steps.append((step, steps_)),
        )
    assert steps == [(1, 2)] and load_result(tmp_path, wanted) is None
    assert run_sampler(spec, SETTINGS, denoiser, tmp_path, wanted, clock=iter((5.0, 12.5)).__next__)[0].seconds == 7.5


def test_diverged_sampler_counts_as_wrong(denoiser, tmp_path, monkeypatch):
    def diverging(*_):
        raise NonFiniteError("the denoiser answered NaN")
        yield

    monkeypatch.setattr(samplers, "distill_image", diverging)
    spec = SampleSpec("sds", 1000.0, "a red mug")
    wanted = spec_fingerprint(spec, PLAN)
    result, images = run_sampler(spec, SETTINGS, denoiser, tmp_path, wanted)
    assert (
        images is None
        and result.error == "the denoiser answered NaN"
        and load_result(tmp_path, wanted) == (result, None)
    )
    results = ResultsTable(COLUMNS)
    add_image_metrics(results, "row", spec.prompt, images, 2, FixedClassifier([]))
    assert results.mean_of("row", BOTH.name).mean == 0 and results.mean_of("row", CHROMA.name) is None


class FixedClassifier:
    """A classifier with given answers: (prop, color) of each image."""

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


def test_metrics_by_hand():
    results = ResultsTable(COLUMNS)
    classifier = FixedClassifier([("mug", "red"), ("mug", "blue"), ("chair", "red"), ("mug", "red")])
    images = torch.stack([torch.full((3, 16, 16), level) for level in (0.0, 0.0, 0.0, 0.4)])
    add_image_metrics(results, "row", "a red mug", images, 4, classifier)
    means = {column.name: results.mean_of("row", column.name).mean for column in COLUMNS}
    # float32: chroma is in units of a hundred, 100 x 6e-8 with ten roundings, and a norm over 32 x 32 values: 6e-5.
    assert means == pytest.approx({
        "prop": 0.75, "color": 0.75, "prop and color": 0.5, "mean chroma": 0.0, "detail": 0.0,
        "distance of seeds": 0.2, "in the classifier's features": 1.0,  # three pairs of six are 0.4 apart
    }, abs=1e-4)  # fmt: skip
    add_image_metrics(results, "props", "a red mug", images, 4, classifier, are_repetitions=False)
    assert results.mean_of("props", "distance of seeds") is None
