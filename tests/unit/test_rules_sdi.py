# SPDX-License-Identifier: GPL-3.0-or-later
"""Score Distillation via Inversion against DDIM's recursion and the exact flow of a Gaussian."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from dreamwright.backend.guidance.sds import ScoreDistillation
from tests.testing.gaussian_priors import means, seeded
from tests.testing.oracles import GaussianOracle, cosine_schedule, flow_schedule
from tests.testing.rules_on_priors import GUIDED, STD, Recording, at, gradient, levels


def inverted_residual(t: float, steps: int, schedule) -> float:
    """r of eps_hat - kappa = r (x - m), by DDIM's recursion in float64; eps(z) = sigma / v (z - alpha m)."""
    times = [k / steps for k in range(steps) if k / steps < t] + [t]
    part = 1.0  # (z - alpha m) / (x - m)
    for now, then in itertools.pairwise(times):
        (alpha, sigma, v), (alpha_then, sigma_then, _) = levels(now, schedule), levels(then, schedule)
        noise = sigma / v * part
        part = alpha_then * (part - sigma * noise) / alpha + sigma_then * noise
    alpha, sigma, v = levels(t, schedule)
    return sigma / v * part - (part - alpha) / sigma


@pytest.mark.parametrize("schedule", [cosine_schedule, flow_schedule], ids=["diffusion", "flow"])
def test_sdi_follows_ddim_to_the_time_of_each_view(schedule):
    """Without eta it has no noise: r (x - m), with DDIM's own r."""
    oracle, center = Recording(means(), STD, schedule), means()
    config = dataclasses.replace(
        GUIDED, rule="sdi", omega=0.0, inversion_omega=0.0, inversion_eta=0.0, inversion_steps=10, noises=2,
        weighting="uniform",
    )  # fmt: skip
    image = torch.rand(2, 3, 4, 4, generator=seeded(1))
    found = gradient(config, oracle, image, ["a", "b"], seed=5).gradient.double()
    t = ScoreDistillation(oracle, config).times(2, seeded(5), 0.0).tolist()
    mean = torch.stack([center["a"], center["b"]]).double()
    for view in range(2):
        r = sum(inverted_residual(time, 10, schedule) for time in t[view::2]) / 2
        expected = 2 * r * ((2 * image.double() - 1) - mean)[view]
        # float32: ten steps with a few roundings each of values of 3, over a sigma of 0.03 at least.
        torch.testing.assert_close(found[view], expected, rtol=2e-4, atol=2e-4)
    # Only rows whose time is still ahead are asked, then all of them at their own times.
    ahead = [sum(time > k / 10 for time in t) for k in range(10)]
    assert oracle.rows == [*(rows for rows in ahead if rows), 4]
    assert sum(ahead) == sum(math.ceil(10 * time) for time in t)
    assert oracle.times[-1] == pytest.approx(t)


def test_sdi_comes_to_the_exact_inversion_at_first_order():
    """The probability flow of a Gaussian keeps (z - alpha m) / sqrt(v): the error halves with the step."""
    alpha, sigma, v = levels(0.5)
    part = math.sqrt(v) / STD
    exact = sigma / v * part - (part - alpha) / sigma
    coarse, middle, fine = (abs(inverted_residual(0.5, steps, cosine_schedule) - exact) for steps in (50, 100, 200))
    # Half, with a remainder of second order: a tenth of it at most at these steps.
    assert middle / coarse == pytest.approx(0.5, abs=0.05) and fine / middle == pytest.approx(0.5, abs=0.05)
    assert exact > 0  # so that the mean is where it leads


def test_sdi_stops_at_the_mean_where_sds_still_shakes():
    oracle = GaussianOracle(means(), STD)
    image = ((means()["a"] + 1) / 2)[None]
    still = dataclasses.replace(GUIDED, omega=0.0, inversion_omega=0.0, inversion_eta=0.0, rule="sdi")
    # float32: roundings of values of 1 over a sigma of 0.03.
    assert gradient(still, oracle, image, ["a"]).gradient.abs().max() < 1e-4
    assert gradient(dataclasses.replace(still, rule="sds"), oracle, image, ["a"]).gradient.abs().max() > 0.01


def test_noise_of_the_inversion_leaves_the_mean():
    """The prediction is linear, so that eta's noise has no part in the mean: 4,000 views against none."""
    oracle, views = GaussianOracle(means(), STD), 4000
    image = torch.rand(1, 3, 4, 4, generator=seeded(1))
    config = at(0.6, rule="sdi", omega=2.0, inversion_omega=-3.0, inversion_eta=0.0, inversion_steps=5)
    exact = gradient(config, oracle, image, ["a"]).gradient
    noisy = dataclasses.replace(config, inversion_eta=0.3)
    found = gradient(noisy, oracle, image.expand(views, -1, -1, -1), ["a"] * views).gradient
    error = found.std(0) / math.sqrt(views)
    assert float(error.min()) > 0
    assert ((found.mean(0) - exact[0]) / error).abs().max() < 4.5  # of 48 numbers


def test_inversion_has_a_weight_of_its_own():
    """Two rows a view where inversion_omega is not 0, one at the end without guidance, and the reverse."""
    image = torch.rand(1, 3, 4, 4, generator=seeded(1))
    for omega, own, rows in ((0.0, -8.5, [2, 2, 1]), (7.0, 0.0, [1, 1, 2])):
        oracle = Recording(means(), STD)
        gradient(at(0.4, rule="sdi", omega=omega, inversion_omega=own, inversion_steps=5), oracle, image, ["a"])
        assert oracle.rows == rows
