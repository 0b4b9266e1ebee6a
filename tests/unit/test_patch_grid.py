# SPDX-License-Identifier: GPL-3.0-or-later
"""The patch grid of a pixel-unshuffled U-Net shifts with the timestep, so it leaves no pattern."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.denoisers.pixel import PixelDiffusion
from dreamwright.backend.guidance.patch_grid import AVERAGED_BELOW, grid_offsets, mean_of_rows, rolled
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.text.conditioning import Conditioning
from tools.starter_training.quality import sample_batches, view_texts

LENGTH = 1000


@settings(deadline=None, max_examples=30)
@given(k=st.sampled_from([2, 4]), times=st.lists(st.integers(0, LENGTH - 1), min_size=1, max_size=9))
def test_last_times_average_four_grids(k: int, times: list[int]) -> None:
    rows, offsets = grid_offsets(torch.tensor(times), LENGTH, k)
    for row, time in enumerate(times):
        own = offsets[rows == row]
        assert len(own) == (4 if time < AVERAGED_BELOW * LENGTH else 1) and own.abs().max() <= k // 2
        assert len({tuple(offset) for offset in (own % k).tolist()}) == len(own), "the four offsets differ"


def test_sampling_visits_all_grid_offsets() -> None:
    _, offsets = grid_offsets(torch.arange(100, 1000), LENGTH, 4)
    assert len({tuple(offset) for offset in (offsets % 4).tolist()}) == 16


@settings(deadline=None, max_examples=30)
@given(
    size=st.integers(4, 9),
    seed=st.integers(0, 9),
    offsets=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=4),
)
def test_rolled_equals_torch_roll_per_image(size: int, seed: int, offsets: list[tuple[int, int]]) -> None:
    samples = torch.rand(len(offsets), 3, size, size + 1, generator=torch.Generator().manual_seed(seed))
    wanted = torch.stack([sample.roll(offset, (1, 2)) for sample, offset in zip(samples, offsets, strict=True)])
    moved = rolled(samples, torch.tensor(offsets))
    assert torch.equal(moved, wanted) and torch.equal(rolled(moved, -torch.tensor(offsets)), samples)


def test_mean_of_rows_is_per_image() -> None:
    samples = torch.arange(5.0).view(5, 1, 1, 1)
    assert mean_of_rows(samples, torch.tensor([0, 1, 1, 1, 1]), 2).flatten().tolist() == [0.0, 2.5]


@pytest.fixture(scope="module")
def starter() -> PixelDiffusion:
    loaded = load_denoiser(resolve_model("starter"))
    assert isinstance(loaded, PixelDiffusion)
    return loaded


class _Seams(torch.nn.Module):
    """A network that predicts a fixed grid pattern for every input."""

    config = SimpleNamespace(in_channels=48, sample_size=16)

    def forward(
        self,
        patches: torch.Tensor,
        timesteps: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        return_dict: bool,
        **cameras: object,
    ) -> tuple[torch.Tensor]:
        return (torch.linspace(-1, 1, 48).view(1, 48, 1, 1).expand_as(patches).clone(),)


def test_grid_averaging_weakens_a_patch_pattern(starter: PixelDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "network", _Seams())
    text = Conditioning({"hidden": torch.zeros(1, 4, 8)})
    z = torch.zeros(1, 3, 64, 64)
    averaged, single = (starter.predict_raw(z, torch.tensor([t]), text) for t in (0.0, 0.5))
    assert averaged.std((-1, -2)).mean() < 0.5 * single.std((-1, -2)).mean()
    # Means of 4096 float32 values below 1 in another order; pairwise sums err by log2(4096) x 6e-8 = 7e-7 at most.
    assert torch.allclose(averaged.mean((-1, -2)), single.mean((-1, -2)), rtol=0, atol=3e-6)


def test_pointwise_network_is_unaffected_by_the_grid(starter: PixelDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a pointwise network, for example 2 z, the offsets cancel exactly, also in batches of mixed times."""

    class Twice(_Seams):
        def forward(self, patches: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor]:
            return (2 * patches,)

    monkeypatch.setattr(starter, "network", Twice())
    z = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.01, 0.3, 0.02, 0.77, 0.999])
    # The mean of four equal float32 values has three roundings of 1.2e-7 at most.
    found = starter.predict_raw(z, t, Conditioning({"hidden": torch.zeros(5, 4, 8)}))
    assert torch.allclose(found, 2 * z, rtol=0, atol=4e-7)


def test_starter_samples_do_not_depend_on_the_batch(starter: PixelDiffusion) -> None:
    text = starter.embed(["a red mushroom", "a blue chair"])
    z = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.02, 0.6])
    both = starter.predict_raw(z, t, text)
    for index, prompt in enumerate(("a red mushroom", "a blue chair")):
        alone = starter.predict_raw(z[index : index + 1], t[index : index + 1], starter.embed([prompt]))
        # float32 networks in batches of two sizes agree to some 1e-6, and bfloat16 kernels are not used: below 1e-4
        # each.
        assert functional.mse_loss(alone, both[index : index + 1]) < 1e-8


def test_perp_neg_applies_to_samples(starter: PixelDiffusion) -> None:
    """An opposite prompt equal to the prompt changes nothing. Another one changes only its own images."""
    assert view_texts(1, 1) == ("left side view", "right side view")
    assert view_texts(3, 1) == ("front right overhead view", "front right view")
    prompts = [f"a red robot, {view_texts(0, 0)[0]}", "a red robot"]
    opposites = [f"a red robot, {view_texts(0, 0)[1]}", "a red robot"]
    assert opposites[0] == "a red robot, back view"

    def samples(weight: float) -> torch.Tensor:
        (batch,) = sample_batches(starter, prompts, 3.0, 3, torch.Generator().manual_seed(0), opposites, weight)
        return batch

    plain, guided = samples(0.0), samples(2.0)
    # Three float32 network calls in batches of other sizes; 1e-4 is far below a level of 8 bits (4e-3).
    assert (plain[0] - guided[0]).abs().max() > 0.02 and torch.allclose(plain[1], guided[1], atol=1e-4)
