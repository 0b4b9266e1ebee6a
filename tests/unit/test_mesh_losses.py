# SPDX-License-Identifier: GPL-3.0-or-later
"""Regularizers of a mesh in closed form: Laplacians, edges, large steps, and the number of folded faces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.geometry.topology import edges_of, face_pairs
from dreamwright.backend.optimizers.uniform_adam import UniformAdam
from dreamwright.backend.scenes.large_steps import LargeStepsParameterization
from dreamwright.backend.scenes.mesh_losses import (
    cotangent_laplacian,
    edge_energy,
    edge_lengths,
    folded_share,
    laplacian_energy,
    normal_difference,
    sparse_tensor,
    uniform_laplacian,
)
from tests.testing.primitive_meshes import grid, icosphere, tetrahedron


def test_laplacians_of_a_tetrahedron_by_hand() -> None:
    """Its vertices sum to zero: v_i's three neighbors sum to -v_i, so L v = 3 v + v = 4 v. Every cotangent is
    1 / sqrt 3, so C v = (3 v + v) / sqrt 3; its four faces of 2 sqrt 3 each give every vertex 2 sqrt 3.
    """
    vertices, faces = tetrahedron()
    assert np.array_equal(uniform_laplacian(faces, 4) @ vertices, 4 * vertices)  # small whole numbers are exact
    cotangent, area = cotangent_laplacian(vertices, faces)
    # float64: a root, a quotient and sums of four terms below 4, a dozen roundings of 4e-16.
    assert np.allclose(cotangent @ vertices, 4 / math.sqrt(3) * vertices, rtol=0, atol=1e-13)
    assert np.allclose(area, 2 * math.sqrt(3), rtol=0, atol=1e-13)
    sparse = sparse_tensor(uniform_laplacian(faces, 4), torch.zeros((), dtype=torch.float64))
    assert float(laplacian_energy(sparse, torch.from_numpy(vertices))) == pytest.approx(16 * 3)


def test_cotangent_laplacian_of_a_ball_is_its_curvature() -> None:
    vertices, faces = icosphere(4, 0.7)
    laplacian, area = cotangent_laplacian(vertices, faces)
    curvature = (laplacian @ vertices) / area[:, None]
    wanted = 2 / 0.7 * vertices / 0.7
    # Second order in the edges of 1 / 14 of the radius: (1 / 14)^2 = 0.5%, four times that; 0.5% of an angle of 1 rad
    # between curvature and normal has a cosine of 1 - 1e-5, and the 12 vertices of five faces are worse.
    assert np.median(np.abs(np.linalg.norm(curvature, axis=1) / (2 / 0.7) - 1)) < 0.02
    cosine = (curvature * wanted).sum(1) / np.linalg.norm(curvature, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.999
    # A chord of 1 / 14 of the radius cuts (1 / 14)^2 / 8 = 0.06% of it, and twice that of the area; three times more.
    assert area.sum() == pytest.approx(4 * math.pi * 0.7**2, rel=0.004)


def test_laplacian_of_a_flat_grid_and_of_a_bump() -> None:
    """Each inner vertex of a regular grid is its neighbors' mean; one raised by h has 6 h, its 6 neighbors -h each."""
    vertices, faces = grid(6)
    laplacian = uniform_laplacian(faces, len(vertices))
    inner = (np.abs(vertices[:, :2]) < 0.49).all(axis=1)
    # float64: sums of seven terms of at most 6 x 0.5, a dozen roundings of 4e-16.
    assert np.abs((laplacian @ vertices)[inner]).max() < 1e-13
    middle = int(np.argmin(np.linalg.norm(vertices, axis=1)))
    bumped = np.zeros(len(vertices))
    bumped[middle] = 0.1
    values = laplacian @ bumped
    assert values[middle] == pytest.approx(0.6) and sorted(values[values < -1e-9]) == pytest.approx([-0.1] * 6)


@given(scale=st.floats(0.2, 3.0), seed=st.integers(0, 100))
def test_edge_energy_of_scaling_and_rigid_motion(scale: float, seed: int) -> None:
    vertices, faces = tetrahedron()
    where, edges = torch.from_numpy(vertices), torch.from_numpy(edges_of(faces))
    rest = edge_lengths(where, edges)
    assert rest.tolist() == pytest.approx([math.sqrt(8)] * 6)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    # Squares of the relative error of a length, some 1e-15.
    assert float(edge_energy(where @ turn + 0.3, edges, rest)) == pytest.approx(0, abs=1e-28)
    # A strain of at most 2 errs by some 1e-15, and its square by twice 2 x 1e-15; 100 times that.
    assert float(edge_energy(scale * where @ turn, edges, rest)) == pytest.approx((scale - 1) ** 2, abs=1e-12)


def test_gradients_of_regularizers_and_large_steps() -> None:
    vertices, faces = icosphere(1, 0.5)
    generator = torch.Generator().manual_seed(0)
    where = (
        torch.from_numpy(vertices) + 0.05 * torch.randn(vertices.shape, generator=generator, dtype=torch.float64)
    ).requires_grad_()
    edges = torch.from_numpy(edges_of(faces))
    rest = edge_lengths(torch.from_numpy(vertices), edges)
    laplacian = uniform_laplacian(faces, len(vertices))
    sparse, steps = sparse_tensor(laplacian, where.detach()), LargeStepsParameterization(laplacian, 20.0)
    assert torch.autograd.gradcheck(lambda x: edge_energy(x, edges, rest), where)
    assert torch.autograd.gradcheck(lambda x: laplacian_energy(sparse, x), where)
    assert torch.autograd.gradcheck(steps.solve, where)


def test_large_steps_solve_their_matrix_and_keep_constants() -> None:
    vertices, faces = icosphere(2, 0.5)
    laplacian = uniform_laplacian(faces, len(vertices))
    steps = LargeStepsParameterization(laplacian, 15.0)
    solved = steps.plain(torch.from_numpy(vertices)).numpy()
    dense = np.linalg.solve(np.eye(len(vertices)) + 15.0 * laplacian.toarray(), vertices)
    # float64: the condition number is at most 1 + 15 x 2 x 6 = 181, times 1.1e-16 and a few tens of operations: 1e-12.
    assert np.allclose(solved, dense, rtol=0, atol=1e-12)
    # Solved in float64 and rounded to float32 once, 6e-8; four times that.
    assert torch.allclose(steps.plain(torch.ones(len(vertices), 2)), torch.ones(()), rtol=0, atol=2.4e-7)


def test_uniform_adam_keeps_directions() -> None:
    value = torch.zeros(2, 3, requires_grad=True)
    optimizer = UniformAdam([{"params": [value], "lr": 0.1}])
    value.grad = torch.tensor([[4.0, -2.0, 0.0], [0.0, 0.0, 1.0]])
    optimizer.step()
    # float32: some six roundings of values of 0.1 (6e-9 each), and 0.1 times Adam's epsilon of 1e-8; twice their sum.
    assert torch.allclose(value, -0.1 * value.grad / 4, rtol=0, atol=8e-8)


def test_folded_face_is_counted_once() -> None:
    """Pulling the middle of a fan across one of its rim edges turns exactly the face at that edge."""
    vertices, faces = grid(4)
    where = torch.from_numpy(vertices)
    moved = where.clone()
    middle = int(np.argmin(np.linalg.norm(vertices, axis=1)))
    moved[middle] += torch.tensor([0.3, 0.1, 0.0])
    share = folded_share(moved, torch.from_numpy(faces), where)
    cross = np.cross(*(moved.numpy()[faces[:, k]] - moved.numpy()[faces[:, 0]] for k in (1, 2)))[:, 2]
    assert 0 < share <= (cross < 0).mean() and folded_share(where, torch.from_numpy(faces), where) == 0.0


@pytest.mark.parametrize("angle", [0.0, 1.0, 30.0, 90.0, 179.0])
def test_normal_difference_is_the_chord_of_the_angle(angle: float) -> None:
    """Two unit normals at an angle a differ by 2 sin(a / 2), smoothed: sqrt(4 sin^2(a / 2) + 0.01^2) - 0.01."""
    a = math.radians(angle)
    vertices = torch.tensor(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -math.cos(a), math.sin(a)]], dtype=torch.float64
    ).requires_grad_()
    faces, pairs = torch.tensor([[0, 1, 2], [0, 3, 1]]), torch.tensor([[0, 1]])
    found = normal_difference(vertices, faces, pairs)
    expected = math.hypot(2 * math.sin(a / 2), 0.01) - 0.01
    # float64: a dozen roundings of 1e-16 of numbers below 4, enlarged by at most 1 / 0.01 in the root near 0.
    assert float(found.detach()) == pytest.approx(expected, rel=0, abs=1e-12)
    found.backward()
    assert bool(vertices.grad.isfinite().all())


def test_one_crease_costs_no_more_than_its_angle_spread_over_a_bend() -> None:
    """A right angle at once costs 2 sin 45 degrees = 1.414; in nine bends of 10 degrees, 18 sin 5 degrees = 1.569."""

    def cost(bends: int) -> float:
        turn = math.radians(90 / bends)
        y = np.cumsum([0, *(math.cos(turn * k) for k in range(bends + 1))])
        z = np.cumsum([0, *(math.sin(turn * k) for k in range(bends + 1))])
        strip = np.stack([np.repeat([0.0, 1.0], len(y)), np.tile(y, 2), np.tile(z, 2)], axis=1)
        n = len(y)
        quads = [[(k, n + k, n + k + 1), (k, n + k + 1, k + 1)] for k in range(n - 1)]
        faces = np.array(quads).reshape(-1, 3)
        pairs = face_pairs(faces)
        return len(pairs) * float(
            normal_difference(torch.from_numpy(strip), torch.from_numpy(faces), torch.from_numpy(pairs))
        )

    # Smoothing takes 0.01 less a second-order term from each of the bends.
    assert cost(1) == pytest.approx(math.hypot(math.sqrt(2), 0.01) - 0.01, abs=1e-12)
    assert cost(9) == pytest.approx(9 * (math.hypot(2 * math.sin(math.radians(5)), 0.01) - 0.01), abs=1e-12)
    assert cost(1) < cost(9)
