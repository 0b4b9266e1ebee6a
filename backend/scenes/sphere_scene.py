# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP-Mesh (Khalid et al. 2022): a sphere whose vertices and colors a guidance turns into a prop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from ..cameras.poses import orbit_cameras
from ..config.schedules import linear
from ..config.schema import Config, SphereConfig
from ..geometry.build import Mesh, MeshReport
from ..geometry.color import display_to_linear
from ..geometry.input_mesh import RADIUS, InputMesh
from ..geometry.live_mesh import LiveMesh, live_mesh_of_surface
from ..geometry.topology import Surface, signed_volume
from ..guidance.interfaces import Guidance
from ..mesh_rendering.normals import face_cross
from ..mesh_rendering.visibility import nearest_faces, project
from ..text.prompts import PromptEmbeddings
from .large_steps import LargeStepsParameterization
from .mesh_losses import (
    bounds_penalty,
    edge_energy,
    laplacian_energy,
    normal_energy,
    uniform_laplacian,
)
from .mesh_scene import MeshScene
from .placed_mesh import current_colors, current_surface, placed_mesh
from .views import CHECK_AZIMUTHS, ORBIT_DISTANCE, ORBIT_ELEVATION, ORBIT_FOCAL

INSIDE_RESOLUTION = 64  # pixels a side of the views in which visible inner sides are counted


def sphere_mesh(config: SphereConfig, seed: int) -> InputMesh:
    """A subdivided icosahedron in scene units, faces outwards: no scaling, every vertex its own place.

    Colors are Gaussian noise of mean 0.5 and deviation `color_noise` in display sRGB, smoothed over
    `color_noise_stiffness`, cut off at 0 and 1.
    """
    ball = trimesh.creation.icosphere(subdivisions=config.subdivisions, radius=config.radius)
    vertices = np.ascontiguousarray(ball.vertices, np.float32)
    faces = np.ascontiguousarray(ball.faces, np.int32)
    noise = torch.randn(len(vertices), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    smoothing = LargeStepsParameterization(uniform_laplacian(faces, len(vertices)), config.color_noise_stiffness)
    patches = smoothing.plain(noise).numpy()
    display = 0.5 + config.color_noise * (patches - patches.mean(0)) / patches.std(0)
    albedo = display_to_linear(display.clip(0, 1)).astype(np.float32)
    return InputMesh(vertices, faces, albedo, vertices.astype(np.float64), np.arange(len(vertices)), 1.0)


class SphereScene(MeshScene):
    """A `MeshScene` of `sphere_mesh`, whose vertices may go far: only regularizers keep it a surface.

    Weighted: the Laplacian of the displacements, less as the run goes on; edge lengths against the sphere's; normals of
    neighboring faces; and what lies outside the radius that the cameras frame.
    """

    gentler = "a larger sphere.laplacian_end or refine.normals"

    def __init__(
        self,
        config: Config,
        guidance: Guidance,
        prompts: PromptEmbeddings,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        sphere = sphere_mesh(config.sphere, seed)
        super().__init__(config, guidance, prompts, sphere, seed, device)
        self.notices = (f"a sphere of {len(sphere.vertices)} vertices, {len(sphere.faces)} triangles",)
        # Grey vertices far from the brightest gradient need their color as well.
        self.optimizer.param_groups[1]["uniform"] = False

    def renders_untextured(self) -> bool:
        """In the first part of the run only: textureless views form the shape; afterwards colors have every view."""
        return self.progress < self.config.sphere.textureless_share

    def penalties(self, displacements: Tensor) -> tuple[Tensor, dict[str, float]]:
        """See `MeshScene.penalties`."""
        refine, sphere = self.config.refine, self.config.sphere
        vertices = self.rest + displacements
        laplacian = linear(refine.laplacian, sphere.laplacian_end, sphere.laplacian_share, self.progress)
        parts = {
            "laplacian": (laplacian, laplacian_energy(self._laplacian, displacements)),
            "stretching": (refine.edges, edge_energy(vertices, self._edges, self._lengths)),
            "bending": (refine.normals, normal_energy(vertices, self.topology.faces, self._pairs)),
            "outside": (sphere.outside, bounds_penalty(vertices, RADIUS)),
        }
        total = torch.zeros((), device=self.device)
        for weight, value in parts.values():
            total = total + weight * value
        return total, {name: float(value.detach()) for name, (_, value) in parts.items()}

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Those of `MeshScene`, and inside: the share of the prop's pixels that see the surface from within."""
        vertices, faces = self.rest + self.displacements(), self.topology.faces
        cameras = orbit_cameras(CHECK_AZIMUTHS, ORBIT_ELEVATION, ORBIT_DISTANCE, ORBIT_FOCAL).to(self.device)
        seen = nearest_faces(project(vertices, cameras, INSIDE_RESOLUTION), faces, INSIDE_RESOLUTION).face
        view, face = (seen >= 0).nonzero(as_tuple=True)[0], seen[seen >= 0]
        towards = cameras.position.to(vertices)[view] - vertices[faces[face, 0]]
        within = (face_cross(vertices, faces)[face] * towards).sum(-1) < 0
        return {**super().figures(), "inside": float(within.float().mean()) if len(within) else 0.0}

    def live_mesh(self) -> LiveMesh:
        """See `Scene.live_mesh`."""
        return live_mesh_of_surface(self._outward_surface(), current_colors(self), self.config.mesh.height_m)

    def _outward_surface(self) -> Surface:
        """The surface as it is; when it has turned inside out, all its faces are flipped."""
        surface = current_surface(self)
        if signed_volume(surface) < 0:
            return Surface(surface.vertices, surface.faces[:, ::-1].copy())
        return surface

    def to_mesh(
        self, progress: Callable[[float], None] = lambda share: None, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Mesh, MeshReport]:
        """The sphere as it is, in meters and standing on its base; made at once.

        It has the sphere's faces, so it is always closed and a manifold; when it has turned inside out, all are
        flipped.
        """
        surface = self._outward_surface()
        figures = self.figures()
        return placed_mesh(self, surface, folded=figures["folded"], inside=figures["inside"])

    def provenance(self) -> Mapping[str, Any]:
        """See `Scene.provenance`."""
        return {}
