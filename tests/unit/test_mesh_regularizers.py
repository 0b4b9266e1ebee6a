# SPDX-License-Identifier: GPL-3.0-or-later
"""The penalties of mesh refinement without a guidance's gradient: what they keep, pull back and flatten."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamwright.backend.geometry.input_mesh import make_input_mesh
from dreamwright.backend.guidance.interfaces import GuidanceResult
from dreamwright.backend.training.events import StepCompleted
from tests.testing.egg_runs import SIZE, egg_images, mesh_trainer, refine_config
from tests.testing.oracles import KnownImages
from tests.testing.primitive_meshes import grid, icosphere


@pytest.fixture
def oracle() -> KnownImages:
    return KnownImages(egg_images, SIZE)


class ZeroGuidance:
    """A guidance whose gradient is zero."""

    def gradient(self, image, cameras, conditioning, generator, progress):
        return GuidanceResult(torch.zeros_like(image), {})


@pytest.mark.parametrize("shape", ["grid", "ball"])
def test_regularizers_alone_change_nothing(oracle: KnownImages, shape: str) -> None:
    """They penalize changes of the input mesh, not its shape: a flat grid stays flat and a ball does not shrink."""
    vertices, faces = grid(8) if shape == "grid" else icosphere(2, 1.0)
    subject = make_input_mesh(vertices, faces, np.full(vertices.shape, 0.4))
    config = refine_config("refine.strength=1", "run.steps=20")
    run = mesh_trainer(config, ZeroGuidance(), oracle, subject)
    for _ in run:
        pass
    mesh, _ = run.scene.to_mesh()
    assert np.array_equal(mesh.vertices, subject.vertices) and np.array_equal(mesh.albedo, subject.albedo)


def test_regularizers_pull_a_disturbed_mesh_back(oracle: KnownImages) -> None:
    vertices, faces = grid(8)
    config = refine_config("refine.strength=1", "run.steps=60", "refine.stiffness=0", "refine.position_rate=0.02")
    run = mesh_trainer(config, ZeroGuidance(), oracle, make_input_mesh(vertices, faces, np.full(vertices.shape, 0.4)))
    with torch.no_grad():
        run.scene.vertex_offsets[40, 2] = 0.1
    for _ in run:
        pass
    # 60 steps of at most 0.02 could move it 1.2; less than a third of 0.1 is left.
    assert float(run.scene.displacements().detach()[:, 2].abs().max()) < 0.03


def test_normal_term_flattens_a_rough_surface(oracle: KnownImages) -> None:
    """Without a guidance's gradient the term alone moves the vertices, so its energy falls; at weight 0 they stay."""
    vertices, faces = icosphere(3, 0.5)
    rough = vertices * (1 + 0.03 * np.random.default_rng(0).standard_normal((len(vertices), 1)))
    mesh = make_input_mesh(rough, faces, np.full(vertices.shape, 0.5))

    def energies(weight: float) -> list[float]:
        only = ["run.steps=20", "refine.laplacian=0", "refine.edges=0", "refine.stiffness=0"]
        run = mesh_trainer(refine_config(*only, f"refine.normals={weight}"), ZeroGuidance(), oracle, mesh)
        scalars = [event.scalars for event in run if isinstance(event, StepCompleted)]
        assert (weight > 0) == bool(run.scene.displacements().abs().max() > 0)
        return [step["bending"] for step in scalars if "bending" in step]

    assert energies(0) == []
    falling = energies(10)
    assert len(falling) == 20 and falling[-1] < 0.8 * falling[0]  # 20 of 300 steps: far from the smoothest surface
