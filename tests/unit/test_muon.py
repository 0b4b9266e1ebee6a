# SPDX-License-Identifier: GPL-3.0-or-later
"""Muon: updates are orthogonal matrices, and it fits a linear map."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.starter_training.muon import QUINTIC, ROUNDS, Muon, orthogonalized


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 99))
def test_orthogonalization_applies_the_quintic_to_singular_values(rows: int, columns: int, seed: int) -> None:
    """Against a float64 singular value decomposition, with p applied to each singular value in turn."""
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, values, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        values = a * values + b * values**3 + c * values**5
    # Each of the 5 rounds enlarges rounding by about a = 3.44: 3.44^5 x 40 x 6e-8 = 1e-3.
    torch.testing.assert_close(orthogonalized(matrix).double(), (u * values) @ v, atol=5e-3, rtol=0)


def test_singular_values_become_about_one() -> None:
    values = torch.linalg.svdvals(orthogonalized(torch.randn(64, 576, generator=torch.Generator().manual_seed(1))))
    # The quintic of Muon maps singular values to about [0.7, 1.2]; 0.1 and 0.05 beyond are far above rounding (1e-3).
    assert float(values.min()) > 0.6 and float(values.max()) < 1.25


def test_convolution_is_updated_as_a_matrix() -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
    weight.grad = torch.randn(8, 4, 3, 3, generator=generator)
    Muon([weight], lr=0.5, weight_decay=0.0).step()
    expected = (
        -0.5 * 0.2 * 36**0.5 * orthogonalized(weight.grad.flatten(1))
    )  # the first momentum is parallel to the gradient
    # The first momentum is a multiple of the gradient, divided by its norm: rounding of 6e-8 of entries of 0.1, which
    # the five rounds enlarge by 3.44^5 = 480 at most: 3e-6, four times that.
    torch.testing.assert_close(weight.detach().flatten(1), expected, atol=1.2e-5, rtol=0)


def test_weights_decay_by_rate_times_decay() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, weight_decay=0.2).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 1 - 0.1 * 0.2))


def test_muon_finds_a_linear_map() -> None:
    generator = torch.Generator().manual_seed(3)
    inputs, target = torch.randn(256, 16, generator=generator), torch.randn(16, 16, generator=generator)
    weight = torch.nn.Parameter(torch.zeros(16, 16))
    optimizer = Muon([weight], lr=0.4, weight_decay=0.0)
    for _ in range(300):
        optimizer.param_groups[0]["lr"] *= 0.98
        optimizer.zero_grad()
        (inputs @ (weight - target)).square().mean().backward()
        optimizer.step()
    # Every step moves a singular value by about lr x 0.2 x 4: 0.4 x 0.98^300 x 0.8 = 7e-4 at the end. Convergence, so
    # rounding does not add up.
    assert float((weight - target).abs().max().detach()) < 0.02
