# SPDX-License-Identifier: GPL-3.0-or-later
"""Run monitoring: an empty, full or diverged field restarts the run from another seed, then fails with advice."""

from __future__ import annotations

import pytest
import torch

from dreamwright.backend.errors import RunError
from dreamwright.backend.guidance.interfaces import GuidanceResult
from dreamwright.backend.scenes.monitoring import FULL_OPACITY, all_finite, check_run, opacity_figures, view_similarity
from dreamwright.backend.text.prompts import PromptEmbeddings
from dreamwright.backend.training.events import Checkpoint, Finished, Health, Restarted, StepCompleted
from dreamwright.backend.training.field_training import field_trainer
from tests.testing.oracles import KnownImages
from tests.testing.sphere_runs import run_of
from tests.testing.tiny_model import quick_config


class Vanishing:
    """A guidance towards an empty scene: it brightens every image to its background."""

    def gradient(self, image, cameras, conditioning, generator, progress) -> GuidanceResult:
        return GuidanceResult(torch.zeros_like(image), {})


def test_empty_run_restarts_then_fails_with_advice(oracle: KnownImages) -> None:
    config = quick_config(
        "field.density_bias_scale=-800",
        "field.density_bias=gaussian",
        "field.density_bias_width=50",
        "run.max_restarts=1",
        "field.density_bias_fade_share=0",
    )
    bank = PromptEmbeddings(oracle, "a ball", config.guidance)
    events = []
    with pytest.raises(RunError, match="empty.*seed") as caught:
        events.extend(field_trainer(config, Vanishing(), bank))
    assert caught.value.exit_code == 1
    restarts = [e for e in events if isinstance(e, Restarted)]
    assert len(restarts) == 1 and restarts[0].old_seed == 0 != restarts[0].new_seed
    assert [e.verdict for e in events if isinstance(e, Health)] == ["empty", "empty"]


@pytest.mark.parametrize("optimizer", ["adam", "shampoo"])
@pytest.mark.parametrize("broken", ["weights", "gradient"])
def test_diverged_field_restarts_and_is_never_checkpointed(oracle: KnownImages, broken: str, optimizer: str) -> None:
    """Checks are at steps 2, 3 and 6 of 10; the field diverges once, after step 7."""
    run = run_of(quick_config("run.steps=10", "run.checkpoint_interval=1", f"optimizer.kind={optimizer}"), oracle)
    events = []
    for event in run:
        events.append(event)
        if isinstance(event, StepCompleted) and event.step == 7 and run.restarts == 0:
            weight = run.scene.field.raw_density[0]
            if broken == "weights":
                weight.data.fill_(float("nan"))
            else:
                weight.register_hook(lambda gradient: gradient * float("nan"))
    assert [e.verdict for e in events if isinstance(e, Health)].count("diverged") == 1
    restarts = [e for e in events if isinstance(e, Restarted)]
    assert len(restarts) == 1 and restarts[0].old_seed != restarts[0].new_seed
    after = events[events.index(restarts[0]) :]
    assert [e.step for e in after if isinstance(e, StepCompleted)] == list(range(1, 11))
    states = [e.state for e in after if isinstance(e, Checkpoint)]
    assert all(bool(torch.isfinite(t).all()) for s in states for t in s.tensors.values() if t.is_floating_point())
    assert events[-1] == Finished(10, True, restarts[0].new_seed)


def test_run_that_keeps_diverging_fails_with_advice(oracle: KnownImages) -> None:
    run = run_of(quick_config("run.max_restarts=1"), oracle)
    with pytest.raises(RunError, match="diverged.*optimizer.learning_rate"):
        for event in run:
            if isinstance(event, StepCompleted):
                run.scene.field.raw_density[0].data.fill_(float("inf"))


def test_check_tells_fog_from_solid_and_finds_nan() -> None:
    solid = torch.zeros(6, 1, 8, 8)
    solid[:, :, 2:6, 2:6] = 1.0
    fog = torch.full((6, 1, 8, 8), 0.5)
    # 0.693 nats is the entropy of 1/2; solid pixels are clamped to 1e-4, which has 0.001.
    assert opacity_figures(solid)["alpha_entropy"] < 0.01 < 0.69 < opacity_figures(fog)["alpha_entropy"] + 1e-3
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    nan = float("nan")
    for opacity, filled, finite, verdict in (
        (solid, 0.3, True, "fine"),
        (solid * 0 + 1, 0.5, True, "fine"),  # a large scene: it fills the central views but not the bounding sphere
        (solid, 0.3, False, "diverged"),
        (solid * nan, 0.3, True, "diverged"),
        (solid, nan, True, "diverged"),
        (solid * 0, 0.0, True, "empty"),
        (solid, FULL_OPACITY + 0.01, True, "full"),
        (solid, FULL_OPACITY - 0.01, True, "fine"),
    ):
        assert check_run(opacity, images, filled, finite).verdict == verdict


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([1.0, 2.0], True),
        ([], True),
        ([3e38, 3e38], True),
        ([1.0, float("nan")], False),
        ([float("inf"), 1.0], False),
        ([float("inf"), -float("inf")], False),
    ],
)
def test_all_finite_is_exact_where_the_sum_overflows(values: list[float], finite: bool) -> None:
    assert all_finite([torch.zeros(2), torch.tensor(values)]) is finite


def test_view_similarity_of_mirrored_and_different_backs(generator: torch.Generator) -> None:
    front = torch.rand(3, 3, 16, 16, generator=generator)
    # A correlation of 768 float32 values: some roundings of 6e-8, and of sums of 768 terms (4e-6 at most).
    assert view_similarity(torch.cat([front, front.flip(-1)])) == pytest.approx(1.0, abs=1e-5)
    # Independent values: the standard error of a correlation of 768 values is 0.036; five of them.
    assert abs(view_similarity(torch.cat([front, torch.rand(3, 3, 16, 16, generator=generator)]))) < 0.18
