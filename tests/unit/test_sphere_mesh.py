# SPDX-License-Identifier: GPL-3.0-or-later
"""The sphere of clip-mesh and its regularizers in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dreamwright.backend.config.schema import SphereConfig
from dreamwright.backend.geometry.topology import (
    Surface,
    edges_of,
    euler_number,
    face_pairs,
    is_manifold,
    signed_volume,
)
from dreamwright.backend.guidance.clip_model import ImageTextModel
from dreamwright.backend.scenes.mesh_losses import bounds_penalty, normal_energy
from dreamwright.backend.scenes.sphere_scene import sphere_mesh
from tests.testing.clip_mesh_runs import sphere_scene
from tests.testing.primitive_meshes import cube, grid, tetrahedron


@pytest.mark.parametrize("subdivisions", [1, 3])
def test_sphere_is_round_closed_and_outward(subdivisions: int) -> None:
    """10 * 4^n + 2 vertices on the sphere; a closed manifold without handles; nearly 4 / 3 pi r^3, from below."""
    subject = sphere_mesh(SphereConfig(subdivisions=subdivisions, radius=0.3), 0)
    assert len(subject.vertices) == 10 * 4**subdivisions + 2 and len(subject.faces) == 20 * 4**subdivisions
    # float32 coordinates of up to 0.3 have a few roundings of 1.5e-8.
    assert np.linalg.norm(subject.unit, axis=1) == pytest.approx(0.3, abs=1e-7)
    assert is_manifold(subject.faces) and euler_number(subject.faces) == 2
    volume = signed_volume(Surface(subject.unit, subject.faces)) / (4 / 3 * math.pi * 0.3**3)
    # An icosahedron has 0.6054 of the volume, and halved edges leave a quarter of what is missing, or a little more.
    assert 1 - 0.6 / 4**subdivisions < volume < 1


def test_sphere_colors_are_smooth_noise_of_the_seed() -> None:
    """Mean and deviation as configured where nothing is clipped; neighbors are similar; without noise it is grey."""
    config = SphereConfig(subdivisions=4, color_noise=0.1)
    subject = sphere_mesh(config, 1)
    # The noise is normalized to the configured mean and deviation; float32 leaves 6e-8 of 0.5, in sums of 2,562.
    assert subject.display.mean(0) == pytest.approx(0.5, abs=1e-5)
    assert subject.display.std(0) == pytest.approx(0.1, abs=1e-5)
    one, other = subject.display[edges_of(subject.faces).T]
    # Vertices that are not neighbors are independent; a third of their difference tells smooth noise from white (1).
    assert np.abs(one - other).mean() < 0.35 * np.abs(subject.display - subject.display[::-1]).mean()
    assert np.array_equal(subject.albedo, sphere_mesh(config, 1).albedo) and not np.array_equal(
        subject.albedo, sphere_mesh(config, 2).albedo
    )
    assert sphere_mesh(SphereConfig(color_noise=0.0), 1).display == pytest.approx(0.5, abs=1e-6)  # float32 albedo


def test_normal_energy_of_known_angles() -> None:
    """Flat: 0. A tetrahedron's normals have cosine -1/3. Of a cube's 18 edges 12 are right angles."""
    for (vertices, faces), wanted in ((grid(3), 0.0), (tetrahedron(), 4 / 3), (cube(0.7), 12 / 18)):
        pairs = torch.from_numpy(face_pairs(faces))
        # float64: means of at most 20 cosines, a few roundings of 1.1e-16 each.
        assert float(normal_energy(torch.from_numpy(vertices), torch.from_numpy(faces), pairs)) == pytest.approx(
            wanted, abs=1e-12
        )
    vertices, faces = tetrahedron()
    assert len(face_pairs(faces)) == 6 and {tuple(sorted(pair)) for pair in face_pairs(faces).tolist()} == {
        (a, b) for a in range(4) for b in range(a + 1, 4)
    }
    assert len(face_pairs(np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))) == 0, (
        "an edge of three faces has no two neighbors"
    )


def test_bounds_penalty_counts_outside_vertices_only() -> None:
    where = torch.tensor([[0.0, 0, 0.8], [0.3, 0, 0], [0.0, -0.6, 0], [0.0, 0, 0]], dtype=torch.float64)
    assert float(bounds_penalty(where, 0.5)) == pytest.approx((0.09 + 0.01) / 4)
    where.requires_grad_()
    bounds_penalty(where, 0.5).backward()
    assert where.grad[1].abs().sum() == 0 and where.grad[0].tolist() == pytest.approx([0, 0, 2 * 0.3 / 4])
    moved = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pairs, faces = torch.from_numpy(face_pairs(tetrahedron()[1])), torch.from_numpy(tetrahedron()[1])
    assert torch.autograd.gradcheck(lambda x: normal_energy(x, faces, pairs) + bounds_penalty(x, 0.5), moved)


def test_laplacian_weight_falls_during_the_run(clip_model: ImageTextModel) -> None:
    """One vertex is displaced: only the Laplacian and the edges change, the first by its schedule."""
    shape = sphere_scene(
        clip_model,
        "refine.laplacian=3",
        "sphere.laplacian_end=1",
        "sphere.laplacian_share=0.5",
        "refine.edges=0",
        "refine.normals=0",
    )
    moves = torch.zeros_like(shape.rest)
    moves[0, 2] = 0.01
    start, figures = shape.penalties(moves)
    # The same float32 sum, times 3 and rounded again, and times 1 (with a schedule in float64).
    assert float(start) == pytest.approx(3 * figures["laplacian"], rel=5e-7) and figures["laplacian"] > 0
    shape.step = 3
    assert float(shape.penalties(moves)[0]) == pytest.approx(figures["laplacian"], rel=5e-7)
    at_rest = shape.penalties(torch.zeros_like(moves))[1]
    assert (
        at_rest["laplacian"] == 0 and at_rest["stretching"] == pytest.approx(0, abs=1e-12) and at_rest["outside"] == 0
    )
