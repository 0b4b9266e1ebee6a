# SPDX-License-Identifier: GPL-3.0-or-later
"""Short refinements of meshes towards known images of an egg, predicted by an oracle denoiser."""

from __future__ import annotations

import numpy as np
import torch

from dreamwright.backend.cameras.poses import Cameras
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import REFINE_PRESET
from dreamwright.backend.config.recipes.starter import REFINE
from dreamwright.backend.config.schema import Config
from dreamwright.backend.geometry.input_mesh import InputMesh, make_input_mesh
from dreamwright.backend.guidance.interfaces import Guidance
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.mesh_rendering.render import Topology, render_mesh
from dreamwright.backend.rendering.shading import Shading
from dreamwright.backend.scenes.mesh_scene import MeshScene
from dreamwright.backend.text.prompts import PromptEmbeddings
from dreamwright.backend.training.job import Job, make_job
from dreamwright.backend.training.trainer import Trainer
from tests.testing.oracles import KnownImages
from tests.testing.primitive_meshes import icosphere
from tests.testing.tiny_model import ONE_VIEW

SIZE = 32


def refine_config(*settings: str) -> Config:
    """The refine preset reduced to seconds, with albedo only on black, as in the oracle's images."""
    plain = [
        *ONE_VIEW,
        "run.steps=6",
        "run.checkpoint_interval=2",
        "run.preview_interval=3",
        f"render.resolution={SIZE}",
        "refine.supersampling=1",
    ]
    known = [
        "guidance.omega=0",
        "shading.shaded_probability=0",
        "background.random_min=0",
        "background.random_max=0",
        "background.random_any_share=0",
    ]
    return apply_settings(REFINE, [*plain, *known, *settings])


def ball(subdivisions: int = 3, shift: float = 0.0, size: float = 1.0, grey: float = 0.5) -> InputMesh:
    vertices, faces = icosphere(subdivisions, size)
    return make_input_mesh(vertices + shift, faces, np.full(vertices.shape, grey))


def egg_images(cameras: Cameras) -> torch.Tensor:
    """An ellipsoid of half-axes 0.42, 0.42 and 0.5, red above and blue below, on black: (n, 3, SIZE, SIZE)."""
    vertices, faces = icosphere(3, 0.5)
    colors = torch.from_numpy(np.where(vertices[:, 2:] > 0, [0.9, 0.2, 0.1], [0.1, 0.3, 0.8])).float()
    where = torch.from_numpy(vertices * [0.84, 0.84, 1.0]).float()
    topology = Topology.of(vertices, faces, 180.0)
    n = len(cameras)
    return render_mesh(
        topology, where, colors, torch.zeros(n, 3), cameras, [Shading()] * n, cameras.position, SIZE, 2
    ).image


def mesh_trainer(
    config: Config, guidance: Guidance, oracle: KnownImages, mesh: InputMesh, **options: object
) -> Trainer:
    prompts = PromptEmbeddings(oracle, "an egg", config.guidance)
    return Trainer(lambda seed: MeshScene(config, guidance, prompts, mesh, seed), config.run, **options)


def run_of(config: Config, oracle: KnownImages, mesh: InputMesh, **options: object) -> Trainer:
    return mesh_trainer(config, ScoreDistillation(oracle, config.guidance), oracle, mesh, **options)


def refine_job(config: Config, mesh: InputMesh) -> Job:
    return make_job("an egg", "oracle", REFINE_PRESET, config, input_mesh=mesh.digest())
