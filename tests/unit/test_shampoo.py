# SPDX-License-Identifier: GPL-3.0-or-later
"""Shampoo against a float64 reference written from the paper (Anil et al. 2020), and its grafting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamwright.backend.optimizers.shampoo import Shampoo, blocks_of, inverse_root


def root_by_numpy(matrix: np.ndarray, root: int, epsilon: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag((np.maximum(values, 0) + epsilon * values.max()) ** (-1 / root)) @ vectors.T


def test_inverse_root_is_inverse_and_root(generator: torch.Generator) -> None:
    half = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    matrix = half @ half.T
    root = inverse_root(matrix, 2, 1e-12)
    # The ridge of 1e-12 and rounding of 1.1e-16 are enlarged by the condition number, which is below 1e4: 1e-8.
    assert float(torch.linalg.cond(matrix)) < 1e4
    torch.testing.assert_close(root @ root @ matrix, torch.eye(6).double(), atol=1e-7, rtol=0)


def test_three_steps_equal_a_float64_reference(generator: torch.Generator) -> None:
    gradients = [torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    parameter = torch.nn.Parameter(torch.zeros(4, 5, dtype=torch.float64))
    optimizer = Shampoo([parameter], lr=0.1, epsilon=1e-6, start_step=0, root_interval=1)
    theta, momentum, left, right = np.zeros((4, 5)), np.zeros((4, 5)), np.zeros((4, 4)), np.zeros((5, 5))
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        g = gradient.numpy()
        left, right = 0.9 * left + 0.1 * g @ g.T, 0.9 * right + 0.1 * g.T @ g
        update = root_by_numpy(left, 2, 1e-6) @ g @ root_by_numpy(right, 2, 1e-6)
        update *= np.sqrt(20) / np.linalg.norm(update)
        momentum = 0.9 * momentum + update
        theta = theta - 0.1 * (update + 0.9 * momentum)
    # float64; a root of A + epsilon |A| enlarges a relative error by 1 / (2 epsilon) = 5e5 at most, in two factors and
    # for a few roundings of 1.1e-16 each: some 1e-9.
    np.testing.assert_allclose(parameter.detach().numpy(), theta, rtol=0, atol=1e-8)


def test_vectors_take_sign_steps() -> None:
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = Shampoo([parameter], lr=1.0, betas=(0.0, 0.9))
    parameter.grad = torch.tensor([3.0, -0.1, 0.0, 7.0])
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([-1.0, 1.0, 0.0, -1.0]))


def test_large_matrices_are_preconditioned_in_blocks() -> None:
    tiles = blocks_of(torch.arange(300 * 130).view(300, 130), 128)
    assert [tuple(t.shape) for t in tiles] == [(128, 128), (128, 2), (128, 128), (128, 2), (44, 128), (44, 2)]


def test_solves_ill_conditioned_least_squares(generator: torch.Generator) -> None:
    target = torch.randn(8, 6, generator=generator)
    scales = torch.logspace(0, 2, 8)[:, None]
    parameter = torch.nn.Parameter(torch.zeros(8, 6))
    optimizer = Shampoo([parameter], lr=0.05, start_step=2, root_interval=1)
    losses = []
    for step in range(300):
        loss = (scales * (parameter - target)).square().mean()
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 300)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-3 * losses[0]  # convergence: plain gradient descent needs 1e4 (the condition number) steps


def test_state_restores_exactly(generator: torch.Generator) -> None:
    def run(steps: int, split: int | None) -> torch.Tensor:
        draw = torch.Generator().manual_seed(1)
        parameter = torch.nn.Parameter(torch.ones(5, 4))
        optimizer = Shampoo([parameter], lr=0.1, start_step=1, root_interval=2)
        for step in range(steps):
            if step == split:
                state = optimizer.state_dict()
                assert all(isinstance(v, torch.Tensor) for s in state["state"].values() for v in s.values())
                optimizer = Shampoo([parameter], lr=0.1, start_step=1, root_interval=2)
                optimizer.load_state_dict(state)
            parameter.grad = torch.randn(5, 4, generator=draw)
            optimizer.step()
        return parameter.detach()

    assert torch.equal(run(9, None), run(9, 4))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 2)])
def test_parameters_of_any_shape_are_updated(shape: tuple[int, ...], generator: torch.Generator) -> None:
    parameter = torch.nn.Parameter(torch.zeros(shape))
    optimizer = Shampoo([parameter], lr=0.1, start_step=0)
    parameter.grad = torch.randn(shape, generator=generator)
    optimizer.step()
    assert bool((parameter != 0).any()) and bool(torch.isfinite(parameter).all())
