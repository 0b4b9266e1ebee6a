# SPDX-License-Identifier: GPL-3.0-or-later
"""Alpha compositing (eq 5) against a float64 loop, against nerfacc, and by hand."""

from __future__ import annotations

import math
import warnings

import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.rendering.compositing import rendering_weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import nerfacc


def weights_by_loop(tau: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    """Eq 5 as a loop over samples."""
    weights = torch.zeros_like(tau, dtype=torch.float64)
    for ray in range(tau.shape[0]):
        remaining = 1.0
        for i in range(tau.shape[1]):
            alpha = 1 - math.exp(-float(tau[ray, i]) * float(deltas[ray, i]))
            weights[ray, i] = remaining * alpha
            remaining *= 1 - alpha
    return weights


@given(st.integers(1, 6), st.integers(1, 40), st.floats(0.01, 300.0), st.integers(0, 10_000))
def test_weights_equal_a_float64_loop(rays: int, samples: int, scale: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    tau = scale * torch.rand(rays, samples, generator=draw, dtype=torch.float64)
    deltas = 0.1 * torch.rand(rays, samples, generator=draw, dtype=torch.float64)
    weights, _ = rendering_weights(tau, deltas)
    # float64: exp(-s) of an optical depth s of up to 40 x 300 x 0.1 = 1200 enlarges the roundings of 1.1e-16 in s to
    # 40 x 1.3e-13 = 5e-12; 1 - exp(-s) of a small s errs by 1.1e-16, of 40 factors.
    torch.testing.assert_close(weights, weights_by_loop(tau, deltas), rtol=2e-11, atol=2e-14)


def test_weights_and_gradients_equal_nerfacc(generator: torch.Generator) -> None:
    tau = (50 * torch.rand(7, 33, generator=generator, dtype=torch.float64)).requires_grad_()
    edges = torch.linspace(0, 1.2, 34, dtype=torch.float64).expand(7, 34)
    ours, transmittance = rendering_weights(tau, edges[:, 1:] - edges[:, :-1])
    theirs, their_transmittance, _ = nerfacc.render_weight_from_density(edges[:, :-1], edges[:, 1:], tau)
    # float64: optical depths of up to 60 with 33 roundings, weights and gradients below 1: 60 x 33 x 1.1e-16 at most.
    rounding = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(ours, theirs, **rounding)
    torch.testing.assert_close(transmittance, their_transmittance, **rounding)
    probe = torch.rand(7, 33, generator=generator, dtype=torch.float64)
    (our_gradient,) = torch.autograd.grad((ours * probe).sum(), tau)
    (their_gradient,) = torch.autograd.grad((theirs * probe).sum(), tau)
    torch.testing.assert_close(our_gradient, their_gradient, **rounding)


def test_five_samples_computed_by_hand() -> None:
    """alpha = 1/2, 0, 3/4, 1/2, ... leaves transmittances 1, 1/2, 1/2, 1/8, 1/16."""
    tau = torch.tensor([[math.log(2), 0.0, math.log(4), math.log(2), 0.0]])
    weights, transmittance = rendering_weights(tau, torch.ones(1, 1))
    # Logarithms and exponentials in float32: some roundings of 6e-8 of at most 1.
    rounding = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.0, 0.375, 0.0625, 0.0]]), **rounding)
    torch.testing.assert_close(transmittance, torch.tensor([[1.0, 0.5, 0.5, 0.125, 0.0625]]), **rounding)


def test_opaque_samples_keep_finite_gradients() -> None:
    tau = torch.tensor([[1e6, 1e6, 3.0]], requires_grad=True)
    weights, _ = rendering_weights(tau, torch.ones(1, 1))
    weights.square().sum().backward()
    assert torch.isfinite(tau.grad).all()
    assert float(weights.sum().detach()) == 1.0  # exp(-1e6) is 0 in float32, so the first sample has the weight 1
