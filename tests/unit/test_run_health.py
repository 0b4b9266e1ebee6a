# SPDX-License-Identifier: GPL-3.0-or-later
"""A run whose field is empty, full or diverged is noticed, starts again from another seed, and then says what to do."""

from __future__ import annotations

import pytest
import torch

from dreamwright.backend.errors import RunError
from dreamwright.backend.guidance.interfaces import GuidanceResult
from dreamwright.backend.text.prompts import PromptEmbeddings
from dreamwright.backend.training.events import Checkpoint, Finished, Health, Restarted, StepCompleted
from dreamwright.backend.scenes.monitoring import all_finite, check_run, opacity_figures, view_similarity
from dreamwright.backend.training.field_training import field_trainer
from tests.testing.oracles import KnownImages
from tests.testing.sphere_runs import run_of
from tests.testing.tiny_model import quick_config


class Vanishing:
    """A guidance that wants nothing to be there: brightens every picture towards its background."""

    def gradient(self, image, cameras, conditioning, generator, progress) -> GuidanceResult:
        return GuidanceResult(torch.zeros_like(image), {})


def test_an_empty_run_restarts_from_another_seed_and_then_says_what_to_do(oracle: KnownImages) -> None:
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
        for event in field_trainer(config, Vanishing(), bank):
            events.append(event)
    assert caught.value.exit_code == 1
    restarts = [e for e in events if isinstance(e, Restarted)]
    assert len(restarts) == 1 and restarts[0].old_seed == 0 != restarts[0].new_seed
    assert [e.verdict for e in events if isinstance(e, Health)] == ["empty", "empty"]


@pytest.mark.parametrize("optimizer", ["adam", "shampoo"])
@pytest.mark.parametrize("broken", ["weights", "gradient"])
def test_a_field_that_diverges_between_checks_restarts_and_is_never_checkpointed(
    oracle: KnownImages, broken: str, optimizer: str
) -> None:
    """Checks are at steps 2, 3 and 6 of 10; the field breaks after step 7, once."""
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


def test_a_run_that_keeps_diverging_says_what_to_do_about_that(oracle: KnownImages) -> None:
    run = run_of(quick_config("run.max_restarts=1"), oracle)
    with pytest.raises(RunError, match="diverged.*optimizer.learning_rate"):
        for event in run:
            if isinstance(event, StepCompleted):
                run.scene.field.raw_density[0].data.fill_(float("inf"))


def test_health_tells_fog_from_solid_and_finds_nan() -> None:
    solid = torch.zeros(6, 1, 8, 8)
    solid[:, :, 2:6, 2:6] = 1.0
    fog = torch.full((6, 1, 8, 8), 0.5)
    assert opacity_figures(solid)["alpha_entropy"] < 0.01 < 0.69 < opacity_figures(fog)["alpha_entropy"] + 1e-3
    pictures = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert check_run(1, solid, pictures, True).verdict == "fine"
    assert check_run(1, solid, pictures, False).verdict == "diverged"
    assert check_run(1, solid * float("nan"), pictures, True).verdict == "diverged"
    assert check_run(1, solid * 0, pictures, True).verdict == "empty"
    assert check_run(1, solid * 0 + 1, pictures, True).verdict == "full"


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
def test_finiteness_is_judged_exactly_even_where_the_sum_overflows(values: list[float], finite: bool) -> None:
    assert all_finite([torch.zeros(2), torch.tensor(values)]) is finite


def test_view_similarity_is_one_for_a_mirrored_back_and_low_for_a_different_one(generator: torch.Generator) -> None:
    front = torch.rand(3, 3, 16, 16, generator=generator)
    assert view_similarity(torch.cat([front, front.flip(-1)])) == pytest.approx(1.0, abs=1e-5)
    assert abs(view_similarity(torch.cat([front, torch.rand(3, 3, 16, 16, generator=generator)]))) < 0.2
